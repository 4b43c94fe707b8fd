//! Starting a call server, and the handle of a running server.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plimsoll_sync::permits::{Load, MAX_BYTES, MAX_COUNT};
use ractor::concurrency::JoinHandle;
use ractor::{Actor, ActorCell, ActorRef, SpawnErr};

use super::call_table::Outcome;
use super::counters::MethodTimings;
use super::deadline::DeadlineTask;
use super::limits::{Limits, Weigh};
use super::router::Router;
use super::service::ServiceHost;
use super::shared::{Notified, Shared};
use super::{CallClient, OnCallerExit, Protocol, Service, Worker};
use crate::inspect::{Details, Inspect, Metric};
use crate::supervisor::{Child, StopDeadline, child_span};

/// A server that runs each call in a worker of its own.
///
/// ```
/// # use plimsoll::call::{CallContext, CallError, CallServer, Service};
/// # struct Double;
/// # impl Service for Double {
/// #     type Request = u32; type Reply = u32; type Error = std::convert::Infallible;
/// #     async fn call(&self, _: CallContext, n: u32) -> Result<u32, Self::Error> { Ok(2 * n) }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = CallServer::builder(Double).max_in_flight(100).start().await?;
/// assert_eq!(server.client().call(21).await, Ok(42));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct CallServer;

impl CallServer {
    /// A server for `service`, not started yet.
    pub fn builder<S: Service>(service: S) -> CallServerBuilder<S> {
        CallServerBuilder {
            service,
            name: None,
            load: Load { count: 1_024, bytes: MAX_BYTES },
            queue: 0,
            weigh: None,
            deadline: Duration::from_secs(5),
            worker: Worker::default(),
            serve_queued: true,
            on_caller_exit: OnCallerExit::default(),
        }
    }
}

/// How a call server is to be started.
/// ```
/// use std::time::Duration;
/// use plimsoll::call::{CallContext, CallServer, Service, Worker};
///
/// struct Double;
///
/// impl Service for Double {
///     type Request = u32;
///     type Reply = u32;
///     type Error = std::convert::Infallible;
///
///     async fn call(&self, _: CallContext, n: u32) -> Result<u32, Self::Error> {
///         Ok(2 * n)
///     }
/// }
///
/// // 100 calls at once, 10 callers that wait, a task instead of an actor for each call.
/// let double = CallServer::builder(Double)
///     .max_in_flight(100)
///     .queue(10)
///     .deadline(Duration::from_millis(200))
///     .worker(Worker::Task);
/// # drop(double);
/// ```
#[must_use = "a server runs once it is started"]
pub struct CallServerBuilder<S: Service> {
    service: S,
    name: Option<String>,
    load: Load,
    queue: u32,
    weigh: Option<Weigh<S>>,
    deadline: Duration,
    worker: Worker,
    serve_queued: bool,
    on_caller_exit: OnCallerExit,
}

impl<S: Service> CallServerBuilder<S> {
    /// The name under which ractor's registry knows the server. Default: none.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// How many calls may be in flight, workers that overrun included. Default: 1,024. At least one, at most
    /// 8,388,607.
    pub fn max_in_flight(mut self, count: u32) -> Self {
        self.load.count = count.clamp(1, MAX_COUNT);
        self
    }

    /// How many bytes the requests in flight may hold, as `weigh` returns them. Default: requests are not weighed.
    pub fn max_bytes(mut self, bytes: u64, weigh: impl Fn(&S::Request) -> u64 + Send + Sync + 'static) -> Self {
        self.load.bytes = bytes.min(MAX_BYTES);
        self.weigh = Some(Box::new(weigh));
        self
    }

    /// How many callers may wait for a permit, first come first served, each until its deadline. Default: 0, a call
    /// without a permit is refused at once.
    pub fn queue(mut self, callers: u32) -> Self {
        self.queue = callers;
        self
    }

    /// The deadline of a call that names none. Default: 5 s, as in OTP.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Which kind of worker serves a call. Default: an actor.
    pub fn worker(mut self, worker: Worker) -> Self {
        self.worker = worker;
        self
    }

    /// Whether a stop still serves calls that were let in and have no worker yet. Default: yes. Otherwise they end as
    /// [`CallError::ShuttingDown`](super::CallError::ShuttingDown), and those with a worker are served.
    pub fn serve_queued_on_stop(mut self, serve: bool) -> Self {
        self.serve_queued = serve;
        self
    }

    /// What happens to a begun call when its caller leaves. Default: [`OnCallerExit::Cancel`]. A client can override it with
    /// [`CallClient::on_caller_exit`].
    pub fn on_caller_exit(mut self, on_caller_exit: OnCallerExit) -> Self {
        self.on_caller_exit = on_caller_exit;
        self
    }

    /// Starts it unlinked: a root.
    ///
    /// # Errors
    /// ractor's, when the name is taken.
    ///
    /// Cancel safe: a start that is given up leaves nothing behind.
    pub async fn start(self) -> Result<StartedServer<S>, SpawnErr> {
        let (name, router) = self.router();
        let shared = Arc::clone(&router.shared);
        let (actor, ended) = Router::spawn(name, router, ()).await?;
        Ok(StartedServer { actor, ended, shared })
    }

    /// Starts it as a child of `parent`.
    ///
    /// # Errors
    /// ractor's, when the name is taken or the parent is stopping.
    ///
    /// Cancel safe: a start that is given up leaves nothing behind.
    pub async fn start_linked(self, parent: ActorCell) -> Result<StartedServer<S>, SpawnErr> {
        let (name, router) = self.router();
        let shared = Arc::clone(&router.shared);
        let (actor, ended) = Router::spawn_linked(name, router, (), parent).await?;
        Ok(StartedServer { actor, ended, shared })
    }

    fn router(self) -> (Option<String>, Router<S>) {
        let limits = Limits {
            load: self.load,
            queue: self.queue,
            deadline: self.deadline,
            weigh: self.weigh,
            on_caller_exit: self.on_caller_exit,
        };
        let host = ServiceHost {
            service: self.service,
            timings: MethodTimings::default(),
            stop_deadline: StopDeadline::default(),
            span: child_span(),
        };
        let router = Router {
            shared: Arc::new(Shared::new(host, limits)),
            worker: self.worker,
            serve_queued: self.serve_queued,
            deadline_task: DeadlineTask::default(),
        };
        (self.name, router)
    }
}

impl<S: Service> fmt::Debug for CallServerBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallServerBuilder")
            .field("name", &self.name)
            .field("load", &self.load)
            .field("queue", &self.queue)
            .field("deadline", &self.deadline)
            .field("worker", &self.worker)
            .finish_non_exhaustive()
    }
}

/// A running server, as its start hands it over. Goes into a [`Child`] with its counters and its client.
///
/// Dropping this does not stop the server.
pub struct StartedServer<P: Protocol> {
    pub(crate) actor: ActorRef<Notified>,
    pub(crate) ended: JoinHandle<()>,
    pub(crate) shared: Arc<Shared<P>>,
}

impl<P: Protocol> StartedServer<P> {
    /// A client for it.
    pub fn client(&self) -> CallClient<P> {
        CallClient::new(Arc::clone(&self.shared))
    }

    /// Its actor: to stop it, kill it, wait for it.
    pub fn actor(&self) -> ActorCell {
        self.actor.get_cell()
    }

    /// Its counters, readable at any time, also after its end.
    pub fn inspector(&self) -> Arc<dyn Inspect> {
        Arc::clone(&self.shared) as Arc<dyn Inspect>
    }

    /// Waits until its task has ended.
    ///
    /// Cancel safe: waiting again is allowed only before it has ended.
    pub async fn ended(&mut self) {
        let _ = (&mut self.ended).await;
    }
}

impl<P: Protocol> From<StartedServer<P>> for Child {
    fn from(started: StartedServer<P>) -> Self {
        let client = started.client();
        let inspect = started.inspector();
        let current_message = P::current_message(&started.shared.host);
        let child = Child::new(started.actor.get_cell(), started.ended)
            .inspect(inspect)
            .value(client)
            .stop_deadline(P::stop_deadline(&started.shared.host));
        match current_message {
            Some(current_message) => child.current_message(current_message),
            None => child,
        }
    }
}

impl<P: Protocol> fmt::Debug for StartedServer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartedServer").field("actor", &self.actor.get_id()).finish_non_exhaustive()
    }
}

/// `started`, `settled`, `settled_<outcome>`, `in_flight`, `timers`, `bound_callers`, `permits_used`, `permits_limit`,
/// `bytes_used`, `waiting`, `workers`, `overrunning`, `late_replies`, `left_to_finish`, `worker_failures`, `refused_<reason>`, `casts`,
/// `casts_handled`, `casts_dropped`, `casts_refused`,
/// `method_<name>_runs`, and of one run in eight `method_<name>_timed`, `method_<name>_ns`, `method_<name>_max_ns`.
///
/// `started = settled + in_flight` holds in every reading.
impl<P: Protocol> Inspect for Shared<P> {
    fn inspect(&self) -> Details {
        let (tally, in_flight, timers, callers) = {
            let table = &mut self.calls.lock().table;
            (table.tally(), table.in_flight() as u64, table.timers() as u64, table.callers().len() as u64)
        };
        let refused = self.refusals.read();
        let refused_in_all: u64 = refused.iter().map(|(_, _, count)| count).sum();
        let mut details = Details::default();
        let metrics = &mut details.counters;
        for (outcome, name) in Outcome::ALL {
            let at_admission: u64 = refused.iter().filter(|(_, as_, _)| *as_ == outcome).map(|(_, _, n)| n).sum();
            metrics.insert(format!("settled_{name}"), Metric::counter(tally.settled[outcome as usize] + at_admission));
        }
        for (reason, _, count) in refused {
            metrics.insert(format!("refused_{reason}"), Metric::counter(count));
        }
        let (used, limit) = (self.gate.used(), self.gate.limit());
        let gauges = &self.gauges;
        let counted = |count: &AtomicU64| Metric::counter(count.load(Ordering::Relaxed));
        let now = |count: &AtomicU64| Metric::gauge(count.load(Ordering::Relaxed));
        metrics.extend([
            ("started", Metric::counter(tally.started + refused_in_all)),
            ("settled", Metric::counter(tally.settled_in_all() + refused_in_all)),
            ("in_flight", Metric::gauge(in_flight)),
            ("timers", Metric::gauge(timers)),
            ("bound_callers", Metric::gauge(callers)),
            ("permits_used", Metric::gauge(u64::from(used.count))),
            ("permits_limit", Metric::gauge(u64::from(limit.count))),
            ("bytes_used", Metric::gauge(used.bytes).bytes()),
            ("waiting", Metric::gauge(self.gate.waiting() as u64)),
            ("workers", now(&gauges.workers)),
            ("overrunning", now(&gauges.overrunning)),
            ("late_replies", counted(&gauges.late)),
            ("left_to_finish", counted(&gauges.left_to_finish)),
            ("worker_failures", counted(&gauges.worker_failures)),
            ("casts", counted(&gauges.casts)),
            ("casts_handled", counted(&gauges.casts_handled)),
            ("casts_dropped", counted(&gauges.casts_dropped)),
            ("casts_refused", counted(&gauges.casts_refused)),
        ]);
        P::describe(&self.host, metrics);
        details
    }
}

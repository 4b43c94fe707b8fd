//! The workers of requests: listing, publishing, advertising and subscribing each end in a worker of a call server, as calls
//! do. A call itself has its worker on the node that serves it.
//!
//! Admission, deadline, panic isolation and counters are those of [`CallServer`]. Two servers run them: one for short
//! requests, one for subscriptions, which last as long as their clients want.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use futures::future::BoxFuture;
use plimsoll::call::{CallClient, CallContext, CallError, CallServer, Died, Service};
use plimsoll::exit::ExitReason;
use plimsoll::inspect::{Details, Inspect, Metric};
use plimsoll::ractor::{ActorCell, SpawnErr};
use plimsoll::supervisor::Child;

use super::request_failure::RequestFailure;
use super::response::{HttpProblem, HttpResponse};
use crate::problem::{Code, Problem};

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WorkerKind {
    ListServices,
    ListNodes,
    Publish,
    Advertise,
    Withdraw,
    Subscribe,
}

impl WorkerKind {
    const ALL: [Self; 6] =
        [Self::ListServices, Self::ListNodes, Self::Publish, Self::Advertise, Self::Withdraw, Self::Subscribe];

    const fn name(self) -> &'static str {
        match self {
            Self::ListServices => "list_services",
            Self::ListNodes => "list_nodes",
            Self::Publish => "publish",
            Self::Advertise => "advertise",
            Self::Withdraw => "withdraw",
            Self::Subscribe => "subscribe",
        }
    }
}

/// How a worker ended well.
#[derive(Debug)]
pub(super) enum Served {
    /// The response to send.
    Response(HttpResponse),
    /// The worker has sent the response itself, and the client got the end of it.
    Streamed,
    /// The client left while the worker sent the response.
    Cancelled,
}

/// The work of one request.
pub(super) struct Job {
    pub(super) kind: WorkerKind,
    pub(super) work: BoxFuture<'static, Result<Served, HttpProblem>>,
}

/// A server of workers, for a supervisor. Cloning shares it.
#[derive(Clone)]
pub(super) struct RequestWorkers(Arc<Shared>);

struct Shared {
    max_workers: u32,
    client: ArcSwapOption<CallClient<Workers>>,
    running: [AtomicU64; WorkerKind::ALL.len()],
}

/// The service that the call server runs.
pub(super) struct Workers(Arc<Shared>);

impl RequestWorkers {
    pub(super) fn new(max_workers: u32) -> Self {
        Self(Arc::new(Shared { max_workers, client: ArcSwapOption::empty(), running: Default::default() }))
    }

    /// Starts the server as a child of `parent`.
    pub(super) async fn start(&self, parent: ActorCell) -> Result<Child, SpawnErr> {
        let server = CallServer::builder(Workers(Arc::clone(&self.0))).max_in_flight(self.0.max_workers);
        let started = server.start_linked(parent).await?;
        self.0.client.store(Some(Arc::new(started.client())));
        let inspect = WorkersInspector { server: started.inspector(), shared: Arc::clone(&self.0) };
        Ok(Child::from(started).inspect(Arc::new(inspect)))
    }

    /// Runs `job` in a worker, for at most `deadline`.
    ///
    /// Cancel safe: the worker is stopped.
    pub(super) async fn run(&self, job: Job, deadline: Duration) -> Result<Served, RequestFailure> {
        let Some(client) = self.0.client.load_full() else { return Err(not_running().into()) };
        client.call_by(job, Instant::now() + deadline).await.map_err(|error| match error {
            CallError::App(problem) => RequestFailure::Problem(problem),
            CallError::Overloaded(_) => Problem::new(Code::Overloaded, "the gateway has no worker to spare").into(),
            CallError::Timeout => Problem::new(Code::Deadline, "the request took too long").into(),
            CallError::Died(Died::Exit(ExitReason::Failed(failure))) => {
                Problem::new(Code::WorkerPanicked, format!("the worker failed: {failure}")).into()
            }
            CallError::ShuttingDown | CallError::Died(Died::NoProcess) => not_running().into(),
            error => Problem::new(Code::WorkerDied, error.to_string()).into(),
        })
    }
}

fn not_running() -> Problem {
    Problem::new(Code::ShuttingDown, "the gateway's workers are not running")
}

impl Service for Workers {
    type Request = Job;
    type Reply = Served;
    type Error = Box<HttpProblem>;

    async fn call(&self, _: CallContext, job: Job) -> Result<Served, Box<HttpProblem>> {
        let _running = Running::begin(&self.0.running[job.kind as usize]);
        job.work.await.map_err(Box::new)
    }

    fn method(job: &Job) -> &'static str {
        job.kind.name()
    }
}

/// Counts a worker while it runs, however it ends.
struct Running<'a>(&'a AtomicU64);

impl<'a> Running<'a> {
    fn begin(running: &'a AtomicU64) -> Self {
        running.fetch_add(1, Relaxed);
        Self(running)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// The counters of the call server, and the workers that run by their kind.
struct WorkersInspector {
    server: Arc<dyn Inspect>,
    shared: Arc<Shared>,
}

impl Inspect for WorkersInspector {
    fn inspect(&self) -> Details {
        let mut details = self.server.inspect();
        for kind in WorkerKind::ALL {
            let running = self.shared.running[kind as usize].load(Relaxed);
            if running > 0 {
                details.counters.insert(format!("workers_{}", kind.name()), Metric::gauge(running));
            }
        }
        details
    }
}

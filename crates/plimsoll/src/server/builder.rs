//! Starting a server.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use plimsoll_sync::permits::{Load, MAX_BYTES, MAX_COUNT};
use ractor::{Actor, ActorCell, SpawnErr};
use tracing::Instrument;

use super::GenServer;
use super::actor::{ServerActor, Starting};
use super::protocol::{ServerHost, ServerProtocol};
use crate::call::deadline::DeadlineTask;
use crate::call::limits::{Limits, Weigh};
use crate::call::shared::Shared;
use crate::call::{OnCallerExit, StartedServer};
use crate::supervisor::child_path;

/// A server with the initial state `server`, not started yet.
///
/// See the [module](super) for an example.
pub fn builder<S: GenServer>(server: S) -> ServerBuilder<S> {
    ServerBuilder {
        server,
        name: None,
        load: Load { count: 1_024, bytes: MAX_BYTES },
        queue: 0,
        weigh: None,
        deadline: Duration::from_secs(5),
        idle: None,
        timers: 256,
        requests: 256,
        monitors: 1_024,
        on_caller_exit: OnCallerExit::default(),
        serve_queued: true,
    }
}

/// How a server is to be started.
/// ```
/// use std::time::Duration;
/// use plimsoll::server::{self, BoxError, Context, Server};
///
/// struct Counter(u64);
///
/// impl Server for Counter {
///     type Call = u64;
///     type Reply = u64;
///
///     async fn call(&mut self, add: u64, _: &mut Context<Self>) -> Result<u64, BoxError> {
///         self.0 += add;
///         Ok(self.0)
///     }
/// }
///
/// // 100 calls in the mailbox, 10 callers that wait for a place, each call 200 ms.
/// let counter = server::builder(Counter(0)).mailbox(100).queue(10).deadline(Duration::from_millis(200));
/// # drop(counter);
/// ```
#[must_use = "a server runs once it is started"]
pub struct ServerBuilder<S: GenServer> {
    server: S,
    name: Option<String>,
    load: Load,
    queue: u32,
    weigh: Option<Weigh<ServerProtocol<S>>>,
    deadline: Duration,
    idle: Option<Duration>,
    timers: u32,
    requests: u32,
    monitors: u32,
    on_caller_exit: OnCallerExit,
    serve_queued: bool,
}

impl<S: GenServer> ServerBuilder<S> {
    /// The name under which ractor's registry knows the server. Default: none.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// How many calls and casts may be in its mailbox, calls with a reply still owed included. Default: 1,024. At
    /// least one, at most 8,388,607.
    pub fn mailbox(mut self, count: u32) -> Self {
        self.load.count = count.clamp(1, MAX_COUNT);
        self
    }

    /// How many bytes the calls in its mailbox may hold, as `weigh` returns them. Default: calls are not weighed.
    pub fn max_bytes(mut self, bytes: u64, weigh: impl Fn(&S::Call) -> u64 + Send + Sync + 'static) -> Self {
        self.load.bytes = bytes.min(MAX_BYTES);
        self.weigh = Some(Box::new(weigh));
        self
    }

    /// How many callers may wait for a place in the mailbox, each until its deadline. Default: 0.
    pub fn queue(mut self, callers: u32) -> Self {
        self.queue = callers;
        self
    }

    /// The deadline of a call that names none. Default: 5 s, as in OTP.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// After how long without anything to do [`GenServer::idle`] is called. Default: never.
    pub fn idle(mut self, after: Duration) -> Self {
        self.idle = Some(after);
        self
    }

    /// How many timers of its own it may have. Default: 256.
    pub fn timers(mut self, count: u32) -> Self {
        self.timers = count;
        self
    }

    /// How many requests of its own may be open. Default: 256.
    pub fn requests(mut self, count: u32) -> Self {
        self.requests = count;
        self
    }

    /// How many monitors of other actors it may have. Default: 1,024.
    pub fn monitors(mut self, count: u32) -> Self {
        self.monitors = count;
        self
    }

    /// What happens to a begun call when its caller leaves: with [`OnCallerExit::Finish`] it stays open until its reply or
    /// its deadline. The handler runs on in any case. Default: [`OnCallerExit::Cancel`].
    pub fn on_caller_exit(mut self, on_caller_exit: OnCallerExit) -> Self {
        self.on_caller_exit = on_caller_exit;
        self
    }

    /// Whether a stop still serves what was in the mailbox. Default: yes, as an OTP server that traps exits. Otherwise
    /// those calls end as [`CallError::ShuttingDown`](crate::call::CallError::ShuttingDown).
    pub fn serve_queued_on_stop(mut self, serve: bool) -> Self {
        self.serve_queued = serve;
        self
    }

    /// Starts it unlinked: a root.
    ///
    /// # Errors
    /// ractor's, when the name is taken or `init` fails.
    ///
    /// Cancel safe: a start that is given up leaves nothing behind.
    pub async fn start(self) -> Result<StartedServer<ServerProtocol<S>>, SpawnErr> {
        self.start_with(None).await
    }

    /// Starts it as a child of `parent`.
    ///
    /// # Errors
    /// ractor's, when the name is taken, `init` fails or the parent is stopping.
    ///
    /// Cancel safe: a start that is given up leaves nothing behind.
    pub async fn start_linked(self, parent: ActorCell) -> Result<StartedServer<ServerProtocol<S>>, SpawnErr> {
        self.start_with(Some(parent)).await
    }

    async fn start_with(self, parent: Option<ActorCell>) -> Result<StartedServer<ServerProtocol<S>>, SpawnErr> {
        let limits = Limits {
            load: self.load,
            queue: self.queue,
            deadline: self.deadline,
            weigh: self.weigh,
            on_caller_exit: self.on_caller_exit,
        };
        let host = ServerHost::new(self.timers, self.requests, self.monitors);
        let shared = Arc::new(Shared::new(host, limits));
        let starting = Arc::new(Mutex::new(Starting::New(self.server)));
        let actor = ServerActor {
            shared: Arc::clone(&shared),
            deadline_task: DeadlineTask::default(),
            serve_queued: self.serve_queued,
            starting: Arc::clone(&starting),
        };
        let (actor, ended) = match parent {
            Some(parent) => ServerActor::spawn_linked(self.name, actor, (), parent).await?,
            None => ServerActor::spawn(self.name, actor, ()).await?,
        };
        let initialized = starting.lock().take();
        let Starting::Initialized(mut event_loop) = initialized else {
            unreachable!("an actor that has started has initialized its server")
        };
        event_loop.idle = self.idle;
        let child = child_path::span_of(actor.get_id());
        let span = child.in_scope(|| tracing::info_span!("Actor", id = %actor.get_id(), name = actor.get_name()));
        // The loop ends after the actor, so that its handle says when everything is gone.
        let ended = tokio::spawn(event_loop.run(ended).instrument(span).instrument(child));
        shared.host.event_loop_started(ended.abort_handle());
        Ok(StartedServer { actor, ended, shared })
    }
}

impl<S: GenServer> fmt::Debug for ServerBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder").field("name", &self.name).field("load", &self.load).finish_non_exhaustive()
    }
}

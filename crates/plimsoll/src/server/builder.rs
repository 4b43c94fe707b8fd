//! Starting a server.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use plimsoll_sync::permits::{Load, MAX_BYTES, MAX_COUNT};
use ractor::{Actor, ActorCell, SpawnErr};

use super::actor::ServerActor;
use super::turns::Turns;
use super::{Server, Serving};
use crate::call::StartedServer;
use crate::call::clock::Clock;
use crate::call::shared::{Limits, Shared, Weigh};

/// A server of kind `S` that will start with `args`.
pub fn builder<S: Server>(args: S::Args) -> ServerBuilder<S> {
    ServerBuilder {
        args,
        name: None,
        load: Load { count: 1_024, bytes: MAX_BYTES },
        queue: 0,
        weigh: None,
        deadline: Duration::from_secs(5),
        idle: None,
        timers: 256,
        requests: 256,
        serve_queued: true,
    }
}

/// How a server is to be started.
#[must_use = "a server runs once it is started"]
pub struct ServerBuilder<S: Server> {
    args: S::Args,
    name: Option<String>,
    load: Load,
    queue: u32,
    weigh: Option<Weigh<Serving<S>>>,
    deadline: Duration,
    idle: Option<Duration>,
    timers: u32,
    requests: u32,
    serve_queued: bool,
}

impl<S: Server> ServerBuilder<S> {
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

    /// How many bytes the calls in its mailbox may hold, as told by `weigh`. Default: calls are not weighed.
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

    /// After how long without anything to do [`Server::idle`] is called. Default: never.
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
    pub async fn start(self) -> Result<StartedServer<Serving<S>>, SpawnErr> {
        let (name, server) = self.actor();
        let shared = Arc::clone(&server.shared);
        let (actor, ended) = ServerActor::spawn(name, server, ()).await?;
        Ok(StartedServer { actor, ended, shared })
    }

    /// Starts it as a child of `parent`.
    ///
    /// # Errors
    /// ractor's, when the name is taken, `init` fails or the parent is stopping.
    ///
    /// Cancel safe: a start that is given up leaves nothing behind.
    pub async fn start_linked(self, parent: ActorCell) -> Result<StartedServer<Serving<S>>, SpawnErr> {
        let (name, server) = self.actor();
        let shared = Arc::clone(&server.shared);
        let (actor, ended) = ServerActor::spawn_linked(name, server, (), parent).await?;
        Ok(StartedServer { actor, ended, shared })
    }

    fn actor(self) -> (Option<String>, ServerActor<S>) {
        let limits = Limits { load: self.load, queue: self.queue, deadline: self.deadline, weigh: self.weigh };
        let actor = ServerActor {
            shared: Arc::new(Shared::new(Turns::new(self.timers, self.requests), limits)),
            clock: Clock::default(),
            args: Mutex::new(Some(self.args)),
            live: Mutex::new(None),
            idle: self.idle,
            serve_queued: self.serve_queued,
        };
        (self.name, actor)
    }
}

impl<S: Server> fmt::Debug for ServerBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder").field("name", &self.name).field("load", &self.load).finish_non_exhaustive()
    }
}

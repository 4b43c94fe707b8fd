//! What a worker knows about the call that it serves.

use std::fmt;
use std::time::Duration;

use ractor::{ActorCell, ActorId};
use tokio::time::Instant;

use super::{CallClient, Protocol};

/// The surroundings of one call: its deadline, its caller, the actor that serves it.
#[derive(Clone)]
pub struct CallContext {
    pub(crate) deadline: Instant,
    pub(crate) worker: Option<ActorCell>,
    pub(crate) caller: Option<ActorId>,
    /// Tells the server that this call runs in from all others, and the call from all others of that server.
    pub(crate) server: usize,
    pub(crate) call: u64,
}

impl CallContext {
    /// When this call ends with a time-out, if nothing ends it earlier.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The time that is left, zero when there is none.
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// The actor that serves this call, to which further actors can be linked; `None` under
    /// [`Worker::Task`](super::Worker::Task).
    pub fn worker(&self) -> Option<&ActorCell> {
        self.worker.as_ref()
    }

    /// The actor that the caller was bound to, if it was.
    pub fn caller(&self) -> Option<ActorId> {
        self.caller
    }

    /// `client` for calls made on behalf of this one: their deadline is never later than this call's, and they are
    /// bound to the worker, if that is an actor.
    #[must_use]
    pub fn client<P: Protocol>(&self, client: &CallClient<P>) -> CallClient<P> {
        let client = client.within(self.deadline).inside(self.server, self.call);
        match &self.worker {
            Some(worker) => client.bind(worker),
            None => client,
        }
    }
}

impl fmt::Debug for CallContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallContext")
            .field("deadline", &self.deadline)
            .field("worker", &self.worker.as_ref().map(ActorCell::get_id))
            .field("caller", &self.caller)
            .finish()
    }
}

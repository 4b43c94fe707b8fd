//! A started child, as its start function hands it over.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use ractor::concurrency::JoinHandle;
use ractor::{ActorCell, ActorRef};

use crate::inspect::Inspect;

/// A running, linked actor on its way to its supervisor.
///
/// What `ractor::Actor::spawn_linked` returns converts into it, so that an existing actor needs no change.
pub struct Child {
    pub(crate) actor: ActorCell,
    pub(crate) ended: JoinHandle<()>,
    pub(crate) inspect: Option<Arc<dyn Inspect>>,
    pub(crate) value: Option<Arc<dyn Any + Send + Sync>>,
}

impl Child {
    /// A child from its actor and the handle of the actor's task.
    pub fn new(actor: ActorCell, ended: JoinHandle<()>) -> Self {
        Self { actor, ended, inspect: None, value: None }
    }

    /// Lets the child show its counters and children in the snapshot.
    #[must_use]
    pub fn inspect(mut self, inspect: Arc<dyn Inspect>) -> Self {
        self.inspect = Some(inspect);
        self
    }

    /// A value for whoever asked for the start (OTP's `{ok, Child, Info}`).
    #[must_use]
    pub fn value<T: Any + Send + Sync>(mut self, value: T) -> Self {
        self.value = Some(Arc::new(value));
        self
    }
}

impl<M> From<(ActorRef<M>, JoinHandle<()>)> for Child {
    fn from((actor, ended): (ActorRef<M>, JoinHandle<()>)) -> Self {
        Self::new(actor.get_cell(), ended)
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child").field("actor", &self.actor.get_id()).finish_non_exhaustive()
    }
}

//! A running server.

use std::fmt;
use std::sync::Arc;

use ractor::concurrency::JoinHandle;
use ractor::{ActorCell, ActorRef};

use super::shared::{Bell, Shared};
use super::{CallClient, Protocol};
use crate::inspect::Inspect;
use crate::supervisor::Child;

/// A running server, as its start hands it over. Goes into a [`Child`] with its counters and its client.
///
/// Dropping this does not stop the server.
pub struct StartedServer<P: Protocol> {
    pub(crate) actor: ActorRef<Bell>,
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
        let child = Child::new(started.actor.get_cell(), started.ended).inspect(inspect).value(client);
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

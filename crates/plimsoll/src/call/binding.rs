//! A client's tie to the actor that calls through it.

use std::sync::Arc;

use plimsoll_sync::slots::SlotKey;
use ractor::{ActorCell, ActorStatus};

use super::Protocol;
use super::book::Door;
use super::shared::Shared;
use super::waits::Party;

/// One bound client: the server watches the actor for as long as one of these exists for it.
pub(crate) struct Binding<P: Protocol> {
    shared: Arc<Shared<P>>,
    actor: ActorCell,
    pub(crate) key: SlotKey,
    pub(crate) party: Arc<Party>,
}

impl<P: Protocol> Binding<P> {
    pub(crate) fn new(shared: &Arc<Shared<P>>, actor: &ActorCell) -> Self {
        let (key, first) = {
            // Watched under the lock, so that the last client's going and the next one's coming cannot cross.
            let mut desk = shared.desk.lock();
            let bound = desk.book.callers().bind(actor);
            if bound.1 && desk.book.door() != Door::Closed {
                shared.watch.begin(shared, actor);
            }
            bound
        };
        // ractor tells a monitor nothing about an actor whose end came before it. While one is stopping that may be so.
        match (actor.get_status(), shared.watch.runtime()) {
            (ActorStatus::Stopped, _) => shared.caller_ended(actor.get_id()),
            (ActorStatus::Stopping, Some(runtime)) if first => {
                let (shared, actor) = (Arc::clone(shared), actor.clone());
                runtime.spawn(async move {
                    let _ = actor.wait(None).await;
                    shared.caller_ended(actor.get_id());
                });
            }
            _ => {}
        }
        Self { shared: Arc::clone(shared), actor: actor.clone(), key, party: Arc::new(Party::from(actor)) }
    }
}

impl<P: Protocol> Drop for Binding<P> {
    fn drop(&mut self) {
        let mut desk = self.shared.desk.lock();
        if desk.book.callers().unbind(self.key) {
            self.shared.watch.leave(&self.actor);
        }
    }
}

//! The face and the anchor.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};

use super::{Heard, Household, discard};
use crate::exit::ExitReason;
use crate::panics;
use crate::supervisor::rules::Run;

/// The actor that the world sees: linked to the parent. Its stop is the tree's.
pub(super) struct Face {
    pub(super) household: Arc<Household>,
}

impl Actor for Face {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        let _ = self.household.face.set(myself.get_cell());
        Ok(())
    }

    async fn handle(&self, _myself: ActorRef<()>, (): (), _state: &mut ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    // Actors that somebody linked to the face are not children: their end is theirs.
    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<()>,
        event: SupervisionEvent,
        _state: &mut (),
    ) -> Result<(), ActorProcessingErr> {
        discard(event);
        Ok(())
    }

    async fn post_stop(&self, _myself: ActorRef<()>, _state: &mut ()) -> Result<(), ActorProcessingErr> {
        self.household.tell(|core, now| core.stop(false, now));
        self.household.idle.cancelled().await;
        Ok(())
    }
}

/// The actor that children are linked to. It hears of their ends as long as there are any.
pub(super) struct Anchor {
    pub(super) household: Arc<Household>,
}

/// Every event that was sent before this has been handled when it arrives.
pub(super) struct Flush(pub(super) Run);

impl Actor for Anchor {
    type Msg = Flush;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Flush>, (): ()) -> Result<(), ActorProcessingErr> {
        let _ = self.household.anchor.set(myself.get_cell());
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Flush>, Flush(run): Flush, _: &mut ()) -> Result<(), ActorProcessingErr> {
        self.household.flushed(run);
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Flush>,
        event: SupervisionEvent,
        _state: &mut (),
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(actor, state, reason) => {
                let panic = discard(state);
                let reason = ExitReason::from_stop(reason.as_deref());
                self.household.heard(actor.get_id(), Heard::Ended(reason, panic));
            }
            SupervisionEvent::ActorFailed(actor, error) => {
                let text = panics::text(error.as_ref());
                discard(error);
                self.household.heard(actor.get_id(), Heard::Failed(text));
            }
            other => {
                discard(other);
            }
        }
        Ok(())
    }
}

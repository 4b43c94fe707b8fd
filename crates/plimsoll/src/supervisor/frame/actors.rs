//! The face and the anchor.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};

use super::{Crew, Heard, discard};
use crate::exit::ExitReason;
use crate::panics;

/// The actor that the world sees: linked to the parent. Its stop is the tree's.
pub(super) struct Face<C>(pub(super) Arc<C>);

impl<C: Crew> Actor for Face<C> {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        let _ = self.0.frame().face.set(myself.get_cell());
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
        self.0.stop(false);
        self.0.frame().idle.cancelled().await;
        Ok(())
    }
}

/// The actor that children are linked to. It hears of their ends as long as there are any.
pub(super) struct Anchor<C>(pub(super) Arc<C>);

/// Every event that was sent before this has been handled when it arrives.
pub(super) struct Flush<R>(pub(super) R);

impl<C: Crew> Actor for Anchor<C> {
    type Msg = Flush<C::Run>;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, (): ()) -> Result<(), ActorProcessingErr> {
        let _ = self.0.frame().anchor.set(myself.get_cell());
        Ok(())
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        Flush(run): Self::Msg,
        _state: &mut (),
    ) -> Result<(), ActorProcessingErr> {
        self.0.flushed(run);
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        _state: &mut (),
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(actor, state, reason) => {
                let panic = discard(state);
                let reason = ExitReason::from_stop(reason.as_deref());
                self.0.heard(actor.get_id(), Heard::Ended(reason, panic));
            }
            SupervisionEvent::ActorFailed(actor, error) => {
                let text = panics::text(error.as_ref());
                discard(error);
                self.0.heard(actor.get_id(), Heard::Failed(text));
            }
            other => {
                discard(other);
            }
        }
        Ok(())
    }
}

//! The face and the anchor.

use std::sync::Arc;

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::oneshot;

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

/// What the anchor is sent.
pub(super) enum Word<R> {
    /// Every event of this run that was sent before has been handled when this arrives.
    Flush(R),
    /// It gets its turns: the sender is dropped.
    Turn(oneshot::Sender<()>),
}

/// Asks an anchor for a sign of life, which comes after all that it was sent before.
pub(super) fn turn<C: Crew>(anchor: &ActorCell) -> oneshot::Receiver<()> {
    let (sender, turn) = oneshot::channel();
    // A dead one drops the sender, which is a sign as well.
    let _ = anchor.send_message(Word::<C::Run>::Turn(sender));
    turn
}

impl<C: Crew> Actor for Anchor<C> {
    type Msg = Word<C::Run>;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _myself: ActorRef<Self::Msg>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        word: Self::Msg,
        _state: &mut (),
    ) -> Result<(), ActorProcessingErr> {
        match word {
            Word::Flush(run) => self.0.flushed(run),
            Word::Turn(sender) => drop(sender),
        }
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

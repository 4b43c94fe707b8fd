//! The two actors of a supervisor.
//!
//! The [`SupervisorActor`] is what the world sees: it is linked to the parent, and its stop is the supervisor's stop. The
//! [`ChildMonitor`] is what children are linked to. It lives until the last child has ended, so that it receives every
//! exit, also during the supervisor's stop.

use std::sync::Arc;

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::oneshot;

use super::Runtime;
use super::child::{ChildTable, ExitEvent};
use crate::exit::ExitReason;
use crate::panics::{self, discard, drop_failure};
use crate::supervisor::state::SupervisorState;

/// The actor that the world sees.
pub(super) struct SupervisorActor<S: SupervisorState, T>(pub(super) Arc<Runtime<S, T>>);

impl<T: ChildTable> Actor for SupervisorActor<T::State, T> {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        let _ = self.0.actor.set(myself.get_cell());
        Ok(())
    }

    async fn handle(&self, _myself: ActorRef<()>, (): (), _state: &mut ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    // Actors that something else linked to this one are not children: their exits are not handled.
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
        self.0.begin_stop();
        self.0.nothing_runs.cancelled().await;
        Ok(())
    }
}

/// The actor that children are linked to.
pub(super) struct ChildMonitor<S: SupervisorState, T>(pub(super) Arc<Runtime<S, T>>);

/// Handled after every event that was sent before. Handling it drops it, and so does the end of the monitor: a receiver
/// never waits for a message that is lost.
pub(super) struct Ping(#[expect(dead_code, reason = "its drop is the reply")] oneshot::Sender<()>);

/// Sends a ping; the receiver resolves when the monitor has handled it, or is gone.
pub(super) fn ping(monitor: &ActorCell) -> oneshot::Receiver<()> {
    let (sender, reply) = oneshot::channel();
    let _ = monitor.send_message(Ping(sender));
    reply
}

impl<T: ChildTable> Actor for ChildMonitor<T::State, T> {
    type Msg = Ping;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _myself: ActorRef<Ping>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _myself: ActorRef<Ping>, ping: Ping, _state: &mut ()) -> Result<(), ActorProcessingErr> {
        drop(ping);
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Ping>,
        event: SupervisionEvent,
        _state: &mut (),
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(actor, state, reason) => {
                let panic = drop_failure(state);
                let reason = ExitReason::from_stop(reason.as_deref());
                self.0.child_exited(actor.get_id(), ExitEvent::Terminated(reason, panic)).await;
            }
            SupervisionEvent::ActorFailed(actor, error) => {
                let text = panics::text(error.as_ref());
                discard(error);
                self.0.child_exited(actor.get_id(), ExitEvent::Failed(text)).await;
            }
            SupervisionEvent::ActorStarted(actor) => self.0.linked(actor),
            other => discard(other),
        }
        Ok(())
    }
}

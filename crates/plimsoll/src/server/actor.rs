//! The actor of a server. It never runs a handler, so that it notices a stop or a kill at any time.
//!
//! Handlers run in a task of their own, `server/event_loop.rs`. This actor closes admission at a stop, waits for the loop,
//! and exits with its result; when this actor is killed, the loop is aborted.

use std::sync::Arc;

use parking_lot::Mutex;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};

use super::event_loop::EventLoop;
use super::protocol::{LoopResult, ServerProtocol};
use super::{Context, GenServer};
use crate::call::deadline::DeadlineTask;
use crate::call::shared::{Notified, Shared};

pub(crate) struct ServerActor<S: GenServer> {
    pub(crate) shared: Arc<Shared<ServerProtocol<S>>>,
    pub(crate) deadline_task: DeadlineTask,
    pub(crate) serve_queued: bool,
    /// From the builder to `init`, and from there to the event loop. Not in ractor's arguments, which outlive a start that
    /// is cut short.
    pub(crate) starting: Arc<Mutex<Starting<S>>>,
}

/// A server on its way into its event loop.
pub(crate) enum Starting<S: GenServer> {
    New(S),
    Initialized(EventLoop<S>),
    Taken,
}

impl<S: GenServer> Starting<S> {
    pub(crate) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::Taken)
    }
}

type Handled = Result<(), ActorProcessingErr>;

impl<S: GenServer> Actor for ServerActor<S> {
    type Msg = Notified;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Notified>, (): ()) -> Handled {
        self.shared.set_actor(myself.clone());
        self.deadline_task.start(&self.shared, myself.get_cell());
        let starting = self.starting.lock().take();
        let Starting::New(mut server) = starting else { return Ok(()) };
        let mut ctx = Context::new(&self.shared, myself.get_cell());
        S::init(&mut server, &mut ctx).await?;
        *self.starting.lock() = Starting::Initialized(EventLoop::new(server, ctx));
        Ok(())
    }

    /// The event loop has failed while nobody asked the server to stop.
    async fn handle(&self, _: ActorRef<Notified>, _: Notified, (): &mut ()) -> Handled {
        match self.shared.host.loop_result.get() {
            Some(LoopResult::Failed(message)) => Err(message.clone().into()),
            _ => Ok(()),
        }
    }

    async fn handle_supervisor_evt(&self, _: ActorRef<Notified>, event: SupervisionEvent, (): &mut ()) -> Handled {
        match event {
            SupervisionEvent::ActorTerminated(actor, ..) | SupervisionEvent::ActorFailed(actor, _)
                if self.shared.caller_monitor.was(actor.get_id())
                    || self.shared.host.exit_monitor.was(actor.get_id()) =>
            {
                Err("the exit monitor has exited".into())
            }
            _ => Ok(()),
        }
    }

    async fn post_stop(&self, myself: ActorRef<Notified>, (): &mut ()) -> Handled {
        self.shared.drain(self.serve_queued);
        let host = &self.shared.host;
        let result = loop {
            match host.loop_result.get() {
                Some(result) => break result,
                None => host.loop_ended.notified().await,
            }
        };
        match result {
            LoopResult::Failed(message) => Err(message.clone().into()),
            LoopResult::Stopped => Ok(()),
            LoopResult::StoppedItself(reason) => {
                // The stop that ractor will report was not the server's own. Its own reason goes first: supervisors and
                // monitors take an actor's first exit event.
                let cell = myself.get_cell();
                cell.notify_supervisor(SupervisionEvent::ActorTerminated(cell.clone(), None, reason.clone()));
                if let Some(supervisor) = cell.try_get_supervisor() {
                    cell.unlink(supervisor);
                }
                Ok(())
            }
        }
    }
}

impl<S: GenServer> Drop for ServerActor<S> {
    fn drop(&mut self) {
        self.shared.host.actor_ended(&self.shared);
    }
}

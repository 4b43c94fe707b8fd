//! Hears of the ends of a server's bound callers.
//!
//! The server's own actor could hear of them only between two handlers, and not at all while it drains. This one never
//! does anything else. It is started with the first client that is bound, linked to the server and ends with it.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, ActorRuntime, SupervisionEvent};
use tokio::runtime::Handle;

use super::Protocol;
use super::shared::Shared;

/// How long the calls of a dead caller are settled before others have their turn.
const SLICE: Duration = Duration::from_millis(1);

/// The watching actor of a server, once it is needed.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    runtime: OnceLock<Handle>,
    actor: OnceLock<ActorCell>,
}

impl Watch {
    /// The server runs here.
    pub(crate) fn set_runtime(&self) {
        let _ = self.runtime.set(Handle::current());
    }

    pub(crate) fn runtime(&self) -> Option<&Handle> {
        self.runtime.get()
    }

    /// Hears of the end of `caller` from now on.
    pub(crate) fn begin<P: Protocol>(&self, shared: &Arc<Shared<P>>, caller: &ActorCell) {
        let (Some(runtime), Some(server)) = (self.runtime.get(), shared.actor()) else { return };
        let watching = self.actor.get_or_init(|| {
            let _runtime = runtime.enter();
            // Linked here and not by its start, which comes later and fails when the server has begun to stop by then: the
            // calls that it serves still need their callers watched. A link to a stopping server is not made, and `end`
            // does what it would have done.
            match ActorRuntime::spawn_instant(None, Watching(Arc::clone(shared)), ()) {
                Ok((watching, _)) => {
                    watching.link(server.get_cell());
                    watching.get_cell()
                }
                Err(_) => unreachable!("an actor without a name can always be made"),
            }
        });
        watching.monitor(caller.clone());
    }

    /// Hears of it no longer.
    pub(crate) fn leave(&self, caller: &ActorCell) {
        if let Some(watching) = self.actor.get() {
            watching.unmonitor(caller.clone());
        }
    }

    /// The server has ended, and the watching actor with it.
    pub(crate) fn end(&self, callers: Vec<ActorCell>) {
        callers.iter().for_each(|caller| self.leave(caller));
        if let Some(watching) = self.actor.get() {
            watching.kill();
        }
    }

    /// Whether this was the watching actor, without which dead callers would go unnoticed.
    pub(crate) fn was(&self, ended: ActorId) -> bool {
        self.actor.get().is_some_and(|watching| watching.get_id() == ended)
    }
}

struct Watching<P: Protocol>(Arc<Shared<P>>);

impl<P: Protocol> Actor for Watching<P> {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<()>,
        event: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorTerminated(caller, ..) | SupervisionEvent::ActorFailed(caller, _) = event {
            let mut began = Instant::now();
            while self.0.cancel_some_of(caller.get_id()) {
                // Others must not wait for the many calls of one that is gone.
                if began.elapsed() >= SLICE {
                    tokio::task::yield_now().await;
                    began = Instant::now();
                }
            }
        }
        Ok(())
    }
}

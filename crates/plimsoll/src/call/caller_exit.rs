//! How the calls of a caller that exits are cancelled: a client's binding to an actor, and what the actor's exit does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll_sync::slots::SlotKey;
use ractor::{ActorCell, ActorId, ActorStatus};

use super::Protocol;
use super::call_table::AdmissionState;
use super::shared::Shared;
use crate::exit::ExitReason;
use crate::exit_monitor::OnExit;
use crate::wait_graph::Node;

/// Calls settled between two critical sections.
const SLICE: usize = 64;
/// How long the calls of one exited caller are settled before other work gets the thread.
const SLICE_TIME: Duration = Duration::from_millis(1);

/// One bound client. The server monitors the actor while one of these exists for it.
pub(crate) struct Binding<P: Protocol> {
    pub(crate) shared: Arc<Shared<P>>,
    pub(crate) actor: ActorCell,
    pub(crate) key: SlotKey,
    pub(crate) node: Arc<Node>,
}

impl<P: Protocol> Binding<P> {
    pub(crate) fn new(shared: &Arc<Shared<P>>, actor: &ActorCell) -> Self {
        let key = {
            // Monitored under the lock, so that the last client's drop and the next one's binding cannot cross.
            let mut calls = shared.calls.lock();
            let (key, first) = calls.table.callers().bind(actor);
            if first
                && calls.table.admission() != AdmissionState::Closed
                && let (Some(runtime), Some(server)) = (shared.runtime.get(), shared.actor())
            {
                let handler = || CancelCalls(Arc::clone(shared));
                shared.caller_monitor.monitor(runtime, &server.get_cell(), handler, actor);
            }
            key
        };
        // At once, and not when the monitor comes to it: a call of an exited caller must not begin.
        if actor.get_status() == ActorStatus::Stopped {
            while shared.cancel_some_of(actor.get_id()) {}
        }
        Self { shared: Arc::clone(shared), actor: actor.clone(), key, node: Arc::new(Node::from(actor)) }
    }
}

impl<P: Protocol> Drop for Binding<P> {
    fn drop(&mut self) {
        let mut calls = self.shared.calls.lock();
        if calls.table.callers().unbind(self.key) {
            self.shared.caller_monitor.demonitor(&self.actor);
        }
    }
}

/// Cancels the calls of a caller that has exited.
struct CancelCalls<P: Protocol>(Arc<Shared<P>>);

impl<P: Protocol> OnExit for CancelCalls<P> {
    async fn exited(&self, caller: &ActorCell, _: Option<ExitReason>) {
        let mut began = Instant::now();
        while self.0.cancel_some_of(caller.get_id()) {
            if began.elapsed() >= SLICE_TIME {
                tokio::task::yield_now().await;
                began = Instant::now();
            }
        }
    }
}

impl<P: Protocol> Shared<P> {
    /// Cancels some calls of a caller that has exited. Returns whether there may be more.
    fn cancel_some_of(&self, id: ActorId) -> bool {
        let calls = {
            let table = &mut self.calls.lock().table;
            let Some(caller) = table.caller_exited(id) else { return false };
            table.calls_of(caller, SLICE)
        };
        calls.iter().for_each(|call| self.caller_left(call));
        calls.len() == SLICE
    }
}

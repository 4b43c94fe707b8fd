//! Where deadlines are enforced: the task that settles calls whose time is up.

use std::sync::{Arc, OnceLock};

use plimsoll_sync::cell::Party;
use ractor::ActorCell;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use super::call_table::Outcome;
use super::shared::{Item, Shared};
use super::{CallError, Protocol};

/// Calls settled between two looks at anything else: a few tens of microseconds.
const SLICE: usize = 64;

/// A server's deadline task, which ends when this is dropped. Kept in the actor itself and not in ractor's state, which
/// outlives the actor in its exit event.
#[derive(Debug, Default)]
pub(crate) struct DeadlineTask(OnceLock<AbortHandle>);

impl DeadlineTask {
    pub(crate) fn start<P: Protocol>(&self, shared: &Arc<Shared<P>>, server: ActorCell) {
        let task = tokio::spawn(enforce(Arc::clone(shared), KillServer(server)));
        let _ = self.0.set(task.abort_handle());
    }
}

impl Drop for DeadlineTask {
    fn drop(&mut self) {
        if let Some(task) = self.0.get() {
            task.abort();
        }
    }
}

/// Kills the server if its deadline task panics: without it no deadline would be kept.
struct KillServer(ActorCell);

impl Drop for KillServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.kill();
        }
    }
}

/// Settles what is due and sleeps until the next deadline, or until an earlier one is set.
async fn enforce<P: Protocol>(shared: Arc<Shared<P>>, _guard: KillServer) {
    loop {
        let expired = shared.expire();
        if expired.more {
            tokio::task::yield_now().await;
            continue;
        }
        match expired.next {
            None => shared.deadline_changed.notified().await,
            Some(next) => {
                tokio::select! {
                    () = sleep_until(next) => {}
                    () = shared.deadline_changed.notified() => {}
                }
            }
        }
    }
}

/// What an expiry leaves to do.
struct Expired {
    /// The slice was full: there may be more that are due.
    more: bool,
    next: Option<Instant>,
}

impl<P: Protocol> Shared<P> {
    /// Settles up to a slice of calls whose deadline has passed, and queues the server's own timers that are due.
    fn expire(&self) -> Expired {
        let now = self.tick_now();
        let (due, next) = {
            let table = &mut self.calls.lock().table;
            let due = table.expire(now, SLICE);
            (due, table.next_wake())
        };
        for call in &due {
            self.settle(call, Party::Other, Outcome::Timeout, Err(CallError::Timeout));
        }
        let mut events = Vec::new();
        let host_next = P::tick(&self.host, now, &mut events);
        for event in events {
            self.submit(Item::Event(event));
        }
        let next = next.into_iter().chain(host_next).min().map(|tick| self.time_of(tick));
        Expired { more: due.len() == SLICE, next }
    }
}

//! The task that keeps the deadlines of one server.

use std::sync::{Arc, OnceLock};

use ractor::ActorCell;
use tokio::task::AbortHandle;
use tokio::time::sleep_until;

use super::Protocol;
use super::shared::Shared;

/// A running clock; it ends with this. It belongs into the actor itself and not into ractor's state, which outlives the
/// actor in its exit event.
#[derive(Debug, Default)]
pub(crate) struct Clock(OnceLock<AbortHandle>);

impl Clock {
    pub(crate) fn start<P: Protocol>(&self, shared: &Arc<Shared<P>>, server: ActorCell) {
        shared.watch.set_runtime();
        let task = tokio::spawn(keep_time(Arc::clone(shared), EndServer(server)));
        let _ = self.0.set(task.abort_handle());
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        if let Some(task) = self.0.get() {
            task.abort();
        }
    }
}

/// Ends the server if its clock should fail: without it no deadline would be kept.
struct EndServer(ActorCell);

impl Drop for EndServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.kill();
        }
    }
}

/// Settles what is due, sleeps until the next deadline, or until told of an earlier one.
async fn keep_time<P: Protocol>(shared: Arc<Shared<P>>, _guard: EndServer) {
    loop {
        let expired = shared.expire();
        if expired.more {
            tokio::task::yield_now().await;
            continue;
        }
        match expired.next {
            None => shared.alarm.notified().await,
            Some(next) => {
                tokio::select! {
                    () = sleep_until(next) => {}
                    () = shared.alarm.notified() => {}
                }
            }
        }
    }
}

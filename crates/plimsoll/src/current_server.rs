//! The call server whose worker the current task is.
//!
//! A worker is no child of a supervisor, but its server waits for it when it stops. A worker that waits for the end of its
//! server's supervisor would wait for itself; this is how it is recognised. Costs two writes to a thread-local a poll.

use std::future::Future;

use ractor::ActorId;

tokio::task_local! {
    static SERVER: ActorId;
}

/// Runs a future of a worker of this server.
pub(crate) fn within<F: Future>(server: ActorId, worker: F) -> impl Future<Output = F::Output> {
    SERVER.scope(server, worker)
}

/// The server whose worker runs now, if one does.
pub(crate) fn current() -> Option<ActorId> {
    SERVER.try_with(|server| *server).ok()
}

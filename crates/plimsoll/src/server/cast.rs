//! Requests without a reply.

use std::sync::atomic::Ordering;

use super::GenServer;
use super::protocol::{ServerMessage, ServerProtocol};
use crate::call::shared::Item;
use crate::call::{CallClient, CallError, Died, Overload};

/// Why a cast was refused. Nothing else happens: a sender may ignore it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CastError {
    /// The server's mailbox is full.
    #[error(transparent)]
    Overloaded(#[from] Overload),
    /// The server is stopping.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// There is no such process.
    #[error("no process")]
    NoProcess,
}

impl<S: GenServer> CallClient<ServerProtocol<S>> {
    /// Sends a cast: into the server's mailbox, or not at all.
    ///
    /// Calls and casts of one sender arrive in the order in which they were sent. An admitted cast is
    /// dropped and counted when the server fails or is killed before it handles it.
    ///
    /// # Errors
    /// [`CastError`]: the mailbox is full, or the server is stopping or has ended.
    pub fn cast(&self, cast: S::Cast) -> Result<(), CastError> {
        let shared = &self.shared;
        let taken = match shared.check_admission() {
            Err(CallError::Died(Died::NoProcess)) => Err(CastError::NoProcess),
            Err(_) => Err(CastError::ShuttingDown),
            Ok(()) => shared.gate.try_acquire(0).map_err(|refused| shared.overload(refused, 0).into()),
        };
        let counter = if taken.is_ok() { &shared.gauges.casts } else { &shared.gauges.casts_refused };
        counter.fetch_add(1, Ordering::Relaxed);
        taken?;
        shared.submit(Item::Cast(ServerMessage::Cast(cast)));
        Ok(())
    }
}

//! What ends a node from outside: SIGTERM and Ctrl-C.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Both signals. The first asks for a stop in order, the second for an end at once.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

/// Why a stop was not waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CutShort {
    #[error("ended at once by a second signal: what was in flight is lost, and other nodes may list this one a while")]
    Again,
    #[error("the node did not stop within {0:?}, and was ended: what was in flight is lost")]
    TooLong(Duration),
}

impl Signals {
    /// Takes both signals over from the system, which would end the process.
    ///
    /// # Errors
    /// As the system says.
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next of either.
    ///
    /// Cancel safe.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Waits for `stop`, but not beyond `again`, the next signal, nor longer than `most`.
///
/// # Errors
/// [`CutShort`].
pub(crate) async fn stopped<T>(
    stop: impl Future<Output = T>,
    again: impl Future<Output = ()>,
    most: Duration,
) -> Result<T, CutShort> {
    tokio::select! {
        biased;
        stopped = stop => Ok(stopped),
        () = again => Err(CutShort::Again),
        () = tokio::time::sleep(most) => Err(CutShort::TooLong(most)),
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stop_is_waited_for_until_the_next_signal_or_its_bound() {
        let most = Duration::from_secs(60);
        let soon = || tokio::time::sleep(Duration::from_secs(1));
        assert_eq!(stopped(ready(7), pending(), most).await, Ok(7));
        assert_eq!(stopped(ready(7), ready(()), most).await, Ok(7), "it has stopped: nothing is lost");
        assert_eq!(stopped(pending::<()>(), soon(), most).await, Err(CutShort::Again));
        let began = tokio::time::Instant::now();
        assert_eq!(stopped(pending::<()>(), pending(), most).await, Err(CutShort::TooLong(most)));
        assert_eq!(began.elapsed(), most);
    }
}

//! The signals of a node: which stop it, which reloads its settings, and which do nothing.

use std::future::Future;
use std::time::Duration;

use futures::future::select_all;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals that stop in order: the first asks for it, the second ends the process at once.
const STOP: [i32; 4] = [nix::libc::SIGTERM, nix::libc::SIGINT, nix::libc::SIGQUIT, nix::libc::SIGXCPU];

/// Signals that would end the process and mean nothing to it. SIGXFSZ leaves the error of the write.
const IGNORED: [i32; 9] = [
    nix::libc::SIGUSR1,
    nix::libc::SIGUSR2,
    nix::libc::SIGALRM,
    nix::libc::SIGVTALRM,
    nix::libc::SIGPROF,
    nix::libc::SIGIO,
    nix::libc::SIGPWR,
    nix::libc::SIGSTKFLT,
    nix::libc::SIGXFSZ,
];

/// The signals of this process, taken over from the system.
#[derive(Debug)]
pub(crate) struct Signals {
    stop: [Signal; STOP.len()],
    reload: Signal,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// To stop.
    Stop,
    /// To read the settings again (SIGHUP).
    Reload,
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
    /// Takes over every signal that would end the process, but for those of faults.
    ///
    /// # Errors
    /// As the system says.
    pub(crate) fn new() -> std::io::Result<Self> {
        for number in IGNORED {
            // The handler stays when its stream is dropped, and then does nothing.
            drop(signal(SignalKind::from_raw(number))?);
        }
        let [terminate, interrupt, quit, cpu] = STOP.map(|number| signal(SignalKind::from_raw(number)));
        Ok(Self { stop: [terminate?, interrupt?, quit?, cpu?], reload: signal(SignalKind::hangup())? })
    }

    /// Waits for the next signal.
    ///
    /// Cancel safe.
    pub(crate) async fn next(&mut self) -> Asked {
        let stop = select_all(self.stop.iter_mut().map(|signal| Box::pin(signal.recv())));
        tokio::select! {
            _ = stop => Asked::Stop,
            _ = self.reload.recv() => Asked::Reload,
        }
    }

    /// Waits for the next signal that stops.
    ///
    /// Cancel safe.
    pub(crate) async fn stop(&mut self) {
        while self.next().await != Asked::Stop {}
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

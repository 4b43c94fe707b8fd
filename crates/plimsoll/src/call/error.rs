//! How a call ends when it does not end with a reply.

use std::fmt;

use crate::exit::ExitReason;

/// Every end of a call but a reply. `E` is the service's own error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError<E> {
    /// The service returned an error of its own.
    #[error("the service returned an error: {0}")]
    App(#[source] E),
    /// Refused at admission: the call has not run and may be tried again later or elsewhere.
    #[error(transparent)]
    Overloaded(#[from] Overload),
    /// The deadline passed first. The call may have run, or run still; its reply is dropped.
    #[error("the deadline passed")]
    Timeout,
    /// The callee did not exist, or exited before it replied.
    #[error(transparent)]
    Died(#[from] Died),
    /// The server is stopping and takes no more calls, or its grace ended before this one was served.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The child that a client from a child handle calls is being restarted: the call has not run. With
    /// [`CallClient::wait_for_restart`](super::CallClient::wait_for_restart), its deadline passed meanwhile.
    #[error("the server is restarting")]
    Restarting,
    /// The caller exited or dropped the call.
    #[error("the call was cancelled by its caller")]
    Cancelled,
    /// The call would have waited for itself: the members of the cycle, in the order in which each waits for the next.
    #[error("deadlock: {}", Cycle(.0))]
    Deadlock(Vec<String>),
}

impl<E> CallError<E> {
    /// Whether the service has certainly not run: the call may be repeated, here or elsewhere, without running twice.
    pub fn never_ran(&self) -> bool {
        matches!(self, Self::Overloaded(_) | Self::Died(Died::NoProcess) | Self::Restarting | Self::Deadlock(_))
    }

    /// The same error with the service's own one changed by `f`.
    pub fn map_app<F>(self, f: impl FnOnce(E) -> F) -> CallError<F> {
        match self {
            Self::App(error) => CallError::App(f(error)),
            Self::Overloaded(what) => CallError::Overloaded(what),
            Self::Timeout => CallError::Timeout,
            Self::Died(why) => CallError::Died(why),
            Self::ShuttingDown => CallError::ShuttingDown,
            Self::Restarting => CallError::Restarting,
            Self::Cancelled => CallError::Cancelled,
            Self::Deadlock(cycle) => CallError::Deadlock(cycle),
        }
    }
}

struct Cycle<'a>(&'a [String]);

impl fmt::Display for Cycle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" waits for "))
    }
}

/// Why there is no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Died {
    /// There is no such process: it exited before the call, or never existed.
    #[error("no process")]
    NoProcess,
    /// The reply handle was dropped without a reply.
    #[error("dropped without a reply")]
    NoReply,
    /// The worker or server of the call exited with this reason before it replied.
    #[error("died: {0}")]
    Exit(ExitReason),
}

/// What was full when a call was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Overload {
    /// As many calls are in flight as may be.
    #[error("{in_flight} of {limit} calls are in flight")]
    InFlight {
        /// Permits out at that moment; those of workers that overrun included.
        in_flight: u32,
        /// How many may be out.
        limit: u32,
    },
    /// The requests in flight hold as many bytes as they may.
    #[error("{held} of {limit} request bytes are in use, {wanted} more are wanted")]
    Bytes {
        /// Bytes in use at that moment.
        held: u64,
        /// How many may be in use.
        limit: u64,
        /// Bytes of the refused request.
        wanted: u64,
    },
    /// As many calls wait as may.
    #[error("{limit} calls wait already")]
    Queue {
        /// How many may wait.
        limit: u32,
    },
    /// Calls wait already, and this one may not wait.
    #[error("calls are waiting already")]
    Waiting,
}

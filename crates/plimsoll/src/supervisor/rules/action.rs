//! What the rules decide.

use std::sync::Arc;
use std::time::Duration;

use super::{Answer, Key, Run, StartFailure, Ticket};
use crate::exit::ExitReason;
use crate::supervisor::shutdown_report::{ShutdownCause, StopFailureKind};

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Begin this start; answer with [`Rules::started`], [`Rules::ignored`] or [`Rules::start_failed`].
    Start { key: Key, run: Run },
    /// Give up the start that is under way; answer as above.
    CancelStart { run: Run },
    /// Ask the child to stop.
    Ask { run: Run },
    /// Kill the child.
    Kill { run: Run },
    /// The spec that came with this ticket was taken.
    Take { key: Key, ticket: Ticket },
    /// All first children have been started.
    Booted,
    /// Tell whoever waits.
    Answer { ticket: Ticket, answer: Answer },
    /// The spec is gone.
    Forget { key: Key },
    /// Something for the log and the report.
    Note(Note),
    /// Nothing runs any more, or only what no kill can end.
    Finish { exit: Exit },
}

/// What happened, for the log and the report.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Note {
    /// A child ended by itself.
    Ended { key: Key, reason: ExitReason, restarting: bool },
    /// A restart could not start the child.
    RestartFailed { key: Key, reason: Arc<str> },
    /// More restarts than the budget allows.
    GaveUp { key: Key },
    /// A significant child ended.
    AutoShutdown { key: Key },
    /// A child did not stop as it should have.
    StopFailed { key: Key, run: Run, kind: StopFailureKind, closing: bool, waited: Duration },
}

/// How the supervisor ends.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Exit {
    /// It was asked to stop.
    Stopped,
    /// Its restart budget is used up.
    GaveUp,
    /// Its significant children ended.
    AutoShutdown,
    /// A child failed to start at boot.
    BootFailed { key: Key, reason: StartFailure },
    /// It was killed.
    Killed,
}

impl Exit {
    /// What made the supervisor end, and the reason with which it does.
    pub(crate) fn outcome(&self) -> (ShutdownCause, ExitReason) {
        match self {
            Self::Stopped => (ShutdownCause::Stopped, ExitReason::Shutdown),
            Self::GaveUp => (ShutdownCause::GaveUp, ExitReason::Shutdown),
            Self::AutoShutdown => (ShutdownCause::AutoShutdown, ExitReason::Shutdown),
            Self::BootFailed { .. } => (ShutdownCause::StartFailed, ExitReason::Shutdown),
            Self::Killed => (ShutdownCause::Killed, ExitReason::Killed),
        }
    }
}

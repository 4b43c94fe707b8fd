//! A child that does not simply run.

use std::time::Duration;

use crate::exit::ExitReason;
use crate::supervisor::rules::Ticket;
use crate::supervisor::rules::entry::Kill;

/// A child that does not simply run.
#[derive(Debug)]
pub(super) enum Busy {
    /// It ended by itself; its task has not ended yet.
    Down { restarting: bool, left: bool, waiters: Vec<Ticket> },
    /// It waits for its restart.
    Waiting,
    /// It is being started again.
    Starting { cancelled: bool, left: bool, waiters: Vec<Ticket> },
    /// It was asked to stop, or killed.
    Stopping {
        began: Duration,
        killed: Option<Kill>,
        ended_with: Option<ExitReason>,
        left: bool,
        nested: bool,
        waiters: Vec<Ticket>,
    },
}

impl Busy {
    /// Whether something of it may still exist that is worth waiting for.
    pub(super) fn holds(&self) -> bool {
        match self {
            Self::Waiting => false,
            Self::Down { left, .. } | Self::Starting { left, .. } | Self::Stopping { left, .. } => !left,
        }
    }

    pub(super) fn stopping(began: Duration, nested: bool, waiters: Vec<Ticket>) -> Self {
        Self::Stopping { began, killed: None, ended_with: None, left: false, nested, waiters }
    }

    pub(super) fn phase(&self) -> DynamicPhase {
        match self {
            Self::Waiting | Self::Starting { .. } | Self::Down { restarting: true, .. } => DynamicPhase::Restarting,
            Self::Down { .. } | Self::Stopping { .. } => DynamicPhase::Stopping,
        }
    }
}

/// The visible state of a child that does not simply run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DynamicPhase {
    Restarting,
    Stopping,
}

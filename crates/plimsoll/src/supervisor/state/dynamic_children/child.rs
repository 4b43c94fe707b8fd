//! A child that does not simply run.

use std::time::Duration;

use crate::exit::ExitReason;
use crate::supervisor::state::RequestId;
use crate::supervisor::state::outcome::Kill;

/// A child that does not simply run.
#[derive(Debug)]
pub(super) enum Child {
    /// It exited by itself, to be restarted after this delay if at all; its task has not ended yet.
    Exited { restart: Option<Duration>, abandoned: bool, waiters: Vec<RequestId> },
    /// It waits for its restart.
    Waiting,
    /// It is being restarted.
    Starting { cancelled: bool, abandoned: bool, waiters: Vec<RequestId> },
    /// Its stop was requested, or it was killed.
    Stopping {
        began: Duration,
        killed: Option<Kill>,
        exit: Option<ExitReason>,
        abandoned: bool,
        nested: bool,
        waiters: Vec<RequestId>,
    },
}

/// The state of a child that does not simply run as callers see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DynamicPhase {
    Restarting,
    Stopping,
}

impl Child {
    pub(super) fn stopping(began: Duration, nested: bool, waiters: Vec<RequestId>) -> Self {
        Self::Stopping { began, killed: None, exit: None, abandoned: false, nested, waiters }
    }

    /// Whether something of it may still exist that is worth waiting for.
    pub(super) fn exists(&self) -> bool {
        !self.is_abandoned() && !matches!(self, Self::Waiting)
    }

    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Self::Waiting => false,
            Self::Exited { abandoned, .. } | Self::Starting { abandoned, .. } | Self::Stopping { abandoned, .. } => {
                *abandoned
            }
        }
    }

    /// The callers that wait for its end.
    pub(super) fn waiters(&mut self) -> Option<&mut Vec<RequestId>> {
        match self {
            Self::Waiting => None,
            Self::Exited { waiters, .. } | Self::Starting { waiters, .. } | Self::Stopping { waiters, .. } => {
                Some(waiters)
            }
        }
    }

    pub(super) fn phase(&self) -> DynamicPhase {
        match self {
            Self::Waiting | Self::Starting { .. } | Self::Exited { restart: Some(_), .. } => DynamicPhase::Restarting,
            Self::Exited { .. } | Self::Stopping { .. } => DynamicPhase::Stopping,
        }
    }
}

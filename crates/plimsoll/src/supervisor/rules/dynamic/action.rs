//! What the rules of a dynamic supervisor decide.

use std::time::Duration;

use plimsoll_sync::slots::SlotKey;

use crate::exit::ExitReason;
use crate::supervisor::rules::{Exit, Refusal, StartFailure, Ticket};
use crate::supervisor::shutdown_report::StopFailureKind;

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum DynamicAction {
    /// Start the child of this slot again.
    Start(SlotKey),
    /// Give up the start that is under way.
    CancelStart(SlotKey),
    Ask(SlotKey),
    Kill(SlotKey),
    Answer {
        ticket: Ticket,
        refusal: Option<Refusal>,
    },
    /// The child is gone for good.
    Free(SlotKey),
    Ended {
        key: SlotKey,
        reason: ExitReason,
        restarting: bool,
    },
    RestartFailed {
        key: SlotKey,
        failure: StartFailure,
    },
    GaveUp,
    AutoShutdown(SlotKey),
    StopFailed {
        key: SlotKey,
        kind: StopFailureKind,
        closing: bool,
        waited: Duration,
    },
    Finish(Exit),
}

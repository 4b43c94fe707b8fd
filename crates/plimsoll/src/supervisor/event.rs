//! The events of a supervisor.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::shutdown_report::{ShutdownCause, StopFailure};
use crate::exit::ExitReason;

/// Something that happened to a child of a supervisor, or to the supervisor itself. The counterpart of OTP's supervisor
/// and progress reports.
///
/// A child is named by its id, a dynamic child by its actor's id. See
/// [`SupervisorBuilder::on_event`](super::SupervisorBuilder::on_event).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum SupervisorEvent {
    /// A child runs: started with its supervisor, by `start_child` or `restart_child`, or restarted.
    ChildStarted {
        /// The child.
        child: Arc<str>,
        /// The id of its actor.
        actor: Arc<str>,
    },
    /// A start of a child failed.
    ChildStartFailed {
        /// The child.
        child: Arc<str>,
        /// Why.
        reason: ExitReason,
        /// The delay until the next try of a restart; `None` when the start is not tried again.
        retry: Option<Duration>,
    },
    /// A child exited, by itself or because it was stopped.
    ChildExited {
        /// The child.
        child: Arc<str>,
        /// The id of its actor.
        actor: Arc<str>,
        /// The reason of its exit.
        reason: ExitReason,
    },
    /// A child that exited will be restarted, with the siblings that the strategy covers.
    ChildRestarting {
        /// The child.
        child: Arc<str>,
        /// The delay of its backoff.
        delay: Duration,
    },
    /// A child did not stop as its spec says.
    ChildStopFailed {
        /// What the shutdown report says of it.
        failure: StopFailure,
    },
    /// The supervisor stops, because more restarts were needed than its intensity allows.
    GaveUp {
        /// The child that failed last.
        child: Arc<str>,
        /// Why it failed.
        reason: ExitReason,
    },
    /// The supervisor stops, because of the exit of this significant child.
    AutoShutdown {
        /// The child.
        child: Arc<str>,
    },
    /// The supervisor has ended.
    Ended {
        /// What made it end.
        cause: ShutdownCause,
        /// The reason of its exit.
        reason: ExitReason,
    },
    /// Events were dropped, because the observer was too slow.
    Omitted {
        /// How many.
        count: u64,
    },
}

//! Supervision.

mod builder;
mod child;
mod child_spec;
mod controls;
mod current_message;
mod dynamic;
mod error;
mod frame;
mod handle;
mod household;
mod log;
mod options;
mod rules;
mod shutdown_report;
mod start;
mod stop_deadline;
mod task;

pub use builder::{
    DEFAULT_INTENSITY, DEFAULT_KILL_TIMEOUT, DEFAULT_PERIOD, Init, IntoSupervisor, Supervisor, SupervisorBuilder,
    SupervisorInit,
};
pub use child::{Child, ChildRef, Start, Started};
pub use child_spec::{ChildSettings, ChildSpec};
pub use current_message::{CurrentMessage, CurrentMessageGuard};
pub use dynamic::{DEFAULT_MAX_CHILDREN, DynamicBuilder, DynamicSupervisor, DynamicSupervisorRef};
pub use error::{BoxError, ChildError, SpecError, StartError};
pub use handle::{ChildCount, ChildEntry, ChildState, SupervisorRef};
pub use options::{AutoShutdown, Backoff, Restart, Shutdown, StopMode, Strategy};
pub use shutdown_report::{MAX_STOP_FAILURES, ShutdownCause, ShutdownReport, StopFailure, StopFailureKind};
pub use stop_deadline::StopDeadline;
/// What a task child is asked to stop by.
pub use tokio_util::sync::CancellationToken;

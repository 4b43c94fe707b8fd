//! OTP's supervisors for ractor actors, async functions and nested supervisors.
//!
#![doc = include_str!("../../../docs/supervision.md")]

mod builder;
mod child;
mod child_entry;
mod child_handle;
pub(crate) mod child_path;
mod child_spec;
mod current_message;
mod dynamic_supervisor;
mod error;
mod event;
mod event_queue;
mod handle;
mod into_supervisor;
mod log;
mod options;
mod runtime;
mod shutdown_report;
mod state;
mod stop_deadline;
mod task;

pub use builder::{
    DEFAULT_INTENSITY, DEFAULT_KILL_TIMEOUT, DEFAULT_PERIOD, Supervisor, SupervisorBuilder, SupervisorInit,
};
pub use child::{Child, ChildRef};
pub use child_entry::{ChildCount, ChildEntry, ChildState};
pub(crate) use child_handle::ChildPlace;
pub use child_handle::{ChildHandle, HandleError, HandleSendError};
pub use child_path::child_span;
pub use child_spec::{ChildSettings, ChildSpec};
pub use current_message::{CurrentMessage, CurrentMessageGuard};
pub use dynamic_supervisor::{DEFAULT_MAX_CHILDREN, DynamicBuilder, DynamicSupervisor, DynamicSupervisorRef};
pub use error::{BoxError, ChildError, Deadlock, SpecError, StartError};
pub use event::SupervisorEvent;
pub use handle::SupervisorRef;
pub use into_supervisor::IntoSupervisor;
pub use options::{AutoShutdown, Backoff, Restart, Shutdown, StopMode, Strategy};
pub use shutdown_report::{MAX_STOP_FAILURES, ShutdownCause, ShutdownReport, StopFailure, StopFailureKind};
pub use stop_deadline::StopDeadline;
/// What a task child is asked to stop by.
pub use tokio_util::sync::CancellationToken;

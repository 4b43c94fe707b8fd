//! Supervision.

mod builder;
mod child;
mod controls;
mod dynamic;
mod error;
mod frame;
mod handle;
mod household;
mod in_hand;
mod log;
mod policy;
mod report;
mod rules;
mod spec;
mod start;
mod task;

pub use builder::{
    DEFAULT_INTENSITY, DEFAULT_LEAVE_BEHIND, DEFAULT_PERIOD, Init, Supervisor, SupervisorBuilder, SupervisorInit, Tree,
};
pub use child::{Child, ChildRef, Start, Started};
pub use dynamic::{DEFAULT_MAX_CHILDREN, DynamicBuilder, DynamicSupervisor, DynamicSupervisorRef};
pub use error::{BoxError, ChildError, SpecError, StartError};
pub use handle::{ChildCount, ChildEntry, ChildState, SupervisorRef};
pub use in_hand::{Holding, InHand};
pub use policy::{Ask, AutoShutdown, Backoff, Restart, Shutdown, Strategy};
pub use report::{MAX_TROUBLES, ShutdownCause, ShutdownReport, Trouble, TroubleKind};
pub use spec::{ChildSettings, ChildSpec};
/// What a task child is asked to stop by.
pub use tokio_util::sync::CancellationToken;

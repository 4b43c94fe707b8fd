//! What can be started as a child supervisor.

use std::future::Future;

use ractor::ActorCell;

use super::child::Child;
use super::error::StartError;

pub(super) mod sealed {
    pub trait Sealed {}
}

/// What [`ChildSpec::supervisor`](super::ChildSpec::supervisor) takes: a [`SupervisorBuilder`](super::SupervisorBuilder), a
/// [`SupervisorInit`](super::SupervisorInit) or a [`DynamicBuilder`](super::DynamicBuilder).
pub trait IntoSupervisor: sealed::Sealed + Send + 'static {
    /// Starts it as a child of `parent`.
    #[doc(hidden)]
    fn start_under(self, parent: ActorCell) -> impl Future<Output = Result<Child, StartError>> + Send;
}

//! What can go wrong, by operation.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use super::child::ChildRef;
use crate::exit::Failure;

/// Any error of a start function.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// A supervisor or a child spec that contradicts itself. Nothing was started.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SpecError {
    /// Two specs have one id. Ids are unique within their supervisor, not beyond.
    #[error("two children have the id `{id}`")]
    DuplicateId {
        /// The id.
        id: Arc<str>,
    },
    /// A permanent child is always started again, so that its end can never mean the supervisor's.
    #[error("child `{id}` is significant and permanent: make it transient or temporary")]
    SignificantPermanent {
        /// The child's id.
        id: Arc<str>,
    },
    /// Under [`AutoShutdown::Never`](super::AutoShutdown::Never) no child's end ends the supervisor.
    #[error("child `{id}` is significant, but the supervisor never shuts down by itself: set auto_shutdown")]
    SignificantNever {
        /// The child's id.
        id: Arc<str>,
    },
    /// The intensity period must not be zero.
    #[error("the restart period is zero")]
    ZeroPeriod,
    /// A dynamic supervisor without room.
    #[error("max_children is zero")]
    ZeroMaxChildren,
}

/// A start that failed.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The specification is wrong; nothing was started.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A child failed to start with its supervisor. Those started before it have been stopped, in reverse order.
    #[error("child `{id}` failed to start: {reason}")]
    FailedToStart {
        /// The child's id.
        id: Arc<str>,
        /// What happened to it.
        #[source]
        reason: Box<StartError>,
    },
    /// The start function returned an error or panicked.
    #[error("the start failed: {0}")]
    Failed(Failure),
    /// There is nothing to run (OTP's `ignore`). A start function returns this error instead of a child, and so does the
    /// operation that requested the start. It is no failure: nothing is restarted, the siblings start, and the spec is kept
    /// without a child unless the child is temporary or dynamic.
    #[error("the start was ignored: there is nothing to run")]
    Ignored,
    /// The child runs already, or its actor's name is taken by this actor.
    #[error("already started: {}", .0.actor().get_id())]
    AlreadyStarted(ChildRef),
    /// There is such a spec, without a running child: use `restart_child`, or `delete_child` first.
    #[error("the id is present already, without a running child")]
    AlreadyPresent,
    /// The child is being started by an earlier call: [`start_or_get_child`](super::SupervisorRef::start_or_get_child)
    /// waits for it.
    #[error("the child is starting")]
    Starting,
    /// A start function starts a sibling that has to wait until that start is over.
    #[error(transparent)]
    Deadlock(#[from] Deadlock),
    /// The start took longer than its timeout; nothing of it is left.
    #[error("the start took longer than {0:?}")]
    Timeout(Duration),
    /// The start function returned an actor that is not linked to the supervisor; the actor was killed. Pass the function's
    /// argument to `spawn_linked`.
    #[error("the start function returned an actor that is not linked to the supervisor")]
    NotLinked,
    /// The dynamic supervisor has as many children as it may.
    #[error("the supervisor has {max} children, its maximum")]
    MaxChildren {
        /// The maximum.
        max: u32,
    },
    /// The child was terminated before its start was over.
    #[error("the child was terminated while it started")]
    Terminated,
    /// The child's last incarnation was killed and is still there: it blocks its thread.
    #[error("the child was killed but does not end: it blocks its thread")]
    KillTimedOut,
    /// The supervisor is stopping, or is gone.
    #[error("the supervisor is shutting down")]
    ShuttingDown,
}

/// The caller would wait for its own end: it runs below the child or supervisor that it wants to stop, or is waited for
/// from there. Use `begin_stop`, or let another task call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the caller would wait for its own end")]
pub struct Deadlock;

/// An operation on a child that was refused.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum ChildError {
    /// There is no such child.
    #[error("no such child")]
    NotFound,
    /// The child runs: terminate it first.
    #[error("the child is running")]
    Running,
    /// The child is being started: wait for it, or terminate it first.
    #[error("the child is starting")]
    Starting,
    /// The child waits for its restart: terminate it first.
    #[error("the child is restarting")]
    Restarting,
    /// `restart_child` could not start it; the spec is kept.
    #[error(transparent)]
    Start(StartError),
    /// The child was killed and is still there: it blocks its thread. Nothing more can be done to it.
    #[error("the child was killed but does not end: it blocks its thread")]
    KillTimedOut,
    /// The child is no server of this type.
    #[error("the child is a server of another type, or none")]
    WrongType,
    /// The caller would wait for its own end.
    #[error(transparent)]
    Deadlock(#[from] Deadlock),
    /// The supervisor is stopping, or is gone.
    #[error("the supervisor is shutting down")]
    ShuttingDown,
}

impl StartError {
    pub(crate) fn failed(message: impl Into<Arc<str>>) -> Self {
        Self::Failed(Failure::new(message))
    }
}

impl PartialEq for StartError {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Spec(a), Self::Spec(b)) => a == b,
            (Self::FailedToStart { id: a, reason: x }, Self::FailedToStart { id: b, reason: y }) => a == b && x == y,
            (Self::Failed(a), Self::Failed(b)) => a == b,
            (Self::AlreadyStarted(a), Self::AlreadyStarted(b)) => a == b,
            (Self::Timeout(a), Self::Timeout(b)) => a == b,
            (Self::MaxChildren { max: a }, Self::MaxChildren { max: b }) => a == b,
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
        }
    }
}

impl PartialEq for ChildError {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Start(a), Self::Start(b)) => a == b,
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
        }
    }
}

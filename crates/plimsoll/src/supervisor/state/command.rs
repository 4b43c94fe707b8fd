//! What a supervisor decides.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{RequestId, SupervisorState};
use crate::exit::{ExitReason, Failure};
use crate::supervisor::child::ChildRef;
use crate::supervisor::error::StartError;

/// Something to do.
#[derive(Debug)]
pub(crate) enum Command<S: SupervisorState> {
    /// Begin this start; it ends with `Event::Started`, `Ignored` or `StartFailed`.
    Start { spec: S::Spec, run: S::Run },
    /// Cancel the start in progress; it ends in the same way.
    CancelStart { run: S::Run },
    /// Request the child's stop, as its spec says.
    RequestStop { run: S::Run },
    /// Kill the child.
    Kill { run: S::Run },
    /// The incarnation has ended: drop what is kept of it.
    Release { run: S::Run },
    /// Apply `Event::Running` with the children that run.
    ListRunning,
    /// Reply to a caller.
    Reply { request: RequestId, reply: Reply<S::Run> },
    /// Change the list of child specs.
    Spec(SpecCommand<S::Spec>),
    /// Log, report and publish something.
    Notice(Notice<S>),
    /// Nothing runs any more, or only what a kill cannot end.
    Finish { exit: Exit<S::Spec> },
}

/// A change of the list of child specs.
#[derive(Debug)]
pub(crate) enum SpecCommand<K> {
    /// The spec that came with this request is accepted.
    Add { spec: K, request: RequestId },
    /// The spec is dropped.
    Remove { spec: K },
    /// All children of the supervisor's own start run.
    Started,
}

/// Something that happened, for the log, the report and observers.
#[derive(Debug)]
pub(crate) enum Notice<S: SupervisorState> {
    /// A child exited.
    Exited { spec: S::Spec, reason: ExitReason, then: AfterExit },
    /// A start failed; it is tried again after `retry`, if at all.
    StartFailed { spec: S::Spec, failure: StartFailure, retry: Option<Duration> },
    /// More restarts than the intensity allows.
    GaveUp { spec: S::Spec, reason: ExitReason },
    /// A significant child exited.
    AutoShutdown { spec: S::Spec },
    /// A child did not stop as it should have.
    StopProblem { spec: S::Spec, run: S::Run, problem: StopProblem, shutting_down: bool, waited: Duration },
}

/// What follows from an exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterExit {
    /// Nothing: its spec does not ask for a restart.
    Nothing,
    /// A restart after this delay.
    Restart(Duration),
    /// It is restarted with the siblings of a restart that is in progress.
    RestartWithSiblings,
    /// The supervisor gives up.
    GiveUp,
}

/// How a stop went wrong.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum StopProblem {
    /// The child exited with this reason where a shutdown was expected.
    Exited(ExitReason),
    /// It was killed after its shutdown time.
    Killed,
    /// A kill did not end it in time.
    KillTimedOut,
}

/// The result of an operation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Reply<R> {
    /// The child runs.
    Started { run: R },
    /// Its start returned that there is nothing to run.
    Ignored,
    /// The operation is complete.
    Done,
    /// The child runs already.
    AlreadyStarted { run: R },
    /// The operation was refused, or failed.
    Refused(Refusal),
}

/// Why an operation was not performed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Refusal {
    AlreadyPresent,
    NotFound,
    Running,
    Starting,
    Restarting,
    ShuttingDown,
    Terminated,
    KillTimedOut,
    /// The operation waits for its caller.
    Deadlock,
    Start(StartFailure),
}

/// Why a start failed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum StartFailure {
    Failed(Failure),
    NameTaken(Arc<str>),
    Timeout(Duration),
    NotLinked,
    Cancelled,
    /// A nested supervisor's own child failed to start.
    Nested(Box<StartError>),
}

/// How the supervisor ends.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Exit<K> {
    /// Its stop was requested.
    Stopped,
    /// More restarts than the intensity allows.
    GaveUp,
    /// Its significant children exited.
    AutoShutdown,
    /// A child failed to start with it.
    StartFailed { spec: K, failure: StartFailure },
    /// It was killed.
    Killed,
}

impl StartFailure {
    /// The failed start as an exit reason, for reports.
    pub(crate) fn reason(&self) -> ExitReason {
        match self {
            Self::Failed(failure) => ExitReason::Failed(failure.clone()),
            other => ExitReason::failed(other.to_string()),
        }
    }
}

impl From<StartFailure> for StartError {
    fn from(failure: StartFailure) -> Self {
        match failure {
            StartFailure::Failed(failure) => Self::Failed(failure),
            StartFailure::Timeout(limit) => Self::Timeout(limit),
            StartFailure::NotLinked => Self::NotLinked,
            StartFailure::Cancelled => Self::Terminated,
            StartFailure::Nested(error) => *error,
            StartFailure::NameTaken(name) => match ractor::registry::where_is(&*name) {
                Some(actor) => Self::AlreadyStarted(ChildRef { actor, value: None }),
                None => Self::failed(format!("the name `{name}` was taken")),
            },
        }
    }
}

impl fmt::Display for StartFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(failure) => write!(f, "{failure}"),
            Self::NameTaken(name) => write!(f, "the name `{name}` is taken"),
            Self::Timeout(limit) => write!(f, "the start took longer than {limit:?}"),
            Self::NotLinked => f.write_str("start function returned an actor that is not linked to the supervisor"),
            Self::Cancelled => f.write_str("the start was cancelled"),
            Self::Nested(error) => write!(f, "{error}"),
        }
    }
}

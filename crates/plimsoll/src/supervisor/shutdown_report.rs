//! How a supervisor ended, and which children did not stop as their specs say.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ractor::ActorId;
use serde::{Serialize, Serializer};

use crate::exit::ExitReason;

/// The most stop failures that one report lists. Further ones are counted only.
pub const MAX_STOP_FAILURES: usize = 10_000;

/// How a supervisor ended: the cause, the time the stop took, and which children did not stop as their specs say, those of
/// nested supervisors included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// The supervisor's name.
    pub supervisor: Arc<str>,
    /// What made it end.
    pub cause: ShutdownCause,
    /// The reason with which it ended.
    pub reason: ExitReason,
    /// From the decision to stop until no child was running.
    pub took: Duration,
    /// Children that did not stop as their specs say, in the order in which this was detected. At most
    /// [`MAX_STOP_FAILURES`].
    pub failures: Vec<StopFailure>,
    /// The number of failures beyond that maximum.
    pub omitted: u64,
}

/// What made a supervisor end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ShutdownCause {
    /// It was asked to stop.
    Stopped,
    /// More restarts were needed than its intensity allows.
    GaveUp {
        /// The child that failed last.
        child: Arc<str>,
        /// Why it failed.
        reason: ExitReason,
    },
    /// Its significant children ended.
    AutoShutdown,
    /// A child failed to start during the supervisor's own start.
    StartFailed,
    /// It was killed, and its children with it.
    Killed,
}

/// One child that did not stop as its spec says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StopFailure {
    /// The ids from the reporting supervisor down to the child. The id of a dynamic child is that of its actor.
    pub path: Vec<Arc<str>>,
    /// Its actor; `None` for a start that did not end.
    #[serde(serialize_with = "display")]
    pub actor: Option<ActorId>,
    /// What went wrong.
    pub kind: StopFailureKind,
    /// How long the supervisor waited for it.
    pub waited: Duration,
    /// The message that it handled when it was killed, if it sets its [`CurrentMessage`](super::CurrentMessage).
    pub current_message: Option<Arc<str>>,
}

/// How a child's stop went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", content = "reason", rename_all = "snake_case")]
#[non_exhaustive]
pub enum StopFailureKind {
    /// It ended with this reason where a shutdown was expected.
    Ended(ExitReason),
    /// It did not stop within its grace and was killed.
    Killed,
    /// It did not end within the kill timeout after a kill, because it blocks its thread. It may still run.
    KillTimedOut,
}

impl ShutdownReport {
    /// The report of a supervisor that ended before it could write one.
    pub(crate) fn cut_short(supervisor: Arc<str>) -> Self {
        Self {
            supervisor,
            cause: ShutdownCause::Killed,
            reason: ExitReason::Killed,
            took: Duration::ZERO,
            failures: Vec::new(),
            omitted: 0,
        }
    }

    /// Whether every child stopped as its spec says. That holds also for a supervisor that gave up and then stopped its
    /// children in order: see [`cause`](Self::cause).
    pub fn is_clean(&self) -> bool {
        self.failures.is_empty() && self.omitted == 0
    }

    /// The children that did not stop within their grace.
    pub fn stragglers(&self) -> impl Iterator<Item = &StopFailure> {
        self.failures.iter().filter(|failure| !matches!(failure.kind, StopFailureKind::Ended(_)))
    }

    /// The children that did not end after a kill.
    pub fn kill_timed_out(&self) -> impl Iterator<Item = &StopFailure> {
        self.failures.iter().filter(|failure| failure.kind == StopFailureKind::KillTimedOut)
    }
}

impl fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "supervisor `{}` ended in {:?}: {}", self.supervisor, self.took, self.cause)?;
        for failure in &self.failures {
            write!(f, "\n  {failure}")?;
        }
        if self.omitted > 0 {
            write!(f, "\n  and {} more", self.omitted)?;
        }
        Ok(())
    }
}

impl fmt::Display for ShutdownCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped"),
            Self::GaveUp { child, reason } => write!(f, "gave up on child `{child}` ({reason})"),
            Self::AutoShutdown => f.write_str("a significant child exited"),
            Self::StartFailed => f.write_str("a child failed to start"),
            Self::Killed => f.write_str("killed"),
        }
    }
}

/// Serializes a value that has only a text form.
fn display<T: fmt::Display, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

impl fmt::Display for StopFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.join("/");
        match &self.kind {
            StopFailureKind::Ended(reason) => write!(f, "{path}: {reason}"),
            StopFailureKind::Killed => write!(f, "{path}: killed after {:?}", self.waited),
            StopFailureKind::KillTimedOut => write!(f, "{path}: killed, but still running after {:?}", self.waited),
        }?;
        match &self.current_message {
            Some(message) => write!(f, ", while handling `{message}`"),
            None => Ok(()),
        }
    }
}

/// Collects stop failures up to the maximum.
#[derive(Debug, Default)]
pub(crate) struct StopFailures {
    pub(crate) list: Vec<StopFailure>,
    pub(crate) omitted: u64,
}

impl StopFailures {
    pub(crate) fn push(&mut self, failure: StopFailure) {
        if self.list.len() < MAX_STOP_FAILURES {
            self.list.push(failure);
        } else {
            self.omitted += 1;
        }
    }

    /// Adds the failures of a nested supervisor whose id in this supervisor is `id`.
    pub(crate) fn merge(&mut self, id: &Arc<str>, nested: &ShutdownReport) {
        self.omitted += nested.omitted;
        for failure in &nested.failures {
            let mut failure = failure.clone();
            failure.path.insert(0, id.clone());
            self.push(failure);
        }
    }
}

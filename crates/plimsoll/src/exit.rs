//! Why an actor or a task ended.
//!
//! The vocabulary is OTP's: `normal`, `shutdown` and `{shutdown, Term}` are not failures, everything else is. A kill is a
//! failure unless the supervisor was stopping the child; the supervisor decides that.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The reason with which an actor or a task ended.
///
/// ```
/// use plimsoll::exit::ExitReason;
///
/// assert!(!ExitReason::Normal.is_failure());
/// assert!(ExitReason::failed("disk on fire").is_failure());
/// assert_eq!(ExitReason::from_stop(Some("shutdown")), ExitReason::Shutdown);
/// assert_eq!(ExitReason::from_stop(Some("upgrade")).to_string(), "shutdown (upgrade)");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "exit", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ExitReason {
    /// It stopped itself, or was asked to stop without a reason.
    Normal,
    /// Its supervisor stopped it.
    Shutdown,
    /// It was stopped, or stopped itself, with a reason (OTP's `{shutdown, Term}`).
    ShutdownWith {
        /// The reason given.
        reason: Arc<str>,
    },
    /// It panicked, or a hook or handler returned an error.
    Failed(Failure),
    /// It was killed, or its task was aborted.
    Killed,
}

/// What is known about a panic or an error.
///
/// ```
/// use plimsoll::exit::Failure;
///
/// let failure = Failure::new("disk full").at("src/store.rs:7:5");
/// assert_eq!(failure.to_string(), "disk full at src/store.rs:7:5");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Failure {
    /// The panic message or the error's text.
    pub message: Arc<str>,
    /// `file:line:column` of the panic, when the program records panic locations.
    pub location: Option<Arc<str>>,
}

impl Failure {
    /// A failure with a message and no location.
    pub fn new(message: impl Into<Arc<str>>) -> Self {
        Self { message: message.into(), location: None }
    }

    /// The same failure with the place where it happened.
    #[must_use]
    pub fn at(mut self, location: impl Into<Arc<str>>) -> Self {
        self.location = Some(location.into());
        self
    }
}

impl ExitReason {
    /// A failure with this message.
    pub fn failed(message: impl Into<Arc<str>>) -> Self {
        Self::Failed(Failure::new(message))
    }

    /// The reason that ractor reports for an ordinary end: what was given to `stop`, or one of its own words.
    pub fn from_stop(reason: Option<&str>) -> Self {
        match reason {
            None => Self::Normal,
            Some("shutdown") => Self::Shutdown,
            Some("killed" | "actor_task_cancelled") => Self::Killed,
            Some("Drained") => Self::ShutdownWith { reason: "drained".into() },
            Some(other) => Self::ShutdownWith { reason: other.into() },
        }
    }

    /// Whether this counts as a failure: a failure or a kill.
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Killed)
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Normal => f.write_str("normal"),
            Self::Shutdown => f.write_str("shutdown"),
            Self::ShutdownWith { reason } => write!(f, "shutdown ({reason})"),
            Self::Failed(failure) => write!(f, "failed: {failure}"),
            Self::Killed => f.write_str("killed"),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location {
            Some(location) => write!(f, "{} at {location}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

//! What the rules are told about a supervisor and its children.

use std::sync::Arc;
use std::time::Duration;

use super::stop::Stop;
use crate::inspect::Kind;
use crate::supervisor::options::{AutoShutdown, Backoff, Restart, Shutdown, StopMode, Strategy};

/// What a supervisor is told about itself.
#[derive(Debug, Clone)]
pub(crate) struct Flags {
    pub(crate) strategy: Strategy,
    pub(crate) intensity: u32,
    pub(crate) period: Duration,
    pub(crate) auto_shutdown: AutoShutdown,
    /// How long a killed child may take to be gone before it is left behind.
    pub(crate) kill_timeout: Duration,
}

/// What the rules know of a child spec.
#[derive(Debug, Clone)]
pub(crate) struct ChildRules {
    pub(crate) id: Arc<str>,
    pub(crate) kind: Kind,
    pub(crate) restart: Restart,
    pub(crate) shutdown: Shutdown,
    pub(crate) significant: bool,
    pub(crate) stop_mode: StopMode,
    pub(crate) backoff: Backoff,
}

impl ChildRules {
    pub(super) fn stop(&self) -> Stop {
        Stop { restart: self.restart, shutdown: self.shutdown, stop_mode: self.stop_mode }
    }
}

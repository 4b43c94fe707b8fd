//! What a supervisor returns about its children.

use std::sync::Arc;

use ractor::ActorCell;
use serde::{Serialize, Serializer};

use crate::inspect::Kind;

/// One entry of [`SupervisorRef::which_children`](super::SupervisorRef::which_children).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ChildEntry {
    /// Its id; none for the children of a dynamic supervisor.
    pub id: Option<Arc<str>>,
    /// Its state.
    #[serde(flatten)]
    pub state: ChildState,
    /// Supervisor or worker.
    pub kind: Kind,
}

/// The state of a child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", content = "actor", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ChildState {
    /// It runs, or is just being stopped.
    Running(#[serde(serialize_with = "actor_id")] ActorCell),
    /// Its first start, or one by hand, is in progress.
    Starting,
    /// It waits for its restart, or is being restarted.
    Restarting,
    /// There is none: ignored, exited or terminated.
    None,
}

fn actor_id<S: Serializer>(actor: &ActorCell, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&actor.get_id())
}

/// What [`SupervisorRef::count_children`](super::SupervisorRef::count_children) counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct ChildCount {
    /// Child specs; 1 for a dynamic supervisor.
    pub specs: usize,
    /// Children that run.
    pub active: usize,
    /// Specs of supervisors, running or not.
    pub supervisors: usize,
    /// Specs of workers, running or not.
    pub workers: usize,
}

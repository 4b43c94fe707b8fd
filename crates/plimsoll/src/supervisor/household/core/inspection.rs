//! Looks at the state from outside.

use std::sync::Arc;

use ractor::ActorId;

use super::Core;
use crate::inspect::{Details, Inspect, Kind, Status, TreeNode};
use crate::supervisor::child::ChildRef;
use crate::supervisor::child_spec::ChildSettings;
use crate::supervisor::error::ChildError;
use crate::supervisor::rules::{Key, Phase, Run};

impl Core {
    /// # Errors
    /// While the supervisor ends, and after.
    pub(crate) fn serving(&self) -> Result<(), ChildError> {
        if self.rules.is_closing() { Err(ChildError::ShuttingDown) } else { Ok(()) }
    }

    pub(crate) fn child(&self, run: Run) -> Option<ChildRef> {
        self.live.get(&run).map(|live| ChildRef { actor: live.actor.clone(), value: live.value.clone() })
    }

    pub(crate) fn run_of(&self, actor: ActorId) -> Option<Run> {
        self.actors.get(&actor).copied()
    }

    pub(crate) fn settings(&self, key: Key) -> Option<&ChildSettings> {
        self.specs.get(&key).map(|spec| &spec.settings)
    }

    /// What the snapshot shows, and what its children add themselves.
    pub(in crate::supervisor::household) fn details(&self) -> (Details, Vec<Option<Arc<dyn Inspect>>>) {
        let mut details = Details::default();
        let mut shown = Vec::new();
        for (_, rules, phase, restarts) in self.rules.phases() {
            let (status, run) = match phase {
                Phase::Vacant => (Status::Stopped, None),
                Phase::Starting => (Status::Starting, None),
                Phase::Up(run) => (Status::Running, Some(run)),
                Phase::Stopping(run) => (Status::Stopping, Some(run)),
                Phase::Restarting => (Status::Restarting, None),
            };
            let live = run.and_then(|run| self.live.get(&run));
            details.children.push(TreeNode {
                id: rules.id.to_string(),
                kind: if rules.kind == Kind::Supervisor { Kind::Supervisor } else { Kind::Worker },
                status,
                actor: live.map(|live| live.actor.get_id().to_string()),
                restarts,
                details: Details::default(),
            });
            shown.push(live.and_then(|live| live.inspect.clone()));
        }
        details.counters = [
            ("restarts", self.restarts),
            ("kill_timed_out", self.own_end.kill_timed_out()),
            ("children", details.children.len() as u64),
            ("active", self.live.len() as u64),
        ]
        .into_iter()
        .map(|(name, count)| (name.to_owned(), count))
        .collect();
        (details, shown)
    }
}

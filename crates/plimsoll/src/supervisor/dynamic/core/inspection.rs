//! Looks at the state from outside.

use std::sync::Arc;

use plimsoll_sync::slots::SlotKey;
use ractor::ActorId;

use super::Core;
use super::slot::Slot;
use crate::inspect::{Details, Inspect, Kind, Status, TreeNode};
use crate::supervisor::error::ChildError;
use crate::supervisor::handle::{ChildCount, ChildEntry, ChildState};
use crate::supervisor::rules::DynamicPhase;

/// Children that a snapshot shows one by one.
const SHOWN: usize = 1_000;

impl<A: Send + 'static> Core<A> {
    pub(in crate::supervisor::dynamic) fn serving(&self) -> Result<(), ChildError> {
        if self.rules.is_closing() { Err(ChildError::ShuttingDown) } else { Ok(()) }
    }

    pub(in crate::supervisor::dynamic) fn knows(&self, actor: ActorId) -> bool {
        self.actors.contains_key(&actor.pid())
    }

    fn state(&self, key: SlotKey, slot: &Slot<A>) -> ChildState {
        match (self.rules.phase(key), &slot.actor) {
            (Some(DynamicPhase::Restarting), _) => ChildState::Restarting,
            (_, Some(actor)) => ChildState::Running(actor.clone()),
            (_, None) => ChildState::None,
        }
    }

    pub(in crate::supervisor::dynamic) fn entries(&self, kind: Kind) -> Vec<ChildEntry> {
        let mut slots: Vec<_> = self.slots.iter().collect();
        slots.sort_unstable_by_key(|(key, _)| std::cmp::Reverse(*key));
        slots.into_iter().map(|(key, slot)| ChildEntry { id: None, kind, state: self.state(key, slot) }).collect()
    }

    pub(in crate::supervisor::dynamic) fn count(&self, kind: Kind) -> ChildCount {
        let all = self.slots.len();
        let restarting = self.rules.restarting();
        let starting = self.reserved;
        let supervisors = if kind == Kind::Supervisor { all } else { 0 };
        ChildCount { specs: 1, active: all - restarting - starting, supervisors, workers: all - supervisors }
    }

    pub(in crate::supervisor::dynamic) fn details(&self, kind: Kind) -> (Details, Vec<Option<Arc<dyn Inspect>>>) {
        let mut details = Details::default();
        let mut shown = Vec::new();
        for (key, slot) in self.slots.iter().take(SHOWN) {
            let status = match (self.rules.phase(key), &slot.actor) {
                (Some(DynamicPhase::Restarting), _) => Status::Restarting,
                (Some(DynamicPhase::Stopping), _) => Status::Stopping,
                (None, Some(_)) => Status::Running,
                (None, None) => Status::Starting,
            };
            let actor = slot.actor.as_ref().map(|actor| actor.get_id().to_string());
            details.children.push(TreeNode {
                id: actor.clone().unwrap_or_default(),
                kind,
                status,
                actor,
                restarts: slot.more.as_ref().map_or(0, |more| more.restarts),
                details: Details::default(),
            });
            shown.push(slot.more.as_ref().and_then(|more| more.inspect.clone()));
        }
        details.counters = [
            ("children", self.slots.len() as u64),
            ("max_children", u64::from(self.slots.limit())),
            ("started", self.counts.started),
            ("restarts", self.counts.restarts),
            ("refused_max_children", self.counts.refused),
            ("kill_timed_out", self.own_end.kill_timed_out()),
        ]
        .into_iter()
        .map(|(name, count)| (name.to_owned(), count))
        .collect();
        (details, shown)
    }
}

//! Starts in their callers' tasks: each holds a slot until it is over.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_sync::slots::SlotKey;
use ractor::ActorCell;

use super::slot::Slot;
use super::{Core, Dynamic};
use crate::supervisor::child::Child;
use crate::supervisor::child_spec::StartBox;
use crate::supervisor::error::StartError;

/// Boxes of starts kept for the next, a few KiB each.
const USED: usize = 16;

impl<A: Send + 'static> Core<A> {
    /// Holds a slot for a start in its caller's task. Answers a box for the start, too, when a used one is there.
    pub(in crate::supervisor::dynamic) fn reserve(&mut self) -> Result<(SlotKey, Option<StartBox>), StartError> {
        if self.rules.is_closing() {
            return Err(StartError::ShuttingDown);
        }
        let slot = Slot { actor: None, join: None, since: Duration::ZERO, args: None, more: None };
        let Ok(key) = self.slots.insert(slot) else {
            self.counts.refused += 1;
            return Err(StartError::MaxChildren { max: self.slots.limit() });
        };
        self.reserved += 1;
        self.rules.reserved();
        Ok((key, self.used.pop()))
    }

    /// A start in its caller's task came to nothing.
    pub(in crate::supervisor::dynamic) fn release(&mut self, key: SlotKey) {
        self.slots.remove(key);
        self.settled();
    }

    fn settled(&mut self) {
        self.reserved -= 1;
        self.rules.settled();
        self.forget_early();
    }

    /// What the only start under way linked to the supervisor before it failed or was given up. With others under way
    /// nobody can tell whose it is: the last of them that fails takes it along. O(n).
    pub(in crate::supervisor::dynamic) fn orphans(&self, crew: &Dynamic<A>) -> Vec<ActorCell> {
        if self.reserved + self.starts.len() > 1 {
            return Vec::new();
        }
        let unknown = |actor: &ActorCell| {
            let pid = actor.get_id().pid();
            pid > self.newest && !self.actors.contains_key(&pid)
        };
        crew.frame.anchor().get_children().into_iter().filter(unknown).collect()
    }

    pub(super) fn forget_early(&mut self) {
        if self.reserved == 0 && self.starts.is_empty() && !self.early.is_empty() {
            self.garbage.push(Box::new(std::mem::take(&mut self.early)));
        }
    }

    /// Takes in the child that its caller has started; gives it back when the supervisor is about to stop.
    pub(in crate::supervisor::dynamic) fn fill(
        &mut self,
        crew: &Arc<Dynamic<A>>,
        key: SlotKey,
        child: Child,
        args: Option<A>,
        used: Option<StartBox>,
        now: Duration,
    ) -> Option<Child> {
        if self.rules.is_closing() {
            return Some(child);
        }
        if self.used.len() < USED {
            self.used.extend(used);
        }
        self.counts.started += 1;
        let early = self.adopt(crew, key, child, now);
        if let Some(slot) = self.slots.get_mut(key) {
            slot.args = args;
        }
        if let Some((actor, heard)) = early {
            self.heard_early(crew, actor, heard, now);
        }
        self.settled();
        None
    }
}

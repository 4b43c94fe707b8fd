//! The end of a child: what is heard of it, piece by piece, until the rules are told.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_sync::slots::SlotKey;
use ractor::ActorId;
use ractor::concurrency::JoinHandle;

use super::{Core, Dynamic};
use crate::exit::{ExitReason, Failure};
use crate::supervisor::child::Nested;
use crate::supervisor::frame::{End, Heard, ended_already, watch};
use crate::supervisor::rules::Gone;
use crate::supervisor::shutdown_report::ShutdownReport;

impl<A: Send + 'static> Core<A> {
    /// ractor told of the end of a linked actor. Answers its task, when that is still to be waited for.
    pub(in crate::supervisor::dynamic) fn heard(
        &mut self,
        actor: ActorId,
        heard: Heard,
        now: Duration,
    ) -> Option<(SlotKey, JoinHandle<()>)> {
        let Some(&key) = self.actors.get(&actor.pid()) else {
            if self.reserved > 0 || !self.starts.is_empty() {
                self.early.push(actor, heard);
            }
            return None;
        };
        let slot = self.slots.get_mut(key)?;
        let reason = heard.reason(slot.join.as_ref().map(JoinHandle::id));
        if let Some(mut join) = slot.join.take() {
            let Some(panic) = ended_already(&mut join) else {
                slot.more().ending.heard(reason);
                return Some((key, join));
            };
            let since = slot.since;
            let reason = panic.map_or(reason, ExitReason::Failed);
            self.exited(key, since, reason, Gone::Yes, now);
            return None;
        }
        slot.more().ending.heard(reason);
        self.tell_end(key, now);
        None
    }

    pub(super) fn heard_early(&mut self, crew: &Arc<Dynamic<A>>, actor: ActorId, heard: Heard, now: Duration) {
        if let Some((key, join)) = self.heard(actor, heard, now) {
            self.awaited(crew, key, join, None, now);
        }
    }

    /// The task of a child whose last words were heard has ended, or it takes longer and is waited for.
    pub(in crate::supervisor::dynamic) fn awaited(
        &mut self,
        crew: &Arc<Dynamic<A>>,
        key: SlotKey,
        join: JoinHandle<()>,
        ended: Option<Option<Failure>>,
        now: Duration,
    ) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        match ended {
            Some(panic) => slot.more().ending.joined(panic),
            None => watch(crew, key, join, None),
        }
        self.tell_end(key, now);
    }

    /// The task of the child has ended; whether its last words are still to come.
    pub(in crate::supervisor::dynamic) fn joined(
        &mut self,
        key: SlotKey,
        panic: Option<Failure>,
        now: Duration,
    ) -> bool {
        let Some(slot) = self.slots.get_mut(key) else { return false };
        let ending = &mut slot.more().ending;
        ending.joined(panic);
        if !ending.is_heard() {
            return true;
        }
        self.tell_end(key, now);
        false
    }

    /// All that could be heard of the child has been heard.
    pub(in crate::supervisor::dynamic) fn flushed(&mut self, key: SlotKey, now: Duration) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let ending = &mut slot.more().ending;
        if ending.is_joined() {
            ending.heard(ExitReason::Killed);
            self.tell_end(key, now);
        }
    }

    /// The task of the child has not ended long after its last words.
    pub(in crate::supervisor::dynamic) fn lingers(&mut self, key: SlotKey, now: Duration) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let since = slot.since;
        if let Some(reason) = slot.more().ending.lingers() {
            self.exited(key, since, reason, Gone::Lingers, now);
        }
    }

    /// The nested supervisor has ended; its stragglers may live on. Answers it when its report is of no use here.
    pub(in crate::supervisor::dynamic) fn nested_over(
        &mut self,
        key: SlotKey,
        report: &ShutdownReport,
        now: Duration,
    ) -> Option<Arc<dyn Nested>> {
        let slot = self.slots.get_mut(key)?;
        let id = slot.actor.as_ref().map(|actor| actor.get_id().to_string()).unwrap_or_default();
        let more = slot.more();
        more.ending.reported(report.kill_timed_out().next().is_some());
        let mut unwanted = None;
        if self.own_end.has_begun() {
            self.own_end.merge(&id.into(), report);
        } else {
            unwanted = more.nested.clone();
        }
        self.tell_end(key, now);
        unwanted
    }

    fn exited(&mut self, key: SlotKey, since: Duration, reason: ExitReason, gone: Gone, now: Duration) {
        let others = self.slots.len() - 1;
        self.rules.exited(key, since, reason, gone, others, now);
    }

    /// Tells the rules what is known by now of an end.
    fn tell_end(&mut self, key: SlotKey, now: Duration) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let since = slot.since;
        match slot.more().ending.news() {
            Some(End::Exited(reason, gone)) => self.exited(key, since, reason, gone, now),
            Some(End::Ended) => self.rules.ended(key, now),
            None => {}
        }
    }
}

//! The slots of a dynamic supervisor's children, and the rules for those that do not simply run.
//!
//! Here are the state and the doors of the whole: what is asked of it, and its end.

mod acting;
mod ending;
mod inspection;
mod live;
mod reserving;
mod restarting;
mod slot;

use std::sync::Arc;
use std::time::Duration;

use plimsoll_sync::slots::{SlotKey, Slots};
use ractor::ActorId;
use tokio::sync::oneshot;

use self::slot::Slot;
use super::crew::Dynamic;
use super::errands::Errands;
use crate::supervisor::child_spec::StartBox;
use crate::supervisor::frame::{EarlyEnds, Garbage, OwnEnd, Rest, Sleep, StartTask};
use crate::supervisor::log::Log;
use crate::supervisor::rules::{DynamicRules, Numbered, Refusal, Ticket};
use crate::supervisor::shutdown_report::ShutdownReport;

/// The state behind the lock.
pub(super) struct Core<A> {
    pub(super) rules: DynamicRules,
    slots: Slots<Slot<A>>,
    /// Slots by the number of their actor.
    actors: Numbered<u64, SlotKey>,
    /// Boxes of starts that are over.
    used: Vec<StartBox>,
    /// Starts under way in callers' tasks.
    reserved: usize,
    starts: Numbered<SlotKey, StartTask>,
    /// The newest actor that was taken in.
    newest: u64,
    /// Ends of linked actors whose start has not been told.
    early: EarlyEnds,
    tickets: Numbered<Ticket, oneshot::Sender<Option<Refusal>>>,
    next_ticket: Ticket,
    counts: Counts,
    own_end: OwnEnd,
    keeper: Sleep,
    log: Log,
    garbage: Garbage,
    errands: Errands,
}

#[derive(Default)]
struct Counts {
    started: u64,
    restarts: u64,
    refused: u64,
}

impl<A: Send + 'static> Core<A> {
    pub(super) fn new(rules: DynamicRules, max_children: u32) -> Self {
        Self {
            rules,
            slots: Slots::with_limit(max_children),
            actors: Numbered::default(),
            used: Vec::new(),
            reserved: 0,
            starts: Numbered::default(),
            newest: 0,
            early: EarlyEnds::default(),
            tickets: Numbered::default(),
            next_ticket: 0,
            counts: Counts::default(),
            own_end: OwnEnd::default(),
            keeper: Sleep::default(),
            log: Log::default(),
            garbage: Vec::new(),
            errands: Errands::default(),
        }
    }

    /// Begins to stop a child; whether there is such a child.
    pub(super) fn terminate(
        &mut self,
        actor: ActorId,
        waiting: oneshot::Sender<Option<Refusal>>,
        now: Duration,
    ) -> bool {
        if self.rules.is_closing() {
            let _ = waiting.send(Some(Refusal::ShuttingDown));
            return true;
        }
        let Some(&key) = self.actors.get(&actor.pid()) else { return false };
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.tickets.insert(ticket, waiting);
        let nested = self.slots.get(key).is_some_and(Slot::is_nested);
        self.rules.terminate(key, nested, ticket, now);
        true
    }

    pub(super) fn stop(&mut self, asked_by_call: bool, now: Duration) {
        self.own_end.asked(asked_by_call);
        let running = self.running();
        self.rules.stop(running, now);
    }

    pub(super) fn kill(&mut self, now: Duration) {
        let running = self.running();
        self.rules.kill(running, now);
    }

    pub(super) fn max_children(&self) -> u32 {
        self.slots.limit()
    }

    pub(super) fn set_max_children(&mut self, max: u32) {
        self.slots.set_limit(max);
    }

    pub(super) fn take_garbage(&mut self) -> Garbage {
        std::mem::take(&mut self.garbage)
    }

    pub(super) fn take_errands(&mut self) -> Errands {
        std::mem::take(&mut self.errands)
    }

    /// What the keeper does next.
    pub(super) fn rest(&mut self) -> Rest {
        self.keeper.rest(self.rules.deadline(), self.own_end.is_over())
    }

    /// Whether the keeper sleeps longer than it may.
    pub(super) fn keeper_is_wanted(&self) -> bool {
        self.keeper.is_too_long(self.rules.deadline(), self.own_end.is_over())
    }

    pub(super) fn conclude(&mut self, name: &Arc<str>, now: Duration) -> (ShutdownReport, bool) {
        let report = self.own_end.report(name.clone(), now);
        self.tickets.clear();
        (report, self.own_end.asked_by_call())
    }

    pub(super) fn anything_left(&self) -> bool {
        self.slots.iter().any(|(_, slot)| slot.actor.is_some()) || !self.starts.is_empty()
    }

    /// Kills whatever is there, by itself, and lets nobody wait any longer: for when the keeper is no more, or the rules
    /// cannot be relied upon.
    pub(super) fn abandon(&mut self) {
        self.rules.abandon();
        self.starts.values_mut().for_each(StartTask::abort);
        // Those that have not begun will not tell.
        self.starts.retain(|_, start| start.begun);
        for actor in self.slots.iter().filter_map(|(_, slot)| slot.actor.as_ref()) {
            actor.kill();
        }
        self.own_end.abandon();
        self.tickets.clear();
    }
}

//! The rules of a dynamic supervisor: many children of one kind, none of which depends on another.
//!
//! A child that simply runs costs nothing here: it stands in the supervisor's table of slots alone. Only those that end,
//! restart or are stopped are in [`DynamicRules`], so that a start and an end are O(1) however many there are. The table
//! decides about `max_children`, identity and shutting down, in the caller's task.

mod action;
mod busy;
mod exit;
mod restart;
mod stop;
mod timer;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use plimsoll_sync::slots::SlotKey;

pub(crate) use self::action::DynamicAction;
use self::busy::Busy;
pub(crate) use self::busy::DynamicPhase;
use self::timer::Timer;
use super::stop::Stop;
use super::{Exit, IntensityWindow, Numbered, Refusal, Ticket};
use crate::supervisor::options::{AutoShutdown, Backoff, Restart, Shutdown, StopMode};
use crate::supervisor::shutdown_report::StopFailureKind;

/// What the children have in common.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    pub(crate) restart: Restart,
    pub(crate) shutdown: Shutdown,
    pub(crate) stop_mode: StopMode,
    pub(crate) backoff: Backoff,
    pub(crate) significant: bool,
    pub(crate) auto_shutdown: AutoShutdown,
    pub(crate) kill_timeout: Duration,
}

impl Template {
    fn stop(&self) -> Stop {
        Stop { restart: self.restart, shutdown: self.shutdown, stop_mode: self.stop_mode }
    }
}

#[derive(Debug)]
enum Life {
    Serving,
    /// Until the second time even the starts of callers that are not polled are waited for.
    Closing(Exit, Option<Duration>),
    Finished,
}

/// The state machine of a dynamic supervisor.
#[derive(Debug)]
pub(crate) struct DynamicRules {
    template: Template,
    window: IntensityWindow,
    busy: Numbered<SlotKey, Busy>,
    /// Restarts in a row, of children that were restarted.
    attempts: Numbered<SlotKey, u32>,
    timers: BTreeSet<(Duration, SlotKey, Timer)>,
    set_at: Numbered<(SlotKey, Timer), Duration>,
    /// The common grace of a stop.
    common_grace: Option<Duration>,
    life: Life,
    /// Busy children that are worth waiting for.
    held: usize,
    /// Starts under way in callers' tasks.
    reserved: usize,
    /// The end was decided here: who runs has yet to be told.
    untold: bool,
    random: u64,
    actions: VecDeque<DynamicAction>,
}

impl DynamicRules {
    pub(crate) fn new(template: Template, intensity: u32, period: Duration, seed: u64) -> Self {
        Self {
            template,
            window: IntensityWindow::new(intensity, period),
            busy: Numbered::default(),
            attempts: Numbered::default(),
            timers: BTreeSet::new(),
            set_at: Numbered::default(),
            common_grace: None,
            life: Life::Serving,
            held: 0,
            reserved: 0,
            untold: false,
            random: seed,
            actions: VecDeque::new(),
        }
    }

    pub(crate) fn is_closing(&self) -> bool {
        !matches!(self.life, Life::Serving)
    }

    /// A caller begins a start; ends with [`settled`](Self::settled).
    pub(crate) fn reserved(&mut self) {
        self.reserved += 1;
    }

    /// A caller's start is over.
    pub(crate) fn settled(&mut self) {
        // None are counted any more when a stop has waited long enough for them.
        self.reserved = self.reserved.saturating_sub(1);
        self.finish_if_done();
    }

    /// Nobody performs anything any more.
    pub(crate) fn abandon(&mut self) {
        self.life = Life::Finished;
        self.timers.clear();
        self.set_at.clear();
        self.common_grace = None;
        self.untold = false;
        self.actions.clear();
    }

    /// What is to be done next.
    pub(crate) fn next_action(&mut self) -> Option<DynamicAction> {
        self.actions.pop_front()
    }

    /// What is the matter with a child, when something is.
    pub(crate) fn phase(&self, key: SlotKey) -> Option<DynamicPhase> {
        self.busy.get(&key).map(Busy::phase)
    }

    /// How many children wait for their restart or are being started again.
    pub(crate) fn restarting(&self) -> usize {
        self.busy.values().filter(|busy| busy.phase() == DynamicPhase::Restarting).count()
    }

    fn hold(&mut self, key: SlotKey, busy: Busy) {
        self.held += usize::from(busy.holds());
        self.busy.insert(key, busy);
    }

    fn release(&mut self, key: SlotKey) -> Option<Busy> {
        let busy = self.busy.remove(&key)?;
        self.held -= usize::from(busy.holds());
        Some(busy)
    }

    fn free(&mut self, key: SlotKey, waiters: Vec<Ticket>) {
        self.attempts.remove(&key);
        self.actions.push_back(DynamicAction::Free(key));
        for ticket in waiters {
            self.answer(ticket, None);
        }
    }

    fn stop_failed(&mut self, key: SlotKey, kind: StopFailureKind, began: Duration, now: Duration) {
        let (closing, waited) = (self.is_closing(), now.saturating_sub(began));
        self.actions.push_back(DynamicAction::StopFailed { key, kind, closing, waited });
    }

    fn answer(&mut self, ticket: Ticket, refusal: Option<Refusal>) {
        self.actions.push_back(DynamicAction::Answer { ticket, refusal });
    }
}

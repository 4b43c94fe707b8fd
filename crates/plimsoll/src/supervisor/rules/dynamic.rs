//! The rules of a dynamic supervisor: many children of one kind, none of which depends on another.
//!
//! A child that simply runs costs nothing here: it stands in the supervisor's table of slots alone. Only those that end,
//! restart or are stopped are in [`DynamicRules`], so that a start and an end are O(1) however many there are. The table
//! decides about `max_children`, identity and shutting down, in the caller's task.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::time::Duration;

use plimsoll_sync::slots::SlotKey;

use super::entry::Kill;
use super::exit::restarts;
use super::stop::{Stop, classify};
use super::{Exit, Gone, IntensityWindow, Numbered, Refusal, StartFailure, Ticket, Trouble, Verdict, random};
use crate::exit::ExitReason;
use crate::supervisor::policy::{Ask, AutoShutdown, Backoff, Restart, Shutdown};

/// What the children have in common.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    pub(crate) restart: Restart,
    pub(crate) shutdown: Shutdown,
    pub(crate) ask: Ask,
    pub(crate) backoff: Backoff,
    pub(crate) significant: bool,
    pub(crate) auto_shutdown: AutoShutdown,
    pub(crate) leave_behind: Duration,
}

impl Template {
    fn stop(&self) -> Stop {
        Stop { restart: self.restart, shutdown: self.shutdown, ask: self.ask }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum DynamicAction {
    /// Start the child of this slot again.
    Start(SlotKey),
    /// Give up the start that is under way.
    CancelStart(SlotKey),
    Ask(SlotKey),
    Kill(SlotKey),
    Answer {
        ticket: Ticket,
        refusal: Option<Refusal>,
    },
    /// The child is gone for good.
    Free(SlotKey),
    Ended {
        key: SlotKey,
        reason: ExitReason,
        restarting: bool,
    },
    RestartFailed {
        key: SlotKey,
        failure: StartFailure,
    },
    GaveUp,
    AutoShutdown(SlotKey),
    Trouble {
        key: SlotKey,
        trouble: Trouble,
        closing: bool,
        waited: Duration,
    },
    Finish(Exit),
}

/// A child that does not simply run.
#[derive(Debug)]
enum Busy {
    /// It ended by itself; its task has not ended yet.
    Down { restarting: bool, left: bool, waiters: Vec<Ticket> },
    /// It waits for its restart.
    Waiting,
    /// It is being started again.
    Starting { cancelled: bool, left: bool, waiters: Vec<Ticket> },
    /// It was asked to stop, or killed.
    Stopping {
        began: Duration,
        killed: Option<Kill>,
        ended_with: Option<ExitReason>,
        left: bool,
        nested: bool,
        waiters: Vec<Ticket>,
    },
}

impl Busy {
    fn holds(&self) -> bool {
        match self {
            Self::Waiting => false,
            Self::Down { left, .. } | Self::Starting { left, .. } | Self::Stopping { left, .. } => !left,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Timer {
    Grace,
    Leave,
    Delay,
}

/// The visible state of a child that does not simply run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DynamicPhase {
    Restarting,
    Stopping,
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

    /// The child of `key`, up since `since`, said its last; there are so many `others`.
    pub(crate) fn exited(
        &mut self,
        key: SlotKey,
        since: Duration,
        reason: ExitReason,
        gone: Gone,
        others: usize,
        now: Duration,
    ) {
        match self.busy.get_mut(&key) {
            Some(Busy::Stopping { ended_with, .. }) => {
                *ended_with = Some(reason);
                if gone != Gone::Yes {
                    self.set_timer(now + self.template.leave_behind, key, Timer::Leave);
                }
            }
            Some(_) => return,
            None => {
                let serving = !self.is_closing();
                self.ended_by_itself(key, since, reason, gone == Gone::Yes, now);
                if serving && !self.is_closing() && self.ends_the_supervisor(key, others) {
                    self.actions.push_back(DynamicAction::AutoShutdown(key));
                    self.untold = true;
                    self.close(Exit::AutoShutdown, now);
                }
            }
        }
        match gone {
            Gone::Yes => self.ended(key, now),
            Gone::Lingers => self.leave(key, true, now),
            Gone::StragglersLeft => self.leave(key, false, now),
        }
        self.finish_if_done();
    }

    fn ended_by_itself(&mut self, key: SlotKey, since: Duration, reason: ExitReason, gone: bool, now: Duration) {
        if self.is_closing() {
            self.hold(key, Busy::Down { restarting: false, left: false, waiters: Vec::new() });
            if let Some(trouble) = classify(self.template.stop(), None, &reason) {
                self.trouble(key, trouble, now, now);
            }
            return;
        }
        let restarting = restarts(self.template.restart, &reason);
        if gone && !restarting {
            // The common end: nothing to wait for.
            self.actions.push_back(DynamicAction::Ended { key, reason, restarting });
            self.attempts.remove(&key);
            return self.actions.push_back(DynamicAction::Free(key));
        }
        self.actions.push_back(DynamicAction::Ended { key, reason, restarting });
        self.hold(key, Busy::Down { restarting, left: false, waiters: Vec::new() });
        if !gone {
            self.set_timer(now + self.template.leave_behind, key, Timer::Leave);
        }
        if now.saturating_sub(since) > self.window.period() {
            self.attempts.remove(&key);
        }
        if restarting && self.window.record(now) == Verdict::GiveUp {
            self.give_up(now);
        }
    }

    /// Whether the end of this child is the one that auto_shutdown waits for: it is not restarted, and if all have to end,
    /// no other is left but those that are on their way out.
    fn ends_the_supervisor(&self, key: SlotKey, others: usize) -> bool {
        let leaving = |busy: &Busy| matches!(busy, Busy::Down { restarting: false, .. } | Busy::Stopping { .. });
        let over = |busy: Option<&Busy>| busy.is_none_or(leaving);
        if !self.template.significant || !over(self.busy.get(&key)) {
            return false;
        }
        match self.template.auto_shutdown {
            AutoShutdown::Never => false,
            AutoShutdown::AnySignificant => true,
            // Where there are more than those, some simply run.
            AutoShutdown::AllSignificant => {
                others <= self.busy.len() && {
                    let left = self.busy.iter().filter(|(other, busy)| **other != key && leaving(busy)).count();
                    others == left
                }
            }
        }
    }

    /// The task of the incarnation has ended.
    pub(crate) fn ended(&mut self, key: SlotKey, now: Duration) {
        self.cancel_timers(key);
        match self.release(key) {
            Some(Busy::Down { restarting: true, waiters, .. }) if waiters.is_empty() && !self.is_closing() => {
                self.delay(key, now);
            }
            Some(Busy::Down { waiters, .. }) => self.free(key, waiters),
            Some(Busy::Stopping { began, killed, ended_with, left, waiters, .. }) => {
                let reason = ended_with.unwrap_or(ExitReason::Killed);
                let trouble = classify(self.template.stop(), killed, &reason);
                if let (Some(trouble), false) = (trouble, left) {
                    self.trouble(key, trouble, began, now);
                }
                self.free(key, waiters);
            }
            Some(other) => self.hold(key, other),
            None => {}
        }
        self.finish_if_done();
    }

    /// The restart of `key` succeeded.
    pub(crate) fn restarted(&mut self, key: SlotKey, nested: bool, now: Duration) {
        match self.release(key) {
            Some(Busy::Starting { cancelled: true, waiters, .. }) => {
                self.begin_stop(key, nested, waiters, now);
            }
            Some(Busy::Starting { .. }) => {}
            Some(other) => self.hold(key, other),
            None => {}
        }
        self.finish_if_done();
    }

    /// The restart of `key` had nothing to run.
    pub(crate) fn ignored(&mut self, key: SlotKey) {
        if let Some(Busy::Starting { waiters, .. }) = self.release(key) {
            self.free(key, waiters);
        }
        self.finish_if_done();
    }

    /// The restart of `key` failed, or was given up.
    pub(crate) fn restart_failed(&mut self, key: SlotKey, failure: StartFailure, now: Duration) {
        self.cancel_timers(key);
        match self.release(key) {
            Some(Busy::Starting { cancelled: true, waiters, .. }) => self.free(key, waiters),
            Some(Busy::Starting { .. }) => {
                self.actions.push_back(DynamicAction::RestartFailed { key, failure });
                if self.window.record(now) == Verdict::GiveUp {
                    self.busy.insert(key, Busy::Waiting);
                    self.give_up(now);
                } else {
                    self.delay(key, now);
                }
            }
            _ => {}
        }
        self.finish_if_done();
    }

    /// Stops one child; `up`: it runs and is not yet known here.
    pub(crate) fn terminate(&mut self, key: SlotKey, nested: bool, ticket: Ticket, now: Duration) {
        if self.is_closing() {
            return self.answer(ticket, Some(Refusal::ShuttingDown));
        }
        match self.busy.get_mut(&key) {
            None => self.begin_stop(key, nested, vec![ticket], now),
            Some(Busy::Waiting) => {
                self.clear_timer(key, Timer::Delay);
                self.busy.remove(&key);
                self.free(key, vec![ticket]);
            }
            Some(
                Busy::Down { left: true, .. } | Busy::Stopping { left: true, .. } | Busy::Starting { left: true, .. },
            ) => {
                self.answer(ticket, Some(Refusal::LeftBehind));
            }
            Some(Busy::Down { waiters, restarting, .. }) => {
                *restarting = false;
                waiters.push(ticket);
            }
            Some(Busy::Stopping { waiters, .. }) => waiters.push(ticket),
            Some(Busy::Starting { waiters, .. }) => {
                waiters.push(ticket);
                self.cancel_start(key, now);
            }
        }
    }

    /// Stops all, at once; `up` are those that run and are not yet known here.
    pub(crate) fn stop(&mut self, up: Vec<(SlotKey, bool)>, now: Duration) {
        self.close(Exit::Stopped, now);
        self.stop_all(up, now);
    }

    /// What remains of a stop that the rules themselves decided on: they do not know who runs.
    pub(crate) fn stop_all(&mut self, up: Vec<(SlotKey, bool)>, now: Duration) {
        self.untold = false;
        for (key, nested) in self.without_freed(up) {
            if !self.busy.contains_key(&key) {
                self.begin_stop(key, nested, Vec::new(), now);
            }
        }
        self.finish_if_done();
    }

    /// The supervisor was killed: so are all.
    pub(crate) fn kill(&mut self, up: Vec<(SlotKey, bool)>, now: Duration) {
        if matches!(self.life, Life::Finished) {
            return;
        }
        self.untold = false;
        self.close(Exit::Killed, now);
        if let Life::Closing(exit, _) = &mut self.life {
            *exit = Exit::Killed;
        }
        for (key, nested) in self.without_freed(up) {
            if !self.busy.contains_key(&key) {
                self.hold(key, stopping(now, nested, Vec::new()));
            }
        }
        let stopping: Vec<SlotKey> = self.busy.keys().copied().collect();
        for key in stopping {
            self.kill_now(key, Kill::Brutal, now);
        }
        self.finish_if_done();
    }

    /// Without those whose slot is about to be freed: their last actor is dead.
    fn without_freed(&self, mut up: Vec<(SlotKey, bool)>) -> Vec<(SlotKey, bool)> {
        let freed = |action: &DynamicAction| match action {
            DynamicAction::Free(key) => Some(*key),
            _ => None,
        };
        let freed: HashSet<SlotKey> = self.actions.iter().filter_map(freed).collect();
        up.retain(|(key, _)| !freed.contains(key));
        up
    }

    /// Whether the rules decided on the end and have to be told who runs.
    pub(crate) fn must_stop_all(&self) -> bool {
        self.untold
    }

    pub(crate) fn deadline(&self) -> Option<Duration> {
        let timer = self.timers.first().map(|(at, ..)| *at);
        let closing = match &self.life {
            Life::Closing(_, last) => *last,
            _ => None,
        };
        [timer, self.common_grace, closing].into_iter().flatten().min()
    }

    pub(crate) fn tick(&mut self, now: Duration) {
        while let Some(&(at, key, timer)) = self.timers.first() {
            if at > now {
                break;
            }
            self.clear_timer(key, timer);
            match timer {
                Timer::Grace => self.kill_now(key, Kill::Overdue, now),
                Timer::Leave => self.leave(key, true, now),
                Timer::Delay => self.start(key),
            }
        }
        if self.common_grace.is_some_and(|at| at <= now) {
            self.common_grace = None;
            let all: Vec<SlotKey> = self.busy.keys().copied().collect();
            for key in all {
                self.kill_now(key, Kill::Overdue, now);
            }
        }
        if let Life::Closing(_, last) = &mut self.life
            && last.is_some_and(|at| at <= now)
        {
            *last = None;
            self.reserved = 0;
        }
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
        Some(match self.busy.get(&key)? {
            Busy::Waiting | Busy::Starting { .. } | Busy::Down { restarting: true, .. } => DynamicPhase::Restarting,
            Busy::Down { .. } | Busy::Stopping { .. } => DynamicPhase::Stopping,
        })
    }

    /// How many children wait for their restart or are being started again.
    pub(crate) fn restarting(&self) -> usize {
        let restarting =
            |busy: &&Busy| matches!(busy, Busy::Waiting | Busy::Starting { .. } | Busy::Down { restarting: true, .. });
        self.busy.values().filter(restarting).count()
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

    fn delay(&mut self, key: SlotKey, now: Duration) {
        let attempt = self.attempts.entry(key).or_default();
        let delay = self.template.backoff.delay(*attempt, random(&mut self.random));
        *attempt = attempt.saturating_add(1);
        self.busy.insert(key, Busy::Waiting);
        if delay.is_zero() {
            self.start(key);
        } else {
            self.set_timer(now + delay, key, Timer::Delay);
        }
    }

    fn start(&mut self, key: SlotKey) {
        self.busy.remove(&key);
        self.hold(key, Busy::Starting { cancelled: false, left: false, waiters: Vec::new() });
        self.actions.push_back(DynamicAction::Start(key));
    }

    fn cancel_start(&mut self, key: SlotKey, now: Duration) {
        if let Some(Busy::Starting { cancelled, .. }) = self.busy.get_mut(&key)
            && !*cancelled
        {
            *cancelled = true;
            self.actions.push_back(DynamicAction::CancelStart(key));
            self.set_timer(now + self.template.leave_behind, key, Timer::Leave);
        }
    }

    fn begin_stop(&mut self, key: SlotKey, nested: bool, waiters: Vec<Ticket>, now: Duration) {
        self.hold(key, stopping(now, nested, waiters));
        match self.template.shutdown {
            Shutdown::Brutal => return self.kill_now(key, Kill::Brutal, now),
            Shutdown::After(grace) if self.is_closing() => {
                self.common_grace.get_or_insert(now + grace);
            }
            Shutdown::After(grace) => self.set_timer(now + grace, key, Timer::Grace),
            Shutdown::Infinity => {}
        }
        self.actions.push_back(DynamicAction::Ask(key));
    }

    fn kill_now(&mut self, key: SlotKey, why: Kill, now: Duration) {
        self.clear_timer(key, Timer::Grace);
        match self.busy.get_mut(&key) {
            Some(Busy::Stopping { killed: killed @ None, nested, .. }) => {
                *killed = Some(why);
                let nested = *nested;
                self.actions.push_back(DynamicAction::Kill(key));
                if !nested {
                    self.set_timer(now + self.template.leave_behind, key, Timer::Leave);
                }
            }
            Some(Busy::Starting { .. }) => self.cancel_start(key, now),
            _ => {}
        }
    }

    fn leave(&mut self, key: SlotKey, report: bool, now: Duration) {
        let earlier = now.saturating_sub(self.template.leave_behind);
        let (began, waiters) = match self.busy.get_mut(&key) {
            Some(
                Busy::Down { left: left @ false, waiters, .. } | Busy::Starting { left: left @ false, waiters, .. },
            ) => {
                *left = true;
                (earlier, std::mem::take(waiters))
            }
            Some(Busy::Stopping { left: left @ false, waiters, began, .. }) => {
                *left = true;
                (*began, std::mem::take(waiters))
            }
            _ => return,
        };
        self.held -= 1;
        if report {
            self.trouble(key, Trouble::LeftBehind, began, now);
        }
        for ticket in waiters {
            self.answer(ticket, Some(Refusal::LeftBehind));
        }
    }

    fn give_up(&mut self, now: Duration) {
        self.actions.push_back(DynamicAction::GaveUp);
        self.untold = true;
        self.close(Exit::GaveUp, now);
    }

    fn close(&mut self, exit: Exit, now: Duration) {
        if self.is_closing() {
            return;
        }
        let last = (self.reserved > 0).then(|| now + self.template.leave_behind);
        self.life = Life::Closing(exit, last);
        let mut waiting = Vec::new();
        for busy in self.busy.values_mut() {
            match busy {
                Busy::Down { waiters, .. } | Busy::Starting { waiters, .. } | Busy::Stopping { waiters, .. } => {
                    waiting.append(waiters);
                }
                Busy::Waiting => {}
            }
        }
        for ticket in waiting {
            self.answer(ticket, Some(Refusal::ShuttingDown));
        }
        let busy: Vec<SlotKey> = self.busy.keys().copied().collect();
        for key in busy {
            match self.busy.get_mut(&key) {
                Some(Busy::Waiting) => {
                    self.clear_timer(key, Timer::Delay);
                    self.busy.remove(&key);
                    self.free(key, Vec::new());
                }
                Some(Busy::Down { restarting, .. }) => *restarting = false,
                Some(Busy::Starting { .. }) => self.cancel_start(key, now),
                _ => {}
            }
        }
    }

    fn finish_if_done(&mut self) {
        // Who runs is told only after the decision: until then nothing is done.
        if self.must_stop_all() || self.held > 0 || self.reserved > 0 {
            return;
        }
        if let Life::Closing(exit, _) = &self.life {
            self.actions.push_back(DynamicAction::Finish(exit.clone()));
            self.life = Life::Finished;
        }
    }

    fn trouble(&mut self, key: SlotKey, trouble: Trouble, began: Duration, now: Duration) {
        let (closing, waited) = (self.is_closing(), now.saturating_sub(began));
        self.actions.push_back(DynamicAction::Trouble { key, trouble, closing, waited });
    }

    fn answer(&mut self, ticket: Ticket, refusal: Option<Refusal>) {
        self.actions.push_back(DynamicAction::Answer { ticket, refusal });
    }

    // Timers are looked up by what is set: at most one of a kind a child, found by its time.
    fn set_timer(&mut self, at: Duration, key: SlotKey, timer: Timer) {
        self.clear_timer(key, timer);
        self.timers.insert((at, key, timer));
        self.set_at.insert((key, timer), at);
    }

    fn clear_timer(&mut self, key: SlotKey, timer: Timer) {
        if let Some(at) = self.set_at.remove(&(key, timer)) {
            self.timers.remove(&(at, key, timer));
        }
    }

    fn cancel_timers(&mut self, key: SlotKey) {
        self.clear_timer(key, Timer::Grace);
        self.clear_timer(key, Timer::Leave);
    }
}

fn stopping(began: Duration, nested: bool, waiters: Vec<Ticket>) -> Busy {
    Busy::Stopping { began, killed: None, ended_with: None, left: false, nested, waiters }
}

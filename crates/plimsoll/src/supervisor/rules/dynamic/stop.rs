//! Stopping: one child, and all of them with the supervisor.

use std::collections::HashSet;
use std::time::Duration;

use plimsoll_sync::slots::SlotKey;

use super::busy::Busy;
use super::timer::Timer;
use super::{DynamicAction, DynamicRules, Life};
use crate::supervisor::options::Shutdown;
use crate::supervisor::rules::entry::Kill;
use crate::supervisor::rules::{Exit, Refusal, Ticket};
use crate::supervisor::shutdown_report::StopFailureKind;

impl DynamicRules {
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
                self.answer(ticket, Some(Refusal::KillTimedOut));
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
                self.hold(key, Busy::stopping(now, nested, Vec::new()));
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

    pub(super) fn begin_stop(&mut self, key: SlotKey, nested: bool, waiters: Vec<Ticket>, now: Duration) {
        self.hold(key, Busy::stopping(now, nested, waiters));
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

    pub(super) fn kill_now(&mut self, key: SlotKey, why: Kill, now: Duration) {
        self.clear_timer(key, Timer::Grace);
        match self.busy.get_mut(&key) {
            Some(Busy::Stopping { killed: killed @ None, nested, .. }) => {
                *killed = Some(why);
                let nested = *nested;
                self.actions.push_back(DynamicAction::Kill(key));
                if !nested {
                    self.set_timer(now + self.template.kill_timeout, key, Timer::Leave);
                }
            }
            Some(Busy::Starting { .. }) => self.cancel_start(key, now),
            _ => {}
        }
    }

    pub(super) fn leave(&mut self, key: SlotKey, report: bool, now: Duration) {
        let earlier = now.saturating_sub(self.template.kill_timeout);
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
            self.stop_failed(key, StopFailureKind::KillTimedOut, began, now);
        }
        for ticket in waiters {
            self.answer(ticket, Some(Refusal::KillTimedOut));
        }
    }

    pub(super) fn give_up(&mut self, now: Duration) {
        self.actions.push_back(DynamicAction::GaveUp);
        self.untold = true;
        self.close(Exit::GaveUp, now);
    }

    pub(super) fn close(&mut self, exit: Exit, now: Duration) {
        if self.is_closing() {
            return;
        }
        let last = (self.reserved > 0).then(|| now + self.template.kill_timeout);
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

    pub(super) fn finish_if_done(&mut self) {
        // Who runs is told only after the decision: until then nothing is done.
        if self.must_stop_all() || self.held > 0 || self.reserved > 0 {
            return;
        }
        if let Life::Closing(exit, _) = &self.life {
            self.actions.push_back(DynamicAction::Finish(exit.clone()));
            self.life = Life::Finished;
        }
    }
}

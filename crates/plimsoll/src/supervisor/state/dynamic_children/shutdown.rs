//! Stopping: one child, and all of them with the supervisor.

use std::time::Duration;

use plimsoll_sync::slots::SlotKey;

use super::child::Child;
use super::timers::Timer;
use super::{DynamicState, Listing, Phase};
use crate::supervisor::options::Shutdown;
use crate::supervisor::state::outcome::Kill;
use crate::supervisor::state::{Command, Exit, Refusal, RequestId, StopProblem, SupervisorState};

impl DynamicState {
    /// Stops one child.
    pub(crate) fn terminate_child(&mut self, key: SlotKey, nested: bool, request: RequestId, now: Duration) {
        if self.is_shutting_down() {
            return self.refuse(request, Refusal::ShuttingDown);
        }
        match self.children.get_mut(&key) {
            None => self.begin_stop(key, nested, vec![request], now),
            Some(Child::Waiting) => {
                self.clear_timer(key, Timer::Delay);
                self.children.remove(&key);
                self.free(key, vec![request]);
            }
            Some(child) if child.is_abandoned() => self.refuse(request, Refusal::KillTimedOut),
            Some(Child::Exited { waiters, restart, .. }) => {
                *restart = None;
                waiters.push(request);
            }
            Some(Child::Stopping { waiters, .. }) => waiters.push(request),
            Some(Child::Starting { waiters, .. }) => {
                waiters.push(request);
                self.cancel_start(key, now);
            }
        }
    }

    /// The caller does not wait for the end of this child any longer.
    pub(crate) fn forget_waiter(&mut self, key: SlotKey, request: RequestId) {
        if let Some(waiters) = self.children.get_mut(&key).and_then(Child::waiters) {
            waiters.retain(|waiter| *waiter != request);
        }
    }

    /// The supervisor was killed: so are all children.
    pub(super) fn kill(&mut self, now: Duration) {
        match &mut self.phase {
            Phase::Finished => return,
            Phase::ShuttingDown(exit, _) => {
                *exit = Exit::Killed;
                self.list_running();
            }
            Phase::Running => self.shut_down(Exit::Killed, now),
        }
        self.kill_all(Kill::Brutal, now);
    }

    /// The children that run: they are stopped with the supervisor.
    pub(super) fn stop_running(&mut self, running: Vec<(SlotKey, bool)>, now: Duration) {
        self.listing = Listing::Done;
        let killed = matches!(self.phase, Phase::ShuttingDown(Exit::Killed, _));
        for (key, nested) in running {
            if self.children.contains_key(&key) {
                continue;
            }
            if killed {
                self.insert(key, Child::stopping(now, nested, Vec::new()));
                self.kill_child(key, Kill::Brutal, now);
            } else {
                self.begin_stop(key, nested, Vec::new(), now);
            }
        }
    }

    pub(super) fn begin_stop(&mut self, key: SlotKey, nested: bool, waiters: Vec<RequestId>, now: Duration) {
        self.insert(key, Child::stopping(now, nested, waiters));
        match self.template.shutdown {
            Shutdown::Brutal => return self.kill_child(key, Kill::Brutal, now),
            Shutdown::After(time) if self.is_shutting_down() => {
                self.shutdown_at.get_or_insert(now.saturating_add(time));
            }
            Shutdown::After(time) => self.set_timer(now.saturating_add(time), key, Timer::Shutdown),
            Shutdown::Infinity => {}
        }
        self.commands.push_back(Command::RequestStop { run: key });
    }

    pub(super) fn kill_all(&mut self, why: Kill, now: Duration) {
        let all: Vec<SlotKey> = self.children.keys().copied().collect();
        for key in all {
            self.kill_child(key, why, now);
        }
    }

    pub(super) fn kill_child(&mut self, key: SlotKey, why: Kill, now: Duration) {
        self.clear_timer(key, Timer::Shutdown);
        match self.children.get_mut(&key) {
            Some(Child::Stopping { killed: killed @ None, nested, .. }) => {
                *killed = Some(why);
                let nested = *nested;
                self.commands.push_back(Command::Kill { run: key });
                if !nested {
                    self.start_kill_timeout(key, now);
                }
            }
            Some(Child::Starting { .. }) => self.cancel_start(key, now),
            _ => {}
        }
    }

    /// A child that a kill did not end in time is no longer waited for.
    pub(super) fn abandon_child(&mut self, key: SlotKey, report: bool, now: Duration) {
        let earlier = now.saturating_sub(self.template.kill_timeout);
        let (began, waiters) = match self.children.get_mut(&key) {
            Some(
                Child::Exited { abandoned: abandoned @ false, waiters, .. }
                | Child::Starting { abandoned: abandoned @ false, waiters, .. },
            ) => {
                *abandoned = true;
                (earlier, std::mem::take(waiters))
            }
            Some(Child::Stopping { abandoned: abandoned @ false, waiters, began, .. }) => {
                *abandoned = true;
                (*began, std::mem::take(waiters))
            }
            _ => return,
        };
        self.existing -= 1;
        if report {
            self.stop_problem(key, StopProblem::KillTimedOut, began, now);
        }
        for request in waiters {
            self.refuse(request, Refusal::KillTimedOut);
        }
    }

    pub(super) fn shut_down(&mut self, exit: Exit<SlotKey>, now: Duration) {
        if self.is_shutting_down() {
            return;
        }
        let until = (self.reserved > 0).then(|| now.saturating_add(self.template.kill_timeout));
        self.phase = Phase::ShuttingDown(exit, until);
        let keys: Vec<SlotKey> = self.children.keys().copied().collect();
        for key in keys {
            let Some(child) = self.children.get_mut(&key) else { continue };
            let waiters = child.waiters().map(std::mem::take).unwrap_or_default();
            match child {
                Child::Waiting => {
                    self.clear_timer(key, Timer::Delay);
                    self.children.remove(&key);
                    self.free(key, Vec::new());
                }
                Child::Exited { restart, .. } => *restart = None,
                Child::Starting { .. } => self.cancel_start(key, now),
                Child::Stopping { .. } => {}
            }
            for request in waiters {
                self.refuse(request, Refusal::ShuttingDown);
            }
        }
        self.list_running();
    }

    /// Asks for the children that run: until they are listed the stop is not complete.
    fn list_running(&mut self) {
        self.listing = Listing::Wanted;
    }

    pub(super) fn finish_if_done(&mut self) {
        if self.listing != Listing::Done || self.existing > 0 || self.reserved > 0 {
            return;
        }
        if let Phase::ShuttingDown(exit, _) = &self.phase {
            self.commands.push_back(Command::Finish { exit: exit.clone() });
            self.phase = Phase::Finished;
        }
    }
}

//! The exit of a child, and what follows when it exited by itself.

use std::time::Duration;

use plimsoll_sync::slots::SlotKey;

use super::child::Child;
use super::timers::Timer;
use super::{DynamicState, Phase};
use crate::exit::ExitReason;
use crate::supervisor::options::AutoShutdown;
use crate::supervisor::state::intensity::Verdict;
use crate::supervisor::state::outcome::{restarts, stop_problem};
use crate::supervisor::state::{AfterExit, Exit, Notice, Remains, SupervisorState};

impl DynamicState {
    /// The child exited after `uptime`, and `remains` is what of it still runs. There are `others` children beside it.
    pub(super) fn exited(
        &mut self,
        key: SlotKey,
        reason: ExitReason,
        remains: Remains,
        uptime: Duration,
        others: usize,
        now: Duration,
    ) {
        match self.children.get_mut(&key) {
            Some(Child::Stopping { exit, .. }) => {
                *exit = Some(reason);
                if remains != Remains::Nothing {
                    self.start_kill_timeout(key, now);
                }
            }
            Some(_) => return,
            None if matches!(self.phase, Phase::Running) => {
                self.exited_by_itself(key, reason, remains == Remains::Nothing, uptime, now);
                if matches!(self.phase, Phase::Running) && self.ends_the_supervisor(key, others) {
                    self.notice(Notice::AutoShutdown { spec: key });
                    self.shut_down(Exit::AutoShutdown, now);
                }
            }
            None => self.exited_during_shutdown(key, reason, now),
        }
        match remains {
            Remains::Nothing => self.task_ended(key, now),
            Remains::Task => self.abandon_child(key, true, now),
            Remains::Subtree => self.abandon_child(key, false, now),
        }
    }

    pub(super) fn start_kill_timeout(&mut self, key: SlotKey, now: Duration) {
        self.set_timer(now.saturating_add(self.template.kill_timeout), key, Timer::KillTimeout);
    }

    fn exited_during_shutdown(&mut self, key: SlotKey, reason: ExitReason, now: Duration) {
        self.insert(key, Child::Exited { restart: None, abandoned: false, waiters: Vec::new() });
        if let Some(problem) = stop_problem(self.template.exit_policy(), None, &reason) {
            self.stop_problem(key, problem, now, now);
        }
    }

    fn exited_by_itself(&mut self, key: SlotKey, reason: ExitReason, ended: bool, uptime: Duration, now: Duration) {
        let mut restart = None;
        if !restarts(self.template.restart, &reason) {
            self.notice(Notice::Exited { spec: key, reason, then: AfterExit::Nothing });
            if ended {
                // The common case: nothing to wait for.
                return self.free(key, Vec::new());
            }
        } else {
            if uptime > self.window.period() {
                self.attempts.remove(&key);
            }
            if self.window.record(now) == Verdict::GiveUp {
                let exited = Notice::Exited { spec: key, reason: reason.clone(), then: AfterExit::GiveUp };
                self.notice(exited);
                self.insert(key, Child::Exited { restart: None, abandoned: false, waiters: Vec::new() });
                return self.give_up(key, reason, now);
            }
            let delay = self.next_delay(key);
            restart = Some(delay);
            self.notice(Notice::Exited { spec: key, reason, then: AfterExit::Restart(delay) });
        }
        self.insert(key, Child::Exited { restart, abandoned: false, waiters: Vec::new() });
        if !ended {
            self.start_kill_timeout(key, now);
        }
    }

    pub(super) fn give_up(&mut self, key: SlotKey, reason: ExitReason, now: Duration) {
        self.notice(Notice::GaveUp { spec: key, reason: reason.clone() });
        self.shut_down(Exit::GaveUp, now);
    }

    /// Whether the exit of this child is the one that auto_shutdown waits for: it is not restarted, and if all have to
    /// exit, no other is left but those that are stopping.
    fn ends_the_supervisor(&self, key: SlotKey, others: usize) -> bool {
        let leaving = |child: &Child| matches!(child, Child::Exited { restart: None, .. } | Child::Stopping { .. });
        if !self.template.significant || !self.children.get(&key).is_none_or(leaving) {
            return false;
        }
        match self.template.auto_shutdown {
            AutoShutdown::Never => false,
            AutoShutdown::AnySignificant => true,
            // Where there are more than those in the map, some simply run.
            AutoShutdown::AllSignificant => {
                others <= self.children.len() && {
                    let left = self.children.iter().filter(|(other, child)| **other != key && leaving(child)).count();
                    others == left
                }
            }
        }
    }

    /// The task of the incarnation has ended.
    pub(super) fn task_ended(&mut self, key: SlotKey, now: Duration) {
        self.cancel_timers(key);
        match self.remove(key) {
            Some(Child::Exited { restart: Some(delay), waiters, .. })
                if waiters.is_empty() && !self.is_shutting_down() =>
            {
                self.wait_for_restart(key, delay, now);
            }
            Some(Child::Exited { waiters, .. }) => self.free(key, waiters),
            Some(Child::Stopping { began, killed, exit, abandoned, waiters, .. }) => {
                let reason = exit.unwrap_or(ExitReason::Killed);
                let problem = stop_problem(self.template.exit_policy(), killed, &reason);
                if let (Some(problem), false) = (problem, abandoned) {
                    self.stop_problem(key, problem, began, now);
                }
                self.free(key, waiters);
            }
            Some(other) => self.insert(key, other),
            None => {}
        }
    }
}

//! The exit of a child, and what follows when it exited by itself.

use std::time::Duration;

use super::child::State;
use super::restart::{Scope, Stage};
use super::timers::Timer;
use super::{Key, Phase, Run, StaticState};
use crate::exit::ExitReason;
use crate::supervisor::options::{AutoShutdown, Restart};
use crate::supervisor::state::outcome::restarts;
use crate::supervisor::state::{AfterExit, Command, Exit, Notice, Remains};

impl StaticState {
    pub(super) fn exited(&mut self, run: Run, reason: ExitReason, remains: Remains, now: Duration) {
        let Some((key, child)) = self.by_run(run) else { return };
        match &mut child.state {
            State::Running { since, .. } => {
                let since = *since;
                child.state = State::exited(run, since);
                if remains != Remains::Nothing {
                    self.start_kill_timeout(key, now);
                }
                self.exited_by_itself(key, run, reason, now);
            }
            State::Stopping { exit, .. } => {
                *exit = Some(reason);
                if remains != Remains::Nothing {
                    // The shutdown time was for the stop; the end of the task has the time of a killed one.
                    self.start_kill_timeout(key, now);
                }
            }
            _ => return,
        }
        match remains {
            Remains::Nothing => self.task_ended(key, run, now),
            Remains::Task => self.abandon_child(key, true, now),
            Remains::Subtree => self.abandon_child(key, false, now),
        }
        self.settle(now);
    }

    pub(super) fn ended(&mut self, run: Run, now: Duration) {
        let Some((key, _)) = self.by_run(run) else { return };
        self.task_ended(key, run, now);
        self.settle(now);
    }

    pub(super) fn start_kill_timeout(&mut self, key: Key, now: Duration) {
        self.set_timer(now.saturating_add(self.flags.kill_timeout), key, Timer::KillTimeout);
    }

    /// A running child exited by itself: handled now, covered by a strategy at work, or deferred.
    fn exited_by_itself(&mut self, key: Key, run: Run, reason: ExitReason, now: Duration) {
        match self.phase {
            Phase::ShuttingDown(_) | Phase::Finished => self.report_exit(key, run, &reason, now),
            Phase::Running if self.is_being_stopped(key) => {
                let then = match self.child(key).settings.restart {
                    Restart::Temporary => AfterExit::Nothing,
                    _ => AfterExit::RestartWithSiblings,
                };
                self.notice(Notice::Exited { spec: key, reason, then });
            }
            Phase::Running if !self.stopping_siblings() => self.handle_exit(key, run, reason, now),
            Phase::Running | Phase::Starting(_) => {
                if let State::Exited { pending, .. } = &mut self.child(key).state {
                    *pending = true;
                }
                self.deferred.push_back((key, run, reason));
            }
        }
    }

    /// Handles in full the exit of a child that happened while others were being stopped.
    pub(super) fn handle_deferred(&mut self, key: Key, run: Run, reason: ExitReason, now: Duration) {
        self.handle_exit(key, run, reason, now);
        self.no_longer_pending(key, run, now);
    }

    /// Deferred exits that a restart covers need no handling of their own.
    pub(super) fn cover_deferred(&mut self, scope: Scope, now: Duration) {
        let (covered, others) = self.deferred.drain(..).partition(|(key, ..)| scope.contains(*key));
        self.deferred = others;
        for (key, run, reason) in Vec::from(covered) {
            self.notice(Notice::Exited { spec: key, reason, then: AfterExit::RestartWithSiblings });
            self.no_longer_pending(key, run, now);
        }
    }

    pub(super) fn no_longer_pending(&mut self, key: Key, exited: Run, now: Duration) {
        if let Some(child) = self.children.get_mut(&key)
            && let State::Exited { run, pending, ended, .. } = &mut child.state
            && *run == exited
        {
            *pending = false;
            if *ended {
                self.child_is_gone(key, now);
            }
        }
    }

    fn handle_exit(&mut self, key: Key, run: Run, reason: ExitReason, now: Duration) {
        let Some(child) = self.children.get_mut(&key) else { return };
        let State::Exited { run: exited, since, restarting, .. } = &mut child.state else { return };
        if *exited != run {
            return;
        }
        *restarting = restarts(child.settings.restart, &reason);
        if now.saturating_sub(*since) > self.window.period() {
            child.attempt = 0;
        }
        if *restarting {
            return self.restart(key, reason, now);
        }
        let significant = child.settings.significant;
        self.notice(Notice::Exited { spec: key, reason, then: AfterExit::Nothing });
        if significant && self.ends_the_supervisor(key) {
            self.notice(Notice::AutoShutdown { spec: key });
            self.shut_down(Exit::AutoShutdown, now);
        }
    }

    /// Whether the exit of this significant child is the one that auto_shutdown waits for.
    fn ends_the_supervisor(&self, key: Key) -> bool {
        match self.flags.auto_shutdown {
            AutoShutdown::Never => false,
            AutoShutdown::AnySignificant => true,
            AutoShutdown::AllSignificant => !self
                .children
                .iter()
                .any(|(other, child)| *other != key && child.settings.significant && self.active(*other)),
        }
    }

    /// Whether a child runs or is going to: starting, restarting, or to be started by a restart in progress.
    fn active(&self, key: Key) -> bool {
        let Some(child) = self.children.get(&key) else { return false };
        match &child.state {
            State::Running { .. } | State::Starting { cancelled: false, .. } | State::Restarting => true,
            State::Exited { restarting, .. } => *restarting,
            State::Starting { .. } | State::Stopping { .. } | State::Stopped => self.restarts.values().any(|restart| {
                let ahead = match restart.stage {
                    Stage::Starting { next, end } => (next..end).contains(&key),
                    // Between two tries those that follow have no child.
                    Stage::Waiting => !restart.retry,
                    Stage::Stopping { .. } => true,
                };
                ahead && restart.scope.contains(key) && !child.skip && child.settings.restart != Restart::Temporary
            }),
        }
    }

    pub(super) fn notice(&mut self, notice: Notice<Self>) {
        self.commands.push_back(Command::Notice(notice));
    }
}

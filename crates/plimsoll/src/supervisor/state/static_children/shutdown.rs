//! Stopping: one child, and the supervisor itself.

use std::time::Duration;

use super::child::{Child, StartCause, State};
use super::timers::Timer;
use super::{Key, Phase, Run, StaticState};
use crate::exit::ExitReason;
use crate::supervisor::options::{self, Restart};
use crate::supervisor::state::outcome::{Kill, stop_problem};
use crate::supervisor::state::{Command, Exit, Notice, Refusal, Reply, StopProblem, SupervisorState};

/// The supervisor's own stop in progress.
#[derive(Debug)]
pub(super) struct Shutdown {
    exit: Exit<Key>,
    /// Below this key it still has to look.
    below: Key,
    /// Everything was killed at once.
    killed: bool,
}

impl StaticState {
    /// Stops everything in reverse order, then finishes.
    pub(super) fn stop(&mut self, now: Duration) {
        self.shut_down(Exit::Stopped, now);
        self.settle(now);
    }

    /// Kills everything that is left, at once.
    pub(super) fn kill(&mut self, now: Duration) {
        if matches!(self.phase, Phase::Finished) {
            return;
        }
        self.shut_down(Exit::Killed, now);
        if let Phase::ShuttingDown(shutdown) = &mut self.phase {
            *shutdown = Shutdown { exit: Exit::Killed, below: Key::MAX, killed: true };
        }
        let keys: Vec<Key> = self.children.keys().copied().collect();
        for key in keys {
            match &self.child(key).state {
                State::Starting { .. } => self.cancel_start(key, now),
                State::Running { run, .. } => {
                    let run = *run;
                    self.child(key).state = State::stopping(run, now);
                    self.kill_child(key, Kill::Brutal, now);
                }
                State::Stopping { killed: None, abandoned: false, .. } => self.kill_child(key, Kill::Brutal, now),
                _ => {}
            }
        }
        self.settle(now);
    }

    pub(super) fn shut_down(&mut self, exit: Exit<Key>, now: Duration) {
        if self.is_shutting_down() {
            return;
        }
        let killed = exit == Exit::Killed;
        self.phase = Phase::ShuttingDown(Shutdown { exit, below: Key::MAX, killed: false });
        let origins: Vec<Key> = self.restarts.keys().copied().collect();
        for origin in origins {
            self.end_restart(origin);
        }
        // Deferred exits are reported like those that come now.
        for (key, run, reason) in std::mem::take(&mut self.deferred) {
            if !killed {
                self.report_exit(key, run, &reason, now);
            }
            self.no_longer_pending(key, run, now);
        }
        self.refuse_queued();
        let mut waiting = Vec::new();
        let mut starting = Vec::new();
        for (key, child) in &mut self.children {
            match &mut child.state {
                State::Starting { waiters, cause, .. } => {
                    starting.push(*key);
                    waiting.append(waiters);
                    if let StartCause::Requested(request) = cause {
                        waiting.push(*request);
                    }
                }
                State::Exited { waiters, .. } | State::Stopping { waiters, .. } => waiting.append(waiters),
                _ => {}
            }
        }
        self.reply_all(waiting, &Reply::Refused(Refusal::ShuttingDown));
        for key in starting {
            self.cancel_start(key, now);
        }
    }

    /// Advances the supervisor's stop as far as it can go without waiting.
    pub(super) fn advance_shutdown(&mut self, now: Duration) {
        let Phase::ShuttingDown(shutdown) = &mut self.phase else { return };
        let killed = shutdown.killed;
        let existing = |(key, child): (&Key, &Child)| child.exists().then_some(*key);
        let Some(key) = self.children.range(..shutdown.below).rev().find_map(existing) else {
            let exit = shutdown.exit.clone();
            self.phase = Phase::Finished;
            return self.commands.push_back(Command::Finish { exit });
        };
        shutdown.below = key + 1;
        match &self.child(key).state {
            State::Running { .. } if !killed => self.begin_stop(key, now),
            State::Starting { cancelled: false, .. } => self.cancel_start(key, now),
            _ => {}
        }
    }

    /// Stops a running child as its spec says.
    pub(super) fn begin_stop(&mut self, key: Key, now: Duration) {
        let child = self.child(key);
        let State::Running { run, .. } = child.state else { return };
        let shutdown = child.settings.shutdown;
        child.state = State::stopping(run, now);
        match shutdown {
            options::Shutdown::Brutal => return self.kill_child(key, Kill::Brutal, now),
            options::Shutdown::After(time) => self.set_timer(now.saturating_add(time), key, Timer::Shutdown),
            options::Shutdown::Infinity => {}
        }
        self.commands.push_back(Command::RequestStop { run });
    }

    pub(super) fn shutdown_time_over(&mut self, key: Key, now: Duration) {
        self.child(key).shutdown_at = None;
        if matches!(self.child(key).state, State::Stopping { killed: None, .. }) {
            self.kill_child(key, Kill::Overdue, now);
        }
    }

    fn kill_child(&mut self, key: Key, why: Kill, now: Duration) {
        let nested = self.child(key).nested;
        if let State::Stopping { run, killed, .. } = &mut self.child(key).state {
            *killed = Some(why);
            let run = *run;
            self.commands.push_back(Command::Kill { run });
            self.cancel_shutdown_timer(key);
            if !nested {
                self.start_kill_timeout(key, now);
            }
        }
    }

    pub(super) fn cancel_start(&mut self, key: Key, now: Duration) {
        if let State::Starting { run, cancelled, .. } = &mut self.child(key).state
            && !*cancelled
        {
            *cancelled = true;
            let run = *run;
            self.commands.push_back(Command::CancelStart { run });
            self.start_kill_timeout(key, now);
        }
    }

    /// A child that a kill did not end in time is no longer waited for.
    pub(super) fn abandon_child(&mut self, key: Key, report: bool, now: Duration) {
        if !self.children.contains_key(&key) {
            return;
        }
        self.start_is_over(key);
        let earlier = now.saturating_sub(self.flags.kill_timeout);
        let child = self.child(key);
        child.kill_timeout_at = None;
        let mut cancelled_start = None;
        let (run, began, waiters) = match &mut child.state {
            State::Exited { run, abandoned, ended: false, waiters, .. } => {
                *abandoned = true;
                (*run, earlier, std::mem::take(waiters))
            }
            State::Stopping { run, abandoned, began, waiters, .. } => {
                *abandoned = true;
                (*run, *began, std::mem::take(waiters))
            }
            State::Starting { run, cause, cancelled: true, fresh, waiters, .. } => {
                child.unwanted = *fresh && waiters.is_empty();
                let (run, waiters) = (*run, std::mem::take(waiters));
                cancelled_start = Some(*cause);
                child.state = State::Stopping {
                    run,
                    began: earlier,
                    killed: Some(Kill::Brutal),
                    exit: None,
                    abandoned: true,
                    waiters: Vec::new(),
                };
                (run, earlier, waiters)
            }
            _ => return,
        };
        if report {
            self.stop_problem(key, run, StopProblem::KillTimedOut, began, now);
        }
        self.reply_all(waiters, &Reply::Refused(Refusal::KillTimedOut));
        if let Some(cause) = cancelled_start {
            self.no_child_for(cause, key, now);
        }
        self.advance_for(key, now);
    }

    /// The task of an incarnation has ended.
    pub(super) fn task_ended(&mut self, key: Key, ended: Run, now: Duration) {
        self.runs.remove(&ended);
        self.cancel_timers(key);
        let child = self.child(key);
        let policy = child.exit_policy();
        let mut waits = false;
        match &mut child.state {
            State::Exited { ended, pending, .. } => {
                *ended = true;
                waits = *pending;
            }
            State::Stopping { began, killed, exit, abandoned, .. } => {
                let began = *began;
                let reason = exit.take().unwrap_or(ExitReason::Killed);
                if !*abandoned && let Some(problem) = stop_problem(policy, *killed, &reason) {
                    self.stop_problem(key, ended, problem, began, now);
                }
            }
            _ => {}
        }
        self.commands.push_back(Command::Release { run: ended });
        if waits {
            return self.advance_for(key, now);
        }
        self.child_is_gone(key, now);
    }

    /// Nothing of the incarnation is left: what happens to the spec.
    pub(super) fn child_is_gone(&mut self, key: Key, now: Duration) {
        let child = self.child(key);
        let restarting = matches!(child.state, State::Exited { restarting: true, .. });
        let waiters = match &mut child.state {
            State::Exited { waiters, .. } | State::Stopping { waiters, .. } => std::mem::take(waiters),
            _ => Vec::new(),
        };
        child.state = if restarting { State::Restarting } else { State::Stopped };
        let start_late = std::mem::take(&mut child.start_when_ended);
        let dropped = child.settings.restart == Restart::Temporary || child.unwanted;
        self.reply_all(waiters, &Reply::Done);
        if dropped {
            self.remove(key);
        } else if start_late && matches!(self.phase, Phase::Running) {
            self.start_late(key, now);
        }
        self.advance_for(key, now);
    }

    /// Reports a child that exited by itself during the supervisor's own stop.
    pub(super) fn report_exit(&mut self, key: Key, run: Run, reason: &ExitReason, now: Duration) {
        let Some(child) = self.children.get(&key) else { return };
        if let Some(problem) = stop_problem(child.exit_policy(), None, reason) {
            self.stop_problem(key, run, problem, now, now);
        }
    }

    fn stop_problem(&mut self, spec: Key, run: Run, problem: StopProblem, began: Duration, now: Duration) {
        let (shutting_down, waited) = (self.is_shutting_down(), now.saturating_sub(began));
        self.notice(Notice::StopProblem { spec, run, problem, shutting_down, waited });
    }
}

//! Stopping: one child, and the supervisor itself.

use std::time::Duration;

use super::entry::{Kill, State};
use super::{Action, Answer, Exit, Key, Life, Note, Refusal, Rules, Run, Timer};
use crate::exit::ExitReason;
use crate::supervisor::controls::broken;
use crate::supervisor::options::{Restart, Shutdown, StopMode};
use crate::supervisor::shutdown_report::StopFailureKind;

/// The supervisor's own end under way.
#[derive(Debug)]
pub(super) struct Closing {
    exit: Exit,
    /// Below this key it still has to look.
    below: Key,
    /// All at once, by kill.
    killed: bool,
}

/// What a stop that ended with `reason` has to report, if anything: all but a shutdown and `drained` where a drain was
/// asked for. Of a child that is stopped brutally it is the kill, whoever's it was, that is expected; a shutdown then is an
/// end of its own, which a permanent child is not supposed to have.
pub(crate) fn classify(child: Stop, killed: Option<Kill>, reason: &ExitReason) -> Option<StopFailureKind> {
    let Stop { restart, shutdown, stop_mode } = child;
    let (brutal, permanent) = (shutdown == Shutdown::Brutal, restart == Restart::Permanent);
    let overdue = killed == Some(Kill::Overdue);
    match reason {
        ExitReason::Killed if brutal || killed == Some(Kill::Brutal) => None,
        ExitReason::Killed if overdue && broken("kill_after_grace_not_reported") => None,
        ExitReason::Killed if overdue => Some(StopFailureKind::Killed),
        ExitReason::Shutdown if !brutal => None,
        ExitReason::ShutdownWith { reason } if stop_mode == StopMode::Drain && reason.as_ref() == "drained" => None,
        ExitReason::Normal | ExitReason::Shutdown | ExitReason::ShutdownWith { .. }
            if !permanent || broken("permanent_normal_not_reported") =>
        {
            None
        }
        _ => Some(StopFailureKind::Ended(reason.clone())),
    }
}

/// What the spec of a child says of its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stop {
    pub(crate) restart: Restart,
    pub(crate) shutdown: Shutdown,
    pub(crate) stop_mode: StopMode,
}

impl Rules {
    /// Stops everything in reverse order, then finishes.
    pub(crate) fn stop(&mut self, now: Duration) {
        self.close(Exit::Stopped, now);
        self.settle(now);
    }

    /// The supervisor was killed: everything that is left is killed at once.
    pub(crate) fn kill(&mut self, now: Duration) {
        if matches!(self.life, Life::Finished) {
            return;
        }
        self.close(Exit::Killed, now);
        if let Life::Closing(closing) = &mut self.life {
            closing.exit = Exit::Killed;
            closing.killed = true;
            closing.below = Key::MAX;
        }
        let keys: Vec<Key> = self.entries.keys().copied().collect();
        for key in keys {
            match &self.entry(key).state {
                State::Starting { .. } => self.cancel_start(key, now),
                State::Up { run, .. } => {
                    let run = *run;
                    self.entry(key).state = stopping(run, now);
                    self.kill_now(key, Kill::Brutal, now);
                }
                State::Stopping { killed: None, left: false, .. } => self.kill_now(key, Kill::Brutal, now),
                _ => {}
            }
        }
        self.settle(now);
    }

    pub(super) fn close(&mut self, exit: Exit, now: Duration) {
        if self.is_closing() {
            return;
        }
        let killed = exit == Exit::Killed;
        self.life = Life::Closing(Closing { exit, below: Key::MAX, killed: false });
        let origins: Vec<Key> = self.groups.keys().copied().collect();
        for origin in origins {
            self.end_group(origin);
        }
        // Ends that waited are reported like those that come now.
        for (key, run, reason) in std::mem::take(&mut self.deferred) {
            if !killed {
                self.report_end(key, run, &reason, now);
            }
            self.no_longer_pending(key, run, now);
        }
        self.refuse_queued();
        let mut waiting = Vec::new();
        for entry in self.entries.values_mut() {
            match &mut entry.state {
                State::Starting { waiters, cause, .. } => {
                    waiting.append(waiters);
                    if let super::entry::Cause::Asked(ticket) = cause {
                        waiting.push(*ticket);
                    }
                }
                State::Down { waiters, .. } | State::Stopping { waiters, .. } => waiting.append(waiters),
                _ => {}
            }
        }
        self.answer_all(waiting, &Answer::Failed(Refusal::ShuttingDown));
        let starting =
            |(key, entry): (&Key, &super::entry::Entry)| matches!(entry.state, State::Starting { .. }).then_some(*key);
        let starting: Vec<Key> = self.entries.iter().filter_map(starting).collect();
        for key in starting {
            self.cancel_start(key, now);
        }
    }

    /// Takes the supervisor's end as far as it can go without waiting.
    pub(super) fn advance_closing(&mut self, now: Duration) {
        let Life::Closing(closing) = &mut self.life else { return };
        let killed = closing.killed;
        let held = self.entries.range(..closing.below).rev().find(|(_, entry)| entry.holds()).map(|(key, _)| *key);
        let held = match broken("stop_in_start_order") {
            true => self.entries.iter().find(|(_, entry)| entry.holds()).map(|(key, _)| *key),
            false => held,
        };
        let Some(key) = held else {
            let exit = closing.exit.clone();
            self.life = Life::Finished;
            return self.actions.push_back(Action::Finish { exit });
        };
        closing.below = key + 1;
        match &self.entry(key).state {
            State::Up { .. } if !killed => self.begin_stop(key, now),
            State::Starting { cancelled: false, .. } => self.cancel_start(key, now),
            _ => {}
        }
    }

    /// Stops a running child as its spec says.
    pub(super) fn begin_stop(&mut self, key: Key, now: Duration) {
        let entry = self.entry(key);
        let State::Up { run, .. } = entry.state else { return };
        let shutdown = entry.rules.shutdown;
        entry.state = stopping(run, now);
        match shutdown {
            Shutdown::Brutal => return self.kill_now(key, Kill::Brutal, now),
            Shutdown::After(grace) => self.set_timer(now + grace, key, Timer::Grace),
            Shutdown::Infinity => {}
        }
        self.actions.push_back(Action::Ask { run });
    }

    /// The grace is over.
    pub(super) fn kill_child(&mut self, key: Key, now: Duration) {
        self.entry(key).grace_at = None;
        if matches!(self.entry(key).state, State::Stopping { killed: None, .. }) {
            self.kill_now(key, Kill::Overdue, now);
        }
    }

    fn kill_now(&mut self, key: Key, why: Kill, now: Duration) {
        let nested = self.entry(key).nested;
        if let State::Stopping { run, killed, .. } = &mut self.entry(key).state {
            *killed = Some(why);
            let run = *run;
            self.actions.push_back(Action::Kill { run });
            self.clear_timer(key, Timer::Grace);
            if !nested {
                self.set_timer(now + self.flags.kill_timeout, key, Timer::Leave);
            }
        }
    }

    pub(super) fn cancel_start(&mut self, key: Key, now: Duration) {
        if let State::Starting { run, cancelled, .. } = &mut self.entry(key).state
            && !*cancelled
        {
            *cancelled = true;
            let run = *run;
            self.actions.push_back(Action::CancelStart { run });
            self.set_timer(now + self.flags.kill_timeout, key, Timer::Leave);
        }
    }

    /// A child that a kill did not end is no longer waited for.
    pub(super) fn leave(&mut self, key: Key, report: bool, now: Duration) {
        if !self.entries.contains_key(&key) {
            return;
        }
        self.start_ends(key);
        let earlier = now.saturating_sub(self.flags.kill_timeout);
        let entry = self.entry(key);
        entry.leave_at = None;
        let mut given_up = None;
        let (run, began, waiters) = match &mut entry.state {
            State::Down { run, left, gone: false, waiters, .. } => {
                *left = true;
                (*run, earlier, std::mem::take(waiters))
            }
            State::Stopping { run, left, began, waiters, .. } => {
                *left = true;
                (*run, *began, std::mem::take(waiters))
            }
            State::Starting { run, cause, cancelled: true, waiters, .. } => {
                let (run, waiters) = (*run, std::mem::take(waiters));
                given_up = Some(*cause);
                entry.state = State::Stopping {
                    run,
                    began: earlier,
                    killed: Some(Kill::Brutal),
                    ended_with: None,
                    left: true,
                    waiters: Vec::new(),
                };
                (run, earlier, waiters)
            }
            _ => return,
        };
        if report {
            self.note_stop_failure(key, run, StopFailureKind::KillTimedOut, began, now);
        }
        self.answer_all(waiters, &Answer::Failed(Refusal::KillTimedOut));
        if let Some(cause) = given_up {
            self.over_without_child(cause, key, now);
        }
        self.advance_for(key, now);
    }

    /// The task of an incarnation has ended.
    pub(super) fn gone(&mut self, key: Key, ended: Run, now: Duration) {
        self.runs.remove(&ended);
        let entry = self.entries.get_mut(&key).expect("an entry lives as long as its key is in use");
        entry.forget_timers(key, &mut self.timers);
        let stop = entry.rules.stop();
        match &mut entry.state {
            State::Down { gone, pending, .. } => {
                *gone = true;
                if *pending {
                    return self.advance_for(key, now);
                }
            }
            State::Stopping { began, killed, ended_with, left, .. } => {
                let began = *began;
                let reason = ended_with.take().unwrap_or(ExitReason::Killed);
                if !*left && let Some(failure) = classify(stop, *killed, &reason) {
                    self.note_stop_failure(key, ended, failure, began, now);
                }
            }
            _ => {}
        }
        self.finish_end(key, now);
    }

    /// Nothing of the incarnation is left: what becomes of the spec.
    pub(super) fn finish_end(&mut self, key: Key, now: Duration) {
        let entry = self.entry(key);
        let restarting = matches!(entry.state, State::Down { restarting: true, .. });
        let waiters = match &mut entry.state {
            State::Down { waiters, .. } | State::Stopping { waiters, .. } => std::mem::take(waiters),
            _ => Vec::new(),
        };
        entry.state = if restarting { State::Restarting } else { State::Vacant };
        let respawn = std::mem::take(&mut entry.respawn);
        let temporary = entry.rules.restart == Restart::Temporary && !broken("temporary_sibling_kept");
        let dropped = temporary || entry.unwanted;
        self.answer_all(waiters, &Answer::Done);
        if dropped {
            self.forget(key);
        } else if respawn && matches!(self.life, Life::Serving) {
            self.start_late(key, now);
        }
        self.advance_for(key, now);
    }

    /// Reports a child that ended by itself during the supervisor's own stop.
    pub(super) fn report_end(&mut self, key: Key, run: Run, reason: &ExitReason, now: Duration) {
        let Some(entry) = self.entries.get(&key) else { return };
        if let Some(failure) = classify(entry.rules.stop(), None, reason) {
            self.note_stop_failure(key, run, failure, now, now);
        }
    }

    fn note_stop_failure(&mut self, key: Key, run: Run, kind: StopFailureKind, began: Duration, now: Duration) {
        let (closing, waited) = (self.is_closing(), now.saturating_sub(began));
        self.actions.push_back(Action::Note(Note::StopFailed { key, run, kind, closing, waited }));
    }
}

fn stopping(run: Run, began: Duration) -> State {
    State::Stopping { run, began, killed: None, ended_with: None, left: false, waiters: Vec::new() }
}

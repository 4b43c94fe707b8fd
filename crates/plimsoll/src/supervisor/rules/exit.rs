//! The end of a child, and what follows when it ended by itself.

use std::time::Duration;

use super::entry::State;
use super::group::{Cover, Stage};
use super::{Action, Exit, Key, Life, Note, Rules, Run, Timer};
use crate::exit::ExitReason;
use crate::supervisor::controls::broken;
use crate::supervisor::options::{AutoShutdown, Restart};

/// Whether the task of a child that said its last has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gone {
    /// It has.
    Yes,
    /// It should have long ago.
    Lingers,
    /// It waits for stragglers of its own, which it has reported.
    StragglersLeft,
}

/// Whether a child that ended so is started again.
pub(crate) fn restarts(restart: Restart, reason: &ExitReason) -> bool {
    match restart {
        Restart::Permanent => true,
        Restart::Transient if broken("transient_restarted_on_shutdown") => *reason != ExitReason::Normal,
        Restart::Transient => reason.is_failure(),
        Restart::Temporary => false,
    }
}

impl Rules {
    /// The child of `run` said its last.
    pub(crate) fn exited(&mut self, run: Run, reason: ExitReason, gone: Gone, now: Duration) {
        let Some((key, entry)) = self.by_run(run) else { return };
        match &mut entry.state {
            State::Up { since, .. } => {
                let since = *since;
                entry.state = State::down(run, since);
                if gone != Gone::Yes {
                    self.set_timer(now + self.flags.kill_timeout, key, Timer::Leave);
                }
                self.ended_by_itself(key, run, reason, now);
            }
            State::Stopping { ended_with, .. } => {
                *ended_with = Some(reason);
                if gone != Gone::Yes {
                    // The grace was for the stop; the task's last moments are given the time of a killed one.
                    self.set_timer(now + self.flags.kill_timeout, key, Timer::Leave);
                }
            }
            _ => return,
        }
        match gone {
            Gone::Yes => self.gone(key, run, now),
            Gone::Lingers => self.leave(key, true, now),
            Gone::StragglersLeft => self.leave(key, false, now),
        }
        self.settle(now);
    }

    /// The task of `run` has ended.
    pub(crate) fn ended(&mut self, run: Run, now: Duration) {
        let Some((key, _)) = self.by_run(run) else { return };
        self.gone(key, run, now);
        self.settle(now);
    }

    /// A running child ended by itself: dealt with now, absorbed by a strategy at work, or left for afterwards.
    fn ended_by_itself(&mut self, key: Key, run: Run, reason: ExitReason, now: Duration) {
        match self.life {
            Life::Closing(_) | Life::Finished => self.report_end(key, run, &reason, now),
            Life::Serving if self.being_stopped(key) && !broken("absorbed_failure_handled") => {}
            Life::Serving if !self.stop_phase() || broken("absorbed_failure_handled") => {
                self.handle_end(key, run, reason, now)
            }
            Life::Serving | Life::Booting(_) => {
                if let State::Down { pending, .. } = &mut self.entry(key).state {
                    *pending = true;
                }
                self.deferred.push_back((key, run, reason));
            }
        }
    }

    /// Deals in full with a child that ended while others were being stopped.
    pub(super) fn handle_deferred(&mut self, key: Key, run: Run, reason: ExitReason, now: Duration) {
        self.handle_end(key, run, reason, now);
        self.no_longer_pending(key, run, now);
    }

    /// Ends that waited and are covered by a restart that begins now are absorbed by it.
    pub(super) fn absorb_deferred(&mut self, cover: Cover, now: Duration) {
        let (covered, others) = self.deferred.drain(..).partition(|(key, ..)| cover.has(*key));
        self.deferred = others;
        for (key, run, _) in Vec::from(covered) {
            self.no_longer_pending(key, run, now);
        }
    }

    pub(super) fn no_longer_pending(&mut self, key: Key, ended: Run, now: Duration) {
        if let Some(entry) = self.entries.get_mut(&key)
            && let State::Down { run, pending, gone, .. } = &mut entry.state
            && *run == ended
        {
            *pending = false;
            if *gone {
                self.finish_end(key, now);
            }
        }
    }

    fn handle_end(&mut self, key: Key, run: Run, reason: ExitReason, now: Duration) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let State::Down { run: ended, since, restarting, .. } = &mut entry.state else { return };
        if *ended != run {
            return;
        }
        *restarting = restarts(entry.rules.restart, &reason);
        let since = *since;
        let restarting = restarts(entry.rules.restart, &reason);
        let significant = entry.rules.significant;
        if now.saturating_sub(since) > self.window.period() {
            entry.attempt = 0;
        }
        self.actions.push_back(Action::Note(Note::Ended { key, reason, restarting }));
        if restarting {
            self.restart(key, now);
        } else if significant && self.ends_the_supervisor(key) {
            self.actions.push_back(Action::Note(Note::AutoShutdown { key }));
            self.close(Exit::AutoShutdown, now);
        }
    }

    /// Whether the end of this significant child is the one that auto_shutdown waits for.
    fn ends_the_supervisor(&self, key: Key) -> bool {
        match self.flags.auto_shutdown {
            AutoShutdown::Never => false,
            AutoShutdown::AnySignificant => true,
            AutoShutdown::AllSignificant if broken("any_significant_is_enough") => true,
            AutoShutdown::AllSignificant => !self
                .entries
                .iter()
                .any(|(other, entry)| *other != key && entry.rules.significant && self.active(*other)),
        }
    }

    /// Whether a child runs or is going to: starting, restarting, or to be started by a restart under way.
    fn active(&self, key: Key) -> bool {
        let Some(entry) = self.entries.get(&key) else { return false };
        match &entry.state {
            State::Up { .. } | State::Starting { cancelled: false, .. } | State::Restarting => true,
            State::Down { restarting, .. } => *restarting,
            State::Starting { .. } | State::Stopping { .. } | State::Vacant => self.groups.values().any(|group| {
                let ahead = match group.stage {
                    Stage::Starting { next, end } => (next..end).contains(&key),
                    // Between two tries those that follow have no child.
                    Stage::Waiting => !group.retry,
                    Stage::Stopping { .. } => true,
                };
                ahead && group.cover.has(key) && !entry.skip && entry.rules.restart != Restart::Temporary
            }),
        }
    }
}

//! The end of a child, and what follows when it ended by itself.

use std::time::Duration;

use plimsoll_sync::slots::SlotKey;

use super::busy::Busy;
use super::timer::Timer;
use super::{DynamicAction, DynamicRules};
use crate::exit::ExitReason;
use crate::supervisor::options::AutoShutdown;
use crate::supervisor::rules::exit::restarts;
use crate::supervisor::rules::stop::classify;
use crate::supervisor::rules::{Exit, Gone, Verdict};

impl DynamicRules {
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
                    self.set_timer(now + self.template.kill_timeout, key, Timer::Leave);
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
            if let Some(failure) = classify(self.template.stop(), None, &reason) {
                self.stop_failed(key, failure, now, now);
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
            self.set_timer(now + self.template.kill_timeout, key, Timer::Leave);
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
                let failure = classify(self.template.stop(), killed, &reason);
                if let (Some(failure), false) = (failure, left) {
                    self.stop_failed(key, failure, began, now);
                }
                self.free(key, waiters);
            }
            Some(other) => self.hold(key, other),
            None => {}
        }
        self.finish_if_done();
    }
}

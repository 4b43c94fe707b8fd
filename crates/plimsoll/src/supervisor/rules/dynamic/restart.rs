//! Starting a child again: the delay, the start, and what comes of it.

use std::time::Duration;

use plimsoll_sync::slots::SlotKey;

use super::busy::Busy;
use super::timer::Timer;
use super::{DynamicAction, DynamicRules};
use crate::supervisor::rules::{StartFailure, Verdict, random};

impl DynamicRules {
    pub(super) fn delay(&mut self, key: SlotKey, now: Duration) {
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

    pub(super) fn start(&mut self, key: SlotKey) {
        self.busy.remove(&key);
        self.hold(key, Busy::Starting { cancelled: false, left: false, waiters: Vec::new() });
        self.actions.push_back(DynamicAction::Start(key));
    }

    pub(super) fn cancel_start(&mut self, key: SlotKey, now: Duration) {
        if let Some(Busy::Starting { cancelled, .. }) = self.busy.get_mut(&key)
            && !*cancelled
        {
            *cancelled = true;
            self.actions.push_back(DynamicAction::CancelStart(key));
            self.set_timer(now + self.template.kill_timeout, key, Timer::Leave);
        }
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
}

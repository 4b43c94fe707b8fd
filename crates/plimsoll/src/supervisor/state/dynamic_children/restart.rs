//! Restarting a child: the delay, the start, and its result.

use std::time::Duration;

use plimsoll_sync::slots::SlotKey;

use super::DynamicState;
use super::child::Child;
use super::timers::Timer;
use crate::supervisor::state::intensity::Verdict;
use crate::supervisor::state::jitter::next_fraction;
use crate::supervisor::state::{Command, Notice, StartFailure};

impl DynamicState {
    /// The delay of the child's next restart, which counts as one more in a row.
    pub(super) fn next_delay(&mut self, key: SlotKey) -> Duration {
        let fraction = next_fraction(&mut self.jitter);
        let attempt = self.attempts.entry(key).or_default();
        let delay = self.template.backoff.delay(*attempt, fraction);
        *attempt = attempt.saturating_add(1);
        delay
    }

    pub(super) fn wait_for_restart(&mut self, key: SlotKey, delay: Duration, now: Duration) {
        self.children.insert(key, Child::Waiting);
        if delay.is_zero() {
            self.start(key);
        } else {
            self.set_timer(now.saturating_add(delay), key, Timer::Delay);
        }
    }

    pub(super) fn start(&mut self, key: SlotKey) {
        self.children.remove(&key);
        self.insert(key, Child::Starting { cancelled: false, abandoned: false, waiters: Vec::new() });
        self.commands.push_back(Command::Start { spec: key, run: key });
    }

    pub(super) fn cancel_start(&mut self, key: SlotKey, now: Duration) {
        if let Some(Child::Starting { cancelled, .. }) = self.children.get_mut(&key)
            && !*cancelled
        {
            *cancelled = true;
            self.commands.push_back(Command::CancelStart { run: key });
            self.start_kill_timeout(key, now);
        }
    }

    pub(super) fn restarted(&mut self, key: SlotKey, nested: bool, now: Duration) {
        self.cancel_timers(key);
        match self.remove(key) {
            Some(Child::Starting { cancelled: true, waiters, .. }) => self.begin_stop(key, nested, waiters, now),
            Some(Child::Starting { .. }) | None => {}
            Some(other) => self.insert(key, other),
        }
    }

    pub(super) fn ignored(&mut self, key: SlotKey) {
        self.cancel_timers(key);
        if let Some(Child::Starting { waiters, .. }) = self.remove(key) {
            self.free(key, waiters);
        }
    }

    pub(super) fn restart_failed(&mut self, key: SlotKey, failure: StartFailure, now: Duration) {
        self.cancel_timers(key);
        match self.remove(key) {
            Some(Child::Starting { cancelled: true, waiters, .. }) => self.free(key, waiters),
            Some(Child::Starting { .. }) => {
                if self.window.record(now) == Verdict::GiveUp {
                    let reason = failure.reason();
                    self.notice(Notice::StartFailed { spec: key, failure, retry: None });
                    self.children.insert(key, Child::Waiting);
                    self.give_up(key, reason, now);
                } else {
                    let delay = self.next_delay(key);
                    self.notice(Notice::StartFailed { spec: key, failure, retry: Some(delay) });
                    self.wait_for_restart(key, delay, now);
                }
            }
            _ => {}
        }
    }
}

//! Timers: of one child, of a stop of all, and of the starts that a stop waits for.

use std::time::Duration;

use plimsoll_sync::slots::SlotKey;

use super::{DynamicState, Phase};
use crate::supervisor::state::outcome::Kill;

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Timer {
    Shutdown,
    KillTimeout,
    Delay,
}

impl DynamicState {
    pub(super) fn tick(&mut self, now: Duration) {
        while let Some(&(at, key, timer)) = self.timers.first() {
            if at > now {
                break;
            }
            self.clear_timer(key, timer);
            match timer {
                Timer::Shutdown => self.kill_child(key, Kill::Overdue, now),
                Timer::KillTimeout => self.abandon_child(key, true, now),
                Timer::Delay => self.start(key),
            }
        }
        if self.shutdown_at.is_some_and(|at| at <= now) {
            self.shutdown_at = None;
            self.kill_all(Kill::Overdue, now);
        }
        if let Phase::ShuttingDown(_, until) = &mut self.phase
            && until.is_some_and(|at| at <= now)
        {
            *until = None;
            self.reserved = 0;
        }
    }

    // At most one timer of a kind for a child, found by its time.
    pub(super) fn set_timer(&mut self, at: Duration, key: SlotKey, timer: Timer) {
        self.clear_timer(key, timer);
        self.timers.insert((at, key, timer));
        self.set_at.insert((key, timer), at);
    }

    pub(super) fn clear_timer(&mut self, key: SlotKey, timer: Timer) {
        if let Some(at) = self.set_at.remove(&(key, timer)) {
            self.timers.remove(&(at, key, timer));
        }
    }

    pub(super) fn cancel_timers(&mut self, key: SlotKey) {
        self.clear_timer(key, Timer::Shutdown);
        self.clear_timer(key, Timer::KillTimeout);
    }
}

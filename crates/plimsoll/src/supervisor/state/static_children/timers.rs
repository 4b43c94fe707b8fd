//! Timers: at most one of a kind for a child, and the delays of restarts.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Key, StaticState};

/// The timers that are set, the earliest first.
pub(super) type Timers = BTreeSet<(Duration, Key, Timer)>;

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The shutdown time of a child is over.
    Shutdown,
    /// The time in which a killed child should have ended is over.
    KillTimeout,
    /// The delay of the restart with this origin is over.
    Delay,
}

impl StaticState {
    /// Handles every timer that is due.
    pub(super) fn tick(&mut self, now: Duration) {
        while let Some(&(at, key, timer)) = self.timers.first() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            match timer {
                Timer::Shutdown => self.shutdown_time_over(key, now),
                Timer::KillTimeout => self.abandon_child(key, true, now),
                Timer::Delay => self.due.push_back(key),
            }
        }
        self.settle(now);
    }

    pub(super) fn set_timer(&mut self, at: Duration, key: Key, timer: Timer) {
        let child = self.child(key);
        let slot = match timer {
            Timer::Shutdown => &mut child.shutdown_at,
            Timer::KillTimeout => &mut child.kill_timeout_at,
            Timer::Delay => return,
        };
        if let Some(before) = slot.replace(at) {
            self.timers.remove(&(before, key, timer));
        }
        self.timers.insert((at, key, timer));
    }

    pub(super) fn cancel_timers(&mut self, key: Key) {
        if let Some(child) = self.children.get_mut(&key) {
            child.cancel_timers(key, &mut self.timers);
            (child.shutdown_at, child.kill_timeout_at) = (None, None);
        }
    }

    pub(super) fn cancel_shutdown_timer(&mut self, key: Key) {
        if let Some(at) = self.child(key).shutdown_at.take() {
            self.timers.remove(&(at, key, Timer::Shutdown));
        }
    }
}

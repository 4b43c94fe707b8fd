//! Timers: one of a kind for a child at the most, and the delays of restarts.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Key, Rules};

/// What is due when, the earliest first.
pub(super) type Timers = BTreeSet<(Duration, Key, Timer)>;

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The grace of a child is over.
    Grace,
    /// A killed child has had time enough.
    Leave,
    /// The delay of the group with this origin is over.
    Delay,
}

impl Rules {
    /// The next moment at which [`tick`](Self::tick) has something to do.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.timers.first().map(|(at, ..)| *at)
    }

    /// Handles every timer that is due.
    pub(crate) fn tick(&mut self, now: Duration) {
        while let Some(&(at, key, timer)) = self.timers.first() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            match timer {
                Timer::Grace => self.kill_child(key, now),
                Timer::Leave => self.leave(key, true, now),
                Timer::Delay => self.due.push_back(key),
            }
        }
        self.settle(now);
    }

    pub(super) fn set_timer(&mut self, at: Duration, key: Key, timer: Timer) {
        let entry = self.entry(key);
        let slot = match timer {
            Timer::Grace => &mut entry.grace_at,
            Timer::Leave => &mut entry.leave_at,
            Timer::Delay => return,
        };
        if let Some(before) = slot.replace(at) {
            self.timers.remove(&(before, key, timer));
        }
        self.timers.insert((at, key, timer));
    }

    pub(super) fn clear_timer(&mut self, key: Key, timer: Timer) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let slot = match timer {
            Timer::Grace => &mut entry.grace_at,
            Timer::Leave => &mut entry.leave_at,
            Timer::Delay => return,
        };
        if let Some(at) = slot.take() {
            self.timers.remove(&(at, key, timer));
        }
    }

    /// Cancels the timers of a child's incarnation.
    pub(super) fn cancel_timers(&mut self, key: Key) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.forget_timers(key, &mut self.timers);
        }
    }
}

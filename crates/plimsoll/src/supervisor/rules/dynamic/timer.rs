//! Timers: of one child, of a stop of all, and of the starts that a stop waits for.

use std::time::Duration;

use plimsoll_sync::slots::SlotKey;

use super::{DynamicRules, Life};
use crate::supervisor::rules::entry::Kill;

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Timer {
    Grace,
    Leave,
    Delay,
}

impl DynamicRules {
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let timer = self.timers.first().map(|(at, ..)| *at);
        let closing = match &self.life {
            Life::Closing(_, last) => *last,
            _ => None,
        };
        [timer, self.common_grace, closing].into_iter().flatten().min()
    }

    pub(crate) fn tick(&mut self, now: Duration) {
        while let Some(&(at, key, timer)) = self.timers.first() {
            if at > now {
                break;
            }
            self.clear_timer(key, timer);
            match timer {
                Timer::Grace => self.kill_now(key, Kill::Overdue, now),
                Timer::Leave => self.leave(key, true, now),
                Timer::Delay => self.start(key),
            }
        }
        if self.common_grace.is_some_and(|at| at <= now) {
            self.common_grace = None;
            let all: Vec<SlotKey> = self.busy.keys().copied().collect();
            for key in all {
                self.kill_now(key, Kill::Overdue, now);
            }
        }
        if let Life::Closing(_, last) = &mut self.life
            && last.is_some_and(|at| at <= now)
        {
            *last = None;
            self.reserved = 0;
        }
        self.finish_if_done();
    }

    // Timers are looked up by what is set: at most one of a kind a child, found by its time.
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
        self.clear_timer(key, Timer::Grace);
        self.clear_timer(key, Timer::Leave);
    }
}

//! A server's own timers: pure rules on the same wheel that keeps call deadlines.

use plimsoll_sync::slots::{SlotKey, Slots};

use crate::panics::discard;
use crate::timer_wheel::TimerWheel;

/// Names a timer of one server, for ever: the key of a timer that has fired or was cancelled names nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimerKey(SlotKey);

/// The server has as many timers as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{limit} timers are set already")]
pub struct TimersFull {
    /// How many there may be.
    pub limit: u32,
}

pub(crate) enum Timer<M> {
    Once(M),
    Every { make: Box<dyn FnMut() -> M + Send>, period: u64, last: u64 },
    Idle,
}

/// What a timer that fires brings.
pub(crate) enum Fired<M> {
    Message(M),
    Idle,
}

/// Timers of one server. A timer that is due is announced once and fires when the server comes to it, so that there are
/// never more announcements than timers, and a timer cancelled meanwhile does not fire.
pub(crate) struct Timers<M> {
    timers: Slots<Timer<M>>,
    wheel: TimerWheel,
    idle: Option<SlotKey>,
    /// The server has ended: nothing is kept any more.
    closed: bool,
    wake_tick: u64,
}

impl<M> Timers<M> {
    pub(crate) fn new(limit: u32) -> Self {
        // One more for the idle timer.
        let timers = Slots::with_limit(limit.saturating_add(1));
        Self { timers, wheel: TimerWheel::new(), idle: None, closed: false, wake_tick: u64::MAX }
    }

    /// Sets a timer for tick `when`; whether the deadline task must be woken.
    pub(crate) fn once(&mut self, when: u64, message: M) -> Result<(TimerKey, bool), TimersFull> {
        self.set(when, Timer::Once(message))
    }

    /// Sets a timer that fires at `now + period` and every `period` ticks after. Periods that pass while the server is
    /// busy are skipped.
    pub(crate) fn every(
        &mut self,
        now: u64,
        period: u64,
        make: Box<dyn FnMut() -> M + Send>,
    ) -> Result<(TimerKey, bool), TimersFull> {
        let period = period.max(1);
        let first = now.saturating_add(period);
        self.set(first, Timer::Every { make, period, last: first })
    }

    /// Something came: the idle time begins again. Returns whether the deadline task must be woken.
    pub(crate) fn restart_idle(&mut self, when: u64) -> bool {
        if self.closed {
            return false;
        }
        let key = match self.idle {
            Some(key) => key,
            None => {
                let Ok(key) = self.timers.insert(Timer::Idle) else { return false };
                *self.idle.insert(key)
            }
        };
        self.wheel.insert(key.index(), when);
        self.is_earlier(when)
    }

    /// Whether there was such a timer.
    pub(crate) fn cancel(&mut self, key: TimerKey) -> bool {
        let there = self.timers.remove(key.0).is_some();
        if there {
            self.wheel.remove(key.0.index());
        }
        there
    }

    /// Announces timers that are due at `now` and returns the tick of the next one.
    pub(crate) fn tick(&mut self, now: u64, mut due: impl FnMut(TimerKey)) -> Option<u64> {
        while let Some(index) = self.wheel.pop(now) {
            if let Some((key, _)) = self.timers.at(index) {
                due(TimerKey(key));
            }
        }
        let next = self.wheel.next();
        self.wake_tick = next.unwrap_or(u64::MAX);
        next
    }

    /// Fires an announced timer. Returns what it brings, if it is still set, and whether the deadline task must be woken.
    pub(crate) fn fire(&mut self, key: TimerKey, now: u64) -> (Option<Fired<M>>, bool) {
        let index = key.0.index();
        match self.timers.get_mut(key.0) {
            None => (None, false),
            // Armed again means that something came after the announcement.
            Some(Timer::Idle) => ((!self.wheel.is_armed(index)).then_some(Fired::Idle), false),
            Some(Timer::Every { make, period, last }) => {
                let message = make();
                let periods = now.saturating_sub(*last) / *period + 1;
                *last = last.saturating_add(periods.saturating_mul(*period));
                let when = *last;
                self.wheel.insert(index, when);
                (Some(Fired::Message(message)), self.is_earlier(when))
            }
            Some(Timer::Once(_)) => match self.timers.remove(key.0) {
                Some(Timer::Once(message)) => (Some(Fired::Message(message)), false),
                _ => (None, false),
            },
        }
    }

    /// The server has ended: returns all timers, to be dropped outside the lock.
    pub(crate) fn close(&mut self) -> Vec<(SlotKey, Timer<M>)> {
        self.closed = true;
        self.idle = None;
        self.wheel = TimerWheel::new();
        self.timers.drain()
    }

    /// How many timers are set, the idle timer not counted.
    pub(crate) fn len(&self) -> usize {
        self.timers.len() - usize::from(self.idle.is_some())
    }

    fn set(&mut self, when: u64, timer: Timer<M>) -> Result<(TimerKey, bool), TimersFull> {
        let limit = self.timers.limit() - 1;
        if self.len() >= limit as usize {
            return Err(TimersFull { limit });
        }
        let key = self.timers.insert(timer).map_err(|_| TimersFull { limit })?;
        if self.closed {
            // A handler may run on when its server is killed.
            discard(self.timers.remove(key));
            return Ok((TimerKey(key), false));
        }
        self.wheel.insert(key.index(), when);
        Ok((TimerKey(key), self.is_earlier(when)))
    }

    fn is_earlier(&mut self, when: u64) -> bool {
        let earlier = when < self.wake_tick;
        if earlier {
            self.wake_tick = when;
        }
        earlier
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(timers: &mut Timers<u32>, now: u64) -> Vec<TimerKey> {
        let mut keys = Vec::new();
        timers.tick(now, |key| keys.push(key));
        keys
    }

    #[test]
    fn a_timer_cancelled_after_it_was_announced_does_not_fire() {
        let mut timers = Timers::new(4);
        let (key, _) = timers.once(5, 1).unwrap();
        assert_eq!(due(&mut timers, 5), [key]);
        assert!(timers.cancel(key));
        assert!(timers.fire(key, 5).0.is_none());
        assert!(!timers.cancel(key));
    }

    #[test]
    fn an_interval_skips_what_a_busy_server_missed() {
        let mut timers = Timers::new(4);
        let (key, _) = timers.every(0, 10, Box::new(|| 7)).unwrap();
        assert_eq!(due(&mut timers, 35), [key]);
        assert!(due(&mut timers, 36).is_empty(), "announced once until it fires");
        assert!(matches!(timers.fire(key, 36).0, Some(Fired::Message(7))));
        assert!(due(&mut timers, 39).is_empty());
        assert_eq!(due(&mut timers, 40), [key]);
    }

    #[test]
    fn a_closed_table_keeps_no_timer() {
        let mut timers = Timers::new(4);
        let (key, _) = timers.once(5, 1).unwrap();
        timers.restart_idle(3);
        assert_eq!(timers.close().len(), 2);
        assert_eq!(timers.len(), 0);
        timers.once(6, 2).unwrap();
        timers.every(0, 10, Box::new(|| 7)).unwrap();
        assert!(!timers.restart_idle(3));
        assert!(timers.fire(key, 9).0.is_none() && due(&mut timers, 100).is_empty());
        assert_eq!(timers.len(), 0);
    }

    #[test]
    fn timers_have_a_limit_and_the_idle_one_is_not_of_them() {
        let mut timers = Timers::new(1);
        timers.restart_idle(3);
        timers.once(5, 1).unwrap();
        assert_eq!(timers.once(5, 1), Err(TimersFull { limit: 1 }));
        timers.restart_idle(30);
        assert_eq!(due(&mut timers, 20).len(), 1);
        assert_eq!(timers.len(), 1);
    }
}

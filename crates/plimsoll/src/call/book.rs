//! The books of a call server: which calls are open, when each is due, how many ended in which way.
//!
//! Pure rules: no clock, no task, no lock. Time comes in as ticks. `started = settled + open` holds after every
//! operation, because each changes both sides at once.

use plimsoll_sync::slots::{SlotKey, Slots};

use super::wheel::Wheel;

/// How a call ended, for the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Reply,
    AppError,
    Overloaded,
    Timeout,
    Died,
    ShuttingDown,
    Cancelled,
    Deadlock,
}

impl Outcome {
    pub(crate) const ALL: [(Self, &'static str); 8] = [
        (Self::Reply, "reply"),
        (Self::AppError, "app_error"),
        (Self::Overloaded, "overloaded"),
        (Self::Timeout, "timeout"),
        (Self::Died, "died"),
        (Self::ShuttingDown, "shutting_down"),
        (Self::Cancelled, "cancelled"),
        (Self::Deadlock, "deadlock"),
    ];
}

/// Calls that were opened and how they ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) started: u64,
    pub(crate) settled: [u64; Outcome::ALL.len()],
}

impl Tally {
    pub(crate) fn settled_in_all(&self) -> u64 {
        self.settled.iter().sum()
    }
}

/// Whether the server takes calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    Open,
    /// It is stopping: what is open is served, nothing new is taken.
    Draining,
    /// It has ended.
    Closed,
}

/// Why a call was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotOpened {
    Draining,
    Closed,
    Full,
}

/// A call that has been opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opened {
    /// It is due before everything else: whoever sleeps until the next deadline must be told.
    pub(crate) earliest: bool,
}

/// The open calls of one server; `C` is a handle to a call.
#[derive(Debug)]
pub(crate) struct Book<C> {
    open: Slots<C>,
    wheel: Wheel,
    tally: Tally,
    door: Door,
    /// Until when the clock sleeps.
    alarm: u64,
}

impl<C: Clone> Book<C> {
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            open: Slots::with_limit(limit),
            wheel: Wheel::new(),
            tally: Tally::default(),
            door: Door::Open,
            alarm: u64::MAX,
        }
    }

    /// Opens a call that is due at tick `due`; `make` makes its handle from its key.
    pub(crate) fn open(&mut self, due: u64, make: impl FnOnce(SlotKey) -> C) -> Result<Opened, NotOpened> {
        match self.door {
            Door::Open => {}
            Door::Draining => return Err(NotOpened::Draining),
            Door::Closed => return Err(NotOpened::Closed),
        }
        let key = self.open.insert_with(make).map_err(|_| NotOpened::Full)?;
        self.wheel.insert(key.index(), due);
        self.tally.started += 1;
        let earliest = due < self.alarm;
        if earliest {
            self.alarm = due;
        }
        Ok(Opened { earliest })
    }

    /// Closes a call and frees everything that was kept for it.
    pub(crate) fn close(&mut self, key: SlotKey, outcome: Outcome) -> Option<C> {
        let call = self.open.remove(key)?;
        self.wheel.remove(key.index());
        self.tally.settled[outcome as usize] += 1;
        Some(call)
    }

    /// Up to `slice` calls whose deadline has passed at `now`, to be settled by the caller of this.
    pub(crate) fn expire(&mut self, now: u64, slice: usize) -> Vec<C> {
        let mut due = Vec::new();
        while due.len() < slice {
            let Some(index) = self.wheel.pop(now) else { break };
            due.extend(self.open.at(index).map(|(_, call)| call.clone()));
        }
        due
    }

    /// The tick until which the clock may sleep.
    pub(crate) fn set_alarm(&mut self) -> Option<u64> {
        let next = self.wheel.next();
        self.alarm = next.unwrap_or(u64::MAX);
        next
    }

    /// Takes no more calls; what is open stays open.
    pub(crate) fn drain(&mut self) {
        if self.door == Door::Open {
            self.door = Door::Draining;
        }
    }

    /// Takes no more calls and hands out all that are open, to be settled by the caller of this.
    pub(crate) fn shut(&mut self) -> Vec<C> {
        self.door = Door::Closed;
        self.open.iter().map(|(_, call)| call.clone()).collect()
    }

    pub(crate) fn open_calls(&self) -> Vec<C> {
        self.open.iter().map(|(_, call)| call.clone()).collect()
    }

    pub(crate) fn door(&self) -> Door {
        self.door
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn timers(&self) -> usize {
        self.wheel.len()
    }

    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }

    /// Gives back what a spike left behind: slots and timer links beyond `factor` times what is needed. Bytes given back.
    pub(crate) fn compact(&mut self, factor: usize) -> usize {
        let slots = self.open.compact(factor);
        if slots == 0 { 0 } else { slots + self.wheel.compact(self.open.capacity()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book() -> Book<SlotKey> {
        Book::new(2)
    }

    #[test]
    fn a_closed_call_leaves_neither_slot_nor_timer() {
        let mut book = book();
        let mut key = None;
        book.open(10, |k| *key.insert(k)).unwrap();
        assert_eq!((book.in_flight(), book.timers()), (1, 1));
        assert!(book.close(key.unwrap(), Outcome::Reply).is_some());
        assert!(book.close(key.unwrap(), Outcome::Timeout).is_none());
        assert_eq!((book.in_flight(), book.timers(), book.tally().settled_in_all()), (0, 0, 1));
    }

    #[test]
    fn only_an_earlier_deadline_wakes_the_clock() {
        let mut book = book();
        assert!(book.open(10, |k| k).unwrap().earliest);
        assert!(!book.open(20, |k| k).unwrap().earliest);
        assert_eq!(book.open(30, |k| k), Err(NotOpened::Full));
        assert_eq!(book.expire(10, 8).len(), 1);
        assert_eq!(book.set_alarm(), Some(20));
    }

    #[test]
    fn a_door_that_is_not_open_says_which_way_it_is_shut() {
        let mut book = book();
        book.open(1, |k| k).unwrap();
        book.drain();
        assert_eq!(book.open(1, |k| k), Err(NotOpened::Draining));
        assert_eq!(book.shut().len(), 1);
        book.drain();
        assert_eq!(book.open(1, |k| k), Err(NotOpened::Closed));
    }
}

//! The books of a call server: which calls are open, when each is due, whose they are, how many ended in which way.
//!
//! Pure rules: no clock, no task, no lock. Time comes in as ticks. `started = settled + open` holds after every
//! operation, because each changes both sides at once.

use plimsoll_sync::slots::{SlotKey, Slots};
use ractor::ActorId;

use super::callers::{Callers, Link};
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
    CallerGone,
}

/// A call that has been opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opened {
    /// It is due before everything else: whoever sleeps until the next deadline must be told.
    pub(crate) earliest: bool,
}

/// What an open call is kept with.
#[derive(Debug)]
pub(crate) struct Entry<C, R> {
    call: C,
    /// Until it is served; gone as soon as the call settles.
    request: Option<R>,
    /// Its place among the calls of its caller, if that is bound.
    pub(crate) link: Link,
}

/// The open calls of one server; `C` is a handle to a call, `R` a request.
#[derive(Debug)]
pub(crate) struct Book<C, R> {
    open: Slots<Entry<C, R>>,
    wheel: Wheel,
    callers: Callers,
    tally: Tally,
    door: Door,
    /// Until when the clock sleeps.
    alarm: u64,
}

impl<C: Clone, R> Book<C, R> {
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            open: Slots::with_limit(limit),
            wheel: Wheel::new(),
            callers: Callers::new(),
            tally: Tally::default(),
            door: Door::Open,
            alarm: u64::MAX,
        }
    }

    /// Opens a call that is due at tick `due`, perhaps of a bound caller; `make` makes its handle from its key.
    pub(crate) fn open(
        &mut self,
        due: u64,
        caller: Option<SlotKey>,
        request: R,
        make: impl FnOnce(SlotKey) -> C,
    ) -> Result<Opened, (NotOpened, R)> {
        let open = match self.door {
            Door::Open if caller.is_none_or(|caller| self.callers.lives(caller)) => Ok(()),
            Door::Open => Err(NotOpened::CallerGone),
            Door::Draining => Err(NotOpened::Draining),
            Door::Closed => Err(NotOpened::Closed),
        };
        if let Err(why) = open {
            return Err((why, request));
        }
        let mut request = Some(request);
        let key = self.open.insert_with(|key| Entry { call: make(key), request: request.take(), link: Link::OFF }).ok();
        let key = match (key, request) {
            (Some(key), _) => key,
            (None, Some(request)) => return Err((NotOpened::Full, request)),
            (None, None) => unreachable!("a request goes into an entry or stays"),
        };
        if let Some(caller) = caller {
            self.callers.add(&mut self.open, caller, key);
        }
        self.wheel.insert(key.index(), due);
        self.tally.started += 1;
        let earliest = due < self.alarm;
        if earliest {
            self.alarm = due;
        }
        Ok(Opened { earliest })
    }

    /// The request of a call whose turn it is; `None` if that has settled.
    pub(crate) fn take_request(&mut self, key: SlotKey) -> Option<R> {
        self.open.get_mut(key)?.request.take()
    }

    /// Closes a call and frees everything that was kept for it.
    pub(crate) fn close(&mut self, key: SlotKey, outcome: Outcome) -> Option<Entry<C, R>> {
        self.callers.take_off(&mut self.open, key);
        let entry = self.open.remove(key)?;
        self.wheel.remove(key.index());
        self.tally.settled[outcome as usize] += 1;
        Some(entry)
    }

    /// Up to `slice` calls whose deadline has passed at `now`, to be settled by the caller of this.
    pub(crate) fn expire(&mut self, now: u64, slice: usize) -> Vec<C> {
        let mut due = Vec::new();
        while due.len() < slice {
            let Some(index) = self.wheel.pop(now) else { break };
            due.extend(self.open.at(index).map(|(_, entry)| entry.call.clone()));
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
        self.open_calls()
    }

    pub(crate) fn get(&self, key: SlotKey) -> Option<C> {
        self.open.get(key).map(|entry| entry.call.clone())
    }

    pub(crate) fn open_calls(&self) -> Vec<C> {
        self.open.iter().map(|(_, entry)| entry.call.clone()).collect()
    }

    /// Calls that nobody serves yet.
    pub(crate) fn queued_calls(&self) -> Vec<C> {
        let queued = self.open.iter().filter(|(_, entry)| entry.request.is_some());
        queued.map(|(_, entry)| entry.call.clone()).collect()
    }

    /// A caller has ended: takes no more calls of it. Its key, if it was bound.
    pub(crate) fn caller_gone(&mut self, id: ActorId) -> Option<SlotKey> {
        self.callers.gone(id)
    }

    /// Up to `slice` open calls of a caller that has gone, to be settled by the caller of this.
    pub(crate) fn calls_of(&mut self, caller: SlotKey, slice: usize) -> Vec<C> {
        let mut calls = Vec::new();
        while calls.len() < slice {
            let Some(key) = self.callers.first(&self.open, caller) else { break };
            self.callers.take_off(&mut self.open, key);
            calls.extend(self.open.get(key).map(|entry| entry.call.clone()));
        }
        calls
    }

    pub(crate) fn callers(&mut self) -> &mut Callers {
        &mut self.callers
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
    use ractor::{Actor, ActorProcessingErr, ActorRef};

    use super::*;

    struct Idle;

    impl Actor for Idle {
        type Msg = ();
        type State = ();
        type Arguments = ();

        async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
            Ok(())
        }
    }

    fn book() -> Book<SlotKey, ()> {
        Book::new(2)
    }

    #[test]
    fn a_closed_call_leaves_neither_slot_nor_timer() {
        let mut book = book();
        let mut key = None;
        book.open(10, None, (), |k| *key.insert(k)).unwrap();
        assert_eq!((book.in_flight(), book.timers()), (1, 1));
        assert!(book.close(key.unwrap(), Outcome::Reply).is_some());
        assert!(book.close(key.unwrap(), Outcome::Timeout).is_none());
        assert_eq!((book.in_flight(), book.timers(), book.tally().settled_in_all()), (0, 0, 1));
    }

    #[test]
    fn only_an_earlier_deadline_wakes_the_clock() {
        let mut book = book();
        assert!(book.open(10, None, (), |k| k).unwrap().earliest);
        assert!(!book.open(20, None, (), |k| k).unwrap().earliest);
        assert_eq!(book.open(30, None, (), |k| k), Err((NotOpened::Full, ())));
        assert_eq!(book.expire(10, 8).len(), 1);
        assert_eq!(book.set_alarm(), Some(20));
    }

    #[test]
    fn a_door_that_is_not_open_says_which_way_it_is_shut() {
        let mut book = book();
        book.open(1, None, (), |k| k).unwrap();
        book.drain();
        assert_eq!(book.open(1, None, (), |k| k), Err((NotOpened::Draining, ())));
        assert_eq!(book.shut().len(), 1);
        book.drain();
        assert_eq!(book.open(1, None, (), |k| k), Err((NotOpened::Closed, ())));
    }

    /// M-16: from a caller to its calls and back, without a look at anybody else's.
    #[tokio::test]
    async fn a_gone_callers_calls_are_found_and_no_others() {
        let mut book: Book<SlotKey, ()> = Book::new(100);
        let mut callers = Vec::new();
        let mut ids = Vec::new();
        for _ in 0..2 {
            let (actor, _) = Actor::spawn(None, Idle, ()).await.unwrap();
            ids.push(actor.get_id());
            callers.push(book.callers().bind(&actor.get_cell()).0);
        }
        let mut of = [Vec::new(), Vec::new()];
        for n in 0..50 {
            book.open(n, Some(callers[n as usize % 2]), (), |k| {
                of[n as usize % 2].push(k);
                k
            })
            .unwrap();
        }
        // Every third call of the first settles on its own.
        for key in of[0].iter().step_by(3) {
            book.close(*key, Outcome::Reply);
        }
        let gone = book.caller_gone(ids[0]).unwrap();
        assert_eq!(book.open(1, Some(callers[0]), (), |k| k), Err((NotOpened::CallerGone, ())));
        let mut found = Vec::new();
        loop {
            let slice = book.calls_of(gone, 4);
            if slice.is_empty() {
                break;
            }
            found.extend(slice.iter().copied());
            slice.iter().for_each(|key| assert!(book.close(*key, Outcome::Cancelled).is_some()));
        }
        found.sort_unstable();
        let expected: Vec<_> = of[0].iter().enumerate().filter(|(n, _)| n % 3 != 0).map(|(_, key)| *key).collect();
        assert_eq!(found, expected);
        assert_eq!((book.in_flight(), book.timers()), (25, 25));
    }
}

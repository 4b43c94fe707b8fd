//! When leases run out: a wheel of slots, and in order those of the slot that the clock is in.
//!
//! A lease is put into the slot in which it ends; when the clock comes to that slot, its leases are put in order. So to
//! begin, to renew and to end one costs O(1), whatever their lengths, and to find those that have run out costs O(those):
//! the others are not looked at, but for the slots that the clock has passed since the last look, which are as many as the
//! wheel has at most.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use plimsoll_sync::slots::{SlotKey, Slots};

use super::Row;
use crate::bounded::list::{List, visits};
use crate::bounded::time::NEVER;
use crate::bounded::{Compacted, Footprint};

/// Fewer in tests, so that the wheel goes around in them.
const SLOTS: u64 = if cfg!(test) { 64 } else { 1_024 };

type Slot = List<2>;

/// The leases of all rows.
#[derive(Debug)]
pub(super) struct Leases {
    /// None while there are no leases.
    wheel: Vec<Slot>,
    /// The time that one slot stands for: with it the longest lease fits into the wheel.
    width: Duration,
    /// The time of the slot number 0.
    began: Option<Instant>,
    /// The number of the slot that the clock is in. INVARIANT: every lease on the wheel ends in one of the `SLOTS - 1` after.
    turn: u64,
    /// Leases that end in this slot or have run out.
    at_hand: BTreeSet<(Instant, SlotKey)>,
    /// How many leases have this length.
    lengths: BTreeMap<Duration, usize>,
    len: usize,
}

impl Leases {
    /// For leases of at most `longest`. Allocates nothing yet.
    pub(super) fn new(longest: Duration) -> Self {
        let width = (longest.min(NEVER) / (SLOTS as u32 - 2)).max(Duration::from_millis(1));
        Self {
            wheel: Vec::new(),
            width,
            began: None,
            turn: 0,
            at_hand: BTreeSet::new(),
            lengths: BTreeMap::new(),
            len: 0,
        }
    }

    /// The lease of a row, as long as the row says, begins.
    pub(super) fn begin<V>(&mut self, rows: &mut Slots<Row<V>>, row_key: SlotKey, now: Instant) {
        self.began.get_or_insert(now);
        if self.wheel.is_empty() {
            self.wheel = (0..SLOTS).map(|_| Slot::default()).collect();
        }
        self.advance(rows, now);
        let Some(row) = rows.get(row_key) else { return };
        let (ends, ttl) = (row.ends, row.ttl);
        self.len += 1;
        *self.lengths.entry(ttl).or_default() += 1;
        match self.slot_of(ends) {
            number if number <= self.turn => drop(self.at_hand.insert((ends, row_key))),
            number => self.slot(number).push_back(rows, row_key.index()),
        }
    }

    /// The lease of a row that is still there ends, run out or not.
    pub(super) fn end<V>(&mut self, rows: &mut Slots<Row<V>>, row_key: SlotKey) {
        let Some(row) = rows.get(row_key) else { return };
        let (ends, ttl) = (row.ends, row.ttl);
        self.len -= 1;
        if let Some(count) = self.lengths.get_mut(&ttl) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&ttl);
            }
        }
        match self.slot_of(ends) {
            number if number <= self.turn => drop(self.at_hand.remove(&(ends, row_key))),
            number => self.slot(number).unlink(rows, row_key.index()),
        }
    }

    /// A row whose lease has run out at `now`, those first that ran out first.
    pub(super) fn due<V>(&mut self, rows: &mut Slots<Row<V>>, now: Instant) -> Option<SlotKey> {
        self.advance(rows, now);
        visits::count();
        self.at_hand.first().filter(|(ends, _)| *ends <= now).map(|(_, row_key)| *row_key)
    }

    /// The shortest length of a lease held.
    pub(super) fn shortest(&self) -> Option<Duration> {
        self.lengths.first_key_value().map(|(ttl, _)| *ttl)
    }

    pub(super) fn footprint(&self) -> Footprint {
        Footprint { len: self.len, capacity: self.len, bytes: self.wheel.capacity() * size_of::<Slot>() }
    }

    /// Gives the wheel back when there are no leases; the ordered sets give their nodes back by themselves.
    pub(super) fn compact(&mut self) -> Compacted {
        let before = self.footprint();
        if self.len == 0 {
            self.wheel = Vec::new();
        }
        Compacted { before, after: self.footprint(), failed: 0 }
    }

    /// Turns the wheel to `now`. A clock that goes back turns nothing.
    fn advance<V>(&mut self, rows: &mut Slots<Row<V>>, now: Instant) {
        let to = self.slot_of(now);
        if to <= self.turn {
            return;
        }
        // Once around is all there is, and without leases on the wheel there is nothing.
        let passed = if self.len == self.at_hand.len() { 0 } else { (to - self.turn).min(SLOTS) };
        for number in self.turn + 1..=self.turn + passed {
            while let Some(index) = self.slot(number).pop_front(rows) {
                if let Some((row_key, row)) = rows.at(index) {
                    self.at_hand.insert((row.ends, row_key));
                }
            }
        }
        self.turn = to;
    }

    fn slot_of(&self, time: Instant) -> u64 {
        let since = self.began.map_or(Duration::ZERO, |began| time.saturating_duration_since(began));
        u64::try_from(since.as_nanos() / self.width.as_nanos()).unwrap_or(u64::MAX)
    }

    fn slot(&mut self, number: u64) -> &mut Slot {
        &mut self.wheel[(number % SLOTS) as usize]
    }

    /// Each row has one lease, in the place that its end calls for.
    #[cfg(test)]
    pub(super) fn check_law<V>(&self, rows: &Slots<Row<V>>) {
        assert_eq!(self.len, rows.len(), "live timers = live entries");
        assert_eq!(self.lengths.values().sum::<usize>(), rows.len());
        let mut on_wheel = 0;
        for (at, slot) in self.wheel.iter().enumerate() {
            for index in slot.iter(rows) {
                let (_, row) = rows.at(index).expect("a lease has its row");
                let number = self.slot_of(row.ends);
                assert_eq!((number % SLOTS) as usize, at);
                assert!((self.turn + 1..self.turn + SLOTS).contains(&number), "it comes up before the wheel is around");
                on_wheel += 1;
            }
        }
        assert!(self.at_hand.iter().all(|(ends, row_key)| rows.get(*row_key).is_some_and(|row| row.ends == *ends)));
        assert_eq!(on_wheel + self.at_hand.len(), rows.len());
    }
}

//! The expiry of leases: a timer wheel, with the leases of the current slot in order.
//!
//! A lease is in the slot in which it expires; when the clock reaches that slot, its leases are sorted. So adding, renewing
//! and removing one costs O(1), whatever its length, and finding the expired ones costs O(those) and the slots that the clock
//! has passed since the last look, at most as many as the wheel has.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use plimsoll_sync::slots::{SlotKey, Slots};

use super::Row;
use crate::bounded::linked_list::{List, visits};
use crate::bounded::time::NEVER;
use crate::bounded::{Compacted, Footprint};

/// Fewer in tests, so that the wheel goes around in them.
const SLOTS: u64 = if cfg!(test) { 64 } else { 1_024 };

type Slot = List<2>;

/// The expiry of all rows.
#[derive(Debug)]
pub(super) struct ExpiryWheel {
    /// Empty while there are no leases.
    wheel: Vec<Slot>,
    /// The time of one slot: with it the longest lease fits into the wheel.
    width: Duration,
    /// The start of slot number 0.
    started_at: Option<Instant>,
    /// The number of the current slot. INVARIANT: every lease on the wheel expires in one of the `SLOTS - 1` slots after it.
    current: u64,
    /// Leases that expire in the current slot or have expired.
    due_next: BTreeSet<(Instant, SlotKey)>,
    /// The number of leases by length.
    lengths: BTreeMap<Duration, usize>,
    len: usize,
}

impl ExpiryWheel {
    /// For leases of at most `longest`. Allocates nothing yet.
    pub(super) fn new(longest: Duration) -> Self {
        let width = (longest.min(NEVER) / (SLOTS as u32 - 2)).max(Duration::from_millis(1));
        Self {
            wheel: Vec::new(),
            width,
            started_at: None,
            current: 0,
            due_next: BTreeSet::new(),
            lengths: BTreeMap::new(),
            len: 0,
        }
    }

    /// Adds the lease of a row.
    pub(super) fn add<V>(&mut self, rows: &mut Slots<Row<V>>, row_key: SlotKey, now: Instant) {
        self.started_at.get_or_insert(now);
        if self.wheel.is_empty() {
            self.wheel = (0..SLOTS).map(|_| Slot::default()).collect();
        }
        self.advance(rows, now);
        let Some(row) = rows.get(row_key) else { return };
        let (ends, ttl) = (row.ends, row.ttl);
        self.len += 1;
        *self.lengths.entry(ttl).or_default() += 1;
        match self.slot_of(ends) {
            number if number <= self.current => drop(self.due_next.insert((ends, row_key))),
            number => self.slot(number).push_back(rows, row_key.index()),
        }
    }

    /// Removes the lease of a row that is still there, expired or not.
    pub(super) fn remove<V>(&mut self, rows: &mut Slots<Row<V>>, row_key: SlotKey) {
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
            number if number <= self.current => drop(self.due_next.remove(&(ends, row_key))),
            number => self.slot(number).unlink(rows, row_key.index()),
        }
    }

    /// A row whose lease has expired at `now`, in the order of expiry.
    pub(super) fn due<V>(&mut self, rows: &mut Slots<Row<V>>, now: Instant) -> Option<SlotKey> {
        self.advance(rows, now);
        visits::count();
        self.due_next.first().filter(|(ends, _)| *ends <= now).map(|(_, row_key)| *row_key)
    }

    /// The length of the shortest lease.
    pub(super) fn shortest(&self) -> Option<Duration> {
        self.lengths.first_key_value().map(|(ttl, _)| *ttl)
    }

    pub(super) fn footprint(&self) -> Footprint {
        Footprint { len: self.len, capacity: self.len, bytes: self.wheel.capacity() * size_of::<Slot>() }
    }

    /// Releases the wheel when there are no leases; the ordered sets release their nodes by themselves.
    pub(super) fn compact(&mut self) -> Compacted {
        let before = self.footprint();
        if self.len == 0 {
            self.wheel = Vec::new();
        }
        Compacted { before, after: self.footprint(), failed: 0 }
    }

    /// Advances the wheel to `now`. A clock that goes back changes nothing.
    fn advance<V>(&mut self, rows: &mut Slots<Row<V>>, now: Instant) {
        let to = self.slot_of(now);
        if to <= self.current {
            return;
        }
        // Each slot is visited once at most, and none when no lease is on the wheel.
        let passed = if self.len == self.due_next.len() { 0 } else { (to - self.current).min(SLOTS) };
        for number in self.current + 1..=self.current + passed {
            while let Some(index) = self.slot(number).pop_front(rows) {
                if let Some((row_key, row)) = rows.at(index) {
                    self.due_next.insert((row.ends, row_key));
                }
            }
        }
        self.current = to;
    }

    fn slot_of(&self, time: Instant) -> u64 {
        let since = self.started_at.map_or(Duration::ZERO, |started_at| time.saturating_duration_since(started_at));
        u64::try_from(since.as_nanos() / self.width.as_nanos()).unwrap_or(u64::MAX)
    }

    fn slot(&mut self, number: u64) -> &mut Slot {
        &mut self.wheel[(number % SLOTS) as usize]
    }

    /// Each row has one lease, in the slot of its expiry.
    #[cfg(test)]
    pub(super) fn check_invariants<V>(&self, rows: &Slots<Row<V>>) {
        assert_eq!(self.len, rows.len(), "live timers = live entries");
        assert_eq!(self.lengths.values().sum::<usize>(), rows.len());
        let mut on_wheel = 0;
        for (at, slot) in self.wheel.iter().enumerate() {
            for index in slot.iter(rows) {
                let (_, row) = rows.at(index).expect("a lease has its row");
                let number = self.slot_of(row.ends);
                assert_eq!((number % SLOTS) as usize, at);
                assert!(
                    (self.current + 1..self.current + SLOTS).contains(&number),
                    "it expires before the wheel is around"
                );
                on_wheel += 1;
            }
        }
        assert!(self.due_next.iter().all(|(ends, row_key)| rows.get(*row_key).is_some_and(|row| row.ends == *ends)));
        assert_eq!(on_wheel + self.due_next.len(), rows.len());
    }
}

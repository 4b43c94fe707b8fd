//! The decisions of a pool: its rows, and how callers get a lease.

mod create;
mod eviction;
mod index;
#[cfg(test)]
mod invariants;
mod key_rows;

use std::collections::VecDeque;
use std::hash::Hash;
use std::time::{Duration, Instant};

use plimsoll_sync::slots::{SlotKey, Slots};

use self::index::Index;
use super::action::{EntryKey, Lease, PoolAction, PoolEvent, PoolRefusal, WaitKey};
use super::settings::{PoolSettings, Sharing};
use super::waiters::{Queue, Waiters};
use crate::bounded::linked_list::{List, Places, visits};
use crate::bounded::lru_map::LruMap;
use crate::bounded::{Cap, Compact, CompactPolicy, Compacted, Counters, Footprint};

/// At most [`PoolSettings::cap`] open handles, by key. See the [module](super) for how it works.
///
/// `K` is the key of a handle (a peer's identity), `V` is the handle, `W` is a caller that waits and is returned in a
/// [`PoolAction`]. Every operation is O(1), or O(handles of the key) where a key may have several, unless it says otherwise.
///
/// ```
/// use std::time::Instant;
/// use plimsoll::bounded::pool::{LruPool, PoolAction, PoolSettings, Requested, WhenFull};
///
/// let now = Instant::now();
/// let mut pool = LruPool::new(PoolSettings::default());
/// assert!(matches!(pool.request(&"peer", WhenFull::Refuse, "caller", now), Requested::Waiting(_)));
/// // The owner performs the actions: here it makes the handle, which is the number 7.
/// let Some(PoolAction::Create { creation, key: "peer", evicted: None }) = pool.next_action() else { panic!() };
/// pool.created(creation, 7, now).unwrap();
/// let Some(PoolAction::Grant { waiter: "caller", lease }) = pool.next_action() else { panic!() };
/// assert_eq!(pool.value(lease.entry()), Some(&7));
/// pool.release(lease, now);
/// let lease = pool.hit(&"peer").expect("it is there now");
/// pool.release(lease, now);
/// ```
#[derive(Debug)]
pub struct LruPool<K, V, W = ()> {
    settings: PoolSettings,
    rows: Slots<Row<K, V>>,
    /// The first row of each key; the others follow it. Retired rows are not in it.
    index: Index,
    /// The links of `idle` and `queued`: a row is in one of them or in neither.
    places: Places,
    /// Live rows without a lease, least recently used first.
    idle: List<0>,
    /// Rows that wait for a place. Empty while there is a free place or an idle row.
    queued: List<0>,
    waiters: Waiters<W>,
    failing: LruMap<K, Failing>,
    /// Rows that have a place: being created, or live and not replaced.
    occupied: usize,
    /// Leased rows whose place went to a later handle of their key; never more than the cap.
    replaced: usize,
    /// Handles being closed, and those of them that keep their place until they are closed.
    closing: usize,
    closing_in_place: usize,
    open: bool,
    actions: VecDeque<PoolAction<K, V, W>>,
    counters: Counters<PoolEvent>,
}

/// What a caller wants when no handle can be leased or made for it at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// A refusal at once.
    Refuse,
    /// To wait; a caller that gives up calls [`LruPool::cancel`].
    Wait,
}

/// The result of a request for a lease.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "it may hold a lease"]
pub enum Requested<W> {
    /// The lease: there was a handle.
    Leased(Lease),
    /// The result comes as [`PoolAction::Grant`] or [`PoolAction::Refuse`], or from [`LruPool::failed`].
    Waiting(WaitKey),
    /// No lease; the waiter is returned.
    Refused(PoolRefusal, W),
}

#[derive(Debug)]
struct Row<K, V> {
    key: K,
    /// Of the key, by the index's seed.
    hash: u64,
    /// The slot of the next row of the same key.
    next: Option<u32>,
    state: State<V>,
    /// The callers that wait for a handle of the key; empty in all rows but the first of the key.
    queue: Queue,
}

#[derive(Debug)]
enum State<V> {
    /// Waits for a place.
    Queued,
    Creating,
    Live {
        value: V,
        leases: u32,
        used_at: Instant,
        standing: Standing,
    },
}

#[cfg(test)]
impl<V> State<V> {
    fn is_idle(&self) -> bool {
        matches!(self, Self::Live { leases: 0, .. })
    }
}

/// Whether callers find a live row, and which row has its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Indexed,
    /// Not found any more; it keeps its place until it is closed.
    Retired,
    /// Not found any more, and its successor has its place.
    Replaced,
}

#[derive(Debug)]
struct Failing {
    failures: u32,
    until: Instant,
}

impl<K: Eq + Hash + Clone, V, W> LruPool<K, V, W> {
    /// An empty pool. Allocates nothing yet.
    pub fn new(settings: PoolSettings) -> Self {
        Self {
            rows: Slots::with_limit(most_rows(settings.cap, settings.waiting)),
            index: Index::default(),
            places: Places::default(),
            idle: List::default(),
            queued: List::default(),
            waiters: Waiters::new(settings.waiting),
            failing: LruMap::new(settings.cap),
            occupied: 0,
            replaced: 0,
            closing: 0,
            closing_in_place: 0,
            open: true,
            actions: VecDeque::new(),
            counters: Counters::new(&settings.name, settings.cap),
            settings,
        }
    }

    /// A lease of a handle of `key`, if there is one that may be used. Counts nothing otherwise.
    pub fn hit(&mut self, key: &K) -> Option<Lease> {
        let mut slot = self.index.get(&self.rows, self.index.hash(key), key)?;
        loop {
            let (row_key, row) = self.rows.at(slot)?;
            let next = row.next;
            match self.lease(EntryKey(row_key)) {
                None => slot = next?,
                leased => return leased,
            }
        }
    }

    /// A further lease of the handle `entry`, if it is still indexed and may be used: for users other than callers, such as
    /// the calls that arrive on a connection. Counts nothing otherwise.
    pub fn lease(&mut self, entry: EntryKey) -> Option<Lease> {
        let row_key = entry.0;
        visits::count();
        let row = self.rows.get_mut(row_key)?;
        let State::Live { leases, standing: Standing::Indexed, .. } = &mut row.state else { return None };
        if *leases > 0 && self.settings.sharing == Sharing::Exclusive {
            return None;
        }
        *leases += 1;
        if *leases == 1 {
            self.idle.unlink(&mut self.places, row_key.index());
        }
        self.counters.count_by_owner(PoolEvent::Requested);
        self.counters.count_by_owner(PoolEvent::Hit);
        Some(Lease(entry))
    }

    /// Requests a lease of a handle of `key`. A handle is made if there is none that can be leased and the key may have one
    /// more: one for all callers that share it, one for each caller where handles are exclusive. The least recently used
    /// idle handle is closed if there is no place.
    pub fn request(&mut self, key: &K, when_full: WhenFull, waiter: W, now: Instant) -> Requested<W> {
        if let Some(lease) = self.hit(key) {
            return Requested::Leased(lease);
        }
        self.counters.count_by_owner(PoolEvent::Requested);
        match self.queue_up(key, when_full, waiter, now) {
            Ok(wait) => {
                self.assign_places();
                Requested::Waiting(wait)
            }
            Err((refusal, waiter)) => {
                self.count_refusal(&refusal);
                Requested::Refused(refusal, waiter)
            }
        }
    }

    fn queue_up(&mut self, key: &K, when_full: WhenFull, waiter: W, now: Instant) -> Result<WaitKey, (PoolRefusal, W)> {
        let hash = self.index.hash(key);
        let first = self.first_row(hash, key);
        let more = match self.decide(first, key, when_full, now) {
            Ok(more) => more,
            Err(refusal) => return Err((refusal, waiter)),
        };
        if more {
            self.queue_row(key.clone(), hash, Queue::default());
        }
        let first = first.or_else(|| self.first_row(hash, key));
        let Some((first, row)) = first.and_then(|first| Some((first, self.rows.get_mut(first)?))) else {
            return Err((self.at_capacity(), waiter));
        };
        let queued = self.waiters.push(&mut row.queue, first, waiter);
        queued.map(WaitKey).map_err(|waiter| (self.at_capacity(), waiter))
    }

    /// Whether a caller that finds no handle of `key` to lease may wait, and whether one more handle is to be made for it.
    fn decide(&self, first: Option<SlotKey>, key: &K, when_full: WhenFull, now: Instant) -> Result<bool, PoolRefusal> {
        if !self.open {
            return Err(PoolRefusal::Closed);
        }
        if self.waiters.is_full() {
            return Err(PoolRefusal::TooManyWaiting { cap: self.settings.waiting.get() });
        }
        let room = when_full == WhenFull::Wait || self.has_room();
        let Some(first) = first else {
            return match self.backing_off(key, now) {
                Some(refusal) => Err(refusal),
                None if room => Ok(true),
                None => Err(self.at_capacity()),
            };
        };
        let of_key = self.count_rows(first);
        if room && self.may_grow(&of_key) && self.backing_off(key, now).is_none() {
            return Ok(true);
        }
        if when_full == WhenFull::Wait || of_key.creating > 0 {
            return Ok(false);
        }
        Err(if of_key.queued > 0 { self.at_capacity() } else { PoolRefusal::Busy })
    }

    /// Adds a row that waits for a place, after the other rows of its key; the first of a key has `queue`.
    fn queue_row(&mut self, key: K, hash: u64, queue: Queue) -> SlotKey {
        let row = Row { key, hash, next: None, state: State::Queued, queue };
        // INVARIANT: each queued row has a waiter of its own, each other row has its own place or its successor's.
        let row_key = self.add_row(row);
        self.queued.push_back(&mut self.places, row_key.index());
        row_key
    }

    /// Takes back a caller that waits. `false` when it already has its result (a lease is then released as any other).
    pub fn cancel(&mut self, wait: WaitKey) -> bool {
        let Some(first) = self.waiters.row(wait.0) else { return false };
        let Some(row) = self.rows.get_mut(first) else { return false };
        self.waiters.remove(&mut row.queue, wait.0);
        let waiting = row.queue.len();
        self.counters.count_by_owner(PoolEvent::Cancelled);
        let of_key = self.count_rows(first);
        if of_key.queued + of_key.creating > waiting {
            // One handle too many is to be made: one that has not been begun, if there is one.
            if let Some(row_key) = self.last_row(first, |state| matches!(state, State::Queued)) {
                self.queued.unlink(&mut self.places, row_key.index());
                self.remove_row(row_key);
            } else if let Some(row_key) = self.last_row(first, |state| matches!(state, State::Creating)) {
                self.actions.push_back(PoolAction::Abandon { entry: EntryKey(row_key) });
            }
        }
        true
    }

    /// Whether the pool is closed and every handle with it.
    pub fn is_drained(&self) -> bool {
        !self.open && self.rows.is_empty() && self.closing == 0
    }

    /// What is to be done next. To be called after each operation until it returns `None`.
    pub fn next_action(&mut self) -> Option<PoolAction<K, V, W>> {
        self.actions.pop_front()
    }

    /// The handle of `entry`, if it is open.
    pub fn value(&self, entry: EntryKey) -> Option<&V> {
        match &self.rows.get(entry.0)?.state {
            State::Live { value, .. } => Some(value),
            _ => None,
        }
    }

    /// The handle of `entry`, if it is open, for its owner to change.
    pub fn value_mut(&mut self, entry: EntryKey) -> Option<&mut V> {
        match &mut self.rows.get_mut(entry.0)?.state {
            State::Live { value, .. } => Some(value),
            _ => None,
        }
    }

    /// The key of `entry`, while its handle is to be made, being made or open.
    pub fn key(&self, entry: EntryKey) -> Option<&K> {
        self.rows.get(entry.0).map(|row| &row.key)
    }

    /// The first open handle of `key`, without using it.
    pub fn find(&self, key: &K) -> Option<(EntryKey, &V)> {
        let first = self.first_row(self.index.hash(key), key)?;
        self.rows_of_key(first).find_map(|(row_key, row)| match &row.state {
            State::Live { value, .. } => Some((EntryKey(row_key), value)),
            _ => None,
        })
    }

    /// All open handles that can be found, with the number of their leases. O(rows).
    pub fn iter(&self) -> impl Iterator<Item = (EntryKey, &K, &V, u32)> {
        self.rows.iter().filter_map(|(row_key, row)| match &row.state {
            State::Live { value, leases, standing: Standing::Indexed, .. } => {
                Some((EntryKey(row_key), &row.key, value, *leases))
            }
            _ => None,
        })
    }

    /// Places taken: handles being made, open, or being closed.
    pub fn len(&self) -> usize {
        self.occupied + self.closing_in_place
    }

    /// Whether no place is taken.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Callers that wait.
    pub fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// The counters, to be shown by the owner of the pool.
    pub fn counters(&self) -> &Counters<PoolEvent> {
        &self.counters
    }

    /// The settings, with the cap in force.
    pub fn settings(&self) -> &PoolSettings {
        &self.settings
    }

    fn has_room(&self) -> bool {
        let cap = self.settings.cap.get();
        self.len() < cap || (self.len() == cap && !self.idle.is_empty())
    }

    fn backing_off(&self, key: &K, now: Instant) -> Option<PoolRefusal> {
        let retry_after = self.failing.peek(key)?.until.saturating_duration_since(now);
        (retry_after > Duration::ZERO).then_some(PoolRefusal::BackingOff { retry_after })
    }

    fn at_capacity(&self) -> PoolRefusal {
        PoolRefusal::AtCapacity { cap: self.settings.cap.get() }
    }

    fn count_refusal(&self, refusal: &PoolRefusal) {
        if let Some(event) = refusal.event() {
            self.counters.count_by_owner(event);
        }
    }
}

/// As many rows as there can be: those with a place, those whose successor has it, and those that wait for one.
fn most_rows(cap: Cap, waiting: Cap) -> u32 {
    cap.slots().saturating_mul(2).saturating_add(waiting.slots())
}

impl<K: Eq + Hash, V, W> Compact for LruPool<K, V, W> {
    fn footprint(&self) -> Footprint {
        let tables = self.rows.footprint().plus(self.index.footprint()).plus(self.places.footprint());
        let tables = tables.plus(self.failing.footprint());
        tables.plus(self.waiters.footprint()).plus(self.actions.footprint())
    }

    fn compact(&mut self, policy: &CompactPolicy) -> Compacted {
        let tables = Compact::compact(&mut self.rows, policy).plus(self.index.compact(&self.rows, policy));
        let tables = tables.plus(self.places.compact(self.rows.span(), policy));
        let tables = tables.plus(self.failing.compact(policy)).plus(self.waiters.compact(policy));
        tables.plus(self.actions.compact(policy))
    }
}

//! The decisions of a pool: its rows, and how callers come to a lease.

mod ending;
mod index;
#[cfg(test)]
mod laws;
mod making;

use std::collections::VecDeque;
use std::hash::Hash;
use std::time::{Duration, Instant};

use plimsoll_sync::slots::{SlotKey, Slots};

use self::index::Index;
use super::actions::{EntryKey, Lease, PoolAction, PoolEvent, PoolRefusal, WaitKey};
use super::settings::{PoolSettings, Sharing};
use super::waiting::{Queue, Waiting};
use crate::bounded::list::{List, Places, visits};
use crate::bounded::lru_map::LruMap;
use crate::bounded::{Cap, Compact, CompactPolicy, Compacted, Counters, Footprint};

/// At most [`PoolSettings::cap`] open handles, one for each key. See the [module](super) for how it works.
///
/// `K` names a handle (a peer's identity), `V` is the handle, `W` stands for a caller that waits and comes back in a
/// [`PoolAction`]. Every operation is O(1), but for those that say otherwise.
///
/// ```
/// use std::time::Instant;
/// use plimsoll::bounded::pool::{Requested, LruPool, PoolAction, PoolSettings, WhenFull};
///
/// let now = Instant::now();
/// let mut pool = LruPool::new(PoolSettings::default());
/// assert!(matches!(pool.request(&"peer", WhenFull::Refuse, "me", now), Requested::Waiting(_)));
/// // The owner works off what is to be done: here it makes the handle, which is the number 7.
/// let Some(PoolAction::Create { creation, key: "peer", evicted: None }) = pool.next_action() else { panic!() };
/// pool.created(creation, 7, now).unwrap();
/// let Some(PoolAction::Grant { waiter: "me", lease }) = pool.next_action() else { panic!() };
/// assert_eq!(pool.value(lease.entry()), Some(&7));
/// pool.release(lease, now);
/// let lease = pool.hit(&"peer").expect("it is there now");
/// pool.release(lease, now);
/// ```
#[derive(Debug)]
pub struct LruPool<K, V, W = ()> {
    settings: PoolSettings,
    rows: Slots<Row<K, V>>,
    /// Rows that a caller can find: not those retired.
    index: Index,
    /// The links of `idle` and `wanted`: a row is in one of them or in neither.
    places: Places,
    /// Live rows without a lease; the one used longest ago is first.
    idle: List<0>,
    /// Rows that wait for a place. There is none while there is a free place or an idle row.
    wanted: List<0>,
    waiting: Waiting<W>,
    failing: LruMap<K, Failing>,
    /// Rows that have a place: being created, or live and not replaced.
    occupied: usize,
    /// Leased rows whose place went to a later handle of their key; never more than the cap.
    replaced: usize,
    /// Handles being closed, and those of them whose place is not free before they are.
    closing: usize,
    holding: usize,
    open: bool,
    actions: VecDeque<PoolAction<K, V, W>>,
    counters: Counters<PoolEvent>,
}

/// What a caller wants when it cannot be served from the room that there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// An answer at once.
    Refuse,
    /// To wait; when it does not want to any more it calls [`LruPool::cancel`].
    Wait,
}

/// What a caller that asked for a lease gets.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "it may hold a lease"]
pub enum Requested<W> {
    /// The lease: the handle was there.
    Leased(Lease),
    /// The answer comes as [`PoolAction::Grant`] or [`PoolAction::Refuse`], or out of [`LruPool::failed`].
    Waiting(WaitKey),
    /// No lease; the waiter comes back.
    Refused(PoolRefusal, W),
}

#[derive(Debug)]
struct Row<K, V> {
    key: K,
    /// Of the key, by the index's seed.
    hash: u64,
    state: State<V>,
    queue: Queue,
}

#[derive(Debug)]
enum State<V> {
    Wanted,
    Creating,
    Live { value: V, leases: u32, used_at: Instant, standing: Standing },
}

/// Whether callers find a live row, and whose its place is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Found,
    /// Not found any more; it keeps its place until it is closed.
    Retired,
    /// Not found any more, and its place is its successor's.
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
            wanted: List::default(),
            waiting: Waiting::new(settings.waiting),
            failing: LruMap::new(settings.cap),
            occupied: 0,
            replaced: 0,
            closing: 0,
            holding: 0,
            open: true,
            actions: VecDeque::new(),
            counters: Counters::new(&settings.name, settings.cap),
            settings,
        }
    }

    /// A lease of the handle of `key`, if it is there and may be used. Nothing is counted when not.
    pub fn hit(&mut self, key: &K) -> Option<Lease> {
        let slot = self.index.get(&self.rows, self.index.hash(key), key)?;
        let (row_key, _) = self.rows.at(slot)?;
        self.lease(EntryKey(row_key))
    }

    /// A further lease of the handle `entry`, if it can still be found and may be used: for its other users than callers,
    /// for instance the calls that come in on a connection. Nothing is counted when not.
    pub fn lease(&mut self, entry: EntryKey) -> Option<Lease> {
        let row_key = entry.0;
        visits::count();
        let row = self.rows.get_mut(row_key)?;
        let State::Live { leases, standing: Standing::Found, .. } = &mut row.state else { return None };
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

    /// Asks for a lease of the handle of `key`. The handle is made if there is none, once for all that ask for it
    /// meanwhile, and the idle handle used longest ago is closed if there is no place.
    pub fn request(&mut self, key: &K, when_full: WhenFull, waiter: W, now: Instant) -> Requested<W> {
        if let Some(lease) = self.hit(key) {
            return Requested::Leased(lease);
        }
        self.counters.count_by_owner(PoolEvent::Requested);
        match self.queue_up(key, when_full, waiter, now) {
            Ok(wait) => {
                self.serve();
                Requested::Waiting(wait)
            }
            Err((refusal, waiter)) => {
                self.count_refusal(&refusal);
                Requested::Refused(refusal, waiter)
            }
        }
    }

    fn queue_up(&mut self, key: &K, when_full: WhenFull, waiter: W, now: Instant) -> Result<WaitKey, (PoolRefusal, W)> {
        let (refuse, hash) = (when_full == WhenFull::Refuse, self.index.hash(key));
        let refusal = if !self.open {
            Some(PoolRefusal::Closed)
        } else if self.waiting.is_full() {
            Some(PoolRefusal::TooManyWaiting { cap: self.settings.waiting.get() })
        } else {
            match self.row_of(hash, key).map(|(_, row)| &row.state) {
                Some(State::Creating) => None,
                Some(State::Live { .. }) => refuse.then_some(PoolRefusal::Busy),
                Some(State::Wanted) => refuse.then_some(self.at_capacity()),
                None => match self.backing_off(key, now) {
                    None if refuse && !self.has_room() => Some(self.at_capacity()),
                    backing_off => backing_off,
                },
            }
        };
        if let Some(refusal) = refusal {
            return Err((refusal, waiter));
        }
        let row_key = match self.row_of(hash, key) {
            Some((row_key, _)) => row_key,
            None => self.want(key.clone(), hash, Queue::default()),
        };
        let Some(row) = self.rows.get_mut(row_key) else { return Err((self.at_capacity(), waiter)) };
        let queued = self.waiting.push(&mut row.queue, row_key, waiter);
        queued.map(WaitKey).map_err(|waiter| (self.at_capacity(), waiter))
    }

    /// A row that waits for a place, with those that wait for it.
    fn want(&mut self, key: K, hash: u64, queue: Queue) -> SlotKey {
        let row = Row { key, hash, state: State::Wanted, queue };
        // INVARIANT: each wanted row has a waiter of its own and each other row a place, its own or its successor's, so there
        // is a slot for it.
        let Ok(row_key) = self.rows.insert(row) else { unreachable!("rows are bounded by places and waiters") };
        self.index.insert(&self.rows, row_key.index());
        self.places.make(row_key.index());
        self.wanted.push_back(&mut self.places, row_key.index());
        row_key
    }

    /// The row that callers for `key`, which has this hash, find.
    fn row_of(&self, hash: u64, key: &K) -> Option<(SlotKey, &Row<K, V>)> {
        self.rows.at(self.index.get(&self.rows, hash, key)?)
    }

    /// Takes back a caller that waits; `false` when it has its answer already (then the lease, if it is one, is to be
    /// given back as any other).
    pub fn cancel(&mut self, wait: WaitKey) -> bool {
        let Some(row_key) = self.waiting.row(wait.0) else { return false };
        let Some(row) = self.rows.get_mut(row_key) else { return false };
        self.waiting.take(&mut row.queue, wait.0);
        self.counters.count_by_owner(PoolEvent::Forgotten);
        if row.queue.is_empty() {
            match row.state {
                State::Wanted => {
                    self.wanted.unlink(&mut self.places, row_key.index());
                    self.remove_row(row_key);
                }
                State::Creating => self.actions.push_back(PoolAction::Abandon { entry: EntryKey(row_key) }),
                State::Live { .. } => {}
            }
        }
        true
    }

    /// Whether the pool is closed and every handle with it.
    pub fn is_drained(&self) -> bool {
        !self.open && self.rows.is_empty() && self.closing == 0
    }

    /// What is to be done next. To be called after each operation until there is nothing.
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

    /// The key of `entry`, if its handle is wanted, being made or open.
    pub fn key(&self, entry: EntryKey) -> Option<&K> {
        self.rows.get(entry.0).map(|row| &row.key)
    }

    /// The handle of `key`, if there is one to be found, without using it.
    pub fn find(&self, key: &K) -> Option<(EntryKey, &V)> {
        let (row_key, row) = self.row_of(self.index.hash(key), key)?;
        match &row.state {
            State::Live { value, .. } => Some((EntryKey(row_key), value)),
            _ => None,
        }
    }

    /// All open handles that can be found, with the number of their leases. O(rows).
    pub fn iter(&self) -> impl Iterator<Item = (EntryKey, &K, &V, u32)> {
        self.rows.iter().filter_map(|(row_key, row)| match &row.state {
            State::Live { value, leases, standing: Standing::Found, .. } => {
                Some((EntryKey(row_key), &row.key, value, *leases))
            }
            _ => None,
        })
    }

    /// Places taken: handles being made, open, or on their way to be closed.
    pub fn len(&self) -> usize {
        self.occupied + self.holding
    }

    /// Whether no place is taken.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Callers that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The counters, to be shown wherever the pool belongs.
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
        tables.plus(self.waiting.footprint()).plus(self.actions.footprint())
    }

    fn compact(&mut self, policy: &CompactPolicy) -> Compacted {
        let tables = Compact::compact(&mut self.rows, policy).plus(self.index.compact(&self.rows, policy));
        let tables = tables.plus(self.places.compact(self.rows.span(), policy));
        let tables = tables.plus(self.failing.compact(policy)).plus(self.waiting.compact(policy));
        tables.plus(self.actions.compact(policy))
    }
}

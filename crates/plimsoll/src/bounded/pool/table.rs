//! The decisions of a pool.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

use plimsoll_sync::slots::{SlotKey, Slots};

use super::actions::{Closing, Creation, EntryKey, Lease, Outcome, PoolAction, PoolEvent, PoolRefusal, WaitKey};
use super::settings::{PoolSettings, Sharing};
use super::waiting::{Queue, Waiting};
use crate::bounded::list::{Links, List, linked, visits};
use crate::bounded::recent::Recent;
use crate::bounded::{Cap, Compact, CompactPolicy, Compacted, Counters, Footprint};

/// At most [`PoolSettings::cap`] open handles, one for each key. See the [module](super) for how it works.
///
/// `K` names a handle (a peer's identity), `V` is the handle, `W` stands for a caller that waits and comes back in a
/// [`PoolAction`]. Every operation is O(1), but for those that say otherwise.
///
/// ```
/// use std::time::Instant;
/// use plimsoll::bounded::pool::{Asked, LruPool, PoolAction, PoolSettings, WhenFull};
///
/// let now = Instant::now();
/// let mut pool = LruPool::new(PoolSettings::default());
/// assert!(matches!(pool.ask(&"peer", WhenFull::Refuse, "me", now), Asked::Waits(_)));
/// // The owner works off what is to be done: here it makes the handle, which is the number 7.
/// let Some(PoolAction::Create { creation, key: "peer", evicted: None }) = pool.next_action() else { panic!() };
/// pool.created(creation, 7, now).unwrap();
/// let Some(PoolAction::Grant { waiter: "me", lease }) = pool.next_action() else { panic!() };
/// assert_eq!(pool.value(lease.entry()), Some(&7));
/// pool.give_back(lease, now);
/// let lease = pool.hit(&"peer").expect("it is there now");
/// pool.give_back(lease, now);
/// ```
#[derive(Debug)]
pub struct LruPool<K, V, W = ()> {
    settings: PoolSettings,
    rows: Slots<Row<K, V>>,
    /// Rows that a caller can find: not those retired.
    index: HashMap<K, SlotKey>,
    /// Live rows without a lease; the one used longest ago is first.
    idle: List<0>,
    /// Rows that wait for a place. There is none while there is a free place or an idle row.
    wanted: List<0>,
    waiting: Waiting<W>,
    failing: Recent<K, Failing>,
    /// Rows that have a place: being created or live.
    occupied: usize,
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
    /// To wait; when it does not want to any more it calls [`LruPool::forget`].
    Wait,
}

/// What a caller that asked for a lease gets.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "it may hold a lease"]
pub enum Asked<W> {
    /// The lease: the handle was there.
    Leased(Lease),
    /// The answer comes as [`PoolAction::Grant`] or [`PoolAction::Refuse`], or out of [`LruPool::failed`].
    Waits(WaitKey),
    /// No lease; the waiter comes back.
    Refused(PoolRefusal, W),
}

#[derive(Debug)]
struct Row<K, V> {
    key: K,
    state: State<V>,
    queue: Queue,
    /// In `idle` or in `wanted`, never in both.
    links: Links,
}

linked!([K, V] Row<K, V>, 0, links);

#[derive(Debug)]
enum State<V> {
    Wanted,
    Creating,
    Live { value: V, leases: u32, used_at: Instant, retired: bool },
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
            rows: Slots::with_limit(settings.cap.slots() + settings.waiting.slots()),
            index: HashMap::new(),
            idle: List::default(),
            wanted: List::default(),
            waiting: Waiting::new(settings.waiting),
            failing: Recent::new(settings.cap),
            occupied: 0,
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
        visits::count();
        let row_key = *self.index.get(key)?;
        visits::count();
        let row = self.rows.get_mut(row_key)?;
        let State::Live { leases, .. } = &mut row.state else { return None };
        if *leases > 0 && self.settings.sharing == Sharing::Exclusive {
            return None;
        }
        *leases += 1;
        if *leases == 1 {
            self.idle.unlink(&mut self.rows, row_key.index());
        }
        self.counters.tally(PoolEvent::Asked);
        self.counters.tally(PoolEvent::Hit);
        Some(Lease(EntryKey(row_key)))
    }

    /// Asks for a lease of the handle of `key`. The handle is made if there is none, once for all that ask for it
    /// meanwhile, and the idle handle used longest ago is closed if there is no place.
    pub fn ask(&mut self, key: &K, when_full: WhenFull, waiter: W, now: Instant) -> Asked<W> {
        if let Some(lease) = self.hit(key) {
            return Asked::Leased(lease);
        }
        self.counters.tally(PoolEvent::Asked);
        match self.queue_up(key, when_full, waiter, now) {
            Ok(wait) => {
                self.serve();
                Asked::Waits(wait)
            }
            Err((refusal, waiter)) => {
                self.count_refusal(&refusal);
                Asked::Refused(refusal, waiter)
            }
        }
    }

    fn queue_up(&mut self, key: &K, when_full: WhenFull, waiter: W, now: Instant) -> Result<WaitKey, (PoolRefusal, W)> {
        let refuse = when_full == WhenFull::Refuse;
        let refusal = if !self.open {
            Some(PoolRefusal::Closed)
        } else if self.waiting.is_full() {
            Some(PoolRefusal::TooManyWaiting { cap: self.settings.waiting.get() })
        } else {
            match self.index.get(key).and_then(|row| self.rows.get(*row)).map(|row| &row.state) {
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
        let row_key = match self.index.get(key) {
            Some(row_key) => *row_key,
            None => self.want(key.clone(), Queue::default()),
        };
        let Some(row) = self.rows.get_mut(row_key) else { return Err((self.at_capacity(), waiter)) };
        let queued = self.waiting.push(&mut row.queue, row_key, waiter);
        queued.map(WaitKey).map_err(|waiter| (self.at_capacity(), waiter))
    }

    /// A row that waits for a place, with those that wait for it.
    fn want(&mut self, key: K, queue: Queue) -> SlotKey {
        let row = Row { key: key.clone(), state: State::Wanted, queue, links: Links::default() };
        // INVARIANT: each wanted row has a waiter of its own and each other row a place, so there is a slot for it.
        let Ok(row_key) = self.rows.insert(row) else { unreachable!("rows are bounded by places and waiters") };
        self.index.insert(key, row_key);
        self.wanted.push_back(&mut self.rows, row_key.index());
        row_key
    }

    /// Takes back a caller that waits; `false` when it has its answer already (then the lease, if it is one, is to be
    /// given back as any other).
    pub fn forget(&mut self, wait: WaitKey) -> bool {
        let Some(row_key) = self.waiting.row(wait.0) else { return false };
        let Some(row) = self.rows.get_mut(row_key) else { return false };
        self.waiting.take(&mut row.queue, wait.0);
        self.counters.tally(PoolEvent::Forgotten);
        if row.queue.is_empty() {
            match row.state {
                State::Wanted => {
                    self.wanted.unlink(&mut self.rows, row_key.index());
                    self.remove_row(row_key);
                }
                State::Creating => self.actions.push_back(PoolAction::Abandon { entry: EntryKey(row_key) }),
                State::Live { .. } => {}
            }
        }
        true
    }

    /// A handle was made. Those that waited for it get their leases; without any it stays as an idle one.
    ///
    /// # Errors
    /// The handle and the duty to close it, when there is one for its key already or the pool is closed.
    pub fn created(&mut self, creation: Creation, value: V, now: Instant) -> Result<(), (Closing, V)> {
        let Creation(EntryKey(row_key)) = creation;
        self.counters.tally(PoolEvent::Opened);
        match self.rows.get(row_key) {
            Some(row) if self.open && matches!(row.state, State::Creating) => {
                self.settle(row_key, value, now);
                Ok(())
            }
            _ => {
                self.end_creation(row_key);
                self.counters.tally(PoolEvent::Surplus);
                self.closing += 1;
                Err((Closing { holds_place: false }, value))
            }
        }
    }

    /// A handle could not be made. Those that waited for it come back, to be told why. O(those that waited).
    pub fn failed(&mut self, creation: Creation, now: Instant) -> Vec<W> {
        let Creation(EntryKey(row_key)) = creation;
        self.counters.tally(PoolEvent::CreateFailed);
        let mut told = Vec::new();
        if let Some(row) = self.rows.get_mut(row_key)
            && matches!(row.state, State::Creating)
        {
            let (failing, _) = self.failing.entry(&row.key, || Failing { failures: 0, until: now });
            failing.failures = failing.failures.saturating_add(1);
            failing.until = now + self.settings.retry_after(failing.failures);
            while let Some(waiter) = self.waiting.pop(&mut row.queue) {
                self.counters.tally(PoolEvent::ToldFailed);
                told.push(waiter);
            }
        }
        self.end_creation(row_key);
        told
    }

    /// A creation ended early after [`PoolAction::Abandon`]. It begins again if somebody has come to wait meanwhile.
    pub fn gave_up(&mut self, creation: Creation) {
        let Creation(EntryKey(row_key)) = creation;
        self.counters.tally(PoolEvent::GaveUp);
        match self.rows.get(row_key) {
            Some(row) if matches!(row.state, State::Creating) && !row.queue.is_empty() => {
                let create = PoolAction::Create { creation, key: row.key.clone(), evicted: None };
                self.actions.push_back(create);
            }
            _ => self.end_creation(row_key),
        }
    }

    /// Frees the place of a creation that made no entry.
    fn end_creation(&mut self, row_key: SlotKey) {
        if self.rows.get(row_key).is_some_and(|row| matches!(row.state, State::Creating)) {
            self.remove_row(row_key);
            self.occupied -= 1;
            self.serve();
        }
    }

    /// Puts in a handle that came to be elsewhere, for instance by the other side's connecting.
    ///
    /// A creation under way for its key is abandoned and those that wait for it get this one. The handle used longest ago
    /// is closed if there is no place; until it is, there is one more open than the cap.
    ///
    /// # Errors
    /// [`PoolRefusal`] with the handle: the key has one, everything is leased, or the pool is closed.
    pub fn insert(&mut self, key: K, value: V, now: Instant) -> Result<EntryKey, (PoolRefusal, V)> {
        if !self.open {
            return Err((PoolRefusal::Closed, value));
        }
        let row_key = match self.index.get(&key) {
            Some(row_key) => match self.rows.get(*row_key).map(|row| &row.state) {
                Some(State::Creating) => {
                    self.actions.push_back(PoolAction::Abandon { entry: EntryKey(*row_key) });
                    *row_key
                }
                Some(State::Live { .. }) => return Err((PoolRefusal::Occupied, value)),
                Some(State::Wanted) | None => return Err((self.at_capacity(), value)),
            },
            None => {
                if !self.has_room() {
                    return Err((self.at_capacity(), value));
                }
                if self.len() == self.settings.cap.get()
                    && let Some((closing, key, value)) = self.evict()
                {
                    self.actions.push_back(PoolAction::Close { closing, key, value });
                }
                self.occupied += 1;
                let row =
                    Row { key: key.clone(), state: State::Creating, queue: Queue::default(), links: Links::default() };
                let Ok(row_key) = self.rows.insert(row) else { unreachable!("there is a place, so there is a slot") };
                self.index.insert(key, row_key);
                row_key
            }
        };
        self.counters.tally(PoolEvent::Opened);
        self.settle(row_key, value, now);
        Ok(EntryKey(row_key))
    }

    /// A row being created gets its handle: those that wait get their leases, or it becomes idle.
    fn settle(&mut self, row_key: SlotKey, value: V, now: Instant) {
        let Some(row) = self.rows.get_mut(row_key) else { return };
        self.failing.remove(&row.key);
        let mut granted = 0;
        while granted == 0 || self.settings.sharing == Sharing::Shared {
            let Some(waiter) = self.waiting.pop(&mut row.queue) else { break };
            granted += 1;
            self.counters.tally(PoolEvent::Granted);
            self.actions.push_back(PoolAction::Grant { waiter, lease: Lease(EntryKey(row_key)) });
        }
        row.state = State::Live { value, leases: granted, used_at: now, retired: false };
        if granted == 0 {
            self.idle.push_back(&mut self.rows, row_key.index());
        }
        self.serve();
    }

    /// Ends a use. The next caller that waits for this handle gets it; otherwise it is the one used last from now on.
    pub fn give_back(&mut self, lease: Lease, now: Instant) {
        let Lease(EntryKey(row_key)) = lease;
        visits::count();
        let Some(row) = self.rows.get_mut(row_key) else { return };
        let State::Live { leases, used_at, retired, .. } = &mut row.state else { return };
        *leases -= 1;
        if *leases > 0 {
            return;
        }
        *used_at = now;
        if *retired {
            self.close_row(row_key);
        } else if let Some(waiter) = self.waiting.pop(&mut row.queue) {
            *leases = 1;
            self.counters.tally(PoolEvent::Granted);
            self.actions.push_back(PoolAction::Grant { waiter, lease: Lease(EntryKey(row_key)) });
        } else {
            self.idle.push_back(&mut self.rows, row_key.index());
            self.serve();
        }
    }

    /// Ends a use whose handle turned out to be broken: nobody new gets it, and it is closed after its last lease.
    pub fn discard(&mut self, lease: Lease, now: Instant) {
        self.retire(lease.entry());
        self.give_back(lease, now);
    }

    /// Takes a handle out, for instance because its connection ended: nobody new finds it, and it is closed after its last
    /// lease. `false` when it is gone already; a later handle of the same key is never meant.
    pub fn retire(&mut self, entry: EntryKey) -> bool {
        let row_key = entry.0;
        let Some(row) = self.rows.get_mut(row_key) else { return false };
        let State::Live { leases, retired: retired @ false, .. } = &mut row.state else { return false };
        *retired = true;
        let leases = *leases;
        let queue = std::mem::take(&mut row.queue);
        let key = row.key.clone();
        self.counters.tally(PoolEvent::Retired);
        self.index.remove(&key);
        if leases == 0 {
            self.idle.unlink(&mut self.rows, row_key.index());
            self.close_row(row_key);
        }
        if !queue.is_empty() {
            let wanted = self.want(key, Queue::default());
            self.waiting.redirect(&queue, wanted);
            if let Some(row) = self.rows.get_mut(wanted) {
                row.queue = queue;
            }
            self.serve();
        }
        true
    }

    /// A handle is closed.
    pub fn closed(&mut self, closing: Closing, outcome: Outcome) {
        self.counters.tally(PoolEvent::Closed);
        match outcome {
            Outcome::Closed => {}
            Outcome::Failed => self.counters.tally(PoolEvent::CloseFailed),
            Outcome::TimedOut => self.counters.tally(PoolEvent::CloseTimedOut),
        }
        self.closing -= 1;
        if closing.holds_place {
            self.holding -= 1;
        }
        self.serve();
    }

    /// Closes what nobody has used for [`PoolSettings::idle_time`]. O(those).
    pub fn expire(&mut self, now: Instant) {
        while self.next_expiry().is_some_and(|due| due <= now) {
            let Some(index) = self.idle.pop_front(&mut self.rows) else { break };
            let Some(row_key) = self.rows.at(index).map(|(row_key, _)| row_key) else { break };
            self.counters.tally(PoolEvent::IdleClosed);
            self.close_row(row_key);
        }
    }

    /// When [`LruPool::expire`] has something to do next, if nothing happens until then.
    pub fn next_expiry(&self) -> Option<Instant> {
        match self.rows.at(self.idle.front()?)?.1.state {
            State::Live { used_at, .. } => Some(used_at + self.settings.idle_time),
            _ => None,
        }
    }

    /// Changes the cap. Idle handles over a lowered one are closed now, leased ones after their last lease; nothing new is
    /// made meanwhile.
    pub fn set_cap(&mut self, cap: Cap) {
        self.settings.cap = cap;
        self.rows.set_limit(self.rows.limit().max(cap.slots() + self.settings.waiting.slots()));
        self.counters.entries().set_cap(cap.get() as u64);
        self.serve();
    }

    /// Closes the pool: those that wait are refused, idle handles are closed now and leased ones after their last lease.
    /// O(rows). It is at its end when [`LruPool::is_drained`].
    pub fn close(&mut self) {
        self.open = false;
        let mut keys: Vec<SlotKey> = self.rows.iter().map(|(key, _)| key).collect();
        keys.sort_unstable();
        for row_key in keys {
            let Some(row) = self.rows.get_mut(row_key) else { continue };
            while let Some(waiter) = self.waiting.pop(&mut row.queue) {
                self.counters.tally(PoolEvent::RefusedClosed);
                self.actions.push_back(PoolAction::Refuse { waiter, refusal: PoolRefusal::Closed });
            }
            match row.state {
                State::Wanted => {
                    self.wanted.unlink(&mut self.rows, row_key.index());
                    self.remove_row(row_key);
                }
                State::Creating => self.actions.push_back(PoolAction::Abandon { entry: EntryKey(row_key) }),
                State::Live { .. } => {
                    self.retire(EntryKey(row_key));
                }
            }
        }
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

    /// The handle of `key`, if there is one to be found, without using it.
    pub fn find(&self, key: &K) -> Option<(EntryKey, &V)> {
        let row_key = *self.index.get(key)?;
        self.value(EntryKey(row_key)).map(|value| (EntryKey(row_key), value))
    }

    /// All open handles that can be found, with the number of their leases. O(rows).
    pub fn iter(&self) -> impl Iterator<Item = (EntryKey, &K, &V, u32)> {
        self.rows.iter().filter_map(|(row_key, row)| match &row.state {
            State::Live { value, leases, retired: false, .. } => Some((EntryKey(row_key), &row.key, value, *leases)),
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

    /// Gives places to the rows that wait for one, first come first served.
    fn serve(&mut self) {
        let cap = self.settings.cap.get();
        while self.occupied > cap && self.close_oldest() {}
        while let Some(index) = self.wanted.front() {
            let evicted = match self.len().cmp(&cap) {
                std::cmp::Ordering::Less => None,
                std::cmp::Ordering::Equal if !self.idle.is_empty() => self.evict(),
                _ => break,
            };
            self.wanted.unlink(&mut self.rows, index);
            self.occupied += 1;
            let Some((row_key, row)) = self.rows.at_mut(index) else { break };
            row.state = State::Creating;
            let (creation, key) = (Creation(EntryKey(row_key)), row.key.clone());
            self.actions.push_back(PoolAction::Create { creation, key, evicted });
        }
        self.counters.entries().set(self.len() as u64);
    }

    /// Takes out the idle row used longest ago; its place is free for whatever it makes room for.
    fn evict(&mut self) -> Option<(Closing, K, V)> {
        let index = self.idle.pop_front(&mut self.rows)?;
        let row_key = self.rows.at(index)?.0;
        let row = self.remove_row(row_key)?;
        let State::Live { value, .. } = row.state else { return None };
        self.counters.tally(PoolEvent::Evicted);
        self.occupied -= 1;
        self.closing += 1;
        Some((Closing { holds_place: false }, row.key, value))
    }

    /// Closes the idle row used longest ago, for good.
    fn close_oldest(&mut self) -> bool {
        let Some((_, key, value)) = self.evict() else { return false };
        self.holding += 1;
        self.actions.push_back(PoolAction::Close { closing: Closing { holds_place: true }, key, value });
        true
    }

    /// Closes a live row that is in no list. Its place stays taken until that is done.
    fn close_row(&mut self, row_key: SlotKey) {
        let Some(row) = self.remove_row(row_key) else { return };
        let State::Live { value, .. } = row.state else { return };
        self.occupied -= 1;
        self.closing += 1;
        self.holding += 1;
        self.actions.push_back(PoolAction::Close { closing: Closing { holds_place: true }, key: row.key, value });
    }

    /// Takes a row out of the table and of the index, which a retired one has left before.
    fn remove_row(&mut self, row_key: SlotKey) -> Option<Row<K, V>> {
        visits::count();
        let row = self.rows.remove(row_key)?;
        if !matches!(row.state, State::Live { retired: true, .. }) {
            self.index.remove(&row.key);
        }
        Some(row)
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
            self.counters.tally(event);
        }
    }
}

impl<K: Eq + Hash, V, W> Compact for LruPool<K, V, W> {
    fn footprint(&self) -> Footprint {
        let tables = self.rows.footprint().plus(self.index.footprint()).plus(self.failing.footprint());
        tables.plus(self.waiting.footprint()).plus(self.actions.footprint())
    }

    fn compact(&mut self, policy: &CompactPolicy) -> Compacted {
        let tables = Compact::compact(&mut self.rows, policy).plus(self.index.compact(policy));
        let tables = tables.plus(self.failing.compact(policy)).plus(self.waiting.compact(policy));
        tables.plus(self.actions.compact(policy))
    }
}

#[cfg(test)]
impl<K: Eq + Hash + Clone + std::fmt::Debug, V, W> LruPool<K, V, W> {
    /// Index = rows, lists = rows in the state they stand for, places = rows that have one; nobody waits for a place while
    /// there is one.
    pub(super) fn check_law(&self) {
        let is = |wanted: fn(&State<V>) -> bool| self.rows.iter().filter(|(_, row)| wanted(&row.state)).count();
        let found = is(|state| !matches!(state, State::Live { retired: true, .. }));
        assert_eq!(self.index.len(), found);
        for (key, row_key) in &self.index {
            assert_eq!(self.rows.get(*row_key).map(|row| &row.key), Some(key));
        }
        assert_eq!(self.idle.len(), is(|state| matches!(state, State::Live { leases: 0, .. })));
        assert_eq!(self.idle.iter(&self.rows).count(), self.idle.len());
        assert_eq!(self.wanted.len(), is(|state| matches!(state, State::Wanted)));
        assert_eq!(self.wanted.iter(&self.rows).count(), self.wanted.len());
        assert_eq!(self.occupied, self.rows.len() - self.wanted.len());
        let queued: usize = self.rows.iter().map(|(_, row)| row.queue.len()).sum();
        assert_eq!(queued, self.waiting.len());
        assert!(self.rows.iter().all(|(_, row)| !matches!(row.state, State::Wanted) || !row.queue.is_empty()));
        assert!(self.wanted.is_empty() || !self.has_room());
        assert!(self.failing.len() <= self.failing_cap());
    }

    /// Each lease that was asked for is granted, refused, told of a failure, forgotten, or still waits; each handle that
    /// was opened is open or closed.
    pub(super) fn check_counters(&self, leased: usize) {
        let counted = |event| self.counters.counted(event);
        let ended = counted(PoolEvent::Hit)
            + counted(PoolEvent::Granted)
            + counted(PoolEvent::ToldFailed)
            + counted(PoolEvent::Forgotten)
            + self.counters.refused();
        assert_eq!(counted(PoolEvent::Asked), ended + self.waiting.len() as u64);
        let leases: u32 = self.rows.iter().map(|(_, row)| row.leases()).sum();
        assert_eq!(leases as usize, leased, "leases = users");
        let live = self.rows.iter().filter(|(_, row)| matches!(row.state, State::Live { .. })).count();
        assert_eq!(counted(PoolEvent::Opened), (live + self.closing) as u64 + counted(PoolEvent::Closed));
        assert_eq!(self.counters.entries().level().used, self.len() as u64);
    }

    fn failing_cap(&self) -> usize {
        self.rows.limit() as usize
    }
}

#[cfg(test)]
impl<K, V> Row<K, V> {
    fn leases(&self) -> u32 {
        match &self.state {
            State::Live { leases, .. } => *leases,
            _ => 0,
        }
    }
}

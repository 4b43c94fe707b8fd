//! How a handle comes into the pool: made for those that ask, or put in from elsewhere.

use std::hash::Hash;
use std::time::Instant;

use plimsoll_sync::slots::SlotKey;

use super::{Failing, LruPool, Row, Standing, State};
use crate::bounded::pool::actions::{Closing, Creation, EntryKey, Lease, PoolAction, PoolEvent, PoolRefusal};
use crate::bounded::pool::settings::Sharing;
use crate::bounded::pool::waiting::Queue;
use crate::bounded::time::after;

impl<K: Eq + Hash + Clone, V, W> LruPool<K, V, W> {
    /// A handle was made. Those that waited for it get their leases; without any it stays as an idle one.
    ///
    /// # Errors
    /// The handle and the duty to close it, when there is one for its key already or the pool is closed.
    pub fn created(&mut self, creation: Creation, value: V, now: Instant) -> Result<(), (Closing, V)> {
        let Creation(EntryKey(row_key)) = creation;
        self.counters.count_by_owner(PoolEvent::Opened);
        match self.rows.get(row_key) {
            Some(row) if self.open && matches!(row.state, State::Creating) => {
                self.settle(row_key, value, now);
                Ok(())
            }
            _ => {
                self.end_creation(row_key);
                self.counters.count_by_owner(PoolEvent::Surplus);
                self.closing += 1;
                Err((Closing { holds_place: false }, value))
            }
        }
    }

    /// A handle could not be made. Those that waited for it come back, to be told why. O(those that waited).
    pub fn failed(&mut self, creation: Creation, now: Instant) -> Vec<W> {
        let Creation(EntryKey(row_key)) = creation;
        self.counters.count_by_owner(PoolEvent::CreateFailed);
        let mut told = Vec::new();
        if let Some(row) = self.rows.get_mut(row_key)
            && matches!(row.state, State::Creating)
        {
            let (failing, _) = self.failing.entry(&row.key, || Failing { failures: 0, until: now });
            failing.failures = failing.failures.saturating_add(1);
            failing.until = after(now, self.settings.retry_after(failing.failures));
            while let Some(waiter) = self.waiting.pop(&mut row.queue) {
                self.counters.count_by_owner(PoolEvent::ToldFailed);
                told.push(waiter);
            }
        }
        self.end_creation(row_key);
        told
    }

    /// A creation ended early after [`PoolAction::Abandon`]. It begins again if somebody has come to wait meanwhile.
    pub fn creation_abandoned(&mut self, creation: Creation) {
        let Creation(EntryKey(row_key)) = creation;
        self.counters.count_by_owner(PoolEvent::GaveUp);
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
        let hash = self.index.hash(&key);
        let row_key = match self.row_of(hash, &key).map(|(row_key, row)| (row_key, &row.state)) {
            Some((row_key, State::Creating)) => {
                self.actions.push_back(PoolAction::Abandon { entry: EntryKey(row_key) });
                row_key
            }
            Some((_, State::Live { .. })) => return Err((PoolRefusal::Occupied, value)),
            Some((_, State::Wanted)) => return Err((self.at_capacity(), value)),
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
                self.creating(key, hash, Queue::default())
            }
        };
        self.counters.count_by_owner(PoolEvent::Opened);
        self.settle(row_key, value, now);
        Ok(EntryKey(row_key))
    }

    /// Puts in a handle in the place of the one that its key has, if it has one: the later connection of a peer.
    ///
    /// The former one is not found any more and is closed after its last lease; until it is, there is one more open than
    /// the cap. Those that wait for the former one get this. Without a former one it is [`LruPool::insert`].
    ///
    /// # Errors
    /// [`PoolRefusal`] with the handle: as for [`LruPool::insert`], and at capacity when as many replaced ones as the cap are
    /// still leased.
    pub fn replace(&mut self, key: K, value: V, now: Instant) -> Result<EntryKey, (PoolRefusal, V)> {
        let Some((former, _)) = self.find(&key).filter(|_| self.open) else { return self.insert(key, value, now) };
        if self.replaced >= self.settings.cap.get() {
            return Err((self.at_capacity(), value));
        }
        let queue = self.take_from_index(former.0, Standing::Replaced);
        self.occupied += 1;
        let hash = self.index.hash(&key);
        let row_key = self.creating(key, hash, Queue::default());
        self.waiting.redirect(&queue, row_key);
        if let Some(row) = self.rows.get_mut(row_key) {
            row.queue = queue;
        }
        self.counters.count_by_owner(PoolEvent::Opened);
        self.settle(row_key, value, now);
        Ok(EntryKey(row_key))
    }

    /// A row that is being created, in a place that is taken already.
    fn creating(&mut self, key: K, hash: u64, queue: Queue) -> SlotKey {
        let row = Row { key, hash, state: State::Creating, queue };
        let Ok(row_key) = self.rows.insert(row) else { unreachable!("there is a place, so there is a slot") };
        self.index.insert(&self.rows, row_key.index());
        self.places.make(row_key.index());
        row_key
    }

    /// A row being created gets its handle: those that wait get their leases, or it becomes idle.
    fn settle(&mut self, row_key: SlotKey, value: V, now: Instant) {
        let Some(row) = self.rows.get_mut(row_key) else { return };
        self.failing.remove(&row.key);
        let mut granted = 0;
        while granted == 0 || self.settings.sharing == Sharing::Shared {
            let Some(waiter) = self.waiting.pop(&mut row.queue) else { break };
            granted += 1;
            self.counters.count_by_owner(PoolEvent::Granted);
            self.actions.push_back(PoolAction::Grant { waiter, lease: Lease(EntryKey(row_key)) });
        }
        row.state = State::Live { value, leases: granted, used_at: now, standing: Standing::Found };
        if granted == 0 {
            self.idle.push_back(&mut self.places, row_key.index());
        }
        self.serve();
    }
}

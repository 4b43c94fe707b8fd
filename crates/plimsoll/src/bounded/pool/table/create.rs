//! How a handle enters the pool: made for callers, or inserted.

use std::hash::Hash;
use std::time::Instant;

use plimsoll_sync::slots::SlotKey;

use super::{Failing, LruPool, Row, Standing, State};
use crate::bounded::pool::action::{Closing, Creation, EntryKey, Lease, PoolAction, PoolEvent, PoolRefusal};
use crate::bounded::pool::settings::Sharing;
use crate::bounded::pool::waiters::Queue;
use crate::bounded::time::after;

impl<K: Eq + Hash + Clone, V, W> LruPool<K, V, W> {
    /// A handle was made. The callers that waited for it get their leases; without any it is idle.
    ///
    /// # Errors
    /// The handle and the duty to close it, when its key has one already or the pool is closed.
    pub fn created(&mut self, creation: Creation, value: V, now: Instant) -> Result<(), (Closing, V)> {
        let Creation(EntryKey(row_key)) = creation;
        self.counters.count_by_owner(PoolEvent::Opened);
        match self.rows.get(row_key) {
            Some(row) if self.open && matches!(row.state, State::Creating) => {
                self.fill_row(row_key, value, now);
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

    /// A handle could not be made. Returns the callers that it fails: all that wait for the key if it has no other handle,
    /// otherwise the first one. O(those).
    pub fn failed(&mut self, creation: Creation, now: Instant) -> Vec<W> {
        let Creation(EntryKey(row_key)) = creation;
        self.counters.count_by_owner(PoolEvent::CreateFailed);
        let mut failed = Vec::new();
        if let Some(row) = self.rows.get(row_key)
            && matches!(row.state, State::Creating)
        {
            let (failing, _) = self.failing.entry(&row.key, || Failing { failures: 0, until: now });
            failing.failures = failing.failures.saturating_add(1);
            failing.until = after(now, self.settings.retry_after(failing.failures));
            let alone = self.first_of(row_key).is_none_or(|first| self.rows_of_key(first).nth(1).is_none());
            while (alone || failed.is_empty())
                && let Some(waiter) = self.pop_waiter(row_key)
            {
                self.counters.count_by_owner(PoolEvent::WaiterFailed);
                failed.push(waiter);
            }
        }
        self.end_creation(row_key);
        failed
    }

    /// A creation ended early after [`PoolAction::Abandon`]. It begins again if a caller has come to wait meanwhile.
    pub fn creation_abandoned(&mut self, creation: Creation) {
        let Creation(EntryKey(row_key)) = creation;
        self.counters.count_by_owner(PoolEvent::CreateAbandoned);
        let wanted = |rows: super::key_rows::KeyRows| rows.queued + rows.creating <= rows.waiting;
        match self.rows.get(row_key) {
            Some(row)
                if matches!(row.state, State::Creating)
                    && self.first_of(row_key).is_some_and(|first| wanted(self.count_rows(first))) =>
            {
                let create = PoolAction::Create { creation, key: row.key.clone(), evicted: None };
                self.actions.push_back(create);
            }
            _ => self.end_creation(row_key),
        }
    }

    /// Frees the place of a creation that made no entry.
    fn end_creation(&mut self, row_key: SlotKey) {
        if let Some(row) = self.rows.get(row_key).filter(|row| matches!(row.state, State::Creating)) {
            let (hash, key) = (row.hash, row.key.clone());
            self.remove_row(row_key);
            self.occupied -= 1;
            if let Some(first) = self.first_row(hash, &key) {
                self.remove_surplus_rows(first);
            }
            self.assign_places();
        }
    }

    /// Inserts a handle that was made elsewhere, for instance by an incoming connection.
    ///
    /// A creation in progress for its key is abandoned, and the callers that wait for it get this handle. The least recently
    /// used handle is closed if there is no place; until it is, one more is open than the cap.
    ///
    /// # Errors
    /// [`PoolRefusal`] with the handle: the key has as many as it may, everything is leased, or the pool is closed.
    pub fn insert(&mut self, key: K, value: V, now: Instant) -> Result<EntryKey, (PoolRefusal, V)> {
        if !self.open {
            return Err((PoolRefusal::Closed, value));
        }
        let hash = self.index.hash(&key);
        let first = self.first_row(hash, &key);
        let creating = first.and_then(|first| self.last_row(first, |state| matches!(state, State::Creating)));
        let row_key = match (creating, first.map(|first| self.count_rows(first))) {
            (Some(row_key), _) => {
                self.actions.push_back(PoolAction::Abandon { entry: EntryKey(row_key) });
                row_key
            }
            (None, Some(rows)) if rows.queued > 0 => return Err((self.at_capacity(), value)),
            (None, Some(rows)) if rows.live >= self.settings.handles_per_key() => {
                return Err((PoolRefusal::Occupied, value));
            }
            (None, _) => {
                if !self.has_room() {
                    return Err((self.at_capacity(), value));
                }
                if self.len() == self.settings.cap.get()
                    && let Some((closing, key, value)) = self.evict()
                {
                    self.actions.push_back(PoolAction::Close { closing, key, value });
                }
                self.occupied += 1;
                self.creating_row(key, hash)
            }
        };
        self.counters.count_by_owner(PoolEvent::Opened);
        self.fill_row(row_key, value, now);
        Ok(EntryKey(row_key))
    }

    /// Inserts a handle in place of the first one that its key has, if it has one: the later connection of a peer.
    ///
    /// The former one is not found any more and is closed after its last lease; until it is, one more is open than the cap.
    /// Callers that wait for the former one get this one. Without a former one it is [`LruPool::insert`].
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
        let row_key = self.creating_row(key, hash);
        if !queue.is_empty() {
            self.move_queue(queue, row_key);
        }
        self.counters.count_by_owner(PoolEvent::Opened);
        self.fill_row(row_key, value, now);
        Ok(EntryKey(row_key))
    }

    /// Adds a row that is being created, in a place that is taken already.
    fn creating_row(&mut self, key: K, hash: u64) -> SlotKey {
        self.add_row(Row { key, hash, next: None, state: State::Creating, queue: Queue::default() })
    }

    /// Puts the handle into a row that is being created: the callers that wait get their leases, or it becomes idle.
    fn fill_row(&mut self, row_key: SlotKey, value: V, now: Instant) {
        let Some(row) = self.rows.get(row_key) else { return };
        self.failing.remove(&row.key);
        let mut leases = 0;
        while leases == 0 || self.settings.sharing == Sharing::Shared {
            let Some(waiter) = self.pop_waiter(row_key) else { break };
            leases += 1;
            self.counters.count_by_owner(PoolEvent::Granted);
            self.actions.push_back(PoolAction::Grant { waiter, lease: Lease(EntryKey(row_key)) });
        }
        if let Some(row) = self.rows.get_mut(row_key) {
            row.state = State::Live { value, leases, used_at: now, standing: Standing::Indexed };
        }
        if leases == 0 {
            self.idle.push_back(&mut self.places, row_key.index());
        }
        if let Some(first) = self.first_of(row_key) {
            self.remove_surplus_rows(first);
        }
        self.assign_places();
    }
}

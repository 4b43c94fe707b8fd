//! How a handle leaves the pool: released, retired, evicted, expired, closed.

use std::hash::Hash;
use std::time::Instant;

use plimsoll_sync::slots::SlotKey;

use super::{LruPool, Standing, State, most_rows};
use crate::bounded::Cap;
use crate::bounded::linked_list::visits;
use crate::bounded::pool::action::{
    CloseOutcome, Closing, Creation, EntryKey, Lease, PoolAction, PoolEvent, PoolRefusal,
};
use crate::bounded::pool::waiters::Queue;
use crate::bounded::time::after;

impl<K: Eq + Hash + Clone, V, W> LruPool<K, V, W> {
    /// Ends a use. The next caller that waits for the key gets the handle; otherwise it is the most recently used one.
    pub fn release(&mut self, lease: Lease, now: Instant) {
        let Lease(EntryKey(row_key)) = lease;
        visits::count();
        let Some(row) = self.rows.get_mut(row_key) else { return };
        let State::Live { leases, used_at, standing, .. } = &mut row.state else { return };
        *leases -= 1;
        if *leases > 0 {
            return;
        }
        *used_at = now;
        if *standing != Standing::Indexed {
            self.close_row(row_key);
        } else if let Some(waiter) = self.pop_waiter(row_key) {
            if let Some(State::Live { leases, .. }) = self.rows.get_mut(row_key).map(|row| &mut row.state) {
                *leases = 1;
            }
            self.counters.count_by_owner(PoolEvent::Granted);
            self.actions.push_back(PoolAction::Grant { waiter, lease: Lease(EntryKey(row_key)) });
            if let Some(first) = self.first_of(row_key) {
                self.remove_surplus_rows(first);
            }
        } else {
            self.idle.push_back(&mut self.places, row_key.index());
            self.assign_places();
        }
    }

    /// Ends a use whose handle turned out to be broken: no further caller gets it, and it is closed after its last lease.
    pub fn discard(&mut self, lease: Lease, now: Instant) {
        self.retire(lease.entry());
        self.release(lease, now);
    }

    /// Retires a handle, for instance because its connection ended: no further caller finds it, and it is closed after its
    /// last lease. `false` when it has left the pool; a later handle of the same key is never meant.
    pub fn retire(&mut self, entry: EntryKey) -> bool {
        let row_key = entry.0;
        let Some(row) = self.rows.get(row_key) else { return false };
        let State::Live { standing: Standing::Indexed, .. } = row.state else { return false };
        let (key, hash) = (row.key.clone(), row.hash);
        let queue = self.take_from_index(row_key, Standing::Retired);
        if !queue.is_empty() {
            let first = self.queue_row(key.clone(), hash, Queue::default());
            self.move_queue(queue, first);
        }
        // A handle for each caller that waits, as far as the key may have them.
        while let Some(first) = self.first_row(hash, &key)
            && let rows = self.count_rows(first)
            && rows.queued + rows.creating < rows.waiting
            && self.may_grow(&rows)
        {
            self.queue_row(key.clone(), hash, Queue::default());
        }
        self.assign_places();
        true
    }

    /// Takes a live row out of the index, and closes it if it is idle. Returns the callers that wait for the key if it was
    /// the key's only row.
    pub(super) fn take_from_index(&mut self, row_key: SlotKey, becomes: Standing) -> Queue {
        let queue = self.unlink_row(row_key);
        let Some(row) = self.rows.get_mut(row_key) else { return queue };
        let State::Live { leases, standing, .. } = &mut row.state else { return queue };
        *standing = becomes;
        let idle = *leases == 0;
        if becomes == Standing::Replaced {
            self.replaced += 1;
            // Its successor takes its place in the same step.
            self.occupied -= 1;
        }
        self.counters.count_by_owner(PoolEvent::Retired);
        if idle {
            self.idle.unlink(&mut self.places, row_key.index());
            self.close_row(row_key);
        }
        queue
    }

    /// A handle is closed.
    pub fn closed(&mut self, closing: Closing, outcome: CloseOutcome) {
        self.counters.count_by_owner(PoolEvent::Closed);
        match outcome {
            CloseOutcome::Closed => {}
            CloseOutcome::Failed => self.counters.count_by_owner(PoolEvent::CloseFailed),
            CloseOutcome::TimedOut => self.counters.count_by_owner(PoolEvent::CloseTimedOut),
        }
        self.closing -= 1;
        if closing.holds_place {
            self.closing_in_place -= 1;
        }
        self.assign_places();
    }

    /// Closes the handles that were not used for [`super::PoolSettings::idle_time`]. O(those).
    pub fn expire(&mut self, now: Instant) {
        while self.next_expiry().is_some_and(|due| due <= now) {
            let Some(index) = self.idle.pop_front(&mut self.places) else { break };
            let Some(row_key) = self.rows.at(index).map(|(row_key, _)| row_key) else { break };
            self.counters.count_by_owner(PoolEvent::IdleClosed);
            self.close_row(row_key);
        }
    }

    /// When [`LruPool::expire`] has something to do next, if nothing happens until then.
    pub fn next_expiry(&self) -> Option<Instant> {
        match self.rows.at(self.idle.front()?)?.1.state {
            State::Live { used_at, .. } => Some(after(used_at, self.settings.idle_time)),
            _ => None,
        }
    }

    /// Changes the cap. Idle handles over a lowered one are closed now, leased ones after their last lease; no handle is made
    /// meanwhile.
    pub fn set_cap(&mut self, cap: Cap) {
        self.settings.cap = cap;
        self.rows.set_limit(self.rows.limit().max(most_rows(cap, self.settings.waiting)));
        self.counters.entries().set_cap(cap.get() as u64);
        self.assign_places();
    }

    /// Closes the pool: waiting callers are refused, idle handles are closed now and leased ones after their last lease.
    /// O(rows). It has ended when [`LruPool::is_drained`].
    pub fn close(&mut self) {
        self.open = false;
        let mut keys: Vec<SlotKey> = self.rows.iter().map(|(key, _)| key).collect();
        keys.sort_unstable();
        for row_key in &keys {
            let Some(row) = self.rows.get_mut(*row_key) else { continue };
            while let Some(waiter) = self.waiters.pop(&mut row.queue) {
                self.counters.count_by_owner(PoolEvent::RefusedClosed);
                self.actions.push_back(PoolAction::Refuse { waiter, refusal: PoolRefusal::Closed });
            }
        }
        for row_key in keys {
            match self.rows.get(row_key).map(|row| &row.state) {
                None => {}
                Some(State::Queued) => {
                    self.queued.unlink(&mut self.places, row_key.index());
                    self.remove_row(row_key);
                }
                Some(State::Creating) => {
                    self.actions.push_back(PoolAction::Abandon { entry: EntryKey(row_key) });
                }
                Some(State::Live { .. }) => {
                    self.retire(EntryKey(row_key));
                }
            }
        }
    }

    /// Gives places to the rows that wait for one, first come first served.
    pub(super) fn assign_places(&mut self) {
        let cap = self.settings.cap.get();
        while self.occupied > cap && self.close_least_recent() {}
        while let Some(index) = self.queued.front() {
            let evicted = match self.len().cmp(&cap) {
                std::cmp::Ordering::Less => None,
                std::cmp::Ordering::Equal if !self.idle.is_empty() => self.evict(),
                _ => break,
            };
            self.queued.unlink(&mut self.places, index);
            self.occupied += 1;
            let Some((row_key, row)) = self.rows.at_mut(index) else { break };
            row.state = State::Creating;
            let (creation, key) = (Creation(EntryKey(row_key)), row.key.clone());
            self.actions.push_back(PoolAction::Create { creation, key, evicted });
        }
        self.counters.entries().set(self.len() as u64);
    }

    /// Removes the least recently used idle row; its place is free for the handle it makes room for.
    pub(super) fn evict(&mut self) -> Option<(Closing, K, V)> {
        let index = self.idle.pop_front(&mut self.places)?;
        let row_key = self.rows.at(index)?.0;
        let row = self.remove_row(row_key)?;
        let State::Live { value, .. } = row.state else { return None };
        self.counters.count_by_owner(PoolEvent::Evicted);
        self.occupied -= 1;
        self.closing += 1;
        Some((Closing { holds_place: false }, row.key, value))
    }

    /// Closes the least recently used idle row and gives its place to no other.
    fn close_least_recent(&mut self) -> bool {
        let Some((_, key, value)) = self.evict() else { return false };
        self.closing_in_place += 1;
        self.actions.push_back(PoolAction::Close { closing: Closing { holds_place: true }, key, value });
        true
    }

    /// Closes a live row that is in no list. Its place, if it still has it, stays taken until that is done.
    fn close_row(&mut self, row_key: SlotKey) {
        let Some(row) = self.remove_row(row_key) else { return };
        let State::Live { value, standing, .. } = row.state else { return };
        let holds_place = standing != Standing::Replaced;
        if holds_place {
            self.occupied -= 1;
            self.closing_in_place += 1;
        } else {
            self.replaced -= 1;
        }
        self.closing += 1;
        self.actions.push_back(PoolAction::Close { closing: Closing { holds_place }, key: row.key, value });
    }
}

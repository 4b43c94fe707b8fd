//! How a handle leaves the pool: given back, retired, evicted, expired, closed.

use std::hash::Hash;
use std::time::Instant;

use plimsoll_sync::slots::SlotKey;

use super::{LruPool, Row, Standing, State, most_rows};
use crate::bounded::Cap;
use crate::bounded::list::visits;
use crate::bounded::pool::actions::{
    CloseOutcome, Closing, Creation, EntryKey, Lease, PoolAction, PoolEvent, PoolRefusal,
};
use crate::bounded::pool::waiting::Queue;
use crate::bounded::time::after;

impl<K: Eq + Hash + Clone, V, W> LruPool<K, V, W> {
    /// Ends a use. The next caller that waits for this handle gets it; otherwise it is the one used last from now on.
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
        if *standing != Standing::Found {
            self.close_row(row_key);
        } else if let Some(waiter) = self.waiting.pop(&mut row.queue) {
            *leases = 1;
            self.counters.count_by_owner(PoolEvent::Granted);
            self.actions.push_back(PoolAction::Grant { waiter, lease: Lease(EntryKey(row_key)) });
        } else {
            self.idle.push_back(&mut self.places, row_key.index());
            self.serve();
        }
    }

    /// Ends a use whose handle turned out to be broken: nobody new gets it, and it is closed after its last lease.
    pub fn discard(&mut self, lease: Lease, now: Instant) {
        self.retire(lease.entry());
        self.release(lease, now);
    }

    /// Takes a handle out, for instance because its connection ended: nobody new finds it, and it is closed after its last
    /// lease. `false` when it is gone already; a later handle of the same key is never meant.
    pub fn retire(&mut self, entry: EntryKey) -> bool {
        let row_key = entry.0;
        let Some(row) = self.rows.get(row_key) else { return false };
        let State::Live { standing: Standing::Found, .. } = row.state else { return false };
        let (key, hash) = (row.key.clone(), row.hash);
        let queue = self.take_from_index(row_key, Standing::Retired);
        if !queue.is_empty() {
            let wanted = self.want(key, hash, Queue::default());
            self.waiting.redirect(&queue, wanted);
            if let Some(row) = self.rows.get_mut(wanted) {
                row.queue = queue;
            }
            self.serve();
        }
        true
    }

    /// Lets a live row be found no more, and closes it if it is idle. Those that wait for it come back.
    pub(super) fn take_from_index(&mut self, row_key: SlotKey, becomes: Standing) -> Queue {
        let Some(row) = self.rows.get_mut(row_key) else { return Queue::default() };
        let State::Live { leases, standing, .. } = &mut row.state else { return Queue::default() };
        *standing = becomes;
        let idle = *leases == 0;
        let queue = std::mem::take(&mut row.queue);
        self.index.remove(row.hash, row_key.index());
        if becomes == Standing::Replaced {
            self.replaced += 1;
            // Its place is taken by its successor in the same step.
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
            self.holding -= 1;
        }
        self.serve();
    }

    /// Closes what nobody has used for [`super::PoolSettings::idle_time`]. O(those).
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

    /// Changes the cap. Idle handles over a lowered one are closed now, leased ones after their last lease; nothing new is
    /// made meanwhile.
    pub fn set_cap(&mut self, cap: Cap) {
        self.settings.cap = cap;
        self.rows.set_limit(self.rows.limit().max(most_rows(cap, self.settings.waiting)));
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
                self.counters.count_by_owner(PoolEvent::RefusedClosed);
                self.actions.push_back(PoolAction::Refuse { waiter, refusal: PoolRefusal::Closed });
            }
            match row.state {
                State::Wanted => {
                    self.wanted.unlink(&mut self.places, row_key.index());
                    self.remove_row(row_key);
                }
                State::Creating => self.actions.push_back(PoolAction::Abandon { entry: EntryKey(row_key) }),
                State::Live { .. } => {
                    self.retire(EntryKey(row_key));
                }
            }
        }
    }

    /// Gives places to the rows that wait for one, first come first served.
    pub(super) fn serve(&mut self) {
        let cap = self.settings.cap.get();
        while self.occupied > cap && self.close_oldest() {}
        while let Some(index) = self.wanted.front() {
            let evicted = match self.len().cmp(&cap) {
                std::cmp::Ordering::Less => None,
                std::cmp::Ordering::Equal if !self.idle.is_empty() => self.evict(),
                _ => break,
            };
            self.wanted.unlink(&mut self.places, index);
            self.occupied += 1;
            let Some((row_key, row)) = self.rows.at_mut(index) else { break };
            row.state = State::Creating;
            let (creation, key) = (Creation(EntryKey(row_key)), row.key.clone());
            self.actions.push_back(PoolAction::Create { creation, key, evicted });
        }
        self.counters.entries().set(self.len() as u64);
    }

    /// Takes out the idle row used longest ago; its place is free for whatever it makes room for.
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

    /// Closes the idle row used longest ago, for good.
    fn close_oldest(&mut self) -> bool {
        let Some((_, key, value)) = self.evict() else { return false };
        self.holding += 1;
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
            self.holding += 1;
        } else {
            self.replaced -= 1;
        }
        self.closing += 1;
        self.actions.push_back(PoolAction::Close { closing: Closing { holds_place }, key: row.key, value });
    }

    /// Takes a row out of the table and of the index, which a retired one has left before.
    pub(super) fn remove_row(&mut self, row_key: SlotKey) -> Option<Row<K, V>> {
        visits::count();
        let row = self.rows.remove(row_key)?;
        if !matches!(row.state, State::Live { standing: Standing::Retired | Standing::Replaced, .. }) {
            self.index.remove(row.hash, row_key.index());
        }
        Some(row)
    }
}

//! The rows of one key: the first is in the index and has the queue of callers, each names the next.

use std::hash::Hash;

use plimsoll_sync::slots::SlotKey;

use super::{LruPool, Row, Standing, State};
use crate::bounded::linked_list::visits;
use crate::bounded::pool::waiters::Queue;

/// How many rows of a key are in which state, and how many callers wait for one.
#[derive(Debug, Default)]
pub(super) struct KeyRows {
    pub(super) queued: usize,
    pub(super) creating: usize,
    pub(super) live: usize,
    pub(super) waiting: usize,
}

impl<K: Eq + Hash + Clone, V, W> LruPool<K, V, W> {
    /// The first row of `key`, which has this hash.
    pub(super) fn first_row(&self, hash: u64, key: &K) -> Option<SlotKey> {
        self.rows.at(self.index.get(&self.rows, hash, key)?).map(|(row_key, _)| row_key)
    }

    /// The first row of the key that `row_key`, a row in the index's lists, has.
    pub(super) fn first_of(&self, row_key: SlotKey) -> Option<SlotKey> {
        if self.settings.handles_per_key() == 1 {
            return Some(row_key);
        }
        let row = self.rows.get(row_key)?;
        self.first_row(row.hash, &row.key)
    }

    /// The rows of a key, from the first.
    pub(super) fn rows_of_key(&self, first: SlotKey) -> impl Iterator<Item = (SlotKey, &Row<K, V>)> {
        let at = |slot: u32| self.rows.at(slot);
        std::iter::successors(at(first.index()), move |(_, row)| row.next.and_then(at))
    }

    pub(super) fn count_rows(&self, first: SlotKey) -> KeyRows {
        let mut count =
            KeyRows { waiting: self.rows.get(first).map_or(0, |row| row.queue.len()), ..KeyRows::default() };
        for (_, row) in self.rows_of_key(first) {
            match row.state {
                State::Queued => count.queued += 1,
                State::Creating => count.creating += 1,
                State::Live { .. } => count.live += 1,
            }
        }
        count
    }

    /// Whether one more handle may be made for a key: it has fewer than it may, and one is on its way for each caller that
    /// waits already.
    pub(super) fn may_grow(&self, rows: &KeyRows) -> bool {
        rows.queued + rows.creating + rows.live < self.settings.handles_per_key()
            && rows.queued + rows.creating <= rows.waiting
    }

    /// Removes rows that wait for a place although fewer callers wait than handles are to be made.
    pub(super) fn remove_surplus_rows(&mut self, first: SlotKey) {
        if self.settings.handles_per_key() == 1 {
            return;
        }
        while let rows = self.count_rows(first)
            && rows.queued + rows.creating > rows.waiting
            && let Some(row_key) = self.last_row(first, |state| matches!(state, State::Queued))
        {
            self.queued.unlink(&mut self.places, row_key.index());
            self.remove_row(row_key);
        }
    }

    pub(super) fn last_row(&self, first: SlotKey, is: impl Fn(&State<V>) -> bool) -> Option<SlotKey> {
        self.rows_of_key(first).filter(|(_, row)| is(&row.state)).last().map(|(row_key, _)| row_key)
    }

    /// Adds a row after the other rows of its key.
    pub(super) fn add_row(&mut self, row: Row<K, V>) -> SlotKey {
        let first = self.first_row(row.hash, &row.key);
        let Ok(row_key) = self.rows.insert(row) else { unreachable!("rows are bounded by places and waiters") };
        self.places.make(row_key.index());
        match first.and_then(|first| self.last_row(first, |_| true)).and_then(|last| self.rows.get_mut(last)) {
            Some(last) => last.next = Some(row_key.index()),
            None => self.index.insert(&self.rows, row_key.index()),
        }
        row_key
    }

    /// Takes a row out of the rows of its key, so that callers do not find it. Returns the queue if it was the last one;
    /// otherwise the queue stays with the key.
    pub(super) fn unlink_row(&mut self, row_key: SlotKey) -> Queue {
        let Some((hash, first)) = self.rows.get(row_key).map(|row| (row.hash, self.first_of(row_key))) else {
            return Queue::default();
        };
        let Some(first) = first else { return Queue::default() };
        if first != row_key {
            let before = self.rows_of_key(first).find(|(_, row)| row.next == Some(row_key.index()));
            let before = before.map(|(before, _)| before);
            let next = self.rows.get_mut(row_key).and_then(|row| row.next.take());
            if let Some(before) = before.and_then(|before| self.rows.get_mut(before)) {
                before.next = next;
            }
            return Queue::default();
        }
        self.index.remove(hash, row_key.index());
        let Some(row) = self.rows.get_mut(row_key) else { return Queue::default() };
        let (queue, next) = (std::mem::take(&mut row.queue), row.next.take());
        let Some((successor, _)) = next.and_then(|next| self.rows.at(next)) else { return queue };
        self.index.insert(&self.rows, successor.index());
        self.move_queue(queue, successor);
        Queue::default()
    }

    /// Gives the queue of a key to its first row.
    pub(super) fn move_queue(&mut self, queue: Queue, first: SlotKey) {
        self.waiters.redirect(&queue, first);
        if let Some(row) = self.rows.get_mut(first) {
            row.queue = queue;
        }
    }

    /// The next caller that waits for a handle of the key of `row_key`.
    pub(super) fn pop_waiter(&mut self, row_key: SlotKey) -> Option<W> {
        let first = self.first_of(row_key)?;
        let row = self.rows.get_mut(first)?;
        self.waiters.pop(&mut row.queue)
    }

    /// Removes a row from the table, and from its key unless it was retired before.
    pub(super) fn remove_row(&mut self, row_key: SlotKey) -> Option<Row<K, V>> {
        visits::count();
        let row = self.rows.get(row_key)?;
        if !matches!(row.state, State::Live { standing: Standing::Retired | Standing::Replaced, .. }) {
            // INVARIANT: empty. A row is removed while callers wait for its key only if other rows of the key remain.
            let queue = self.unlink_row(row_key);
            debug_assert!(queue.is_empty());
        }
        self.rows.remove(row_key)
    }
}

//! The callers that wait, each in the queue of its key.

use plimsoll_sync::slots::{SlotKey, Slots};

use crate::bounded::linked_list::{Links, List, linked};
use crate::bounded::{Cap, Compact, CompactPolicy, Compacted, Footprint};

/// The queue of one key, first come first served. It belongs to the first row of the key.
pub(super) type Queue = List<0>;

#[derive(Debug)]
pub(super) struct Waiters<W> {
    slots: Slots<Waiter<W>>,
}

#[derive(Debug)]
struct Waiter<W> {
    /// The row that has the queue.
    row: SlotKey,
    waiter: W,
    links: Links,
}

linked!([W] Waiter<W>, 0, links);

impl<W> Waiters<W> {
    pub(super) fn new(cap: Cap) -> Self {
        Self { slots: Slots::with_limit(cap.slots()) }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.slots.len() >= self.slots.limit() as usize
    }

    /// Appends a waiter to the queue of `row`; returns it when there are as many as may be.
    pub(super) fn push(&mut self, queue: &mut Queue, row: SlotKey, waiter: W) -> Result<SlotKey, W> {
        let waiter = Waiter { row, waiter, links: Links::default() };
        let key = self.slots.insert(waiter).map_err(|full| full.0.waiter)?;
        queue.push_back(&mut self.slots, key.index());
        Ok(key)
    }

    /// Removes the first waiter of the queue.
    pub(super) fn pop(&mut self, queue: &mut Queue) -> Option<W> {
        let index = queue.pop_front(&mut self.slots)?;
        let (key, _) = self.slots.at(index)?;
        self.slots.remove(key).map(|waiter| waiter.waiter)
    }

    /// The row whose queue `key` is in.
    pub(super) fn row(&self, key: SlotKey) -> Option<SlotKey> {
        self.slots.get(key).map(|waiter| waiter.row)
    }

    /// Removes `key` from `queue`, which it is in.
    pub(super) fn remove(&mut self, queue: &mut Queue, key: SlotKey) -> Option<W> {
        self.slots.get(key)?;
        queue.unlink(&mut self.slots, key.index());
        self.slots.remove(key).map(|waiter| waiter.waiter)
    }

    /// The slots of a queue, and the row that one of them names.
    #[cfg(test)]
    pub(super) fn indexes(&self, queue: &Queue) -> Vec<u32> {
        queue.iter(&self.slots).collect()
    }

    #[cfg(test)]
    pub(super) fn slots_row(&self, index: u32) -> Option<SlotKey> {
        self.slots.at(index).map(|(_, waiter)| waiter.row)
    }

    /// Records that `queue` now belongs to `row`. O(its waiters).
    pub(super) fn redirect(&mut self, queue: &Queue, row: SlotKey) {
        let mut next = queue.front();
        while let Some(index) = next {
            next = Queue::next(&self.slots, index);
            if let Some((_, waiter)) = self.slots.at_mut(index) {
                waiter.row = row;
            }
        }
    }
}

impl<W> Compact for Waiters<W> {
    fn footprint(&self) -> Footprint {
        self.slots.footprint()
    }

    fn compact(&mut self, policy: &CompactPolicy) -> Compacted {
        Compact::compact(&mut self.slots, policy)
    }
}

//! The callers that wait, each in the queue of the row it waits for.

use plimsoll_sync::slots::{SlotKey, Slots};

use crate::bounded::list::{Links, List, linked};
use crate::bounded::{Cap, Compact, CompactPolicy, Compacted, Footprint};

/// The queue of one row, first come first served.
pub(super) type Queue = List<0>;

#[derive(Debug)]
pub(super) struct Waiting<W> {
    waiters: Slots<Waiter<W>>,
}

#[derive(Debug)]
struct Waiter<W> {
    row: SlotKey,
    waiter: W,
    links: Links,
}

linked!([W] Waiter<W>, 0, links);

impl<W> Waiting<W> {
    pub(super) fn new(cap: Cap) -> Self {
        Self { waiters: Slots::with_limit(cap.slots()) }
    }

    pub(super) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiters.len() >= self.waiters.limit() as usize
    }

    /// Adds a waiter for `row` at the end of its queue; it comes back when there are as many as may be.
    pub(super) fn push(&mut self, queue: &mut Queue, row: SlotKey, waiter: W) -> Result<SlotKey, W> {
        let waiter = Waiter { row, waiter, links: Links::default() };
        let key = self.waiters.insert(waiter).map_err(|full| full.0.waiter)?;
        queue.push_back(&mut self.waiters, key.index());
        Ok(key)
    }

    /// The first of the queue.
    pub(super) fn pop(&mut self, queue: &mut Queue) -> Option<W> {
        let index = queue.pop_front(&mut self.waiters)?;
        let (key, _) = self.waiters.at(index)?;
        self.waiters.remove(key).map(|waiter| waiter.waiter)
    }

    /// The row that `key` waits for.
    pub(super) fn row(&self, key: SlotKey) -> Option<SlotKey> {
        self.waiters.get(key).map(|waiter| waiter.row)
    }

    /// Takes `key`, which is in `queue`, out of it.
    pub(super) fn take(&mut self, queue: &mut Queue, key: SlotKey) -> Option<W> {
        self.waiters.get(key)?;
        queue.unlink(&mut self.waiters, key.index());
        self.waiters.remove(key).map(|waiter| waiter.waiter)
    }

    /// Lets all of `queue` wait for `row` from now on.
    pub(super) fn redirect(&mut self, queue: &Queue, row: SlotKey) {
        let mut next = queue.front();
        while let Some(index) = next {
            next = Queue::next(&self.waiters, index);
            if let Some((_, waiter)) = self.waiters.at_mut(index) {
                waiter.row = row;
            }
        }
    }
}

impl<W> Compact for Waiting<W> {
    fn footprint(&self) -> Footprint {
        self.waiters.footprint()
    }

    fn compact(&mut self, policy: &CompactPolicy) -> Compacted {
        Compact::compact(&mut self.waiters, policy)
    }
}

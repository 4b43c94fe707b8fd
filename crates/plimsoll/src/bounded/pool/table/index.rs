//! Rows by key: four bytes an entry, the keys stay in the rows.
//!
//! The keys may come from the network, so they are hashed with a seed of this index's own. Foldhash resists an attacker that
//! can only choose keys and measure times across a network, and does not see the hashes. A key is hashed once: its row keeps
//! the hash.

use std::hash::{BuildHasher, Hash};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use plimsoll_sync::slots::Slots;

use super::Row;
use crate::bounded::linked_list::visits;
use crate::bounded::{CompactPolicy, Compacted, Footprint};

/// The slots of the rows that can be found, by their keys.
#[derive(Debug, Default)]
pub(super) struct Index {
    slots: HashTable<u32>,
    seed: RandomState,
}

impl Index {
    /// The hash of `key` in this index.
    pub(super) fn hash<K: Hash>(&self, key: &K) -> u64 {
        self.seed.hash_one(key)
    }

    /// The slot of the row with `key`, which has this hash.
    pub(super) fn get<K: Eq, V>(&self, rows: &Slots<Row<K, V>>, hash: u64, key: &K) -> Option<u32> {
        visits::count();
        let is_it = |slot: &u32| rows.at(*slot).is_some_and(|(_, row)| row.key == *key);
        self.slots.find(hash, is_it).copied()
    }

    /// Adds the row in `slot`, whose key is not in it.
    pub(super) fn insert<K, V>(&mut self, rows: &Slots<Row<K, V>>, slot: u32) {
        let hash = |slot: &u32| rows.at(*slot).map_or(0, |(_, row)| row.hash);
        self.slots.insert_unique(hash(&slot), slot, hash);
    }

    /// Removes the row in `slot`, whose key has this hash.
    pub(super) fn remove(&mut self, hash: u64, slot: u32) {
        if let Ok(entry) = self.slots.find_entry(hash, |other| *other == slot) {
            entry.remove();
        }
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = u32> {
        self.slots.iter().copied()
    }

    pub(super) fn footprint(&self) -> Footprint {
        let (len, capacity) = (self.slots.len(), self.slots.capacity());
        Footprint { len, capacity, bytes: self.slots.allocation_size() }
    }

    /// Shrinks where the policy says so. O(entries) then.
    pub(super) fn compact<K, V>(&mut self, rows: &Slots<Row<K, V>>, policy: &CompactPolicy) -> Compacted {
        let before = self.footprint();
        let mut failed = 0;
        if policy.applies_to(before) {
            let hash = |slot: &u32| rows.at(*slot).map_or(0, |(_, row)| row.hash);
            let mut smaller = HashTable::new();
            match smaller.try_reserve(self.slots.len(), hash) {
                Ok(()) => {
                    for slot in &self.slots {
                        smaller.insert_unique(hash(slot), *slot, hash);
                    }
                    self.slots = smaller;
                }
                Err(_) => failed = 1,
            }
        }
        Compacted { before, after: self.footprint(), failed }
    }
}

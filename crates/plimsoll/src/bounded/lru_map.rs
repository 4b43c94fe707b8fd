//! A map that removes its least recently used entry at its cap, for tables that do not refuse.

use std::collections::HashMap;
use std::hash::Hash;

use plimsoll_sync::slots::Slots;

use super::linked_list::{Links, List, linked, visits};
use super::{Cap, Compact, CompactPolicy, Compacted, Footprint};

/// At most `cap` entries; a further one replaces the least recently used.
#[derive(Debug)]
pub(crate) struct LruMap<K, V> {
    rows: Slots<Row<K, V>>,
    index: HashMap<K, u32>,
    order: List<0>,
}

#[derive(Debug)]
struct Row<K, V> {
    key: K,
    value: V,
    links: Links,
}

linked!([K, V] Row<K, V>, 0, links);

impl<K: Eq + Hash + Clone, V> LruMap<K, V> {
    pub(crate) fn new(cap: Cap) -> Self {
        Self { rows: Slots::with_limit(cap.slots()), index: HashMap::new(), order: List::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The value at `key`, without marking it used.
    pub(crate) fn peek(&self, key: &K) -> Option<&V> {
        visits::count();
        self.rows.at(*self.index.get(key)?).map(|(_, row)| &row.value)
    }

    /// The value at `key`, inserted by `make` if there was none, and marked used; with the entry that was removed for it.
    pub(crate) fn entry(&mut self, key: &K, make: impl FnOnce() -> V) -> (&mut V, Option<(K, V)>) {
        visits::count();
        let (slot, removed) = match self.index.get(key) {
            Some(slot) => {
                self.order.move_to_back(&mut self.rows, *slot);
                (*slot, None)
            }
            None => {
                let full = self.rows.len() >= self.rows.limit() as usize;
                let removed = if full { self.pop_least_recent() } else { None };
                let row = Row { key: key.clone(), value: make(), links: Links::default() };
                // INVARIANT: there is a free slot, as the cap is at least one and a full table has just lost a row.
                let Ok(slot) = self.rows.insert(row) else { unreachable!("a row was removed above") };
                self.index.insert(key.clone(), slot.index());
                self.order.push_back(&mut self.rows, slot.index());
                (slot.index(), removed)
            }
        };
        match self.rows.at_mut(slot) {
            Some((_, row)) => (&mut row.value, removed),
            None => unreachable!("the index names rows that exist"),
        }
    }

    /// Removes the value at `key`.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        // The usual case, decided without hashing the key.
        if self.index.is_empty() {
            return None;
        }
        visits::count();
        let slot = self.index.remove(key)?;
        self.order.unlink(&mut self.rows, slot);
        let (key, _) = self.rows.at(slot)?;
        self.rows.remove(key).map(|row| row.value)
    }

    /// The least recently used entry.
    pub(crate) fn least_recent(&self) -> Option<(&K, &V)> {
        self.rows.at(self.order.front()?).map(|(_, row)| (&row.key, &row.value))
    }

    /// Removes the least recently used entry.
    pub(crate) fn pop_least_recent(&mut self) -> Option<(K, V)> {
        let slot = self.order.pop_front(&mut self.rows)?;
        let (key, _) = self.rows.at(slot)?;
        let row = self.rows.remove(key)?;
        self.index.remove(&row.key);
        Some((row.key, row.value))
    }
}

impl<K: Eq + Hash, V> Compact for LruMap<K, V> {
    fn footprint(&self) -> Footprint {
        self.rows.footprint().plus(self.index.footprint())
    }

    fn compact(&mut self, policy: &CompactPolicy) -> Compacted {
        Compact::compact(&mut self.rows, policy).plus(self.index.compact(policy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_entry_is_removed() {
        let mut recent = LruMap::new(Cap::of::<2>());
        assert_eq!(recent.entry(&1, || 'a').1, None);
        recent.entry(&2, || 'b');
        recent.entry(&1, || 'z');
        assert_eq!(recent.entry(&3, || 'c').1, Some((2, 'b')));
        assert_eq!((recent.peek(&1), recent.peek(&2), recent.peek(&3)), (Some(&'a'), None, Some(&'c')));
        assert_eq!(recent.remove(&1), Some('a'));
        assert_eq!(recent.pop_least_recent(), Some((3, 'c')));
        assert_eq!(recent.len(), 0);
    }
}

//! A table of slots whose keys can never resolve to a later entry.
//!
//! [`Slots`] is a plain vector of slots with a free list. Every entry takes the next number of a counter that belongs to
//! the whole table; its key is the slot's index together with that number, and a key resolves only while the slot holds
//! that very number. The counter has 64 bits: at a billion entries a second it lasts 584 years, so a key is never given
//! out twice and there is no wrap-around to reason about. For the same reason the vector may shrink and grow again.
//!
//! Measured against `slab` with the same number beside each value: the bytes of a slot are equal (24 for a value of 8), a
//! look-up is equal within the noise, and the capacity at 100,000 entries is 101,034 instead of 131,072. A slab can only
//! shrink by an allocation that aborts when it fails; [`Slots::try_compact`] returns an error.

use std::collections::TryReserveError;
use std::fmt;
use std::hash::{Hash, Hasher};

/// Identifies one entry of one table; never reused.
///
/// Keys order by the time of insertion.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SlotKey {
    generation: u64,
    index: u32,
}

impl SlotKey {
    /// The number of this entry among all that were ever inserted into its table, from 0.
    pub fn generation(self) -> u64 {
        self.generation
    }

    /// The position of the entry, below the largest number of entries that the table held at one time.
    pub fn index(self) -> u32 {
        self.index
    }
}

impl Hash for SlotKey {
    // The number alone identifies an entry of one table.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.generation);
    }
}

impl PartialOrd for SlotKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SlotKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.generation, self.index).cmp(&(other.generation, other.index))
    }
}

impl fmt::Debug for SlotKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.index, self.generation)
    }
}

/// The table holds as many entries as it may; the value is returned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Full<T>(pub T);

impl<T> fmt::Debug for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Full")
    }
}

impl<T> fmt::Display for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the table holds as many entries as it may")
    }
}

impl<T> std::error::Error for Full<T> {}

#[derive(Debug)]
enum Slot<T> {
    Taken { generation: u64, value: T },
    Free { next: Option<u32> },
}

/// A table of at most `limit` entries for one owner. Insert, look-up and removal are O(1).
///
/// ```
/// use plimsoll_sync::slots::Slots;
///
/// let mut slots = Slots::with_limit(1);
/// let old = slots.insert("old").unwrap();
/// assert!(slots.insert("too many").is_err());
/// slots.remove(old);
/// let new = slots.insert("new").unwrap();
/// assert_eq!(slots.get(old), None);
/// assert_eq!(slots.get(new), Some(&"new"));
/// ```
#[derive(Debug)]
pub struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Option<u32>,
    len: u32,
    limit: u32,
    next_generation: u64,
}

impl<T> Slots<T> {
    /// An empty table that will hold at most `limit` entries. Allocates nothing yet.
    pub fn with_limit(limit: u32) -> Self {
        Self { slots: Vec::new(), free: None, len: 0, limit, next_generation: 0 }
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// [`Full`] with the value when there are `limit` entries.
    pub fn insert(&mut self, value: T) -> Result<SlotKey, Full<T>> {
        if self.len >= self.limit { Err(Full(value)) } else { Ok(self.place(|_| value)) }
    }

    /// Adds an entry that is made from its own key; nothing is made when the table is full.
    ///
    /// # Errors
    /// [`Full`] with a `make` that was not called when there are `limit` entries.
    pub fn insert_with<F: FnOnce(SlotKey) -> T>(&mut self, make: F) -> Result<SlotKey, Full<F>> {
        if self.len >= self.limit { Err(Full(make)) } else { Ok(self.place(make)) }
    }

    fn place(&mut self, make: impl FnOnce(SlotKey) -> T) -> SlotKey {
        // An index cannot overflow: a table of u32::MAX entries is at its limit.
        let index = self.free.unwrap_or(self.slots.len() as u32);
        let key = SlotKey { generation: self.next_generation, index };
        let taken = Slot::Taken { generation: key.generation, value: make(key) };
        self.next_generation += 1;
        self.len += 1;
        match self.slots.get_mut(index as usize) {
            Some(slot) => {
                if let Slot::Free { next } = std::mem::replace(slot, taken) {
                    self.free = next;
                }
            }
            None => {
                // A large table grows by an eighth and not to its double, as it is expected to be full.
                if self.slots.len() == self.slots.capacity() && self.slots.len() >= 1_024 {
                    self.slots.reserve_exact(self.slots.len() / 8);
                }
                self.slots.push(taken);
            }
        }
        key
    }

    /// The entry, if it is still there.
    pub fn get(&self, key: SlotKey) -> Option<&T> {
        match self.slots.get(key.index as usize)? {
            Slot::Taken { generation, value } if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// The entry, if it is still there.
    pub fn get_mut(&mut self, key: SlotKey) -> Option<&mut T> {
        match self.slots.get_mut(key.index as usize)? {
            Slot::Taken { generation, value } if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// Removes the entry, if it is still there.
    pub fn remove(&mut self, key: SlotKey) -> Option<T> {
        self.get(key)?;
        let slot = self.slots.get_mut(key.index as usize)?;
        let Slot::Taken { value, .. } = std::mem::replace(slot, Slot::Free { next: self.free }) else { return None };
        self.free = Some(key.index);
        self.len -= 1;
        Some(value)
    }

    /// The key and entry in slot `index`, whichever generation it is of.
    pub fn at(&self, index: u32) -> Option<(SlotKey, &T)> {
        match self.slots.get(index as usize)? {
            Slot::Taken { generation, value } => Some((SlotKey { generation: *generation, index }, value)),
            Slot::Free { .. } => None,
        }
    }

    /// The entry in slot `index`, whichever generation it is of.
    pub fn at_mut(&mut self, index: u32) -> Option<(SlotKey, &mut T)> {
        match self.slots.get_mut(index as usize)? {
            Slot::Taken { generation, value } => Some((SlotKey { generation: *generation, index }, value)),
            Slot::Free { .. } => None,
        }
    }

    /// All entries in the order of their slots. Keys sort by time of insertion.
    pub fn iter(&self) -> impl Iterator<Item = (SlotKey, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| match slot {
            Slot::Taken { generation, value } => {
                Some((SlotKey { generation: *generation, index: index as u32 }, value))
            }
            Slot::Free { .. } => None,
        })
    }

    /// Removes all entries, in the order of their slots.
    pub fn drain(&mut self) -> Vec<(SlotKey, T)> {
        self.free = None;
        self.len = 0;
        let taken = std::mem::take(&mut self.slots).into_iter().enumerate();
        taken
            .filter_map(|(index, slot)| match slot {
                Slot::Taken { generation, value } => Some((SlotKey { generation, index: index as u32 }, value)),
                Slot::Free { .. } => None,
            })
            .collect()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many entries there may be.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// Changes the limit. Entries over a lowered limit stay until they are removed; new ones are refused meanwhile.
    pub fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
    }

    /// Slots allocated, for memory accounts: bytes are `capacity() * slot_bytes()`.
    pub fn capacity(&self) -> usize {
        self.slots.capacity()
    }

    /// Slots taken or free: the index of every entry, and of every free slot that can be reused, is below it.
    pub fn span(&self) -> usize {
        self.slots.len()
    }

    /// Bytes of one slot.
    pub const fn slot_bytes() -> usize {
        size_of::<Slot<T>>()
    }

    /// Releases the free slots at the end of the table when its capacity is more than `factor` times its length. Keys stay
    /// valid. O(slots); returns the bytes released, 0 when the smaller storage could not be allocated.
    pub fn compact(&mut self, factor: usize) -> usize {
        if self.slots.capacity() <= factor.saturating_mul(self.len().max(1)) {
            return 0;
        }
        self.try_compact().unwrap_or(0)
    }

    /// Releases the free slots at the end of the table. Keys stay valid. O(slots); returns the bytes released.
    ///
    /// # Errors
    /// The smaller storage could not be allocated; the table is unchanged.
    pub fn try_compact(&mut self) -> Result<usize, TryReserveError> {
        let before = self.slots.capacity();
        let span = self.slots.iter().rposition(|slot| matches!(slot, Slot::Taken { .. })).map_or(0, |last| last + 1);
        let mut slots = Vec::new();
        slots.try_reserve_exact(span)?;
        slots.extend(self.slots.drain(..span));
        self.slots = slots;
        // The free list contained the slots that were dropped: it is rebuilt, lowest index first.
        let mut next = None;
        for (index, slot) in self.slots.iter_mut().enumerate().rev() {
            if let Slot::Free { next: link } = slot {
                *link = next;
                next = Some(index as u32);
            }
        }
        self.free = next;
        Ok((before - self.slots.capacity()) * Self::slot_bytes())
    }
}

#[cfg(all(test, not(plimsoll_loom)))]
mod tests {
    use super::*;

    /// E-12.
    #[test]
    fn a_key_never_resolves_to_a_later_entry() {
        let mut slots = Slots::with_limit(2);
        let first = slots.insert(1).unwrap();
        assert_eq!(slots.remove(first), Some(1));
        let second = slots.insert(2).unwrap();
        assert_eq!(second.index(), first.index());
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get(second), Some(&2));
    }

    #[test]
    fn the_limit_holds_and_the_value_is_returned() {
        let mut slots = Slots::with_limit(1);
        slots.insert("a").unwrap();
        assert_eq!(slots.insert("b"), Err(Full("b")));
        slots.set_limit(2);
        assert!(slots.insert("b").is_ok());
    }

    #[test]
    fn compaction_releases_memory_and_keeps_keys() {
        let mut slots = Slots::with_limit(1_000);
        let keys: Vec<_> = (0..1_000).map(|n| slots.insert(n).unwrap()).collect();
        for key in keys.iter().filter(|key| key.index() != 3) {
            slots.remove(*key);
        }
        assert!(slots.compact(2) > 0);
        assert_eq!(slots.capacity(), 4);
        assert_eq!(slots.get(keys[3]), Some(&3));
        let again: Vec<_> = (0..10).map(|n| slots.insert(n).unwrap()).collect();
        assert_eq!(slots.len(), 11);
        assert!(keys.iter().filter(|key| key.index() != 3).all(|key| slots.get(*key).is_none()));
        assert!(again.iter().enumerate().all(|(n, key)| slots.get(*key) == Some(&n)));
    }
}

//! Releasing capacity that a load spike left unused.
//!
//! A collection keeps the capacity of its largest size. The owner of the collection runs [`Compact`] between two messages:
//! it needs `&mut self`, so there is no lock and no race. A collection is shrunk when its capacity is more than `factor`
//! times its length and at least `min_waste` bytes would be released. The new storage is allocated fallibly: when that
//! fails, the old storage stays, and the failure is in the result. Nothing here runs on a timer; when to compact is the
//! owner's decision.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, Hash};

use plimsoll_sync::slots::Slots;

/// When a collection is shrunk.
///
/// ```
/// use plimsoll::bounded::{Compact, CompactPolicy};
///
/// let mut list: Vec<u64> = Vec::with_capacity(100_000);
/// list.push(1);
/// let done = list.compact(&CompactPolicy::default());
/// assert!(done.freed() >= 799_000);
/// assert!(list.compact(&CompactPolicy::default()).freed() == 0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactPolicy {
    /// Shrink when the capacity is more than this many times the length. Default 2.
    pub factor: usize,
    /// Shrink only if at least this many bytes are released. Default 4,096, a page: less cannot be returned to the system.
    pub min_waste: usize,
}

impl Default for CompactPolicy {
    fn default() -> Self {
        Self { factor: 2, min_waste: 4096 }
    }
}

impl CompactPolicy {
    /// A policy with these numbers; a factor below 1 counts as 1.
    pub fn new(factor: usize, min_waste: usize) -> Self {
        Self { factor: factor.max(1), min_waste }
    }

    /// Whether a collection with this footprint is to be shrunk to its length.
    pub fn applies_to(&self, footprint: Footprint) -> bool {
        let Footprint { len, capacity, bytes } = footprint;
        if capacity <= len.saturating_mul(self.factor) {
            return false;
        }
        let needed = if capacity == 0 { 0 } else { (bytes as u128 * len as u128 / capacity as u128) as usize };
        bytes - needed >= self.min_waste
    }
}

/// The size of a collection: its entries, its capacity, and the bytes of that capacity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Entries.
    pub len: usize,
    /// Entries that fit without allocating.
    pub capacity: usize,
    /// Bytes allocated for them, without what entries point to.
    pub bytes: usize,
}

impl Footprint {
    /// The sum of two.
    pub fn plus(self, other: Self) -> Self {
        Self { len: self.len + other.len, capacity: self.capacity + other.capacity, bytes: self.bytes + other.bytes }
    }
}

/// The result of a compaction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Before.
    pub before: Footprint,
    /// After.
    pub after: Footprint,
    /// Collections that stayed as they were because the allocation of smaller storage failed.
    pub failed: usize,
}

impl Compacted {
    /// Bytes returned to the allocator.
    pub fn freed(&self) -> usize {
        self.before.bytes.saturating_sub(self.after.bytes)
    }

    /// The sum of two parts.
    pub fn plus(self, other: Self) -> Self {
        Self {
            before: self.before.plus(other.before),
            after: self.after.plus(other.after),
            failed: self.failed + other.failed,
        }
    }
}

/// A collection that can release unused capacity.
pub trait Compact {
    /// Its present size. O(1).
    fn footprint(&self) -> Footprint;

    /// Shrinks where the policy applies. The state stays valid when an allocation fails. O(entries) where it shrinks, O(1)
    /// where not.
    fn compact(&mut self, policy: &CompactPolicy) -> Compacted;
}

/// Runs `shrink` on `old` when the policy applies.
fn shrink<C>(
    old: &mut C,
    policy: &CompactPolicy,
    footprint: impl Fn(&C) -> Footprint,
    shrink: impl FnOnce(&mut C) -> Result<(), std::collections::TryReserveError>,
) -> Compacted {
    let before = footprint(old);
    let mut failed = 0;
    if policy.applies_to(before) {
        failed = usize::from(shrink(old).is_err());
    }
    Compacted { before, after: footprint(old), failed }
}

impl<T> Compact for Vec<T> {
    fn footprint(&self) -> Footprint {
        Footprint { len: self.len(), capacity: self.capacity(), bytes: self.capacity() * size_of::<T>() }
    }

    fn compact(&mut self, policy: &CompactPolicy) -> Compacted {
        shrink(self, policy, Self::footprint, |old| {
            let mut new = Self::new();
            new.try_reserve_exact(old.len())?;
            new.append(old);
            *old = new;
            Ok(())
        })
    }
}

impl<T> Compact for VecDeque<T> {
    fn footprint(&self) -> Footprint {
        Footprint { len: self.len(), capacity: self.capacity(), bytes: self.capacity() * size_of::<T>() }
    }

    fn compact(&mut self, policy: &CompactPolicy) -> Compacted {
        shrink(self, policy, Self::footprint, |old| {
            let mut new = Self::new();
            new.try_reserve_exact(old.len())?;
            new.append(old);
            *old = new;
            Ok(())
        })
    }
}

/// Bytes of a hash table with room for `capacity` entries: it fills seven eighths of its buckets and keeps one byte of
/// control for each.
fn table_bytes<T>(capacity: usize) -> usize {
    let buckets = if capacity == 0 { 0 } else { (capacity * 8).div_ceil(7).next_power_of_two() };
    buckets * (size_of::<T>() + 1)
}

impl<K: Eq + Hash, V, S: BuildHasher + Clone> Compact for HashMap<K, V, S> {
    fn footprint(&self) -> Footprint {
        Footprint { len: self.len(), capacity: self.capacity(), bytes: table_bytes::<(K, V)>(self.capacity()) }
    }

    fn compact(&mut self, policy: &CompactPolicy) -> Compacted {
        shrink(self, policy, Self::footprint, |old| {
            let mut new = Self::with_hasher(old.hasher().clone());
            new.try_reserve(old.len())?;
            new.extend(old.drain());
            *old = new;
            Ok(())
        })
    }
}

impl<T: Eq + Hash, S: BuildHasher + Clone> Compact for HashSet<T, S> {
    fn footprint(&self) -> Footprint {
        Footprint { len: self.len(), capacity: self.capacity(), bytes: table_bytes::<T>(self.capacity()) }
    }

    fn compact(&mut self, policy: &CompactPolicy) -> Compacted {
        shrink(self, policy, Self::footprint, |old| {
            let mut new = Self::with_hasher(old.hasher().clone());
            new.try_reserve(old.len())?;
            new.extend(old.drain());
            *old = new;
            Ok(())
        })
    }
}

/// A key names a position, so only the free slots at the end can be released: an entry in a high slot keeps those below it.
impl<T> Compact for Slots<T> {
    fn footprint(&self) -> Footprint {
        Footprint { len: self.len(), capacity: self.capacity(), bytes: self.capacity() * Self::slot_bytes() }
    }

    fn compact(&mut self, policy: &CompactPolicy) -> Compacted {
        shrink(self, policy, Self::footprint, |old| old.try_compact().map(drop))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: CompactPolicy = CompactPolicy { factor: 2, min_waste: 4096 };

    fn shrinks<C: Compact>(mut collection: C, least: usize) -> C {
        let done = collection.compact(&POLICY);
        assert!(done.freed() >= least, "{done:?}");
        assert_eq!(done.after, collection.footprint());
        assert_eq!(collection.compact(&POLICY).freed(), 0, "a second run finds nothing");
        collection
    }

    /// L-2: the capacity of 100,000 entries is released when 10 are left.
    #[test]
    fn unused_capacity_is_released() {
        let mut list: Vec<u64> = (0..100_000).collect();
        list.truncate(10);
        assert_eq!(shrinks(list, 790_000), (0..10).collect::<Vec<_>>());
        let mut deque: VecDeque<u64> = (0..100_000).collect();
        deque.drain(..99_990);
        assert_eq!(shrinks(deque, 790_000), (99_990..100_000).collect::<Vec<_>>());
        let mut map: HashMap<u64, u64> = (0..100_000).map(|n| (n, n)).collect();
        map.retain(|key, _| *key < 10);
        assert_eq!(shrinks(map, 2_000_000).len(), 10);
        let mut set: HashSet<u64> = (0..100_000).collect();
        set.retain(|key| *key < 10);
        assert_eq!(shrinks(set, 1_000_000).len(), 10);
    }

    /// L-4: nothing happens below the factor or for less than the minimum.
    #[test]
    fn what_is_not_worth_it_stays() {
        let mut half = Vec::with_capacity(100_000);
        half.extend(0..50_000_u64);
        assert_eq!(half.compact(&POLICY).freed(), 0);
        let mut small: Vec<u64> = Vec::with_capacity(500);
        assert_eq!(small.compact(&POLICY).freed(), 0);
        assert!(small.compact(&CompactPolicy::new(2, 1)).freed() > 0);
    }

    #[test]
    fn slots_keep_their_keys() {
        let mut slots = Slots::with_limit(100_000);
        let keys: Vec<_> = (0..100_000).map(|n| slots.insert(n).unwrap()).collect();
        for key in &keys[10..] {
            slots.remove(*key);
        }
        let slots = shrinks(slots, 1_500_000);
        assert_eq!(slots.get(keys[9]), Some(&9));
    }
}

//! The entries, in quick_cache.

use std::borrow::Borrow;
use std::cell::Cell;
use std::hash::Hash;
use std::time::Instant;

use bytes::Bytes;
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};

use super::CacheEvent;
use crate::bounded::Counters;

/// What an entry weighs beyond its payload: key, slot and index of the storage, rounded up.
pub(super) const OVERHEAD: u64 = 128;

/// Buffers up to this size are not worth a copy.
const PINNED: usize = 4096;

/// The storage has at most this many shards, each with its own lock.
const SHARDS: u64 = 8;

/// A payload with its weight and expiry, both fixed when it was inserted.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    payload: Bytes,
    weight: u64,
    expires: Instant,
}

impl Entry {
    pub(super) fn new(payload: Bytes, pinned: usize, expires: Instant) -> Self {
        Self { payload, weight: pinned as u64 + OVERHEAD, expires }
    }

    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        now < self.expires
    }

    pub(super) fn into_payload(self) -> Bytes {
        self.payload
    }
}

#[derive(Debug)]
pub(super) struct Store<K> {
    cache: Cache<K, Entry, StoredWeight, DefaultHashBuilder, Evictions>,
}

impl<K: Eq + Hash> Store<K> {
    pub(super) fn new(bytes: u64, entry: u64, counters: Counters<CacheEvent>) -> Self {
        // A shard holds entries up to its own share of the cap: each has to hold a few of the largest.
        let shards = (bytes / (4 * (entry + OVERHEAD))).clamp(1, SHARDS);
        let shards = 1 << shards.ilog2();
        let entries =
            usize::try_from(bytes / (4 * OVERHEAD)).unwrap_or(usize::MAX).clamp(32 * SHARDS as usize, 1 << 20);
        let options = OptionsBuilder::new()
            .shards(shards as usize)
            .estimated_items_capacity(entries)
            .weight_capacity(bytes - bytes % shards)
            .build()
            .expect("both required options are set");
        let evictions = Evictions { counters };
        Self { cache: Cache::with_options(options, StoredWeight, DefaultHashBuilder::default(), evictions) }
    }

    pub(super) fn get<Q>(&self, key: &Q) -> Option<Entry>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.cache.get(key)
    }

    pub(super) fn insert(&self, key: K, entry: Entry) {
        let mut removed = RemovedEntries { replacing: true, ..RemovedEntries::default() };
        if let Err((key, entry)) = self.cache.replace_with_lifecycle(key, entry, false, &mut removed) {
            removed.replacing = false;
            self.cache.insert_with_lifecycle(key, entry, &mut removed);
        }
    }

    pub(super) fn remove<Q>(&self, key: &Q) -> Option<Bytes>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.cache.remove(key).map(|(_, entry)| entry.payload)
    }

    /// Removes `key` if it has expired: it may have been inserted again since the look-up.
    pub(super) fn remove_expired<Q>(&self, key: &Q, now: Instant) -> bool
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.cache.remove_if(key, |entry| !entry.is_fresh(now)).is_some()
    }

    pub(super) fn sweep(&self, now: Instant) -> usize {
        let expired = Cell::new(0);
        self.cache.retain(|_, entry| {
            expired.set(expired.get() + usize::from(!entry.is_fresh(now)));
            entry.is_fresh(now)
        });
        expired.get()
    }

    pub(super) fn set_cap(&self, bytes: u64) {
        self.cache.set_capacity(bytes - bytes % self.cache.num_shards() as u64);
    }

    pub(super) fn len(&self) -> usize {
        self.cache.len()
    }

    pub(super) fn weight(&self) -> u64 {
        self.cache.weight()
    }
}

/// Returns the weight that an entry was inserted with.
#[derive(Debug, Clone)]
struct StoredWeight;

impl<K> Weighter<K, Entry> for StoredWeight {
    fn weight(&self, _key: &K, entry: &Entry) -> u64 {
        entry.weight
    }
}

/// The entries that one request removed; dropped after the lock of the storage is released.
#[derive(Debug, Default)]
pub(super) struct RemovedEntries {
    /// The next removed entry is the former one of the key.
    replacing: bool,
    entries: Vec<Entry>,
}

/// Counts the entries that the storage removes.
#[derive(Debug, Clone)]
struct Evictions {
    counters: Counters<CacheEvent>,
}

impl<K> Lifecycle<K, Entry> for Evictions {
    type RequestState = RemovedEntries;

    fn on_evict(&self, removed: &mut RemovedEntries, _key: K, entry: Entry) {
        let replaced = std::mem::take(&mut removed.replacing);
        self.counters.count(if replaced { CacheEvent::Replaced } else { CacheEvent::Evicted });
        removed.entries.push(entry);
    }
}

/// Whether a piece of `len` bytes is too short to keep a buffer of `whole` bytes.
pub(super) fn is_short(len: usize, whole: usize) -> bool {
    whole > PINNED && len < whole / 4
}

/// The payload, the size of its buffer, and whether it had to be copied out of a buffer of which it is a short piece, or
/// which is over `cap`.
///
/// [`Bytes`] does not expose the size of its buffer. The only reference to a buffer can be converted into its mutable form
/// and back without copying, and that form shows whether it has capacity for a given number of bytes more.
pub(super) fn detach(payload: Bytes, cap: u64) -> (Bytes, usize, bool) {
    let len = payload.len();
    match payload.try_into_mut() {
        Err(shared) => (shared, len, false),
        Ok(mut only) => {
            let most = usize::try_from(cap).unwrap_or(usize::MAX).max(len);
            let long = (4 * len + 3).max(PINNED).min(most) + 1;
            if only.try_reclaim(long - len) {
                return (Bytes::copy_from_slice(&only), len, true);
            }
            let pinned = only.capacity();
            (only.freeze(), pinned, false)
        }
    }
}

//! A cache of payloads, bounded in bytes.
//!
//! quick_cache stores and evicts (S3-FIFO, inline: no thread of its own, never above the cap); the policy is here. The
//! weight of a payload is fixed when it is inserted. It is stored and returned as a reference to the same bytes; only a
//! short piece of a large buffer is copied, once, because it would keep the whole buffer. An expired entry is never
//! returned. A key is filled by one caller at a time, and the others wait for its result.

use std::borrow::Borrow;
use std::hash::Hash;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::time::{after, now};
use super::{ByteCap, Cap, Compact, CompactPolicy, Compacted, Counters, Footprint, events};
use crate::inspect::{Details, Inspect, Metric};

mod fill;
mod hit_counter;
mod store;

pub use fill::{Fill, FillError, Lookup, Wait};

use fill::FillTable;
use hit_counter::HitCounter;
use store::{Entry, Store};

/// The limits of a [`ByteCache`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteCacheCaps {
    /// All entries together; default 64 MiB. An entry weighs the buffer that it references and 128 bytes.
    pub bytes: ByteCap,
    /// The largest payload; default 1 MiB. At most a quarter of `bytes`, so that one entry is never most of the cache.
    pub entry: ByteCap,
    /// How long an entry may be returned; default 1 h.
    pub ttl: Duration,
    /// Keys being filled at once; default 1,024.
    pub fills: Cap,
    /// How long [`ByteCache::get_or_fill`] waits for the fill of another caller; default 30 s.
    pub wait: Duration,
}

impl Default for ByteCacheCaps {
    fn default() -> Self {
        Self {
            bytes: ByteCap::of::<{ 64 << 20 }>(),
            entry: ByteCap::of::<{ 1 << 20 }>(),
            ttl: Duration::from_secs(3600),
            fills: Cap::of::<1024>(),
            wait: Duration::from_secs(30),
        }
    }
}

events! {
    /// What a [`ByteCache`] counts. `inserted = in use + evicted + expired + replaced + removed` whenever no operation is in
    /// progress.
    pub enum CacheEvent {
        /// A lookup found its payload.
        Hit = "hit",
        /// A lookup found nothing, or an expired entry.
        Miss = "miss",
        /// A payload was inserted.
        Inserted = "inserted",
        /// A payload was copied out of a larger buffer when it was inserted.
        CopiedOut = "copied_out",
        /// An entry was replaced by another payload of its key. Of two concurrent inserts of a key, the first may count as
        /// evicted.
        Replaced = "replaced",
        /// An entry was [removed](ByteCache::remove).
        Removed = "removed",
        /// An entry was evicted to make room.
        Evicted = "evicted",
        /// An entry was removed because it had expired.
        Expired = "expired",
        /// A caller began to fill a key.
        Filled = "filled",
        /// A caller waited for the fill of another.
        Joined = "joined",
        /// A fill was dropped without a result, and a waiting caller may take over.
        Abandoned = "abandoned",
        /// A payload was not stored: it is over the cap of an entry.
        RefusedTooLarge = "refused_too_large",
        /// A fill was refused: as many keys as may be are being filled.
        RefusedBusy = "refused_busy",
    }
}

/// A payload was not stored because it is over the cap of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a payload of {bytes} bytes is over the cache's cap of {cap} for one")]
pub struct PayloadTooLarge {
    /// Its length in bytes.
    pub bytes: u64,
    /// The cap in force.
    pub cap: u64,
}

/// A cache of payloads by key. Cloning shares it.
///
/// A payload of unknown length is collected first, for instance with a [`Tee`](super::Tee).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use bytes::Bytes;
/// use plimsoll::bounded::{ByteCache, ByteCacheCaps};
///
/// let cache: ByteCache<String> = ByteCache::new("images", ByteCacheCaps::default());
/// let fetch = || async { Ok::<_, std::io::Error>(Bytes::from("pixels")) };
/// let fetched = cache.get_or_fill(&"cat.png".to_owned(), fetch).await?;
/// let cached = cache.get("cat.png", std::time::Instant::now()).unwrap();
/// assert_eq!(cached.as_ptr(), fetched.as_ptr());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ByteCache<K> {
    inner: Arc<CacheInner<K>>,
}

#[derive(Debug)]
struct CacheInner<K> {
    ttl: Duration,
    wait: Duration,
    entry_cap: u64,
    store: Store<K>,
    fills: FillTable<K>,
    hits: HitCounter,
    counters: Counters<CacheEvent>,
}

impl<K> Clone for ByteCache<K> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<K: Eq + Hash + Clone> ByteCache<K> {
    /// An empty cache called `name`.
    pub fn new(name: &str, caps: ByteCacheCaps) -> Self {
        let entries = usize::try_from(caps.bytes.get() / store::OVERHEAD).unwrap_or(Cap::MAX);
        let entries = Cap::new(entries.clamp(1, Cap::MAX)).unwrap_or(Cap::of::<1>());
        let counters = Counters::with_bytes(name, entries, caps.bytes);
        let inner = CacheInner {
            ttl: caps.ttl,
            wait: caps.wait,
            entry_cap: caps.entry.get().min(caps.bytes.get() / 4),
            store: Store::new(caps.bytes.get(), caps.entry.get(), counters.clone()),
            fills: FillTable::new(caps.fills),
            hits: HitCounter::default(),
            counters,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The payload of `key`, if there is one that has not expired at `now`: the same bytes that were inserted.
    pub fn get<Q>(&self, key: &Q, now: Instant) -> Option<Bytes>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let found = self.peek(key, now);
        match found {
            Some(_) => self.inner.hits.increment(),
            None => self.inner.counters.count(CacheEvent::Miss),
        }
        found
    }

    /// Stores `payload` until `now` plus the cache's time to live, replacing the entry of `key`.
    ///
    /// The payload is not copied, unless it is known to be less than a quarter of a buffer of more than 4 KiB, or the buffer to
    /// be over the cap of an entry. That is known when it is the only reference to its buffer; for a piece of a shared one use
    /// [`insert_slice`](Self::insert_slice).
    ///
    /// # Errors
    /// [`PayloadTooLarge`]; the entry of `key` is unchanged.
    pub fn insert(&self, key: K, payload: Bytes, now: Instant) -> Result<(), PayloadTooLarge> {
        self.insert_for(key, payload, self.inner.ttl, now)
    }

    /// [`insert`](Self::insert) with a time to live of its own; the cache's is the longest.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn insert_for(&self, key: K, payload: Bytes, ttl: Duration, now: Instant) -> Result<(), PayloadTooLarge> {
        self.store_detached(key, payload, ttl, now).map(drop).map_err(|(too_large, _)| too_large)
    }

    /// Stores the piece `range` of `whole`: as a reference that weighs as much as all of `whole`, or as a copy when it is less
    /// than a quarter of it and `whole` is over 4 KiB.
    ///
    /// # Errors
    /// [`PayloadTooLarge`] for a piece, or a referenced `whole`, over the cap of an entry; the entry of `key` is unchanged.
    ///
    /// # Panics
    /// When `range` is not within `whole`.
    pub fn insert_slice(
        &self,
        key: K,
        whole: &Bytes,
        range: Range<usize>,
        now: Instant,
    ) -> Result<(), PayloadTooLarge> {
        let slice = whole.slice(range);
        self.check(slice.len())?;
        if store::is_short(slice.len(), whole.len()) {
            let copy = Bytes::copy_from_slice(&slice);
            self.store(key, copy, slice.len(), true, self.inner.ttl, now);
        } else {
            self.check(whole.len())?;
            self.store(key, slice, whole.len(), false, self.inner.ttl, now);
        }
        Ok(())
    }

    /// Looks `key` up. Without an entry the caller gets the right to fill it, or waits for the caller that has it.
    ///
    /// This is [`get_or_fill`](Self::get_or_fill) in steps, for callers that have the payload only after they have passed it
    /// on, as with a [`Tee`](super::Tee).
    ///
    /// # Errors
    /// [`FillError::Busy`] when `key` has to be filled and as many keys as may be are being filled.
    pub fn lookup(&self, key: &K, now: Instant) -> Result<Lookup<K>, FillError> {
        if let Some(payload) = self.get(key, now) {
            return Ok(Lookup::Hit(payload));
        }
        self.inner.fills.join_or_start(self, key, now)
    }

    /// The payload of `key`, filled by `fill` if there is none. While one caller fills, other callers of the key wait for the
    /// same result; an error is returned to all of them.
    ///
    /// # Errors
    /// [`FillError`]: the fill failed or panicked, the one of another caller took longer than [`ByteCacheCaps::wait`], or too
    /// many keys are being filled.
    ///
    /// Cancel safe: a caller that is dropped while it fills leaves the fill to one of those that wait.
    pub async fn get_or_fill<F, E>(&self, key: &K, fill: impl FnOnce() -> F) -> Result<Bytes, FillError>
    where
        F: Future<Output = Result<Bytes, E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        loop {
            match self.lookup(key, now())? {
                Lookup::Hit(payload) => return Ok(payload),
                Lookup::Wait(wait) => match wait.result_within(self.inner.wait).await {
                    Ok(Some(result)) => return result,
                    Ok(None) => {}
                    Err(timed_out) => return Err(timed_out),
                },
                Lookup::Fill(filling) => {
                    return match fill().await {
                        Ok(payload) => Ok(filling.publish(payload, now())),
                        Err(error) => Err(filling.fail(error)),
                    };
                }
            }
        }
    }

    /// Removes the entry of `key`.
    pub fn remove<Q>(&self, key: &Q) -> Option<Bytes>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let removed = self.inner.store.remove(key);
        self.inner.counters.count_many(CacheEvent::Removed, u64::from(removed.is_some()));
        self.update_gauges();
        removed
    }

    /// Removes every expired entry and returns how many. O(entries): for the owner's slow tick, and under pressure. Between two
    /// sweeps such entries are never returned, and one is removed when it is looked up.
    pub fn sweep(&self, now: Instant) -> usize {
        let expired = self.inner.store.sweep(now);
        self.inner.counters.count_many(CacheEvent::Expired, expired as u64);
        self.update_gauges();
        expired
    }

    /// Changes the cap in bytes, for instance under pressure; entries over a lowered one are evicted at once.
    pub fn set_cap(&self, bytes: ByteCap) {
        self.inner.store.set_cap(bytes.get());
        if let Some(usage) = self.inner.counters.bytes() {
            usage.set_cap(bytes.get());
        }
        self.update_gauges();
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.inner.store.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Weight of all entries, in bytes.
    pub fn weight(&self) -> u64 {
        self.inner.store.weight()
    }

    /// Keys being filled now.
    pub fn filling(&self) -> usize {
        self.inner.fills.len()
    }

    /// The counters, with all hits until now and what is in use now.
    pub fn counters(&self) -> &Counters<CacheEvent> {
        self.update_gauges();
        self.inner.counters.count_many(CacheEvent::Hit, self.inner.hits.take());
        &self.inner.counters
    }

    /// [`get`](Self::get) without counting.
    fn peek<Q>(&self, key: &Q, now: Instant) -> Option<Bytes>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let entry = self.inner.store.get(key)?;
        if entry.is_fresh(now) {
            return Some(entry.into_payload());
        }
        if self.inner.store.remove_expired(key, now) {
            self.inner.counters.count(CacheEvent::Expired);
            self.update_gauges();
        }
        None
    }

    fn check(&self, bytes: usize) -> Result<(), PayloadTooLarge> {
        let cap = self.inner.entry_cap;
        if bytes as u64 <= cap {
            return Ok(());
        }
        self.inner.counters.count(CacheEvent::RefusedTooLarge);
        Err(PayloadTooLarge { bytes: bytes as u64, cap })
    }

    /// Stores a payload, copied out of its buffer where necessary, and returns what is stored.
    fn store_detached(
        &self,
        key: K,
        payload: Bytes,
        ttl: Duration,
        now: Instant,
    ) -> Result<Bytes, (PayloadTooLarge, Bytes)> {
        if let Err(too_large) = self.check(payload.len()) {
            return Err((too_large, payload));
        }
        let (payload, pinned, copied) = store::detach(payload, self.inner.entry_cap);
        self.store(key, payload.clone(), pinned, copied, ttl, now);
        Ok(payload)
    }

    fn store(&self, key: K, payload: Bytes, pinned: usize, copied: bool, ttl: Duration, now: Instant) {
        if copied {
            self.inner.counters.count(CacheEvent::CopiedOut);
        }
        self.inner.counters.count(CacheEvent::Inserted);
        self.inner.store.insert(key, Entry::new(payload, pinned, after(now, ttl.min(self.inner.ttl))));
        self.update_gauges();
    }

    fn update_gauges(&self) {
        self.inner.counters.entries().set(self.len() as u64);
        if let Some(bytes) = self.inner.counters.bytes() {
            bytes.set(self.weight());
        }
    }
}

impl<K: Eq + Hash + Clone + Send + Sync + 'static> Inspect for ByteCache<K> {
    fn inspect(&self) -> Details {
        let mut details = self.counters().inspect();
        details.counters.insert(format!("{}_filling", self.counters().name()), Metric::gauge(self.filling() as u64));
        details
    }
}

/// The table of fills. The entries are payload within the cap: [`ByteCache::sweep`] and [`ByteCache::set_cap`] release them.
impl<K: Eq + Hash + Clone> Compact for ByteCache<K> {
    fn footprint(&self) -> Footprint {
        self.inner.fills.footprint()
    }

    fn compact(&mut self, policy: &CompactPolicy) -> Compacted {
        self.inner.fills.compact(policy)
    }
}

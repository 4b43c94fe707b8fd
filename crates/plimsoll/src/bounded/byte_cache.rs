//! Payloads kept within a number of bytes.
//!
//! quick_cache stores and evicts (S3-FIFO, inline: no thread of its own, nothing above the cap even for a moment); what is
//! here is the policy. A payload's weight is fixed when it comes in. It goes in and out as a reference to the same bytes;
//! only a short piece of a large buffer is copied, once, for it would pin the whole of it. An entry past its time is never
//! returned. And one key is filled by one caller at a time, on whom the others wait.

use std::borrow::Borrow;
use std::hash::Hash;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::time::after;
use super::{ByteCap, Cap, Compact, CompactPolicy, Compacted, Counters, Footprint, events};
use crate::inspect::{Details, Inspect};

mod flight;
mod hits;
mod store;

pub use flight::{Fill, FillError, Lookup, Wait};

use flight::Flights;
use hits::Hits;
use store::{Entry, Store};

/// The limits of a [`ByteCache`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteCacheCaps {
    /// All entries together; default 64 MiB. An entry weighs the buffer that it holds on to and 128 bytes.
    pub bytes: ByteCap,
    /// The largest payload; default 1 MiB. At most a quarter of `bytes`, so that one entry never is most of the cache.
    pub entry: ByteCap,
    /// How long an entry may be returned; default 1 h.
    pub ttl: Duration,
    /// Keys being filled at one time; default 1,024.
    pub fills: Cap,
}

impl Default for ByteCacheCaps {
    fn default() -> Self {
        Self {
            bytes: ByteCap::of::<{ 64 << 20 }>(),
            entry: ByteCap::of::<{ 1 << 20 }>(),
            ttl: Duration::from_secs(3600),
            fills: Cap::of::<1024>(),
        }
    }
}

events! {
    /// What a [`ByteCache`] counts. `inserted = in use + evicted + expired + replaced + removed`
    /// whenever nobody is about to change something.
    pub enum CacheEvent {
        /// A lookup found its payload.
        Hit = "hit",
        /// A lookup found nothing, or nothing that is still good.
        Miss = "miss",
        /// A payload came in.
        Inserted = "inserted",
        /// A payload was copied out of a larger buffer on its way in.
        CopiedOut = "copied_out",
        /// An entry went because its key got another payload. When two put the same key at one moment, that of the first may
        /// count as evicted.
        Replaced = "replaced",
        /// An entry went because it was [removed](ByteCache::remove).
        Removed = "removed",
        /// An entry went to make room.
        Evicted = "evicted",
        /// An entry went because its time was up.
        Expired = "expired",
        /// A caller began to fill a key.
        Filled = "filled",
        /// A caller waited for another's fill.
        Joined = "joined",
        /// A fill ended without telling a result, and a waiting caller took over.
        Abandoned = "abandoned",
        /// A payload was not kept: it is over the cap of an entry.
        RefusedTooLarge = "refused_too_large",
        /// A fill was refused: as many keys as may be are being filled.
        RefusedBusy = "refused_busy",
    }
}

/// A payload that is not kept because it is over the cap of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a payload of {bytes} bytes is over the cache's cap of {cap} for one")]
pub struct PayloadTooLarge {
    /// Its length.
    pub bytes: u64,
    /// The cap in force.
    pub cap: u64,
}

/// A cache of payloads by key. Cloning shares it.
///
/// A payload of unknown length has no place here: collect it first, for instance with a [`Tee`](super::Tee).
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
    shared: Arc<Shared<K>>,
}

#[derive(Debug)]
struct Shared<K> {
    ttl: Duration,
    entry_cap: u64,
    store: Store<K>,
    flights: Flights<K>,
    hits: Hits,
    counters: Counters<CacheEvent>,
}

impl<K> Clone for ByteCache<K> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<K: Eq + Hash + Clone> ByteCache<K> {
    /// An empty cache called `name`.
    pub fn new(name: &str, caps: ByteCacheCaps) -> Self {
        let entries = usize::try_from(caps.bytes.get() / store::OVERHEAD).unwrap_or(Cap::MAX);
        let entries = Cap::new(entries.clamp(1, Cap::MAX)).unwrap_or(Cap::of::<1>());
        let counters = Counters::with_bytes(name, entries, caps.bytes);
        let shared = Shared {
            ttl: caps.ttl,
            entry_cap: caps.entry.get().min(caps.bytes.get() / 4),
            store: Store::new(caps.bytes.get(), caps.entry.get(), counters.clone()),
            flights: Flights::new(caps.fills),
            hits: Hits::default(),
            counters,
        };
        Self { shared: Arc::new(shared) }
    }

    /// The payload of `key`, if it is there and its time is not up at `now`: the same bytes that came in.
    pub fn get<Q>(&self, key: &Q, now: Instant) -> Option<Bytes>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let found = self.peek(key, now);
        match found {
            Some(_) => self.shared.hits.one(),
            None => self.shared.counters.count(CacheEvent::Miss),
        }
        found
    }

    /// Keeps `payload` until `now` plus the time to live, in place of what `key` had.
    ///
    /// The payload is not copied, unless it is known to be less than a quarter of a buffer of more than 4 KiB, or the buffer to
    /// be over the cap of an entry. That is known when it is the only reference to its buffer; for a piece of a shared one use
    /// [`insert_slice`](Self::insert_slice).
    ///
    /// # Errors
    /// [`PayloadTooLarge`]; what `key` had stays.
    pub fn insert(&self, key: K, payload: Bytes, now: Instant) -> Result<(), PayloadTooLarge> {
        self.keep_own(key, payload, now).map(drop).map_err(|(too_large, _)| too_large)
    }

    /// Keeps the piece `range` of `whole`: as a reference that weighs as much as all of `whole`, or as a copy when it is less
    /// than a quarter of it and `whole` is over 4 KiB.
    ///
    /// # Errors
    /// [`PayloadTooLarge`] for a piece, or a referenced `whole`, over the cap of an entry; what `key` had stays.
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
            self.keep(key, copy, slice.len(), true, now);
        } else {
            self.check(whole.len())?;
            self.keep(key, slice, whole.len(), false, now);
        }
        Ok(())
    }

    /// Looks `key` up; when it is not there, makes the caller the one who fills it, or one who waits for whoever does.
    ///
    /// This is [`get_or_fill`](Self::get_or_fill) in steps, for callers who have the payload only when it has passed through
    /// their hands, as with a [`Tee`](super::Tee).
    ///
    /// # Errors
    /// [`FillError::Busy`] when `key` would have to be filled and as many keys as may be are.
    pub fn lookup(&self, key: &K, now: Instant) -> Result<Lookup<K>, FillError> {
        if let Some(payload) = self.get(key, now) {
            return Ok(Lookup::Hit(payload));
        }
        self.shared.flights.board(self, key, now)
    }

    /// The payload of `key`, filled by `fill` if it is not there. While one caller fills, the others who ask for the key wait
    /// for the same result; an error, too, is told to all of them.
    ///
    /// # Errors
    /// [`FillError`]: the fill failed or panicked, or too many keys are being filled.
    ///
    /// Cancel safe: a caller that gives up while it fills leaves the fill to one of those who wait.
    pub async fn get_or_fill<F, E>(&self, key: &K, fill: impl FnOnce() -> F) -> Result<Bytes, FillError>
    where
        F: Future<Output = Result<Bytes, E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        loop {
            match self.lookup(key, now())? {
                Lookup::Hit(payload) => return Ok(payload),
                Lookup::Wait(wait) => {
                    if let Some(result) = wait.result().await {
                        return result;
                    }
                }
                Lookup::Fill(filling) => {
                    return match fill().await {
                        Ok(payload) => Ok(filling.publish(payload, now())),
                        Err(error) => Err(filling.fail(error)),
                    };
                }
            }
        }
    }

    /// Drops what `key` has.
    pub fn remove<Q>(&self, key: &Q) -> Option<Bytes>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let removed = self.shared.store.remove(key);
        self.shared.counters.count_many(CacheEvent::Removed, u64::from(removed.is_some()));
        self.show();
        removed
    }

    /// Drops every entry whose time is up; how many. O(entries): for the owner's slow tick, and under pressure. Between two
    /// sweeps such entries are never returned, and go first when they are asked for.
    pub fn sweep(&self, now: Instant) -> usize {
        let expired = self.shared.store.sweep(now);
        self.shared.counters.count_many(CacheEvent::Expired, expired as u64);
        self.show();
        expired
    }

    /// Changes the cap in bytes, as under pressure; what is over a smaller one is evicted at once.
    pub fn set_cap(&self, bytes: ByteCap) {
        self.shared.store.set_cap(bytes.get());
        if let Some(usage) = self.shared.counters.bytes() {
            usage.set_cap(bytes.get());
        }
        self.show();
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.shared.store.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the entries weigh.
    pub fn weight(&self) -> u64 {
        self.shared.store.weight()
    }

    /// Keys being filled now.
    pub fn filling(&self) -> usize {
        self.shared.flights.len()
    }

    /// The counters, with all hits until now and what is in use now.
    pub fn counters(&self) -> &Counters<CacheEvent> {
        self.show();
        self.shared.counters.count_many(CacheEvent::Hit, self.shared.hits.collect());
        &self.shared.counters
    }

    /// [`get`](Self::get) without counting.
    fn peek<Q>(&self, key: &Q, now: Instant) -> Option<Bytes>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let entry = self.shared.store.get(key)?;
        if entry.is_good(now) {
            return Some(entry.into_payload());
        }
        if self.shared.store.remove_expired(key, now) {
            self.shared.counters.count(CacheEvent::Expired);
            self.show();
        }
        None
    }

    fn check(&self, bytes: usize) -> Result<(), PayloadTooLarge> {
        let cap = self.shared.entry_cap;
        if bytes as u64 <= cap {
            return Ok(());
        }
        self.shared.counters.count(CacheEvent::RefusedTooLarge);
        Err(PayloadTooLarge { bytes: bytes as u64, cap })
    }

    /// Keeps a payload, copied out of its buffer where that is called for, and returns what it keeps.
    fn keep_own(&self, key: K, payload: Bytes, now: Instant) -> Result<Bytes, (PayloadTooLarge, Bytes)> {
        if let Err(too_large) = self.check(payload.len()) {
            return Err((too_large, payload));
        }
        let (payload, pinned, copied) = store::own(payload, self.shared.entry_cap);
        self.keep(key, payload.clone(), pinned, copied, now);
        Ok(payload)
    }

    fn keep(&self, key: K, payload: Bytes, pinned: usize, copied: bool, now: Instant) {
        if copied {
            self.shared.counters.count(CacheEvent::CopiedOut);
        }
        self.shared.counters.count(CacheEvent::Inserted);
        self.shared.store.insert(key, Entry::new(payload, pinned, after(now, self.shared.ttl)));
        self.show();
    }

    fn show(&self) {
        self.shared.counters.entries().set(self.len() as u64);
        if let Some(bytes) = self.shared.counters.bytes() {
            bytes.set(self.weight());
        }
    }
}

impl<K: Eq + Hash + Clone + Send + Sync + 'static> Inspect for ByteCache<K> {
    fn inspect(&self) -> Details {
        let mut details = self.counters().inspect();
        details.counters.insert(format!("{}_filling", self.counters().name()), self.filling() as u64);
        details
    }
}

/// The table of fills. The entries themselves are payload within its cap: [`ByteCache::sweep`] and [`ByteCache::set_cap`]
/// are what gives them back.
impl<K: Eq + Hash + Clone> Compact for ByteCache<K> {
    fn footprint(&self) -> Footprint {
        self.shared.flights.footprint()
    }

    fn compact(&mut self, policy: &CompactPolicy) -> Compacted {
        self.shared.flights.compact(policy)
    }
}

/// Tokio's clock, so that paused time pauses this too.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

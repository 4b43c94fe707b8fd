//! One fill per key: the first caller that finds no entry fills it, the others wait for the result.
//!
//! A fill is in the table from the lookup that found nothing until its owner publishes, fails or drops it. Publishing stores
//! the payload before the fill leaves the table, and a caller that joins looks into the cache under the table's lock, so a
//! key that was filled is at every moment cached or being filled.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{ByteCache, CacheEvent};
use crate::bounded::{Cap, Compact, CompactPolicy, Compacted, Footprint};

/// Why a key could not be filled.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FillError {
    /// The fill failed; all callers that waited for it get this error.
    #[error("the fill failed")]
    Failed(#[source] Arc<dyn Error + Send + Sync>),
    /// The fill panicked.
    #[error("the fill panicked")]
    Panicked,
    /// The fill of another caller took too long; it goes on.
    #[error("another caller's fill took longer than {0:?}")]
    WaitTimedOut(Duration),
    /// As many keys as may be are being filled.
    #[error("all {cap} fills are taken")]
    Busy {
        /// The cap.
        cap: usize,
    },
}

/// The result of a lookup.
#[derive(Debug)]
#[must_use = "a dropped fill is left to the callers that wait for it"]
pub enum Lookup<K: Eq + Hash + Clone> {
    /// There is an entry.
    Hit(Bytes),
    /// There is none, and the caller is to fill it.
    Fill(Fill<K>),
    /// There is none, and another caller is filling it.
    Wait(Wait),
}

type FillResult = Option<Result<Bytes, FillError>>;

/// The right and the duty to fill one key. When it is dropped without a result, a caller that waits can take over.
pub struct Fill<K: Eq + Hash + Clone> {
    cache: ByteCache<K>,
    key: K,
    outcome: watch::Sender<FillResult>,
}

/// The fill of another caller.
#[derive(Debug)]
pub struct Wait {
    outcome: watch::Receiver<FillResult>,
}

/// The fills in progress.
#[derive(Debug)]
pub(super) struct FillTable<K> {
    cap: Cap,
    table: Mutex<HashMap<K, watch::Receiver<FillResult>>>,
}

impl<K: Eq + Hash + Clone> FillTable<K> {
    pub(super) fn new(cap: Cap) -> Self {
        Self { cap, table: Mutex::new(HashMap::new()) }
    }

    /// Joins the fill of `key`, or starts it.
    pub(super) fn join_or_start(&self, cache: &ByteCache<K>, key: &K, now: Instant) -> Result<Lookup<K>, FillError> {
        let counters = &cache.inner.counters;
        let mut table = self.table.lock();
        if let Some(outcome) = table.get(key) {
            counters.count(CacheEvent::Joined);
            return Ok(Lookup::Wait(Wait { outcome: outcome.clone() }));
        }
        if let Some(payload) = cache.peek(key, now) {
            return Ok(Lookup::Hit(payload));
        }
        if table.len() >= self.cap.get() {
            counters.count(CacheEvent::RefusedBusy);
            return Err(FillError::Busy { cap: self.cap.get() });
        }
        counters.count(CacheEvent::Filled);
        let (outcome, waiting) = watch::channel(None);
        table.insert(key.clone(), waiting);
        Ok(Lookup::Fill(Fill { cache: cache.clone(), key: key.clone(), outcome }))
    }

    pub(super) fn len(&self) -> usize {
        self.table.lock().len()
    }

    pub(super) fn footprint(&self) -> Footprint {
        self.table.lock().footprint()
    }

    pub(super) fn compact(&self, policy: &CompactPolicy) -> Compacted {
        self.table.lock().compact(policy)
    }
}

impl<K: Eq + Hash + Clone> Fill<K> {
    /// The key to fill.
    pub fn key(&self) -> &K {
        &self.key
    }

    /// How many callers wait for this fill.
    pub fn waiting(&self) -> usize {
        // One receiver is the table's own.
        self.outcome.receiver_count().saturating_sub(1)
    }

    /// Stores the payload and returns it to all callers that wait. One that is over the cap of an entry is returned to them
    /// and not stored.
    pub fn publish(self, payload: Bytes, now: Instant) -> Bytes {
        let ttl = self.cache.inner.ttl;
        self.publish_for(payload, ttl, now)
    }

    /// [`publish`](Self::publish) with a time to live of its own; the cache's is the longest.
    pub fn publish_for(self, payload: Bytes, ttl: Duration, now: Instant) -> Bytes {
        // What is stored is returned: where a short piece was copied out of a large buffer, the buffer can be dropped.
        let stored = self.cache.store_detached(self.key.clone(), payload, ttl, now);
        let payload = stored.unwrap_or_else(|(_, payload)| payload);
        self.settle(Ok(payload.clone()));
        payload
    }

    /// Fails the fill for all callers that wait, and returns the error that they get.
    pub fn fail(self, error: impl Into<Box<dyn Error + Send + Sync>>) -> FillError {
        let error = FillError::Failed(Arc::from(error.into()));
        self.settle(Err(error.clone()));
        error
    }

    fn settle(&self, result: Result<Bytes, FillError>) {
        self.outcome.send_replace(Some(result));
    }
}

impl<K: Eq + Hash + Clone> Drop for Fill<K> {
    fn drop(&mut self) {
        if self.outcome.borrow().is_none() {
            if std::thread::panicking() {
                self.settle(Err(FillError::Panicked));
            } else {
                self.cache.inner.counters.count(CacheEvent::Abandoned);
            }
        }
        // INVARIANT: a key is in the table exactly as long as its `Fill` exists, so this entry is its own.
        self.cache.inner.fills.table.lock().remove(&self.key);
    }
}

impl<K: Eq + Hash + Clone + fmt::Debug> fmt::Debug for Fill<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fill").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Wait {
    /// [`result`](Self::result), waited for at most `time`.
    ///
    /// # Errors
    /// [`FillError::WaitTimedOut`].
    ///
    /// Cancel safe.
    pub async fn result_within(self, time: Duration) -> Result<Option<Result<Bytes, FillError>>, FillError> {
        tokio::time::timeout(time, self.result()).await.map_err(|_| FillError::WaitTimedOut(time))
    }

    /// The result of the fill; `None` when it was dropped without one: look up again.
    ///
    /// Cancel safe.
    pub async fn result(mut self) -> Option<Result<Bytes, FillError>> {
        self.outcome.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone())
    }
}

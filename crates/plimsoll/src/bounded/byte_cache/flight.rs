//! One fill a key: whoever finds nothing first fills, the others wait for the result.
//!
//! A fill is in the table from the lookup that found nothing until it is settled by its owner: published, failed, or
//! dropped. Publishing puts the payload into the cache before the fill leaves the table, and boarding looks into the
//! cache under the table's lock, so that there is no moment at which a key is neither cached nor being filled.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{ByteCache, CacheEvent};
use crate::bounded::{Cap, Compact, CompactPolicy, Compacted, Footprint};

/// Why a key could not be filled.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FillError {
    /// The fill failed; everybody who waited for it is told the same.
    #[error("the fill failed")]
    Failed(#[source] Arc<dyn Error + Send + Sync>),
    /// The fill panicked.
    #[error("the fill panicked")]
    Panicked,
    /// As many keys as may be are being filled.
    #[error("all {cap} fills are taken")]
    Busy {
        /// The cap.
        cap: usize,
    },
}

/// What a lookup came to.
#[derive(Debug)]
#[must_use = "a dropped fill is left to those who wait for it"]
pub enum Lookup<K: Eq + Hash + Clone> {
    /// The payload is there.
    Hit(Bytes),
    /// It is not, and the caller is the one to fill it.
    Fill(Fill<K>),
    /// Another caller is filling it.
    Wait(Wait),
}

type Outcome = Option<Result<Bytes, FillError>>;

/// The right and the duty to fill one key. Dropped unsettled, it goes to one of those who wait.
pub struct Fill<K: Eq + Hash + Clone> {
    cache: ByteCache<K>,
    key: K,
    outcome: watch::Sender<Outcome>,
}

/// Another caller's fill.
#[derive(Debug)]
pub struct Wait {
    outcome: watch::Receiver<Outcome>,
}

/// The fills under way.
#[derive(Debug)]
pub(super) struct Flights<K> {
    cap: Cap,
    table: Mutex<HashMap<K, watch::Receiver<Outcome>>>,
}

impl<K: Eq + Hash + Clone> Flights<K> {
    pub(super) fn new(cap: Cap) -> Self {
        Self { cap, table: Mutex::new(HashMap::new()) }
    }

    /// Joins the fill of `key`, or begins it.
    pub(super) fn board(&self, cache: &ByteCache<K>, key: &K, now: Instant) -> Result<Lookup<K>, FillError> {
        let counters = &cache.shared.counters;
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

    /// How many wait for this fill now.
    pub fn waiting(&self) -> usize {
        // One receiver is the table's own.
        self.outcome.receiver_count().saturating_sub(1)
    }

    /// Keeps the payload and gives it to everybody who waits. One that is over the cap of an entry is given all the same, and
    /// not kept.
    pub fn publish(self, payload: Bytes, now: Instant) -> Bytes {
        // What is kept is what is handed on: where a short piece was copied out of a large buffer, the buffer can go.
        let payload = self.cache.keep_own(self.key.clone(), payload, now).unwrap_or_else(|(_, payload)| payload);
        self.settle(Ok(payload.clone()));
        payload
    }

    /// Tells everybody who waits that the fill failed, and returns what they are told.
    pub fn fail(self, error: impl Into<Box<dyn Error + Send + Sync>>) -> FillError {
        let error = FillError::Failed(Arc::from(error.into()));
        self.settle(Err(error.clone()));
        error
    }

    fn settle(&self, outcome: Result<Bytes, FillError>) {
        self.outcome.send_replace(Some(outcome));
    }
}

impl<K: Eq + Hash + Clone> Drop for Fill<K> {
    fn drop(&mut self) {
        if self.outcome.borrow().is_none() {
            if std::thread::panicking() {
                self.settle(Err(FillError::Panicked));
            } else {
                self.cache.shared.counters.count(CacheEvent::Abandoned);
            }
        }
        // INVARIANT: a key is in the table exactly as long as its `Fill` lives; nobody else can have inserted it again.
        self.cache.shared.flights.table.lock().remove(&self.key);
    }
}

impl<K: Eq + Hash + Clone + fmt::Debug> fmt::Debug for Fill<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fill").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Wait {
    /// The result of the fill; `None` when whoever filled left without one: look up again.
    ///
    /// Cancel safe.
    pub async fn result(mut self) -> Option<Result<Bytes, FillError>> {
        self.outcome.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone())
    }
}

//! The asynchronous shell around a pool: callers that wait, connections that are made and closed.

mod guards;
mod shared;

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, timeout_at};
use tokio_util::sync::CancellationToken;

pub use self::guards::DialLease;
use self::guards::Waiting;
use self::shared::{Shared, now};
use super::{EntryKey, LruPool, PoolEvent, PoolRefusal, PoolSettings, Requested, WhenFull};
use crate::bounded::{Cap, Compact, CompactPolicy, Compacted, Counters, Footprint};
use crate::inspect::{Details, Inspect};

/// What can name a handle.
pub trait Key: Eq + Hash + Clone + Send + Sync + 'static {}

impl<T: Eq + Hash + Clone + Send + Sync + 'static> Key for T {}

/// How the handles of a [`DialPool`] are made and closed.
pub trait Connect<K: Key>: Send + Sync + 'static {
    /// A handle: cheap to clone, as each lease holds a clone.
    type Handle: Clone + Send + Sync + 'static;
    /// Why a handle could not be made, or not be closed properly.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Makes a handle. Dropped when it outlasts [`PoolSettings::connect_time`] or nobody waits for it any more.
    fn connect(&self, key: &K) -> impl Future<Output = Result<Self::Handle, Self::Error>> + Send;

    /// Closes a handle, of which no lease is left. Dropped when it outlasts [`PoolSettings::close_time`]; dropping the
    /// handle has to close it the hard way.
    fn close(&self, key: &K, handle: Self::Handle) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// Why there is no lease.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError<E> {
    /// The pool refuses.
    #[error(transparent)]
    Refused(#[from] PoolRefusal),
    /// The handle could not be made; all that waited for it are told the same.
    #[error("the connection could not be made")]
    Connect(#[source] Arc<E>),
    /// Making it outlasted [`PoolSettings::connect_time`].
    #[error("connecting took longer than {0:?}")]
    ConnectTimedOut(Duration),
    /// Making it panicked.
    #[error("connecting panicked")]
    Panicked,
    /// The caller's deadline passed; the attempt goes on for whoever else waits for it.
    #[error("the deadline passed before there was a connection")]
    TimedOut,
}

impl<E> Clone for LeaseError<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Refused(refusal) => Self::Refused(refusal.clone()),
            Self::Connect(error) => Self::Connect(error.clone()),
            Self::ConnectTimedOut(limit) => Self::ConnectTimedOut(*limit),
            Self::Panicked => Self::Panicked,
            Self::TimedOut => Self::TimedOut,
        }
    }
}

/// A pool that several tasks lease from. Cloning shares it.
///
/// A hit is one short critical section. Handles are made and closed in tasks of their own, at most one for each place of
/// the pool; [`DialPool::run`] is the child that closes idle ones, and everything at the end.
///
/// ```
/// use std::time::{Duration, Instant};
/// use plimsoll::bounded::pool::{Connect, DialPool, PoolSettings, WhenFull};
///
/// struct Echo;
///
/// impl Connect<u16> for Echo {
///     type Handle = u16;
///     type Error = std::io::Error;
///     async fn connect(&self, port: &u16) -> Result<u16, std::io::Error> { Ok(*port) }
///     async fn close(&self, _: &u16, _: u16) -> Result<(), std::io::Error> { Ok(()) }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let pool = DialPool::new(PoolSettings::default(), Echo);
/// let lease = pool.lease(&80, WhenFull::Refuse, Instant::now() + Duration::from_secs(1)).await.unwrap();
/// assert_eq!(*lease, 80);
/// # });
/// ```
pub struct DialPool<K: Key, C: Connect<K>> {
    shared: Arc<Shared<K, C>>,
}

impl<K: Key, C: Connect<K>> DialPool<K, C> {
    /// An empty pool, whose tasks run on the runtime that this is called in.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(settings: PoolSettings, connect: C) -> Self {
        Self { shared: Arc::new(Shared::new(LruPool::new(settings), connect)) }
    }

    /// Takes the handle of `key` from the pool, making it if there is none.
    ///
    /// Concurrent callers for one key share a single attempt. When the pool is full the idle handle used longest ago is
    /// closed to make room; a leased one never is.
    ///
    /// # Errors
    /// [`LeaseError`]: the pool refuses, the handle cannot be made, or `deadline` passes.
    ///
    /// Cancel safe: a caller that gives up leaves the attempt to the others, or ends it when it was the last.
    pub async fn lease(
        &self,
        key: &K,
        when_full: WhenFull,
        deadline: Instant,
    ) -> Result<DialLease<K, C>, LeaseError<C::Error>> {
        if let Some(lease) = self.hit(key) {
            return Ok(lease);
        }
        let (waiter, answer) = oneshot::channel();
        let asked = self.shared.act(|state| state.pool.request(key, when_full, waiter, now()));
        let wait = match asked {
            Requested::Leased(lease) => {
                return self.shared.guard(lease).ok_or(LeaseError::Refused(PoolRefusal::Closed));
            }
            Requested::Refused(refusal, _) => return Err(refusal.into()),
            Requested::Waiting(wait) => wait,
        };
        let mut waiting = Waiting::new(&self.shared, wait);
        match timeout_at(deadline.into(), answer).await {
            Ok(answer) => {
                waiting.over();
                answer.unwrap_or(Err(LeaseError::Refused(PoolRefusal::Closed)))
            }
            Err(_) => Err(LeaseError::TimedOut),
        }
    }

    /// The handle of `key`, if it is there and may be used at once.
    pub fn hit(&self, key: &K) -> Option<DialLease<K, C>> {
        let mut state = self.shared.lock();
        let lease = state.pool.hit(key)?;
        let handle = state.pool.value(lease.entry()).cloned()?;
        Some(DialLease::new(self.shared.clone(), lease, handle))
    }

    /// Puts in a handle that came to be elsewhere; see [`LruPool::insert`].
    ///
    /// # Errors
    /// The refusal, with the handle.
    pub fn insert(&self, key: K, handle: C::Handle) -> Result<EntryKey, (PoolRefusal, C::Handle)> {
        self.shared.act(|state| state.pool.insert(key, handle, now()))
    }

    /// Takes a handle out because it has ended; see [`LruPool::retire`].
    pub fn retire(&self, entry: EntryKey) -> bool {
        self.shared.act(|state| state.pool.retire(entry))
    }

    /// The handle of `key` without using it.
    pub fn find(&self, key: &K) -> Option<(EntryKey, C::Handle)> {
        let state = self.shared.lock();
        state.pool.find(key).map(|(entry, handle)| (entry, handle.clone()))
    }

    /// Changes the cap; see [`LruPool::set_cap`].
    pub fn set_cap(&self, cap: Cap) {
        self.shared.act(|state| state.pool.set_cap(cap));
    }

    /// The counters.
    pub fn counters(&self) -> &Counters<PoolEvent> {
        self.shared.counters()
    }

    /// Closes idle handles as their time comes, until `stop`; then closes the pool and waits for the last handle. To be run
    /// as a task child of a supervisor.
    ///
    /// An idle handle is closed at the latest a tenth of [`PoolSettings::idle_time`] after its time. Ticks that were missed
    /// are not made up for.
    ///
    /// Cancel safe: handles whose closing had begun are closed by tasks of their own.
    pub async fn run(&self, stop: CancellationToken) {
        let tick = (self.shared.idle_time() / 10).clamp(Duration::from_millis(10), Duration::from_secs(60));
        let mut ticks = tokio::time::interval(tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.shared.act(|state| state.pool.expire(now()));
        }
        self.close().await;
    }

    /// Closes the pool and waits until every handle is closed: at once for idle ones, after their last lease for others. It
    /// has no deadline; whoever shuts down has one.
    ///
    /// Cancel safe: the pool is closed with the first poll.
    pub async fn close(&self) {
        self.shared.close().await;
    }
}

impl<K: Key, C: Connect<K>> Clone for DialPool<K, C> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<K: Key, C: Connect<K>> fmt::Debug for DialPool<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DialPool").field("counters", self.shared.counters()).finish_non_exhaustive()
    }
}

impl<K: Key, C: Connect<K>> Inspect for DialPool<K, C> {
    fn inspect(&self) -> Details {
        self.shared.counters().inspect()
    }
}

impl<K: Key, C: Connect<K>> Compact for DialPool<K, C> {
    fn footprint(&self) -> Footprint {
        self.shared.lock().pool.footprint()
    }

    fn compact(&mut self, policy: &CompactPolicy) -> Compacted {
        self.shared.lock().pool.compact(policy)
    }
}

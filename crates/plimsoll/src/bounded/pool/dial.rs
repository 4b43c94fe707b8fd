//! The asynchronous shell around a pool: callers that wait, handles that are made and closed.

mod inner;
mod mode;

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, timeout_at};
use tokio_util::sync::CancellationToken;

pub use self::inner::DialLease;
use self::inner::{DialInner, WaitGuard};
pub use self::mode::{Exclusive, LeaseMode, Shared};
use super::{EntryKey, LruPool, PoolEvent, PoolRefusal, PoolSettings, Requested, Sharing, WhenFull};
use crate::bounded::time::{after, now};
use crate::bounded::{Cap, Compact, CompactPolicy, Compacted, Counters, Footprint};
use crate::inspect::{Details, Inspect};

/// A type that can be the key of a handle.
pub trait Key: Eq + Hash + Clone + Send + Sync + 'static {}

impl<T: Eq + Hash + Clone + Send + Sync + 'static> Key for T {}

/// How the handles of a [`DialPool`] are made and closed.
pub trait Connect<K: Key>: Send + Sync + 'static {
    /// A handle. Shared ones ([`DialPool::new`]) must be `Clone`, cheaply, as each lease holds a clone.
    type Handle: Send + 'static;
    /// Why a handle could not be made, or closing it failed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Makes a handle. Dropped when it takes longer than [`PoolSettings::connect_time`] or no caller waits for it any more.
    fn connect(&self, key: &K) -> impl Future<Output = Result<Self::Handle, Self::Error>> + Send;

    /// Closes a handle of which no lease is left. Dropped when it takes longer than [`PoolSettings::close_time`]; dropping
    /// the handle has to release its resources.
    fn close(&self, key: &K, handle: Self::Handle) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// Why there is no lease.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError<E> {
    /// The pool refuses.
    #[error(transparent)]
    Refused(#[from] PoolRefusal),
    /// The handle could not be made; all callers that waited for it get the same error.
    #[error("the connection could not be made")]
    Connect(#[source] Arc<E>),
    /// Making it took longer than [`PoolSettings::connect_time`].
    #[error("connecting took longer than {0:?}")]
    ConnectTimedOut(Duration),
    /// Making it panicked.
    #[error("connecting panicked")]
    Panicked,
    /// The task that made it was dropped: the runtime of the pool has shut down.
    #[error("the runtime of the pool has shut down")]
    Aborted,
    /// The caller's deadline passed; the attempt goes on for the other callers that wait for it.
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
            Self::Aborted => Self::Aborted,
            Self::TimedOut => Self::TimedOut,
        }
    }
}

/// A pool that several tasks lease from. Cloning shares it.
///
/// A hit is one short critical section. Handles are made and closed in tasks of their own, at most one for each place of
/// the pool, on the runtime that the pool was made in. [`DialPool::run`] is the task child that closes idle handles, and all
/// of them at the end.
///
/// `M` says what a lease holds: [`Shared`] a clone of the handle, [`Exclusive`] the handle itself.
///
/// ```
/// use std::time::Duration;
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
/// let lease = pool.lease_within(&80, WhenFull::Refuse, Duration::from_secs(1)).await.unwrap();
/// assert_eq!(*lease, 80);
/// # });
/// ```
pub struct DialPool<K: Key, C: Connect<K>, M: LeaseMode<C::Handle> = Shared> {
    inner: Arc<DialInner<K, C, M>>,
}

impl<K: Key, C: Connect<K>> DialPool<K, C>
where
    C::Handle: Clone,
{
    /// An empty pool of handles that can be cloned, whose tasks run on the current runtime.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(settings: PoolSettings, connect: C) -> Self {
        Self { inner: Arc::new(DialInner::new(LruPool::new(settings), connect)) }
    }

    /// A clone of the first handle of `key`, without using it.
    pub fn find(&self, key: &K) -> Option<(EntryKey, C::Handle)> {
        let state = self.inner.lock();
        state.pool.find(key).map(|(entry, handle)| (entry, handle.clone()))
    }
}

impl<K: Key, C: Connect<K>> DialPool<K, C, Exclusive> {
    /// An empty pool of handles that are lent whole, to one caller at a time: a lease derefs to the handle mutably, which
    /// need be neither `Clone` nor `Sync`. A key may have several ([`PoolSettings::per_key`]); its sharing is set to
    /// [`Sharing::Exclusive`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    ///
    /// ```
    /// use std::io;
    /// use std::net::SocketAddr;
    /// use std::time::Duration;
    /// use plimsoll::bounded::pool::{Connect, DialPool, PoolSettings, WhenFull};
    /// use plimsoll::bounded::Cap;
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    /// use tokio::net::{TcpListener, TcpStream};
    ///
    /// struct Tcp;
    ///
    /// impl Connect<SocketAddr> for Tcp {
    ///     type Handle = TcpStream;
    ///     type Error = io::Error;
    ///
    ///     async fn connect(&self, address: &SocketAddr) -> io::Result<TcpStream> {
    ///         TcpStream::connect(address).await
    ///     }
    ///
    ///     async fn close(&self, _: &SocketAddr, mut stream: TcpStream) -> io::Result<()> {
    ///         stream.shutdown().await
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let address = listener.local_addr()?;
    /// tokio::spawn(async move {
    ///     while let Ok((mut stream, _)) = listener.accept().await {
    ///         let mut ping = [0; 4];
    ///         while stream.read_exact(&mut ping).await.is_ok() {
    ///             stream.write_all(b"pong").await.unwrap();
    ///         }
    ///     }
    /// });
    /// let pool = DialPool::exclusive(PoolSettings { per_key: Cap::of::<4>(), ..PoolSettings::default() }, Tcp);
    /// let mut stream = pool.lease_within(&address, WhenFull::Wait, Duration::from_secs(1)).await?;
    /// stream.write_all(b"ping").await?;
    /// let mut reply = [0; 4];
    /// stream.read_exact(&mut reply).await?;
    /// assert_eq!(&reply, b"pong");
    /// // A connection that failed in the middle of an exchange is not used again.
    /// stream.discard();
    /// pool.close().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn exclusive(settings: PoolSettings, connect: C) -> Self {
        let settings = PoolSettings { sharing: Sharing::Exclusive, ..settings };
        Self { inner: Arc::new(DialInner::new(LruPool::new(settings), connect)) }
    }
}

impl<K: Key, C: Connect<K>, M: LeaseMode<C::Handle>> DialPool<K, C, M> {
    /// Leases a handle of `key`, making one if there is none that can be leased.
    ///
    /// Concurrent callers for one key share a single attempt where handles are shared. When the pool is full the least
    /// recently used idle handle is closed to make room; a leased one never is.
    ///
    /// `deadline` is a point in time of tokio's clock or of the standard library's.
    ///
    /// # Errors
    /// [`LeaseError`]: the pool refuses, the handle cannot be made, or `deadline` passes.
    ///
    /// Cancel safe: a caller that gives up leaves the attempt to the others, or ends it when it was the last.
    pub async fn lease(
        &self,
        key: &K,
        when_full: WhenFull,
        deadline: impl Into<Instant>,
    ) -> Result<DialLease<K, C, M>, LeaseError<C::Error>> {
        if let Some(lease) = self.hit(key) {
            return Ok(lease);
        }
        let (waiter, result) = oneshot::channel();
        let requested = self.inner.apply(|pool| pool.request(key, when_full, waiter, now()));
        let wait = match requested {
            Requested::Leased(lease) => {
                return self.inner.leased(lease).ok_or(LeaseError::Refused(PoolRefusal::Closed));
            }
            Requested::Refused(refusal, _) => return Err(refusal.into()),
            Requested::Waiting(wait) => wait,
        };
        let mut guard = WaitGuard::new(&self.inner, wait);
        match timeout_at(deadline.into(), result).await {
            Ok(result) => {
                guard.disarm();
                result.unwrap_or(Err(LeaseError::Refused(PoolRefusal::Closed)))
            }
            Err(_) => Err(LeaseError::TimedOut),
        }
    }

    /// [`lease`](Self::lease) with a deadline `time` from now.
    ///
    /// # Errors
    /// As [`lease`](Self::lease).
    ///
    /// Cancel safe: as [`lease`](Self::lease).
    pub async fn lease_within(
        &self,
        key: &K,
        when_full: WhenFull,
        time: Duration,
    ) -> Result<DialLease<K, C, M>, LeaseError<C::Error>> {
        self.lease(key, when_full, after(now(), time)).await
    }

    /// A handle of `key`, if there is one that can be leased at once.
    pub fn hit(&self, key: &K) -> Option<DialLease<K, C, M>> {
        self.inner.hit(key)
    }

    /// Inserts a handle that was made elsewhere; see [`LruPool::insert`].
    ///
    /// # Errors
    /// The refusal, with the handle.
    pub fn insert(&self, key: K, handle: C::Handle) -> Result<EntryKey, (PoolRefusal, C::Handle)> {
        let inserted = self.inner.apply(|pool| pool.insert(key, M::store(handle), now()));
        inserted.map_err(|(refusal, stored)| match M::into_handle(stored) {
            Some(handle) => (refusal, handle),
            None => unreachable!("it was stored just now and lent to no caller"),
        })
    }

    /// Retires a handle because it has ended; see [`LruPool::retire`].
    pub fn retire(&self, entry: EntryKey) -> bool {
        self.inner.apply(|pool| pool.retire(entry))
    }

    /// Changes the cap; see [`LruPool::set_cap`].
    pub fn set_cap(&self, cap: Cap) {
        self.inner.apply(|pool| pool.set_cap(cap));
    }

    /// The counters.
    pub fn counters(&self) -> &Counters<PoolEvent> {
        self.inner.counters()
    }

    /// Closes idle handles when they are due, until `stop`; then closes the pool and waits for the last handle. To be run as
    /// a task child of a supervisor.
    ///
    /// An idle handle is closed at the latest a tenth of [`PoolSettings::idle_time`] after it is due. Ticks that were missed
    /// are not made up for.
    ///
    /// Cancel safe: handles whose closing has begun are closed by tasks of their own.
    pub async fn run(&self, stop: CancellationToken) {
        let tick = (self.inner.idle_time() / 10).clamp(Duration::from_millis(10), Duration::from_secs(60));
        let mut ticks = tokio::time::interval(tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.inner.apply(|pool| pool.expire(now()));
        }
        self.close().await;
    }

    /// Closes the pool and waits until every handle is closed: idle ones at once, leased ones after their last lease. It has
    /// no deadline; use [`close_within`](Self::close_within) for one.
    ///
    /// Cancel safe: the pool is closed with the first poll.
    pub async fn close(&self) {
        self.inner.close().await;
    }

    /// Closes the pool and waits at most `time` until every handle is closed. Returns whether they are.
    ///
    /// Cancel safe: the pool is closed with the first poll.
    pub async fn close_within(&self, time: Duration) -> bool {
        tokio::time::timeout(time, self.close()).await.is_ok()
    }
}

impl<K: Key, C: Connect<K>, M: LeaseMode<C::Handle>> Clone for DialPool<K, C, M> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<K: Key, C: Connect<K>, M: LeaseMode<C::Handle>> fmt::Debug for DialPool<K, C, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DialPool").field("counters", self.inner.counters()).finish_non_exhaustive()
    }
}

impl<K: Key, C: Connect<K>, M: LeaseMode<C::Handle>> Inspect for DialPool<K, C, M> {
    fn inspect(&self) -> Details {
        self.inner.counters().inspect()
    }
}

impl<K: Key, C: Connect<K>, M: LeaseMode<C::Handle>> Compact for DialPool<K, C, M> {
    fn footprint(&self) -> Footprint {
        self.inner.lock().pool.footprint()
    }

    fn compact(&mut self, policy: &CompactPolicy) -> Compacted {
        self.inner.lock().pool.compact(policy)
    }
}

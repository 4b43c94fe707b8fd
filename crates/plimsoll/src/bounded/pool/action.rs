//! What goes in and out of a pool: keys, duties, actions, refusals and events.

use std::time::Duration;

use plimsoll_sync::slots::SlotKey;

use crate::bounded::events;

/// Identifies one handle of one pool; never reused for a later handle of the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryKey(pub(super) SlotKey);

/// Identifies one caller that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaitKey(pub(super) SlotKey);

/// The right to use a handle. It ends in [`LruPool::release`](super::LruPool::release) or
/// [`LruPool::discard`](super::LruPool::discard); until then the handle stays open.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a lease that is not released keeps its handle for ever"]
pub struct Lease(pub(super) EntryKey);

impl Lease {
    /// The handle that is leased.
    pub fn entry(&self) -> EntryKey {
        self.0
    }
}

/// The duty to make a handle, and the place that is kept for it. It ends in
/// [`LruPool::created`](super::LruPool::created), [`LruPool::failed`](super::LruPool::failed) or
/// [`LruPool::creation_abandoned`](super::LruPool::creation_abandoned).
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a creation that does not end keeps its place for ever"]
pub struct Creation(pub(super) EntryKey);

impl Creation {
    /// The key that the handle will have.
    pub fn entry(&self) -> EntryKey {
        self.0
    }
}

/// The duty to close a handle. It ends in [`LruPool::closed`](super::LruPool::closed).
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a closing that does not end keeps its place for ever"]
pub struct Closing {
    /// Whether the handle keeps its place until it is closed; not so where the place went to the handle it made room for.
    pub(super) holds_place: bool,
}

/// How closing a handle ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseOutcome {
    /// It was closed.
    Closed,
    /// Closing returned an error; the handle was dropped.
    Failed,
    /// Closing took too long; the handle was dropped.
    TimedOut,
}

/// What the owner of a pool has to do. Taken by [`LruPool::next_action`](super::LruPool::next_action) after each operation,
/// until there is none.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "an action that is not performed leaves a caller waiting"]
pub enum PoolAction<K, V, W> {
    /// Close the evicted handle, if any, and then make the handle for `key`.
    Create {
        /// The duty.
        creation: Creation,
        /// The key to make a handle for.
        key: K,
        /// Closed first, so that there are never more open handles than places.
        evicted: Option<(Closing, K, V)>,
    },
    /// No caller waits for this creation any more: end it and call
    /// [`LruPool::creation_abandoned`](super::LruPool::creation_abandoned), or finish it if that is easier.
    Abandon {
        /// Which creation.
        entry: EntryKey,
    },
    /// Close a handle.
    Close {
        /// The duty.
        closing: Closing,
        /// Its key.
        key: K,
        /// The handle, of which no lease is left.
        value: V,
    },
    /// A waiting caller gets its lease.
    Grant {
        /// The caller.
        waiter: W,
        /// Its lease.
        lease: Lease,
    },
    /// A waiting caller is refused.
    Refuse {
        /// The caller.
        waiter: W,
        /// Why.
        refusal: PoolRefusal,
    },
}

/// Why a pool returned no lease.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolRefusal {
    /// Every handle is leased. Try again later, or wait.
    #[error("all {cap} handles of the pool are leased")]
    AtCapacity {
        /// The cap in force.
        cap: usize,
    },
    /// Every handle of this key is leased and is not shared. Try again later, or wait.
    #[error("every handle of this key is leased")]
    Busy,
    /// As many callers wait already as may.
    #[error("{cap} callers wait for the pool already")]
    TooManyWaiting {
        /// The cap in force.
        cap: usize,
    },
    /// The last attempt for this key failed a moment ago.
    #[error("the last attempt for this key failed; the next is due in {retry_after:?}")]
    BackingOff {
        /// When the next attempt is due.
        retry_after: Duration,
    },
    /// The key has as many handles as it may ([`LruPool::insert`](super::LruPool::insert)).
    #[error("the key has a handle already")]
    Occupied,
    /// The pool is being closed.
    #[error("the pool is closed")]
    Closed,
}

events! {
    /// What a pool counts.
    pub enum PoolEvent {
        /// Leases requested. Each ends as exactly one of: hit, granted, refused, failed, cancelled.
        Requested = "requested",
        /// Leases granted at once, of a handle that was there.
        Hit = "hits",
        /// Leases granted to callers that waited.
        Granted = "granted_after_waiting",
        /// Waiting callers whose handle could not be made.
        WaiterFailed = "waiters_failed",
        /// Waiting callers that gave up.
        Cancelled = "cancelled",
        /// Handles that were made or inserted.
        Opened = "opened",
        /// Attempts to make a handle that failed.
        CreateFailed = "create_failed",
        /// Attempts that ended because no caller waited any more.
        CreateAbandoned = "create_abandoned",
        /// Handles closed to make room.
        Evicted = "evicted",
        /// Handles closed because they were not used.
        IdleClosed = "idle_closed",
        /// Handles retired by their owner or discarded by their user.
        Retired = "retired",
        /// Handles closed because another for the same key had come first.
        Surplus = "surplus",
        /// Handles that were closed, with whatever outcome.
        Closed = "closed",
        /// Of these, those whose closing returned an error.
        CloseFailed = "close_failed",
        /// Of these, those whose closing took too long.
        CloseTimedOut = "close_timed_out",
        /// [`PoolRefusal::AtCapacity`].
        RefusedAtCapacity = "refused_at_capacity",
        /// [`PoolRefusal::Busy`].
        RefusedBusy = "refused_busy",
        /// [`PoolRefusal::TooManyWaiting`].
        RefusedTooManyWaiting = "refused_too_many_waiting",
        /// [`PoolRefusal::BackingOff`].
        RefusedBackingOff = "refused_backing_off",
        /// [`PoolRefusal::Closed`].
        RefusedClosed = "refused_closed",
    }
}

impl PoolRefusal {
    /// The event that counts it. `Occupied` refuses no lease and is not counted.
    pub(super) fn event(&self) -> Option<PoolEvent> {
        match self {
            Self::AtCapacity { .. } => Some(PoolEvent::RefusedAtCapacity),
            Self::Busy => Some(PoolEvent::RefusedBusy),
            Self::TooManyWaiting { .. } => Some(PoolEvent::RefusedTooManyWaiting),
            Self::BackingOff { .. } => Some(PoolEvent::RefusedBackingOff),
            Self::Closed => Some(PoolEvent::RefusedClosed),
            Self::Occupied => None,
        }
    }
}

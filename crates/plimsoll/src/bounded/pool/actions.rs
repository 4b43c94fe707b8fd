//! What goes in and out of a pool: tokens, actions, refusals and events.

use std::time::Duration;

use plimsoll_sync::slots::SlotKey;

use crate::bounded::events;

/// Names one handle of one pool, for ever: it never stands for a later handle of the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryKey(pub(super) SlotKey);

/// Names one caller that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaitKey(pub(super) SlotKey);

/// The right to use a handle. It goes back by [`LruPool::release`](super::LruPool::release) or
/// [`LruPool::discard`](super::LruPool::discard); until then the handle stays open.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a lease that is not given back keeps its handle for ever"]
pub struct Lease(pub(super) EntryKey);

impl Lease {
    /// The handle it is a lease of.
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
    /// The handle to be.
    pub fn entry(&self) -> EntryKey {
        self.0
    }
}

/// The duty to close a handle. It ends in [`LruPool::closed`](super::LruPool::closed).
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a closing that does not end keeps its place for ever"]
pub struct Closing {
    /// Whether a place is kept until it is closed; not so where the place went to what it made room for.
    pub(super) holds_place: bool,
}

/// How closing a handle went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseOutcome {
    /// It is closed.
    Closed,
    /// It said that it could not; it was dropped.
    Failed,
    /// It did not say so in time; it was dropped.
    TimedOut,
}

/// What the owner of a pool has to do. Taken by [`LruPool::next_action`](super::LruPool::next_action) after each
/// operation, until there is none.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "an action that is not taken leaves somebody waiting"]
pub enum PoolAction<K, V, W> {
    /// Close what had to give way, if anything, and then make the handle for `key`.
    Create {
        /// The duty.
        creation: Creation,
        /// For whom.
        key: K,
        /// Closed first, so that there are never more open handles than places.
        evicted: Option<(Closing, K, V)>,
    },
    /// Nobody waits for this creation any more: end it and report [`LruPool::creation_abandoned`](super::LruPool::creation_abandoned), or
    /// finish it if that is easier.
    Abandon {
        /// Which.
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
    /// A caller that waited has what it waited for.
    Grant {
        /// Who.
        waiter: W,
        /// Its lease.
        lease: Lease,
    },
    /// A caller that waited is refused.
    Refuse {
        /// Who.
        waiter: W,
        /// Why.
        refusal: PoolRefusal,
    },
}

/// Why a pool gave no lease.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolRefusal {
    /// Every handle is leased. Ask again, or ask to wait.
    #[error("all {cap} handles of the pool are leased")]
    AtCapacity {
        /// The cap in force.
        cap: usize,
    },
    /// The one handle of this key is leased and is not shared. Ask again, or ask to wait.
    #[error("the handle of this key is leased")]
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
    /// The key has a handle already ([`LruPool::insert`](super::LruPool::insert)).
    #[error("the key has a handle already")]
    Occupied,
    /// The pool is being closed.
    #[error("the pool is closed")]
    Closed,
}

events! {
    /// What a pool counts.
    pub enum PoolEvent {
        /// Leases asked for. Each ends in exactly one of: granted, refused, failed, forgotten.
        Requested = "requested",
        /// Leases granted at once, from a handle that was there.
        Hit = "hits",
        /// Leases granted to callers that waited.
        Granted = "granted_after_waiting",
        /// Waiting callers that were told that the handle could not be made.
        ToldFailed = "told_failed",
        /// Waiting callers that went away.
        Forgotten = "forgotten",
        /// Handles that were made or put in.
        Opened = "opened",
        /// Attempts to make a handle that failed.
        CreateFailed = "create_failed",
        /// Attempts that ended because nobody waited any more.
        GaveUp = "create_gave_up",
        /// Handles closed to make room.
        Evicted = "evicted",
        /// Handles closed because nobody used them.
        IdleClosed = "idle_closed",
        /// Handles retired by their owner or discarded by their user.
        Retired = "retired",
        /// Handles closed because another for the same key had come first.
        Surplus = "surplus",
        /// Handles that were closed, however that went.
        Closed = "closed",
        /// Of these, those that could not be closed properly.
        CloseFailed = "close_failed",
        /// Of these, those whose closing outlasted its deadline.
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
    /// What is counted when a lease is refused so. An occupied key is the business of whoever put the handle in.
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

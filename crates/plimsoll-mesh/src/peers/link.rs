//! One connection to a peer, as callers and the router see it.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use plimsoll::bounded::pool::EntryKey;
use tokio::sync::mpsc;

use crate::names::NodeId;

use super::close_reason::CloseReason;
use super::table::LinkId;

/// Gossip messages waiting for a connection at most; a further one is dropped, and the next round brings its content.
pub(crate) const GOSSIP_QUEUE: usize = 64;

/// A connection that is up.
pub(crate) struct Link {
    pub(crate) id: LinkId,
    pub(crate) node: NodeId,
    pub(crate) connection: quinn::Connection,
    /// Calls of this node on it at once.
    pub(crate) max_calls: usize,
    pub(crate) max_body: usize,
    gossip: mpsc::Sender<Bytes>,
    calling: AtomicUsize,
    serving: AtomicUsize,
    retired: AtomicBool,
    closing: OnceLock<CloseReason>,
    /// Moving average of how long a call took, in microseconds; zero before the first.
    latency_us: AtomicU64,
    observed_us: AtomicU64,
    opened: Instant,
    entry: OnceLock<EntryKey>,
}

impl Link {
    pub(crate) fn new(
        id: LinkId,
        node: NodeId,
        connection: quinn::Connection,
        max_calls: usize,
        max_body: usize,
    ) -> (Self, mpsc::Receiver<Bytes>) {
        let (gossip, queue) = mpsc::channel(GOSSIP_QUEUE);
        let link = Self {
            id,
            node,
            connection,
            max_calls,
            max_body,
            gossip,
            calling: AtomicUsize::new(0),
            serving: AtomicUsize::new(0),
            retired: AtomicBool::new(false),
            closing: OnceLock::new(),
            latency_us: AtomicU64::new(0),
            observed_us: AtomicU64::new(0),
            opened: Instant::now(),
            entry: OnceLock::new(),
        };
        (link, queue)
    }

    /// Counts a call of this node, unless there are as many as there may be.
    pub(crate) fn begin_call(&self) -> Option<InUse<'_>> {
        let calling = self.calling.fetch_add(1, Ordering::Relaxed);
        let in_use = InUse(&self.calling);
        (calling < self.max_calls).then_some(in_use)
    }

    /// Counts a call of the peer.
    pub(crate) fn begin_serving(&self) -> InUse<'_> {
        self.serving.fetch_add(1, Ordering::Relaxed);
        InUse(&self.serving)
    }

    /// Queues a gossip message; `false` when the queue is full or the connection gone.
    pub(crate) fn gossip(&self, message: Bytes) -> bool {
        self.gossip.try_send(message).is_ok()
    }

    /// Closes it for a reason of this node's; the first one counts.
    pub(crate) fn close(&self, reason: CloseReason) {
        self.closing.get_or_init(|| reason).close(&self.connection);
    }

    /// The reason for which this node closed it.
    pub(crate) fn closing(&self) -> Option<&CloseReason> {
        self.closing.get()
    }

    /// Takes no new calls from now on.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// This node's calls in flight on it.
    pub(crate) fn calling(&self) -> usize {
        self.calling.load(Ordering::Relaxed)
    }

    /// The peer's calls in flight on it.
    pub(crate) fn serving(&self) -> usize {
        self.serving.load(Ordering::Relaxed)
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.calling() == 0 && self.serving() == 0
    }

    /// It is in the pool.
    pub(crate) fn entered(&self, entry: EntryKey) {
        // A connection arrives once.
        let _ = self.entry.set(entry);
    }

    /// Its entry in the pool, if it ever had one.
    pub(crate) fn entry(&self) -> Option<EntryKey> {
        self.entry.get().copied()
    }

    /// Takes an observed round trip into the average: an eighth of the difference, as TCP does (RFC 6298).
    pub(crate) fn observe(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let old = self.latency_us.load(Ordering::Relaxed);
        let new = if old == 0 { took } else { old - old / 8 + took / 8 };
        // A lost update between two calls costs one sample of an average.
        self.latency_us.store(new.max(1), Ordering::Relaxed);
        self.observed_us.store(self.clock(), Ordering::Relaxed);
    }

    /// The observed average, halved for every second since the last observation: a peer that was slow once and has not
    /// been asked since gets its chance again. Before the first call, the connection's own round trip.
    pub(crate) fn latency(&self) -> Duration {
        match self.latency_us.load(Ordering::Relaxed) {
            0 => self.connection.rtt(),
            us => {
                let age_us = self.clock().saturating_sub(self.observed_us.load(Ordering::Relaxed));
                Duration::from_micros(us >> (age_us / 1_000_000).min(63))
            }
        }
    }

    fn clock(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("id", &self.id).field("node", &self.node).finish_non_exhaustive()
    }
}

/// A use of a connection, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct InUse<'a>(&'a AtomicUsize);

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

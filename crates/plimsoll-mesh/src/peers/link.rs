//! One connection to a peer, as its callers and the router see it.

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

/// The most gossip messages that wait for a connection; a further one is dropped, and the next round brings its content.
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
    latency: Latency,
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
            latency: Latency::default(),
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

    /// Counts a call of the peer, until [`end_serving`](Self::end_serving).
    pub(crate) fn begin_serving(&self) {
        self.serving.fetch_add(1, Ordering::Relaxed);
    }

    /// A call of the peer has ended.
    pub(crate) fn end_serving(&self) {
        self.serving.fetch_sub(1, Ordering::Relaxed);
    }

    /// Queues a gossip message; `false` when the queue is full or the connection gone.
    pub(crate) fn gossip(&self, message: Bytes) -> bool {
        self.gossip.try_send(message).is_ok()
    }

    /// Closes it with a reason of this node; the first one counts.
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

    /// Records its entry in the pool.
    pub(crate) fn set_entry(&self, entry: EntryKey) {
        // A connection is entered once.
        let _ = self.entry.set(entry);
    }

    /// Its entry in the pool, if it ever had one.
    pub(crate) fn entry(&self) -> Option<EntryKey> {
        self.entry.get().copied()
    }

    /// Takes an observed round trip into the average.
    pub(crate) fn observe(&self, took: Duration) {
        self.latency.observe(took, self.opened.elapsed());
    }

    /// The average latency of calls. Before the first call, the round trip of the connection.
    pub(crate) fn latency(&self) -> Duration {
        self.latency.at(self.opened.elapsed()).unwrap_or_else(|| self.connection.rtt())
    }
}

/// A moving average of latencies that decays while there are no observations.
#[derive(Debug, Default)]
struct Latency {
    /// In microseconds; zero before the first observation.
    average_us: AtomicU64,
    observed_us: AtomicU64,
}

impl Latency {
    /// Takes an observation at `now` into the average: an eighth of the difference, as TCP does (RFC 6298).
    fn observe(&self, took: Duration, now: Duration) {
        let took = micros(took).max(1);
        let old = self.average_us.load(Ordering::Relaxed);
        let new = if old == 0 { took } else { old - old / 8 + took / 8 };
        // A lost update between two calls costs one sample of an average.
        self.average_us.store(new.max(1), Ordering::Relaxed);
        self.observed_us.store(micros(now), Ordering::Relaxed);
    }

    /// The average at `now`, halved for every whole second since the last observation: a peer that was slow once and has not
    /// been called since is tried again. `None` before the first observation.
    fn at(&self, now: Duration) -> Option<Duration> {
        match self.average_us.load(Ordering::Relaxed) {
            0 => None,
            average => {
                let age_us = micros(now).saturating_sub(self.observed_us.load(Ordering::Relaxed));
                Some(Duration::from_micros(average >> (age_us / 1_000_000).min(63)))
            }
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
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

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn latency_halves_for_every_second_without_a_call_and_follows_new_calls_at_once() {
        let (latency, start) = (Latency::default(), Duration::from_secs(100));
        assert_eq!(latency.at(start), None);
        latency.observe(800 * MS, start);
        for (age_ms, left) in [(0, 800), (999, 800), (1_000, 400), (2_500, 200), (3_000, 100)] {
            assert_eq!(latency.at(start + age_ms * MS), Some(left * MS), "{age_ms} ms later");
        }
        assert_eq!(latency.at(start + Duration::from_secs(1_000)), Some(Duration::ZERO), "without overflow");
        assert_eq!(latency.at(Duration::ZERO), Some(800 * MS), "a clock reading from before the observation");
        latency.observe(1_600 * MS, start + Duration::from_secs(50));
        assert_eq!(latency.at(start + Duration::from_secs(50)), Some(900 * MS), "an eighth of the difference");
        assert_eq!(latency.at(start + Duration::from_secs(51)), Some(450 * MS), "its age counts from the last call");
    }
}

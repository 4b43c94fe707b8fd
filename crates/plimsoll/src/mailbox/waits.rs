//! How long messages wait.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::ticks::{millis_between, ticks};

/// When a message was sent. Every message's wait counts, by the coarse clock; one in eight is timed to the nanosecond as
/// well, because reading the precise clock for each would cost as much as half a send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    since: u64,
    precisely: Option<Instant>,
}

impl Stamp {
    /// Of the `n`th message, sent now.
    pub(crate) fn now(n: u64) -> Self {
        Self { since: ticks(), precisely: n.is_multiple_of(8).then(Instant::now) }
    }
}

/// The waits of all messages that were taken.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    pub(crate) ms: AtomicU64,
    pub(crate) max_ms: AtomicU64,
    pub(crate) timed: AtomicU64,
    pub(crate) ns: AtomicU64,
    pub(crate) max_ns: AtomicU64,
}

impl Waits {
    /// A message waits no longer.
    pub(crate) fn over(&self, stamp: Stamp) {
        let ms = millis_between(stamp.since, ticks());
        if ms > 0 {
            self.ms.fetch_add(ms, Ordering::Relaxed);
            self.max_ms.fetch_max(ms, Ordering::Relaxed);
        }
        if let Some(since) = stamp.precisely {
            self.took(since.elapsed());
        }
    }

    fn took(&self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.timed.fetch_add(1, Ordering::Relaxed);
        self.ns.fetch_add(ns, Ordering::Relaxed);
        self.max_ns.fetch_max(ns, Ordering::Relaxed);
    }
}

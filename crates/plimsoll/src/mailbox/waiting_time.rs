//! How long messages wait, by a coarse clock for all and a precise one for some.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// When a message was sent. Every message's wait counts, by the coarse clock; one in eight is timed to the nanosecond as
/// well, because reading the precise clock for each would cost as much as half a send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SentAt {
    since: u64,
    precise: Option<Instant>,
}

impl SentAt {
    /// Of the `n`th message, sent now.
    pub(crate) fn now(n: u64) -> Self {
        Self { since: coarse_now(), precise: n.is_multiple_of(8).then(Instant::now) }
    }
}

/// The waiting times of all messages that were taken.
#[derive(Debug, Default)]
pub(crate) struct WaitingTimes {
    pub(crate) ms: AtomicU64,
    pub(crate) max_ms: AtomicU64,
    pub(crate) timed: AtomicU64,
    pub(crate) ns: AtomicU64,
    pub(crate) max_ns: AtomicU64,
}

impl WaitingTimes {
    /// Records the waiting time of a message that is taken now.
    pub(crate) fn record(&self, sent_at: SentAt) {
        let ms = millis_between(sent_at.since, coarse_now());
        if ms > 0 {
            self.ms.fetch_add(ms, Ordering::Relaxed);
            self.max_ms.fetch_max(ms, Ordering::Relaxed);
        }
        if let Some(since) = sent_at.precise {
            self.record_precise(since.elapsed());
        }
    }

    fn record_precise(&self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.timed.fetch_add(1, Ordering::Relaxed);
        self.ns.fetch_add(ns, Ordering::Relaxed);
        self.max_ns.fetch_max(ns, Ordering::Relaxed);
    }
}

/// Nanoseconds since some moment in the past, never backwards, precise to the kernel's tick (1 to 10 ms). A reading costs a
/// fifth of one of the precise clock.
#[cfg(target_os = "linux")]
fn coarse_now() -> u64 {
    use nix::time::{ClockId, clock_gettime};
    // The kernel has had this clock since 2.6.32; without it nothing would take any time.
    match clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE) {
        Ok(time) => time.tv_sec().cast_unsigned() * 1_000_000_000 + time.tv_nsec().cast_unsigned(),
        Err(_) => 0,
    }
}

/// The same where there is no such clock: the precise one.
#[cfg(not(target_os = "linux"))]
fn coarse_now() -> u64 {
    use std::sync::LazyLock;
    use std::time::Instant;
    static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(EPOCH.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Whole milliseconds from one reading to another, the nearest.
fn millis_between(then: u64, now: u64) -> u64 {
    match now.saturating_sub(then) {
        // The common case, without a division.
        0 => 0,
        ns => (ns + 500_000) / 1_000_000,
    }
}

//! Counters of requests.
//!
//! `started = completed + cancelled + failed + in flight`. Plain atomics: a request touches three of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::Mutex;
use plimsoll::bounded::LogThrottle;

use super::client_activity::{ActiveRequest, ClientActivity};
use crate::problem::{Code, Problem};

/// Counts of all requests of a gateway.
#[derive(Debug, Default)]
pub(super) struct RequestCounters {
    started: AtomicU64,
    in_flight: AtomicU64,
    completed: AtomicU64,
    cancelled: AtomicU64,
    failed: AtomicU64,
    panicked: AtomicU64,
    cut_off: AtomicU64,
    unacknowledged: AtomicU64,
    refused: [AtomicU64; Code::ALL.len()],
    limit_log: Mutex<LogThrottle>,
}

/// The counts at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestCounts {
    /// Requests whose stream was accepted.
    pub started: u64,
    /// Not ended yet.
    pub in_flight: u64,
    /// Completed with a response, successful or not.
    pub completed: u64,
    /// Cancelled by the client, or the client left first.
    pub cancelled: u64,
    /// Ended without a response for any other reason: a malformed message, a rejected frame, a client that does not read.
    pub failed: u64,
    /// Panics of the gateway itself or of its router.
    pub panicked: u64,
    /// Calls that were still running when the grace of a stop had passed; completed with 503 `shutting_down`. They may have run.
    pub cut_off: u64,
    /// Of the completed ones, those whose response the client did not acknowledge in time, so that it was reset.
    pub unacknowledged: u64,
}

impl RequestCounts {
    /// Whether every request is accounted for. Holds whenever no request begins or ends at that moment.
    pub const fn balanced(&self) -> bool {
        self.started == self.completed + self.cancelled + self.failed + self.in_flight
    }
}

impl RequestCounters {
    /// Begins a request of a client.
    pub(super) fn begin(&self, activity: &Arc<ClientActivity>) -> InFlight<'_> {
        self.started.fetch_add(1, Relaxed);
        self.in_flight.fetch_add(1, Relaxed);
        InFlight { requests: self, active: activity.begin(), settled: false }
    }

    /// Counts responses that were reset because their clients did not acknowledge them in time.
    pub(super) fn unacknowledged(&self, count: usize) {
        self.unacknowledged.fetch_add(count as u64, Relaxed);
    }

    /// Counts a refusal by its code; the request also counts as completed. Refusals at a limit are logged: the first one, then
    /// one in ten seconds with the number between.
    pub(super) fn refused(&self, code: Code) {
        if let Some(at) = Code::ALL.iter().position(|&other| other == code) {
            self.refused[at].fetch_add(1, Relaxed);
        }
        if matches!(code, Code::Overloaded | Code::RateLimited)
            && let Some(suppressed) = self.limit_log.lock().record(Instant::now())
        {
            tracing::warn!(target: "plimsoll::mesh", code = code.as_str(), suppressed, "requests refused");
        }
    }

    pub(super) fn panicked(&self) {
        self.panicked.fetch_add(1, Relaxed);
    }

    /// Counts a call that the end of the grace interrupts.
    pub(super) fn cut_off(&self) {
        self.cut_off.fetch_add(1, Relaxed);
    }

    pub(super) fn counts(&self) -> RequestCounts {
        RequestCounts {
            started: self.started.load(Relaxed),
            in_flight: self.in_flight.load(Relaxed),
            completed: self.completed.load(Relaxed),
            cancelled: self.cancelled.load(Relaxed),
            failed: self.failed.load(Relaxed),
            panicked: self.panicked.load(Relaxed),
            cut_off: self.cut_off.load(Relaxed),
            unacknowledged: self.unacknowledged.load(Relaxed),
        }
    }

    /// Refusals by code, those that happened.
    pub(super) fn refusals(&self) -> impl Iterator<Item = (Code, u64)> {
        Code::ALL.iter().zip(&self.refused).map(|(&code, count)| (code, count.load(Relaxed))).filter(|&(_, n)| n > 0)
    }
}

/// A request that has begun. Dropped without an outcome, it failed.
#[derive(Debug)]
#[must_use]
pub(super) struct InFlight<'a> {
    requests: &'a RequestCounters,
    active: ActiveRequest,
    settled: bool,
}

impl InFlight<'_> {
    /// Whether the request is within the shares of its client and its origin.
    pub(super) fn within_shares(&self) -> Result<(), Problem> {
        self.active.within_shares()
    }

    /// Marks a request that only its client ends.
    pub(super) fn ended_by_client(&mut self) {
        self.active.ended_by_client();
    }

    pub(super) fn completed(mut self) {
        self.settled = true;
        self.requests.completed.fetch_add(1, Relaxed);
        self.active.ended(false);
    }

    pub(super) fn cancelled(mut self) {
        self.settled = true;
        self.requests.cancelled.fetch_add(1, Relaxed);
        self.active.ended(true);
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.requests.failed.fetch_add(1, Relaxed);
            if std::thread::panicking() {
                self.requests.panicked();
                tracing::error!(target: "plimsoll::mesh", "a request's task panicked; its stream was reset");
            }
        }
        self.requests.in_flight.fetch_sub(1, Relaxed);
    }
}

//! The ledger of requests.
//!
//! `started = answered + left + broken + in flight`. Plain atomics: a request touches three of them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::Mutex;
use plimsoll::bounded::LogThrottle;

use crate::problem::Code;

/// Counts of all requests of a gateway.
#[derive(Debug, Default)]
pub(super) struct Requests {
    started: AtomicU64,
    in_flight: AtomicU64,
    answered: AtomicU64,
    left: AtomicU64,
    broken: AtomicU64,
    panicked: AtomicU64,
    refused: [AtomicU64; Code::ALL.len()],
    limits_met: Mutex<LogThrottle>,
}

/// The counts at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestCounts {
    /// Requests whose stream was accepted.
    pub started: u64,
    /// Not ended yet.
    pub in_flight: u64,
    /// Answered, by a result or a problem.
    pub answered: u64,
    /// Given up by a client that left first.
    pub left: u64,
    /// Ended without an answer for any other reason: a malformed message, a refused frame, a client that does not read.
    pub broken: u64,
    /// Of the broken ones, those that ended in a panic of the gateway itself.
    pub panicked: u64,
}

impl RequestCounts {
    /// Whether every request is accounted for. Holds whenever no request begins or ends at that moment.
    pub const fn balanced(&self) -> bool {
        self.started == self.answered + self.left + self.broken + self.in_flight
    }
}

impl Requests {
    pub(super) fn begin(&self) -> InFlight<'_> {
        self.started.fetch_add(1, Relaxed);
        self.in_flight.fetch_add(1, Relaxed);
        InFlight { requests: self, settled: false }
    }

    /// A refusal by its code, on top of its being answered. Those for a limit are told: the first, then one in ten seconds.
    pub(super) fn refused(&self, code: Code) {
        if let Some(at) = Code::ALL.iter().position(|&other| other == code) {
            self.refused[at].fetch_add(1, Relaxed);
        }
        if matches!(code, Code::Overloaded | Code::RateLimited)
            && let Some(unsaid) = self.limits_met.lock().record(Instant::now())
        {
            tracing::warn!(target: "plimsoll::mesh", code = code.as_str(), unsaid, "requests refused");
        }
    }

    pub(super) fn panicked(&self) {
        self.panicked.fetch_add(1, Relaxed);
    }

    pub(super) fn counts(&self) -> RequestCounts {
        RequestCounts {
            started: self.started.load(Relaxed),
            in_flight: self.in_flight.load(Relaxed),
            answered: self.answered.load(Relaxed),
            left: self.left.load(Relaxed),
            broken: self.broken.load(Relaxed),
            panicked: self.panicked.load(Relaxed),
        }
    }

    /// Refusals by code, those that happened.
    pub(super) fn refusals(&self) -> impl Iterator<Item = (Code, u64)> {
        Code::ALL.iter().zip(&self.refused).map(|(&code, count)| (code, count.load(Relaxed))).filter(|&(_, n)| n > 0)
    }
}

/// A request that has begun. Dropped without a word, it broke.
#[derive(Debug)]
#[must_use]
pub(super) struct InFlight<'a> {
    requests: &'a Requests,
    settled: bool,
}

impl InFlight<'_> {
    pub(super) fn answered(mut self) {
        self.settled = true;
        self.requests.answered.fetch_add(1, Relaxed);
    }

    pub(super) fn left(mut self) {
        self.settled = true;
        self.requests.left.fetch_add(1, Relaxed);
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.requests.broken.fetch_add(1, Relaxed);
            if std::thread::panicking() {
                self.requests.panicked();
                tracing::error!(target: "plimsoll::mesh", "a request's task panicked; its stream was reset");
            }
        }
        self.requests.in_flight.fetch_sub(1, Relaxed);
    }
}

//! Counters of what was refused at the door, each started and settled in one step.

use std::sync::atomic::{AtomicU64, Ordering};

use super::book::Outcome;
use super::{CallError, Died, Overload};

/// Reasons for which a call is refused before it is opened.
const REASONS: [(&str, Outcome); 9] = [
    ("in_flight", Outcome::Overloaded),
    ("bytes", Outcome::Overloaded),
    ("queue", Outcome::Overloaded),
    ("waiting", Outcome::Overloaded),
    ("timeout", Outcome::Timeout),
    ("shutting_down", Outcome::ShuttingDown),
    ("no_process", Outcome::Died),
    ("deadlock", Outcome::Deadlock),
    ("caller_gone", Outcome::Cancelled),
];

#[derive(Debug, Default)]
pub(crate) struct Refusals {
    counts: [AtomicU64; REASONS.len()],
}

impl Refusals {
    /// Counts a refusal and passes it on.
    pub(crate) fn count<E>(&self, error: CallError<E>) -> CallError<E> {
        let reason = match &error {
            CallError::Overloaded(Overload::InFlight { .. }) => 0,
            CallError::Overloaded(Overload::Bytes { .. }) => 1,
            CallError::Overloaded(Overload::Queue { .. }) => 2,
            CallError::Overloaded(_) => 3,
            CallError::Timeout => 4,
            CallError::ShuttingDown => 5,
            CallError::Died(Died::NoProcess) => 6,
            CallError::Deadlock(_) => 7,
            CallError::Cancelled => 8,
            // The door says nothing else.
            CallError::App(_) | CallError::Died(_) => return error,
        };
        self.counts[reason].fetch_add(1, Ordering::Relaxed);
        error
    }

    /// How many were refused for which reason, and as which outcome each counts. One reading, so that whoever adds it
    /// to both sides of `started = settled + in flight` keeps them equal.
    pub(crate) fn read(&self) -> [(&'static str, Outcome, u64); REASONS.len()] {
        let mut read = REASONS.map(|(name, outcome)| (name, outcome, 0));
        for (entry, count) in read.iter_mut().zip(&self.counts) {
            entry.2 = count.load(Ordering::Relaxed);
        }
        read
    }
}

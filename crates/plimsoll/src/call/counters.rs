//! What a server counts apart from its table: gauges, refusals by reason, and how long methods run.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::call_table::Outcome;
use super::{CallError, Died, Overload};
use crate::inspect::{Metric, Metrics, Unit};

/// What is counted apart from the table.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) late: AtomicU64,
    /// Begun calls whose caller left and that were left to finish.
    pub(crate) left_to_finish: AtomicU64,
    pub(crate) overrunning: AtomicU64,
    pub(crate) workers: AtomicU64,
    pub(crate) worker_failures: AtomicU64,
    pub(crate) casts: AtomicU64,
    pub(crate) casts_handled: AtomicU64,
    pub(crate) casts_dropped: AtomicU64,
    pub(crate) casts_refused: AtomicU64,
}

impl Gauges {
    pub(crate) fn all_workers_overrun(&self) -> bool {
        // A worker may be counted as having ended a moment before it is counted as overrunning: then less than none.
        let overrunning = self.overrunning.load(Ordering::Acquire).cast_signed();
        self.workers.load(Ordering::Acquire).cast_signed() <= overrunning.max(0)
    }
}

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
    /// Counts a refusal and returns it.
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
            // Admission returns nothing else.
            CallError::App(_) | CallError::Died(_) | CallError::Restarting => return error,
        };
        self.counts[reason].fetch_add(1, Ordering::Relaxed);
        error
    }

    /// How many were refused for which reason, and as which outcome each counts. One reading, so that
    /// adding it to both sides of `started = settled + in flight` keeps them equal.
    pub(crate) fn read(&self) -> [(&'static str, Outcome, u64); REASONS.len()] {
        let mut read = REASONS.map(|(name, outcome)| (name, outcome, 0));
        for (entry, count) in read.iter_mut().zip(&self.counts) {
            entry.2 = count.load(Ordering::Relaxed);
        }
        read
    }
}

/// Methods timed apart; those beyond share one line.
const METHODS: usize = 32;

/// Every run is counted; one in eight, the first included, is timed: two readings of the clock for each would cost a
/// short call a tenth of its time.
#[derive(Debug, Default)]
pub(crate) struct MethodTimings {
    first: OnceLock<Box<Method>>,
}

#[derive(Debug)]
struct Method {
    name: &'static str,
    runs: AtomicU64,
    timed: AtomicU64,
    ns: AtomicU64,
    max_ns: AtomicU64,
    next: OnceLock<Box<Method>>,
}

impl Method {
    fn new(name: &'static str) -> Box<Self> {
        let zero = || AtomicU64::new(0);
        Box::new(Self { name, runs: zero(), timed: zero(), ns: zero(), max_ns: zero(), next: OnceLock::new() })
    }

    fn took(&self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.timed.fetch_add(1, Ordering::Relaxed);
        self.ns.fetch_add(ns, Ordering::Relaxed);
        self.max_ns.fetch_max(ns, Ordering::Relaxed);
    }
}

/// A run that is being timed, or not, until this is dropped.
#[derive(Debug)]
pub(crate) struct Running<'a>(Option<(&'a Method, Instant)>);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some((method, since)) = self.0 {
            method.took(since.elapsed());
        }
    }
}

impl MethodTimings {
    /// A run of `method` begins.
    pub(crate) fn begin(&self, method: &'static str) -> Running<'_> {
        let method = self.method(method);
        let timed = method.runs.fetch_add(1, Ordering::Relaxed).is_multiple_of(8);
        Running(timed.then(|| (method, Instant::now())))
    }

    fn method(&self, name: &'static str) -> &Method {
        let mut at = &self.first;
        for _ in 0..METHODS {
            let method = at.get_or_init(|| Method::new(name));
            if method.name == name {
                return method;
            }
            at = &method.next;
        }
        at.get_or_init(|| Method::new("other"))
    }

    /// `method_<name>_runs`; of those that were timed `method_<name>_timed`, `method_<name>_ns`, `method_<name>_max_ns`.
    pub(crate) fn describe(&self, metrics: &mut Metrics) {
        let mut at = self.first.get();
        while let Some(method) = at {
            let counted = |count: &AtomicU64| Metric::counter(count.load(Ordering::Relaxed));
            for (what, metric) in [
                ("runs", counted(&method.runs)),
                ("timed", counted(&method.timed)),
                ("ns", counted(&method.ns).unit(Unit::Nanoseconds)),
                ("max_ns", Metric::gauge(method.max_ns.load(Ordering::Relaxed)).unit(Unit::Nanoseconds)),
            ] {
                metrics.insert(format!("method_{}_{what}", method.name), metric);
            }
            at = method.next.get();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_beyond_the_cap_share_a_line() {
        let timings = MethodTimings::default();
        for n in 0..100 {
            drop(timings.begin(Box::leak(format!("m{n}").into_boxed_str())));
        }
        drop(timings.begin("m0"));
        let mut counters = Metrics::default();
        timings.describe(&mut counters);
        assert_eq!(counters.len(), 4 * (METHODS + 1));
        assert_eq!(counters["method_other_runs"], 68);
        assert_eq!((counters["method_m0_runs"], counters["method_m0_timed"]), (2, 1));
    }
}

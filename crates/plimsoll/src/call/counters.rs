//! What a server shows of its calls: counters, and how long methods run.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Protocol;
use super::call_table::Outcome;
use super::shared::Shared;
use crate::inspect::{Details, Inspect};

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

/// `started`, `settled`, `settled_<outcome>`, `in_flight`, `timers`, `bound_callers`, `permits_used`, `permits_limit`,
/// `bytes_used`, `waiting`, `workers`, `overrunning`, `late_replies`, `left_to_finish`, `worker_failures`, `refused_<reason>`, `casts`,
/// `casts_handled`, `casts_dropped`, `casts_refused`,
/// `method_<name>_runs`, and of one run in eight `method_<name>_timed`, `method_<name>_ns`, `method_<name>_max_ns`.
///
/// `started = settled + in_flight` holds in every reading.
impl<P: Protocol> Inspect for Shared<P> {
    fn inspect(&self) -> Details {
        let (tally, in_flight, timers, callers) = {
            let table = &mut self.calls.lock().table;
            (table.tally(), table.in_flight() as u64, table.timers() as u64, table.callers().len() as u64)
        };
        let refused = self.refusals.read();
        let refused_in_all: u64 = refused.iter().map(|(_, _, count)| count).sum();
        let mut details = Details::default();
        let mut put = |name: String, value: u64| details.counters.insert(name, value);
        for (outcome, name) in Outcome::ALL {
            let at_admission: u64 = refused.iter().filter(|(_, as_, _)| *as_ == outcome).map(|(_, _, n)| n).sum();
            put(format!("settled_{name}"), tally.settled[outcome as usize] + at_admission);
        }
        for (reason, _, count) in refused {
            put(format!("refused_{reason}"), count);
        }
        let (used, limit) = (self.gate.used(), self.gate.limit());
        for (name, value) in [
            ("started", tally.started + refused_in_all),
            ("settled", tally.settled_in_all() + refused_in_all),
            ("in_flight", in_flight),
            ("timers", timers),
            ("bound_callers", callers),
            ("permits_used", u64::from(used.count)),
            ("permits_limit", u64::from(limit.count)),
            ("bytes_used", used.bytes),
            ("waiting", self.gate.waiting() as u64),
        ] {
            put(name.to_owned(), value);
        }
        let gauges = &self.gauges;
        for (name, value) in [
            ("workers", &gauges.workers),
            ("overrunning", &gauges.overrunning),
            ("late_replies", &gauges.late),
            ("left_to_finish", &gauges.left_to_finish),
            ("worker_failures", &gauges.worker_failures),
            ("casts", &gauges.casts),
            ("casts_handled", &gauges.casts_handled),
            ("casts_dropped", &gauges.casts_dropped),
            ("casts_refused", &gauges.casts_refused),
        ] {
            put(name.to_owned(), value.load(Ordering::Relaxed));
        }
        P::describe(&self.host, &mut details.counters);
        details
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
    pub(crate) fn describe(&self, counters: &mut BTreeMap<String, u64>) {
        let mut at = self.first.get();
        while let Some(method) = at {
            for (what, count) in
                [("runs", &method.runs), ("timed", &method.timed), ("ns", &method.ns), ("max_ns", &method.max_ns)]
            {
                counters.insert(format!("method_{}_{what}", method.name), count.load(Ordering::Relaxed));
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
        let mut counters = BTreeMap::new();
        timings.describe(&mut counters);
        assert_eq!(counters.len(), 4 * (METHODS + 1));
        assert_eq!(counters["method_other_runs"], 68);
        assert_eq!((counters["method_m0_runs"], counters["method_m0_timed"]), (2, 1));
    }
}

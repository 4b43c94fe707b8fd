//! How often methods run and how long they take.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Methods timed apart; those beyond share one line.
const METHODS: usize = 32;

/// Every run is counted; one in eight, the first included, is timed: two readings of the clock for each would cost a
/// short call a tenth of its time.
#[derive(Debug, Default)]
pub(crate) struct Timings {
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

impl Timings {
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
        let timings = Timings::default();
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

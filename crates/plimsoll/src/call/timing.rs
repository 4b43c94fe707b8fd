//! How long calls take, by method.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Methods timed apart; those beyond share one line.
const METHODS: usize = 32;

#[derive(Debug, Clone, Copy, Default)]
struct Timing {
    timed: u64,
    total: Duration,
    longest: Duration,
}

/// Times of each method. One call in eight is timed: reading the clock twice, and a lock that all workers share, would cost
/// a short call more than all other book-keeping.
#[derive(Debug, Default)]
pub(crate) struct Timings {
    methods: Mutex<Vec<(&'static str, Timing)>>,
    calls: AtomicU64,
}

/// A call that is being timed, or not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Running(Option<Instant>);

impl Timings {
    pub(crate) fn begin(&self) -> Running {
        let timed = self.calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(8);
        Running(timed.then(Instant::now))
    }

    pub(crate) fn end(&self, method: &'static str, running: Running) {
        if let Some(began) = running.0 {
            self.record(method, began.elapsed());
        }
    }

    fn record(&self, method: &'static str, took: Duration) {
        let mut methods = self.methods.lock();
        let name = |methods: &Vec<_>| if methods.len() < METHODS { method } else { "other" };
        let at = match methods.iter().position(|(known, _)| *known == method) {
            Some(at) => at,
            None => {
                let name = name(&methods);
                methods.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
                    methods.push((name, Timing::default()));
                    methods.len() - 1
                })
            }
        };
        let timing = &mut methods[at].1;
        timing.timed += 1;
        timing.total += took;
        timing.longest = timing.longest.max(took);
    }

    /// Of the calls timed `method_<name>_timed`, `method_<name>_ns`, `method_<name>_max_ns`.
    pub(crate) fn describe(&self, counters: &mut BTreeMap<String, u64>) {
        for (name, timing) in self.methods.lock().iter() {
            let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            counters.insert(format!("method_{name}_timed"), timing.timed);
            counters.insert(format!("method_{name}_ns"), ns(timing.total));
            counters.insert(format!("method_{name}_max_ns"), ns(timing.longest));
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
            timings.record(Box::leak(format!("m{n}").into_boxed_str()), Duration::from_nanos(n));
        }
        let mut counters = BTreeMap::new();
        timings.describe(&mut counters);
        assert_eq!(counters.len(), 3 * (METHODS + 1));
        assert_eq!(counters["method_other_timed"], 68);
        assert_eq!(counters["method_other_max_ns"], 99);
    }
}

//! What a server shows of its calls.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Protocol;
use super::book::Outcome;
use super::shared::Shared;
use crate::inspect::{Details, Inspect};

/// What is counted apart from the books.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) late: AtomicU64,
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
/// `bytes_used`, `waiting`, `workers`, `overrunning`, `late_replies`, `worker_failures`, `refused_<reason>`, `casts`,
/// `casts_handled`, `casts_dropped`, `casts_refused`,
/// `method_<name>_runs`, and of one run in eight `method_<name>_timed`, `method_<name>_ns`, `method_<name>_max_ns`.
///
/// `started = settled + in_flight` holds in every reading.
impl<P: Protocol> Inspect for Shared<P> {
    fn inspect(&self) -> Details {
        let (tally, in_flight, timers, callers) = {
            let book = &mut self.desk.lock().book;
            (book.tally(), book.in_flight() as u64, book.timers() as u64, book.callers().len() as u64)
        };
        let refused = self.refusals.read();
        let refused_in_all: u64 = refused.iter().map(|(_, _, count)| count).sum();
        let mut details = Details::default();
        let mut put = |name: String, value: u64| details.counters.insert(name, value);
        for (outcome, name) in Outcome::ALL {
            let at_the_door: u64 = refused.iter().filter(|(_, as_, _)| *as_ == outcome).map(|(_, _, n)| n).sum();
            put(format!("settled_{name}"), tally.settled[outcome as usize] + at_the_door);
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

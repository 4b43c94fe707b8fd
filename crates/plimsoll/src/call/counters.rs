//! What a call server shows of itself.

use std::sync::atomic::Ordering;

use super::Service;
use super::book::Outcome;
use super::shared::Shared;
use crate::inspect::{Details, Inspect};

/// `started`, `settled`, `settled_<outcome>`, `in_flight`, `timers`, `permits_used`, `permits_limit`, `bytes_used`,
/// `waiting`, `workers`, `overrunning`, `late_replies`, `worker_failures`, `refused_<reason>`.
///
/// `started = settled + in_flight` holds in every reading.
impl<S: Service> Inspect for Shared<S> {
    fn inspect(&self) -> Details {
        let (tally, in_flight, timers) = {
            let book = self.book.lock();
            (book.tally(), book.in_flight() as u64, book.timers() as u64)
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
            ("permits_used", u64::from(used.count)),
            ("permits_limit", u64::from(limit.count)),
            ("bytes_used", used.bytes),
            ("waiting", self.gate.waiting() as u64),
            ("workers", self.workers.load(Ordering::Relaxed)),
            ("overrunning", self.overrunning.load(Ordering::Relaxed)),
            ("late_replies", self.late.load(Ordering::Relaxed)),
            ("worker_failures", self.worker_failures.load(Ordering::Relaxed)),
        ] {
            put(name.to_owned(), value);
        }
        details
    }
}

//! What a mailbox shows of itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use plimsoll_sync::mailbox::Traffic;
use plimsoll_sync::occupancy::OccupancyReading;
use plimsoll_sync::permits::{Load, PermitGate};

use super::BoundedRef;
use super::delivery::{Core, Queue, RETURNED, TAKEN, UNSERVED};
use crate::inspect::{Details, Inspect, Metric, Metrics, Unit};

impl<M> Core<M> {
    /// What went through it, and the credits that are out.
    pub(crate) fn traffic(&self) -> (Traffic, Load) {
        match &self.queue {
            Queue::Own(mailbox) => (mailbox.traffic(), mailbox.gate.used()),
            Queue::Ractor { occupancy, gate } => {
                let OccupancyReading { entered, left, inside, high_water } = occupancy.read();
                let traffic = Traffic {
                    sent: entered,
                    taken: left[TAKEN],
                    dropped_oldest: 0,
                    dropped_unserved: left[UNSERVED],
                    returned: left[RETURNED],
                    queued: inside,
                    high_water,
                };
                let credits = Load { count: u32::try_from(inside).unwrap_or(u32::MAX), bytes: 0 };
                (traffic, gate.as_ref().map_or(credits, PermitGate::used))
            }
        }
    }

    fn waiting_now(&self) -> usize {
        match &self.queue {
            Queue::Ractor { gate: Some(gate), .. } => gate.waiting(),
            _ => 0,
        }
    }
}

/// `sent`, `taken`, `depth`, `high_water`, `limit`, `bytes`, `bytes_limit`, `credits_used`, `waiting`, `refused`,
/// `dropped_newest`, `dropped_oldest`, `dropped_unserved`, `returned`; of all messages taken `waited_ms` and
/// `waited_max_ms`, by the coarse clock; of one in eight `waited_timed`, `waited_ns`, `waited_max_ns`.
///
/// `sent = taken + dropped_oldest + dropped_unserved + returned + depth` holds in every reading.
impl<M: Send + 'static> Inspect for Core<M> {
    fn inspect(&self) -> Details {
        let (traffic, credits) = self.traffic();
        let waits = &self.waiting_times;
        let counted = |count: &AtomicU64| Metric::counter(count.load(Ordering::Relaxed));
        let longest = |time: &AtomicU64| Metric::gauge(time.load(Ordering::Relaxed));
        let counters = Metrics::from([
            ("sent", Metric::counter(traffic.sent)),
            ("taken", Metric::counter(traffic.taken)),
            ("depth", Metric::gauge(traffic.queued)),
            ("high_water", Metric::gauge(traffic.high_water)),
            ("limit", Metric::gauge(u64::from(self.limit.count))),
            ("bytes", Metric::gauge(credits.bytes).bytes()),
            ("bytes_limit", Metric::gauge(self.limit.bytes).bytes()),
            ("credits_used", Metric::gauge(u64::from(credits.count))),
            ("waiting", Metric::gauge(self.waiting_now() as u64)),
            ("dropped_oldest", Metric::counter(traffic.dropped_oldest)),
            ("dropped_unserved", Metric::counter(traffic.dropped_unserved)),
            ("returned", Metric::counter(traffic.returned)),
            ("refused", counted(&self.refused)),
            ("dropped_newest", counted(&self.dropped_newest)),
            ("waited_ms", counted(&waits.ms).unit(Unit::Milliseconds)),
            ("waited_max_ms", longest(&waits.max_ms).unit(Unit::Milliseconds)),
            ("waited_timed", counted(&waits.timed)),
            ("waited_ns", counted(&waits.ns).unit(Unit::Nanoseconds)),
            ("waited_max_ns", longest(&waits.max_ns).unit(Unit::Nanoseconds)),
        ]);
        Details { counters, children: Vec::new() }
    }
}

impl<M: Send + 'static> BoundedRef<M> {
    /// Its counters, readable at any time, also after its actor's end.
    pub fn inspector(&self) -> Arc<dyn Inspect> {
        Arc::clone(&self.core) as Arc<dyn Inspect>
    }
}

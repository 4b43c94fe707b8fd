//! What a mailbox shows of itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use plimsoll_sync::mailbox::Traffic;
use plimsoll_sync::occupancy::OccupancyReading;
use plimsoll_sync::permits::{Load, PermitGate};

use super::BoundedRef;
use super::delivery::{Core, Queue, RETURNED, TAKEN, UNSERVED};
use crate::inspect::{Details, Inspect};

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
        let mut details = Details::default();
        for (name, value) in [
            ("sent", traffic.sent),
            ("taken", traffic.taken),
            ("depth", traffic.queued),
            ("high_water", traffic.high_water),
            ("limit", u64::from(self.limit.count)),
            ("bytes", credits.bytes),
            ("bytes_limit", self.limit.bytes),
            ("credits_used", u64::from(credits.count)),
            ("waiting", self.waiting_now() as u64),
            ("dropped_oldest", traffic.dropped_oldest),
            ("dropped_unserved", traffic.dropped_unserved),
            ("returned", traffic.returned),
        ] {
            details.counters.insert(name.to_owned(), value);
        }
        let waits = &self.waiting_times;
        for (name, value) in [
            ("refused", &self.refused),
            ("dropped_newest", &self.dropped_newest),
            ("waited_ms", &waits.ms),
            ("waited_max_ms", &waits.max_ms),
            ("waited_timed", &waits.timed),
            ("waited_ns", &waits.ns),
            ("waited_max_ns", &waits.max_ns),
        ] {
            details.counters.insert(name.to_owned(), value.load(Ordering::Relaxed));
        }
        details
    }
}

impl<M: Send + 'static> BoundedRef<M> {
    /// Its counters, readable at any time, also after its actor's end.
    pub fn inspector(&self) -> Arc<dyn Inspect> {
        Arc::clone(&self.core) as Arc<dyn Inspect>
    }
}

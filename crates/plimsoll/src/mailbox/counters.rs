//! What a mailbox shows of itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::BoundedRef;
use super::bounded::Core;
use crate::inspect::{Details, Inspect};

/// `sent`, `taken`, `depth`, `high_water`, `limit`, `bytes`, `bytes_limit`, `waiting`, `refused`, `dropped_newest`,
/// `dropped_oldest`, `dropped_unserved`, `returned`, and of one message in eight `waited_timed`, `waited_ns`, `waited_max_ns`.
///
/// `sent = taken + dropped_oldest + dropped_unserved + returned + depth` holds in every reading.
impl<M: Send + 'static> Inspect for Core<M> {
    fn inspect(&self) -> Details {
        let traffic = self.mailbox.traffic();
        let mut details = Details::default();
        for (name, value) in [
            ("sent", traffic.sent),
            ("taken", traffic.taken),
            ("depth", traffic.queued),
            ("high_water", traffic.high_water),
            ("limit", u64::from(self.limit.count)),
            ("bytes", self.mailbox.gate.used().bytes),
            ("bytes_limit", self.limit.bytes),
            ("credits_used", u64::from(self.mailbox.gate.used().count)),
            ("waiting", self.mailbox.gate.waiting() as u64),
            ("refused", self.refused.load(Ordering::Relaxed)),
            ("dropped_newest", self.dropped_newest.load(Ordering::Relaxed)),
            ("dropped_oldest", traffic.dropped_oldest),
            ("dropped_unserved", traffic.dropped_unserved),
            ("returned", traffic.returned),
            ("waited_timed", self.waited_timed.load(Ordering::Relaxed)),
            ("waited_ns", self.waited_ns.load(Ordering::Relaxed)),
            ("waited_max_ns", self.waited_max_ns.load(Ordering::Relaxed)),
        ] {
            details.counters.insert(name.to_owned(), value);
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

//! The memory that a node needs when all its caps are used.

use std::fmt;

use super::limits::Limits;
use crate::pubsub::PubsubCaps;

/// Bytes of one idle connection: quinn, TLS, HTTP/3, its actor and its tasks after one call. Measured: 52 KiB
/// with glibc's allocator, 55 KiB with jemalloc, which rounds up. Windows come on top.
pub const CONNECTION_BYTES: u64 = 52 * 1024;

/// Bytes of one advertisement: its lease, its entry in the session, its indexes and a name of the greatest length.
pub const ADVERTISEMENT_BYTES: u64 = 1024;

/// Bytes of one quiet subscription: its entry, its filter and the task that waits to write. Backlogs have a budget of
/// their own.
pub const SUBSCRIPTION_BYTES: u64 = 8 * 1024;

/// The memory that a node needs when all its caps are used.
///
/// ```
/// use plimsoll_mesh::gateway::{MemoryRequirement, Limits};
///
/// let requirement = MemoryRequirement::of(&Limits::default(), 1_000);
/// assert_eq!(requirement.bytes(), (11_064 * 52 + 10_000 + 10_000 * 8 + 193 * 1024) * 1024);
/// assert!(requirement.fits(1 << 30).is_ok());
/// assert_eq!(
///     requirement.fits(256 << 20).unwrap_err().to_string(),
///     "10000 clients + 64 refusal responders + 1000 pooled peers at 52 KiB each, 10000 advertisements at 1 KiB each, \
///      10000 subscriptions at 8 KiB each and 193.0 MiB of buffers are 842.8 MiB, the memory budget is 256.0 MiB: \
///      lower the caps or raise the budget",
/// );
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryRequirement {
    /// Clients at once.
    pub clients: usize,
    /// Refusal responders.
    pub refusal_responders: usize,
    /// Pooled connections to peers.
    pub peers: usize,
    /// Advertisements of all clients.
    pub advertisements: usize,
    /// Subscriptions, or filters if there may be more of them.
    pub subscriptions: usize,
    /// Bytes of request bodies, of unacknowledged responses, of backlogs of subscribers and of pending handshakes.
    pub buffers: u64,
}

/// The caps do not fit the memory budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} clients + {} refusal responders + {} pooled peers at {} KiB each, {} advertisements at {} KiB each, {} subscriptions at \
     {} KiB each and {} of buffers are {}, the memory budget is {}: lower the caps or raise the budget",
    requirement.clients, requirement.refusal_responders, requirement.peers, CONNECTION_BYTES / 1024,
    requirement.advertisements, ADVERTISEMENT_BYTES / 1024, requirement.subscriptions, SUBSCRIPTION_BYTES / 1024,
    MiB(requirement.buffers), MiB(requirement.bytes()), MiB(*budget)
)]
pub struct BudgetTooSmall {
    /// The memory needed.
    pub requirement: MemoryRequirement,
    /// The memory available, in bytes.
    pub budget: u64,
}

impl MemoryRequirement {
    /// The memory for these limits and `peers` pooled peers.
    pub fn of(limits: &Limits, peers: usize) -> Self {
        let PubsubCaps { subscribers, filters, all_backlogs, .. } = limits.pubsub;
        Self {
            clients: limits.clients,
            refusal_responders: limits.refusal_responders,
            peers,
            advertisements: limits.advertisements.total.get(),
            subscriptions: subscribers.max(filters).get(),
            buffers: (limits.all_bodies_bytes as u64)
                .saturating_add(limits.all_responses_bytes as u64)
                .saturating_add(limits.all_handshakes_bytes)
                .saturating_add(all_backlogs.get()),
        }
    }

    /// The sum in bytes; windows are not counted.
    pub const fn bytes(&self) -> u64 {
        let connections =
            (self.clients as u64).saturating_add(self.refusal_responders as u64).saturating_add(self.peers as u64);
        let advertisements = (self.advertisements as u64).saturating_mul(ADVERTISEMENT_BYTES);
        let subscriptions = (self.subscriptions as u64).saturating_mul(SUBSCRIPTION_BYTES);
        connections
            .saturating_mul(CONNECTION_BYTES)
            .saturating_add(advertisements)
            .saturating_add(subscriptions)
            .saturating_add(self.buffers)
    }

    /// Whether it fits a budget of so many bytes.
    ///
    /// # Errors
    /// [`BudgetTooSmall`], which names the sum.
    pub const fn fits(self, budget: u64) -> Result<(), BudgetTooSmall> {
        if self.bytes() > budget { Err(BudgetTooSmall { requirement: self, budget }) } else { Ok(()) }
    }
}

struct MiB(u64);

impl fmt::Display for MiB {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Rounded up, so that a sum that does not fit never looks equal to the budget.
        let tenths = self.0.saturating_mul(10).div_ceil(1024 * 1024);
        write!(f, "{}.{} MiB", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use plimsoll::bounded::{ByteCap, Cap};

    use super::*;

    fn requirement() -> MemoryRequirement {
        MemoryRequirement::of(&Limits { clients: 1, refusal_responders: 1, ..Limits::default() }, 1)
    }

    #[test]
    fn a_budget_fits_to_the_byte() {
        let requirement = requirement();
        let bytes = requirement.bytes();
        assert_eq!(requirement.fits(bytes), Ok(()));
        assert_eq!(requirement.fits(bytes - 1), Err(BudgetTooSmall { requirement, budget: bytes - 1 }));
    }

    /// M-1: each cap that the settings can raise is in the sum.
    #[test]
    fn every_cap_is_in_the_sum() {
        let small = requirement();
        for more in [
            MemoryRequirement { clients: small.clients + 1, ..small },
            MemoryRequirement { refusal_responders: small.refusal_responders + 1, ..small },
            MemoryRequirement { peers: small.peers + 1, ..small },
            MemoryRequirement { advertisements: small.advertisements + 1, ..small },
            MemoryRequirement { subscriptions: small.subscriptions + 1, ..small },
            MemoryRequirement { buffers: small.buffers + 1, ..small },
        ] {
            assert!(more.bytes() > small.bytes(), "{more:?}");
        }
        let raised = |change: fn(&mut Limits)| {
            let mut limits = Limits { clients: 1, refusal_responders: 1, ..Limits::default() };
            change(&mut limits);
            MemoryRequirement::of(&limits, 1).bytes() > small.bytes()
        };
        assert!(raised(|limits| limits.advertisements.total = Cap::of::<20_000>()));
        assert!(raised(|limits| limits.pubsub.subscribers = Cap::of::<20_000>()));
        assert!(raised(|limits| limits.pubsub.filters = Cap::of::<20_000>()));
        assert!(raised(|limits| limits.all_bodies_bytes *= 2));
        assert!(raised(|limits| limits.all_responses_bytes *= 2));
        assert!(raised(|limits| limits.all_handshakes_bytes *= 2));
        assert!(raised(|limits| limits.pubsub.all_backlogs = ByteCap::of::<{ 128 << 20 }>()));
    }

    #[test]
    fn absurd_caps_do_not_wrap_around() {
        let requirement = MemoryRequirement {
            clients: usize::MAX,
            refusal_responders: usize::MAX,
            subscriptions: usize::MAX,
            ..requirement()
        };
        assert!(requirement.fits(u64::MAX - 1).is_err());
    }
}

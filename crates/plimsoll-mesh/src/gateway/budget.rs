//! The least memory that the caps of a node stand for.

use std::fmt;

use super::Limits;
use crate::pubsub::PubsubCaps;

/// What one idle connection is planned with: quinn, TLS, HTTP/3, its actor and its tasks after one call. Measured: 52 KiB
/// with glibc's allocator, 55 KiB with jemalloc, which rounds up. Windows come on top.
pub const PLACE_BYTES: u64 = 52 * 1024;

/// What one advertisement holds: its lease, its place in the session, its indexes and a name of the longest kind.
pub const ADVERTISEMENT_BYTES: u64 = 1024;

/// What one quiet subscription holds: its place, its filter and the task that waits to write. What waits for a subscriber
/// comes on top; all who wait for one message share it.
pub const SUBSCRIPTION_BYTES: u64 = 8 * 1024;

/// What a node promises to hold at once.
///
/// ```
/// use plimsoll_mesh::gateway::{Floor, Limits};
///
/// let floor = Floor::of(&Limits::default(), 1_000);
/// assert_eq!(floor.bytes(), (11_064 * 52 + 10_000 + 10_000 * 8 + 129 * 1024) * 1024);
/// assert!(floor.fits(1 << 30).is_ok());
/// assert_eq!(
///     floor.fits(256 << 20).unwrap_err().to_string(),
///     "10000 clients + 64 desk places + 1000 pooled peers at 52 KiB each, 10000 advertisements at 1 KiB each, \
///      10000 subscriptions at 8 KiB each and 129.0 MiB of buffers are 778.8 MiB, the memory budget is 256.0 MiB: \
///      lower the caps or raise the budget",
/// );
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Floor {
    /// Clients at once.
    pub clients: usize,
    /// Places at the refusal desk.
    pub desk_places: usize,
    /// Pooled connections to peers.
    pub peers: usize,
    /// Advertisements of all clients.
    pub advertisements: usize,
    /// Subscriptions, or filters if there may be more of them.
    pub subscriptions: usize,
    /// Bytes of request bodies, of answers on their way and of handshakes that wait.
    pub buffers: u64,
}

/// The caps do not fit the memory budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} clients + {} desk places + {} pooled peers at {} KiB each, {} advertisements at {} KiB each, {} subscriptions at \
     {} KiB each and {} of buffers are {}, the memory budget is {}: lower the caps or raise the budget",
    floor.clients, floor.desk_places, floor.peers, PLACE_BYTES / 1024,
    floor.advertisements, ADVERTISEMENT_BYTES / 1024, floor.subscriptions, SUBSCRIPTION_BYTES / 1024,
    MiB(floor.buffers), MiB(floor.bytes()), MiB(*budget)
)]
pub struct BudgetTooSmall {
    /// What is promised.
    pub floor: Floor,
    /// What there is, in bytes.
    pub budget: u64,
}

impl Floor {
    /// What these limits promise, with so many pooled peers.
    pub fn of(limits: &Limits, peers: usize) -> Self {
        let PubsubCaps { subscribers, filters, .. } = limits.pubsub;
        Self {
            clients: limits.clients,
            desk_places: limits.desk_places,
            peers,
            advertisements: limits.advertisements.total.get(),
            subscriptions: subscribers.max(filters).get(),
            buffers: (limits.all_bodies_bytes as u64)
                .saturating_add(limits.all_answers_bytes as u64)
                .saturating_add(limits.all_waiting_bytes),
        }
    }

    /// The bytes all that holds; windows and the backlogs of subscribers are not counted.
    pub const fn bytes(&self) -> u64 {
        let places = (self.clients as u64).saturating_add(self.desk_places as u64).saturating_add(self.peers as u64);
        let advertisements = (self.advertisements as u64).saturating_mul(ADVERTISEMENT_BYTES);
        let subscriptions = (self.subscriptions as u64).saturating_mul(SUBSCRIPTION_BYTES);
        places
            .saturating_mul(PLACE_BYTES)
            .saturating_add(advertisements)
            .saturating_add(subscriptions)
            .saturating_add(self.buffers)
    }

    /// Whether a budget of so many bytes holds them.
    ///
    /// # Errors
    /// [`BudgetTooSmall`], which names the sum.
    pub const fn fits(self, budget: u64) -> Result<(), BudgetTooSmall> {
        if self.bytes() > budget { Err(BudgetTooSmall { floor: self, budget }) } else { Ok(()) }
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
    use plimsoll::bounded::Cap;

    use super::*;

    fn floor() -> Floor {
        Floor::of(&Limits { clients: 1, desk_places: 1, ..Limits::default() }, 1)
    }

    #[test]
    fn a_budget_fits_to_the_byte() {
        let floor = floor();
        let bytes = floor.bytes();
        assert_eq!(floor.fits(bytes), Ok(()));
        assert_eq!(floor.fits(bytes - 1), Err(BudgetTooSmall { floor, budget: bytes - 1 }));
    }

    /// M-1: each cap that the settings can raise is in the sum.
    #[test]
    fn one_more_of_anything_is_more() {
        let small = floor();
        for more in [
            Floor { clients: small.clients + 1, ..small },
            Floor { desk_places: small.desk_places + 1, ..small },
            Floor { peers: small.peers + 1, ..small },
            Floor { advertisements: small.advertisements + 1, ..small },
            Floor { subscriptions: small.subscriptions + 1, ..small },
            Floor { buffers: small.buffers + 1, ..small },
        ] {
            assert!(more.bytes() > small.bytes(), "{more:?}");
        }
        let raised = |change: fn(&mut Limits)| {
            let mut limits = Limits { clients: 1, desk_places: 1, ..Limits::default() };
            change(&mut limits);
            Floor::of(&limits, 1).bytes() > small.bytes()
        };
        assert!(raised(|limits| limits.advertisements.total = Cap::of::<20_000>()));
        assert!(raised(|limits| limits.pubsub.subscribers = Cap::of::<20_000>()));
        assert!(raised(|limits| limits.pubsub.filters = Cap::of::<20_000>()));
        assert!(raised(|limits| limits.all_bodies_bytes *= 2));
        assert!(raised(|limits| limits.all_answers_bytes *= 2));
        assert!(raised(|limits| limits.all_waiting_bytes *= 2));
    }

    #[test]
    fn absurd_caps_do_not_wrap_around() {
        let floor = Floor { clients: usize::MAX, desk_places: usize::MAX, subscriptions: usize::MAX, ..floor() };
        assert!(floor.fits(u64::MAX - 1).is_err());
    }
}

//! The least memory that the caps of a node stand for.

use std::fmt;

/// What one idle connection holds: quinn, TLS, HTTP/3, its actor and its tasks after one call, with room to spare over
/// what was measured. Windows come on top.
pub const PLACE_BYTES: u64 = 52 * 1024;

/// The connections that a node promises to hold at once.
///
/// ```
/// use plimsoll_mesh::gateway::Floor;
///
/// let floor = Floor { clients: 10_000, desk_places: 64, peers: 1_000 };
/// assert_eq!(floor.bytes(), 11_064 * 52 * 1024);
/// assert!(floor.fits(1 << 30).is_ok());
/// assert_eq!(
///     floor.fits(256 << 20).unwrap_err().to_string(),
///     "10000 clients + 64 desk places + 1000 pooled peers at 52 KiB each are 561.9 MiB, \
///      the memory budget is 256.0 MiB: lower the caps or raise the budget",
/// );
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    /// Clients at once.
    pub clients: usize,
    /// Places at the refusal desk.
    pub desk_places: usize,
    /// Pooled connections to peers.
    pub peers: usize,
}

/// The caps do not fit the memory budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} clients + {} desk places + {} pooled peers at {} KiB each are {}, the memory budget is {}: lower the caps or \
     raise the budget",
    floor.clients, floor.desk_places, floor.peers, PLACE_BYTES / 1024, MiB(floor.bytes()), MiB(*budget)
)]
pub struct BudgetTooSmall {
    /// What is promised.
    pub floor: Floor,
    /// What there is, in bytes.
    pub budget: u64,
}

impl Floor {
    /// The bytes these connections hold, windows not counted.
    pub const fn bytes(&self) -> u64 {
        let places = (self.clients as u64).saturating_add(self.desk_places as u64).saturating_add(self.peers as u64);
        places.saturating_mul(PLACE_BYTES)
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
    use super::*;

    #[test]
    fn a_budget_fits_to_the_byte() {
        let floor = Floor { clients: 1, desk_places: 1, peers: 1 };
        assert_eq!(floor.fits(3 * PLACE_BYTES), Ok(()));
        assert_eq!(floor.fits(3 * PLACE_BYTES - 1), Err(BudgetTooSmall { floor, budget: 3 * PLACE_BYTES - 1 }));
    }

    #[test]
    fn absurd_caps_do_not_wrap_around() {
        let floor = Floor { clients: usize::MAX, desk_places: usize::MAX, peers: 0 };
        assert!(floor.fits(u64::MAX - 1).is_err());
    }
}

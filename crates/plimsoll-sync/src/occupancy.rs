//! How many items are inside a bounded space, where one side enters and another leaves.
//!
//! Two counts that only grow, each on a cache line of its own: all items that entered, and all that left. Entering changes
//! the first and reads the second only when necessary, so the two sides seldom contend for a line. A stale count of items
//! that left makes the space look fuller than it is, never emptier: before an item is refused the present count is read.

use crate::sync::atomic::{AtomicU64, Ordering};

/// Counts items that enter and that leave in one of `N` ways, and refuses one over a limit. In every reading
/// `entered = left + inside`.
///
/// ```
/// use plimsoll_sync::occupancy::Occupancy;
///
/// let occupancy: Occupancy<2> = Occupancy::new();
/// assert_eq!(occupancy.enter(1), Ok(0));
/// assert_eq!(occupancy.enter(1), Err(1));
/// occupancy.leave(1);
/// assert_eq!(occupancy.enter(1), Ok(1));
/// let reading = occupancy.read();
/// assert_eq!((reading.entered, reading.left, reading.inside, reading.high_water), (2, [0, 1], 1, 1));
/// ```
#[derive(Debug)]
pub struct Occupancy<const N: usize> {
    entering: Entering,
    leaving: Leaving<N>,
}

/// What entering changes.
#[derive(Debug)]
#[repr(align(128))]
struct Entering {
    entered: AtomicU64,
    /// How many had left when that was last read.
    seen: AtomicU64,
    high_water: AtomicU64,
}

/// What leaving changes.
#[derive(Debug)]
#[repr(align(128))]
struct Leaving<const N: usize>([AtomicU64; N]);

impl<const N: usize> Leaving<N> {
    fn read(&self) -> [u64; N] {
        // ORDERING: Acquire, so that an item that enters sees the effects of the one that left its place.
        std::array::from_fn(|way| self.0[way].load(Ordering::Acquire))
    }
}

/// One reading of an [`Occupancy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OccupancyReading<const N: usize> {
    /// All items that entered.
    pub entered: u64,
    /// How many of them left, by way.
    pub left: [u64; N],
    /// How many have not left.
    pub inside: u64,
    /// The most that were inside at one time.
    pub high_water: u64,
}

impl<const N: usize> Occupancy<N> {
    /// Nothing has entered.
    pub fn new() -> Self {
        let zero = || AtomicU64::new(0);
        let entering = Entering { entered: zero(), seen: zero(), high_water: zero() };
        Self { entering, leaving: Leaving(std::array::from_fn(|_| zero())) }
    }

    /// Lets an item enter, unless `limit` are inside. Returns how many had entered before.
    ///
    /// # Errors
    /// How many are inside when that is `limit` or more.
    pub fn enter(&self, limit: u64) -> Result<u64, u64> {
        let Entering { entered, seen, high_water } = &self.entering;
        let mut count = entered.load(Ordering::Acquire);
        loop {
            let mut inside = count.saturating_sub(seen.load(Ordering::Acquire));
            if inside >= limit || inside >= high_water.load(Ordering::Relaxed) {
                let left = self.leaving.read().iter().sum();
                // An older count of a slower thread only makes the next one read again.
                seen.store(left, Ordering::Release);
                inside = count.saturating_sub(left);
                if inside >= limit {
                    return Err(inside);
                }
            }
            match entered.compare_exchange_weak(count, count + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    if inside >= high_water.load(Ordering::Relaxed) {
                        high_water.fetch_max(inside + 1, Ordering::Relaxed);
                    }
                    return Ok(count);
                }
                Err(now) => count = now,
            }
        }
    }

    /// An item that entered leaves by way `way`.
    pub fn leave(&self, way: usize) {
        // ORDERING: Release, so that a reader that sees it left also sees that it had entered.
        self.leaving.0[way].fetch_add(1, Ordering::Release);
    }

    /// All counts at one moment: those of leaving are read first, and nothing leaves that has not entered.
    pub fn read(&self) -> OccupancyReading<N> {
        let left = self.leaving.read();
        let entered = self.entering.entered.load(Ordering::Acquire);
        let high_water = self.entering.high_water.load(Ordering::Acquire);
        OccupancyReading { entered, left, inside: entered - left.iter().sum::<u64>(), high_water }
    }
}

impl<const N: usize> Default for Occupancy<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(plimsoll_loom)))]
mod tests {
    use super::*;

    #[test]
    fn items_that_left_make_room_although_the_count_was_not_read_since() {
        let occupancy: Occupancy<1> = Occupancy::new();
        for _ in 0..3 {
            occupancy.enter(3).unwrap();
        }
        (0..3).for_each(|_| occupancy.leave(0));
        for _ in 0..3 {
            occupancy.enter(3).unwrap();
        }
        assert_eq!(occupancy.enter(3), Err(3));
        assert_eq!(occupancy.read(), OccupancyReading { entered: 6, left: [3], inside: 3, high_water: 3 });
    }

    #[test]
    fn the_high_water_mark_counts_items_that_were_inside_at_one_time() {
        let occupancy: Occupancy<1> = Occupancy::new();
        for _ in 0..10 {
            occupancy.enter(100).unwrap();
            occupancy.leave(0);
        }
        assert_eq!(occupancy.read().high_water, 1);
    }
}

//! How many may be inside, where one side comes in and another leaves.
//!
//! Two numbers that only grow, each on a cache line of its own: all who came in, and all who left. Who comes in changes
//! the first and looks at the second only when it must, so that the two sides seldom wait for each other's line. A
//! number of those who left that is too old makes it look fuller than it is, never emptier: before anyone is refused the
//! present number is read.

use crate::sync::atomic::{AtomicU64, Ordering};

/// Counts who comes in and who leaves in which of `N` ways, and refuses who is one too many. In every reading
/// `entered = left + inside`.
///
/// ```
/// use plimsoll_sync::tide::Tide;
///
/// let tide: Tide<2> = Tide::new();
/// assert_eq!(tide.enter(1), Ok(0));
/// assert_eq!(tide.enter(1), Err(1));
/// tide.leave(1);
/// assert_eq!(tide.enter(1), Ok(1));
/// let level = tide.read();
/// assert_eq!((level.entered, level.left, level.inside, level.high_water), (2, [0, 1], 1, 1));
/// ```
#[derive(Debug)]
pub struct Tide<const N: usize> {
    entering: Entering,
    leaving: Leaving<N>,
}

/// What those who come in change.
#[derive(Debug)]
#[repr(align(128))]
struct Entering {
    entered: AtomicU64,
    /// How many had left when somebody last looked.
    seen: AtomicU64,
    high_water: AtomicU64,
}

/// What those who leave change.
#[derive(Debug)]
#[repr(align(128))]
struct Leaving<const N: usize>([AtomicU64; N]);

impl<const N: usize> Leaving<N> {
    fn read(&self) -> [u64; N] {
        // ORDERING: Acquire, so that whoever takes a place sees what the one before did in it.
        std::array::from_fn(|way| self.0[way].load(Ordering::Acquire))
    }
}

/// One reading of a [`Tide`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level<const N: usize> {
    /// All who came in.
    pub entered: u64,
    /// How many of them left, by way.
    pub left: [u64; N],
    /// How many have not left.
    pub inside: u64,
    /// The most who were inside at one time.
    pub high_water: u64,
}

impl<const N: usize> Tide<N> {
    /// Nobody came.
    pub fn new() -> Self {
        let zero = || AtomicU64::new(0);
        let entering = Entering { entered: zero(), seen: zero(), high_water: zero() };
        Self { entering, leaving: Leaving(std::array::from_fn(|_| zero())) }
    }

    /// One comes in, unless `limit` are inside. How many came before.
    ///
    /// # Errors
    /// How many are inside when that is too many.
    pub fn enter(&self, limit: u64) -> Result<u64, u64> {
        let Entering { entered, seen, high_water } = &self.entering;
        let mut count = entered.load(Ordering::Acquire);
        loop {
            let mut inside = count.saturating_sub(seen.load(Ordering::Acquire));
            if inside >= limit || inside >= high_water.load(Ordering::Relaxed) {
                let left = self.leaving.read().iter().sum();
                // An older number of somebody slower only makes the next one look again.
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

    /// One who came in leaves by way `way`.
    pub fn leave(&self, way: usize) {
        // ORDERING: Release, so that whoever reads that it left also reads that it had entered.
        self.leaving.0[way].fetch_add(1, Ordering::Release);
    }

    /// All numbers at a moment: those who left are read first, and nobody leaves who has not entered.
    pub fn read(&self) -> Level<N> {
        let left = self.leaving.read();
        let entered = self.entering.entered.load(Ordering::Acquire);
        let high_water = self.entering.high_water.load(Ordering::Acquire);
        Level { entered, left, inside: entered - left.iter().sum::<u64>(), high_water }
    }
}

impl<const N: usize> Default for Tide<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(plimsoll_loom)))]
mod tests {
    use super::*;

    #[test]
    fn who_left_makes_room_although_nobody_looked_meanwhile() {
        let tide: Tide<1> = Tide::new();
        for _ in 0..3 {
            tide.enter(3).unwrap();
        }
        (0..3).for_each(|_| tide.leave(0));
        for _ in 0..3 {
            tide.enter(3).unwrap();
        }
        assert_eq!(tide.enter(3), Err(3));
        assert_eq!(tide.read(), Level { entered: 6, left: [3], inside: 3, high_water: 3 });
    }

    #[test]
    fn the_high_water_mark_is_of_those_who_were_really_inside() {
        let tide: Tide<1> = Tide::new();
        for _ in 0..10 {
            tide.enter(100).unwrap();
            tide.leave(0);
        }
        assert_eq!(tide.read().high_water, 1);
    }
}

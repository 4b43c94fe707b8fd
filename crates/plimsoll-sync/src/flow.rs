//! Counters of what came in and in which way it left.

use crate::sync::atomic::{AtomicU64, Ordering};

/// What came in, and what left in each of `N` ways. In every reading `entered = left + inside`, with `inside` never
/// negative, although nothing is locked: leaving is read before entering, and nothing leaves that has not entered.
///
/// ```
/// use plimsoll_sync::flow::Flow;
///
/// let flow: Flow<2> = Flow::new();
/// flow.enter();
/// flow.enter();
/// flow.leave(1);
/// let reading = flow.read();
/// assert_eq!((reading.entered, reading.left, reading.inside), (2, [0, 1], 1));
/// ```
#[derive(Debug)]
pub struct Flow<const N: usize> {
    entered: AtomicU64,
    left: [AtomicU64; N],
}

/// One reading of a [`Flow`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading<const N: usize> {
    /// All that came in.
    pub entered: u64,
    /// How many left, by way.
    pub left: [u64; N],
    /// How many have not left.
    pub inside: u64,
}

impl<const N: usize> Flow<N> {
    /// Nothing came, nothing left.
    pub fn new() -> Self {
        Self { entered: AtomicU64::new(0), left: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// One comes in.
    pub fn enter(&self) {
        self.entered.fetch_add(1, Ordering::Relaxed);
    }

    /// One that came in leaves by way `way`.
    pub fn leave(&self, way: usize) {
        // ORDERING: Release, so that whoever reads that it left also reads that it had entered.
        self.left[way].fetch_add(1, Ordering::Release);
    }

    /// All counters at a moment.
    pub fn read(&self) -> Reading<N> {
        let left = std::array::from_fn(|way| self.left[way].load(Ordering::Acquire));
        let entered = self.entered.load(Ordering::Acquire);
        Reading { entered, left, inside: entered - left.iter().sum::<u64>() }
    }
}

impl<const N: usize> Default for Flow<N> {
    fn default() -> Self {
        Self::new()
    }
}

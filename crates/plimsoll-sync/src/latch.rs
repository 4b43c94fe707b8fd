//! Whether the last one has left after the door was closed.

use crate::sync::atomic::{AtomicUsize, Ordering};

const CLOSED: usize = 1 << (usize::BITS - 1);

/// Counts who is inside. Exactly one party learns that it is closed and empty: the one that closed it when nobody was
/// inside, or the last that left.
///
/// ```
/// use plimsoll_sync::latch::DrainLatch;
///
/// let latch = DrainLatch::new();
/// assert!(latch.enter());
/// assert!(!latch.close(), "one is inside");
/// assert!(!latch.enter(), "closed");
/// assert!(latch.leave(), "the last");
/// ```
#[derive(Debug)]
pub struct DrainLatch(AtomicUsize);

impl DrainLatch {
    /// Open, and nobody inside.
    pub fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// Goes inside, unless it is closed.
    pub fn enter(&self) -> bool {
        let mut state = self.0.load(Ordering::Acquire);
        loop {
            if state & CLOSED != 0 {
                return false;
            }
            match self.0.compare_exchange_weak(state, state + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(seen) => state = seen,
            }
        }
    }

    /// Leaves; `true` for the last after the closing.
    pub fn leave(&self) -> bool {
        // ORDERING: AcqRel, so that the one who learns of the end sees what all the others did inside.
        self.0.fetch_sub(1, Ordering::AcqRel) == CLOSED + 1
    }

    /// Lets nobody in any more; `true` if nobody was inside and it was open.
    pub fn close(&self) -> bool {
        self.0.fetch_or(CLOSED, Ordering::AcqRel) == 0
    }

    /// How many are inside.
    pub fn inside(&self) -> usize {
        self.0.load(Ordering::Acquire) & !CLOSED
    }

    /// Whether it is closed.
    pub fn is_closed(&self) -> bool {
        self.0.load(Ordering::Acquire) & CLOSED != 0
    }
}

impl Default for DrainLatch {
    fn default() -> Self {
        Self::new()
    }
}

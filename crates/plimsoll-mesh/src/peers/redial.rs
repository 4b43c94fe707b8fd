//! How long to wait before a target is dialled again.

use std::time::Duration;

use plimsoll::supervisor::Backoff;

/// A wait as long as this, or longer, is never: a hundred years, which every clock can count.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The waits between attempts: doubled each time, and shortened by up to a quarter at random so that nodes do not dial in
/// step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redial {
    /// The wait after the first failure. Default 100 ms: a node that restarts is back within a few hundred.
    pub first: Duration,
    /// The longest wait. Default 5 s.
    pub longest: Duration,
    /// The longest wait while one side refuses the other. Default 30 s: only an operator changes that.
    pub longest_refused: Duration,
}

impl Default for Redial {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(100),
            longest: Duration::from_secs(5),
            longest_refused: Duration::from_secs(30),
        }
    }
}

impl Redial {
    /// The wait after so many failures in a row; none after none. `jitter` is from 0 to 1.
    pub(crate) fn delay(self, failures: u32, refused: bool, jitter: f64) -> Duration {
        if failures == 0 {
            return Duration::ZERO;
        }
        let longest = if refused { self.longest_refused } else { self.longest };
        let doubled = Backoff::exponential(self.first, longest).without_jitter().delay(failures - 1, 0.0);
        doubled.min(NEVER).mul_f64(1.0 - 0.25 * jitter.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_cap() {
        let redial = Redial::default();
        let waits: Vec<_> = (0..8).map(|failures| redial.delay(failures, false, 0.0).as_millis()).collect();
        assert_eq!(waits, [0, 100, 200, 400, 800, 1600, 3200, 5000]);
        assert_eq!(redial.delay(u32::MAX, true, 0.0), Duration::from_secs(30));
        assert_eq!(redial.delay(1, false, 1.0), Duration::from_millis(75));
    }

    /// M-1: a wait without end is one that a clock can count.
    #[test]
    fn a_wait_without_end_is_no_overflow() {
        let redial = Redial { first: Duration::MAX, longest: Duration::MAX, longest_refused: Duration::MAX };
        for (failures, refused) in [(1, false), (u32::MAX, true)] {
            let due = std::time::Instant::now() + redial.delay(failures, refused, 0.0);
            assert!(due > std::time::Instant::now() + Duration::from_secs(1 << 30));
        }
    }
}

//! A token bucket.
//!
//! It is stored as the time at which the bucket will be full again (the virtual scheduling form of the generic cell rate
//! algorithm, ITU-T I.371): one instant, no timer, exact to the nanosecond.

use std::time::{Duration, Instant};

use super::Cap;

/// How many per second, and how many at once after a pause.
///
/// ```
/// use plimsoll::bounded::{Cap, Rate};
///
/// let rate = Rate { per_second: Cap::of::<10>(), burst: Cap::of::<100>() };
/// assert!(rate.burst > Rate::per_second(Cap::of::<10>()).burst);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Tokens per second.
    pub per_second: Cap,
    /// Tokens that the bucket holds.
    pub burst: Cap,
}

impl Rate {
    /// A rate whose burst is the number of tokens of one second.
    pub const fn per_second(per_second: Cap) -> Self {
        Self { per_second, burst: per_second }
    }

    /// The time in which one token is added. At least a nanosecond, as there are at most a thousand million per second.
    fn token(self) -> Duration {
        Duration::from_nanos(1_000_000_000 / self.per_second.get() as u64)
    }

    fn bucket(self) -> Duration {
        self.token().saturating_mul(u32::try_from(self.burst.get()).unwrap_or(u32::MAX))
    }
}

/// A token bucket, full at first. Its [`Rate`] is an argument of each operation, so one can be stored per client in 16 bytes.
///
/// ```
/// use std::time::{Duration, Instant};
/// use plimsoll::bounded::{Cap, Rate, TokenBucket};
///
/// let (rate, now) = (Rate::per_second(Cap::of::<1>()), Instant::now());
/// let mut bucket = TokenBucket::default();
/// bucket.check(rate, now).unwrap();
/// bucket.take(rate, now);
/// assert_eq!(bucket.check(rate, now), Err(Duration::from_secs(1)));
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct TokenBucket {
    full_at: Option<Instant>,
}

impl TokenBucket {
    /// Whether there is a token at `now`.
    ///
    /// # Errors
    /// The time until there is one.
    pub fn check(&self, rate: Rate, now: Instant) -> Result<(), Duration> {
        let missing = self.missing(now) + rate.token();
        match missing.checked_sub(rate.bucket()) {
            None | Some(Duration::ZERO) => Ok(()),
            Some(wait) => Err(wait),
        }
    }

    /// Takes a token, after [`TokenBucket::check`] has found one.
    pub fn take(&mut self, rate: Rate, now: Instant) {
        self.full_at = Some(now + self.missing(now) + rate.token());
    }

    /// What the bucket lacks at `now`, as the time in which it is added.
    fn missing(&self, now: Instant) -> Duration {
        self.full_at.map_or(Duration::ZERO, |full_at| full_at.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

        /// F-31: a bucket gives as many tokens as a count that is increased over time.
        #[test]
        fn a_bucket_counts_tokens(
            per_second in 1_usize..2_000,
            burst in 1_usize..20,
            pauses in prop::collection::vec(0_u64..3_000_000, 1..60),
        ) {
            let rate = Rate { per_second: Cap::new(per_second).unwrap(), burst: Cap::new(burst).unwrap() };
            let token = 1_000_000_000 / per_second as u64;
            let (mut bucket, mut now) = (TokenBucket::default(), Instant::now());
            // The model: a count in units of a token's nanoseconds.
            let mut filled = burst as u64 * token;
            for pause in pauses {
                now += Duration::from_nanos(pause);
                filled = (filled + pause).min(burst as u64 * token);
                match bucket.check(rate, now) {
                    Ok(()) => {
                        prop_assert!(filled >= token);
                        filled -= token;
                        bucket.take(rate, now);
                    }
                    Err(wait) => {
                        prop_assert_eq!(wait, Duration::from_nanos(token - filled));
                        prop_assert!(bucket.check(rate, now + wait).is_ok());
                    }
                }
            }
        }
    }
}

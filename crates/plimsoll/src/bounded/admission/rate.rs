//! A rate, as a bucket of tokens.
//!
//! The bucket is kept as the moment at which it will be full again (the virtual scheduling form of the generic cell rate
//! algorithm, ITU-T I.371): one instant, no timer, exact to the nanosecond.

use std::time::{Duration, Instant};

use crate::bounded::Cap;

/// How many a second, and how many at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Tokens a second.
    pub per_second: Cap,
    /// Tokens that the bucket holds.
    pub burst: Cap,
}

impl Rate {
    /// A rate whose burst is what a second brings.
    pub const fn per_second(per_second: Cap) -> Self {
        Self { per_second, burst: per_second }
    }

    /// The time that one token takes to come. At least a nanosecond, as there are at most a thousand million a second.
    fn token(self) -> Duration {
        Duration::from_nanos(1_000_000_000 / self.per_second.get() as u64)
    }

    fn bucket(self) -> Duration {
        self.token().saturating_mul(u32::try_from(self.burst.get()).unwrap_or(u32::MAX))
    }
}

/// A bucket that is full at first.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bucket {
    full_at: Option<Instant>,
}

impl Bucket {
    /// Whether there is a token at `now`.
    ///
    /// # Errors
    /// How long it takes until there is one.
    pub(crate) fn check(&self, rate: Rate, now: Instant) -> Result<(), Duration> {
        let missing = self.missing(now) + rate.token();
        match missing.checked_sub(rate.bucket()) {
            None | Some(Duration::ZERO) => Ok(()),
            Some(wait) => Err(wait),
        }
    }

    /// Takes a token that [`Bucket::check`] has seen.
    pub(crate) fn take(&mut self, rate: Rate, now: Instant) {
        self.full_at = Some(now + self.missing(now) + rate.token());
    }

    /// What the bucket lacks at `now`, as the time that it takes to come.
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

        /// F-31: a bucket gives out what a count of tokens, filled up as time goes by, would give.
        #[test]
        fn a_bucket_counts_tokens(
            per_second in 1_usize..2_000,
            burst in 1_usize..20,
            pauses in prop::collection::vec(0_u64..3_000_000, 1..60),
        ) {
            let rate = Rate { per_second: Cap::new(per_second).unwrap(), burst: Cap::new(burst).unwrap() };
            let token = 1_000_000_000 / per_second as u64;
            let (mut bucket, mut now) = (Bucket::default(), Instant::now());
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

//! Moments to come.

use std::time::{Duration, Instant};

/// A time as long as this, or longer, is never: a hundred years, which no process sees and every clock can count.
pub(crate) const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The moment `time` after `now`, and [`NEVER`] where that is too far away for a clock to tell.
pub(crate) fn after(now: Instant, time: Duration) -> Instant {
    now + time.min(NEVER)
}

//! Points in time.

use std::time::{Duration, Instant};

/// A duration as long as this, or longer, means "never": a hundred years, which every clock can represent.
pub(crate) const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The point in time `time` after `now`; [`NEVER`] after it where `time` is longer.
pub(crate) fn after(now: Instant, time: Duration) -> Instant {
    now + time.min(NEVER)
}

/// Tokio's clock, so that paused time in tests pauses the bounded parts too.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

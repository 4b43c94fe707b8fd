//! Limits how often one kind of event is logged.

use std::time::{Duration, Instant};

/// Lets the first event be logged, then one event per [`LogThrottle::INTERVAL`] together with the number suppressed since.
/// The log shows that refusals began and how many there are; it does not grow with them.
///
/// ```
/// use std::time::Instant;
/// use plimsoll::bounded::LogThrottle;
///
/// let (mut throttle, now) = (LogThrottle::default(), Instant::now());
/// assert_eq!(throttle.record(now), Some(0));
/// assert_eq!(throttle.record(now), None);
/// assert_eq!(throttle.record(now + LogThrottle::INTERVAL), Some(1));
/// ```
#[derive(Debug, Default)]
pub struct LogThrottle {
    logged_at: Option<Instant>,
    suppressed: u64,
}

impl LogThrottle {
    /// The shortest time between two log lines: 10 s.
    pub const INTERVAL: Duration = Duration::from_secs(10);

    /// Records an event at `now`. Returns the number of events suppressed before it if this one is to be logged.
    pub fn record(&mut self, now: Instant) -> Option<u64> {
        self.record_every(Self::INTERVAL, now)
    }

    /// As [`record`](Self::record), with another interval.
    pub fn record_every(&mut self, interval: Duration, now: Instant) -> Option<u64> {
        if self.logged_at.is_some_and(|logged_at| now.saturating_duration_since(logged_at) < interval) {
            self.suppressed += 1;
            return None;
        }
        self.logged_at = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// M-20: the log shows the first event and then the number suppressed, not each event.
    #[test]
    fn one_line_is_logged_per_interval() {
        let (mut throttle, start) = (LogThrottle::default(), Instant::now());
        let logged: Vec<_> = (0..25_000).filter_map(|n| throttle.record(start + Duration::from_millis(n))).collect();
        assert_eq!(logged, [0, 9_999, 9_999]);
    }
}

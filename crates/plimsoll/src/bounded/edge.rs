//! Which of many equal events are worth a line in the log.

use std::time::{Duration, Instant};

/// Lets the first event through, and then one in [`Edge::QUIET`] with the number of those between. A log tells that
/// refusals began and how many there are; it does not grow with them.
///
/// ```
/// use std::time::Instant;
/// use plimsoll::bounded::Edge;
///
/// let (mut edge, now) = (Edge::default(), Instant::now());
/// assert_eq!(edge.strike(now), Some(0));
/// assert_eq!(edge.strike(now), None);
/// assert_eq!(edge.strike(now + Edge::QUIET), Some(1));
/// ```
#[derive(Debug, Default)]
pub struct Edge {
    said_at: Option<Instant>,
    unsaid: u64,
}

impl Edge {
    /// How long nothing more is said: 10 s.
    pub const QUIET: Duration = Duration::from_secs(10);

    /// An event happened at `now`: the number of those before it that went unsaid, if this one is to be logged.
    pub fn strike(&mut self, now: Instant) -> Option<u64> {
        if self.said_at.is_some_and(|said_at| now.saturating_duration_since(said_at) < Self::QUIET) {
            self.unsaid += 1;
            return None;
        }
        self.said_at = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// M-20: the log tells of an edge and of how many went unsaid, not of each.
    #[test]
    fn a_storm_is_a_line_in_ten_seconds() {
        let (mut edge, start) = (Edge::default(), Instant::now());
        let said: Vec<_> = (0..25_000).filter_map(|n| edge.strike(start + Duration::from_millis(n))).collect();
        assert_eq!(said, [0, 9_999, 9_999]);
    }
}

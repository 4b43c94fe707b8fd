//! The restart intensity window.
//!
//! A supervisor gives up when more than `intensity` restarts fall within `period`. Restart times are kept oldest first;
//! recording one drops those that are too old. A restart exactly `period` ago still counts, as in OTP.

use std::collections::VecDeque;
use std::time::Duration;

/// Restarts of one supervisor within its sliding window. Never holds more than `intensity + 1` times.
#[derive(Debug)]
pub(super) struct IntensityWindow {
    intensity: u32,
    period: Duration,
    restarts: VecDeque<Duration>,
}

/// Whether a restart is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is within the intensity.
    Restart,
    /// It is one more than the intensity allows.
    GiveUp,
}

impl IntensityWindow {
    pub(super) fn new(intensity: u32, period: Duration) -> Self {
        Self { intensity, period, restarts: VecDeque::new() }
    }

    /// Records a restart at `now`.
    pub(super) fn record(&mut self, now: Duration) -> Verdict {
        self.restarts.push_back(now);
        while self.restarts.front().is_some_and(|&then| now.saturating_sub(then) > self.period) {
            self.restarts.pop_front();
        }
        if self.restarts.len() > self.intensity as usize { Verdict::GiveUp } else { Verdict::Restart }
    }

    pub(super) fn period(&self) -> Duration {
        self.period
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(window: &mut IntensityWindow, seconds: u64) -> Verdict {
        window.record(Duration::from_secs(seconds))
    }

    #[test]
    fn two_in_ten_seconds_gives_up_at_the_third() {
        let mut window = IntensityWindow::new(2, Duration::from_secs(10));
        assert_eq!(at(&mut window, 0), Verdict::Restart);
        assert_eq!(at(&mut window, 1), Verdict::Restart);
        assert_eq!(at(&mut window, 2), Verdict::GiveUp);
    }

    #[test]
    fn a_restart_exactly_one_period_ago_still_counts() {
        let mut window = IntensityWindow::new(1, Duration::from_secs(10));
        assert_eq!(at(&mut window, 0), Verdict::Restart);
        assert_eq!(at(&mut window, 10), Verdict::GiveUp);
        let mut window = IntensityWindow::new(1, Duration::from_secs(10));
        assert_eq!(at(&mut window, 0), Verdict::Restart);
        assert_eq!(at(&mut window, 11), Verdict::Restart);
    }

    #[test]
    fn intensity_zero_gives_up_at_the_first() {
        assert_eq!(at(&mut IntensityWindow::new(0, Duration::from_secs(1)), 5), Verdict::GiveUp);
    }
}

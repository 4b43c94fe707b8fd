//! The restart intensity window.
//!
//! A supervisor gives up when more than `intensity` restarts fall within `period`. Restart times are kept oldest first;
//! recording one drops those that are too old. A restart exactly `period` ago still counts, as in OTP.

use std::collections::VecDeque;
use std::time::Duration;

use crate::supervisor::controls::broken;

/// Restarts of one supervisor within its sliding window. Never holds more than `intensity + 1` times.
#[derive(Debug)]
pub(crate) struct IntensityWindow {
    intensity: u32,
    period: Duration,
    restarts: VecDeque<Duration>,
}

/// What a restart does to the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is within the budget.
    Restart,
    /// It is one too many.
    GiveUp,
}

impl IntensityWindow {
    pub(crate) fn new(intensity: u32, period: Duration) -> Self {
        Self { intensity, period, restarts: VecDeque::new() }
    }

    /// Records a restart at `now`.
    pub(crate) fn record(&mut self, now: Duration) -> Verdict {
        self.restarts.push_back(now);
        let too_old = |then: Duration| match broken("window_exclusive") {
            true => then + self.period <= now,
            false => then + self.period < now,
        };
        while self.restarts.front().is_some_and(|&then| too_old(then)) {
            self.restarts.pop_front();
        }
        let spare = usize::from(broken("one_restart_too_many"));
        if self.restarts.len() > self.intensity as usize + spare { Verdict::GiveUp } else { Verdict::Restart }
    }

    pub(crate) fn period(&self) -> Duration {
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

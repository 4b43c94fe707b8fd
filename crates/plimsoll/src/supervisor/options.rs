//! The options of a supervisor and of its children, as in OTP, one type each.

use std::time::Duration;

use serde::Serialize;

/// Which siblings a restart includes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Only the child that failed is started again.
    #[default]
    OneForOne,
    /// All others stop in reverse start order, then all start in order.
    OneForAll,
    /// Those started after the failed one stop in reverse order, then it and they start in order.
    RestForOne,
}

/// When a child that exited is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// Always, also after a normal end.
    #[default]
    Permanent,
    /// After a failure only; after a normal end or a shutdown the spec is kept without a child.
    Transient,
    /// Never; the spec is dropped when the child ends.
    Temporary,
}

/// How long a child may take to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Shutdown {
    /// Killed at once; no stop hook runs. Given to a supervisor child it leaves that supervisor no time to stop its
    /// own children in order: they are killed too.
    Brutal,
    /// Asked to stop, killed when the time is up. The default for a worker, with five seconds.
    After(Duration),
    /// Asked to stop and waited for. The default for a supervisor.
    Infinity,
}

impl From<Duration> for Shutdown {
    fn from(grace: Duration) -> Self {
        Self::After(grace)
    }
}

/// How a child is asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StopMode {
    /// ractor's `stop`: it overtakes the queue; messages still queued are dropped.
    #[default]
    Stop,
    /// ractor's `drain`: what is queued is served first. For servers.
    Drain,
}

/// Whether the end of significant children ends the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AutoShutdown {
    /// It does not; a significant child is then an error in the specification.
    #[default]
    Never,
    /// The first significant child that ends by itself ends the supervisor.
    AnySignificant,
    /// The last significant child still active that ends by itself ends the supervisor.
    AllSignificant,
}

/// The delay before a restart: exponential, with full jitter, reset once the child has run longer than the intensity
/// period.
///
/// The n-th restart in a row waits a random time between nothing and `min * factor^n`, and never more than `max`.
///
/// ```
/// use std::time::Duration;
/// use plimsoll::supervisor::{Backoff, ChildSpec};
///
/// let backoff = Backoff::exponential(Duration::from_millis(10), Duration::from_secs(5)).factor(1.5);
/// let spec = ChildSpec::task("sweeper", |stop| async move { Ok(stop.cancelled().await) }).backoff(backoff);
/// assert_eq!(spec.settings().backoff, backoff);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Backoff {
    pub(crate) min: Duration,
    pub(crate) max: Duration,
    pub(crate) factor: f64,
    pub(crate) jitter: bool,
}

impl Backoff {
    /// No delay: a restart is made at once, as in OTP.
    pub const NONE: Self = Self { min: Duration::ZERO, max: Duration::ZERO, factor: 1.0, jitter: false };

    /// Doubling from `min` up to `max`, with full jitter.
    pub const fn exponential(min: Duration, max: Duration) -> Self {
        Self { min, max, factor: 2.0, jitter: true }
    }

    /// The same delay each time, without jitter.
    pub const fn constant(delay: Duration) -> Self {
        Self { min: delay, max: delay, factor: 1.0, jitter: false }
    }

    /// Another factor than 2; values below 1 count as 1.
    #[must_use]
    pub const fn factor(mut self, factor: f64) -> Self {
        self.factor = if factor < 1.0 { 1.0 } else { factor };
        self
    }

    /// The whole delay each time instead of a random part of it.
    #[must_use]
    pub const fn without_jitter(mut self) -> Self {
        self.jitter = false;
        self
    }

    /// The delay before restart number `attempt` (from 0), with `random` in `0..1`; it has no effect without jitter.
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        if self.max.is_zero() {
            return Duration::ZERO;
        }
        let grown = self.min.as_secs_f64() * self.factor.powi(i32::try_from(attempt.min(1_000)).unwrap_or(1_000));
        let whole = grown.min(self.max.as_secs_f64());
        Duration::try_from_secs_f64(if self.jitter { whole * random } else { whole }).unwrap_or(self.max)
    }
}

impl From<Duration> for Backoff {
    fn from(delay: Duration) -> Self {
        Self::constant(delay)
    }
}

impl Default for Backoff {
    /// 50 ms to 30 s: a crash loop costs next to nothing, a single crash goes unnoticed.
    fn default() -> Self {
        Self::exponential(Duration::from_millis(50), Duration::from_secs(30))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_maximum() {
        let backoff = Backoff::exponential(Duration::from_millis(50), Duration::from_secs(1)).without_jitter();
        let delays: Vec<u128> = (0..7).map(|attempt| backoff.delay(attempt, 0.0).as_millis()).collect();
        assert_eq!(delays, [50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff.delay(u32::MAX, 0.0), Duration::from_secs(1));
        assert_eq!(Backoff::constant(Duration::MAX).delay(0, 0.0), Duration::MAX);
    }

    #[test]
    fn jitter_takes_a_share_of_the_whole_delay() {
        let backoff = Backoff::exponential(Duration::from_millis(100), Duration::from_secs(1));
        assert_eq!(backoff.delay(0, 0.0), Duration::ZERO);
        assert_eq!(backoff.delay(1, 0.5), Duration::from_millis(100));
        assert_eq!(Backoff::NONE.delay(5, 0.9), Duration::ZERO);
    }
}

//! The log lines of a supervisor.
//!
//! The first failure of a child for a reason is logged at once. Equal ones within [`THROTTLE`] are only counted; the next
//! line for that child and reason carries the count, as does the line at the supervisor's end. A failure for another reason
//! is logged at once. Giving up is always logged, with the child and the reason of its last failure.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxBuildHasher;

use super::event::SupervisorEvent;
use super::shutdown_report::ShutdownReport;
pub(crate) use super::state::AfterExit;
use crate::exit::ExitReason;
use crate::panics::guarded;

/// Equal failures of one child within this time are one line.
const THROTTLE: Duration = Duration::from_secs(10);
/// Child and reason pairs that are throttled apart; beyond that they are throttled together.
const THROTTLED: usize = 1_024;

/// A log line that is not an event by itself.
#[derive(Debug)]
pub(crate) enum Line {
    /// A child exited, and what follows.
    Exited { child: Arc<str>, reason: ExitReason, then: AfterExit },
    /// The supervisor runs.
    Started,
    /// The supervisor has ended.
    Ended { report: Arc<ShutdownReport> },
}

/// The throttle of one supervisor's failures.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// By a hash of child and reason: two that collide share a line every ten seconds.
    throttles: HashMap<u64, Throttle, FxBuildHasher>,
    others: Throttle,
    /// The children are of one kind: the reason alone counts.
    one_kind: bool,
    swept_at: Duration,
}

#[derive(Debug, Default)]
struct Throttle {
    logged_at: Option<Duration>,
    suppressed: u64,
}

impl Throttle {
    /// The number of failures suppressed since the last line, if this one is to be logged.
    fn pass(&mut self, now: Duration) -> Option<u64> {
        if self.is_closed(now) {
            self.suppressed += 1;
            return None;
        }
        self.logged_at = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }

    fn is_closed(&self, now: Duration) -> bool {
        self.logged_at.is_some_and(|logged| now < logged.saturating_add(THROTTLE))
    }
}

impl Log {
    pub(crate) fn new(one_kind: bool) -> Self {
        Self { one_kind, ..Self::default() }
    }

    fn throttle(&mut self, child: &str, reason: &str, now: Duration) -> Option<u64> {
        let key = FxBuildHasher.hash_one((if self.one_kind { "" } else { child }, reason));
        if self.throttles.len() >= THROTTLED && !self.throttles.contains_key(&key) {
            if now >= self.swept_at + THROTTLE {
                self.swept_at = now;
                self.throttles.retain(|_, throttle| throttle.suppressed > 0 || throttle.is_closed(now));
            }
            if self.throttles.len() >= THROTTLED {
                return self.others.pass(now);
            }
        }
        self.throttles.entry(key).or_default().pass(now)
    }

    /// Failures that were counted and have not been mentioned in a line.
    fn suppressed(&self) -> u64 {
        self.throttles.values().map(|throttle| throttle.suppressed).sum::<u64>() + self.others.suppressed
    }

    pub(crate) fn line(&mut self, supervisor: &str, line: &Line, now: Duration) {
        match line {
            Line::Exited { child, reason, then } => self.exited(supervisor, child, reason, *then, now),
            Line::Started => write(|| tracing::info!(target: TARGET, supervisor, "supervisor started")),
            Line::Ended { report } => self.ended(report),
        }
    }

    pub(crate) fn event(&mut self, supervisor: &str, event: &SupervisorEvent, now: Duration) {
        match event {
            SupervisorEvent::ChildStarted { child, actor } => {
                write(|| tracing::debug!(target: TARGET, supervisor, %child, %actor, "child started"));
            }
            SupervisorEvent::ChildStartFailed { child, reason, retry } => {
                let Some(suppressed) = self.throttle(child, &format!("start {reason}"), now) else { return };
                write(|| match retry {
                    Some(delay) => tracing::warn!(
                        target: TARGET, supervisor, %child, %reason, ?delay, suppressed, "child failed to start: retrying"
                    ),
                    None => {
                        tracing::warn!(target: TARGET, supervisor, %child, %reason, suppressed, "child failed to start")
                    }
                });
            }
            SupervisorEvent::ChildStopFailed { failure } => {
                write(|| tracing::warn!(target: TARGET, supervisor, %failure, "child did not stop as its spec says"));
            }
            SupervisorEvent::GaveUp { child, reason } => write(|| {
                tracing::error!(
                    target: TARGET, supervisor, %child, %reason, "giving up: more restarts than the intensity allows"
                );
            }),
            SupervisorEvent::AutoShutdown { child } => {
                write(|| tracing::info!(target: TARGET, supervisor, %child, "significant child exited: shutting down"));
            }
            SupervisorEvent::Omitted { count } => {
                write(|| tracing::warn!(target: TARGET, supervisor, count, "supervisor events dropped"));
            }
            // Logged with what follows from it, and with the report.
            SupervisorEvent::ChildExited { .. }
            | SupervisorEvent::ChildRestarting { .. }
            | SupervisorEvent::Ended { .. } => {}
        }
    }

    fn exited(&mut self, supervisor: &str, child: &str, reason: &ExitReason, then: AfterExit, now: Duration) {
        let failed = reason.is_failure();
        let suppressed = match failed {
            true => self.throttle(child, &reason.to_string(), now),
            false if matches!(then, AfterExit::Nothing) => {
                return write(|| tracing::debug!(target: TARGET, supervisor, child, %reason, "child exited"));
            }
            // A restart after an exit that is no failure is as rare as one after a failure.
            false => self.throttle(child, &format!("exit {reason}"), now),
        };
        let Some(suppressed) = suppressed else { return };
        write(|| match (then, failed) {
            (AfterExit::Restart(delay), true) => tracing::warn!(
                target: TARGET, supervisor, child, %reason, ?delay, suppressed, "child failed: restarting"
            ),
            (AfterExit::Restart(delay), false) => tracing::info!(
                target: TARGET, supervisor, child, %reason, ?delay, suppressed, "child exited: restarting"
            ),
            (AfterExit::RestartWithSiblings, true) => tracing::warn!(
                target: TARGET, supervisor, child, %reason, suppressed, "child failed while its siblings are restarted"
            ),
            (AfterExit::RestartWithSiblings, false) => tracing::info!(
                target: TARGET, supervisor, child, %reason, suppressed, "child exited while its siblings are restarted"
            ),
            (AfterExit::Nothing | AfterExit::GiveUp, true) => {
                tracing::warn!(target: TARGET, supervisor, child, %reason, suppressed, "child failed");
            }
            (AfterExit::Nothing | AfterExit::GiveUp, false) => {
                tracing::info!(target: TARGET, supervisor, child, %reason, suppressed, "child exited");
            }
        });
    }

    fn ended(&self, report: &ShutdownReport) {
        let suppressed = self.suppressed();
        write(|| {
            tracing::info!(
                target: TARGET,
                supervisor = %report.supervisor,
                cause = %report.cause,
                reason = %report.reason,
                took_ms = report.took.as_millis() as u64,
                failures = report.failures.len() as u64 + report.omitted,
                suppressed,
                "supervisor ended"
            )
        });
    }
}

const TARGET: &str = "plimsoll::supervisor";

/// Calls the program's subscriber. A panic in it costs the line, not the supervisor.
fn write(line: impl FnOnce()) {
    let _ = guarded(line);
}

pub(crate) fn crashed(supervisor: &str, message: &str) {
    write(|| tracing::error!(target: TARGET, supervisor, message, "supervisor failed: its children are killed"));
}

pub(crate) fn monitor_replaced(supervisor: &str) {
    write(|| {
        tracing::warn!(target: TARGET, supervisor, "a thread of the runtime is blocked and holds up the supervisor");
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_failures_are_one_line_with_a_count() {
        let mut log = Log::default();
        let logged: Vec<u64> =
            (0..25_000).filter_map(|ms| log.throttle("worker", "no disk", Duration::from_millis(ms))).collect();
        assert_eq!(logged, [0, 9_999, 9_999]);
        assert_eq!(log.suppressed(), 4_999);
    }

    #[test]
    fn a_failure_for_another_reason_is_logged_at_once() {
        let mut log = Log::default();
        for reason in ["no disk", "no memory"] {
            assert_eq!(log.throttle("worker", reason, Duration::ZERO), Some(0));
        }
        assert_eq!(log.throttle("worker", "no disk", Duration::ZERO), None);
        assert_eq!(log.throttle("another worker", "no disk", Duration::ZERO), Some(0));
    }

    #[test]
    fn the_table_of_throttles_has_a_cap() {
        let mut log = Log::default();
        let logged = (0..100_000)
            .filter_map(|n| log.throttle(&format!("child {n}"), "no disk", Duration::from_millis(1)))
            .count();
        assert_eq!(log.throttles.len(), THROTTLED);
        assert_eq!(logged, THROTTLED + 1);
    }
}

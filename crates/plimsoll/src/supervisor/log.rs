//! What a supervisor says in the log: one event a change, repeated crashes folded.
//!
//! The first crash of a child is told at once. Further ones within [`FOLD`] are only counted; the next one after that is
//! told with the number of those that were not. A crash loop of a million costs a line every ten seconds.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use ractor::ActorId;

use super::shutdown_report::{ShutdownReport, StopFailure};
use super::state::AfterExit;
use crate::exit::ExitReason;
use crate::panics::discard;

/// Crashes of one child within this time are one line.
const FOLD: Duration = Duration::from_secs(10);
/// Children whose crashes are folded apart; beyond that they are folded together.
const FOLDED: usize = 1_024;

#[derive(Debug, Default)]
pub(crate) struct Log {
    folds: HashMap<Arc<str>, Fold>,
    others: Fold,
    swept_at: Duration,
}

#[derive(Debug, Default)]
struct Fold {
    told_at: Option<Duration>,
    suppressed: u64,
}

impl Fold {
    /// The number of crashes not told since the last line, when this one is to be told.
    fn tell(&mut self, now: Duration) -> Option<u64> {
        if self.told_at.is_some_and(|told| now < told + FOLD) {
            self.suppressed += 1;
            return None;
        }
        self.told_at = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

impl Log {
    fn fold(&mut self, id: &Arc<str>, now: Duration) -> Option<u64> {
        if self.folds.len() >= FOLDED && !self.folds.contains_key(id) {
            if now >= self.swept_at + FOLD {
                // Those that have been quiet make room.
                self.swept_at = now;
                self.folds.retain(|_, fold| fold.suppressed > 0 || fold.told_at.is_some_and(|told| now < told + FOLD));
            }
            if self.folds.len() >= FOLDED {
                return self.others.tell(now);
            }
        }
        self.folds.entry(id.clone()).or_default().tell(now)
    }

    pub(crate) fn exited(
        &mut self,
        supervisor: &str,
        id: &Arc<str>,
        actor: Option<ActorId>,
        reason: &ExitReason,
        then: AfterExit,
        now: Duration,
    ) {
        let actor = actor.map(tracing::field::display);
        if !reason.is_failure() {
            quietly(
                || tracing::debug!(target: "plimsoll::supervisor", supervisor, child = %id, actor, %reason, %then, "child exited"),
            );
        } else if let Some(suppressed) = self.fold(id, now) {
            quietly(|| {
                tracing::warn!(
                    target: "plimsoll::supervisor", supervisor, child = %id, actor, %reason, %then, suppressed, "child failed"
                )
            });
        }
    }

    pub(crate) fn start_failed(
        &mut self,
        supervisor: &str,
        id: &Arc<str>,
        reason: &str,
        retry: Option<Duration>,
        now: Duration,
    ) {
        if let Some(suppressed) = self.fold(id, now) {
            let retry_ms = retry.map(|delay| delay.as_millis() as u64);
            quietly(|| {
                tracing::warn!(
                    target: "plimsoll::supervisor", supervisor, child = %id, reason, retry_ms, suppressed, "start failed"
                )
            });
        }
    }
}

/// Lets the program's subscriber have its say. A panic in it costs the line, not the supervisor.
fn quietly(say: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(say)) {
        discard(payload);
    }
}

pub(crate) fn crashed(supervisor: &str, message: &str) {
    quietly(
        || tracing::error!(target: "plimsoll::supervisor", supervisor, message, "supervisor failed: its children are killed"),
    );
}

pub(crate) fn started(supervisor: &str) {
    quietly(|| tracing::info!(target: "plimsoll::supervisor", supervisor, "supervisor started"));
}

pub(crate) fn gave_up(supervisor: &str, id: &str, reason: &ExitReason) {
    quietly(|| {
        tracing::error!(
            target: "plimsoll::supervisor", supervisor, child = id, %reason,
            "more restarts than the intensity allows: giving up"
        )
    });
}

pub(crate) fn auto_shutdown(supervisor: &str, id: &str) {
    quietly(
        || tracing::info!(target: "plimsoll::supervisor", supervisor, child = id, "significant child ended: shutting down"),
    );
}

pub(crate) fn stop_failed(supervisor: &str, failure: &StopFailure) {
    quietly(
        || tracing::warn!(target: "plimsoll::supervisor", supervisor, %failure, "child did not stop as it should have"),
    );
}

pub(crate) fn monitor_replaced(supervisor: &str) {
    quietly(|| {
        tracing::warn!(
            target: "plimsoll::supervisor", supervisor, "a thread of the runtime is blocked and holds up the supervisor"
        )
    });
}

pub(crate) fn over(report: &ShutdownReport) {
    quietly(|| {
        tracing::info!(
            target: "plimsoll::supervisor",
            supervisor = %report.supervisor,
            reason = %report.reason,
            took_ms = report.took.as_millis() as u64,
            failures = report.failures.len() as u64 + report.omitted,
            "supervisor ended"
        )
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_loop_is_one_line_with_a_count() {
        let mut log = Log::default();
        let id: Arc<str> = "worker".into();
        let told: Vec<u64> = (0..25_000).filter_map(|ms| log.fold(&id, Duration::from_millis(ms))).collect();
        assert_eq!(told, [0, 9_999, 9_999]);
    }

    #[test]
    fn the_table_of_folds_has_a_cap() {
        let mut log = Log::default();
        let told =
            (0..100_000).filter_map(|n| log.fold(&format!("child {n}").into(), Duration::from_millis(1))).count();
        assert_eq!(log.folds.len(), FOLDED);
        assert_eq!(told, FOLDED + 1);
    }
}

//! The supervisor's own end, and what its report will say of it.

use std::sync::Arc;
use std::time::Duration;

use crate::supervisor::log;
use crate::supervisor::rules::Exit;
use crate::supervisor::shutdown_report::{ShutdownReport, StopFailure, StopFailureKind, StopFailures};

/// What is known of the supervisor's own end.
#[derive(Debug, Default)]
pub(in crate::supervisor) struct OwnEnd {
    since: Option<Duration>,
    asked_by_call: bool,
    exit: Option<Exit>,
    failures: StopFailures,
    kill_timed_out: u64,
}

impl OwnEnd {
    pub(in crate::supervisor) fn asked(&mut self, by_call: bool) {
        self.asked_by_call |= by_call;
    }

    /// Whether the one who stopped it is told how it ended.
    pub(in crate::supervisor) fn asked_by_call(&self) -> bool {
        self.asked_by_call
    }

    /// It begins to end.
    pub(in crate::supervisor) fn begin(&mut self, now: Duration) {
        self.since = Some(now);
    }

    pub(in crate::supervisor) fn has_begun(&self) -> bool {
        self.since.is_some()
    }

    /// Nothing runs any more, or only what no kill can end.
    pub(in crate::supervisor) fn finish(&mut self, exit: Exit) {
        self.exit = Some(exit);
    }

    /// The rules do not get to finish.
    pub(in crate::supervisor) fn abandon(&mut self) {
        self.exit.get_or_insert(Exit::Killed);
    }

    pub(in crate::supervisor) fn is_over(&self) -> bool {
        self.exit.is_some()
    }

    pub(in crate::supervisor) fn exit(&self) -> Exit {
        self.exit.clone().unwrap_or(Exit::Killed)
    }

    /// Logs the failed stop of a child, and reports it when it happens while the supervisor ends.
    pub(in crate::supervisor) fn stop_failed(&mut self, supervisor: &str, failure: StopFailure, closing: bool) {
        self.kill_timed_out += u64::from(failure.kind == StopFailureKind::KillTimedOut);
        log::stop_failed(supervisor, &failure);
        if closing {
            self.failures.push(failure);
        }
    }

    /// Takes over what a nested supervisor reports that is known here as `id`.
    pub(in crate::supervisor) fn merge(&mut self, id: &Arc<str>, nested: &ShutdownReport) {
        self.kill_timed_out += nested.kill_timed_out().count() as u64;
        self.failures.merge(id, nested);
    }

    /// How many were left behind, with those of nested supervisors that ended along with this one.
    pub(in crate::supervisor) fn kill_timed_out(&self) -> u64 {
        self.kill_timed_out
    }

    pub(in crate::supervisor) fn report(&mut self, supervisor: Arc<str>, now: Duration) -> ShutdownReport {
        let (cause, reason) = self.exit().outcome();
        let failures = std::mem::take(&mut self.failures);
        ShutdownReport {
            supervisor,
            cause,
            reason,
            took: now.saturating_sub(self.since.unwrap_or(now)),
            failures: failures.list,
            omitted: failures.omitted,
        }
    }
}

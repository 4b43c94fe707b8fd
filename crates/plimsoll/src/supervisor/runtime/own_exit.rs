//! The supervisor's own exit, and what is logged and reported of its children.

use std::sync::Arc;
use std::time::Duration;

use tracing::Level;

use super::child::{ChildTable, LiveChild, RunOf, SpecOf};
use super::effects::Effect;
use super::{Inner, RuntimeOf};
use crate::exit::ExitReason;
use crate::supervisor::error::StartError;
use crate::supervisor::event::SupervisorEvent;
use crate::supervisor::shutdown_report::{ShutdownCause, ShutdownReport, StopFailure, StopFailureKind, StopFailures};
use crate::supervisor::state::{AfterExit, Exit, Notice, StopProblem};

/// What is known of the supervisor's own exit.
#[derive(Debug, Default)]
pub(crate) struct OwnExit {
    since: Option<Duration>,
    requested_by_caller: bool,
    gave_up: Option<ShutdownCause>,
    outcome: Option<(ShutdownCause, ExitReason)>,
    failures: StopFailures,
    abandoned_children: u64,
}

impl OwnExit {
    /// A caller of `stop` receives the report.
    pub(super) fn requested_by_caller(&mut self) {
        self.requested_by_caller = true;
    }

    pub(super) fn is_requested_by_caller(&self) -> bool {
        self.requested_by_caller
    }

    pub(super) fn begin(&mut self, now: Duration) {
        self.since.get_or_insert(now);
    }

    pub(super) fn has_begun(&self) -> bool {
        self.since.is_some()
    }

    /// The state does not get to finish.
    pub(super) fn abandon(&mut self) {
        self.outcome.get_or_insert((ShutdownCause::Killed, ExitReason::Killed));
    }

    pub(super) fn is_over(&self) -> bool {
        self.outcome.is_some()
    }

    /// Adds what a nested supervisor reports, known here as `id`.
    pub(super) fn merge(&mut self, id: &Arc<str>, nested: &ShutdownReport) {
        self.abandoned_children += nested.kill_timed_out().count() as u64;
        self.failures.merge(id, nested);
    }

    /// How many children were abandoned after a kill, those of nested supervisors that ended with this one included.
    pub(crate) fn abandoned_children(&self) -> u64 {
        self.abandoned_children
    }

    fn failure(&mut self, failure: StopFailure, shutting_down: bool) {
        self.abandoned_children += u64::from(failure.kind == StopFailureKind::KillTimedOut);
        if shutting_down {
            self.failures.push(failure);
        }
    }

    fn report(&mut self, supervisor: Arc<str>, now: Duration) -> ShutdownReport {
        let (cause, reason) = self.outcome.clone().unwrap_or((ShutdownCause::Killed, ExitReason::Killed));
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

impl<T: ChildTable> Inner<T::State, T> {
    /// Nothing runs any more, or only what a kill cannot end.
    pub(super) fn finish(&mut self, exit: Exit<SpecOf<T>>) {
        let outcome = match exit {
            Exit::Stopped => (ShutdownCause::Stopped, ExitReason::Shutdown),
            Exit::GaveUp => {
                let cause = self.own_exit.gave_up.take().unwrap_or(ShutdownCause::Stopped);
                (cause, ExitReason::Shutdown)
            }
            Exit::AutoShutdown => (ShutdownCause::AutoShutdown, ExitReason::Shutdown),
            Exit::StartFailed { spec, failure } => {
                let id = self.table.name(spec);
                self.boot_is_over(Err(StartError::FailedToStart { id, reason: Box::new(failure.into()) }));
                (ShutdownCause::StartFailed, ExitReason::Shutdown)
            }
            Exit::Killed => (ShutdownCause::Killed, ExitReason::Killed),
        };
        self.own_exit.outcome = Some(outcome);
    }

    /// The report; and whether a caller of `stop` receives it.
    pub(super) fn conclude(&mut self, name: &Arc<str>, now: Duration) -> (ShutdownReport, bool) {
        let report = self.own_exit.report(name.clone(), now);
        self.boot_is_over(Err(StartError::ShuttingDown));
        self.requests.clear();
        self.effects.push(Effect::Drop(self.table.take_specs()));
        (report, self.own_exit.is_requested_by_caller())
    }

    pub(super) fn notice(&mut self, runtime: &Arc<RuntimeOf<T>>, notice: Notice<T::State>) {
        let (events, now) = (&runtime.events, runtime.now());
        match notice {
            Notice::Exited { spec, reason, then } => {
                self.restarts += u64::from(matches!(then, AfterExit::Restart(_) | AfterExit::GiveUp));
                if reason.is_failure() || then != AfterExit::Nothing || events.wants(Level::DEBUG) {
                    events.push_exit(&self.table.name(spec), reason, then, now);
                }
            }
            Notice::StartFailed { spec, failure, retry } => {
                let child = self.table.name(spec);
                events.push(SupervisorEvent::ChildStartFailed { child, reason: failure.reason(), retry }, now);
            }
            Notice::GaveUp { spec, reason } => {
                let child = self.table.name(spec);
                // Its entry may be gone when the supervisor has ended.
                self.own_exit.gave_up = Some(ShutdownCause::GaveUp { child: child.clone(), reason: reason.clone() });
                events.push(SupervisorEvent::GaveUp { child, reason }, now);
            }
            Notice::AutoShutdown { spec } => {
                events.push(SupervisorEvent::AutoShutdown { child: self.table.name(spec) }, now);
            }
            Notice::StopProblem { spec, run, problem, shutting_down, waited } => {
                let failure = self.stop_failure(spec, run, problem, waited);
                events.push(SupervisorEvent::ChildStopFailed { failure: failure.clone() }, now);
                self.own_exit.failure(failure, shutting_down);
            }
        }
    }

    fn stop_failure(&self, spec: SpecOf<T>, run: RunOf<T>, problem: StopProblem, waited: Duration) -> StopFailure {
        let child = self.table.get(run);
        let actor = child.map(|child| child.actor.get_id());
        let (kind, current_message) = match problem {
            StopProblem::Exited(reason) => (StopFailureKind::Ended(reason), None),
            StopProblem::Killed => (StopFailureKind::Killed, child.and_then(LiveChild::message)),
            StopProblem::KillTimedOut => (StopFailureKind::KillTimedOut, child.and_then(LiveChild::message)),
        };
        StopFailure { path: vec![self.table.name(spec)], actor, kind, waited, current_message }
    }
}

//! What an exit means: whether the child is restarted, and whether its stop went wrong.

use super::StopProblem;
use crate::exit::ExitReason;
use crate::supervisor::options::{Restart, Shutdown, StopMode};

/// Why a child was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kill {
    /// Its spec says so, or the supervisor itself was killed.
    Brutal,
    /// It exceeded its shutdown time.
    Overdue,
}

/// What a child spec says about exits and stops.
#[derive(Debug, Clone, Copy)]
pub(super) struct ExitPolicy {
    pub(super) restart: Restart,
    pub(super) shutdown: Shutdown,
    pub(super) stop_mode: StopMode,
}

/// Whether a child that exited with this reason is restarted.
pub(super) fn restarts(restart: Restart, reason: &ExitReason) -> bool {
    match restart {
        Restart::Permanent => true,
        Restart::Transient => reason.is_failure(),
        Restart::Temporary => false,
    }
}

/// What went wrong when a child that was being stopped ended with `reason`.
///
/// `shutdown` is the expected reason, as is `shutdown (drained)` where a drain was requested. For `Brutal` children
/// `Killed` is the expected reason, however they were killed, and `shutdown` counts as an exit of their own. Children that are
/// not permanent may also end normally.
pub(super) fn stop_problem(policy: ExitPolicy, killed: Option<Kill>, reason: &ExitReason) -> Option<StopProblem> {
    let brutal = policy.shutdown == Shutdown::Brutal;
    match reason {
        ExitReason::Killed if brutal || killed == Some(Kill::Brutal) => None,
        ExitReason::Killed if killed == Some(Kill::Overdue) => Some(StopProblem::Killed),
        ExitReason::Shutdown if !brutal => None,
        ExitReason::ShutdownWith { reason } if policy.stop_mode == StopMode::Drain && reason.as_ref() == "drained" => {
            None
        }
        ExitReason::Normal | ExitReason::Shutdown | ExitReason::ShutdownWith { .. }
            if policy.restart != Restart::Permanent =>
        {
            None
        }
        _ => Some(StopProblem::Exited(reason.clone())),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const AFTER: Shutdown = Shutdown::After(Duration::from_secs(5));

    fn policy(restart: Restart, shutdown: Shutdown, stop_mode: StopMode) -> ExitPolicy {
        ExitPolicy { restart, shutdown, stop_mode }
    }

    #[test]
    fn transient_children_restart_after_failures_only() {
        for (reason, wanted) in [
            (ExitReason::Normal, [true, false, false]),
            (ExitReason::Shutdown, [true, false, false]),
            (ExitReason::ShutdownWith { reason: "upgrade".into() }, [true, false, false]),
            (ExitReason::failed("oops"), [true, true, false]),
            (ExitReason::Killed, [true, true, false]),
        ] {
            let actual =
                [Restart::Permanent, Restart::Transient, Restart::Temporary].map(|kind| restarts(kind, &reason));
            assert_eq!(actual, wanted, "{reason}");
        }
    }

    #[test]
    fn a_kill_after_the_shutdown_time_is_a_problem() {
        let child = policy(Restart::Permanent, AFTER, StopMode::Stop);
        assert_eq!(stop_problem(child, Some(Kill::Overdue), &ExitReason::Killed), Some(StopProblem::Killed));
        assert_eq!(stop_problem(child, Some(Kill::Brutal), &ExitReason::Killed), None);
        assert_eq!(stop_problem(child, None, &ExitReason::Killed), Some(StopProblem::Exited(ExitReason::Killed)));
    }

    #[test]
    fn a_brutal_stop_expects_a_kill() {
        let child = policy(Restart::Permanent, Shutdown::Brutal, StopMode::Stop);
        assert_eq!(stop_problem(child, None, &ExitReason::Killed), None);
        assert_eq!(stop_problem(child, None, &ExitReason::Shutdown), Some(StopProblem::Exited(ExitReason::Shutdown)));
        let child = policy(Restart::Transient, Shutdown::Brutal, StopMode::Stop);
        assert_eq!(stop_problem(child, None, &ExitReason::Shutdown), None);
    }

    #[test]
    fn only_permanent_children_must_not_end_normally() {
        for restart in [Restart::Permanent, Restart::Transient, Restart::Temporary] {
            let problem = stop_problem(policy(restart, AFTER, StopMode::Stop), None, &ExitReason::Normal);
            assert_eq!(problem.is_some(), restart == Restart::Permanent);
        }
    }

    #[test]
    fn drained_is_expected_where_a_drain_was_requested() {
        let drained = ExitReason::ShutdownWith { reason: "drained".into() };
        assert_eq!(stop_problem(policy(Restart::Permanent, AFTER, StopMode::Drain), None, &drained), None);
        let problem = stop_problem(policy(Restart::Permanent, AFTER, StopMode::Stop), None, &drained);
        assert_eq!(problem, Some(StopProblem::Exited(drained)));
    }
}

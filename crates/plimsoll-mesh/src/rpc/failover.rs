//! Whether a call that failed is tried elsewhere: a rule without I/O.

use std::time::Instant;

use crate::problem::Code;
use crate::service::Refusal;

/// Providers asked for one call at most.
pub(crate) const MAX_ATTEMPTS: usize = 8;

/// What failed, and what is left to do about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FailedAttempt<'a> {
    pub(crate) refusal: &'a Refusal,
    /// The provider that failed declares that a call may run twice.
    pub(crate) idempotent: bool,
    /// Providers asked so far.
    pub(crate) attempts: usize,
    pub(crate) now: Instant,
    pub(crate) deadline: Instant,
}

impl FailedAttempt<'_> {
    /// A call that certainly never ran is tried elsewhere within its deadline. One that may have run is not, unless its
    /// service is declared idempotent and the provider was lost. Other failures are returned: a request that made one worker
    /// panic would make the next one panic.
    pub(crate) fn try_elsewhere(&self) -> bool {
        if self.attempts >= MAX_ATTEMPTS || self.now >= self.deadline {
            return false;
        }
        let code = self.refusal.problem.code;
        if self.refusal.never_ran {
            return !everywhere_the_same(code);
        }
        self.idempotent && lost_with_its_provider(code)
    }
}

/// Of the refusals of two providers, the one to return to the caller: that a provider takes no calls from this node is less
/// informative than the end of the call at another one.
pub(crate) fn more_informative(earlier: Option<Refusal>, later: Refusal) -> Refusal {
    match earlier {
        Some(earlier) if later.problem.code == Code::NoProvider => earlier,
        _ => later,
    }
}

/// The request itself was refused: no provider would take it.
fn everywhere_the_same(code: Code) -> bool {
    matches!(code, Code::BadName | Code::BadFrame | Code::BadDeadline | Code::BodyTooLarge)
}

fn lost_with_its_provider(code: Code) -> bool {
    matches!(code, Code::ProviderDied | Code::WorkerDied | Code::ShuttingDown)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::problem::Problem;

    #[test]
    fn that_a_provider_takes_no_calls_from_here_is_told_only_when_there_is_nothing_else_to_tell() {
        let refusal = |code| Refusal::never_ran(Problem::new(code, ""));
        for (earlier, later, returned) in [
            (None, Code::NoProvider, Code::NoProvider),
            (Some(Code::NoProvider), Code::NoProvider, Code::NoProvider),
            (Some(Code::Overloaded), Code::NoProvider, Code::Overloaded),
            (Some(Code::NoProvider), Code::ProviderDied, Code::ProviderDied),
            (Some(Code::Overloaded), Code::ProviderDied, Code::ProviderDied),
        ] {
            assert_eq!(
                more_informative(earlier.map(refusal), refusal(later)).problem.code,
                returned,
                "{earlier:?}, {later:?}"
            );
        }
    }

    /// The whole table: code, never ran, idempotent; tried elsewhere.
    #[test]
    fn what_is_tried_elsewhere() {
        let cases = [
            (Code::ProviderDied, true, false, true),
            (Code::ProviderDied, true, true, true),
            (Code::ProviderDied, false, false, false),
            (Code::ProviderDied, false, true, true),
            (Code::Overloaded, true, false, true),
            (Code::ShuttingDown, true, false, true),
            (Code::ShuttingDown, false, false, false),
            (Code::ShuttingDown, false, true, true),
            (Code::NoProvider, true, false, true),
            (Code::Pressure, true, false, true),
            (Code::WorkerDied, false, false, false),
            (Code::WorkerDied, false, true, true),
            (Code::WorkerPanicked, false, false, false),
            (Code::WorkerPanicked, false, true, false),
            (Code::ApplicationError, false, true, false),
            (Code::Deadline, false, true, false),
            (Code::BadName, true, true, false),
            (Code::BadFrame, true, true, false),
            (Code::BodyTooLarge, true, true, false),
        ];
        let now = Instant::now();
        for (code, never_ran, idempotent, elsewhere) in cases {
            let refusal = Refusal { problem: Problem::new(code, ""), never_ran };
            let failed = FailedAttempt {
                refusal: &refusal,
                idempotent,
                attempts: 1,
                now,
                deadline: now + Duration::from_secs(1),
            };
            assert_eq!(failed.try_elsewhere(), elsewhere, "{code:?}, never ran {never_ran}, idempotent {idempotent}");
            assert!(!FailedAttempt { attempts: MAX_ATTEMPTS, ..failed }.try_elsewhere());
            assert!(!FailedAttempt { deadline: now, ..failed }.try_elsewhere(), "within its deadline only");
        }
    }
}

//! The supervisor's own end, and what its report will say of it.

use std::sync::Arc;
use std::time::Duration;

use crate::supervisor::log;
use crate::supervisor::report::{ShutdownReport, Trouble as Reported, TroubleKind, Troubles};
use crate::supervisor::rules::{Exit, Trouble};

/// What is known of the supervisor's own end.
#[derive(Debug, Default)]
pub(in crate::supervisor) struct OwnEnd {
    since: Option<Duration>,
    asked_by_call: bool,
    exit: Option<Exit>,
    troubles: Troubles,
    left_behind: u64,
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

    /// Logs the trouble of a child; it is reported when it came up while the supervisor ends.
    pub(in crate::supervisor) fn trouble(&mut self, supervisor: &str, reported: Reported, closing: bool) {
        self.left_behind += u64::from(reported.what == TroubleKind::LeftBehind);
        log::trouble(supervisor, &reported);
        if closing {
            self.troubles.push(reported);
        }
    }

    /// Takes over what a nested supervisor reports that is known here as `id`.
    pub(in crate::supervisor) fn merge(&mut self, id: &Arc<str>, nested: &ShutdownReport) {
        self.left_behind += nested.left_behind().count() as u64;
        self.troubles.merge(id, nested);
    }

    /// How many were left behind, with those of nested supervisors that ended along with this one.
    pub(in crate::supervisor) fn left_behind(&self) -> u64 {
        self.left_behind
    }

    pub(in crate::supervisor) fn report(&mut self, supervisor: Arc<str>, now: Duration) -> ShutdownReport {
        let (cause, reason) = self.exit().outcome();
        let troubles = std::mem::take(&mut self.troubles);
        ShutdownReport {
            supervisor,
            cause,
            reason,
            took: now.saturating_sub(self.since.unwrap_or(now)),
            troubles: troubles.list,
            omitted: troubles.omitted,
        }
    }
}

impl From<Trouble> for TroubleKind {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Ended(reason) => Self::Ended(reason),
            Trouble::Killed => Self::Killed,
            Trouble::LeftBehind => Self::LeftBehind,
        }
    }
}

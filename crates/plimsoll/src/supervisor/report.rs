//! How a supervisor ended, and who gave trouble.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ractor::ActorId;

use crate::exit::ExitReason;

/// Troubles that one report names; the rest is only counted.
pub const MAX_TROUBLES: usize = 10_000;

/// How a supervisor ended: why, how long it took and which children did not stop as they should have. The troubles of
/// nested supervisors are part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// The supervisor's name.
    pub supervisor: Arc<str>,
    /// What made it end.
    pub cause: ShutdownCause,
    /// The reason with which it ended.
    pub reason: ExitReason,
    /// From the decision to stop until nothing ran any more.
    pub took: Duration,
    /// Children that did not stop as they should have, in the order in which that was seen. At most [`MAX_TROUBLES`].
    pub troubles: Vec<Trouble>,
    /// Troubles beyond that number.
    pub omitted: u64,
}

/// What made a supervisor end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShutdownCause {
    /// It was asked to stop.
    Stopped,
    /// More restarts than its intensity allows.
    GaveUp,
    /// Its significant children ended.
    AutoShutdown,
    /// A child failed to start with it.
    StartFailed,
    /// It was killed; so were its children.
    Killed,
}

/// One child that did not stop as it should have.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trouble {
    /// The ids from the supervisor that reports down to the child; a dynamic child is named by its actor.
    pub path: Vec<Arc<str>>,
    /// Its actor; none for a start that would not end.
    pub actor: Option<ActorId>,
    /// What happened.
    pub what: TroubleKind,
    /// How long it was waited for.
    pub waited: Duration,
    /// The message that it had in hand when it was killed or left behind, where it writes that down
    /// ([`InHand`](super::InHand)).
    pub in_hand: Option<Arc<str>>,
}

/// How a child's stop went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TroubleKind {
    /// It ended with this reason, where a shutdown was expected.
    Ended(ExitReason),
    /// It outlasted its grace and was killed.
    Killed,
    /// A kill did not end it, because it blocks its thread. It may still run.
    LeftBehind,
}

impl ShutdownReport {
    /// The report of a supervisor that did not live to write one.
    pub(crate) fn cut_short(supervisor: Arc<str>) -> Self {
        Self {
            supervisor,
            cause: ShutdownCause::Killed,
            reason: ExitReason::Killed,
            took: Duration::ZERO,
            troubles: Vec::new(),
            omitted: 0,
        }
    }

    /// Whether everybody stopped as asked.
    pub fn is_clean(&self) -> bool {
        self.troubles.is_empty() && self.omitted == 0
    }

    /// Those that outlasted their grace: killed, or left behind.
    pub fn stragglers(&self) -> impl Iterator<Item = &Trouble> {
        self.troubles.iter().filter(|trouble| !matches!(trouble.what, TroubleKind::Ended(_)))
    }

    /// Those that a kill did not end.
    pub fn left_behind(&self) -> impl Iterator<Item = &Trouble> {
        self.troubles.iter().filter(|trouble| trouble.what == TroubleKind::LeftBehind)
    }
}

impl fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "supervisor `{}` ended ({}) in {:?}", self.supervisor, self.reason, self.took)?;
        for trouble in &self.troubles {
            write!(f, "\n  {trouble}")?;
        }
        if self.omitted > 0 {
            write!(f, "\n  and {} more", self.omitted)?;
        }
        Ok(())
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.join("/");
        match &self.what {
            TroubleKind::Ended(reason) => write!(f, "{path}: {reason}"),
            TroubleKind::Killed => write!(f, "{path}: killed after {:?}", self.waited),
            TroubleKind::LeftBehind => write!(f, "{path}: did not end in {:?} and was left behind", self.waited),
        }?;
        match &self.in_hand {
            Some(message) => write!(f, ", with `{message}` in hand"),
            None => Ok(()),
        }
    }
}

/// Troubles as they come in, up to the cap.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    pub(crate) list: Vec<Trouble>,
    pub(crate) omitted: u64,
}

impl Troubles {
    pub(crate) fn push(&mut self, trouble: Trouble) {
        if self.list.len() < MAX_TROUBLES {
            self.list.push(trouble);
        } else {
            self.omitted += 1;
        }
    }

    /// Takes over the report of a nested supervisor that is known here as `id`.
    pub(crate) fn merge(&mut self, id: &Arc<str>, nested: &ShutdownReport) {
        self.omitted += nested.omitted;
        for trouble in &nested.troubles {
            let mut trouble = trouble.clone();
            trouble.path.insert(0, id.clone());
            self.push(trouble);
        }
    }
}

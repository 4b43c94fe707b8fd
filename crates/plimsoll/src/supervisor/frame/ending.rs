//! The end of a child, as it comes to be known.
//!
//! Its last words and the end of its task are heard of one by one, in either order. The rules are told when both are known;
//! earlier when the task lingers, or when a nested supervisor has reported stragglers. Then they are told of its end, too.

use crate::exit::{ExitReason, Failure};
use crate::supervisor::rules::Gone;

/// What is known of an end that is not over.
#[derive(Debug, Default)]
pub(in crate::supervisor) struct Ending {
    /// Its last words, while its task has not ended.
    heard: Option<ExitReason>,
    /// Its task has ended.
    joined: bool,
    panic: Option<Failure>,
    /// The rules know that it ended.
    told: bool,
    /// A nested supervisor that leaves stragglers behind.
    hopeless: bool,
}

/// What the rules are to be told.
#[derive(Debug)]
pub(in crate::supervisor) enum End {
    /// The child said its last.
    Exited(ExitReason, Gone),
    /// The task of one that had said its last has ended, too.
    Ended,
}

impl Ending {
    /// Its last words; the first that come are believed.
    pub(in crate::supervisor) fn heard(&mut self, reason: ExitReason) {
        self.heard.get_or_insert(reason);
    }

    /// Its task has ended.
    pub(in crate::supervisor) fn joined(&mut self, panic: Option<Failure>) {
        self.joined = true;
        self.panic = panic;
    }

    pub(in crate::supervisor) fn is_heard(&self) -> bool {
        self.heard.is_some()
    }

    pub(in crate::supervisor) fn is_joined(&self) -> bool {
        self.joined
    }

    /// Its task has not ended long after its last words: those, when the rules do not know them yet.
    pub(in crate::supervisor) fn lingers(&mut self) -> Option<ExitReason> {
        let reason = self.heard.as_ref().filter(|_| !self.told)?;
        self.told = true;
        Some(reason.clone())
    }

    /// A nested supervisor has reported whether it leaves stragglers behind.
    pub(in crate::supervisor) fn reported(&mut self, stragglers: bool) {
        self.hopeless = stragglers;
    }

    /// What the rules have not been told yet.
    pub(in crate::supervisor) fn news(&mut self) -> Option<End> {
        let heard = self.heard.as_ref()?;
        if !self.joined && (!self.hopeless || self.told) {
            return None;
        }
        let told = std::mem::replace(&mut self.told, true);
        if self.joined && told {
            return Some(End::Ended);
        }
        let reason = self.panic.clone().map_or_else(|| heard.clone(), ExitReason::Failed);
        Some(End::Exited(reason, if self.joined { Gone::Yes } else { Gone::StragglersLeft }))
    }
}

//! Ends that are heard of before the start they belong to is told.

use std::collections::VecDeque;

use ractor::ActorId;

use super::Heard;

/// The oldest goes beyond that.
const EARLY_ENDS: usize = 1_024;

/// Ends of linked actors that nobody knows yet, while starts are under way.
#[derive(Debug, Default)]
pub(in crate::supervisor) struct EarlyEnds(VecDeque<(ActorId, Heard)>);

impl EarlyEnds {
    pub(in crate::supervisor) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(in crate::supervisor) fn push(&mut self, actor: ActorId, heard: Heard) {
        if self.0.len() == EARLY_ENDS {
            self.0.pop_front();
        }
        self.0.push_back((actor, heard));
    }

    /// What was heard of this actor.
    pub(in crate::supervisor) fn take(&mut self, actor: ActorId) -> Option<Heard> {
        let index = self.0.iter().position(|(early, _)| *early == actor)?;
        self.0.remove(index).map(|(_, heard)| heard)
    }
}

//! What is decided under the lock and done after it.
//!
//! Each wakes a task, and that may take a system call: meanwhile everybody else would wait for the lock. None of them
//! depends on what is decided in between: an actor that has ended, or was killed, is not to be asked any more.

use ractor::ActorCell;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::supervisor::rules::Refusal;

#[derive(Debug)]
pub(super) enum Errand {
    Stop(ActorCell),
    Drain(ActorCell),
    Cancel(CancellationToken),
    Answer(oneshot::Sender<Option<Refusal>>, Option<Refusal>),
}

/// As a rule one, which costs no allocation.
#[derive(Debug, Default)]
pub(super) struct Errands {
    first: Option<Errand>,
    others: Vec<Errand>,
}

impl Errands {
    pub(super) fn push(&mut self, errand: Errand) {
        match self.first {
            None => self.first = Some(errand),
            Some(_) => self.others.push(errand),
        }
    }

    /// Does them in their order.
    pub(super) fn run(self) {
        if let Some(first) = self.first {
            first.run();
        }
        if !self.others.is_empty() {
            self.others.into_iter().for_each(Errand::run);
        }
    }
}

impl Errand {
    fn run(self) {
        match self {
            Self::Stop(actor) => actor.stop(Some("shutdown".to_owned())),
            Self::Drain(actor) => drop(actor.drain()),
            Self::Cancel(token) => token.cancel(),
            Self::Answer(waiting, refusal) => drop(waiting.send(refusal)),
        }
    }
}

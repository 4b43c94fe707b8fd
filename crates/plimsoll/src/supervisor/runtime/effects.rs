//! What is decided under the lock and done after it.
//!
//! Each effect wakes a task or runs user code: meanwhile everybody else would wait for the lock. None depends on what is
//! decided in between: an actor that has exited, or was killed, need not be asked any more.

use std::sync::Arc;

use ractor::ActorCell;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::Response;
use super::child::Dropped;
use crate::panics::discard;
use crate::supervisor::child::ChildSlot;
use crate::supervisor::error::StartError;

pub(super) enum Effect {
    Stop(ActorCell),
    Drain(ActorCell),
    Cancel(CancellationToken),
    Respond(oneshot::Sender<Response>, Response),
    Booted(oneshot::Sender<Result<(), StartError>>, Result<(), StartError>),
    Wake(Arc<ChildSlot>),
    Drop(Dropped),
}

/// Usually one, which costs no allocation.
#[derive(Default)]
pub(super) struct Effects {
    first: Option<Effect>,
    others: Vec<Effect>,
}

impl Effects {
    pub(super) fn push(&mut self, effect: Effect) {
        match self.first {
            None => self.first = Some(effect),
            Some(_) => self.others.push(effect),
        }
    }

    /// Does them in their order.
    pub(super) fn run(self) {
        if let Some(first) = self.first {
            first.run();
        }
        if !self.others.is_empty() {
            self.others.into_iter().for_each(Effect::run);
        }
    }
}

impl Effect {
    fn run(self) {
        match self {
            Self::Stop(actor) => actor.stop(Some("shutdown".to_owned())),
            Self::Drain(actor) => drop(actor.drain()),
            Self::Cancel(token) => token.cancel(),
            Self::Respond(waiting, response) => {
                if let Err(unheard) = waiting.send(response) {
                    discard(unheard);
                }
            }
            Self::Booted(waiting, result) => discard(waiting.send(result)),
            Self::Wake(slot) => slot.wake(),
            Self::Drop(value) => discard(value),
        }
    }
}

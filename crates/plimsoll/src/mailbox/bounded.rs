//! What arrives at the actor.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::Instant;

use plimsoll_sync::level::LevelCell;
use plimsoll_sync::mailbox::{Leaves, Mailbox};
use plimsoll_sync::permits::Load;
use ractor::ActorRef;

use super::{BoundedRef, Overflow};

/// How scarce memory is, as an actor is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PressureLevel {
    /// As always.
    Normal,
    /// Give back what costs nothing.
    Elevated,
    /// Give back what can be made again.
    High,
    /// Keep what the admitted work needs.
    Critical,
}

impl PressureLevel {
    const ALL: [Self; 4] = [Self::Normal, Self::Elevated, Self::High, Self::Critical];
}

/// What a mailbox brings.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivery<M> {
    /// The next message, in the order sent.
    Message(M),
    /// The latest pressure told. It takes no credit, and however often it is told it arrives once.
    Pressure(PressureLevel),
}

pub(crate) struct Core<M> {
    pub(crate) mailbox: Mailbox<(M, Stamp), Waker>,
    pub(crate) stamps: AtomicU32,
    pub(crate) actor: OnceLock<ActorRef<Bounded<M>>>,
    pub(crate) level: LevelCell,
    pub(crate) overflow: Overflow,
    pub(crate) limit: Load,
    pub(crate) waiting: u32,
    pub(crate) weigh: Option<Weigh<M>>,
    pub(crate) refused: AtomicU64,
    pub(crate) dropped_newest: AtomicU64,
    pub(crate) waited_timed: AtomicU64,
    pub(crate) waited_ns: AtomicU64,
    pub(crate) waited_max_ns: AtomicU64,
}

/// When a message was sent. One in eight has a stamp: reading the clock would double the cost of a send.
pub(crate) type Stamp = Option<Instant>;

/// Tells the bytes of a message.
pub(crate) type Weigh<M> = Box<dyn Fn(&M) -> u64 + Send + Sync>;

impl<M: Send + 'static> Core<M> {
    pub(crate) fn stamp(&self) -> Stamp {
        self.stamps.fetch_add(1, Ordering::Relaxed).is_multiple_of(8).then(Instant::now)
    }

    /// Announces one message; `false` when the actor takes none any more.
    pub(crate) fn announce(self: &Arc<Self>, what: Announced) -> bool {
        let Some(actor) = self.actor.get() else { return false };
        match actor.send_message(Bounded { core: Arc::clone(self), what, armed: true }) {
            Ok(()) => true,
            Err(error) => {
                // The message is its sender's again; this announcement has none to drop.
                if let ractor::MessagingErr::SendErr(mut bounded) = error {
                    bounded.armed = false;
                }
                false
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Announced {
    Message,
    Pressure,
}

/// The message type of an actor with a bounded mailbox: one delivery, to be taken.
///
/// Only a [`BoundedRef`](super::BoundedRef) makes one. If it is dropped without being taken, its message is dropped with
/// it and the credit comes back.
pub struct Bounded<M> {
    core: Arc<Core<M>>,
    what: Announced,
    armed: bool,
}

impl<M> Bounded<M> {
    /// Takes what was delivered, and gives its credit back. `None` when there is nothing any more.
    pub fn take(mut self) -> Option<Delivery<M>> {
        self.armed = false;
        match self.what {
            Announced::Pressure => {
                let level = self.core.level.hear()?;
                PressureLevel::ALL.get(usize::from(level)).copied().map(Delivery::Pressure)
            }
            Announced::Message => {
                let (message, sent) = self.core.mailbox.pop(Leaves::Taken, Waker::wake)?;
                if let Some(sent) = sent {
                    let waited = u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX);
                    self.core.waited_timed.fetch_add(1, Ordering::Relaxed);
                    self.core.waited_ns.fetch_add(waited, Ordering::Relaxed);
                    self.core.waited_max_ns.fetch_max(waited, Ordering::Relaxed);
                }
                Some(Delivery::Message(message))
            }
        }
    }
}

impl<M: Send + 'static> Bounded<M> {
    /// The way into the mailbox that this came from: for an actor that sends itself something, or hands its address out.
    pub fn sender(&self) -> BoundedRef<M> {
        BoundedRef { core: Arc::clone(&self.core) }
    }
}

impl<M> Drop for Bounded<M> {
    fn drop(&mut self) {
        if self.armed && self.what == Announced::Message {
            drop(self.core.mailbox.pop(Leaves::Unserved, Waker::wake));
        }
    }
}

impl<M> fmt::Debug for Bounded<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bounded").field("what", &self.what).finish_non_exhaustive()
    }
}

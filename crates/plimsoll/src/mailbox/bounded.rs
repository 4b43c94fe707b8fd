//! What arrives at the actor.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::task::Waker;

use plimsoll_sync::level::LevelCell;
use plimsoll_sync::mailbox::{Leaves, Mailbox};
use plimsoll_sync::permits::{Load, PermitGate};
use plimsoll_sync::tide::Tide;
use ractor::{ActorRef, MessagingErr};

use super::waits::{Stamp, Waits};
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
    pub(crate) lane: Lane<M>,
    pub(crate) waits: Waits,
    pub(crate) actor: OnceLock<ActorRef<Bounded<M>>>,
    pub(crate) level: LevelCell,
    pub(crate) overflow: Overflow,
    pub(crate) limit: Load,
    pub(crate) waiting: u32,
    pub(crate) weigh: Option<Weigh<M>>,
    pub(crate) refused: AtomicU64,
    pub(crate) dropped_newest: AtomicU64,
}

/// Where messages wait for the actor.
pub(crate) enum Lane<M> {
    /// In ractor's own queue, each with its credit in its hand. The tide counts them, and bounds them where they are
    /// bounded by number and nobody waits; else the gate does.
    Straight { tide: Tide<WAYS>, gate: Option<PermitGate<Waker>> },
    /// In a queue beside it, from which the oldest can be taken; ractor's then holds an announcement for each.
    Aside(Mailbox<(M, Stamp), Waker>),
}

/// How many ways a message leaves by.
pub(crate) const WAYS: usize = 3;
/// The actor took it.
pub(crate) const TAKEN: usize = 0;
/// Its actor ended before it was taken.
pub(crate) const UNSERVED: usize = 1;
/// It never got in, and went back to its sender.
pub(crate) const RETURNED: usize = 2;

/// Tells the bytes of a message.
pub(crate) type Weigh<M> = Box<dyn Fn(&M) -> u64 + Send + Sync>;

impl<M> Core<M> {
    /// A message that waited in ractor's queue is there no longer.
    fn left(&self, way: usize, bytes: u64) {
        if let Lane::Straight { tide, gate } = &self.lane {
            tide.leave(way);
            if let Some(gate) = gate {
                gate.release(bytes, Waker::wake);
            }
        }
    }
}

impl<M: Send + 'static> Core<M> {
    /// Puts a message with its credit into ractor's queue; it comes back when the actor takes none any more.
    pub(crate) fn deliver(self: &Arc<Self>, message: M, bytes: u64, stamp: Stamp) -> Result<(), M> {
        let Some(mut bounded) = self.hand_over(What::Message { message, bytes, stamp }) else { return Ok(()) };
        match std::mem::replace(&mut bounded.what, What::Nothing) {
            What::Message { message, bytes, .. } => {
                self.left(RETURNED, bytes);
                Err(message)
            }
            _ => Ok(()),
        }
    }

    /// Announces one message of the queue aside, or pressure; `false` when the actor takes none any more.
    pub(crate) fn announce(self: &Arc<Self>, what: What<M>) -> bool {
        match self.hand_over(what) {
            None => true,
            Some(mut bounded) => {
                // The message is its sender's again; this announcement has none to drop.
                bounded.what = What::Nothing;
                false
            }
        }
    }

    /// Gives `what` to ractor, or gets it back.
    fn hand_over(self: &Arc<Self>, what: What<M>) -> Option<Bounded<M>> {
        let bounded = Bounded { core: Arc::clone(self), what };
        let Some(actor) = self.actor.get() else { return Some(bounded) };
        match actor.send_message(bounded) {
            Err(MessagingErr::SendErr(bounded)) => Some(bounded),
            _ => None,
        }
    }
}

/// What a delivery holds.
pub(crate) enum What<M> {
    Message {
        message: M,
        bytes: u64,
        stamp: Stamp,
    },
    /// The first in the queue aside.
    Announced,
    Pressure,
    /// It has been taken.
    Nothing,
}

/// The message type of an actor with a bounded mailbox: one delivery, to be taken.
///
/// Only a [`BoundedRef`](super::BoundedRef) makes one. If it is dropped without being taken, its message is dropped with
/// it and the credit comes back.
pub struct Bounded<M> {
    core: Arc<Core<M>>,
    what: What<M>,
}

impl<M> Bounded<M> {
    /// Takes what was delivered, and gives its credit back. `None` when there is nothing any more.
    pub fn take(mut self) -> Option<Delivery<M>> {
        let core = &self.core;
        match std::mem::replace(&mut self.what, What::Nothing) {
            What::Message { message, bytes, stamp } => {
                core.left(TAKEN, bytes);
                core.waits.over(stamp);
                Some(Delivery::Message(message))
            }
            What::Announced => {
                let Lane::Aside(mailbox) = &core.lane else { return None };
                let (message, stamp) = mailbox.pop(Leaves::Taken, Waker::wake)?;
                core.waits.over(stamp);
                Some(Delivery::Message(message))
            }
            What::Pressure => {
                let level = core.level.hear()?;
                PressureLevel::ALL.get(usize::from(level)).copied().map(Delivery::Pressure)
            }
            What::Nothing => None,
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
        match std::mem::replace(&mut self.what, What::Nothing) {
            What::Message { message, bytes, .. } => {
                // Before its message, whose own drop may panic.
                self.core.left(UNSERVED, bytes);
                drop(message);
            }
            What::Announced => {
                if let Lane::Aside(mailbox) = &self.core.lane {
                    drop(mailbox.pop(Leaves::Unserved, Waker::wake));
                }
            }
            What::Pressure | What::Nothing => {}
        }
    }
}

impl<M> fmt::Debug for Bounded<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.what {
            What::Message { .. } | What::Announced => "message",
            What::Pressure => "pressure",
            What::Nothing => "nothing",
        };
        f.debug_struct("Bounded").field("what", &what).finish_non_exhaustive()
    }
}

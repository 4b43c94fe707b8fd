//! The messages that a bounded actor receives, and the core that sender and receiver share.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::task::Waker;

use plimsoll_sync::level_cell::LevelCell;
use plimsoll_sync::mailbox::{Leaves, Mailbox};
use plimsoll_sync::occupancy::Occupancy;
use plimsoll_sync::permits::{Load, PermitGate};
use ractor::concurrency::JoinHandle;
use ractor::{ActorRef, MessagingErr};

use super::waiting_time::{SentAt, WaitingTimes};
use crate::wait_graph::ActorTask;

/// How scarce memory is.
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

/// What happens to a message that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// It comes back to its sender.
    #[default]
    Reject,
    /// [`send_by`](super::BoundedRef::send_by) waits for room until its deadline, first come first served;
    /// [`send`](super::BoundedRef::send), which cannot wait, rejects.
    Wait,
    /// It is dropped and counted.
    DropNewest,
    /// As many of the oldest as it takes are dropped and counted.
    DropOldest,
}

/// What a mailbox brings.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivery<M> {
    /// The next message, in the order sent.
    Message(M),
    /// The latest pressure. It takes no credit, and however often it is set it arrives once.
    Pressure(PressureLevel),
}

pub(crate) struct Core<M> {
    pub(crate) queue: Queue<M>,
    pub(crate) waiting_times: WaitingTimes,
    pub(crate) actor: OnceLock<ActorRef<Bounded<M>>>,
    /// The task of the actor, so that a wait inside a handler can be attributed to it.
    pub(crate) task: OnceLock<ActorTask>,
    pub(crate) level: LevelCell,
    pub(crate) overflow: Overflow,
    pub(crate) limit: Load,
    pub(crate) waiting: u32,
    pub(crate) weigh: Option<Weigh<M>>,
    pub(crate) refused: AtomicU64,
    pub(crate) dropped_newest: AtomicU64,
}

/// Where messages wait for the actor.
pub(crate) enum Queue<M> {
    /// In ractor's own queue, each with its credit. The occupancy counts them, and bounds them where they are
    /// bounded by number and nobody waits; else the gate does.
    Ractor { occupancy: Occupancy<WAYS>, gate: Option<PermitGate<Waker>> },
    /// In a queue of our own, from which the oldest can be taken; ractor's then holds an announcement for each.
    Own(Mailbox<(M, SentAt), Waker>),
}

/// How many ways a message leaves by.
pub(crate) const WAYS: usize = 3;
/// The actor took it.
pub(crate) const TAKEN: usize = 0;
/// Its actor ended before it was taken.
pub(crate) const UNSERVED: usize = 1;
/// It never got in, and went back to its sender.
pub(crate) const RETURNED: usize = 2;

/// Returns the bytes of a message.
pub(crate) type Weigh<M> = Box<dyn Fn(&M) -> u64 + Send + Sync>;

impl<M> Core<M> {
    /// A message that waited in ractor's queue is there no longer.
    fn left(&self, way: usize, bytes: u64) {
        if let Queue::Ractor { occupancy, gate } = &self.queue {
            occupancy.leave(way);
            if let Some(gate) = gate {
                gate.release(bytes, Waker::wake);
            }
        }
    }
}

impl<M: Send + 'static> Core<M> {
    /// The actor of this mailbox has been spawned.
    pub(crate) fn started(&self, actor: ActorRef<Bounded<M>>, ended: &JoinHandle<()>) {
        if self.overflow == Overflow::Wait {
            let _ = self.task.set(ActorTask::register(ended.id(), &actor.get_cell()));
        }
        let _ = self.actor.set(actor);
    }

    /// Puts a message with its credit into ractor's queue; it comes back when the actor takes none any more.
    pub(crate) fn deliver(self: &Arc<Self>, message: M, bytes: u64, sent_at: SentAt) -> Result<(), M> {
        let Some(mut bounded) = self.enqueue(Payload::Message { message, bytes, sent_at }) else { return Ok(()) };
        match std::mem::replace(&mut bounded.payload, Payload::Nothing) {
            Payload::Message { message, bytes, .. } => {
                self.left(RETURNED, bytes);
                Err(message)
            }
            _ => Ok(()),
        }
    }

    /// Announces one message of our own queue, or pressure; `false` when the actor takes none any more.
    pub(crate) fn announce(self: &Arc<Self>, payload: Payload<M>) -> bool {
        match self.enqueue(payload) {
            None => true,
            Some(mut bounded) => {
                // The message is its sender's again; this announcement has none to drop.
                bounded.payload = Payload::Nothing;
                false
            }
        }
    }

    /// Sends `payload` to ractor's queue, or returns it.
    fn enqueue(self: &Arc<Self>, payload: Payload<M>) -> Option<Bounded<M>> {
        let bounded = Bounded { core: Arc::clone(self), payload };
        let Some(actor) = self.actor.get() else { return Some(bounded) };
        match actor.send_message(bounded) {
            Err(MessagingErr::SendErr(bounded)) => Some(bounded),
            _ => None,
        }
    }
}

/// What a delivery carries.
pub(crate) enum Payload<M> {
    Message {
        message: M,
        bytes: u64,
        sent_at: SentAt,
    },
    /// The first in our own queue.
    Announced,
    Pressure,
    /// It has been taken.
    Nothing,
}

/// The message type of an actor with a bounded mailbox: one delivery, to be taken.
///
/// Only a [`BoundedRef`](super::BoundedRef) makes one. If it is dropped without being taken, its message is dropped with
/// it and the credit returns.
pub struct Bounded<M> {
    pub(crate) core: Arc<Core<M>>,
    payload: Payload<M>,
}

impl<M> Bounded<M> {
    /// Takes the message and returns its credit. `None` for anything but a message: for actors that ignore pressure.
    ///
    /// See [`take`](Self::take) for actors that handle pressure.
    pub fn into_message(self) -> Option<M> {
        match self.take() {
            Some(Delivery::Message(message)) => Some(message),
            _ => None,
        }
    }

    /// Takes what was delivered, a message or pressure, and returns its credit. `None` when there is nothing any more.
    pub fn take(mut self) -> Option<Delivery<M>> {
        let core = &self.core;
        match std::mem::replace(&mut self.payload, Payload::Nothing) {
            Payload::Message { message, bytes, sent_at } => {
                core.left(TAKEN, bytes);
                core.waiting_times.record(sent_at);
                Some(Delivery::Message(message))
            }
            Payload::Announced => {
                let Queue::Own(mailbox) = &core.queue else { return None };
                let (message, sent_at) = mailbox.pop(Leaves::Taken, Waker::wake)?;
                core.waiting_times.record(sent_at);
                Some(Delivery::Message(message))
            }
            Payload::Pressure => {
                let level = core.level.take_change()?;
                PressureLevel::ALL.get(usize::from(level)).copied().map(Delivery::Pressure)
            }
            Payload::Nothing => None,
        }
    }
}

impl<M> Drop for Bounded<M> {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.payload, Payload::Nothing) {
            Payload::Message { message, bytes, .. } => {
                // Before its message, whose own drop may panic.
                self.core.left(UNSERVED, bytes);
                drop(message);
            }
            Payload::Announced => {
                if let Queue::Own(mailbox) = &self.core.queue {
                    drop(mailbox.pop(Leaves::Unserved, Waker::wake));
                }
            }
            Payload::Pressure | Payload::Nothing => {}
        }
    }
}

impl<M> fmt::Debug for Bounded<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let payload = match self.payload {
            Payload::Message { .. } | Payload::Announced => "message",
            Payload::Pressure => "pressure",
            Payload::Nothing => "nothing",
        };
        f.debug_struct("Bounded").field("payload", &payload).finish_non_exhaustive()
    }
}

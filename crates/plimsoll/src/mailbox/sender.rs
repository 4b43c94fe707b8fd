//! Senders of a bounded mailbox.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};
use std::time::Duration;

use plimsoll_sync::mailbox::{Mailbox, NotSent};
use plimsoll_sync::occupancy::Occupancy;
use plimsoll_sync::permits::{Load, PermitGate, Place, Refused, Scarce};
use ractor::ActorCell;
use ractor::concurrency::JoinHandle;

use super::delivery::{Core, Payload, Queue, WAYS};
use super::waiting_time::SentAt;
use super::{Bounded, Overflow, PressureLevel};
use crate::call::Overload;
use crate::supervisor::Child;
use crate::wait_graph::{self, Node, WaitEdge};

/// A sender of a bounded mailbox: nothing else can send to it. Cheap to clone.
pub struct BoundedRef<M> {
    pub(crate) core: Arc<Core<M>>,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It is in the mailbox.
    Queued,
    /// It is in the mailbox, and so many older ones were dropped for it.
    InPlaceOf(usize),
    /// The mailbox was full, and its policy is to drop the newest: this one.
    Dropped,
}

/// Why a message was not sent; it comes back.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError<M> {
    /// The mailbox is full.
    #[error("the mailbox is full: {0}")]
    Full(Overload, M),
    /// There was no room by the deadline.
    #[error("no room by the deadline")]
    TimedOut(M),
    /// The sender would have waited for itself: it runs in the actor's own handler, or in that of an actor that the
    /// mailbox's actor waits for. The cycle, in the order in which each waits for the next.
    #[error("deadlock: {}", .0.join(" waits for "))]
    Deadlock(Vec<String>, M),
    /// The actor takes no more messages, or has ended.
    #[error("no process")]
    NoProcess(M),
}

impl<M> SendError<M> {
    /// The message.
    pub fn into_message(self) -> M {
        match self {
            Self::Full(_, message)
            | Self::Deadlock(_, message)
            | Self::TimedOut(message)
            | Self::NoProcess(message) => message,
        }
    }
}

impl<M> fmt::Debug for SendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(overload, _) => f.debug_tuple("Full").field(overload).finish(),
            Self::Deadlock(cycle, _) => f.debug_tuple("Deadlock").field(cycle).finish(),
            Self::TimedOut(_) => f.write_str("TimedOut"),
            Self::NoProcess(_) => f.write_str("NoProcess"),
        }
    }
}

impl<M: Send + 'static> BoundedRef<M> {
    /// Sends `message`, or does what the mailbox's policy says when it does not fit. Never waits.
    ///
    /// # Errors
    /// [`SendError`] with the message: the mailbox is full, or the actor has ended.
    ///
    /// Cost: one small allocation, ractor's own for a message.
    pub fn send(&self, message: M) -> Result<Sent, SendError<M>> {
        let bytes = self.core.weigh.as_ref().map_or(0, |weigh| weigh(&message));
        let (n, message) = match &self.core.queue {
            Queue::Own(mailbox) => return self.send_to_own_queue(mailbox, message, bytes),
            Queue::Ractor { occupancy, gate: None } => match occupancy.enter(u64::from(self.core.limit.count)) {
                Ok(n) => (n, message),
                Err(in_flight) => {
                    let used = Load { count: u32::try_from(in_flight).unwrap_or(u32::MAX), bytes: 0 };
                    let refused = Refused { scarce: Scarce::Count, used, limit: self.core.limit };
                    return self.over(message, refused, bytes);
                }
            },
            Queue::Ractor { occupancy, gate: Some(gate) } => match gate.try_acquire(bytes) {
                Ok(()) => (counted(occupancy), message),
                Err(refused) => return self.over(message, refused, bytes),
            },
        };
        self.core.deliver(message, bytes, SentAt::now(n)).map_err(SendError::NoProcess).map(|()| Sent::Queued)
    }

    fn send_to_own_queue(
        &self,
        mailbox: &Mailbox<(M, SentAt), Waker>,
        message: M,
        bytes: u64,
    ) -> Result<Sent, SendError<M>> {
        let sent_at = SentAt::now(mailbox.traffic().sent);
        match mailbox.offer_dropping((message, sent_at), bytes, Waker::wake) {
            Ok((put, dropped)) => {
                let sent = if dropped.is_empty() { Sent::Queued } else { Sent::InPlaceOf(dropped.len()) };
                if !put.announce || self.core.announce(Payload::Announced) {
                    return Ok(sent);
                }
                match mailbox.retract(put.ticket, Waker::wake) {
                    Some((message, _)) => Err(SendError::NoProcess(message)),
                    // It had been taken in, and was dropped for a newer one.
                    None => Ok(sent),
                }
            }
            Err(NotSent::Closed((message, _))) => Err(SendError::NoProcess(message)),
            Err(NotSent::Full((message, _), refused)) => Err(self.full(message, refused, bytes)),
        }
    }

    /// Sends `message`; under [`Overflow::Wait`] waits for room until `deadline`. Waiting senders are served first come
    /// first served; no later sender gets room before them.
    ///
    /// A wait that would never end by itself is [`SendError::Deadlock`] at once: in a handler of this mailbox's own actor, or
    /// in that of another [`Overflow::Wait`] mailbox or [`GenServer`](crate::server::GenServer) for which this mailbox's
    /// actor waits, directly or through others. Waits are attributed to an actor when they happen in its own task; one that
    /// a handler moves to another task and then awaits is not noticed and lasts until its deadline.
    ///
    /// # Errors
    /// [`SendError`] with the message.
    ///
    /// Cancel safe: a message whose future is dropped was not sent, and its place among those who wait is given up.
    pub async fn send_by(&self, message: M, deadline: impl Into<tokio::time::Instant>) -> Result<Sent, SendError<M>> {
        let message = match self.send(message) {
            Err(SendError::Full(_, message)) if self.core.overflow == Overflow::Wait => message,
            done => return done,
        };
        let core = &self.core;
        let Queue::Ractor { occupancy, gate: Some(gate) } = &core.queue else {
            return Err(SendError::NoProcess(message));
        };
        let bytes = core.weigh.as_ref().map_or(0, |weigh| weigh(&message));
        let _edge = match self.wait_edge() {
            Ok(edge) => edge,
            // The refusal has been counted.
            Err(cycle) => return Err(SendError::Deadlock(cycle, message)),
        };
        // It may still get in.
        core.refused.fetch_sub(1, Ordering::Relaxed);
        let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        let place = match gate.enqueue(bytes, waker, Waker::wake) {
            Ok(place) => Waiting { gate, place: Some(place) },
            Err(refused) => return Err(self.full(message, refused, bytes)),
        };
        match tokio::time::timeout_at(deadline.into(), place.room()).await {
            Err(_) => {
                core.refused.fetch_add(1, Ordering::Relaxed);
                Err(SendError::TimedOut(message))
            }
            Ok(()) => {
                let sent_at = SentAt::now(counted(occupancy));
                core.deliver(message, bytes, sent_at).map_err(SendError::NoProcess).map(|()| Sent::Queued)
            }
        }
    }

    /// Sends `message` as [`send_by`](Self::send_by) does, with a deadline `timeout` from now.
    ///
    /// # Errors
    /// As [`send_by`](Self::send_by).
    ///
    /// Cancel safe: as [`send_by`](Self::send_by).
    pub async fn send_timeout(&self, message: M, timeout: Duration) -> Result<Sent, SendError<M>> {
        let now = tokio::time::Instant::now();
        // A time that the clock cannot express is as good as a year.
        let deadline = now.checked_add(timeout).unwrap_or(now + Duration::from_secs(365 * 86_400));
        self.send_by(message, deadline).await
    }

    /// Records that the actor of the current task, if it is known, waits for this mailbox's actor.
    fn wait_edge(&self) -> Result<Option<WaitEdge>, Vec<String>> {
        let Some(from) = wait_graph::current_actor() else { return Ok(None) };
        WaitEdge::begin(&from, &Node::from(&self.actor())).map(Some)
    }

    /// Sets how scarce memory is for the actor. It always gets through, takes no credit, and only the latest counts.
    pub fn set_pressure(&self, level: PressureLevel) {
        if self.core.level.set(level as u8) {
            self.core.announce(Payload::Pressure);
        }
    }

    /// The actor: to stop, drain, kill or watch it.
    pub fn actor(&self) -> ActorCell {
        match self.core.actor.get() {
            Some(actor) => actor.get_cell(),
            None => unreachable!("a reference is made from a spawned actor"),
        }
    }

    /// Releases unused capacity when there is more than `factor` times what is needed. Returns the bytes released.
    pub fn compact(&self, factor: usize) -> usize {
        match &self.core.queue {
            Queue::Own(mailbox) => mailbox.compact(factor),
            // ractor frees its own queue as it is emptied.
            Queue::Ractor { .. } => 0,
        }
    }

    /// A message that does not fit.
    fn over(&self, message: M, refused: Refused, bytes: u64) -> Result<Sent, SendError<M>> {
        if self.core.overflow != Overflow::DropNewest {
            return Err(self.full(message, refused, bytes));
        }
        self.core.dropped_newest.fetch_add(1, Ordering::Relaxed);
        Ok(Sent::Dropped)
    }

    fn full(&self, message: M, refused: Refused, wanted: u64) -> SendError<M> {
        self.core.refused.fetch_add(1, Ordering::Relaxed);
        let Refused { scarce, used, limit } = refused;
        let overload = match scarce {
            Scarce::Bytes => Overload::Bytes { held: used.bytes, limit: limit.bytes, wanted },
            Scarce::Queue => Overload::Queue { limit: self.core.waiting },
            Scarce::Waiters => Overload::Waiting,
            _ => Overload::InFlight { in_flight: used.count, limit: limit.count },
        };
        SendError::Full(overload, message)
    }
}

/// Counts a message that has its credit from the gate; which number it has.
fn counted(occupancy: &Occupancy<WAYS>) -> u64 {
    occupancy.enter(u64::MAX).unwrap_or_default()
}

/// A place among the senders that wait; given up when dropped.
struct Waiting<'a> {
    gate: &'a PermitGate<Waker>,
    place: Option<Place>,
}

impl Waiting<'_> {
    /// Waits until there is room. The credit then belongs to the caller of this.
    async fn room(mut self) {
        poll_fn(|cx| {
            let Some(place) = self.place else { return Poll::Ready(()) };
            let granted =
                self.gate.claim(place, |old| if old.will_wake(cx.waker()) { old } else { cx.waker().clone() });
            if granted {
                self.place = None;
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.gate.cancel(place, Waker::wake);
        }
    }
}

impl<M: Send + 'static> Bounded<M> {
    /// A sender of the mailbox that this came from: for an actor that sends to itself, or hands out its address.
    pub fn sender(&self) -> BoundedRef<M> {
        BoundedRef { core: Arc::clone(&self.core) }
    }
}

impl<M> Clone for BoundedRef<M> {
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core) }
    }
}

impl<M> fmt::Debug for BoundedRef<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundedRef").field("traffic", &self.core.traffic().0).finish_non_exhaustive()
    }
}

impl<M: Send + 'static> From<(BoundedRef<M>, JoinHandle<()>)> for Child {
    fn from((sender, ended): (BoundedRef<M>, JoinHandle<()>)) -> Self {
        Child::new(sender.actor(), ended).inspect(sender.core.clone()).value(sender)
    }
}

//! The queue of a bounded mailbox: messages with their credits.
//!
//! A message gets in with a credit of a [`PermitGate`], in messages and in bytes, and the credit goes back with it when it
//! is taken, or dropped, or the mailbox closes. Both happen under the queue's lock, as all counting does, so that
//! `sent = taken + dropped + queued` holds in every reading and credits are those of the messages queued. Only a sender
//! that had to wait holds its credit for a moment before its message is in.

use std::collections::VecDeque;
use std::fmt;

use crate::permits::{Load, PermitGate, Refused, Scarce};
use crate::sync::{Mutex, lock};

/// What went through a mailbox. `sent = taken + dropped_oldest + dropped_unserved + returned + queued`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Messages that were put in.
    pub sent: u64,
    /// Messages that the actor took.
    pub taken: u64,
    /// Messages that made room for newer ones.
    pub dropped_oldest: u64,
    /// Messages that were in it when its actor ended.
    pub dropped_unserved: u64,
    /// Messages that were taken back by their senders, because their actor had ended.
    pub returned: u64,
    /// Messages in it now.
    pub queued: u64,
    /// The most that were in it at one time.
    pub high_water: u64,
}

/// Why a message leaves the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaves {
    /// The actor takes it.
    Taken,
    /// To make room.
    Oldest,
    /// The actor has ended.
    Unserved,
}

/// The messages of one actor, each with a credit of `gate`; senders wait with waiters `W`.
pub struct Mailbox<M, W> {
    /// The credits.
    pub gate: PermitGate<W>,
    queue: Mutex<Queue<M>>,
}

struct Queue<M> {
    messages: VecDeque<Entry<M>>,
    traffic: Traffic,
    /// How many announcements the actor has not handled yet; never fewer than messages, except in the middle of a send.
    announced: usize,
    closed: bool,
}

struct Entry<M> {
    message: M,
    bytes: u64,
    ticket: Ticket,
}

/// Identifies a queued message for its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// A message is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Put {
    /// Its name.
    pub ticket: Ticket,
    /// The actor must be notified of one more message. Not so when it has not come yet for one that was dropped meanwhile:
    /// it will find this one in its place.
    pub announce: bool,
}

/// Why a message did not get in; it comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum NotSent<M> {
    /// The mailbox has closed.
    Closed(M),
    /// No credit.
    Full(M, Refused),
}

impl<M> fmt::Debug for NotSent<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(_) => f.write_str("Closed"),
            Self::Full(_, refused) => f.debug_tuple("Full").field(refused).finish(),
        }
    }
}

impl<M, W> Mailbox<M, W> {
    /// An open mailbox for at most `limit`, where at most `waiting` senders wait.
    pub fn new(limit: Load, waiting: u32) -> Self {
        let queue = Queue { messages: VecDeque::new(), traffic: Traffic::default(), announced: 0, closed: false };
        Self { gate: PermitGate::new(limit, waiting), queue: Mutex::new(queue) }
    }

    /// Puts a message in, for a credit of `bytes` that the sender holds already.
    ///
    /// # Errors
    /// [`NotSent::Closed`]; the credit has been returned then.
    pub fn push(&self, message: M, bytes: u64, wake: impl FnMut(W)) -> Result<Put, NotSent<M>> {
        let mut queue = lock(&self.queue);
        if queue.closed {
            drop(queue);
            self.gate.release(bytes, wake);
            return Err(NotSent::Closed(message));
        }
        Ok(queue.put(message, bytes))
    }

    /// Puts a message in if there is a credit of `bytes` for it.
    ///
    /// # Errors
    /// [`NotSent`].
    pub fn offer(&self, message: M, bytes: u64) -> Result<Put, NotSent<M>> {
        let mut queue = lock(&self.queue);
        if queue.closed {
            return Err(NotSent::Closed(message));
        }
        match self.gate.try_acquire(bytes) {
            Ok(()) => Ok(queue.put(message, bytes)),
            Err(refused) => Err(NotSent::Full(message, refused)),
        }
    }

    /// Puts a message in and drops as many of the oldest as that takes; those come back.
    ///
    /// # Errors
    /// [`NotSent::Full`] when the message would not even fit alone, and then none is dropped; and [`NotSent::Closed`].
    pub fn offer_dropping(&self, message: M, bytes: u64, wake: impl FnMut(W)) -> Result<(Put, Vec<M>), NotSent<M>> {
        let (mut woken, mut dropped) = (Vec::new(), Vec::new());
        let result = {
            let mut queue = lock(&self.queue);
            if queue.closed {
                return Err(NotSent::Closed(message));
            }
            let limit = self.gate.limit();
            if bytes > limit.bytes {
                // However many made room for it: they stay.
                let refused = Refused { scarce: Scarce::Bytes, used: self.gate.used(), limit };
                return Err(NotSent::Full(message, refused));
            }
            loop {
                match self.gate.try_acquire(bytes) {
                    Ok(()) => {
                        break Ok((queue.put(message, bytes), dropped));
                    }
                    Err(refused) => match queue.get(Leaves::Oldest) {
                        Some((oldest, bytes)) => {
                            // Released under the lock: a message and its credit leave together.
                            self.gate.release(bytes, |waiter| woken.push(waiter));
                            dropped.push(oldest);
                        }
                        None => break Err(NotSent::Full(message, refused)),
                    },
                }
            }
        };
        woken.into_iter().for_each(wake);
        result
    }

    /// Takes the first message out and returns its credit, once for each announcement.
    pub fn pop(&self, why: Leaves, wake: impl FnMut(W)) -> Option<M> {
        let mut woken = Vec::new();
        let message = {
            let mut queue = lock(&self.queue);
            let (message, bytes) = queue.get(why)?;
            self.gate.release(bytes, |waiter| woken.push(waiter));
            message
        };
        woken.into_iter().for_each(wake);
        Some(message)
    }

    /// Takes a message back whose announcement did not arrive, so that the actor will not take it. If it was dropped for a
    /// newer one meanwhile, the newest message is the one without an announcement: that one is taken back in its place.
    pub fn retract(&self, ticket: Ticket, wake: impl FnMut(W)) -> Option<M> {
        let mut woken = Vec::new();
        let (mine, message) = {
            let mut queue = lock(&self.queue);
            queue.announced = queue.announced.saturating_sub(1);
            let at = queue.messages.binary_search_by_key(&ticket, |entry| entry.ticket);
            let entry = match at {
                Ok(at) => queue.messages.remove(at),
                Err(_) => queue.messages.pop_back(),
            }?;
            let traffic = &mut queue.traffic;
            traffic.queued -= 1;
            if at.is_ok() {
                traffic.returned += 1;
            } else {
                traffic.dropped_unserved += 1;
            }
            self.gate.release(entry.bytes, |waiter| woken.push(waiter));
            (at.is_ok(), entry.message)
        };
        woken.into_iter().for_each(wake);
        mine.then_some(message)
    }

    /// Takes no more messages, and drops those in it.
    pub fn close(&self, mut wake: impl FnMut(W)) -> Vec<M> {
        lock(&self.queue).closed = true;
        std::iter::from_fn(|| self.pop(Leaves::Unserved, &mut wake)).collect()
    }

    /// Whether it takes no more messages.
    pub fn is_closed(&self) -> bool {
        lock(&self.queue).closed
    }

    /// What went through it.
    pub fn traffic(&self) -> Traffic {
        lock(&self.queue).traffic
    }

    /// Releases unused capacity when there is more than `factor` times what is needed. Returns the bytes released.
    pub fn compact(&self, factor: usize) -> usize {
        let mut queue = lock(&self.queue);
        let before = queue.messages.capacity();
        if before > factor.saturating_mul(queue.messages.len().max(1)) {
            queue.messages.shrink_to_fit();
        }
        (before - queue.messages.capacity()) * size_of::<Entry<M>>()
    }
}

impl<M> Queue<M> {
    fn put(&mut self, message: M, bytes: u64) -> Put {
        let ticket = Ticket(self.traffic.sent);
        self.messages.push_back(Entry { message, bytes, ticket });
        let queued = self.messages.len() as u64;
        self.traffic.sent += 1;
        self.traffic.queued = queued;
        self.traffic.high_water = self.traffic.high_water.max(queued);
        let announce = self.announced < self.messages.len();
        self.announced += usize::from(announce);
        Put { ticket, announce }
    }

    fn get(&mut self, why: Leaves) -> Option<(M, u64)> {
        if why != Leaves::Oldest {
            self.announced = self.announced.saturating_sub(1);
        }
        let Entry { message, bytes, .. } = self.messages.pop_front()?;
        let traffic = &mut self.traffic;
        traffic.queued -= 1;
        match why {
            Leaves::Taken => traffic.taken += 1,
            Leaves::Oldest => traffic.dropped_oldest += 1,
            Leaves::Unserved => traffic.dropped_unserved += 1,
        }
        Some((message, bytes))
    }
}

impl<M, W> fmt::Debug for Mailbox<M, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("gate", &self.gate).field("traffic", &self.traffic()).finish()
    }
}

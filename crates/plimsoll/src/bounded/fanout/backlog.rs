//! The messages that wait for one subscriber, and when there are too many.
//!
//! A plain value that takes the time as an argument; [`Fanout`](super::Fanout) holds one per subscriber behind a lock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

/// What a waiting message weighs beyond its payload: its place in the queue, which doubles when it grows.
pub(crate) const MESSAGE_OVERHEAD: usize = 2 * size_of::<Bytes>();

/// A drained queue with capacity for more messages than this releases its storage.
const KEPT_MESSAGES: usize = 32;

/// When a subscriber is too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BacklogLimits {
    /// More bytes than this: disconnected at once.
    pub(crate) hard: usize,
    /// More bytes than this for longer than `patience`: disconnected.
    pub(crate) soft: usize,
    /// Also the longest time in which a subscriber with a waiting message may take none.
    pub(crate) patience: Duration,
}

/// Why a subscriber was disconnected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Disconnected {
    /// The next message would have taken its backlog over its limit.
    #[error("backlog of {bytes} bytes is over the limit of {limit}")]
    BacklogFull {
        /// The backlog with that message, in bytes.
        bytes: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// Its backlog stayed over half of its limit for too long.
    #[error("backlog of {bytes} bytes stayed over {limit} for {over_for:?}")]
    TooSlow {
        /// The backlog, in bytes.
        bytes: usize,
        /// Half of the limit, in bytes.
        limit: usize,
        /// For how long the backlog had been over it.
        over_for: Duration,
    },
    /// It took no message for too long although one was waiting.
    #[error("no message of a backlog of {bytes} bytes was taken for {stalled_for:?}")]
    Stalled {
        /// The backlog, in bytes.
        bytes: usize,
        /// For how long no message had been taken.
        stalled_for: Duration,
    },
    /// All backlogs together were over their budget, and this consumer held the most.
    #[error("all backlogs together are over {budget} bytes; this consumer held the most, {bytes}")]
    OverBudget {
        /// What the consumer held in all its subscriptions, in bytes.
        bytes: usize,
        /// The cap of the budget, in bytes.
        budget: u64,
    },
    /// The fanout was closed.
    #[error("closed by the publisher")]
    Closed,
}

/// The messages that wait for one subscriber.
#[derive(Debug)]
pub(crate) struct Backlog {
    limits: BacklogLimits,
    waiting: VecDeque<Bytes>,
    bytes: usize,
    over_soft_since: Option<Instant>,
    /// Whether a message was taken since `progress_at`.
    taken: bool,
    /// When a check last found progress, or the first message came into an empty queue.
    progress_at: Option<Instant>,
}

impl Backlog {
    pub(crate) fn new(limits: BacklogLimits) -> Self {
        Self { limits, waiting: VecDeque::new(), bytes: 0, over_soft_since: None, taken: false, progress_at: None }
    }

    /// Queues `message`, or returns why its subscriber has to be disconnected; the message is not queued then.
    pub(crate) fn push(&mut self, message: Bytes, now: Instant) -> Result<(), Disconnected> {
        let bytes = self.bytes + weight(&message);
        if bytes > self.limits.hard {
            return Err(Disconnected::BacklogFull { bytes, limit: self.limits.hard });
        }
        self.check(now)?;
        if self.waiting.is_empty() {
            (self.taken, self.progress_at) = (false, Some(now));
        }
        self.waiting.push_back(message);
        self.bytes = bytes;
        if bytes > self.limits.soft && self.over_soft_since.is_none() {
            self.over_soft_since = Some(now);
        }
        Ok(())
    }

    /// Takes the oldest message.
    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        let message = self.waiting.pop_front()?;
        self.taken = true;
        self.bytes -= weight(&message);
        if self.bytes <= self.limits.soft {
            self.over_soft_since = None;
        }
        if self.waiting.is_empty() && self.waiting.capacity() > KEPT_MESSAGES {
            self.waiting = VecDeque::new();
        }
        Some(message)
    }

    /// Whether the subscriber has been over the soft limit, or without progress, for longer than it may.
    ///
    /// A message taken counts from the next check on, so that taking one needs no clock: a subscriber is disconnected
    /// between `patience` and `patience` plus the time between two checks after it stalled.
    pub(crate) fn check(&mut self, now: Instant) -> Result<(), Disconnected> {
        let patience = self.limits.patience;
        let since = |then: Option<Instant>| then.map_or(Duration::ZERO, |then| now.saturating_duration_since(then));
        let over_for = since(self.over_soft_since);
        if over_for > patience {
            return Err(Disconnected::TooSlow { bytes: self.bytes, limit: self.limits.soft, over_for });
        }
        if self.waiting.is_empty() {
            return Ok(());
        }
        if std::mem::take(&mut self.taken) {
            self.progress_at = Some(now);
        }
        let stalled_for = since(self.progress_at);
        if stalled_for > patience {
            return Err(Disconnected::Stalled { bytes: self.bytes, stalled_for });
        }
        Ok(())
    }

    /// Drops what waits, and its storage.
    pub(crate) fn clear(&mut self) {
        self.waiting = VecDeque::new();
        self.bytes = 0;
        self.over_soft_since = None;
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Bytes that the queue itself has allocated, without payloads.
    pub(crate) fn storage(&self) -> usize {
        self.waiting.capacity() * size_of::<Bytes>()
    }
}

/// What `message` counts for against a backlog.
pub(crate) fn weight(message: &Bytes) -> usize {
    message.len() + MESSAGE_OVERHEAD
}

//! What one subscriber has not taken yet, and when that is too much.
//!
//! A plain value that takes the time as an argument; [`Fanout`](super::Fanout) holds one a subscriber behind a lock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

/// What a waiting message weighs beyond its payload: its place in the queue, which doubles when it grows.
pub(crate) const MESSAGE_OVERHEAD: usize = 2 * size_of::<Bytes>();

/// A drained queue with room for more messages than this gives its room back.
const KEPT_MESSAGES: usize = 32;

/// When a subscriber is too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BacklogLimits {
    /// More bytes than this: cut off at once. Default 1 MiB. Each message weighs its payload and 64 bytes.
    pub hard: usize,
    /// More bytes than this for longer than `patience`: cut off. Default half of `hard`.
    pub soft: usize,
    /// Default 5 s.
    pub patience: Duration,
}

/// Why a subscriber was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum CutOff {
    /// The next message would have taken its backlog over the hard limit.
    #[error("backlog of {bytes} bytes is over the limit of {limit}")]
    Hard {
        /// The backlog with that message, in bytes.
        bytes: usize,
        /// The hard limit.
        limit: usize,
    },
    /// Its backlog stayed over the soft limit for too long.
    #[error("backlog of {bytes} bytes stayed over {limit} for {held:?}")]
    Soft {
        /// The backlog, in bytes.
        bytes: usize,
        /// The soft limit.
        limit: usize,
        /// For how long it had been over it.
        held: Duration,
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
}

impl Backlog {
    pub(crate) fn new(limits: BacklogLimits) -> Self {
        Self { limits, waiting: VecDeque::new(), bytes: 0, over_soft_since: None }
    }

    /// Queues `message`, or says why its subscriber has to go; the message is not queued then.
    pub(crate) fn push(&mut self, message: Bytes, now: Instant) -> Result<(), CutOff> {
        let bytes = self.bytes + weight(&message);
        if bytes > self.limits.hard {
            return Err(CutOff::Hard { bytes, limit: self.limits.hard });
        }
        self.check(now)?;
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
        self.bytes -= weight(&message);
        if self.bytes <= self.limits.soft {
            self.over_soft_since = None;
        }
        if self.waiting.is_empty() && self.waiting.capacity() > KEPT_MESSAGES {
            self.waiting = VecDeque::new();
        }
        Some(message)
    }

    /// Whether the backlog has been over the soft limit for longer than it may.
    pub(crate) fn check(&self, now: Instant) -> Result<(), CutOff> {
        let Some(since) = self.over_soft_since else { return Ok(()) };
        let held = now.saturating_duration_since(since);
        if held <= self.limits.patience {
            return Ok(());
        }
        Err(CutOff::Soft { bytes: self.bytes, limit: self.limits.soft, held })
    }

    /// Drops what waits, and its room.
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
}

/// What `message` counts for against a backlog.
pub(crate) fn weight(message: &Bytes) -> usize {
    message.len() + MESSAGE_OVERHEAD
}

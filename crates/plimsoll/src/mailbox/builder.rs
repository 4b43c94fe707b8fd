//! Starting an actor with a bounded mailbox.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use plimsoll_sync::level_cell::LevelCell;
use plimsoll_sync::mailbox::Mailbox;
use plimsoll_sync::occupancy::Occupancy;
use plimsoll_sync::permits::{Load, MAX_BYTES, MAX_COUNT, PermitGate};
use ractor::concurrency::JoinHandle;
use ractor::{Actor, ActorCell, ActorName, SpawnErr};

use super::delivery::{Core, Queue, Weigh};
use super::waiting_time::WaitingTimes;
use super::{Bounded, BoundedRef, Overflow};

/// The limits of a mailbox, and the only way to start an actor that has one.
/// ```
/// use plimsoll::mailbox::{MailboxBuilder, Overflow};
///
/// // At most 100 lines of 64 KiB together; a sender waits for room, 16 of them at most.
/// let mailbox = MailboxBuilder::messages(100)
///     .bytes(65_536, |line: &String| line.len() as u64)
///     .overflow(Overflow::Wait)
///     .waiting(16);
/// # drop(mailbox);
/// ```
#[must_use = "a mailbox exists once its actor is spawned"]
pub struct MailboxBuilder<M> {
    limit: Load,
    overflow: Overflow,
    waiting: u32,
    weigh: Option<Weigh<M>>,
}

impl<M: Send + 'static> MailboxBuilder<M> {
    /// At most `count` messages (at least one, at most 8,388,607), not weighed; those over it are rejected.
    pub fn messages(count: u32) -> Self {
        let limit = Load { count: count.clamp(1, MAX_COUNT), bytes: MAX_BYTES };
        Self { limit, overflow: Overflow::Reject, waiting: 1_024, weigh: None }
    }

    /// At most `bytes` in all messages together, as `weigh` returns them. Default: messages are not weighed.
    pub fn bytes(mut self, bytes: u64, weigh: impl Fn(&M) -> u64 + Send + Sync + 'static) -> Self {
        self.limit.bytes = bytes.min(MAX_BYTES);
        self.weigh = Some(Box::new(weigh));
        self
    }

    /// What happens to a message that does not fit. Default: [`Overflow::Reject`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// How many senders may wait under [`Overflow::Wait`]; those over it are rejected. Default: 1,024.
    pub fn waiting(mut self, senders: u32) -> Self {
        self.waiting = senders;
        self
    }

    /// Starts `actor`, unlinked.
    ///
    /// # Errors
    /// ractor's, as of [`Actor::spawn`].
    ///
    /// Cancel safe: as ractor's own.
    pub async fn spawn<A: Actor<Msg = Bounded<M>>>(
        self,
        name: Option<ActorName>,
        actor: A,
        args: A::Arguments,
    ) -> Result<(BoundedRef<M>, JoinHandle<()>), SpawnErr> {
        let core = self.core();
        let (actor, ended) = A::spawn(name, actor, args).await?;
        core.started(actor, &ended);
        Ok((BoundedRef { core }, ended))
    }

    /// Starts `actor` as a child of `parent`.
    ///
    /// # Errors
    /// ractor's, as of [`Actor::spawn_linked`].
    ///
    /// Cancel safe: as ractor's own.
    pub async fn spawn_linked<A: Actor<Msg = Bounded<M>>>(
        self,
        name: Option<ActorName>,
        actor: A,
        args: A::Arguments,
        parent: ActorCell,
    ) -> Result<(BoundedRef<M>, JoinHandle<()>), SpawnErr> {
        let core = self.core();
        let (actor, ended) = A::spawn_linked(name, actor, args, parent).await?;
        core.started(actor, &ended);
        Ok((BoundedRef { core }, ended))
    }

    fn core(self) -> Arc<Core<M>> {
        let waiting = if self.overflow == Overflow::Wait { self.waiting } else { 0 };
        let queue = match self.overflow {
            Overflow::DropOldest => Queue::Own(Mailbox::new(self.limit, 0)),
            overflow => {
                let gated = overflow == Overflow::Wait || self.weigh.is_some();
                Queue::Ractor { occupancy: Occupancy::new(), gate: gated.then(|| PermitGate::new(self.limit, waiting)) }
            }
        };
        Arc::new(Core {
            queue,
            waiting_times: WaitingTimes::default(),
            task: OnceLock::new(),
            actor: OnceLock::new(),
            level: LevelCell::new(0),
            overflow: self.overflow,
            limit: self.limit,
            waiting,
            weigh: self.weigh,
            refused: AtomicU64::new(0),
            dropped_newest: AtomicU64::new(0),
        })
    }
}

impl<M> fmt::Debug for MailboxBuilder<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailboxBuilder")
            .field("limit", &self.limit)
            .field("overflow", &self.overflow)
            .finish_non_exhaustive()
    }
}

//! One message to many subscribers, none of whom can hold up the others or the publisher.
//!
//! A message is encoded once; every subscriber's queue holds a reference to the same bytes. Publishing never waits: it
//! puts the reference into each queue, one short lock a subscriber, and wakes the readers after the last one. A
//! subscriber whose queue is over its limit is taken out of the table in that same step, its queue is dropped, and it is
//! woken to be told why.

use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use plimsoll_sync::slots::{SlotKey, Slots};

use super::{ByteCap, Cap, Compact, CompactPolicy, Compacted, Counters, Footprint, events};
use crate::inspect::{Details, Inspect};

mod backlog;
mod slot;
mod subscription;

pub use backlog::{BacklogLimits, CutOff};
pub use slot::Delivery;
pub use subscription::Subscription;

use backlog::weight;
use slot::{Offered, Slot};

/// A list of wakers with room for more than this gives its room back after the publish.
const KEPT_WAKERS: usize = 1024;

/// The limits of a [`Fanout`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FanoutCaps {
    /// Subscribers; default 10,000.
    pub subscribers: Cap,
    /// What may wait for one subscriber before it is cut off; default 1 MiB. A message weighs its payload and 64 bytes.
    pub backlog: ByteCap,
    /// For how long more than half of that may wait; default 5 s.
    pub patience: Duration,
}

impl Default for FanoutCaps {
    fn default() -> Self {
        Self {
            subscribers: Cap::of::<10_000>(),
            backlog: ByteCap::of::<{ 1 << 20 }>(),
            patience: Duration::from_secs(5),
        }
    }
}

events! {
    /// What a [`Fanout`] counts.
    pub enum FanoutEvent {
        /// A message was published.
        Published = "published",
        /// A message was queued for a subscriber.
        Queued = "queued",
        /// A viewer's message was replaced by a newer one before it was taken.
        Replaced = "replaced",
        /// A subscriber was cut off at the hard limit.
        CutOffHard = "cut_off_hard",
        /// A subscriber was cut off for staying over the soft limit.
        CutOffSoft = "cut_off_soft",
        /// A subscription was refused: the table is full.
        RefusedFull = "refused_full",
        /// A message was refused: it alone is over the backlog limit.
        RefusedTooLarge = "refused_too_large",
    }
}

/// Why a subscription was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// There are as many subscribers as there may be.
    #[error("all {cap} subscriptions are taken")]
    Full {
        /// The cap.
        cap: usize,
    },
    /// The fanout is closed.
    #[error("closed by the publisher")]
    Closed,
}

/// A message that weighs more than the whole backlog of a subscriber may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message of {weight} bytes is over the backlog limit of {limit}")]
pub struct MessageTooLarge {
    /// What it weighs.
    pub weight: usize,
    /// The hard limit.
    pub limit: usize,
}

/// What became of a published message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Published {
    /// Subscribers that have it in their queue.
    pub reached: usize,
    /// Subscribers that were cut off instead.
    pub cut_off: usize,
}

/// The publisher's side. Cloning shares it; when the last clone goes, every subscription ends with [`CutOff::Closed`].
///
/// All subscribers see the messages in the same order, also when several tasks publish.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use plimsoll::bounded::{CutOff, Delivery, Fanout, FanoutCaps};
///
/// let fanout = Fanout::new("prices", FanoutCaps::default());
/// let mut all = fanout.subscribe(Delivery::Every)?;
/// let mut viewer = fanout.subscribe(Delivery::Latest)?;
/// for price in ["1.00", "1.01"] {
///     fanout.publish(price.into())?;
/// }
/// assert_eq!(all.next().await.unwrap()?, "1.00");
/// assert_eq!(all.next().await.unwrap()?, "1.01");
/// assert_eq!(viewer.next().await.unwrap()?, "1.01");
/// drop(fanout);
/// assert_eq!(all.next().await, Some(Err(CutOff::Closed)));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Fanout {
    open: Arc<Open>,
}

/// Closes the table with the last publisher.
#[derive(Debug)]
struct Open {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limits: BacklogLimits,
    table: Mutex<Table>,
    wakers: Mutex<Vec<Waker>>,
    counters: Counters<FanoutEvent>,
}

#[derive(Debug)]
struct Table {
    slots: Slots<Arc<Slot>>,
    closed: bool,
}

impl Fanout {
    /// A fanout called `name`, without subscribers.
    pub fn new(name: &str, caps: FanoutCaps) -> Self {
        let hard = usize::try_from(caps.backlog.get()).unwrap_or(usize::MAX);
        let shared = Shared {
            limits: BacklogLimits { hard, soft: hard / 2, patience: caps.patience },
            table: Mutex::new(Table { slots: Slots::with_limit(caps.subscribers.slots()), closed: false }),
            wakers: Mutex::new(Vec::new()),
            counters: Counters::new(name, caps.subscribers),
        };
        Self { open: Arc::new(Open { shared: Arc::new(shared) }) }
    }

    /// Adds a subscriber, which gets what is published from now on.
    ///
    /// # Errors
    /// [`SubscribeError`]: the table is full, or the fanout closed.
    pub fn subscribe(&self, delivery: Delivery) -> Result<Subscription, SubscribeError> {
        let shared = &self.open.shared;
        let slot = Arc::new(Slot::new(delivery, shared.limits));
        let mut table = shared.table.lock();
        if table.closed {
            return Err(SubscribeError::Closed);
        }
        let Ok(key) = table.slots.insert(slot.clone()) else {
            shared.counters.count(FanoutEvent::RefusedFull);
            return Err(SubscribeError::Full { cap: table.slots.limit() as usize });
        };
        shared.show(&table);
        Ok(Subscription::new(slot, key, shared.clone()))
    }

    /// Publishes a message, which must have its final form: every subscriber gets a reference to these bytes.
    ///
    /// Takes O(subscribers) and never waits for one.
    ///
    /// # Errors
    /// [`MessageTooLarge`] when not even an empty queue could take it.
    pub fn publish(&self, message: Bytes) -> Result<Published, MessageTooLarge> {
        self.publish_at(message, now())
    }

    /// Publishes what `encode` makes, which is called once if there is a subscriber and not at all if there is none.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub fn publish_with(&self, encode: impl FnOnce() -> Bytes) -> Result<Published, MessageTooLarge> {
        if self.is_empty() {
            return Ok(Published::default());
        }
        self.publish(encode())
    }

    /// [`publish`](Self::publish) at a given time.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub fn publish_at(&self, message: Bytes, now: Instant) -> Result<Published, MessageTooLarge> {
        let shared = &*self.open.shared;
        let (weight, limit) = (weight(&message), shared.limits.hard);
        if weight > limit {
            shared.counters.count(FanoutEvent::RefusedTooLarge);
            return Err(MessageTooLarge { weight, limit });
        }
        shared.counters.count(FanoutEvent::Published);
        let mut published = Published::default();
        shared.visit(|slot, wakers| {
            let offered = slot.offer(&message, now, wakers);
            match offered {
                Offered::Queued => published.reached += 1,
                Offered::Replaced => {
                    published.reached += 1;
                    shared.counters.count(FanoutEvent::Replaced);
                }
                Offered::CutOff(_) => published.cut_off += 1,
            }
            if let Offered::CutOff(reason) = offered { Err(reason) } else { Ok(()) }
        });
        shared.counters.count_many(FanoutEvent::Queued, published.reached as u64);
        Ok(published)
    }

    /// Cuts off whoever has been over the soft limit for too long although nothing is published; how many.
    ///
    /// For the owner's own tick: without it a stalled subscriber of a quiet topic keeps its backlog until the next
    /// message.
    pub fn sweep(&self) -> usize {
        self.sweep_at(now())
    }

    /// [`sweep`](Self::sweep) at a given time.
    pub fn sweep_at(&self, now: Instant) -> usize {
        self.open.shared.visit(|slot, wakers| slot.check(now, wakers))
    }

    /// Ends every subscription: each gets what is in its queue and then [`CutOff::Closed`].
    pub fn close(&self) {
        self.open.shared.close();
    }

    /// Subscribers now.
    pub fn len(&self) -> usize {
        self.open.shared.table.lock().slots.len()
    }

    /// Whether nobody subscribes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that wait, over all subscribers; each shared payload counts as often as it waits. O(subscribers).
    pub fn backlog(&self) -> usize {
        self.open.shared.backlogs().map(|(bytes, _)| bytes).sum()
    }

    /// The counters.
    pub fn counters(&self) -> &Counters<FanoutEvent> {
        &self.open.shared.counters
    }
}

impl Shared {
    /// Visits every slot, takes out those that are cut off, and wakes whoever has to know. How many were cut off.
    fn visit(&self, mut visit: impl FnMut(&Slot, &mut Vec<Waker>) -> Result<(), CutOff>) -> usize {
        let mut wakers = std::mem::take(&mut *self.wakers.lock());
        let mut gone = Vec::new();
        let mut table = self.table.lock();
        for (key, slot) in table.slots.iter() {
            if let Err(reason) = visit(slot, &mut wakers) {
                gone.push(key);
                self.counters.count(match reason {
                    CutOff::Soft { .. } => FanoutEvent::CutOffSoft,
                    CutOff::Hard { .. } | CutOff::Closed => FanoutEvent::CutOffHard,
                });
            }
        }
        let cut_off: Vec<_> = gone.into_iter().map(|key| table.slots.remove(key)).collect();
        if !cut_off.is_empty() {
            self.show(&table);
        }
        drop(table);
        self.wake(wakers);
        cut_off.len()
    }

    fn close(&self) {
        let mut wakers = Vec::new();
        let mut table = self.table.lock();
        table.closed = true;
        for (_, slot) in table.slots.drain() {
            slot.close(&mut wakers);
        }
        self.show(&table);
        drop(table);
        self.wake(wakers);
    }

    /// Wakes with no lock held: a waker may run code that comes back here.
    fn wake(&self, mut wakers: Vec<Waker>) {
        wakers.drain(..).for_each(Waker::wake);
        if wakers.capacity() <= KEPT_WAKERS {
            *self.wakers.lock() = wakers;
        }
    }

    /// Takes a subscriber out whose subscription is gone; nothing if it was cut off before.
    fn leave(&self, key: SlotKey) {
        let mut table = self.table.lock();
        let left = table.slots.remove(key);
        self.show(&table);
        drop(table);
        drop(left);
    }

    fn backlogs(&self) -> impl Iterator<Item = (usize, usize)> {
        let slots: Vec<_> = self.table.lock().slots.iter().map(|(_, slot)| slot.clone()).collect();
        slots.into_iter().map(|slot| slot.backlog())
    }

    fn show(&self, table: &Table) {
        self.counters.entries().set(table.slots.len() as u64);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Inspect for Fanout {
    fn inspect(&self) -> Details {
        let mut details = self.counters().inspect();
        let (bytes, messages) =
            self.open.shared.backlogs().fold((0, 0), |(bytes, messages), (b, m)| (bytes + b, messages + m));
        let name = self.counters().name();
        details.counters.insert(format!("{name}_backlog_bytes"), bytes as u64);
        details.counters.insert(format!("{name}_backlog_messages"), messages as u64);
        details
    }
}

impl Compact for Fanout {
    fn footprint(&self) -> Footprint {
        let table = self.open.shared.table.lock().slots.footprint();
        table.plus(self.open.shared.wakers.lock().footprint())
    }

    fn compact(&mut self, policy: &CompactPolicy) -> Compacted {
        let table = Compact::compact(&mut self.open.shared.table.lock().slots, policy);
        table.plus(self.open.shared.wakers.lock().compact(policy))
    }
}

/// Tokio's clock, so that paused time pauses this too.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

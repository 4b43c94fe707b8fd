//! One message to many subscribers, none of which can delay the others or the publisher.
//!
//! A message is encoded once; every subscriber's queue holds a reference to the same bytes. Publishing never waits: it puts
//! the reference into each queue, with one short lock per subscriber, and wakes the readers after the last one. A
//! subscriber that is too slow is removed from the table in the same step, its queue is dropped, and its reader is woken
//! with the reason. What waits in all queues together is bounded by a [`BacklogBudget`].

use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use plimsoll_sync::slots::{SlotKey, Slots};

use super::time::now;
use super::{ByteCap, Cap, Compact, CompactPolicy, Compacted, Counters, Footprint, events};
use crate::inspect::{Details, Inspect, Metric};

mod backlog;
mod budget;
mod reservation;
mod subscriber;
mod subscription;

pub use backlog::Disconnected;
pub use budget::{BacklogBudget, Consumer};
pub use reservation::BacklogEvent;
pub use subscriber::Delivery;
pub use subscription::Subscription;

use backlog::{BacklogLimits, weight};
use subscriber::{Offered, Subscriber};

/// A list of wakers with capacity for more than this releases its storage after the publish.
const KEPT_WAKERS: usize = 1024;

/// The limits of a [`Fanout`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FanoutCaps {
    /// Subscribers; default 10,000.
    pub subscribers: Cap,
    /// What may wait for one subscriber before it is disconnected; default 1 MiB. A message weighs its payload and 64 bytes.
    pub backlog: ByteCap,
    /// For how long more than half of that may wait, and for how long a subscriber may take no message while one is waiting;
    /// default 5 s.
    pub patience: Duration,
    /// Bytes in all backlogs together, each payload counted once; default 64 MiB. Fanouts that share a [`BacklogBudget`] have
    /// the budget's cap instead.
    pub total: ByteCap,
}

impl Default for FanoutCaps {
    fn default() -> Self {
        Self {
            subscribers: Cap::of::<10_000>(),
            backlog: ByteCap::of::<{ 1 << 20 }>(),
            patience: Duration::from_secs(5),
            total: ByteCap::of::<{ 64 << 20 }>(),
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
        /// A message was replaced by a newer one before its subscriber took it ([`Delivery::Latest`]).
        Replaced = "replaced",
        /// [`Disconnected::BacklogFull`].
        DisconnectedBacklogFull = "disconnected_backlog_full",
        /// [`Disconnected::TooSlow`].
        DisconnectedTooSlow = "disconnected_too_slow",
        /// [`Disconnected::Stalled`].
        DisconnectedStalled = "disconnected_stalled",
        /// [`Disconnected::OverBudget`].
        DisconnectedOverBudget = "disconnected_over_budget",
        /// A subscription was refused: the table is full.
        RefusedFull = "refused_full",
        /// A message was refused: it alone is over the backlog limit.
        RefusedTooLarge = "refused_too_large",
        /// A message was refused: it does not fit into the budget of all backlogs.
        RefusedBudget = "refused_budget",
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

/// Why a message was not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// It weighs more than the whole backlog of a subscriber may.
    #[error("a message of {weight} bytes is over the backlog limit of {limit}")]
    TooLarge {
        /// What the message weighs, in bytes.
        weight: usize,
        /// The backlog limit, in bytes.
        limit: usize,
    },
    /// It is larger than all backlogs together may be.
    #[error("a message of {bytes} bytes is over the budget of {budget} for all backlogs")]
    OverBudget {
        /// Its length in bytes.
        bytes: u64,
        /// The cap of the budget, in bytes.
        budget: u64,
    },
    /// It does not fit into the budget until readers that were disconnected have dropped what they hold. Try again later.
    #[error("a message of {bytes} bytes does not fit: {used} of {budget} bytes for backlogs are in use")]
    BudgetFull {
        /// Its length in bytes.
        bytes: u64,
        /// Bytes in use.
        used: u64,
        /// The cap of the budget, in bytes.
        budget: u64,
    },
}

/// What happened to a published message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Published {
    /// Subscribers that have it in their queue.
    pub reached: usize,
    /// Subscribers that were disconnected instead, for their own backlog.
    pub disconnected: usize,
}

/// The publisher's side. Cloning shares it; when the last clone is dropped, every subscription ends with
/// [`Disconnected::Closed`].
///
/// All subscribers receive the messages in the same order, also when several tasks publish.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use plimsoll::bounded::{Delivery, Disconnected, Fanout, FanoutCaps};
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
/// assert_eq!(all.next().await, Some(Err(Disconnected::Closed)));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Fanout {
    publisher: Arc<Publisher>,
}

/// Closes the table with the last publisher.
#[derive(Debug)]
struct Publisher {
    inner: Arc<FanoutInner>,
}

#[derive(Debug)]
struct FanoutInner {
    limits: BacklogLimits,
    table: Mutex<Table>,
    wakers: Mutex<Vec<Waker>>,
    budget: BacklogBudget,
    /// Whether the budget's figures are shown with this fanout's.
    owns_budget: bool,
    counters: Counters<FanoutEvent>,
}

#[derive(Debug)]
struct Table {
    subscribers: Slots<Entry>,
    closed: bool,
}

#[derive(Debug)]
struct Entry {
    subscriber: Arc<Subscriber>,
    /// Its key in the budget, once it is registered there.
    registered: Option<SlotKey>,
}

impl Fanout {
    /// A fanout called `name` without subscribers, with a budget of its own ([`FanoutCaps::total`]).
    pub fn new(name: &str, caps: FanoutCaps) -> Self {
        let budget = BacklogBudget::new(&format!("{name}_backlogs"), caps.subscribers, caps.total);
        Self::build(name, caps, budget, true)
    }

    /// A fanout called `name` without subscribers, whose backlogs count against `budget` together with those of the other
    /// fanouts that share it.
    pub fn sharing(name: &str, caps: FanoutCaps, budget: &BacklogBudget) -> Self {
        Self::build(name, caps, budget.clone(), false)
    }

    fn build(name: &str, caps: FanoutCaps, budget: BacklogBudget, owns_budget: bool) -> Self {
        let hard = usize::try_from(caps.backlog.get()).unwrap_or(usize::MAX);
        let inner = FanoutInner {
            limits: BacklogLimits { hard, soft: hard / 2, patience: caps.patience },
            table: Mutex::new(Table { subscribers: Slots::with_limit(caps.subscribers.slots()), closed: false }),
            wakers: Mutex::new(Vec::new()),
            budget,
            owns_budget,
            counters: Counters::new(name, caps.subscribers),
        };
        Self { publisher: Arc::new(Publisher { inner: Arc::new(inner) }) }
    }

    /// Adds a subscriber, a consumer of its own, which receives what is published from now on.
    ///
    /// # Errors
    /// [`SubscribeError`]: the table is full, or the fanout closed.
    pub fn subscribe(&self, delivery: Delivery) -> Result<Subscription, SubscribeError> {
        self.subscribe_as(&self.budget().consumer(), delivery)
    }

    /// Adds a subscriber of `consumer`, which must come from this fanout's budget.
    ///
    /// # Errors
    /// [`SubscribeError`]: the table or the budget's table is full, or the fanout closed.
    pub fn subscribe_as(&self, consumer: &Consumer, delivery: Delivery) -> Result<Subscription, SubscribeError> {
        let inner = &self.publisher.inner;
        let subscriber = Arc::new(Subscriber::new(delivery, inner.limits, inner.budget.bytes()));
        let key = {
            let mut table = inner.table.lock();
            if table.closed {
                return Err(SubscribeError::Closed);
            }
            let Ok(key) = table.subscribers.insert(Entry { subscriber: subscriber.clone(), registered: None }) else {
                inner.counters.count(FanoutEvent::RefusedFull);
                return Err(SubscribeError::Full { cap: table.subscribers.limit() as usize });
            };
            inner.update_gauge(&table);
            key
        };
        let Some(registered) = inner.budget.register(consumer, subscriber.clone(), inner, key) else {
            inner.leave(key);
            inner.counters.count(FanoutEvent::RefusedFull);
            let cap = inner.budget.counters().entries().read().cap;
            return Err(SubscribeError::Full { cap: usize::try_from(cap).unwrap_or(usize::MAX) });
        };
        // One that was disconnected before it was registered is deregistered when its subscription is dropped.
        if let Some(entry) = inner.table.lock().subscribers.get_mut(key) {
            entry.registered = Some(registered);
        }
        Ok(Subscription::new(subscriber, key, registered, inner.clone()))
    }

    /// Publishes a message, which must have its final form: every subscriber receives a reference to these bytes.
    ///
    /// Takes O(subscribers) and never waits for one. When the message does not fit into the budget of all backlogs, the
    /// consumers that hold the most are disconnected first, at a cost of O(all subscriptions of the budget) each.
    ///
    /// # Errors
    /// [`PublishError`]: not even an empty queue could take it, or it does not fit into the budget.
    pub fn publish(&self, message: Bytes) -> Result<Published, PublishError> {
        self.publish_at(message, now())
    }

    /// Publishes the message that `encode` returns. It is called once if there is a subscriber and not at all if there is
    /// none.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub fn publish_with(&self, encode: impl FnOnce() -> Bytes) -> Result<Published, PublishError> {
        if self.is_empty() {
            return Ok(Published::default());
        }
        self.publish(encode())
    }

    /// [`publish`](Self::publish) at a given time.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub fn publish_at(&self, message: Bytes, now: Instant) -> Result<Published, PublishError> {
        self.check_weight(&message)?;
        let inner = &*self.publisher.inner;
        if self.is_empty() {
            inner.counters.count(FanoutEvent::Published);
            return Ok(Published::default());
        }
        let reserved =
            inner.budget.reserve(message).inspect_err(|_| inner.counters.count(FanoutEvent::RefusedBudget))?;
        Ok(self.publish_reserved(&reserved, now))
    }

    fn check_weight(&self, message: &Bytes) -> Result<(), PublishError> {
        let inner = &*self.publisher.inner;
        let (weight, limit) = (weight(message), inner.limits.hard);
        if weight > limit {
            inner.counters.count(FanoutEvent::RefusedTooLarge);
            return Err(PublishError::TooLarge { weight, limit });
        }
        Ok(())
    }

    fn publish_reserved(&self, message: &Bytes, now: Instant) -> Published {
        let inner = &*self.publisher.inner;
        inner.counters.count(FanoutEvent::Published);
        let mut published = Published::default();
        inner.visit(|subscriber, wakers| match subscriber.offer(message, now, wakers) {
            Offered::Queued => {
                published.reached += 1;
                Ok(())
            }
            Offered::Replaced => {
                published.reached += 1;
                inner.counters.count(FanoutEvent::Replaced);
                Ok(())
            }
            Offered::Disconnected(reason) => {
                published.disconnected += 1;
                Err(reason)
            }
        });
        inner.counters.count_many(FanoutEvent::Queued, published.reached as u64);
        // The queues' own storage is known only now.
        inner.budget.enforce();
        published
    }

    /// Disconnects the subscribers that have been too slow, or without progress, for too long although nothing is published.
    /// Returns how many.
    ///
    /// For the owner's own tick: without it a stalled subscriber of a quiet topic keeps its backlog until the next message.
    pub fn sweep(&self) -> usize {
        self.sweep_at(now())
    }

    /// [`sweep`](Self::sweep) at a given time.
    pub fn sweep_at(&self, now: Instant) -> usize {
        self.publisher.inner.visit(|subscriber, wakers| subscriber.check(now, wakers))
    }

    /// Ends every subscription: each receives what is in its queue and then [`Disconnected::Closed`].
    pub fn close(&self) {
        self.publisher.inner.close();
    }

    /// Subscribers now.
    pub fn len(&self) -> usize {
        self.publisher.inner.table.lock().subscribers.len()
    }

    /// Whether there is no subscriber.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that wait, over all subscribers; each shared payload counts as often as it waits. O(subscribers).
    pub fn backlog(&self) -> usize {
        self.publisher.inner.backlogs().map(|(bytes, _)| bytes).sum()
    }

    /// The budget that its backlogs count against.
    pub fn budget(&self) -> &BacklogBudget {
        &self.publisher.inner.budget
    }

    /// The counters.
    pub fn counters(&self) -> &Counters<FanoutEvent> {
        &self.publisher.inner.counters
    }
}

impl FanoutInner {
    /// Visits every subscriber, removes those that are disconnected, and wakes the tasks concerned. Returns how many were
    /// disconnected.
    fn visit(&self, mut visit: impl FnMut(&Subscriber, &mut Vec<Waker>) -> Result<(), Disconnected>) -> usize {
        let mut wakers = std::mem::take(&mut *self.wakers.lock());
        let mut disconnected = Vec::new();
        let mut table = self.table.lock();
        for (key, entry) in table.subscribers.iter() {
            if let Err(reason) = visit(&entry.subscriber, &mut wakers) {
                disconnected.push(key);
                self.counters.count(match reason {
                    Disconnected::TooSlow { .. } => FanoutEvent::DisconnectedTooSlow,
                    Disconnected::Stalled { .. } => FanoutEvent::DisconnectedStalled,
                    Disconnected::OverBudget { .. } => FanoutEvent::DisconnectedOverBudget,
                    Disconnected::BacklogFull { .. } | Disconnected::Closed => FanoutEvent::DisconnectedBacklogFull,
                });
            }
        }
        let removed: Vec<_> = disconnected.into_iter().map(|key| table.subscribers.remove(key)).collect();
        if !removed.is_empty() {
            self.update_gauge(&table);
        }
        drop(table);
        removed.iter().flatten().filter_map(|entry| entry.registered).for_each(|key| self.budget.deregister(key));
        self.wake(wakers);
        removed.len()
    }

    fn close(&self) {
        let mut wakers = Vec::new();
        let mut table = self.table.lock();
        table.closed = true;
        for (_, entry) in table.subscribers.drain() {
            entry.subscriber.close(&mut wakers);
        }
        self.update_gauge(&table);
        drop(table);
        self.wake(wakers);
    }

    /// Wakes with no lock held: a waker may run code that calls this fanout.
    fn wake(&self, mut wakers: Vec<Waker>) {
        wakers.drain(..).for_each(Waker::wake);
        if wakers.capacity() <= KEPT_WAKERS {
            *self.wakers.lock() = wakers;
        }
    }

    /// Removes a subscriber; does nothing if it was disconnected before. Returns whether it was there.
    fn leave(&self, key: SlotKey) -> bool {
        let mut table = self.table.lock();
        let left = table.subscribers.remove(key);
        self.update_gauge(&table);
        drop(table);
        left.is_some()
    }

    /// Removes a subscriber that the budget has disconnected.
    fn disconnected_over_budget(&self, key: SlotKey) {
        if self.leave(key) {
            self.counters.count(FanoutEvent::DisconnectedOverBudget);
        }
    }

    fn backlogs(&self) -> impl Iterator<Item = (usize, usize)> {
        let subscribers: Vec<_> =
            self.table.lock().subscribers.iter().map(|(_, entry)| entry.subscriber.clone()).collect();
        subscribers.into_iter().map(|one| one.backlog())
    }

    fn update_gauge(&self, table: &Table) {
        self.counters.entries().set(table.subscribers.len() as u64);
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.inner.close();
    }
}

impl Inspect for Fanout {
    fn inspect(&self) -> Details {
        let inner = &self.publisher.inner;
        let mut details = self.counters().inspect();
        if inner.owns_budget {
            inner.budget.counters().add_to(&mut details);
        }
        let (bytes, messages) = inner.backlogs().fold((0, 0), |(bytes, messages), (b, m)| (bytes + b, messages + m));
        let name = self.counters().name();
        details.counters.insert(format!("{name}_backlog_bytes"), Metric::gauge(bytes as u64).bytes());
        details.counters.insert(format!("{name}_backlog_messages"), Metric::gauge(messages as u64));
        details
    }
}

impl Compact for Fanout {
    fn footprint(&self) -> Footprint {
        let inner = &self.publisher.inner;
        let table = inner.table.lock().subscribers.footprint();
        table.plus(inner.wakers.lock().footprint())
    }

    fn compact(&mut self, policy: &CompactPolicy) -> Compacted {
        let inner = &self.publisher.inner;
        let table = Compact::compact(&mut inner.table.lock().subscribers, policy);
        table.plus(inner.wakers.lock().compact(policy))
    }
}

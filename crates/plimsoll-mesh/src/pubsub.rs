//! Publishing to topics, and subscribing to filters over them, on one node.
//!
//! A message goes to every subscriber whose filter matches its topic, at most once. It is encoded once, as a server-sent
//! event; subscribers share those bytes. A subscriber that does not read is cut off with a reason and delays no other
//! ([`Fanout`]).

mod events;
mod topic;
mod trie;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use plimsoll::bounded::{
    ByteCap, Cap, Counters, Delivery, Disconnected, Event, Fanout, FanoutCaps, PublishError, SubscribeError,
    Subscription,
};
use plimsoll::inspect::{Details, Inspect};

pub use events::{HEARTBEAT, cut_off_event};
pub use topic::{Filter, InvalidTopic, MAX_LEVELS, MAX_TOPIC, Topic};

use crate::controls::switched_off;
use trie::Trie;

/// The limits of a node's publish and subscribe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PubsubCaps {
    /// Filters that have subscribers; default 10,000.
    pub filters: Cap,
    /// Subscribers in all; default 10,000.
    pub subscribers: Cap,
    /// What may wait for one subscriber; default 1 MiB, half of it for [`patience`](Self::patience).
    pub backlog: ByteCap,
    /// For how long more than half of the backlog may wait; default 5 s.
    pub patience: Duration,
}

impl Default for PubsubCaps {
    fn default() -> Self {
        Self {
            filters: Cap::of::<10_000>(),
            subscribers: Cap::of::<10_000>(),
            backlog: ByteCap::of::<{ 1 << 20 }>(),
            patience: Duration::from_secs(5),
        }
    }
}

/// What the topics count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PubsubEvent {
    /// A message was published.
    Published,
    /// A message was queued for a subscriber.
    Queued,
    /// A subscriber was cut off.
    CutOff,
    /// A subscription was refused: the cap of filters or subscribers is reached.
    RefusedFull,
    /// A message was refused: it is over the backlog of a subscriber.
    RefusedTooLarge,
}

impl Event for PubsubEvent {
    const NAMES: &'static [&'static str] = &["published", "queued", "cut_off", "refused_full", "refused_too_large"];

    fn index(self) -> usize {
        self as usize
    }
}

/// The cap of filters or subscriptions is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all {cap} {what} are used")]
pub struct Full {
    /// What is full: `filters` or `subscriptions`.
    pub what: &'static str,
    /// The cap.
    pub cap: usize,
}

/// How many subscribers a message reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Published {
    /// Subscribers that have it in their queue.
    pub reached: usize,
    /// Subscribers that were cut off instead.
    pub cut_off: usize,
}

/// The topics of one node. Cloning shares them.
///
/// ```
/// use plimsoll_mesh::pubsub::{Pubsub, PubsubCaps};
///
/// let pubsub = Pubsub::new(PubsubCaps::default());
/// let mut subscriber = pubsub.subscribe("weather.*".parse()?)?;
/// let reached = pubsub.publish(&"weather.oslo".parse()?, Some("text/plain"), b"rain")?;
/// assert_eq!(reached.reached, 1);
/// let event = subscriber.try_next().unwrap()?;
/// assert!(event.ends_with(b"\"text\":\"rain\"}\n\n"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Pubsub {
    shared: Arc<Shared>,
}

struct Shared {
    caps: PubsubCaps,
    filters: RwLock<Trie<Fanout>>,
    counters: Counters<PubsubEvent>,
}

impl Pubsub {
    /// Without topics: a topic exists while it has subscribers.
    pub fn new(caps: PubsubCaps) -> Self {
        let counters = Counters::new("subscribers", caps.subscribers);
        Self { shared: Arc::new(Shared { caps, filters: RwLock::new(Trie::default()), counters }) }
    }

    /// Subscribes to what is published from now on to topics that `filter` matches.
    ///
    /// # Errors
    /// [`Full`].
    pub fn subscribe(&self, filter: Filter) -> Result<Subscriber, Full> {
        let shared = &self.shared;
        let mut filters = shared.filters.write();
        let subscribed = shared.subscribe(&mut filters, &filter);
        match subscribed {
            Ok(subscription) => {
                shared.counters.entries().add(1);
                Ok(Subscriber { subscription: Some(subscription), filter, shared: shared.clone() })
            }
            Err(full) => {
                shared.counters.count(PubsubEvent::RefusedFull);
                Err(full)
            }
        }
    }

    /// Publishes to every subscriber whose filter matches `topic`. Encodes once, or not at all without subscribers; never
    /// waits.
    ///
    /// # Errors
    /// [`PublishError`].
    pub fn publish(&self, topic: &Topic, content_type: Option<&str>, body: &[u8]) -> Result<Published, PublishError> {
        let shared = &self.shared;
        shared.counters.count(PubsubEvent::Published);
        let mut matching = Vec::new();
        shared.filters.read().matching(topic, &mut |fanout| matching.push(fanout.clone()));
        let mut sum = Published::default();
        if matching.is_empty() {
            return Ok(sum);
        }
        let event = events::message(topic, content_type, body);
        for fanout in matching {
            let published = fanout.publish(event.clone()).inspect_err(|_| {
                shared.counters.count(PubsubEvent::RefusedTooLarge);
            })?;
            sum.reached += published.reached;
            sum.cut_off += published.disconnected;
        }
        shared.counters.count_many(PubsubEvent::Queued, sum.reached as u64);
        shared.counters.count_many(PubsubEvent::CutOff, sum.cut_off as u64);
        Ok(sum)
    }

    /// Cuts off subscribers whose backlog was too large for too long, although nothing is published. For the owner's timer.
    /// O(subscribers).
    pub fn sweep(&self) -> usize {
        let fanouts = self.shared.filters.read().values();
        let cut_off = fanouts.iter().map(Fanout::sweep).sum();
        self.shared.counters.count_many(PubsubEvent::CutOff, cut_off as u64);
        cut_off
    }

    /// Filters that have subscribers.
    pub fn filters(&self) -> usize {
        self.shared.filters.read().len()
    }

    /// Subscribers, including those cut off that have not read the reason yet.
    pub fn subscribers(&self) -> usize {
        usize::try_from(self.shared.counters.entries().read().used).unwrap_or(usize::MAX)
    }

    /// The counters.
    pub fn counters(&self) -> &Counters<PubsubEvent> {
        &self.shared.counters
    }
}

impl Shared {
    fn subscribe(&self, filters: &mut Trie<Fanout>, filter: &Filter) -> Result<Subscription, Full> {
        let subscribers = Full { what: "subscriptions", cap: self.caps.subscribers.get() };
        // INVARIANT: counted up only here, under the lock of the filters.
        if self.counters.entries().read().used >= self.caps.subscribers.get() as u64 {
            return Err(subscribers);
        }
        if filters.get(filter).is_none() && filters.len() >= self.caps.filters.get() {
            return Err(Full { what: "filters", cap: self.caps.filters.get() });
        }
        let fanout = filters.get_or_insert_with(filter, || {
            let PubsubCaps { subscribers, mut backlog, mut patience, .. } = self.caps;
            if switched_off("fanout-bound") {
                (backlog, patience) = (ByteCap::of::<{ ByteCap::MAX }>(), Duration::MAX);
            }
            let fanout = Fanout::new("filter", FanoutCaps { subscribers, backlog, patience, ..FanoutCaps::default() });
            // The topics log one line for all of them.
            fanout.counters().disable_refusal_log();
            fanout
        });
        fanout.subscribe(Delivery::Every).map_err(|error| match error {
            SubscribeError::Full { .. } | SubscribeError::Closed => subscribers,
            _ => subscribers,
        })
    }
}

/// One subscriber. Dropping it ends the subscription, and the filter with its last one.
#[must_use = "a dropped subscriber is gone"]
pub struct Subscriber {
    /// `None` only while it is dropped.
    subscription: Option<Subscription>,
    filter: Filter,
    shared: Arc<Shared>,
}

impl Subscriber {
    /// The next event, then once the reason of its end, then `None`.
    ///
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Bytes, Disconnected>> {
        self.subscription.as_mut()?.next().await
    }

    /// The next event if there is one now.
    pub fn try_next(&mut self) -> Option<Result<Bytes, Disconnected>> {
        self.subscription.as_mut()?.try_next()
    }

    /// Waits until the subscription is cut off, whether or not it is read.
    ///
    /// Cancel safe.
    pub async fn disconnected(&self) -> Disconnected {
        match &self.subscription {
            Some(subscription) => subscription.disconnected().await,
            None => Disconnected::Closed,
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let mut filters = self.shared.filters.write();
        drop(self.subscription.take());
        self.shared.counters.entries().sub(1);
        if filters.get(&self.filter).is_some_and(Fanout::is_empty) {
            filters.remove(&self.filter);
        }
    }
}

impl Inspect for Pubsub {
    fn inspect(&self) -> Details {
        let mut details = self.counters().inspect();
        let filters = self.shared.filters.read();
        details.counters.insert("filters_used".into(), filters.len() as u64);
        details.counters.insert("filters_cap".into(), self.shared.caps.filters.get() as u64);
        let backlog: usize = filters.values().iter().map(Fanout::backlog).sum();
        details.counters.insert("backlog_bytes".into(), backlog as u64);
        details
    }
}

impl fmt::Debug for Pubsub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pubsub").field("counters", self.counters()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber").field("filter", &self.filter).finish_non_exhaustive()
    }
}

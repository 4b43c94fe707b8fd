//! Publishing to topics, and subscribing to filters over them, on one node.
//!
//! A server owns the filters: subscribing is a call to it, and a subscriber that leaves is removed in its next turn. It
//! checks the backlogs of subscribers once a second. Publishing reads the filters without a message to the server.
//!
//! A message goes to every subscriber whose filter matches its topic, at most once. It is encoded once, as a server-sent
//! event; subscribers share those bytes. A subscriber that does not read is cut off with a reason and delays no other
//! ([`Fanout`]).

mod events;
mod filter_trie;
mod server;
mod topic;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use plimsoll::bounded::{BacklogBudget, ByteCap, Cap, Consumer, Counters, Disconnected, Event, Fanout, Subscription};
use plimsoll::call::CallError;
use plimsoll::inspect::{Details, Inspect, Metric};
use plimsoll::ractor::{ActorCell, SpawnErr};
use plimsoll::supervisor::{Child, ChildSpec};

pub use events::{HEARTBEAT, cut_off_event};
pub use topic::{Filter, InvalidTopic, MAX_LEVELS, MAX_TOPIC, Topic};

use server::{Instance, Subscribe};

/// The limits of a node's publish and subscribe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PubsubCaps {
    /// Filters that have subscribers; default 10,000.
    pub filters: Cap,
    /// Subscribers in all; default 10,000.
    pub subscribers: Cap,
    /// What may wait for one subscriber; default 1 MiB, half of it for [`patience`](Self::patience).
    pub backlog: ByteCap,
    /// For how long more than half of the backlog may wait, and for how long a subscriber may take no message while one is
    /// waiting; default 5 s.
    pub patience: Duration,
    /// What may wait for all subscribers together, each message counted once; default 64 MiB. When it is exceeded, the client
    /// that holds the most is disconnected from all its subscriptions.
    pub all_backlogs: ByteCap,
}

impl Default for PubsubCaps {
    fn default() -> Self {
        Self {
            filters: Cap::of::<10_000>(),
            subscribers: Cap::of::<10_000>(),
            backlog: ByteCap::of::<{ 1 << 20 }>(),
            patience: Duration::from_secs(5),
            all_backlogs: ByteCap::of::<{ 64 << 20 }>(),
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
    /// A message was refused: it is over the backlog of a subscriber, or does not fit into the budget of all backlogs.
    RefusedMessage,
}

impl Event for PubsubEvent {
    const NAMES: &'static [&'static str] = &["published", "queued", "cut_off", "refused_full", "refused_message"];

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

/// Why there is no subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// A cap is reached.
    #[error(transparent)]
    Full(#[from] Full),
    /// The server of the topics has too many calls in its mailbox.
    #[error("the topics are overloaded")]
    Overloaded,
    /// The server of the topics does not run.
    #[error("the topics are not running")]
    NotRunning,
}

/// Why a message was not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// It is too large, or does not fit into the budget of all backlogs now.
    #[error(transparent)]
    Refused(#[from] plimsoll::bounded::PublishError),
    /// The server of the topics does not run.
    #[error("the topics are not running")]
    NotRunning,
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
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use plimsoll::supervisor::Supervisor;
/// use plimsoll_mesh::pubsub::{Pubsub, PubsubCaps};
///
/// let pubsub = Pubsub::new(PubsubCaps::default());
/// let tree = Supervisor::builder("example").child(pubsub.child("topics")).start().await?;
/// let mut subscriber = pubsub.subscribe("weather.*".parse()?).await?;
/// let published = pubsub.publish(&"weather.oslo".parse()?, Some("text/plain"), b"rain")?;
/// assert_eq!(published.reached, 1);
/// let event = subscriber.try_next().unwrap()?;
/// assert!(event.ends_with(b"\"text\":\"rain\"}\n\n"));
/// # tree.stop().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Pubsub {
    shared: Arc<Shared>,
}

struct Shared {
    caps: PubsubCaps,
    /// The current incarnation of the server.
    instance: ArcSwapOption<Instance>,
    counters: Counters<PubsubEvent>,
    budget: BacklogBudget,
}

impl Pubsub {
    /// Without topics and without a server: start it with [`Pubsub::child`].
    pub fn new(caps: PubsubCaps) -> Self {
        let counters = Counters::new("subscribers", caps.subscribers);
        let budget = BacklogBudget::new("backlogs", caps.subscribers, caps.all_backlogs);
        Self { shared: Arc::new(Shared { caps, instance: ArcSwapOption::empty(), counters, budget }) }
    }

    /// The server of the topics, for a supervisor. A restarted server has no filters: what subscribed before gets
    /// [`Disconnected::Closed`].
    pub fn child(&self, id: impl Into<Arc<str>>) -> ChildSpec {
        let pubsub = self.clone();
        ChildSpec::new(id, move |parent| {
            let pubsub = pubsub.clone();
            async move { pubsub.start(parent).await }
        })
    }

    async fn start(&self, parent: ActorCell) -> Result<Child, SpawnErr> {
        let shared = &self.shared;
        let (child, instance) = server::start(shared.caps, &shared.budget, shared.counters.clone(), parent).await?;
        shared.instance.store(Some(Arc::new(instance)));
        Ok(child.inspect(Arc::new(self.clone())))
    }

    /// A new consumer: one party whose subscriptions are weighed, and disconnected, together.
    pub fn consumer(&self) -> Consumer {
        self.shared.budget.consumer()
    }

    /// Subscribes to what is published from now on to topics that `filter` matches, as a consumer of its own.
    ///
    /// # Errors
    /// [`SubscribeError`].
    ///
    /// Cancel safe: a subscription that was made for an abandoned call is removed.
    pub async fn subscribe(&self, filter: Filter) -> Result<Subscriber, SubscribeError> {
        self.subscribe_as(&self.consumer(), filter).await
    }

    /// As [`subscribe`](Self::subscribe), for `consumer`.
    ///
    /// # Errors
    /// [`SubscribeError`].
    ///
    /// Cancel safe: a subscription that was made for an abandoned call is removed.
    pub async fn subscribe_as(&self, consumer: &Consumer, filter: Filter) -> Result<Subscriber, SubscribeError> {
        let instance = self.shared.instance.load_full().ok_or(SubscribeError::NotRunning)?;
        let subscriber = Subscriber { subscription: None, filter, instance: Arc::clone(&instance) };
        instance.server.call(Subscribe { subscriber, consumer: consumer.clone() }).await.map_err(|error| match error {
            CallError::App(full) => SubscribeError::Full(full),
            CallError::Overloaded(_) => SubscribeError::Overloaded,
            _ => SubscribeError::NotRunning,
        })
    }

    /// Publishes to every subscriber whose filter matches `topic`. Encodes once, or not at all without subscribers; never
    /// waits. O(subscribers of the topic).
    ///
    /// # Errors
    /// [`PublishError`].
    pub fn publish(&self, topic: &Topic, content_type: Option<&str>, body: &[u8]) -> Result<Published, PublishError> {
        let shared = &self.shared;
        let instance = shared.instance.load();
        let instance = instance.as_ref().ok_or(PublishError::NotRunning)?;
        shared.counters.count(PubsubEvent::Published);
        let mut matching = Vec::new();
        instance.filters.read().matching(topic, &mut |fanout| matching.push(fanout.clone()));
        if matching.is_empty() {
            return Ok(Published::default());
        }
        let event = events::message(topic, content_type, body);
        let published = shared.budget.publish(&matching, event).inspect_err(|_| {
            shared.counters.count(PubsubEvent::RefusedMessage);
        })?;
        shared.counters.count_many(PubsubEvent::Queued, published.reached as u64);
        shared.counters.count_many(PubsubEvent::CutOff, published.disconnected as u64);
        Ok(Published { reached: published.reached, cut_off: published.disconnected })
    }

    /// Filters that have subscribers.
    pub fn filters(&self) -> usize {
        self.shared.instance.load().as_ref().map_or(0, |instance| instance.filters.read().len())
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

/// One subscriber. Dropping it ends the subscription, and the filter with its last one.
#[must_use = "a dropped subscriber is gone"]
pub struct Subscriber {
    /// `None` until the server has added it.
    subscription: Option<Subscription>,
    filter: Filter,
    instance: Arc<Instance>,
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
    /// Its backlog is dropped here; its filter is removed in the server's next turn. Never refused, never waits.
    fn drop(&mut self) {
        if let Some(subscription) = self.subscription.take() {
            drop(subscription);
            self.instance.end(self.filter.clone());
        }
    }
}

impl Inspect for Pubsub {
    fn inspect(&self) -> Details {
        let mut details = self.counters().inspect();
        let fanouts = self.shared.instance.load().as_ref().map(|instance| instance.filters.read().values());
        let fanouts = fanouts.unwrap_or_default();
        details.counters.insert("filters_used", Metric::gauge(fanouts.len() as u64));
        details.counters.insert("filters_cap", Metric::gauge(self.shared.caps.filters.get() as u64));
        let backlog: usize = fanouts.iter().map(Fanout::backlog).sum();
        details.counters.insert("backlog_bytes", Metric::gauge(backlog as u64).bytes());
        details.counters.extend(self.shared.budget.counters().inspect().counters);
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

//! The bytes of all backlogs together, and which consumer is disconnected when there are too many.
//!
//! The bytes of a published payload are reserved once, however many queues reference it, and released when the last reference
//! is dropped: also one that a reader has taken and is still writing to its connection. A queue's own storage is reserved as
//! it grows. When a message does not fit, the consumer that holds the most is disconnected with all its subscriptions, then
//! the next, until the message fits (as in Redis client eviction).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use plimsoll_sync::slots::{SlotKey, Slots};

use super::reservation::{BacklogEvent, BudgetBytes, ReservedPayload};
use super::subscriber::Subscriber;
use super::{Disconnected, Fanout, FanoutInner, PublishError, Published};
use crate::bounded::time::now;
use crate::bounded::{ByteCap, Cap, Counters};
use crate::inspect::{Details, Inspect};

/// A cap in bytes over the backlogs of all fanouts that share it. Cloning shares it.
///
/// A consumer is one party that reads, for instance a client with all its subscriptions; see [`BacklogBudget::consumer`].
///
/// ```
/// use plimsoll::bounded::{BacklogBudget, ByteCap, Cap, Delivery, Disconnected, Fanout, FanoutCaps};
///
/// let budget = BacklogBudget::new("backlogs", Cap::of::<100>(), ByteCap::of::<{ 1 << 20 }>());
/// let caps = FanoutCaps::default();
/// let (news, sport) = (Fanout::sharing("news", caps, &budget), Fanout::sharing("sport", caps, &budget));
/// let (stalled, other) = (budget.consumer(), budget.consumer());
/// let mut two = [news.subscribe_as(&stalled, Delivery::Every)?, sport.subscribe_as(&stalled, Delivery::Every)?];
/// let mut one = news.subscribe_as(&other, Delivery::Every)?;
/// news.publish(vec![1; 400 << 10].into())?;
/// assert_eq!(one.try_next().unwrap()?.len(), 400 << 10);
/// sport.publish(vec![2; 400 << 10].into())?;
/// // The third message does not fit beside the two that the stalled consumer holds.
/// news.publish(vec![3; 400 << 10].into())?;
/// assert!(two.iter_mut().all(|one| matches!(one.try_next(), Some(Err(Disconnected::OverBudget { .. })))));
/// assert_eq!(one.try_next().unwrap()?[0], 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct BacklogBudget {
    inner: Arc<BudgetInner>,
}

#[derive(Debug)]
struct BudgetInner {
    subscriptions: Mutex<Slots<Registered>>,
    consumers: AtomicU64,
    bytes: Arc<BudgetBytes>,
}

#[derive(Debug)]
struct Registered {
    consumer: u64,
    subscriber: Arc<Subscriber>,
    fanout: Weak<FanoutInner>,
    key: SlotKey,
}

/// One party that reads from fanouts of one [`BacklogBudget`]: its subscriptions are weighed, and disconnected, together.
#[derive(Debug, Clone)]
pub struct Consumer {
    id: u64,
}

impl BacklogBudget {
    /// A budget called `name` of `bytes` for the backlogs of at most `subscriptions`.
    pub fn new(name: &str, subscriptions: Cap, bytes: ByteCap) -> Self {
        let inner = BudgetInner {
            subscriptions: Mutex::new(Slots::with_limit(subscriptions.slots())),
            consumers: AtomicU64::new(0),
            bytes: Arc::new(BudgetBytes::new(name, subscriptions, bytes)),
        };
        Self { inner: Arc::new(inner) }
    }

    /// A new consumer, to be passed to [`Fanout::subscribe_as`].
    pub fn consumer(&self) -> Consumer {
        Consumer { id: self.inner.consumers.fetch_add(1, Relaxed) }
    }

    /// Publishes a message to several fanouts of this budget; its payload is counted once. Takes O(their subscribers) and
    /// never waits.
    ///
    /// # Errors
    /// [`PublishError`]: the message is too large for an empty backlog or for the budget, or does not fit into it now.
    /// Fanouts before the one that refused have it.
    pub fn publish<'a>(
        &self,
        fanouts: impl IntoIterator<Item = &'a Fanout>,
        message: Bytes,
    ) -> Result<Published, PublishError> {
        self.publish_at(fanouts, message, now())
    }

    /// [`publish`](Self::publish) at a given time.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub fn publish_at<'a>(
        &self,
        fanouts: impl IntoIterator<Item = &'a Fanout>,
        message: Bytes,
        now: Instant,
    ) -> Result<Published, PublishError> {
        let (mut reserved, mut sum) = (None, Published::default());
        for fanout in fanouts {
            let published = if !Arc::ptr_eq(&self.inner, &fanout.budget().inner) || fanout.is_empty() {
                fanout.publish_at(message.clone(), now)?
            } else {
                fanout.check_weight(&message)?;
                let message = match &reserved {
                    Some(reserved) => reserved,
                    None => reserved.insert(self.reserve(message.clone())?),
                };
                fanout.publish_reserved(message, now)
            };
            sum.reached += published.reached;
            sum.disconnected += published.disconnected;
        }
        Ok(sum)
    }

    /// Changes the cap. Over a lowered one, the heaviest consumers are disconnected at once.
    pub fn set_cap(&self, bytes: ByteCap) {
        self.inner.bytes.gauge().set_cap(bytes.get());
        self.enforce();
    }

    /// Bytes reserved now.
    pub fn used(&self) -> u64 {
        self.inner.bytes.gauge().read().used
    }

    /// The counters: entries are subscriptions.
    pub fn counters(&self) -> &Counters<BacklogEvent> {
        self.inner.bytes.counters()
    }

    pub(super) fn bytes(&self) -> &Arc<BudgetBytes> {
        &self.inner.bytes
    }

    /// Reserves the bytes of a message, and returns a reference to it that releases them with its last clone.
    pub(super) fn reserve(&self, message: Bytes) -> Result<Bytes, PublishError> {
        let (bytes, gauge) = (message.len() as u64, self.inner.bytes.gauge());
        let budget = gauge.read().cap;
        if bytes > budget {
            self.counters().count(BacklogEvent::RefusedTooLarge);
            return Err(PublishError::OverBudget { bytes, budget });
        }
        while let Err(used) = gauge.try_add(bytes) {
            if !self.disconnect_heaviest(bytes) {
                self.counters().count(BacklogEvent::RefusedFull);
                return Err(PublishError::BudgetFull { bytes, used, budget });
            }
        }
        Ok(ReservedPayload::reference(message, self.inner.bytes.clone()))
    }

    /// Disconnects consumers until no more than the cap is reserved: for bytes that are known only afterwards.
    pub(super) fn enforce(&self) {
        while !self.inner.bytes.fits(0) && self.disconnect_heaviest(0) {}
    }

    /// Makes room for `more` bytes: `true` when there is room now, or a consumer was disconnected.
    ///
    /// `false` when a further disconnection would gain nothing: every backlog is empty, or the payloads that disconnected
    /// readers have yet to drop will make room by themselves.
    fn disconnect_heaviest(&self, more: u64) -> bool {
        let mut wakers = Vec::new();
        let disconnected = {
            let mut subscriptions = self.inner.subscriptions.lock();
            // Another publisher may have made room.
            if self.inner.bytes.fits(more) {
                return true;
            }
            if self.inner.bytes.fits_after_release(more) {
                return false;
            }
            let mut weights: HashMap<u64, usize> = HashMap::new();
            for (_, one) in subscriptions.iter() {
                *weights.entry(one.consumer).or_default() += one.subscriber.weight();
            }
            let heaviest = weights.into_iter().max_by_key(|(consumer, bytes)| (*bytes, std::cmp::Reverse(*consumer)));
            let Some((consumer, bytes)) = heaviest.filter(|(_, bytes)| *bytes > 0) else { return false };
            let keys: Vec<_> =
                subscriptions.iter().filter(|(_, one)| one.consumer == consumer).map(|(key, _)| key).collect();
            let reason = Disconnected::OverBudget { bytes, budget: self.inner.bytes.gauge().read().cap };
            let removed: Vec<_> = keys.into_iter().filter_map(|key| subscriptions.remove(key)).collect();
            removed.iter().for_each(|one| one.subscriber.disconnect(reason, &mut wakers));
            self.counters().entries().set(subscriptions.len() as u64);
            removed
        };
        self.counters().count(BacklogEvent::ConsumersDisconnected);
        for one in disconnected {
            if let Some(fanout) = one.fanout.upgrade() {
                fanout.disconnected_over_budget(one.key);
            }
        }
        wakers.into_iter().for_each(std::task::Waker::wake);
        true
    }

    pub(super) fn register(
        &self,
        consumer: &Consumer,
        subscriber: Arc<Subscriber>,
        fanout: &Arc<FanoutInner>,
        key: SlotKey,
    ) -> Option<SlotKey> {
        let mut subscriptions = self.inner.subscriptions.lock();
        let one = Registered { consumer: consumer.id, subscriber, fanout: Arc::downgrade(fanout), key };
        let registered = subscriptions.insert(one).ok();
        self.counters().entries().set(subscriptions.len() as u64);
        if registered.is_none() {
            self.counters().count(BacklogEvent::RefusedSubscription);
        }
        registered
    }

    pub(super) fn deregister(&self, key: SlotKey) {
        let mut subscriptions = self.inner.subscriptions.lock();
        let removed = subscriptions.remove(key);
        self.counters().entries().set(subscriptions.len() as u64);
        drop(subscriptions);
        drop(removed);
    }
}

impl Inspect for BacklogBudget {
    fn inspect(&self) -> Details {
        self.counters().inspect()
    }
}

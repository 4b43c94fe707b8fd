//! The server that owns the filters.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use plimsoll::bounded::{BacklogBudget, Consumer, Counters, Delivery, Fanout, FanoutCaps, Subscription};
use plimsoll::ractor::{ActorCell, SpawnErr};
use plimsoll::server::{self, BoxError, Context, GenServer, Response, ServerRef};
use plimsoll::supervisor::Child;

use super::filter_trie::FilterTrie;
use super::{Filter, Full, PubsubCaps, PubsubEvent, Subscriber};

/// How often the backlogs of subscribers are checked.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The filters with their subscribers. Only the server changes them; publishing reads them.
pub(super) type Filters = Arc<RwLock<FilterTrie<Fanout>>>;

/// One incarnation of the server. A subscriber keeps the incarnation that it belongs to.
pub(super) struct Instance {
    pub(super) server: ServerRef<TopicServer>,
    pub(super) filters: Filters,
    /// Filters of subscribers that left and are not removed yet: each subscriber once.
    ended: Arc<EndedList>,
}

type EndedList = Mutex<Vec<Filter>>;

impl Instance {
    /// Notes that a subscriber of `filter` left.
    pub(super) fn end(&self, filter: Filter) {
        self.ended.lock().push(filter);
        // With a full mailbox there is a next turn already.
        let _ = self.server.cast(RemoveEnded);
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance").finish_non_exhaustive()
    }
}

/// Starts the server as a child of `parent`, without filters.
pub(super) async fn start(
    caps: PubsubCaps,
    budget: &BacklogBudget,
    counters: Counters<PubsubEvent>,
    parent: ActorCell,
) -> Result<(Child, Instance), SpawnErr> {
    let (filters, ended) = (Filters::default(), Arc::<EndedList>::default());
    // The subscribers of a former incarnation are gone with its filters.
    counters.entries().set(0);
    let topics = TopicServer {
        caps,
        filters: Arc::clone(&filters),
        ended: Arc::clone(&ended),
        counters,
        budget: budget.clone(),
    };
    let started = server::builder(topics).start_linked(parent).await?;
    let server = started.client();
    Ok((Child::from(started), Instance { server, filters, ended }))
}

/// The server that owns the filters.
pub(super) struct TopicServer {
    caps: PubsubCaps,
    filters: Filters,
    ended: Arc<EndedList>,
    counters: Counters<PubsubEvent>,
    budget: BacklogBudget,
}

/// A subscriber that the server is to add.
pub(super) struct Subscribe {
    pub(super) subscriber: Subscriber,
    pub(super) consumer: Consumer,
}

pub(super) struct RemoveEnded;
pub(super) struct Sweep;

impl GenServer for TopicServer {
    type Call = Subscribe;
    type Reply = Subscriber;
    type Error = Full;
    type Cast = RemoveEnded;
    type Message = Sweep;

    async fn init(&mut self, ctx: &mut Context<Self>) -> Result<(), BoxError> {
        ctx.every(SWEEP_INTERVAL, || Sweep)?;
        Ok(())
    }

    async fn call(&mut self, call: Subscribe, _: &mut Context<Self>) -> Result<Response<Self>, BoxError> {
        self.remove_ended();
        let Subscribe { mut subscriber, consumer } = call;
        let subscribed = self.subscribe(&consumer, &subscriber.filter).map(|subscription| {
            subscriber.subscription = Some(subscription);
            subscriber
        });
        Ok(subscribed.into())
    }

    async fn cast(&mut self, RemoveEnded: RemoveEnded, _: &mut Context<Self>) -> Result<(), BoxError> {
        self.remove_ended();
        Ok(())
    }

    async fn message(&mut self, Sweep: Sweep, _: &mut Context<Self>) -> Result<(), BoxError> {
        self.remove_ended();
        self.sweep();
        Ok(())
    }

    fn method(_: &Subscribe) -> &'static str {
        "subscribe"
    }
}

impl TopicServer {
    fn subscribe(&mut self, consumer: &Consumer, filter: &Filter) -> Result<Subscription, Full> {
        let subscribed = self.try_subscribe(consumer, filter);
        match &subscribed {
            Ok(_) => self.counters.entries().add(1),
            Err(_) => self.counters.count(PubsubEvent::RefusedFull),
        }
        subscribed
    }

    fn try_subscribe(&mut self, consumer: &Consumer, filter: &Filter) -> Result<Subscription, Full> {
        let full = Full { what: "subscriptions", cap: self.caps.subscribers.get() };
        if self.counters.entries().read().used >= self.caps.subscribers.get() as u64 {
            return Err(full);
        }
        let budget = &self.budget;
        let mut filters = self.filters.write();
        if filters.get(filter).is_none() && filters.len() >= self.caps.filters.get() {
            return Err(Full { what: "filters", cap: self.caps.filters.get() });
        }
        let fanout = filters.get_or_insert_with(filter, || {
            let PubsubCaps { subscribers, backlog, patience, .. } = self.caps;
            let fanout = Fanout::sharing(
                "filter",
                FanoutCaps { subscribers, backlog, patience, ..FanoutCaps::default() },
                budget,
            );
            // The topics log one line for all of them.
            fanout.counters().disable_refusal_log();
            fanout
        });
        // It is as large as all subscriptions together, and nobody closes it.
        fanout.subscribe_as(consumer, Delivery::Every).map_err(|_| full)
    }

    fn remove_ended(&mut self) {
        let ended = std::mem::take(&mut *self.ended.lock());
        if ended.is_empty() {
            return;
        }
        let mut filters = self.filters.write();
        self.counters.entries().sub(ended.len() as u64);
        for filter in ended {
            if filters.get(&filter).is_some_and(Fanout::is_empty) {
                filters.remove(&filter);
            }
        }
    }

    /// Cuts off subscribers whose backlog was too large for too long, although nothing is published. O(subscribers).
    fn sweep(&self) {
        let fanouts = self.filters.read().values();
        let cut_off: usize = fanouts.iter().map(Fanout::sweep).sum();
        self.counters.count_many(PubsubEvent::CutOff, cut_off as u64);
    }
}

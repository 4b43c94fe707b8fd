//! The sessions of a gateway's clients with their subscriptions and advertisements: one server that owns the table, and the
//! handle to it.
//!
//! A session opens when its connection is admitted and closes when its guard is dropped. Closing cannot be refused by a full
//! mailbox: the guard first adds itself to a list, and the server removes what is in that list at the beginning of every
//! turn. The same holds for a subscription. Removing a session removes all that belongs to it: calls, subscriptions, leases.
//!
//! The streams of calls are not rows of the table, as two turns of the server for each call would cost more than the call:
//! they are tasks of the connection, and the session has the token that ends them.

mod table;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::{Mutex, RwLock};
use plimsoll::bounded::sessions::{ResourceKey, SessionKey};
use plimsoll::bounded::{Cap, Compact as _, CompactPolicy, RegistryRefusal, ResourceCaps, SessionRefusal};
use plimsoll::call::CallError;
use plimsoll::inspect::{Details, Inspect};
use plimsoll::ractor::{ActorCell, SpawnErr};
use plimsoll::server::{self, BoxError, Context, GenServer, Response, ServerRef, TimerKey};
use plimsoll::supervisor::Child;
use tokio_util::sync::CancellationToken;

pub use table::AdvertisementLimits;
use table::{Leases, SessionError, SessionTable, SessionTableCounters};

use super::client_activity::{ClientActivity, Disconnect};
use crate::names::ServiceName;
use crate::problem::{Code, Problem};

/// How long the table is unused before it releases spare memory.
const IDLE_TIME: Duration = Duration::from_secs(60);

/// The handle to the sessions of one gateway. It outlives restarts of their server.
#[derive(Debug)]
pub(super) struct SessionsHandle {
    limits: AdvertisementLimits,
    clients: usize,
    subscriptions: ResourceCaps,
    instance: ArcSwapOption<Instance>,
    opened: AtomicU64,
}

/// One incarnation of the server. Its keys mean nothing to the next one, so a guard keeps the incarnation that it belongs
/// to.
#[derive(Debug)]
struct Instance {
    server: ServerRef<SessionServer>,
    ended: Arc<EndedList>,
    leases: Leases,
    /// Changes of what is advertised.
    changes: Arc<AtomicU64>,
    activities: Activities,
    /// Incarnations before this one.
    number: u64,
}

/// The activity of each open session. Only the server changes the map; the monitor and admission read it.
type Activities = Arc<RwLock<HashMap<SessionKey, Arc<ClientActivity>>>>;

/// Sessions and subscriptions that ended and are not removed yet: each once, so at most as many as there are.
type EndedList = Mutex<Vec<Ended>>;

#[derive(Debug, Clone, Copy)]
enum Ended {
    Session(SessionKey),
    Subscription(ResourceKey),
}

impl SessionsHandle {
    /// A client has at most as many subscriptions as streams.
    pub(super) fn new(clients: usize, subscriptions: Cap, streams: u32, limits: AdvertisementLimits) -> Self {
        let per_client = Cap::new(streams as usize).unwrap_or(Cap::of::<1>());
        let subscriptions = ResourceCaps { total: subscriptions, per_client };
        Self { limits, clients, subscriptions, instance: ArcSwapOption::empty(), opened: AtomicU64::new(0) }
    }

    /// Starts the server as a child of `parent`, with an empty table.
    pub(super) async fn start(&self, parent: ActorCell) -> Result<Child, SpawnErr> {
        let table = SessionTable::new(self.clients, self.subscriptions, &self.limits);
        let counters = Arc::new(table.counters());
        let ended = Arc::<EndedList>::default();
        let (leases, changes, activities) = (table.leases(), table.changes(), Activities::default());
        let close = SessionTable::close;
        #[cfg(plimsoll_controls)]
        let close = SessionTable::close_in_part;
        let state =
            SessionServer { table, close, ended: Arc::clone(&ended), activities: Arc::clone(&activities), sweep: None };
        let started = server::builder(state).idle(IDLE_TIME).start_linked(parent).await?;
        let inspector = SessionInspector { counters, server: started.inspector() };
        let number = self.instance.load().as_ref().map_or(0, |former| former.number + 1);
        let instance = Instance { server: started.client(), ended, leases, changes, activities, number };
        self.instance.store(Some(Arc::new(instance)));
        Ok(Child::from(started).inspect(Arc::new(inspector)))
    }

    /// Opens a session, until the guard is dropped.
    ///
    /// Cancel safe: a session that was opened for an abandoned call is closed.
    pub(super) async fn open(&self, activity: Arc<ClientActivity>) -> Result<ClientSession, Problem> {
        let Some(instance) = self.instance.load_full() else { return Err(not_running()) };
        let number = self.opened.fetch_add(1, Relaxed);
        let calls = CancellationToken::new();
        let guard = ClientSession { instance: Arc::clone(&instance), number, key: None, calls, activity };
        match call(&instance, SessionCall::Open { guard }).await? {
            SessionReply::Opened(session) => Ok(session),
            _ => Err(unexpected()),
        }
    }

    /// Advertises `name` for a session. Returns whether it is new.
    ///
    /// Cancel safe: it happens or not, and ends with the session at the latest.
    pub(super) async fn advertise(
        &self,
        session: SessionKey,
        name: ServiceName,
        ttl: Option<Duration>,
    ) -> Result<bool, Problem> {
        let Some(instance) = self.instance.load_full() else { return Err(not_running()) };
        match call(&instance, SessionCall::Advertise { session, name, ttl }).await? {
            SessionReply::Advertised { new } => Ok(new),
            _ => Err(unexpected()),
        }
    }

    /// Withdraws an advertisement of a session. Returns whether it existed.
    ///
    /// Cancel safe: it happens or not.
    pub(super) async fn withdraw(&self, session: SessionKey, name: ServiceName) -> Result<bool, Problem> {
        let Some(instance) = self.instance.load_full() else { return Err(not_running()) };
        match call(&instance, SessionCall::Withdraw { session, name }).await? {
            SessionReply::Withdrawn { existed } => Ok(existed),
            _ => Err(unexpected()),
        }
    }

    /// Adds a subscription of a session, until the guard is dropped.
    ///
    /// Cancel safe: one that was added for an abandoned call is removed.
    pub(super) async fn subscribe(&self, session: &ClientSession) -> Result<SubscriptionGuard, Problem> {
        let instance = Arc::clone(&session.instance);
        let Some(session) = session.key() else { return Err(not_running()) };
        let guard = SubscriptionGuard { instance: Arc::clone(&instance), key: None, end: CancellationToken::new() };
        match call(&instance, SessionCall::Subscribe { session, guard }).await? {
            SessionReply::Subscribed(guard) => Ok(guard),
            _ => Err(unexpected()),
        }
    }

    /// Names that clients advertise now, sorted; none while the server does not run. Read from the leases, without a message
    /// to the server.
    pub(super) fn advertised(&self) -> Vec<ServiceName> {
        let instance = self.instance.load();
        instance.as_ref().map(|instance| table::names(&instance.leases, Instant::now())).unwrap_or_default()
    }

    /// A number that differs whenever what clients advertise has changed.
    pub(super) fn advertisement_changes(&self) -> u64 {
        let instance = self.instance.load();
        instance.as_ref().map_or(0, |instance| (instance.number << 40) + instance.changes.load(Relaxed) + 1)
    }

    /// Disconnects the client that has been idle for longest, if that is at least `least`. Returns whether there was one.
    /// O(clients).
    pub(super) fn disconnect_longest_idle(&self, least: Duration, now: Instant) -> bool {
        let instance = self.instance.load();
        let Some(instance) = instance.as_ref() else { return false };
        let activities = instance.activities.read();
        let idle = activities.values().filter(|activity| !activity.is_disconnected());
        let idle = idle.filter_map(|activity| Some((activity.idle(now)?, activity)));
        let longest = idle.max_by_key(|(idle, _)| *idle).filter(|(idle, _)| *idle >= least);
        longest.is_some_and(|(_, activity)| activity.disconnect(Disconnect::Idle))
    }

    /// Checks every client: see [`ClientActivity::check`]. Returns how many responses were reset. O(clients).
    pub(super) fn check_clients(&self, now: Instant, response_timeout: Duration) -> usize {
        let instance = self.instance.load();
        let Some(instance) = instance.as_ref() else { return 0 };
        let activities: Vec<_> = instance.activities.read().values().cloned().collect();
        activities.iter().map(|activity| activity.check(now, response_timeout)).sum()
    }
}

async fn call(instance: &Instance, request: SessionCall) -> Result<SessionReply, Problem> {
    instance.server.call(request).await.map_err(|error| match error {
        CallError::App(refused) => problem(&refused),
        CallError::Overloaded(_) => Problem::new(Code::Overloaded, "the gateway's sessions are overloaded"),
        _ => not_running(),
    })
}

fn not_running() -> Problem {
    Problem::new(Code::ShuttingDown, "the gateway's sessions are not running")
}

fn unexpected() -> Problem {
    Problem::new(Code::WorkerDied, "the gateway's sessions sent a reply of another kind")
}

fn problem(error: &SessionError) -> Problem {
    let code = match error {
        SessionError::Session(SessionRefusal::MaxClientsReached { .. }) => Code::MaxClientsReached,
        SessionError::Session(SessionRefusal::Ended) => Code::ShuttingDown,
        SessionError::Session(SessionRefusal::ClientFull { .. })
        | SessionError::Registry(RegistryRefusal::OwnerFull { .. } | RegistryRefusal::RateLimited { .. }) => {
            Code::RateLimited
        }
        SessionError::Session(_) | SessionError::Registry(_) => Code::Overloaded,
    };
    let mut problem = Problem::new(code, error.to_string());
    if let SessionError::Registry(RegistryRefusal::RateLimited { retry_after }) = error {
        problem.retry_after = Some(*retry_after);
    }
    problem
}

/// An open session. Dropping it closes the session with all its advertisements.
#[derive(Debug)]
#[must_use = "the session is closed when this is dropped"]
pub(super) struct ClientSession {
    instance: Arc<Instance>,
    number: u64,
    /// `None` until the server has added it.
    key: Option<SessionKey>,
    calls: CancellationToken,
    activity: Arc<ClientActivity>,
}

impl ClientSession {
    /// The number of this connection, counted up since the node started.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Its key in the table.
    pub(super) fn key(&self) -> Option<SessionKey> {
        self.key
    }

    /// What the client does.
    pub(super) fn activity(&self) -> &Arc<ClientActivity> {
        &self.activity
    }

    /// Ends the calls on its streams; cancelled at the latest when the session is removed.
    pub(super) fn calls_token(&self) -> &CancellationToken {
        &self.calls
    }
}

impl Drop for ClientSession {
    /// Never refused, never waits: listed here, removed in the server's next turn.
    fn drop(&mut self) {
        if let Some(session) = self.key.take() {
            self.instance.end(Ended::Session(session));
        }
    }
}

/// A subscription in the table. Dropping it removes the subscription.
#[derive(Debug)]
#[must_use = "the subscription is removed when this is dropped"]
pub(super) struct SubscriptionGuard {
    instance: Arc<Instance>,
    /// `None` until the server has added it.
    key: Option<ResourceKey>,
    end: CancellationToken,
}

impl SubscriptionGuard {
    /// Waits until its session is removed.
    ///
    /// Cancel safe.
    pub(super) async fn ended(&self) {
        self.end.cancelled().await;
    }
}

impl Drop for SubscriptionGuard {
    fn drop(&mut self) {
        if let Some(subscription) = self.key.take() {
            self.instance.end(Ended::Subscription(subscription));
        }
    }
}

impl Instance {
    fn end(&self, ended: Ended) {
        self.ended.lock().push(ended);
        // With a full mailbox there is a next turn already.
        let _ = self.server.cast(RemoveEnded);
    }
}

/// The server that owns the table.
#[derive(Debug)]
struct SessionServer {
    table: SessionTable,
    close: fn(&mut SessionTable, SessionKey),
    ended: Arc<EndedList>,
    activities: Activities,
    sweep: Option<(TimerKey, Instant)>,
}

enum SessionCall {
    Open { guard: ClientSession },
    Advertise { session: SessionKey, name: ServiceName, ttl: Option<Duration> },
    Withdraw { session: SessionKey, name: ServiceName },
    Subscribe { session: SessionKey, guard: SubscriptionGuard },
}

enum SessionReply {
    Opened(ClientSession),
    Advertised { new: bool },
    Withdrawn { existed: bool },
    Subscribed(SubscriptionGuard),
}

struct RemoveEnded;
struct Sweep;

impl GenServer for SessionServer {
    type Call = SessionCall;
    type Reply = SessionReply;
    type Error = SessionError;
    type Cast = RemoveEnded;
    type Message = Sweep;

    async fn call(&mut self, call: SessionCall, ctx: &mut Context<Self>) -> Result<Response<Self>, BoxError> {
        self.remove_ended();
        let now = Instant::now();
        let result = match call {
            SessionCall::Open { mut guard } => self.table.open(guard.number, guard.calls.clone()).map(|session| {
                guard.key = Some(session);
                self.activities.write().insert(session, Arc::clone(&guard.activity));
                SessionReply::Opened(guard)
            }),
            SessionCall::Advertise { session, name, ttl } => {
                self.table.advertise(session, name, ttl, now).map(|new| SessionReply::Advertised { new })
            }
            SessionCall::Withdraw { session, name } => {
                Ok(SessionReply::Withdrawn { existed: self.table.withdraw(session, &name) })
            }
            SessionCall::Subscribe { session, mut guard } => {
                self.table.subscribe(session, guard.end.clone()).map(|key| {
                    guard.key = Some(key);
                    SessionReply::Subscribed(guard)
                })
            }
        };
        self.arm_sweep(ctx, now);
        Ok(result.into())
    }

    async fn cast(&mut self, RemoveEnded: RemoveEnded, _: &mut Context<Self>) -> Result<(), BoxError> {
        self.remove_ended();
        Ok(())
    }

    async fn message(&mut self, Sweep: Sweep, ctx: &mut Context<Self>) -> Result<(), BoxError> {
        self.remove_ended();
        self.sweep = None;
        let now = Instant::now();
        self.table.sweep(now);
        self.arm_sweep(ctx, now);
        Ok(())
    }

    async fn idle(&mut self, _: &mut Context<Self>) -> Result<(), BoxError> {
        self.table.compact(&CompactPolicy::default());
        Ok(())
    }

    fn method(call: &SessionCall) -> &'static str {
        match call {
            SessionCall::Open { .. } => "open",
            SessionCall::Advertise { .. } => "advertise",
            SessionCall::Withdraw { .. } => "withdraw",
            SessionCall::Subscribe { .. } => "subscribe",
        }
    }
}

impl SessionServer {
    fn remove_ended(&mut self) {
        let ended = std::mem::take(&mut *self.ended.lock());
        for ended in ended {
            match ended {
                Ended::Session(session) => {
                    (self.close)(&mut self.table, session);
                    self.activities.write().remove(&session);
                }
                Ended::Subscription(subscription) => self.table.unsubscribe(subscription),
            }
        }
    }

    /// Sets the timer of the next sweep, or sets it earlier when a shorter lease was added.
    fn arm_sweep(&mut self, ctx: &mut Context<Self>, now: Instant) {
        let after = self.table.sweep_after(rand::random());
        if self.sweep.is_some_and(|(_, due)| due <= now + after) {
            return;
        }
        if let Some((timer, _)) = self.sweep.take() {
            ctx.cancel(timer);
        }
        self.sweep = ctx.send_after(after, Sweep).ok().map(|timer| (timer, now + after));
    }
}

/// The counters of the server and of its table.
struct SessionInspector {
    counters: Arc<SessionTableCounters>,
    server: Arc<dyn Inspect>,
}

impl Inspect for SessionInspector {
    fn inspect(&self) -> Details {
        let mut details = self.server.inspect();
        self.counters.add_to(&mut details);
        details
    }
}

//! The clients of a gateway with their subscriptions and what they advertise: one server that owns the books, and the handle
//! to it.
//!
//! A connection enters when it is let in and leaves when its guard is dropped, however it ends. Leaving cannot be refused
//! by a full mailbox: who left is noted first, and the server looks at that list at the beginning of every turn. The same
//! holds for a subscription. A client that is taken out takes all with it: its calls, its subscriptions, its leases.
//!
//! The streams of calls are no rows of their own, as two turns of the server for each call would cost more than the call:
//! they are tasks of the connection, and its row has the token that ends them.

mod books;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use plimsoll::bounded::sessions::{ResourceKey, SessionKey};
use plimsoll::bounded::{Cap, Compact as _, CompactPolicy, RegistryRefusal, ResourceCaps, SessionRefusal};
use plimsoll::call::{CallClient, CallError};
use plimsoll::inspect::{Details, Inspect};
use plimsoll::ractor::{ActorCell, SpawnErr};
use plimsoll::server::{self, BoxError, Reply, Server, Serving, TimerKey, Turn};
use plimsoll::supervisor::Child;
use tokio_util::sync::CancellationToken;

pub use books::AdvertisementLimits;
use books::{Books, BooksCounters, Leases, Refused};

use crate::names::ServiceName;
use crate::problem::{Code, Problem};

/// How long the books lie untouched before they give back what they do not need.
const QUIET: Duration = Duration::from_secs(60);

/// The handle to the sessions of one gateway, which outlives their server.
#[derive(Debug)]
pub(super) struct Clients {
    limits: AdvertisementLimits,
    clients: usize,
    subscriptions: ResourceCaps,
    running: ArcSwapOption<Running>,
    entered: AtomicU64,
}

/// One run of the server. Its keys mean nothing to a later one, so that who left is noted with the run it had entered.
#[derive(Debug)]
struct Running {
    server: CallClient<Serving<Keeper>>,
    left: Arc<Left>,
    leases: Leases,
}

/// Who or what left and has not been taken out yet: each once, so at most as many as there are.
type Left = Mutex<Vec<Gone>>;

#[derive(Debug, Clone, Copy)]
enum Gone {
    Client(SessionKey),
    Subscription(ResourceKey),
}

impl Clients {
    /// A client has at most as many subscriptions as streams.
    pub(super) fn new(clients: usize, subscriptions: Cap, streams: u32, limits: AdvertisementLimits) -> Self {
        let per_client = Cap::new(streams as usize).unwrap_or(Cap::of::<1>());
        let subscriptions = ResourceCaps { total: subscriptions, per_client };
        Self { limits, clients, subscriptions, running: ArcSwapOption::empty(), entered: AtomicU64::new(0) }
    }

    /// Starts the server as a child of `parent`, with empty books.
    pub(super) async fn start(&self, parent: ActorCell) -> Result<Child, SpawnErr> {
        let books = Books::new(self.clients, self.subscriptions, &self.limits);
        let counters = Arc::new(books.counters());
        let left = Arc::<Left>::default();
        let leases = books.leases();
        let args = (books, Arc::clone(&left));
        let started = server::builder::<Keeper>(args).idle(QUIET).start_linked(parent).await?;
        let shown = Shown { counters, server: started.inspector() };
        self.running.store(Some(Arc::new(Running { server: started.client(), left, leases })));
        Ok(Child::from(started).inspect(Arc::new(shown)))
    }

    /// Enters a client, until the guard is dropped.
    ///
    /// Cancel safe: a client that entered and is not told so leaves again.
    pub(super) async fn enter(&self) -> Result<Entered, Problem> {
        let Some(running) = self.running.load_full() else { return Err(not_running()) };
        let nth = self.entered.fetch_add(1, Relaxed);
        let guard = Entered { running: Arc::clone(&running), nth, session: None, streams: CancellationToken::new() };
        match ask(&running, Ask::Enter { guard }).await? {
            Told::Entered(entered) => Ok(entered),
            _ => Err(unexpected()),
        }
    }

    /// Lets a client advertise `name`: whether it is new.
    ///
    /// Cancel safe: it happens or not, and ends with the client at the latest.
    pub(super) async fn advertise(
        &self,
        client: SessionKey,
        name: ServiceName,
        ttl: Option<Duration>,
    ) -> Result<bool, Problem> {
        match self.ask(Ask::Advertise { client, name, ttl }).await? {
            Told::Advertised { new } => Ok(new),
            _ => Err(unexpected()),
        }
    }

    /// Takes an advertisement of a client back: whether it was there.
    ///
    /// Cancel safe: it happens or not.
    pub(super) async fn withdraw(&self, client: SessionKey, name: ServiceName) -> Result<bool, Problem> {
        match self.ask(Ask::Withdraw { client, name }).await? {
            Told::Withdrawn { there } => Ok(there),
            _ => Err(unexpected()),
        }
    }

    /// Enters a subscription of a client, until the guard is dropped.
    ///
    /// Cancel safe: one that was entered and is not told so is taken out again.
    pub(super) async fn subscribe(&self, client: &Entered) -> Result<Subscribed, Problem> {
        let running = Arc::clone(&client.running);
        let Some(client) = client.session() else { return Err(not_running()) };
        let guard = Subscribed { running: Arc::clone(&running), subscription: None, end: CancellationToken::new() };
        match ask(&running, Ask::Subscribe { client, guard }).await? {
            Told::Subscribed(subscribed) => Ok(subscribed),
            _ => Err(unexpected()),
        }
    }

    /// What clients advertise now, sorted. Read from the leases themselves, without a turn of the server.
    pub(super) fn advertised(&self) -> Result<Vec<ServiceName>, Problem> {
        let running = self.running.load();
        let running = running.as_ref().ok_or_else(not_running)?;
        Ok(books::names(&running.leases, Instant::now()))
    }

    async fn ask(&self, question: Ask) -> Result<Told, Problem> {
        let Some(running) = self.running.load_full() else { return Err(not_running()) };
        ask(&running, question).await
    }
}

async fn ask(running: &Running, question: Ask) -> Result<Told, Problem> {
    running.server.call(question).await.map_err(|error| match error {
        CallError::App(refused) => problem(&refused),
        CallError::Overloaded(_) => Problem::new(Code::Overloaded, "the gateway's sessions are overloaded"),
        _ => not_running(),
    })
}

fn not_running() -> Problem {
    Problem::new(Code::ShuttingDown, "the gateway's sessions are not running")
}

fn unexpected() -> Problem {
    Problem::new(Code::WorkerDied, "the gateway's sessions answered something else")
}

fn problem(refused: &Refused) -> Problem {
    let code = match refused {
        Refused::Session(SessionRefusal::MaxClientsReached { .. }) => Code::MaxClientsReached,
        Refused::Session(SessionRefusal::Ended) => Code::ShuttingDown,
        Refused::Session(SessionRefusal::ClientFull { .. })
        | Refused::Registry(RegistryRefusal::OwnerFull { .. } | RegistryRefusal::RateLimited { .. }) => {
            Code::RateLimited
        }
        Refused::Session(_) | Refused::Registry(_) => Code::Overloaded,
    };
    let mut problem = Problem::new(code, refused.to_string());
    if let Refused::Registry(RegistryRefusal::RateLimited { retry_after }) = refused {
        problem.retry_after = Some(*retry_after);
    }
    problem
}

/// A client that is in. It leaves when this is dropped, with all that it advertises.
#[derive(Debug)]
#[must_use = "the client leaves when this is dropped"]
pub(super) struct Entered {
    running: Arc<Running>,
    nth: u64,
    /// `None` on its way in.
    session: Option<SessionKey>,
    streams: CancellationToken,
}

impl Entered {
    /// Which client of this node it is, ever since.
    pub(super) fn nth(&self) -> u64 {
        self.nth
    }

    /// The session, once the client is in.
    pub(super) fn session(&self) -> Option<SessionKey> {
        self.session
    }

    /// Ends the calls on its streams; cancelled at the latest when it is taken out of the books.
    pub(super) fn streams(&self) -> &CancellationToken {
        &self.streams
    }
}

impl Drop for Entered {
    /// Never refused, never waits: noted here, and looked at in the server's next turn.
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            self.running.gone(Gone::Client(session));
        }
    }
}

/// A subscription that is in the books. It is taken out when this is dropped.
#[derive(Debug)]
#[must_use = "the subscription is taken out when this is dropped"]
pub(super) struct Subscribed {
    running: Arc<Running>,
    /// `None` on its way in.
    subscription: Option<ResourceKey>,
    end: CancellationToken,
}

impl Subscribed {
    /// Waits until its client is taken out.
    ///
    /// Cancel safe.
    pub(super) async fn ended(&self) {
        self.end.cancelled().await;
    }
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        if let Some(subscription) = self.subscription.take() {
            self.running.gone(Gone::Subscription(subscription));
        }
    }
}

impl Running {
    fn gone(&self, gone: Gone) {
        self.left.lock().push(gone);
        // With a full mailbox there is a next turn already.
        let _ = self.server.cast(LookWhoLeft);
    }
}

/// The server: it owns the books.
#[derive(Debug)]
struct Keeper {
    books: Books,
    left: Arc<Left>,
    sweep: Option<(TimerKey, Instant)>,
}

enum Ask {
    Enter { guard: Entered },
    Advertise { client: SessionKey, name: ServiceName, ttl: Option<Duration> },
    Withdraw { client: SessionKey, name: ServiceName },
    Subscribe { client: SessionKey, guard: Subscribed },
}

enum Told {
    Entered(Entered),
    Advertised { new: bool },
    Withdrawn { there: bool },
    Subscribed(Subscribed),
}

struct LookWhoLeft;
struct Sweep;

impl Server for Keeper {
    type Args = (Books, Arc<Left>);
    type Call = Ask;
    type Reply = Told;
    type Error = Refused;
    type Cast = LookWhoLeft;
    type Message = Sweep;

    async fn init((books, left): Self::Args, _: &mut Turn<Self>) -> Result<Self, BoxError> {
        Ok(Self { books, left, sweep: None })
    }

    async fn call(&mut self, ask: Ask, reply: Reply<Self>, turn: &mut Turn<Self>) -> Result<(), BoxError> {
        self.take_out();
        let now = Instant::now();
        let told = match ask {
            Ask::Enter { mut guard } => self.books.enter(guard.nth, guard.streams.clone()).map(|session| {
                guard.session = Some(session);
                Told::Entered(guard)
            }),
            Ask::Advertise { client, name, ttl } => {
                self.books.advertise(client, name, ttl, now).map(|new| Told::Advertised { new })
            }
            Ask::Withdraw { client, name } => Ok(Told::Withdrawn { there: self.books.withdraw(client, &name) }),
            Ask::Subscribe { client, mut guard } => self.books.subscribe(client, guard.end.clone()).map(|key| {
                guard.subscription = Some(key);
                Told::Subscribed(guard)
            }),
        };
        reply.send(told);
        self.arm(turn, now);
        Ok(())
    }

    async fn cast(&mut self, LookWhoLeft: LookWhoLeft, _: &mut Turn<Self>) -> Result<(), BoxError> {
        self.take_out();
        Ok(())
    }

    async fn message(&mut self, Sweep: Sweep, turn: &mut Turn<Self>) -> Result<(), BoxError> {
        self.take_out();
        self.sweep = None;
        let now = Instant::now();
        self.books.sweep(now);
        self.arm(turn, now);
        Ok(())
    }

    async fn idle(&mut self, _: &mut Turn<Self>) -> Result<(), BoxError> {
        self.books.compact(&CompactPolicy::default());
        Ok(())
    }

    fn method(ask: &Ask) -> &'static str {
        match ask {
            Ask::Enter { .. } => "enter",
            Ask::Advertise { .. } => "advertise",
            Ask::Withdraw { .. } => "withdraw",
            Ask::Subscribe { .. } => "subscribe",
        }
    }
}

impl Keeper {
    fn take_out(&mut self) {
        let left = std::mem::take(&mut *self.left.lock());
        for gone in left {
            match gone {
                Gone::Client(session) => self.books.leave(session),
                Gone::Subscription(subscription) => self.books.unsubscribe(subscription),
            }
        }
    }

    /// Sets the timer of the next sweep, or sets it earlier when a shorter lease has come.
    fn arm(&mut self, turn: &mut Turn<Self>, now: Instant) {
        let after = self.books.sweep_after(rand::random());
        if self.sweep.is_some_and(|(_, due)| due <= now + after) {
            return;
        }
        if let Some((timer, _)) = self.sweep.take() {
            turn.cancel(timer);
        }
        self.sweep = turn.send_after(after, Sweep).ok().map(|timer| (timer, now + after));
    }
}

/// The server's own counters, and those of the books.
struct Shown {
    counters: Arc<BooksCounters>,
    server: Arc<dyn Inspect>,
}

impl Inspect for Shown {
    fn inspect(&self) -> Details {
        let mut details = self.server.inspect();
        self.counters.add_to(&mut details);
        details
    }
}

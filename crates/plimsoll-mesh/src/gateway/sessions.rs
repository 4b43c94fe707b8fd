//! The clients of a gateway and what they advertise: one server that owns the books, and the handle to it.
//!
//! A connection enters when it is let in and leaves when its guard is dropped, however it ends. Leaving cannot be refused
//! by a full mailbox: who left is noted first, and the server looks at that list at the beginning of every turn.

mod books;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use plimsoll::bounded::sessions::SessionKey;
use plimsoll::bounded::{Compact as _, CompactPolicy, RegistryRefusal, SessionRefusal};
use plimsoll::call::{CallClient, CallError};
use plimsoll::inspect::{Details, Inspect};
use plimsoll::ractor::{ActorCell, SpawnErr};
use plimsoll::server::{self, BoxError, Reply, Server, Serving, TimerKey, Turn};
use plimsoll::supervisor::Child;

pub use books::AdvertisementLimits;
use books::{Books, BooksCounters, Refused};

use crate::names::ServiceName;
use crate::problem::{Code, Problem};

/// How long the books lie untouched before they give back what they do not need.
const QUIET: Duration = Duration::from_secs(60);

/// The handle to the sessions of one gateway, which outlives their server.
#[derive(Debug)]
pub(super) struct Clients {
    limits: AdvertisementLimits,
    clients: usize,
    running: ArcSwapOption<Running>,
    entered: AtomicU64,
}

/// One run of the server. Its keys mean nothing to a later one, so that who left is noted with the run it had entered.
#[derive(Debug)]
struct Running {
    server: CallClient<Serving<Keeper>>,
    left: Arc<Left>,
}

/// Who left and has not been taken out yet: each session once, so at most as many as there are.
type Left = Mutex<Vec<SessionKey>>;

impl Clients {
    pub(super) fn new(clients: usize, limits: AdvertisementLimits) -> Self {
        Self { limits, clients, running: ArcSwapOption::empty(), entered: AtomicU64::new(0) }
    }

    /// Starts the server as a child of `parent`, with empty books.
    pub(super) async fn start(&self, parent: ActorCell) -> Result<Child, SpawnErr> {
        let books = Books::new(self.clients, &self.limits);
        let counters = Arc::new(books.counters());
        let left = Arc::<Left>::default();
        let args = (books, Arc::clone(&left));
        let started = server::builder::<Keeper>(args).idle(QUIET).start_linked(parent).await?;
        let shown = Shown { counters, server: started.inspector() };
        self.running.store(Some(Arc::new(Running { server: started.client(), left })));
        Ok(Child::from(started).inspect(Arc::new(shown)))
    }

    /// Enters a client, until the guard is dropped.
    ///
    /// Cancel safe: a client that entered and is not told so leaves again.
    pub(super) async fn enter(&self, address: SocketAddr) -> Result<Entered, Problem> {
        let Some(running) = self.running.load_full() else { return Err(not_running()) };
        let nth = self.entered.fetch_add(1, Relaxed);
        let guard = Entered { running: Arc::clone(&running), session: None };
        match ask(&running, Ask::Enter { nth, address, guard }).await? {
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

    /// What clients advertise now, sorted.
    ///
    /// Cancel safe.
    pub(super) async fn advertised(&self) -> Result<Vec<ServiceName>, Problem> {
        match self.ask(Ask::List).await? {
            Told::Names(names) => Ok(names),
            _ => Err(unexpected()),
        }
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
    /// `None` on its way in.
    session: Option<SessionKey>,
}

impl Entered {
    /// The session, once the client is in.
    pub(super) fn session(&self) -> Option<SessionKey> {
        self.session
    }
}

impl Drop for Entered {
    /// Never refused, never waits: noted here, and looked at in the server's next turn.
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            self.running.left.lock().push(session);
            // With a full mailbox there is a next turn already.
            let _ = self.running.server.cast(LookWhoLeft);
        }
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
    Enter { nth: u64, address: SocketAddr, guard: Entered },
    Advertise { client: SessionKey, name: ServiceName, ttl: Option<Duration> },
    Withdraw { client: SessionKey, name: ServiceName },
    List,
}

enum Told {
    Entered(Entered),
    Advertised { new: bool },
    Withdrawn { there: bool },
    Names(Vec<ServiceName>),
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
            Ask::Enter { nth, address, mut guard } => self.books.enter(nth, address).map(|session| {
                guard.session = Some(session);
                Told::Entered(guard)
            }),
            Ask::Advertise { client, name, ttl } => {
                self.books.advertise(client, name, ttl, now).map(|new| Told::Advertised { new })
            }
            Ask::Withdraw { client, name } => Ok(Told::Withdrawn { there: self.books.withdraw(client, &name) }),
            Ask::List => Ok(Told::Names(self.books.names(now))),
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
            Ask::List => "list",
        }
    }
}

impl Keeper {
    fn take_out(&mut self) {
        let left = std::mem::take(&mut *self.left.lock());
        for session in left {
            self.books.leave(session);
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

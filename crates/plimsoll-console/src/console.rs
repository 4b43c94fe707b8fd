//! The admin listener as a supervised actor.
//!
//! The actor owns the socket file and a task that accepts; it fails when that task ends on its own. Connections live in
//! the task's own set and end with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use plimsoll::bounded::LogThrottle;
use plimsoll::inspect::{Details, Inspect, Metric};
use plimsoll::ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use plimsoll::supervisor::Child;
use serde::Serialize;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, warn};

use crate::routes::{Source, router};
use crate::socket::{self, BindError};

/// Connections served at once.
pub const MAX_CONNECTIONS: usize = 32;

/// How long one connection may take from accept to answer.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(10);

/// The pause after a failed accept, so that a lack of descriptors does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The admin listener, before it starts.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use plimsoll::ractor::{Actor, ActorProcessingErr, ActorRef};
/// # struct Root;
/// # impl Actor for Root {
/// #     type Msg = (); type State = (); type Arguments = ();
/// #     async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> { Ok(()) }
/// # }
/// # let (root, _) = Actor::spawn(None, Root, ()).await?;
/// # let parent = root.get_cell();
/// # let folder = tempfile::tempdir()?;
/// use plimsoll_console::{Console, client};
///
/// let socket = folder.path().join("admin.sock");
/// let child = Console::new(&socket, || "all is well").start(parent).await?;
/// let json = client::get(&socket, "/v1/admin/snapshot", std::time::Duration::from_secs(1)).await?;
/// assert_eq!(&json[..], br#""all is well""#);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Console {
    path: PathBuf,
    source: Source,
}

/// Why the admin listener did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// There is no socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// There is no actor.
    #[error("the console's actor did not start")]
    Spawn(#[from] SpawnErr),
}

impl Console {
    /// A console on the Unix socket `path` that shows what `snapshot` returns, each time anew.
    pub fn new<T: Serialize>(path: impl Into<PathBuf>, snapshot: impl Fn() -> T + Send + Sync + 'static) -> Self {
        Self { path: path.into(), source: Arc::new(move || serde_json::to_vec(&snapshot())) }
    }

    /// Whether a console can listen on this path, as far as its length tells. Makes nothing.
    ///
    /// # Errors
    /// [`BindError::TooLong`].
    pub fn check(path: &Path) -> Result<(), BindError> {
        socket::check(path)
    }

    /// Listens, linked to `parent`.
    ///
    /// # Errors
    /// [`StartError::Bind`] when another process listens there, the path is taken or the system refuses.
    ///
    /// Cancel safe: a start that is given up leaves a stale socket file at most, which the next start replaces.
    pub async fn start(self, parent: ActorCell) -> Result<Child, StartError> {
        let listener = socket::bind(&self.path).await?;
        let counters = Arc::new(Counters::default());
        let inspect = Arc::clone(&counters);
        let (actor, ended) =
            Actor::spawn_linked(None, Listener, Arguments { console: self, listener, counters }, parent).await?;
        Ok(Child::from((actor, ended)).inspect(inspect))
    }
}

impl std::fmt::Debug for Console {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Console").field("path", &self.path).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Counters {
    connections: AtomicU64,
    accepted: AtomicU64,
    failed: AtomicU64,
}

impl Inspect for Counters {
    fn inspect(&self) -> Details {
        let read = |value: &AtomicU64| value.load(Ordering::Relaxed);
        Details {
            counters: [
                ("connections", Metric::gauge(read(&self.connections))),
                ("accepted", Metric::counter(read(&self.accepted))),
                ("failed", Metric::counter(read(&self.failed))),
            ]
            .into(),
            ..Details::default()
        }
    }
}

struct Listener;

/// The accepting task is over.
struct Over;

struct Arguments {
    console: Console,
    listener: UnixListener,
    counters: Arc<Counters>,
}

struct State {
    path: PathBuf,
    // Dropped with the state, also when the actor is killed.
    _stop: DropGuard,
}

impl Actor for Listener {
    type Msg = Over;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(&self, myself: ActorRef<Over>, start: Arguments) -> Result<State, ActorProcessingErr> {
        let stop = CancellationToken::new();
        let over = NotifyOnDrop(myself);
        let Arguments { console: Console { path, source }, listener, counters } = start;
        let stopped = stop.clone();
        tokio::spawn(async move {
            let _over = over;
            stopped.run_until_cancelled(accept(listener, source, counters)).await;
        });
        Ok(State { path, _stop: stop.drop_guard() })
    }

    async fn handle(&self, _: ActorRef<Over>, _: Over, _: &mut State) -> Result<(), ActorProcessingErr> {
        Err("the accepting task ended".into())
    }

    async fn post_stop(&self, _: ActorRef<Over>, state: &mut State) -> Result<(), ActorProcessingErr> {
        remove(&state.path);
        Ok(())
    }
}

/// Notifies the actor when the task ends, however it ends.
struct NotifyOnDrop(ActorRef<Over>);

impl Drop for NotifyOnDrop {
    fn drop(&mut self) {
        let _ = self.0.cast(Over);
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        warn!(target: "plimsoll::console", path = %path.display(), %error, "the socket file stays");
    }
}

async fn accept(listener: UnixListener, source: Source, counters: Arc<Counters>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut throttle = LogThrottle::default();
    // The semaphore is never closed.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                counters.accepted.fetch_add(1, Ordering::Relaxed);
                // The whole connection moves into the task, so that a panic or a stop also ends it.
                let (source, connection) = (Arc::clone(&source), Connection::begin(&counters));
                connections.spawn(async move {
                    let (_place, connection) = (place, connection);
                    if serve(stream, source).await {
                        connection.served();
                    }
                });
            }
            Err(error) => {
                if let Some(suppressed) = throttle.record(Instant::now()) {
                    warn!(target: "plimsoll::console", %error, suppressed, "cannot accept");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A connection in the counters, however it ends: a snapshot may panic.
struct Connection {
    counters: Arc<Counters>,
    served: bool,
}

impl Connection {
    fn begin(counters: &Arc<Counters>) -> Self {
        counters.connections.fetch_add(1, Ordering::Relaxed);
        Self { counters: Arc::clone(counters), served: false }
    }

    fn served(mut self) {
        self.served = true;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.served {
            self.counters.failed.fetch_add(1, Ordering::Relaxed);
        }
        self.counters.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn serve(stream: UnixStream, source: Source) -> bool {
    let service = TowerToHyperService::new(router(source));
    let connection = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_DEADLINE, connection).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            debug!(target: "plimsoll::console", %error, "a connection failed");
            false
        }
        Err(_) => {
            debug!(target: "plimsoll::console", "a connection took longer than {CONNECTION_DEADLINE:?}");
            false
        }
    }
}

//! Child specs.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use ractor::ActorCell;
use serde::Serialize;
use tokio_util::sync::{CancellationToken, ReusableBoxFuture};

use super::child::Child;
use super::error::{BoxError, SpecError};
use super::into_supervisor::IntoSupervisor;
use super::options::{AutoShutdown, Backoff, Restart, Shutdown, StopMode};
use super::task;
use crate::inspect::{Inspect, Kind};

/// The grace of a worker that was given none.
pub(crate) const WORKER_GRACE: Duration = Duration::from_secs(5);

/// A start in a box that can be used again: one for `spawn_linked` is larger than what malloc hands out fast.
pub(crate) type StartBox = ReusableBoxFuture<'static, Result<Child, BoxError>>;
/// Puts a start in its place, and into the box that is there, if there is one.
pub(crate) type StartFn = Arc<dyn Fn(ActorCell, &mut Option<StartBox>) + Send + Sync>;

/// The result of a start function, in our types. Not an `async` block, which would hold the function's future twice.
pub(crate) fn converted<Fut, C, E>(start: Fut) -> impl Future<Output = Result<Child, BoxError>> + Send + 'static
where
    Fut: Future<Output = Result<C, E>> + Send + 'static,
    C: Into<Child>,
    E: Into<BoxError>,
{
    start.map(|result| result.map(Into::into).map_err(Into::into))
}

/// Puts a start in its place.
pub(crate) fn put(place: &mut Option<StartBox>, start: impl Future<Output = Result<Child, BoxError>> + Send + 'static) {
    match place {
        Some(used) => used.set(start),
        None => *place = Some(StartBox::new(start)),
    }
}

/// What `start` has put in its place.
pub(crate) fn placed(place: &mut Option<StartBox>) -> &mut StartBox {
    place.as_mut().expect("a start function puts a start in its place")
}

/// How one child is started, restarted and stopped.
///
/// | field | default |
/// |---|---|
/// | restart | [`Restart::Permanent`] |
/// | shutdown | five seconds for a worker, [`Shutdown::Infinity`] for a supervisor |
/// | stop_mode | [`StopMode::Stop`] |
/// | significant | no |
/// | backoff | 50 ms doubling to 30 s, full jitter |
/// | start_timeout | none: a start may take as long as it likes, and can be cancelled at any time |
///
/// ```
/// use std::time::Duration;
/// use plimsoll::supervisor::{ChildSpec, Restart, Shutdown};
///
/// let sweeper = ChildSpec::task("sweeper", |stop| async move {
///     stop.cancelled().await;
///     Ok(())
/// })
/// .restart(Restart::Transient)
/// .shutdown(Shutdown::After(Duration::from_secs(1)));
/// assert_eq!(sweeper.id(), "sweeper");
/// ```
#[derive(Clone)]
#[must_use = "a spec does nothing until it is given to a supervisor"]
pub struct ChildSpec {
    pub(crate) settings: ChildSettings,
    pub(crate) start: StartFn,
}

/// What a [`ChildSpec`] says, without its start function.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ChildSettings {
    /// The id, unique within the supervisor.
    pub id: Arc<str>,
    /// Supervisor or worker.
    pub kind: Kind,
    /// When it is started again.
    pub restart: Restart,
    /// How long it may take to stop.
    pub shutdown: Shutdown,
    /// Whether its end may end the supervisor.
    pub significant: bool,
    /// How it is asked to stop.
    pub stop_mode: StopMode,
    /// The delay before a restart.
    pub backoff: Backoff,
    /// How long its start may take; none: as long as it likes.
    pub start_timeout: Option<Duration>,
}

impl ChildSpec {
    /// A worker, started by an async function that gets the actor to link to.
    ///
    /// It returns what `ractor::Actor::spawn_linked` returns, or a [`Child`]. The actor must be linked to the function's
    /// argument. A function that has nothing to run returns [`StartError::Ignored`](super::StartError::Ignored): the spec is
    /// then kept without a child, unless the child is temporary. The function is kept for restarts; that of a temporary child
    /// is dropped once the child runs.
    ///
    /// ```
    /// use plimsoll::supervisor::{BoxError, ChildSpec, StartError};
    /// use ractor::{Actor, ActorCell};
    ///
    /// struct Metrics;
    /// impl Actor for Metrics {
    ///     type Msg = ();
    ///     type State = ();
    ///     type Arguments = ();
    ///     async fn pre_start(&self, _: ractor::ActorRef<()>, (): ()) -> Result<(), ractor::ActorProcessingErr> {
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let spec = ChildSpec::new("metrics", |parent: ActorCell| async move {
    ///     if std::env::var_os("METRICS").is_none() {
    ///         return Err(BoxError::from(StartError::Ignored));
    ///     }
    ///     Ok(Metrics::spawn_linked(None, Metrics, (), parent).await?)
    /// });
    /// assert_eq!(spec.id(), "metrics");
    /// ```
    pub fn new<F, Fut, C, E>(id: impl Into<Arc<str>>, start: F) -> Self
    where
        F: Fn(ActorCell) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<C, E>> + Send + 'static,
        C: Into<Child>,
        E: Into<BoxError>,
    {
        let start: StartFn = Arc::new(move |parent, place| put(place, converted(start(parent))));
        Self::with_start(id.into(), Kind::Worker, start)
    }

    /// The same for a start function with a configuration, which is cloned for each start.
    ///
    /// Use it where a closure would have to move what it captured (compiler error E0507).
    ///
    /// ```
    /// use plimsoll::supervisor::{BoxError, Child, ChildSpec};
    /// use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
    ///
    /// struct Greeter;
    /// impl Actor for Greeter {
    ///     type Msg = ();
    ///     type State = String;
    ///     type Arguments = String;
    ///     async fn pre_start(&self, _: ActorRef<()>, name: String) -> Result<String, ActorProcessingErr> {
    ///         Ok(name)
    ///     }
    /// }
    ///
    /// let spec = ChildSpec::with("greeter", "Ada".to_owned(), |parent, name| async move {
    ///     Greeter::spawn_linked(None, Greeter, name, parent).await
    /// });
    /// assert_eq!(spec.id(), "greeter");
    /// ```
    pub fn with<A, F, Fut, C, E>(id: impl Into<Arc<str>>, config: A, start: F) -> Self
    where
        A: Clone + Send + Sync + 'static,
        F: Fn(ActorCell, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<C, E>> + Send + 'static,
        C: Into<Child>,
        E: Into<BoxError>,
    {
        Self::new(id, move |parent| start(parent, config.clone()))
    }

    /// A plain async function as a child. The token is cancelled to stop it; when its grace is over it is killed: dropped
    /// at its next `await`. `Ok` is a normal exit, or a shutdown once its stop was requested; `Err` and a panic are
    /// failures. `?` converts any error.
    ///
    /// ```
    /// use plimsoll::supervisor::ChildSpec;
    ///
    /// let sweeper = ChildSpec::task("sweeper", |stop| async move {
    ///     stop.cancelled().await;
    ///     Ok(())
    /// });
    /// assert_eq!(sweeper.id(), "sweeper");
    /// ```
    pub fn task<F, Fut>(id: impl Into<Arc<str>>, run: F) -> Self
    where
        F: Fn(CancellationToken) -> Fut + Send + Sync + 'static,
        // Not generic in the error: a plain `Ok(())` would then need a type annotation.
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let start: StartFn = Arc::new(move |parent, place| {
            let token = CancellationToken::new();
            let work = run(token.clone());
            put(place, task::start(parent, token, Box::pin(work)));
        });
        Self::with_start(id.into(), Kind::Worker, start)
    }

    /// The same for a function with a configuration, which is cloned for each start. A closure for [`task`](Self::task) that
    /// moved its configuration into the future could run only once, which the compiler rejects as E0507:
    ///
    /// ```compile_fail,E0507
    /// use plimsoll::supervisor::ChildSpec;
    ///
    /// let paths = vec!["a".to_owned(), "b".to_owned()];
    /// ChildSpec::task("sweeper", move |stop| async move {
    ///     drop(paths);
    ///     stop.cancelled().await;
    ///     Ok(())
    /// });
    /// ```
    ///
    /// With the configuration as an argument it compiles:
    ///
    /// ```
    /// use plimsoll::supervisor::ChildSpec;
    ///
    /// let paths = vec!["a".to_owned(), "b".to_owned()];
    /// let sweeper = ChildSpec::task_with("sweeper", paths, |stop, paths| async move {
    ///     for path in paths {
    ///         println!("sweeping {path}");
    ///     }
    ///     stop.cancelled().await;
    ///     Ok(())
    /// });
    /// assert_eq!(sweeper.id(), "sweeper");
    /// ```
    pub fn task_with<A, F, Fut>(id: impl Into<Arc<str>>, config: A, run: F) -> Self
    where
        A: Clone + Send + Sync + 'static,
        F: Fn(CancellationToken, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        Self::task(id, move |stop| run(stop, config.clone()))
    }

    /// A supervisor, built anew for every start.
    ///
    /// The supervisor's reference is the child's [`value`](super::ChildRef::value).
    pub fn supervisor<F, T>(id: impl Into<Arc<str>>, build: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: IntoSupervisor,
    {
        let start: StartFn = Arc::new(move |parent, place| {
            let tree = build();
            put(place, async move { tree.start_under(parent).await.map_err(Into::into) });
        });
        Self::with_start(id.into(), Kind::Supervisor, start)
    }

    pub(crate) fn with_start(id: Arc<str>, kind: Kind, start: StartFn) -> Self {
        let shutdown = match kind {
            Kind::Supervisor => Shutdown::Infinity,
            _ => Shutdown::After(WORKER_GRACE),
        };
        let settings = ChildSettings {
            id,
            kind,
            restart: Restart::default(),
            shutdown,
            significant: false,
            stop_mode: StopMode::default(),
            backoff: Backoff::default(),
            start_timeout: None,
        };
        Self { settings, start }
    }

    /// When it is started again. Default: permanent.
    pub fn restart(mut self, restart: Restart) -> Self {
        self.settings.restart = restart;
        self
    }

    /// How long it may take to stop; a plain `Duration` is [`Shutdown::After`]. Default: five seconds, infinity for a supervisor.
    ///
    /// ```
    /// use std::time::Duration;
    /// use plimsoll::supervisor::{ChildSpec, Shutdown};
    ///
    /// let spec = ChildSpec::task("idle", |stop| async move { Ok(stop.cancelled().await) });
    /// let spec = spec.shutdown(Duration::from_secs(1)).backoff(Duration::from_millis(100));
    /// assert_eq!(spec.settings().shutdown, Shutdown::After(Duration::from_secs(1)));
    /// ```
    pub fn shutdown(mut self, shutdown: impl Into<Shutdown>) -> Self {
        self.settings.shutdown = shutdown.into();
        self
    }

    /// Whether its end may end the supervisor, see [`AutoShutdown`](super::AutoShutdown). Default: no.
    pub fn significant(mut self, significant: bool) -> Self {
        self.settings.significant = significant;
        self
    }

    /// How it is asked to stop. Default: [`StopMode::Stop`].
    pub fn stop_mode(mut self, stop_mode: StopMode) -> Self {
        self.settings.stop_mode = stop_mode;
        self
    }

    /// The delay before a restart; a plain `Duration` is [`Backoff::constant`]. Default: 50 ms to 30 s, full jitter.
    pub fn backoff(mut self, backoff: impl Into<Backoff>) -> Self {
        self.settings.backoff = backoff.into();
        self
    }

    /// How long its start may take before it is given up. Default: as long as it likes.
    pub fn start_timeout(mut self, limit: Duration) -> Self {
        self.settings.start_timeout = Some(limit);
        self
    }

    /// Says that the child started by [`new`](Self::new) is a supervisor: it is counted as one.
    pub fn kind(mut self, kind: Kind) -> Self {
        self.settings.kind = kind;
        self
    }

    /// Lets the child show these counters and children in the snapshot, in place of any it shows itself: for a task,
    /// which has no [`Child`] of its own to say so.
    pub fn inspect(mut self, inspect: Arc<dyn Inspect>) -> Self {
        let start = self.start;
        self.start = Arc::new(move |parent, place| {
            let (mut inner, inspect) = (None, Arc::clone(&inspect));
            start(parent, &mut inner);
            put(place, async move { placed(&mut inner).await.map(|child| child.inspect(inspect)) });
        });
        self
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.settings.id
    }

    /// What it says.
    pub fn settings(&self) -> &ChildSettings {
        &self.settings
    }
}

impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ChildSpec").field(&self.settings).finish()
    }
}

pub(crate) fn check_spec(spec: &ChildSpec, auto_shutdown: AutoShutdown) -> Result<(), SpecError> {
    let ChildSettings { id, significant, restart, .. } = &spec.settings;
    check_significant(id, *significant, *restart, auto_shutdown)
}

pub(crate) fn check_significant(
    id: &Arc<str>,
    significant: bool,
    restart: Restart,
    auto_shutdown: AutoShutdown,
) -> Result<(), SpecError> {
    match restart {
        _ if !significant => Ok(()),
        Restart::Permanent => Err(SpecError::SignificantPermanent { id: id.clone() }),
        _ if auto_shutdown == AutoShutdown::Never => Err(SpecError::SignificantNever { id: id.clone() }),
        _ => Ok(()),
    }
}

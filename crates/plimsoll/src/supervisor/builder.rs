//! Building a supervisor and starting it.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ractor::ActorCell;

use super::child::Child;
use super::child_spec::{ChildSpec, check_spec};
use super::error::{BoxError, SpecError, StartError};
use super::event::SupervisorEvent;
use super::event_queue::EventObserver;
use super::handle::SupervisorRef;
use super::into_supervisor::{IntoSupervisor, sealed::Sealed};
use super::options::{AutoShutdown, Strategy};
use super::runtime::{Observer, StaticLaunch, launch_static};
use super::shutdown_report::ShutdownReport;
use super::state::Flags;

/// Restarts within the period that are not yet too many (OTP's default).
pub const DEFAULT_INTENSITY: u32 = 1;
/// The period in which restarts are counted (OTP's default).
pub const DEFAULT_PERIOD: Duration = Duration::from_secs(5);
/// How long a supervisor waits for a killed child before it continues without it.
pub const DEFAULT_KILL_TIMEOUT: Duration = Duration::from_secs(1);

/// A supervisor of named children in a fixed order. See [`Supervisor::builder`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Supervisor;

impl Supervisor {
    /// A supervisor without children yet.
    ///
    /// The name is for logs, reports and the snapshot; it is not registered and need not be unique.
    ///
    /// ```
    /// use std::time::Duration;
    /// use plimsoll::supervisor::{BoxError, ChildSpec, Strategy, Supervisor};
    ///
    /// # #[tokio::main] async fn main() -> Result<(), BoxError> {
    /// let tree = Supervisor::builder("edge")
    ///     .strategy(Strategy::RestForOne)
    ///     .intensity(3, Duration::from_secs(10))
    ///     .child(ChildSpec::task("sweeper", |stop| async move {
    ///         stop.cancelled().await;
    ///         Ok(())
    ///     }))
    ///     .start()
    ///     .await?;
    /// assert!(tree.stop().await.unwrap().is_clean());
    /// # Ok(()) }
    /// ```
    pub fn builder(name: impl Into<Arc<str>>) -> SupervisorBuilder {
        SupervisorBuilder {
            name: name.into(),
            flags: Flags {
                strategy: Strategy::default(),
                intensity: DEFAULT_INTENSITY,
                period: DEFAULT_PERIOD,
                auto_shutdown: AutoShutdown::default(),
                kill_timeout: DEFAULT_KILL_TIMEOUT,
            },
            children: Vec::new(),
            observer: None,
            on_event: None,
        }
    }

    /// A supervisor whose flags and children are worked out when it starts (OTP's `init/1`), each time anew.
    ///
    /// A function that has nothing to supervise returns [`StartError::Ignored`].
    ///
    /// ```
    /// use plimsoll::supervisor::{BoxError, ChildSpec, StartError, Supervisor};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
    /// let shards = Supervisor::init("shards", |builder| async move {
    ///     let count: usize = "2".parse()?;
    ///     if count == 0 {
    ///         return Err(StartError::Ignored.into());
    ///     }
    ///     Ok(builder.children((0..count).map(|shard| {
    ///         ChildSpec::task(format!("shard-{shard}"), |stop| async move { Ok(stop.cancelled().await) })
    ///     })))
    /// });
    /// let tree = shards.start().await?;
    /// assert_eq!(tree.count_children()?.active, 2);
    /// # tree.stop().await?;
    /// # Ok(()) }
    /// ```
    pub fn init<F, Fut>(name: impl Into<Arc<str>>, init: F) -> SupervisorInit
    where
        F: FnOnce(SupervisorBuilder) -> Fut + Send + 'static,
        // Not generic in the error: a plain `Ok` would then need a type annotation.
        Fut: Future<Output = Result<SupervisorBuilder, BoxError>> + Send + 'static,
    {
        let builder = Self::builder(name);
        SupervisorInit { run: Box::new(move || Box::pin(init(builder))) }
    }
}

/// A supervisor on its way to its start.
#[must_use = "a supervisor does nothing until it is started"]
pub struct SupervisorBuilder {
    pub(crate) name: Arc<str>,
    pub(crate) flags: Flags,
    pub(crate) children: Vec<ChildSpec>,
    pub(crate) observer: Option<Observer>,
    pub(crate) on_event: Option<EventObserver>,
}

impl SupervisorBuilder {
    /// Which siblings a restart includes. Default: one_for_one.
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.flags.strategy = strategy;
        self
    }

    /// The supervisor gives up when there are more than `restarts` restarts within `period`; a restart exactly `period`
    /// ago still counts. Default: 1 in 5 s.
    pub fn intensity(mut self, restarts: u32, period: Duration) -> Self {
        self.flags.intensity = restarts;
        self.flags.period = period;
        self
    }

    /// Whether the end of significant children ends the supervisor. Default: never.
    pub fn auto_shutdown(mut self, auto_shutdown: AutoShutdown) -> Self {
        self.flags.auto_shutdown = auto_shutdown;
        self
    }

    /// How long the supervisor waits for a killed child before it names it in the report and continues without it. Default: 1 s.
    pub fn kill_timeout(mut self, after: Duration) -> Self {
        self.flags.kill_timeout = after;
        self
    }

    /// Adds a child; children start in the order in which they were added.
    pub fn child(mut self, spec: ChildSpec) -> Self {
        self.children.push(spec);
        self
    }

    /// Adds children, in order.
    pub fn children(mut self, specs: impl IntoIterator<Item = ChildSpec>) -> Self {
        self.children.extend(specs);
        self
    }

    /// Calls `observer` with the report at the end, unless a caller of `stop` receives it. Runs in the supervisor's task and
    /// must not block; a panic in it is dropped.
    pub fn on_shutdown(mut self, observer: impl Fn(&ShutdownReport) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// Calls `observer` with the supervisor's name for each start, exit, restart and failure of its own children, and when
    /// it gives up or ends: what OTP's supervisor and progress reports say. A nested supervisor has an observer of its own.
    ///
    /// Events arrive in order, one at a time, in the task that caused them or another one, never under a lock. The observer
    /// may use the supervisor. It must not block: at most 4,096 events wait, the rest is dropped and counted
    /// ([`SupervisorEvent::Omitted`]). A panic in it is caught.
    ///
    /// ```
    /// use plimsoll::supervisor::{Supervisor, SupervisorEvent};
    ///
    /// let builder = Supervisor::builder("edge").on_event(|supervisor, event| {
    ///     if let SupervisorEvent::GaveUp { child, reason } = event {
    ///         eprintln!("{supervisor} gave up on {child}: {reason}");
    ///     }
    /// });
    /// # drop(builder);
    /// ```
    pub fn on_event(mut self, observer: impl Fn(&str, &SupervisorEvent) + Send + Sync + 'static) -> Self {
        self.on_event = Some(Arc::new(observer));
        self
    }

    /// Starts the children in order and returns when all of them run. The supervisor has no parent: it lives until it is
    /// stopped, ends by itself, or the runtime is dropped.
    ///
    /// # Errors
    /// [`StartError::Spec`] for a specification that contradicts itself, [`StartError::FailedToStart`] when a child does
    /// not start: those already started have been stopped again, in reverse order.
    ///
    /// Cancel safe: dropping the future ends what had started.
    pub async fn start(self) -> Result<SupervisorRef, StartError> {
        self.check()?;
        launch_static(self.into(), None).await.map(|(runtime, _)| SupervisorRef::new(runtime))
    }

    /// The same as a child of `parent`, for use in a start function; [`ChildSpec::supervisor`] calls it.
    ///
    /// # Errors
    /// As [`start`](Self::start), and [`StartError::ShuttingDown`] when the parent is.
    ///
    /// Cancel safe: dropping the future ends what had started.
    pub async fn start_linked(self, parent: ActorCell) -> Result<Child, StartError> {
        self.check()?;
        let (runtime, ended) = launch_static(self.into(), Some(parent)).await?;
        Ok(SupervisorRef::new(runtime).into_child(ended))
    }

    fn check(&self) -> Result<(), SpecError> {
        if self.flags.period.is_zero() {
            return Err(SpecError::ZeroPeriod);
        }
        let mut ids = HashSet::new();
        for spec in &self.children {
            check_spec(spec, self.flags.auto_shutdown)?;
            if !ids.insert(spec.id()) {
                return Err(SpecError::DuplicateId { id: spec.settings.id.clone() });
            }
        }
        Ok(())
    }
}

impl From<SupervisorBuilder> for StaticLaunch {
    fn from(builder: SupervisorBuilder) -> Self {
        let SupervisorBuilder { name, flags, children, observer, on_event } = builder;
        Self { name, flags, children, observer, on_event }
    }
}

impl fmt::Debug for SupervisorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SupervisorBuilder")
            .field("name", &self.name)
            .field("flags", &self.flags)
            .field("children", &self.children)
            .finish_non_exhaustive()
    }
}

type InitFuture = Pin<Box<dyn Future<Output = Result<SupervisorBuilder, BoxError>> + Send>>;

/// A supervisor with an init function. See [`Supervisor::init`].
#[must_use = "a supervisor does nothing until it is started"]
pub struct SupervisorInit {
    run: Box<dyn FnOnce() -> InitFuture + Send>,
}

impl SupervisorInit {
    /// Runs the init function and starts the supervisor that it returns.
    ///
    /// # Errors
    /// [`StartError::Ignored`] when the init function returns it, [`StartError::Failed`] when it returns another error or
    /// panics, else as [`SupervisorBuilder::start`].
    ///
    /// Cancel safe: dropping the future ends what had started.
    pub async fn start(self) -> Result<SupervisorRef, StartError> {
        self.initialised().await?.start().await
    }

    /// The same as a child of `parent`.
    ///
    /// # Errors
    /// As [`start`](Self::start), and [`StartError::ShuttingDown`] when the parent is.
    ///
    /// Cancel safe: dropping the future ends what had started.
    pub async fn start_linked(self, parent: ActorCell) -> Result<Child, StartError> {
        self.initialised().await?.start_linked(parent).await
    }

    async fn initialised(self) -> Result<SupervisorBuilder, StartError> {
        super::runtime::guarded_start(self.run).await.map_err(|failure| match failure.is_ignored() {
            true => StartError::Ignored,
            false => StartError::Failed(super::runtime::describe(failure)),
        })
    }
}

impl fmt::Debug for SupervisorInit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SupervisorInit")
    }
}

impl Sealed for SupervisorBuilder {}
impl Sealed for SupervisorInit {}

impl IntoSupervisor for SupervisorBuilder {
    async fn start_under(self, parent: ActorCell) -> Result<Child, StartError> {
        self.start_linked(parent).await
    }
}

impl IntoSupervisor for SupervisorInit {
    async fn start_under(self, parent: ActorCell) -> Result<Child, StartError> {
        self.start_linked(parent).await
    }
}

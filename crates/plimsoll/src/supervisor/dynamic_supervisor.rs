//! Many children of one kind, started from a template and arguments.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ractor::concurrency::JoinHandle;
use ractor::{ActorCell, ActorId, ActorStatus};

use super::builder::{DEFAULT_INTENSITY, DEFAULT_KILL_TIMEOUT, DEFAULT_PERIOD};
use super::child::{Child, ChildRef};
use super::child_entry::{ChildCount, ChildEntry};
use super::child_handle::ChildHandle;
use super::child_spec::{ChildSettings, WORKER_GRACE, check_significant, converted, put};
use super::error::{BoxError, ChildError, Deadlock, SpecError, StartError};
use super::event::SupervisorEvent;
use super::event_queue::EventObserver;
use super::into_supervisor::{IntoSupervisor, sealed::Sealed};
use super::options::{AutoShutdown, Backoff, Restart, Shutdown, StopMode};
use super::runtime::{
    ChildTable, DynamicLaunch, DynamicRuntime, DynamicTable, Inner, KeepArgs, Observer, Response, TemplateFn,
    launch_dynamic, wait_for,
};
use super::shutdown_report::ShutdownReport;
use super::state::{DynamicState, Refusal, SupervisorState, Template};
use crate::inspect::{Details, Inspect, Kind, Status, TreeNode};

/// How many children a dynamic supervisor may have by default.
pub const DEFAULT_MAX_CHILDREN: u32 = 10_000;

/// A supervisor of many children of one kind, none of which depends on another (OTP's `simple_one_for_one`). See
/// [`DynamicSupervisor::builder`].
#[derive(Debug)]
#[non_exhaustive]
pub struct DynamicSupervisor;

impl DynamicSupervisor {
    /// A supervisor whose children are started by `template` from the arguments given to
    /// [`start_child`](DynamicSupervisorRef::start_child), which are kept for their restarts.
    ///
    /// The function runs in the task of the caller of `start_child`, and gets the actor to link to. A start and an end cost the
    /// same however many children there are.
    ///
    /// ```
    /// use plimsoll::supervisor::{DynamicSupervisor, Restart};
    /// use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
    ///
    /// struct Greeter;
    /// struct Greet;
    /// impl Actor for Greeter {
    ///     type Msg = Greet;
    ///     type State = String;
    ///     type Arguments = String;
    ///     async fn pre_start(&self, _: ActorRef<Greet>, name: String) -> Result<String, ActorProcessingErr> {
    ///         Ok(name)
    ///     }
    /// }
    ///
    /// # #[tokio::main] async fn main() -> Result<(), plimsoll::supervisor::StartError> {
    /// let greeters = DynamicSupervisor::builder("greeters", |parent: ActorCell, name: String| {
    ///     Greeter::spawn_linked(None, Greeter, name, parent)
    /// })
    /// .restart(Restart::Transient)
    /// .max_children(100)
    /// .start()
    /// .await?;
    /// let child = greeters.start_child("Ada".to_owned()).await?;
    /// assert_eq!(greeters.count_children().unwrap().active, 1);
    /// greeters.terminate_child(child.actor()).await.unwrap();
    /// assert!(greeters.stop().await.unwrap().is_clean());
    /// # Ok(()) }
    /// ```
    pub fn builder<A, F, Fut, C, E>(name: impl Into<Arc<str>>, template: F) -> DynamicBuilder<A>
    where
        A: Clone + Send + 'static,
        F: Fn(ActorCell, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<C, E>> + Send + 'static,
        C: Into<Child>,
        E: Into<BoxError>,
    {
        DynamicBuilder::new(name.into(), boxed(template), Some(A::clone), Restart::default())
    }

    /// The same for children that are never started again, whose arguments need not be kept: a connection, a request.
    pub fn temporary<A, F, Fut, C, E>(name: impl Into<Arc<str>>, template: F) -> DynamicBuilder<A>
    where
        A: Send + 'static,
        F: Fn(ActorCell, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<C, E>> + Send + 'static,
        C: Into<Child>,
        E: Into<BoxError>,
    {
        DynamicBuilder::new(name.into(), boxed(template), None, Restart::Temporary)
    }
}

fn boxed<A, F, Fut, C, E>(template: F) -> TemplateFn<A>
where
    A: Send + 'static,
    F: Fn(ActorCell, A) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<C, E>> + Send + 'static,
    C: Into<Child>,
    E: Into<BoxError>,
{
    Arc::new(move |parent, args, place| put(place, converted(template(parent, args))))
}

/// A dynamic supervisor on its way to its start.
///
/// | option | default |
/// |---|---|
/// | max_children | 10,000 |
/// | restart | permanent; temporary for [`DynamicSupervisor::temporary`] |
/// | shutdown | five seconds, under one common timer when the supervisor stops |
/// | intensity | 1 in 5 s, of all children together |
/// | backoff | 50 ms doubling to 30 s, full jitter |
/// | significant, auto_shutdown | no, never |
///
/// ```
/// use std::time::Duration;
/// use plimsoll::supervisor::{BoxError, Child, DynamicSupervisor};
/// use ractor::ActorCell;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// # async fn connect(parent: ActorCell, address: String) -> Result<Child, BoxError> { Err("no".into()) }
/// let connections = DynamicSupervisor::temporary("connections", connect)
///     .max_children(1_000)
///     .shutdown(Duration::from_secs(1))
///     .start()
///     .await?;
/// assert!(connections.start_child("203.0.113.9:443".to_owned()).await.is_err());
/// # connections.stop().await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a supervisor does nothing until it is started"]
pub struct DynamicBuilder<A> {
    name: Arc<str>,
    template: TemplateFn<A>,
    keep: Option<KeepArgs<A>>,
    child: Template,
    start_timeout: Option<Duration>,
    kind: Kind,
    intensity: u32,
    period: Duration,
    max_children: u32,
    observer: Option<Observer>,
    on_event: Option<EventObserver>,
}

impl<A: Send + 'static> DynamicBuilder<A> {
    fn new(name: Arc<str>, template: TemplateFn<A>, keep: Option<KeepArgs<A>>, restart: Restart) -> Self {
        Self {
            name,
            template,
            keep,
            child: Template {
                restart,
                shutdown: Shutdown::After(WORKER_GRACE),
                stop_mode: StopMode::default(),
                backoff: Backoff::default(),
                significant: false,
                auto_shutdown: AutoShutdown::default(),
                kill_timeout: DEFAULT_KILL_TIMEOUT,
            },
            start_timeout: None,
            kind: Kind::Worker,
            intensity: DEFAULT_INTENSITY,
            period: DEFAULT_PERIOD,
            max_children: DEFAULT_MAX_CHILDREN,
            observer: None,
            on_event: None,
        }
    }

    /// How many children there may be, those included that start, restart or stop.
    pub fn max_children(mut self, max: u32) -> Self {
        self.max_children = max;
        self
    }

    /// When a child is started again. Children of [`DynamicSupervisor::temporary`] stay temporary: their arguments are
    /// not kept.
    pub fn restart(mut self, restart: Restart) -> Self {
        if self.keep.is_some() {
            self.child.restart = restart;
        }
        self
    }

    /// How long a child may take to stop.
    pub fn shutdown(mut self, shutdown: impl Into<Shutdown>) -> Self {
        self.child.shutdown = shutdown.into();
        self
    }

    /// How a child is asked to stop.
    pub fn stop_mode(mut self, stop_mode: StopMode) -> Self {
        self.child.stop_mode = stop_mode;
        self
    }

    /// The delay before a restart.
    pub fn backoff(mut self, backoff: impl Into<Backoff>) -> Self {
        self.child.backoff = backoff.into();
        self
    }

    /// How long a start may take before it is given up. Default: as long as it likes.
    pub fn start_timeout(mut self, limit: Duration) -> Self {
        self.start_timeout = Some(limit);
        self
    }

    /// Whether the end of a child may end the supervisor. Default: no.
    pub fn significant(mut self, significant: bool) -> Self {
        self.child.significant = significant;
        self
    }

    /// Whether the end of significant children ends the supervisor: that of the first, or that of the last there is. One
    /// that is starting or restarting is there, one that was terminated is not. Default: never.
    pub fn auto_shutdown(mut self, auto_shutdown: AutoShutdown) -> Self {
        self.child.auto_shutdown = auto_shutdown;
        self
    }

    /// Whether the children are counted as workers or as supervisors. Default: workers.
    pub fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// The supervisor gives up when there are more than `restarts` restarts of all its children within `period`.
    pub fn intensity(mut self, restarts: u32, period: Duration) -> Self {
        self.intensity = restarts;
        self.period = period;
        self
    }

    /// How long the supervisor waits for a killed child before it names it in the report and continues without it. Default: 1 s.
    pub fn kill_timeout(mut self, after: Duration) -> Self {
        self.child.kill_timeout = after;
        self
    }

    /// Calls `observer` with the report at the end, unless a caller of `stop` receives it.
    pub fn on_shutdown(mut self, observer: impl Fn(&ShutdownReport) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// Calls `observer` for each event of its children, see
    /// [`SupervisorBuilder::on_event`](super::SupervisorBuilder::on_event). A child is named by its actor's id.
    pub fn on_event(mut self, observer: impl Fn(&str, &SupervisorEvent) + Send + Sync + 'static) -> Self {
        self.on_event = Some(Arc::new(observer));
        self
    }

    /// Starts the supervisor, without children and without a parent.
    ///
    /// # Errors
    /// [`StartError::Spec`] for a period or a maximum of zero, and for significant children that are permanent or whose
    /// supervisor never shuts down by itself.
    ///
    /// Cancel safe: dropping the future ends what had started.
    pub async fn start(self) -> Result<DynamicSupervisorRef<A>, StartError> {
        self.launch(None).await.map(|(runtime, _)| DynamicSupervisorRef { runtime })
    }

    /// The same as a child of `parent`. Its reference is the child's [`value`](super::ChildRef::value).
    ///
    /// # Errors
    /// As [`start`](Self::start), and [`StartError::ShuttingDown`] when the parent is.
    ///
    /// Cancel safe: dropping the future ends what had started.
    pub async fn start_linked(self, parent: ActorCell) -> Result<Child, StartError> {
        let (runtime, ended) = self.launch(Some(parent)).await?;
        Ok(DynamicSupervisorRef { runtime }.into_child(ended))
    }

    async fn launch(self, parent: Option<ActorCell>) -> Result<(Arc<DynamicRuntime<A>>, JoinHandle<()>), StartError> {
        if self.period.is_zero() {
            return Err(SpecError::ZeroPeriod.into());
        }
        if self.max_children == 0 {
            return Err(SpecError::ZeroMaxChildren.into());
        }
        check_significant(&self.name, self.child.significant, self.child.restart, self.child.auto_shutdown)?;
        let settings = ChildSettings {
            id: self.name.clone(),
            kind: self.kind,
            restart: self.child.restart,
            shutdown: self.child.shutdown,
            significant: self.child.significant,
            stop_mode: self.child.stop_mode,
            backoff: self.child.backoff,
            start_timeout: self.start_timeout,
        };
        let launch = DynamicLaunch {
            name: self.name,
            template: self.template,
            keep: self.keep.filter(|_| self.child.restart != Restart::Temporary),
            child: self.child,
            settings,
            intensity: self.intensity,
            period: self.period,
            max_children: self.max_children,
            observer: self.observer,
            on_event: self.on_event,
        };
        launch_dynamic(launch, parent).await
    }
}

impl<A> fmt::Debug for DynamicBuilder<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamicBuilder")
            .field("name", &self.name)
            .field("child", &self.child)
            .field("max_children", &self.max_children)
            .finish_non_exhaustive()
    }
}

impl<A: Send + 'static> Sealed for DynamicBuilder<A> {}

impl<A: Send + 'static> IntoSupervisor for DynamicBuilder<A> {
    async fn start_under(self, parent: ActorCell) -> Result<Child, StartError> {
        self.start_linked(parent).await
    }
}

/// A reference to a running [`DynamicSupervisor`]. Cheap to clone; dropping it stops nothing.
pub struct DynamicSupervisorRef<A> {
    runtime: Arc<DynamicRuntime<A>>,
}

impl<A> Clone for DynamicSupervisorRef<A> {
    fn clone(&self) -> Self {
        Self { runtime: self.runtime.clone() }
    }
}

impl<A: Send + 'static> DynamicSupervisorRef<A> {
    /// Starts a child, in the calling task.
    ///
    /// # Errors
    /// [`StartError::MaxChildren`] and [`StartError::ShuttingDown`] at once; [`StartError::Ignored`] when the template
    /// returns it, which is no failure; else why the start failed.
    ///
    /// Cost: the template's own, and two short critical sections of one lock.
    ///
    /// Cancel safe where the template is: a dropped `spawn_linked` ends the half-started actor.
    pub async fn start_child(&self, args: A) -> Result<ChildRef, StartError> {
        self.runtime.start_child(args).await
    }

    /// Stops a child and waits until it has ended; it is not started again. One that waits for its restart is named by its
    /// last actor. An actor that is dead is not an error, whosever child it was.
    ///
    /// # Errors
    /// [`ChildError::NotFound`] for a living actor that is not a child; [`ChildError::Deadlock`] when the caller runs in or
    /// below that child, or is waited for from there; [`ChildError::KillTimedOut`] when not even a kill ended it;
    /// [`ChildError::ShuttingDown`].
    ///
    /// Cancel safe: the stop goes on.
    pub async fn terminate_child(&self, actor: &ActorCell) -> Result<(), ChildError> {
        let child = self.runtime.read(|inner| inner.child_of(actor.get_id()));
        let _wait = child.map(wait_for).transpose()?;
        match self.runtime.terminate_child(actor.get_id()).await {
            None if actor.get_status() == ActorStatus::Stopped => Ok(()),
            None => Err(ChildError::NotFound),
            Some(Response::Done) => Ok(()),
            Some(Response::Refused(Refusal::KillTimedOut)) => Err(ChildError::KillTimedOut),
            Some(_) => Err(ChildError::ShuttingDown),
        }
    }

    /// What the template says of the child that runs as this actor.
    ///
    /// # Errors
    /// [`ChildError::NotFound`], [`ChildError::ShuttingDown`].
    pub fn child_spec(&self, actor: ActorId) -> Result<ChildSettings, ChildError> {
        self.read(|inner| match inner.table.has_actor(actor) {
            true => Ok(inner.table.settings().clone()),
            false => Err(ChildError::NotFound),
        })?
    }

    /// A handle to the child that runs as this actor, which survives its restarts.
    ///
    /// # Errors
    /// [`ChildError::NotFound`], [`ChildError::ShuttingDown`].
    pub fn child_handle<M: ractor::Message>(&self, actor: ActorId) -> Result<ChildHandle<M>, ChildError> {
        self.runtime
            .update(|inner, _| {
                if inner.state.is_shutting_down() {
                    return Some(Err(ChildError::ShuttingDown));
                }
                let key = inner.table.find(actor)?;
                Some(Ok(ChildHandle::here(inner.slot(key))))
            })
            .unwrap_or(Err(ChildError::NotFound))
    }

    /// All children, the newest first; they have no ids. O(n).
    ///
    /// # Errors
    /// [`ChildError::ShuttingDown`].
    pub fn which_children(&self) -> Result<Vec<ChildEntry>, ChildError> {
        self.read(|inner| inner.which_children())
    }

    /// How many children there are. O(n) for the active ones.
    ///
    /// # Errors
    /// [`ChildError::ShuttingDown`].
    pub fn count_children(&self) -> Result<ChildCount, ChildError> {
        self.read(|inner| inner.count_children())
    }
}

impl<A: Send + 'static> DynamicSupervisorRef<A> {
    /// Reads the state of a supervisor that is not shutting down.
    fn read<U>(&self, read: impl FnOnce(&Inner<DynamicState, DynamicTable<A>>) -> U) -> Result<U, ChildError> {
        self.runtime.read(|inner| match inner.state.is_shutting_down() {
            true => Err(ChildError::ShuttingDown),
            false => Ok(read(inner)),
        })
    }

    pub(super) fn into_child(self, ended: JoinHandle<()>) -> Child {
        let mut child = Child::new(self.actor(), ended).inspect(self.runtime.clone()).value(self.clone());
        child.nested = Some(self.runtime);
        child
    }

    /// The name it was built with.
    pub fn name(&self) -> &str {
        &self.runtime.name
    }

    /// Its actor, for links and monitors. Stopping this actor stops all children; killing it kills them.
    pub fn actor(&self) -> ActorCell {
        self.runtime.actor().clone()
    }

    /// How many children there may be.
    pub fn max_children(&self) -> u32 {
        self.runtime.read(|inner| inner.table.max_children())
    }

    /// Changes how many children there may be. Children over a lowered limit stay; new ones are refused meanwhile.
    pub fn set_max_children(&self, max: u32) {
        self.runtime.update(|inner, _| inner.table.set_max_children(max));
    }

    /// Stops all children at once, under one common timer, then the supervisor.
    ///
    /// # Errors
    /// [`Deadlock`] when the caller runs below this supervisor, or is waited for from there: nothing is stopped then.
    ///
    /// Cancel safe: the stop goes on.
    pub async fn stop(&self) -> Result<Arc<ShutdownReport>, Deadlock> {
        let _wait = self.runtime.wait_for_end()?;
        self.runtime.begin_stop_for_caller();
        Ok(self.runtime.wait().await)
    }

    /// Begins the same stop and does not wait for it: for a child that stops its own supervisor.
    pub fn begin_stop(&self) {
        self.runtime.begin_stop();
    }

    /// Waits until the supervisor has ended, for whatever reason.
    ///
    /// # Errors
    /// [`Deadlock`] when the caller runs below this supervisor, or is waited for from there.
    ///
    /// Cancel safe.
    pub async fn wait(&self) -> Result<Arc<ShutdownReport>, Deadlock> {
        let _wait = self.runtime.wait_for_end()?;
        Ok(self.runtime.wait().await)
    }

    /// Runs until `signal` completes, then stops the supervisor. Returns earlier when the supervisor ends by itself. The
    /// last line of a `main` function: `tree.run_until(tokio::signal::ctrl_c()).await?`.
    ///
    /// # Errors
    /// As [`stop`](Self::stop).
    ///
    /// Cancel safe: a stop that has begun goes on.
    pub async fn run_until(&self, signal: impl Future) -> Result<Arc<ShutdownReport>, Deadlock> {
        tokio::select! {
            report = self.wait() => report,
            _ = signal => self.stop().await,
        }
    }

    /// How it ended, if it has.
    pub fn report(&self) -> Option<Arc<ShutdownReport>> {
        self.runtime.report()
    }

    /// This supervisor and its children, without a turn of any actor. Of very many children only the first thousand are
    /// shown; the counters count all.
    pub fn inspect(&self) -> TreeNode {
        TreeNode {
            id: self.name().to_owned(),
            kind: Kind::Supervisor,
            status: match (self.report().is_some(), self.runtime.is_shutting_down()) {
                (true, _) => Status::Stopped,
                (false, true) => Status::Stopping,
                (false, false) => Status::Running,
            },
            actor: Some(self.actor().get_id().to_string()),
            restarts: 0,
            details: Inspect::inspect(&*self.runtime),
        }
    }
}

impl<A: Send + 'static> Inspect for DynamicSupervisorRef<A> {
    fn inspect(&self) -> Details {
        Inspect::inspect(&*self.runtime)
    }
}

impl<A: Send + 'static> fmt::Debug for DynamicSupervisorRef<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamicSupervisorRef").field("name", &self.name()).finish_non_exhaustive()
    }
}

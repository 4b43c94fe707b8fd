//! The reference to a running supervisor.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ractor::concurrency::JoinHandle;
use ractor::{ActorCell, ActorId};

use super::child::{Child, ChildRef, Nested};
use super::child_entry::{ChildCount, ChildEntry, ChildState};
use super::child_handle::{ChildHandle, HandleError};
use super::child_spec::{ChildSettings, ChildSpec, check_spec};
use super::error::{ChildError, Deadlock, StartError};
use super::runtime::{ChildTable, Inner, LiveChild, Response, StaticRuntime, StaticTable, wait_for};
use super::shutdown_report::ShutdownReport;
use super::state::{ChildPhase, Refusal, RequestId, StaticState, SupervisorState};
use crate::inspect::{Details, Inspect, Kind, Status, TreeNode};

/// A reference to a running [`Supervisor`](super::Supervisor). Cheap to clone; dropping it stops nothing.
///
/// Reads take the supervisor's lock for a moment and wait for nothing else. During the supervisor's own stop, and after it,
/// operations on children return `ShuttingDown` at once.
#[derive(Clone)]
pub struct SupervisorRef {
    runtime: Arc<StaticRuntime>,
}

impl SupervisorRef {
    pub(crate) fn new(runtime: Arc<StaticRuntime>) -> Self {
        Self { runtime }
    }

    /// Reads the state of a supervisor that is not shutting down.
    fn read<U>(
        &self,
        read: impl FnOnce(&Inner<StaticState, StaticTable>) -> Result<U, ChildError>,
    ) -> Result<U, ChildError> {
        self.runtime.read(|inner| match inner.state.is_shutting_down() {
            true => Err(ChildError::ShuttingDown),
            false => read(inner),
        })
    }

    async fn start(
        &self,
        spec: ChildSpec,
        operation: fn(&mut StaticState, ChildSettings, RequestId, Duration),
    ) -> Result<ChildRef, StartError> {
        check_spec(&spec, self.runtime.read(|inner| inner.state.auto_shutdown()))?;
        let response = self.runtime.request_in_turn(|inner, request, now| {
            let settings = spec.settings.clone();
            inner.table.offer(request, spec);
            operation(&mut inner.state, settings, request, now);
        });
        started(response.await?)
    }

    pub(crate) fn into_child(self, ended: JoinHandle<()>) -> Child {
        let mut child = Child::new(self.actor(), ended).inspect(self.runtime.clone()).value(self.clone());
        child.nested = Some(self.runtime);
        child
    }

    /// The name it was built with.
    pub fn name(&self) -> &str {
        &self.runtime.name
    }

    /// Its actor, for links and monitors. Stopping this actor stops the tree in order; killing it kills the tree.
    pub fn actor(&self) -> ActorCell {
        self.runtime.actor().clone()
    }

    /// Adds a child and starts it. It is the last in the order.
    ///
    /// # Errors
    /// [`StartError::Ignored`] when its start function returns it, which is no failure: the spec is kept unless the child is
    /// temporary. [`StartError::Spec`]. When there is a spec of this id, which stays as it is: [`StartError::AlreadyStarted`] with the
    /// running child, [`StartError::Starting`], or [`StartError::AlreadyPresent`]. [`StartError::Deadlock`] when the caller
    /// is a start, or a child being stopped, that this start would wait for. [`StartError::Terminated`] when the child was
    /// terminated before it had started: its spec is kept then, but for a temporary child. [`StartError::ShuttingDown`].
    /// Else why the start failed; the spec is dropped then.
    ///
    /// Cancel safe: a start that has begun is left to the supervisor; one that waits for its turn is withdrawn.
    pub async fn start_child(&self, spec: ChildSpec) -> Result<ChildRef, StartError> {
        self.start(spec, StaticState::start_child).await
    }

    /// Returns the running child with the id of this spec, or starts it. Waits for a start, a restart or a stop of it that
    /// is in progress. The spec is used only when there is no child of this id.
    ///
    /// # Errors
    /// As [`start_child`](Self::start_child), but for `AlreadyStarted`, `AlreadyPresent` and `Starting`; a spec that was
    /// there is kept. [`StartError::KillTimedOut`] while the last incarnation of the child blocks its thread.
    ///
    /// Cancel safe: a start that has begun is left to the supervisor; a caller that waits for its turn is forgotten.
    pub async fn start_or_get_child(&self, spec: ChildSpec) -> Result<ChildRef, StartError> {
        self.start(spec, StaticState::start_or_get_child).await
    }

    /// Stops a child as its spec says and waits until it has ended. It is not started again by itself; the spec is kept,
    /// but for a temporary child. A child that does not run is not an error.
    ///
    /// # Errors
    /// [`ChildError::NotFound`]; [`ChildError::Deadlock`] when the caller runs in or below that child, or is waited for from
    /// there; [`ChildError::KillTimedOut`] when not even a kill ended it; [`ChildError::ShuttingDown`].
    ///
    /// Cancel safe: a caller that gives up leaves the stop to the supervisor.
    pub async fn terminate_child(&self, id: &str) -> Result<(), ChildError> {
        let _wait = self.runtime.read(|inner| inner.target(id)).map(wait_for).transpose()?;
        done(self.runtime.terminate_child(id).await)
    }

    /// Starts a child that was terminated or has ended, from its spec.
    ///
    /// # Errors
    /// [`ChildError::NotFound`]; [`ChildError::Running`], [`ChildError::Starting`] or [`ChildError::Restarting`] when it does
    /// not need it; [`ChildError::KillTimedOut`] while its last incarnation blocks its thread; [`ChildError::Deadlock`] when
    /// the caller is a start, or a child being stopped, that this start would wait for; [`ChildError::Start`] when it does
    /// not start or is ignored, the spec being kept; [`ChildError::ShuttingDown`].
    ///
    /// Cancel safe: a start that has begun is left to the supervisor; one that waits for its turn is withdrawn.
    pub async fn restart_child(&self, id: &str) -> Result<ChildRef, ChildError> {
        match self.runtime.request_in_turn(|inner, request, now| inner.state.restart_child(id, request, now)).await? {
            Some(Response::Started(child)) => Ok(child),
            Some(Response::Ignored) => Err(ChildError::Start(StartError::Ignored)),
            other => Err(refused(other)),
        }
    }

    /// Drops the spec of a child that does not run.
    ///
    /// # Errors
    /// [`ChildError::NotFound`], [`ChildError::Running`], [`ChildError::Starting`], [`ChildError::Restarting`],
    /// [`ChildError::KillTimedOut`], [`ChildError::ShuttingDown`]; [`ChildError::Deadlock`] when it would wait for its caller.
    ///
    /// Cancel safe: it happens before the first await, or waits for a stop that is under way and is withdrawn.
    pub async fn delete_child(&self, id: &str) -> Result<(), ChildError> {
        done(self.runtime.request_in_turn(|inner, request, now| inner.state.delete_child(id, request, now)).await?)
    }

    /// What the spec of a child says.
    ///
    /// # Errors
    /// [`ChildError::NotFound`], [`ChildError::ShuttingDown`].
    pub fn child_spec(&self, id: &str) -> Result<ChildSettings, ChildError> {
        self.read(|inner| {
            let key = inner.state.key_of(id).ok_or(ChildError::NotFound)?;
            inner.state.settings(key).cloned().ok_or(ChildError::NotFound)
        })
    }

    /// What the spec of the child that runs as this actor says.
    ///
    /// # Errors
    /// [`ChildError::NotFound`], [`ChildError::ShuttingDown`].
    pub fn child_spec_of(&self, actor: ActorId) -> Result<ChildSettings, ChildError> {
        self.read(|inner| {
            let key = inner.table.key_of(actor).ok_or(ChildError::NotFound)?;
            inner.state.settings(key).cloned().ok_or(ChildError::NotFound)
        })
    }

    /// The running child with this id, also while it is being stopped: one incarnation. For a reference that survives
    /// restarts see [`child_handle`](Self::child_handle).
    ///
    /// # Errors
    /// [`ChildError::NotFound`] when there is no such spec or it has no running child, [`ChildError::Starting`],
    /// [`ChildError::Restarting`], [`ChildError::ShuttingDown`].
    pub fn child(&self, id: &str) -> Result<ChildRef, ChildError> {
        self.read(|inner| {
            let key = inner.state.key_of(id).ok_or(ChildError::NotFound)?;
            match inner.state.phase_of(key) {
                Some(ChildPhase::Running(run) | ChildPhase::Stopping(run)) => {
                    inner.table.get(run).map(LiveChild::reference).ok_or(ChildError::NotFound)
                }
                Some(ChildPhase::Restarting) => Err(ChildError::Restarting),
                Some(ChildPhase::Starting) => Err(ChildError::Starting),
                Some(ChildPhase::Stopped) | None => Err(ChildError::NotFound),
            }
        })
    }

    /// A handle to the child with this id, which survives its restarts. `gateway/sessions` is the child `sessions` of the
    /// supervisor that is the child `gateway`, through restarts of both; an id may itself contain a slash.
    ///
    /// # Errors
    /// [`ChildError::NotFound`] when there is no such child, running or not; [`ChildError::ShuttingDown`].
    pub fn child_handle<M: ractor::Message>(&self, path: &str) -> Result<ChildHandle<M>, ChildError> {
        self.read(|_| Ok(()))?;
        if let Some(slot) = self.runtime.slot(path) {
            return Ok(ChildHandle::here(slot));
        }
        let mut ids = path.split('/');
        let slot = ids.next().and_then(|id| self.runtime.slot(id)).ok_or(ChildError::NotFound)?;
        let handle = ChildHandle::below(slot, ids);
        match handle.get() {
            Err(HandleError::NoProcess) => Err(ChildError::NotFound),
            _ => Ok(handle),
        }
    }

    /// All children, the newest first.
    ///
    /// # Errors
    /// [`ChildError::ShuttingDown`].
    pub fn which_children(&self) -> Result<Vec<ChildEntry>, ChildError> {
        self.read(|inner| {
            let entry = |(_, settings, phase, _): (_, &ChildSettings, ChildPhase, u64)| ChildEntry {
                id: Some(settings.id.clone()),
                kind: settings.kind,
                state: match phase {
                    ChildPhase::Running(run) | ChildPhase::Stopping(run) => {
                        inner.table.get(run).map_or(ChildState::None, |child| ChildState::Running(child.actor.clone()))
                    }
                    ChildPhase::Restarting => ChildState::Restarting,
                    ChildPhase::Starting => ChildState::Starting,
                    ChildPhase::Stopped => ChildState::None,
                },
            };
            Ok(inner.state.children().rev().map(entry).collect())
        })
    }

    /// How many children there are.
    ///
    /// # Errors
    /// [`ChildError::ShuttingDown`].
    pub fn count_children(&self) -> Result<ChildCount, ChildError> {
        let children = self.which_children()?;
        let supervisors = children.iter().filter(|child| child.kind == Kind::Supervisor).count();
        let active = children.iter().filter(|child| matches!(child.state, ChildState::Running(_))).count();
        Ok(ChildCount { specs: children.len(), active, supervisors, workers: children.len() - supervisors })
    }

    /// Stops the children in reverse order, each as its spec says, then the supervisor. All that call this during
    /// the stop get the same report.
    ///
    /// Takes at most the sum of the children's graces.
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

    /// Runs until `signal` completes, then stops the supervisor. Returns earlier when the supervisor ends by itself: the
    /// [`cause`](ShutdownReport::cause) of the report says whether it gave up. For a `main` function:
    /// `let report = tree.run_until(tokio::signal::ctrl_c()).await?`. What `signal` returns is dropped, so that a signal
    /// which cannot be received stops the supervisor at once: make the receiver before, where that may fail.
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

    /// The tree below and with this supervisor, without a message to any actor.
    pub fn inspect(&self) -> TreeNode {
        let stopped = self.runtime.report().is_some();
        let stopping = self.runtime.is_shutting_down();
        TreeNode {
            id: self.name().to_owned(),
            kind: Kind::Supervisor,
            status: match (stopped, stopping) {
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

impl Inspect for SupervisorRef {
    fn inspect(&self) -> Details {
        Inspect::inspect(&*self.runtime)
    }
}

impl fmt::Debug for SupervisorRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SupervisorRef").field("name", &self.runtime.name).finish_non_exhaustive()
    }
}

fn started(reply: Option<Response>) -> Result<ChildRef, StartError> {
    match reply {
        Some(Response::Started(child)) => Ok(child),
        Some(Response::Ignored) => Err(StartError::Ignored),
        Some(Response::AlreadyStarted(child)) => Err(StartError::AlreadyStarted(child)),
        Some(Response::Refused(Refusal::AlreadyPresent)) => Err(StartError::AlreadyPresent),
        Some(Response::Refused(Refusal::Starting)) => Err(StartError::Starting),
        Some(Response::Refused(Refusal::Restarting)) => Err(StartError::AlreadyPresent),
        Some(Response::Refused(Refusal::Terminated)) => Err(StartError::Terminated),
        Some(Response::Refused(Refusal::KillTimedOut)) => Err(StartError::KillTimedOut),
        Some(Response::Refused(Refusal::Start(failure))) => Err(failure.into()),
        _ => Err(StartError::ShuttingDown),
    }
}

fn done(reply: Option<Response>) -> Result<(), ChildError> {
    match reply {
        Some(Response::Done) => Ok(()),
        other => Err(refused(other)),
    }
}

fn refused(reply: Option<Response>) -> ChildError {
    match reply {
        Some(Response::Refused(Refusal::NotFound)) => ChildError::NotFound,
        Some(Response::Refused(Refusal::Running)) | Some(Response::AlreadyStarted(_)) => ChildError::Running,
        Some(Response::Refused(Refusal::Starting)) => ChildError::Starting,
        Some(Response::Refused(Refusal::Restarting)) => ChildError::Restarting,
        Some(Response::Refused(Refusal::KillTimedOut)) => ChildError::KillTimedOut,
        Some(Response::Refused(Refusal::Terminated)) => ChildError::Start(StartError::Terminated),
        Some(Response::Refused(Refusal::Start(failure))) => ChildError::Start(failure.into()),
        _ => ChildError::ShuttingDown,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::supervisor::{BoxError, ShutdownCause, Supervisor};

    struct Counted(Arc<AtomicUsize>);

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn idle(alive: &Arc<AtomicUsize>) -> ChildSpec {
        let alive = alive.clone();
        ChildSpec::task("idle", move |_| {
            alive.fetch_add(1, Ordering::SeqCst);
            let counted = Counted(alive.clone());
            async move {
                std::future::pending::<()>().await;
                drop(counted);
                Ok::<_, BoxError>(())
            }
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_in_the_state_ends_the_supervisor_and_every_wait() {
        let alive = Arc::new(AtomicUsize::new(0));
        let tree = Supervisor::builder("top").child(idle(&alive)).start().await.unwrap();
        let hangs = ChildSpec::new("hangs", |_| std::future::pending::<Result<Child, BoxError>>());
        let starting = tokio::spawn({
            let tree = tree.clone();
            async move { tree.start_child(hangs).await }
        });
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert_eq!(alive.load(Ordering::SeqCst), 1);
        tree.runtime.update::<()>(|_, _| panic!("a defect"));
        assert_eq!(starting.await.unwrap(), Err(StartError::ShuttingDown));
        assert_eq!(tree.terminate_child("idle").await, Err(ChildError::ShuttingDown));
        assert_eq!(tree.stop().await.unwrap().cause, ShutdownCause::Killed);
        assert_eq!(alive.load(Ordering::SeqCst), 0);
    }

    /// A child that does not stop and callers that ask again and again keep nothing.
    #[tokio::test(start_paused = true)]
    async fn callers_that_left_are_forgotten() {
        let spec = ChildSpec::task("lingers", |_| std::future::pending::<Result<(), BoxError>>());
        let spec = spec.shutdown(crate::supervisor::Shutdown::Infinity);
        let tree = Supervisor::builder("top").child(spec).start().await.unwrap();
        for _ in 0..100 {
            assert!(tokio::time::timeout(Duration::from_secs(1), tree.terminate_child("lingers")).await.is_err());
            assert!(tokio::time::timeout(Duration::from_secs(1), tree.delete_child("lingers")).await.is_err());
        }
        assert_eq!(tree.runtime.read(Inner::waiting), (0, 0));
        tree.actor().kill();
    }

    #[tokio::test(start_paused = true)]
    async fn a_nested_supervisor_with_a_defect_is_started_again() {
        let alive = Arc::new(AtomicUsize::new(0));
        let counted = alive.clone();
        let nested = ChildSpec::supervisor("nested", move || Supervisor::builder("nested").child(idle(&counted)));
        let tree = Supervisor::builder("top").child(nested).start().await.unwrap();
        let first = tree.child("nested").unwrap();
        let inner: Arc<SupervisorRef> = first.value().unwrap();
        inner.runtime.update::<()>(|_, _| panic!("a defect"));
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert_ne!(tree.child("nested").unwrap(), first);
        assert_eq!(alive.load(Ordering::SeqCst), 1);
        tree.stop().await.unwrap();
        assert_eq!(alive.load(Ordering::SeqCst), 0);
    }
}

//! The reference to a running supervisor.

use std::fmt;
use std::sync::Arc;

use ractor::concurrency::JoinHandle;
use ractor::{ActorCell, ActorId};

use super::builder::check_spec;
use super::child::{Child, ChildRef, Started};
use super::child_spec::{ChildSettings, ChildSpec};
use super::error::{ChildError, StartError};
use super::frame::{self, Crew, NestedCrew};
use super::household::{Household, Reply};
use super::rules::{Phase, Refusal};
use super::shutdown_report::ShutdownReport;
use crate::inspect::{Details, Inspect, Kind, Status, TreeNode};

/// A reference to a running [`Supervisor`](super::Supervisor). Cheap to clone; dropping it stops nothing.
///
/// Reads look at the state and wait for nobody, whatever is under way. During the supervisor's own stop, and after it,
/// every operation answers `ShuttingDown` at once.
#[derive(Clone)]
pub struct SupervisorRef {
    household: Arc<Household>,
}

/// What [`SupervisorRef::which_children`] tells of a child.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChildEntry {
    /// Its id; none for the children of a dynamic supervisor.
    pub id: Option<Arc<str>>,
    /// What has become of it.
    pub state: ChildState,
    /// Supervisor or worker.
    pub kind: Kind,
}

/// What has become of a child.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChildState {
    /// It runs, or is just being stopped.
    Running(ActorCell),
    /// It waits for its restart, or is being started again.
    Restarting,
    /// There is none: ignored, ended, terminated, or starting for the first time.
    None,
}

/// What [`SupervisorRef::count_children`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ChildCount {
    /// Child specs; 1 for a dynamic supervisor.
    pub specs: usize,
    /// Children that run.
    pub active: usize,
    /// Specs of supervisors, running or not.
    pub supervisors: usize,
    /// Specs of workers, running or not.
    pub workers: usize,
}

impl SupervisorRef {
    pub(crate) fn new(household: Arc<Household>) -> Self {
        Self { household }
    }

    pub(crate) fn into_child(self, ended: JoinHandle<()>) -> Child {
        let mut child = Child::new(self.actor(), ended).inspect(self.household.clone()).value(self.clone());
        child.nested = Some(Arc::new(NestedCrew(self.household)));
        child
    }

    /// The name it was built with.
    pub fn name(&self) -> &str {
        &self.household.frame().name
    }

    /// Its actor, for links and monitors. Stopping this actor stops the tree in order; killing it kills the tree.
    pub fn actor(&self) -> ActorCell {
        self.household.frame().face().clone()
    }

    /// Adds a child and starts it. It is the last in the order.
    ///
    /// # Errors
    /// [`StartError::Spec`], [`StartError::AlreadyStarted`] with the running child, [`StartError::AlreadyPresent`], or
    /// why the start failed; in all cases the spec is not kept.
    ///
    /// Cancel safe: a caller that gives up leaves the start to the supervisor.
    pub async fn start_child(&self, spec: ChildSpec) -> Result<Started, StartError> {
        check_spec(&spec, self.household.flags.auto_shutdown)?;
        let reply = self.household.ask(|core, ticket, now| core.start_child(spec, ticket, now)).await;
        started(reply)
    }

    /// Stops a child as its spec says and waits until it has ended. It is not started again by itself; the spec is kept,
    /// but for a temporary child. A child that does not run is not an error.
    ///
    /// # Errors
    /// [`ChildError::NotFound`]; [`ChildError::KillTimedOut`] when not even a kill ended it.
    ///
    /// Cancel safe: a caller that gives up leaves the stop to the supervisor.
    pub async fn terminate_child(&self, id: &str) -> Result<(), ChildError> {
        done(self.household.ask(|core, ticket, now| core.rules.terminate_child(id, ticket, now)).await)
    }

    /// Starts the child of a spec that is kept.
    ///
    /// # Errors
    /// [`ChildError::Running`], [`ChildError::Restarting`], [`ChildError::NotFound`]; [`ChildError::KillTimedOut`] while its
    /// last incarnation blocks its thread; [`ChildError::Start`] when it does not start, the spec being kept.
    ///
    /// Cancel safe: a caller that gives up leaves the start to the supervisor.
    pub async fn restart_child(&self, id: &str) -> Result<Started, ChildError> {
        match self.household.ask(|core, ticket, now| core.rules.restart_child(id, ticket, now)).await {
            Some(Reply::Started(child)) => Ok(Started::Child(child)),
            Some(Reply::Ignored) => Ok(Started::Ignored),
            other => Err(refused(other)),
        }
    }

    /// Drops the spec of a child that does not run.
    ///
    /// # Errors
    /// [`ChildError::Running`], [`ChildError::Restarting`], [`ChildError::NotFound`], [`ChildError::KillTimedOut`].
    ///
    /// Cancel safe: it happens before the first await, or waits for a stop that is under way and happens then.
    pub async fn delete_child(&self, id: &str) -> Result<(), ChildError> {
        done(self.household.ask(|core, ticket, now| core.rules.delete_child(id, ticket, now)).await)
    }

    /// What the spec of a child says.
    ///
    /// # Errors
    /// [`ChildError::NotFound`], [`ChildError::ShuttingDown`].
    pub fn child_spec(&self, id: &str) -> Result<ChildSettings, ChildError> {
        self.household.look(|core| {
            core.serving()?;
            let key = core.rules.key_of(id).ok_or(ChildError::NotFound)?;
            core.settings(key).cloned().ok_or(ChildError::NotFound)
        })
    }

    /// What the spec of the child that runs as this actor says.
    ///
    /// # Errors
    /// [`ChildError::NotFound`], [`ChildError::ShuttingDown`].
    pub fn child_spec_of(&self, actor: ActorId) -> Result<ChildSettings, ChildError> {
        self.household.look(|core| {
            core.serving()?;
            let key = core.run_of(actor).and_then(|run| core.rules.key_of_run(run)).ok_or(ChildError::NotFound)?;
            core.settings(key).cloned().ok_or(ChildError::NotFound)
        })
    }

    /// The running child with this id.
    ///
    /// # Errors
    /// [`ChildError::NotFound`] when there is no such spec or it has no running child, [`ChildError::Restarting`],
    /// [`ChildError::ShuttingDown`].
    pub fn child(&self, id: &str) -> Result<ChildRef, ChildError> {
        self.household.look(|core| {
            core.serving()?;
            let key = core.rules.key_of(id).ok_or(ChildError::NotFound)?;
            match core.rules.phase_of(key) {
                Some(Phase::Up(run) | Phase::Stopping(run)) => core.child(run).ok_or(ChildError::NotFound),
                Some(Phase::Restarting) => Err(ChildError::Restarting),
                _ => Err(ChildError::NotFound),
            }
        })
    }

    /// All children, the newest first.
    ///
    /// # Errors
    /// [`ChildError::ShuttingDown`].
    pub fn which_children(&self) -> Result<Vec<ChildEntry>, ChildError> {
        self.household.look(|core| {
            core.serving()?;
            let entry = |(_, rules, phase, _): (_, &super::rules::ChildRules, Phase, u64)| ChildEntry {
                id: Some(rules.id.clone()),
                kind: rules.kind,
                state: match phase {
                    Phase::Up(run) | Phase::Stopping(run) => {
                        core.child(run).map_or(ChildState::None, |child| ChildState::Running(child.actor))
                    }
                    Phase::Restarting => ChildState::Restarting,
                    Phase::Vacant | Phase::Starting => ChildState::None,
                },
            };
            Ok(core.rules.phases().rev().map(entry).collect())
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

    /// Stops the children in reverse order, each as its spec says, then the supervisor. Whoever calls this during the
    /// stop gets the same report.
    ///
    /// Takes as long as the children's graces in sequence.
    ///
    /// Cancel safe: the stop goes on.
    pub async fn stop(&self) -> Arc<ShutdownReport> {
        frame::stop(&self.household).await
    }

    /// Waits until the supervisor has ended, for whatever reason.
    ///
    /// Cancel safe.
    pub async fn wait(&self) -> Arc<ShutdownReport> {
        self.household.frame().ended().await
    }

    /// How it ended, if it has.
    pub fn report(&self) -> Option<Arc<ShutdownReport>> {
        self.household.frame().report()
    }

    /// The tree below and with this supervisor, without a turn of any actor.
    pub fn inspect(&self) -> TreeNode {
        let over = self.household.frame().report().is_some();
        let closing = self.household.look(|core| core.rules.is_closing());
        TreeNode {
            id: self.name().to_owned(),
            kind: Kind::Supervisor,
            status: match (over, closing) {
                (true, _) => Status::Stopped,
                (false, true) => Status::Stopping,
                (false, false) => Status::Running,
            },
            actor: Some(self.actor().get_id().to_string()),
            restarts: 0,
            details: Inspect::inspect(&*self.household),
        }
    }
}

impl Inspect for SupervisorRef {
    fn inspect(&self) -> Details {
        Inspect::inspect(&*self.household)
    }
}

impl fmt::Debug for SupervisorRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SupervisorRef").field("name", &self.household.frame().name).finish_non_exhaustive()
    }
}

fn started(reply: Option<Reply>) -> Result<Started, StartError> {
    match reply {
        Some(Reply::Started(child)) => Ok(Started::Child(child)),
        Some(Reply::Ignored) => Ok(Started::Ignored),
        Some(Reply::AlreadyStarted(child)) => Err(StartError::AlreadyStarted(child)),
        Some(Reply::Refused(Refusal::AlreadyPresent)) => Err(StartError::AlreadyPresent),
        Some(Reply::Refused(Refusal::Terminated)) => Err(StartError::Terminated),
        Some(Reply::Refused(Refusal::Start(failure))) => Err(failure.into()),
        _ => Err(StartError::ShuttingDown),
    }
}

fn done(reply: Option<Reply>) -> Result<(), ChildError> {
    match reply {
        Some(Reply::Done) => Ok(()),
        other => Err(refused(other)),
    }
}

fn refused(reply: Option<Reply>) -> ChildError {
    match reply {
        Some(Reply::Refused(Refusal::NotFound)) => ChildError::NotFound,
        Some(Reply::Refused(Refusal::Running)) | Some(Reply::AlreadyStarted(_)) => ChildError::Running,
        Some(Reply::Refused(Refusal::Restarting)) => ChildError::Restarting,
        Some(Reply::Refused(Refusal::KillTimedOut)) => ChildError::KillTimedOut,
        Some(Reply::Refused(Refusal::Terminated)) => ChildError::Start(StartError::Terminated),
        Some(Reply::Refused(Refusal::Start(failure))) => ChildError::Start(failure.into()),
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
    async fn a_fault_in_the_rules_ends_the_supervisor_and_every_wait() {
        let alive = Arc::new(AtomicUsize::new(0));
        let tree = Supervisor::builder("top").child(idle(&alive)).start().await.unwrap();
        let hangs = ChildSpec::new("hangs", |_| std::future::pending::<Result<Option<Child>, BoxError>>());
        let starting = tokio::spawn({
            let tree = tree.clone();
            async move { tree.start_child(hangs).await }
        });
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert_eq!(alive.load(Ordering::SeqCst), 1);
        tree.household.tell::<()>(|_, _| panic!("a fault"));
        assert_eq!(starting.await.unwrap(), Err(StartError::ShuttingDown));
        assert_eq!(tree.terminate_child("idle").await, Err(ChildError::ShuttingDown));
        assert_eq!(tree.stop().await.cause, ShutdownCause::Killed);
        assert_eq!(alive.load(Ordering::SeqCst), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_nested_supervisor_with_a_fault_is_started_again() {
        let alive = Arc::new(AtomicUsize::new(0));
        let counted = alive.clone();
        let nested = ChildSpec::supervisor("nested", move || Supervisor::builder("nested").child(idle(&counted)));
        let tree = Supervisor::builder("top").child(nested).start().await.unwrap();
        let first = tree.child("nested").unwrap();
        let fault: Arc<SupervisorRef> = first.value().unwrap();
        fault.household.tell::<()>(|_, _| panic!("a fault"));
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert_ne!(tree.child("nested").unwrap(), first);
        assert_eq!(alive.load(Ordering::SeqCst), 1);
        tree.stop().await;
        assert_eq!(alive.load(Ordering::SeqCst), 0);
    }
}

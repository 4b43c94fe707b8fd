//! Children of these tests, and what is read of a tree.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use plimsoll::supervisor::{
    Backoff, BoxError, Child, ChildSpec, ChildState, DynamicBuilder, DynamicSupervisor, ShutdownReport, SupervisorRef,
};
use plimsoll_testkit::gate::Gate;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};

/// Counts the actors of one test that exist.
#[derive(Clone, Default)]
pub(crate) struct Living(Arc<AtomicUsize>);

impl Living {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// Waits until none exists, for ten seconds.
    pub(crate) async fn until_none(&self) {
        let ended = async {
            while self.count() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), ended).await.expect("every actor ends");
    }
}

/// Work that an [`Agent`] performs in its own handler.
pub(crate) type Job = Box<dyn FnOnce() -> BoxFuture<'static, Result<(), ActorProcessingErr>> + Send>;

/// An actor that performs what it receives.
pub(crate) struct Agent(Living);

impl Agent {
    pub(crate) fn new(living: &Living) -> Self {
        living.0.fetch_add(1, Ordering::SeqCst);
        Self(living.clone())
    }

    pub(crate) async fn start(living: Living, parent: ActorCell) -> Result<Child, ractor::SpawnErr> {
        Self::spawn_linked(None, Self::new(&living), (), parent).await.map(Child::from)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Actor for Agent {
    type Msg = Job;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Job>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Job>, job: Job, _: &mut ()) -> Result<(), ActorProcessingErr> {
        job().await
    }
}

/// A permanent agent without restart delay.
pub(crate) fn agent(id: &str, living: &Living) -> ChildSpec {
    let living = living.clone();
    ChildSpec::new(id, move |parent| Agent::start(living.clone(), parent)).backoff(Backoff::NONE)
}

/// Agents as dynamic children.
pub(crate) fn agents(living: &Living) -> DynamicBuilder<()> {
    let living = living.clone();
    DynamicSupervisor::builder("agents", move |parent, ()| Agent::start(living.clone(), parent)).backoff(Backoff::NONE)
}

/// Lets an agent perform `work` in its handler; its result.
pub(crate) async fn inside<T, Fut>(actor: &ActorCell, work: impl FnOnce() -> Fut + Send + 'static) -> Option<T>
where
    T: Send + 'static,
    Fut: Future<Output = T> + Send + 'static,
{
    let (result, received) = tokio::sync::oneshot::channel();
    let job: Job = Box::new(move || {
        Box::pin(async move {
            let _ = result.send(work().await);
            Ok(())
        })
    });
    actor.send_message(job).expect("the agent lives");
    received.await.ok()
}

/// Makes an agent fail.
pub(crate) fn fail(actor: &ActorCell) {
    let job: Job = Box::new(|| Box::pin(async { Err("told to fail".into()) }));
    // One that has ended already needs no failure.
    let _ = actor.send_message(job);
}

/// Starts of one child in order: each waits for its gate, those beyond the last gate run at once.
#[derive(Clone, Default)]
pub(crate) struct Gates(Arc<Mutex<Vec<Gate>>>);

impl Gates {
    /// The next start waits for this gate.
    pub(crate) fn next(&self) -> Gate {
        let gate = Gate::closed();
        self.0.lock().unwrap().push(gate.clone());
        gate
    }

    async fn pass(&self) {
        let next = {
            let mut gates = self.0.lock().unwrap();
            (!gates.is_empty()).then(|| gates.remove(0))
        };
        if let Some(gate) = next {
            gate.pass().await;
        }
    }
}

/// Starts of several children, in order.
pub(crate) type Starts = Arc<Mutex<Vec<String>>>;

/// An agent whose starts wait for gates and are noted when they succeed.
pub(crate) fn gated(id: &str, living: &Living, gates: &Gates, starts: &Starts) -> ChildSpec {
    let (name, living, gates, starts) = (id.to_owned(), living.clone(), gates.clone(), starts.clone());
    ChildSpec::new(id, move |parent| {
        let (name, living, gates, starts) = (name.clone(), living.clone(), gates.clone(), starts.clone());
        async move {
            gates.pass().await;
            let child = Agent::start(living, parent).await?;
            starts.lock().unwrap().push(name);
            Ok::<_, BoxError>(child)
        }
    })
    .backoff(Backoff::NONE)
}

/// The children oldest first: `a+` runs, `a~` restarts, `a-` has no child.
pub(crate) fn shown(tree: &SupervisorRef) -> String {
    let letter = |state: &ChildState| match state {
        ChildState::Running(_) => '+',
        ChildState::Restarting => '~',
        _ => '-',
    };
    let children = tree.which_children().unwrap().into_iter().rev();
    children.map(|child| format!("{}{}", child.id.unwrap(), letter(&child.state))).collect::<Vec<_>>().join(" ")
}

/// Whether a wait for the end of a supervisor was refused.
pub(crate) trait Waited {
    fn is_refused(&self) -> bool;
}

impl Waited for Arc<ShutdownReport> {
    fn is_refused(&self) -> bool {
        false
    }
}

impl<T, E> Waited for Result<T, E> {
    fn is_refused(&self) -> bool {
        self.is_err()
    }
}

/// Whether an operation ends within 100 ms with a refusal.
pub(crate) async fn refused_at_once<T: Waited>(operation: impl Future<Output = T>) -> bool {
    tokio::time::timeout(Duration::from_millis(100), operation).await.is_ok_and(|outcome| outcome.is_refused())
}

/// Whether an operation was refused because the child in question is starting.
pub(crate) fn is_starting<T, E: std::fmt::Debug>(outcome: Result<T, E>) -> bool {
    outcome.err().is_some_and(|error| format!("{error:?}") == "Starting")
}

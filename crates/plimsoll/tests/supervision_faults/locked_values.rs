//! Users' code that uses the supervisor from where the supervisor calls it: copies of arguments, drops of values and the
//! program's subscriber. None of it may run while the supervisor's lock is held.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;

use plimsoll::supervisor::{
    Backoff, Child, ChildSpec, DynamicSupervisor, DynamicSupervisorRef, Restart, Supervisor, SupervisorRef,
};
use plimsoll_testkit::gate::Gate;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata};

use crate::stage::{Agent, Living, agent, fail};

const MINUTE: Duration = Duration::from_secs(60);

/// Runs a test in a thread of its own: one that waits for a lock that it holds cannot be timed out from within.
fn ends<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let (ended, wait) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
        let _ = ended.send(());
    });
    wait.recv_timeout(Duration::from_secs(20)).expect("it ends, and without waiting for the supervisor's lock");
}

async fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

type Workers = Arc<OnceLock<DynamicSupervisorRef<Args>>>;

/// Arguments that look at the supervisor when they are copied or dropped.
struct Args {
    workers: Workers,
    seen: Arc<Mutex<Vec<&'static str>>>,
}

impl Args {
    fn look(&self, when: &'static str) {
        if let Some(workers) = self.workers.get() {
            let _ = workers.count_children();
        }
        self.seen.lock().unwrap().push(when);
    }
}

impl Clone for Args {
    fn clone(&self) -> Self {
        self.look("copied");
        Self { workers: self.workers.clone(), seen: self.seen.clone() }
    }
}

impl Drop for Args {
    fn drop(&mut self) {
        self.look("dropped");
    }
}

#[test]
fn arguments_are_copied_for_a_restart_outside_the_lock() {
    ends(|| async {
        let living = Living::default();
        let alive = living.clone();
        let builder = DynamicSupervisor::builder("top", move |parent, args: Args| {
            let alive = alive.clone();
            drop(args);
            Agent::start(alive, parent)
        });
        let tree = builder.backoff(Backoff::NONE).intensity(100, MINUTE).start().await.unwrap();
        let args = Args { workers: Arc::default(), seen: Arc::default() };
        let seen = args.seen.clone();
        let _ = args.workers.set(tree.clone());
        let child = tree.start_child(args).await.unwrap();
        let handle = tree.child_handle::<crate::stage::Job>(child.actor().get_id()).unwrap();
        for restarts in 1..=3 {
            fail(&handle.get().unwrap().get_cell());
            until(|| tree.inspect().children_restarts() == restarts && handle.get().is_ok()).await;
        }
        assert_eq!(seen.lock().unwrap().iter().filter(|when| **when == "copied").count(), 4, "one copy for each start");
        let last = handle.get().unwrap().get_cell();
        tree.terminate_child(&last).await.unwrap();
        assert_eq!(seen.lock().unwrap().iter().filter(|when| **when == "dropped").count(), 5, "nothing is kept");
        tree.stop().await.unwrap();
    });
}

trait Restarts {
    fn children_restarts(&self) -> u64;
}

impl Restarts for plimsoll::inspect::TreeNode {
    fn children_restarts(&self) -> u64 {
        self.details.children.iter().map(|child| child.restarts).sum()
    }
}

#[test]
fn arguments_of_a_start_that_the_stop_overtakes_are_dropped_outside_the_lock() {
    ends(|| async {
        let (living, gate) = (Living::default(), Gate::closed());
        let (alive, inner) = (living.clone(), gate.clone());
        let builder = DynamicSupervisor::builder("top", move |parent, args: Args| {
            let (alive, gate) = (alive.clone(), inner.clone());
            drop(args);
            async move {
                let child = Agent::start(alive, parent).await;
                gate.pass().await;
                child
            }
        });
        let tree = builder.start().await.unwrap();
        let args = Args { workers: Arc::default(), seen: Arc::default() };
        let _ = args.workers.set(tree.clone());
        let starting = tokio::spawn({
            let tree = tree.clone();
            async move { tree.start_child(args).await }
        });
        gate.until_waiting(1).await;
        // In one turn: the start succeeds, and finds the supervisor stopping.
        gate.open();
        tree.begin_stop();
        assert!(starting.await.unwrap().is_err());
        tree.wait().await.unwrap();
        assert_eq!(living.count(), 0);
    });
}

/// An actor whose drop ends its task with a panic.
struct Bursts(Arc<OnceLock<SupervisorRef>>);

/// The payload of that panic looks at the supervisor when it is dropped.
struct Payload(Arc<OnceLock<SupervisorRef>>);

static PAYLOADS: AtomicUsize = AtomicUsize::new(0);

impl Drop for Payload {
    fn drop(&mut self) {
        if let Some(tree) = self.0.get() {
            let _ = tree.count_children();
        }
        PAYLOADS.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Bursts {
    fn drop(&mut self) {
        std::panic::panic_any(Payload(self.0.clone()));
    }
}

impl Actor for Bursts {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

#[test]
fn payload_of_a_panic_is_dropped_outside_the_lock() {
    ends(|| async {
        let slot: Arc<OnceLock<SupervisorRef>> = Arc::default();
        let inner = slot.clone();
        let spec = ChildSpec::new("a", move |parent: ActorCell| {
            let slot = inner.clone();
            async move { Bursts::spawn_linked(None, Bursts(slot), (), parent).await.map(Child::from) }
        });
        let builder = Supervisor::builder("top").intensity(1_000, MINUTE).child(spec.backoff(Backoff::NONE));
        let tree = builder.start().await.unwrap();
        let _ = slot.set(tree.clone());
        for n in 1..=20 {
            until(|| tree.child("a").is_ok()).await;
            match tree.child("a").unwrap().actor() {
                actor if n % 2 == 0 => actor.stop(None),
                actor => actor.kill(),
            }
            until(|| tree.inspect().children_restarts() == n).await;
        }
        assert!(PAYLOADS.load(Ordering::SeqCst) >= 20);
        tree.stop().await.unwrap();
    });
}

/// A subscriber that looks at the supervisor at every line and span.
#[derive(Clone, Default)]
struct Curious {
    tree: Arc<OnceLock<SupervisorRef>>,
    lines: Arc<Mutex<usize>>,
}

impl Curious {
    fn look(&self) {
        if let Some(tree) = self.tree.get() {
            let _ = tree.count_children();
            let _ = tree.child("a");
            // An operation, too: it begins in the first poll.
            let starting = tree.start_child(ChildSpec::task("b", |_| async { Ok(()) }).restart(Restart::Temporary));
            let _ = futures::FutureExt::now_or_never(starting);
        }
        *self.lines.lock().unwrap() += 1;
    }
}

impl tracing::Subscriber for Curious {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("plimsoll")
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        self.look();
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {
        self.look();
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn subscriber_may_use_the_supervisor_at_every_line() {
    ends(|| async {
        let curious = Curious::default();
        let _guard = tracing::subscriber::set_default(curious.clone());
        let living = Living::default();
        let tree = Supervisor::builder("top").intensity(2, MINUTE).child(agent("a", &living)).start().await.unwrap();
        let _ = curious.tree.set(tree.clone());
        for _ in 0..3 {
            until(|| tree.child("a").is_ok()).await;
            fail(tree.child("a").unwrap().actor());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tree.wait().await.unwrap();
        assert!(*curious.lines.lock().unwrap() >= 5);
    });
}

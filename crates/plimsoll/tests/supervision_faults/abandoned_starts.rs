//! Actors of a start that was given up, spawned by a task that the start function left behind.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use plimsoll::supervisor::{Backoff, BoxError, Child, ChildSpec, DynamicSupervisor, Supervisor};
use plimsoll_testkit::gate::Gate;
use ractor::{Actor, ActorCell, ActorStatus};

use crate::stage::{Agent, Living, agent, shown};
use crate::support::quiet;

/// What a start function has left behind.
#[derive(Clone)]
struct Late {
    gate: Gate,
    living: Living,
    appeared: Arc<Mutex<Option<ActorCell>>>,
}

impl Late {
    fn new() -> Self {
        Self { gate: Gate::closed(), living: Living::default(), appeared: Arc::default() }
    }

    /// Spawns an actor linked to `parent` once the gate opens, in a task of its own, and never returns.
    async fn start(self, parent: ActorCell) -> Result<Child, BoxError> {
        tokio::spawn(async move {
            self.gate.pass().await;
            if let Ok((actor, _)) = Agent::spawn_linked(None, Agent::new(&self.living), (), parent).await {
                *self.appeared.lock().unwrap() = Some(actor.get_cell());
            }
        });
        std::future::pending().await
    }

    fn spec(&self, id: &str) -> ChildSpec {
        let late = self.clone();
        ChildSpec::new(id, move |parent| late.clone().start(parent))
    }

    /// Lets the actor appear: it is killed.
    async fn appears_and_is_killed(&self) {
        self.gate.open();
        let ended = async {
            while self.appeared.lock().unwrap().is_none() || self.living.count() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(2), ended).await;
        assert!(ended.is_ok(), "the actor lives on, linked and in no list");
        let appeared = self.appeared.lock().unwrap().clone();
        assert_eq!(appeared.map(|actor| actor.get_status()), Some(ActorStatus::Stopped));
    }
}

const LIMIT: Duration = Duration::from_millis(100);

#[tokio::test(start_paused = true)]
async fn actor_that_appears_after_its_start_timed_out_is_killed() {
    let late = Late::new();
    let tree = Supervisor::builder("top").child(agent("other", &Living::default())).start().await.unwrap();
    assert!(tree.start_child(late.spec("late").start_timeout(LIMIT)).await.is_err());
    late.appears_and_is_killed().await;
    // It hurts nobody else.
    assert_eq!(shown(&tree), "other+");
    assert!(tree.stop().await.unwrap().is_clean());
}

#[tokio::test(start_paused = true)]
async fn actor_that_appears_after_its_start_was_terminated_is_killed() {
    let late = Late::new();
    let tree = Supervisor::builder("top").start().await.unwrap();
    let starting = tokio::spawn({
        let (tree, spec) = (tree.clone(), late.spec("late"));
        async move { tree.start_child(spec).await }
    });
    quiet().await;
    tree.terminate_child("late").await.unwrap();
    assert!(starting.await.unwrap().is_err());
    late.appears_and_is_killed().await;
}

#[tokio::test(start_paused = true)]
async fn actor_that_appears_while_another_start_is_under_way_is_killed() {
    let (late, other) = (Late::new(), Late::new());
    let tree = Supervisor::builder("top").start().await.unwrap();
    assert!(tree.start_child(late.spec("late").start_timeout(LIMIT)).await.is_err());
    let starting = tokio::spawn({
        let (tree, spec) = (tree.clone(), other.spec("other"));
        async move { tree.start_child(spec).await }
    });
    quiet().await;
    // Nobody can tell yet which of the two it belongs to: once the other is over, too, it goes.
    late.gate.open();
    quiet().await;
    tree.terminate_child("other").await.unwrap();
    assert!(starting.await.unwrap().is_err());
    late.appears_and_is_killed().await;
    other.appears_and_is_killed().await;
}

#[tokio::test(start_paused = true)]
async fn actor_that_appears_after_its_restart_timed_out_is_killed() {
    let (late, first) = (Late::new(), Arc::new(Mutex::new(true)));
    let living = Living::default();
    let (inner, alive) = (late.clone(), living.clone());
    let spec = ChildSpec::new("a", move |parent| {
        let (late, living) = (inner.clone(), alive.clone());
        let first = std::mem::replace(&mut *first.lock().unwrap(), false);
        async move { if first { Agent::start(living, parent).await.map_err(Into::into) } else { late.start(parent).await } }
    });
    let builder = Supervisor::builder("top").intensity(100, Duration::from_secs(60));
    let spec = spec.start_timeout(LIMIT).backoff(Backoff::constant(Duration::from_secs(1)));
    let tree = builder.child(spec).start().await.unwrap();
    tree.child("a").unwrap().actor().kill();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    tree.terminate_child("a").await.unwrap();
    late.appears_and_is_killed().await;
}

#[tokio::test(start_paused = true)]
async fn dynamic_actor_that_appears_after_its_start_timed_out_is_killed() {
    let late = Late::new();
    let inner = late.clone();
    let builder = DynamicSupervisor::temporary("top", move |parent, ()| inner.clone().start(parent));
    let tree = builder.start_timeout(LIMIT).start().await.unwrap();
    assert!(tree.start_child(()).await.is_err());
    late.appears_and_is_killed().await;
    assert_eq!(tree.count_children().unwrap().active, 0);
}

#[tokio::test(start_paused = true)]
async fn dynamic_actor_that_appears_after_its_caller_left_is_killed() {
    let late = Late::new();
    let inner = late.clone();
    let builder = DynamicSupervisor::temporary("top", move |parent, ()| inner.clone().start(parent));
    let tree = builder.start().await.unwrap();
    assert!(tokio::time::timeout(LIMIT, tree.start_child(())).await.is_err());
    late.appears_and_is_killed().await;
}

#[tokio::test(start_paused = true)]
async fn actor_that_appears_after_its_supervisor_stopped_does_not_live_on() {
    let late = Late::new();
    let tree = Supervisor::builder("top").start().await.unwrap();
    assert!(tree.start_child(late.spec("late").start_timeout(LIMIT)).await.is_err());
    tree.stop().await.unwrap();
    late.gate.open();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(late.living.count(), 0);
}

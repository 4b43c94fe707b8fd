//! Waits for oneself: an operation that could only end after its own caller is refused at once.

use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use plimsoll::call::{CallClient, CallContext, CallServer, Service, Worker};
use plimsoll::supervisor::{
    Backoff, BoxError, ChildSpec, DynamicSupervisorRef, Shutdown, Strategy, Supervisor, SupervisorRef,
};
use plimsoll_testkit::gate::Gate;
use ractor::{Actor, ActorCell};
use tokio::time::Instant;

use crate::stage::{Agent, Living, agent, agents, fail, inside, refused_at_once, shown};
use crate::support::quiet;

/// The agents a and b, whose stop is waited for without limit.
async fn pair(living: &Living) -> SupervisorRef {
    let patient = |id| agent(id, living).shutdown(Shutdown::Infinity);
    Supervisor::builder("top").child(patient("a")).child(patient("b")).start().await.unwrap()
}

fn actor(tree: &SupervisorRef, id: &str) -> ActorCell {
    tree.child(id).unwrap().actor().clone()
}

/// A supervisor of the agent `w`, as a child.
fn nested(id: &str, living: &Living) -> ChildSpec {
    let living = living.clone();
    ChildSpec::supervisor(id, move || {
        Supervisor::builder("nested").child(agent("w", &living).shutdown(Shutdown::Infinity))
    })
}

fn supervisor(tree: &SupervisorRef, id: &str) -> Arc<SupervisorRef> {
    tree.child(id).unwrap().value().unwrap()
}

/// Waits for a minute, which passes at once when nothing can happen.
async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("it ends")
}

/// The tree still serves, and stops from outside without a straggler.
async fn unharmed(tree: &SupervisorRef) {
    assert!(tree.which_children().is_ok());
    let stopped = tokio::time::timeout(Duration::from_secs(5), tree.stop()).await;
    assert!(stopped.is_ok(), "it stops from outside");
}

#[tokio::test(start_paused = true)]
async fn stop_and_wait_of_a_childs_own_supervisor_are_refused() {
    let living = Living::default();
    let tree = pair(&living).await;
    let own = tree.clone();
    assert_eq!(inside(&actor(&tree, "a"), move || async move { refused_at_once(own.stop()).await }).await, Some(true));
    let own = tree.clone();
    assert_eq!(inside(&actor(&tree, "a"), move || async move { refused_at_once(own.wait()).await }).await, Some(true));
    assert_eq!(shown(&tree), "a+ b+", "nothing was stopped");
    unharmed(&tree).await;
}

#[tokio::test(start_paused = true)]
async fn wait_of_a_childs_own_supervisor_is_refused_while_it_stops() {
    let living = Living::default();
    let tree = pair(&living).await;
    let (own, gate) = (tree.clone(), Gate::closed());
    let inner = gate.clone();
    let a = actor(&tree, "a");
    let waiting = tokio::spawn(async move {
        inside(&a, move || async move {
            inner.pass().await;
            refused_at_once(own.wait()).await
        })
        .await
    });
    gate.until_waiting(1).await;
    let stopping = tokio::spawn({
        let tree = tree.clone();
        async move { tree.stop().await }
    });
    quiet().await;
    let began = Instant::now();
    gate.open();
    assert_eq!(waiting.await.unwrap(), Some(true));
    stopping.await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn terminate_child_of_oneself_is_refused() {
    let living = Living::default();
    let tree = pair(&living).await;
    let own = tree.clone();
    let a = actor(&tree, "a");
    let refused = inside(&a, move || async move { refused_at_once(own.terminate_child("a")).await });
    assert_eq!(refused.await, Some(true));
    assert_eq!(shown(&tree), "a+ b+");
    unharmed(&tree).await;
}

#[tokio::test(start_paused = true)]
async fn terminate_child_of_a_sibling_is_served() {
    let living = Living::default();
    let tree = pair(&living).await;
    let own = tree.clone();
    let a = actor(&tree, "a");
    let ended = inside(&a, move || async move { own.terminate_child("b").await });
    assert_eq!(ended.await, Some(Ok(())));
    assert_eq!(shown(&tree), "a+ b-");
    unharmed(&tree).await;
}

#[tokio::test(start_paused = true)]
async fn children_that_terminate_each_other_are_refused() {
    let living = Living::default();
    let tree = pair(&living).await;
    let began = Instant::now();
    let terminate = |caller: &str, target: &'static str, after: Gate| {
        let (own, caller) = (tree.clone(), actor(&tree, caller));
        tokio::spawn(async move {
            let work = move || async move {
                after.pass().await;
                own.terminate_child(target).await
            };
            inside(&caller, work).await
        })
    };
    let (first, second) = (Gate::closed(), Gate::closed());
    let a = terminate("a", "b", first.clone());
    let b = terminate("b", "a", second.clone());
    first.until_waiting(1).await;
    second.until_waiting(1).await;
    first.open();
    quiet().await;
    second.open();
    assert!(matches!(in_time(b).await.unwrap(), Some(Err(_))), "the second closes the circle");
    assert_eq!(in_time(a).await.unwrap(), Some(Ok(())));
    assert!(began.elapsed() < Duration::from_millis(100));
    assert_eq!(shown(&tree), "a+ b-");
    unharmed(&tree).await;
}

#[tokio::test(start_paused = true)]
async fn circle_of_three_is_refused() {
    let living = Living::default();
    let patient = |id: &str| agent(id, &living).shutdown(Shutdown::Infinity);
    let tree = Supervisor::builder("top").children(["a", "b", "c"].map(patient)).start().await.unwrap();
    let began = Instant::now();
    let mut calls = Vec::new();
    for (caller, target) in [("a", "b"), ("b", "c"), ("c", "a")] {
        let (own, gate) = (tree.clone(), Gate::closed());
        let (inner, caller) = (gate.clone(), actor(&tree, caller));
        let work = move || async move {
            inner.pass().await;
            own.terminate_child(target).await
        };
        let call = tokio::spawn(async move { inside(&caller, work).await });
        gate.until_waiting(1).await;
        calls.push((gate, call));
    }
    for (gate, _) in &calls {
        gate.open();
        quiet().await;
    }
    let mut refused = 0;
    for (_, call) in calls {
        refused += usize::from(matches!(in_time(call).await.unwrap(), Some(Err(_))));
    }
    assert_eq!(refused, 1);
    assert!(began.elapsed() < Duration::from_millis(100));
    unharmed(&tree).await;
}

#[tokio::test(start_paused = true)]
async fn waits_from_below_a_nested_supervisor_are_refused() {
    let living = Living::default();
    let tree = Supervisor::builder("top").child(nested("nested", &living)).start().await.unwrap();
    let inner = supervisor(&tree, "nested");
    let worker = actor(&inner, "w");
    let own = tree.clone();
    assert_eq!(inside(&worker, move || async move { refused_at_once(own.stop()).await }).await, Some(true));
    let own = tree.clone();
    assert_eq!(inside(&worker, move || async move { refused_at_once(own.wait()).await }).await, Some(true));
    let own = tree.clone();
    let refused = inside(&worker, move || async move { refused_at_once(own.terminate_child("nested")).await });
    assert_eq!(refused.await, Some(true));
    let own = inner.clone();
    assert_eq!(inside(&worker, move || async move { refused_at_once(own.stop()).await }).await, Some(true));
    unharmed(&tree).await;
}

#[tokio::test(start_paused = true)]
async fn stop_of_another_supervisor_is_served() {
    let living = Living::default();
    let tree = Supervisor::builder("top")
        .child(nested("left", &living))
        .child(nested("right", &living))
        .start()
        .await
        .unwrap();
    let (left, right) = (supervisor(&tree, "left"), supervisor(&tree, "right"));
    let w = actor(&left, "w");
    let refused = inside(&w, move || async move { refused_at_once(right.stop()).await });
    assert_eq!(refused.await, Some(false));
    unharmed(&tree).await;
}

#[tokio::test(start_paused = true)]
async fn dynamic_child_that_waits_for_itself_is_refused() {
    let living = Living::default();
    let tree: DynamicSupervisorRef<()> = agents(&living).shutdown(Shutdown::Infinity).start().await.unwrap();
    let child = agents_child(&tree).await;
    let own = tree.clone();
    assert_eq!(inside(&child, move || async move { refused_at_once(own.stop()).await }).await, Some(true));
    let own = tree.clone();
    assert_eq!(inside(&child, move || async move { refused_at_once(own.wait()).await }).await, Some(true));
    let (own, myself) = (tree.clone(), child.clone());
    let refused = inside(&child, move || async move { refused_at_once(own.terminate_child(&myself)).await });
    assert_eq!(refused.await, Some(true));
    let stopped = tokio::time::timeout(Duration::from_secs(5), tree.stop()).await;
    assert!(stopped.is_ok());
    living.until_none().await;
}

/// The actor of a new dynamic child.
async fn agents_child(tree: &DynamicSupervisorRef<()>) -> ActorCell {
    tree.start_child(()).await.unwrap();
    match tree.which_children().unwrap().remove(0).state {
        plimsoll::supervisor::ChildState::Running(actor) => actor,
        state => panic!("it does not run: {state:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn dynamic_children_that_terminate_each_other_are_refused() {
    let living = Living::default();
    let tree = agents(&living).shutdown(Shutdown::Infinity).start().await.unwrap();
    let (a, b) = (agents_child(&tree).await, agents_child(&tree).await);
    let began = Instant::now();
    let gate = Gate::closed();
    let (own, target, inner, caller) = (tree.clone(), a.clone(), gate.clone(), b.clone());
    let second = tokio::spawn(async move {
        let work = move || async move {
            inner.pass().await;
            own.terminate_child(&target).await
        };
        inside(&caller, work).await
    });
    gate.until_waiting(1).await;
    let (own, target) = (tree.clone(), b.clone());
    let first =
        tokio::spawn(async move { inside(&a, move || async move { own.terminate_child(&target).await }).await });
    quiet().await;
    gate.open();
    assert!(matches!(in_time(second).await.unwrap(), Some(Err(_))));
    assert_eq!(in_time(first).await.unwrap(), Some(Ok(())));
    assert!(began.elapsed() < Duration::from_millis(100));
}

/// A task child that awaits its own supervisor, which it learns of once that runs.
fn task_that_stops(tree: &Arc<OnceLock<SupervisorRef>>, go: &Gate, refused: &Arc<OnceLock<bool>>) -> ChildSpec {
    let (tree, go, refused) = (tree.clone(), go.clone(), refused.clone());
    ChildSpec::task("task", move |stop| {
        let (tree, go, refused) = (tree.clone(), go.clone(), refused.clone());
        async move {
            go.pass().await;
            let own = tree.get().expect("it runs").clone();
            let _ = refused.set(refused_at_once(own.stop()).await);
            stop.cancelled().await;
            Ok::<_, BoxError>(())
        }
    })
    .shutdown(Shutdown::Infinity)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn task_child_that_stops_its_own_supervisor_is_refused() {
    let (own, go, refused) = (Arc::new(OnceLock::new()), Gate::closed(), Arc::new(OnceLock::new()));
    let tree = Supervisor::builder("top").child(task_that_stops(&own, &go, &refused)).start().await.unwrap();
    own.set(tree.clone()).unwrap();
    go.open();
    let known = async {
        while refused.get().is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), known).await.expect("it returns");
    assert_eq!(refused.get(), Some(&true));
    unharmed(&tree).await;
}

#[tokio::test(start_paused = true)]
async fn stop_from_a_task_that_a_child_spawned_is_served() {
    let living = Living::default();
    let tree = pair(&living).await;
    let own = tree.clone();
    inside(&actor(&tree, "a"), move || async move {
        tokio::spawn(async move { own.stop().await });
    })
    .await;
    // The child does not wait for it.
    assert!(tokio::time::timeout(Duration::from_millis(100), tree.wait()).await.is_ok());
}

/// An operation by a child that waits for a stop phase, which waits for the child.
#[tokio::test(start_paused = true)]
async fn operation_that_waits_for_the_callers_own_stop_is_refused() {
    let living = Living::default();
    let patient = |id: &str| agent(id, &living).shutdown(Shutdown::Infinity);
    let builder = Supervisor::builder("top").strategy(Strategy::OneForAll).intensity(5, Duration::from_secs(60));
    let tree = builder.children(["a", "b"].map(patient)).start().await.unwrap();
    let (own, gate, spec) = (tree.clone(), Gate::closed(), agent("new", &living));
    let (inner, caller) = (gate.clone(), actor(&tree, "b"));
    let work = move || async move {
        inner.pass().await;
        refused_at_once(own.start_child(spec)).await
    };
    let calling = tokio::spawn(async move { inside(&caller, work).await });
    gate.until_waiting(1).await;
    fail(&actor(&tree, "a"));
    quiet().await;
    gate.open();
    assert_eq!(in_time(calling).await.unwrap(), Some(true));
    quiet().await;
    assert_eq!(shown(&tree), "a+ b+");
}

/// A start function that waits for its own supervisor, or for its own start.
#[tokio::test(start_paused = true)]
async fn start_function_that_waits_for_its_own_start_is_refused() {
    let living = Living::default();
    let tree = Supervisor::builder("top").start().await.unwrap();
    let results = Arc::new(OnceLock::new());
    let (own, noted, alive) = (tree.clone(), results.clone(), living.clone());
    let spec = ChildSpec::new("a", move |parent| {
        let (own, noted, alive) = (own.clone(), noted.clone(), alive.clone());
        async move {
            let waited = refused_at_once(own.wait()).await;
            let terminated = refused_at_once(own.terminate_child("a")).await;
            let restarted = refused_at_once(own.restart_child("a")).await;
            let _ = noted.set([waited, terminated, restarted]);
            Agent::spawn_linked(None, Agent::new(&alive), (), parent).await
        }
    })
    .backoff(Backoff::NONE);
    let started = tokio::time::timeout(Duration::from_secs(1), tree.start_child(spec)).await;
    assert!(started.is_ok_and(|started| started.is_ok()));
    assert_eq!(results.get(), Some(&[true, true, true]));
}

/// A service that stops the tree that it is part of, as an administrator's command would.
#[derive(Clone)]
struct StopsItsTree(Arc<OnceLock<SupervisorRef>>);

impl Service for StopsItsTree {
    type Request = ();
    type Reply = bool;
    type Error = Infallible;

    async fn call(&self, _: CallContext, (): ()) -> Result<bool, Infallible> {
        let tree = self.0.get().expect("it has started");
        Ok(refused_at_once(tree.stop()).await && refused_at_once(tree.terminate_child("service")).await)
    }
}

/// The server waits for its worker when it stops: a worker is recognised as part of its server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_that_stops_its_servers_supervisor_is_refused() {
    for kind in [Worker::Actor, Worker::Task] {
        let service = StopsItsTree(Arc::default());
        let own = service.clone();
        let spec =
            ChildSpec::new("service", move |parent| CallServer::builder(own.clone()).worker(kind).start_linked(parent));
        let tree = Supervisor::builder("top").child(spec.shutdown(Shutdown::Infinity)).start().await.unwrap();
        service.0.set(tree.clone()).expect("once");
        let client = tree.child("service").unwrap().value::<CallClient<StopsItsTree>>().unwrap();
        let refused = tokio::time::timeout(Duration::from_secs(2), client.call(())).await;
        assert_eq!(refused.expect("nothing waits for itself").ok(), Some(true), "{kind:?}");
        assert!(tree.stop().await.unwrap().is_clean());
    }
}

/// A start in a supervisor that is being started itself waits for its parent's operations, which wait for that start.
#[tokio::test(start_paused = true)]
async fn start_within_a_starting_supervisor_that_waits_for_its_parent_is_refused() {
    for levels in 1..=3 {
        let living = Living::default();
        let slot: Arc<OnceLock<SupervisorRef>> = Arc::default();
        let refused: Arc<std::sync::Mutex<Vec<bool>>> = Arc::default();
        fn nest(
            level: u32,
            living: Living,
            slot: Arc<OnceLock<SupervisorRef>>,
            refused: Arc<std::sync::Mutex<Vec<bool>>>,
        ) -> ChildSpec {
            if level == 0 {
                return ChildSpec::new("asks", move |parent| {
                    let (living, slot, refused) = (living.clone(), slot.clone(), refused.clone());
                    async move {
                        if let Some(top) = slot.get() {
                            let outcome = refused_at_once(top.start_child(agent("later", &living))).await;
                            refused.lock().unwrap().push(outcome);
                        }
                        Agent::start(living, parent).await
                    }
                });
            }
            ChildSpec::supervisor("nested", move || {
                let spec = nest(level - 1, living.clone(), slot.clone(), refused.clone());
                Supervisor::builder("nested").child(spec)
            })
        }
        let nested = nest(levels, living.clone(), slot.clone(), refused.clone()).backoff(Backoff::NONE);
        let builder = Supervisor::builder("top").strategy(Strategy::RestForOne).intensity(10, Duration::from_secs(60));
        let tree = builder.child(nested).start().await.unwrap();
        slot.set(tree.clone()).ok().unwrap();
        actor(&tree, "nested").kill();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(*refused.lock().unwrap(), [true], "{levels} levels");
        assert_eq!(shown(&tree), "nested+");
        unharmed(&tree).await;
    }
}

/// A child that runs below a supervisor which is still starting may wait for it: it is no start.
#[tokio::test(start_paused = true)]
async fn child_of_a_starting_supervisor_may_wait_for_its_parents_operations() {
    let living = Living::default();
    let slot: Arc<OnceLock<SupervisorRef>> = Arc::default();
    let outcome: Arc<std::sync::Mutex<Option<bool>>> = Arc::default();
    let (alive, top, noted) = (living.clone(), slot.clone(), outcome.clone());
    let nested = ChildSpec::supervisor("nested", move || {
        let (slot, noted, living) = (top.clone(), noted.clone(), alive.clone());
        let also = living.clone();
        let asks = ChildSpec::task("asks", move |stop| {
            let (slot, noted, living) = (slot.clone(), noted.clone(), also.clone());
            async move {
                if let Some(top) = slot.get() {
                    let started = top.start_child(agent("later", &living)).await;
                    *noted.lock().unwrap() = Some(started.is_ok());
                }
                stop.cancelled().await;
                Ok(())
            }
        });
        let slow = ChildSpec::new("slow", move |parent| {
            let living = living.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                Agent::start(living, parent).await
            }
        });
        Supervisor::builder("nested").child(asks).child(slow)
    });
    let builder = Supervisor::builder("top").strategy(Strategy::RestForOne).intensity(10, Duration::from_secs(60));
    let tree = builder.child(nested.backoff(Backoff::NONE)).start().await.unwrap();
    slot.set(tree.clone()).ok().unwrap();
    actor(&tree, "nested").kill();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(*outcome.lock().unwrap(), Some(true));
    assert_eq!(shown(&tree), "nested+ later+");
    unharmed(&tree).await;
}

//! Starts that were given up and end otherwise than expected: with a child, with nothing, or with an actor that is older
//! than the start.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use plimsoll::supervisor::{
    Backoff, BoxError, Child, ChildError, ChildSpec, DynamicSupervisor, StartError, Supervisor,
};
use plimsoll_testkit::gate::Gate;
use ractor::{Actor, ActorCell, ActorStatus};

use crate::stage::{Agent, Living, agent, fail, inside, shown};

/// What a start returns after it has blocked its thread, which no abort can interrupt.
#[derive(Clone, Copy, PartialEq)]
enum Returns {
    Child,
    Nothing,
}

/// Starts at once at first; from the second time on it blocks its thread until it is released.
fn blocks(living: &Living, returns: Returns) -> (ChildSpec, mpsc::Sender<()>, Arc<AtomicUsize>) {
    let (release, receiver) = mpsc::channel();
    let (receiver, living, starts) = (Arc::new(Mutex::new(receiver)), living.clone(), Arc::new(AtomicUsize::new(0)));
    let counted = starts.clone();
    let spec = ChildSpec::new("a", move |parent: ActorCell| {
        let (receiver, living, starts) = (receiver.clone(), living.clone(), counted.clone());
        async move {
            if starts.fetch_add(1, Ordering::SeqCst) != 1 {
                return Agent::start(living, parent).await.map_err(BoxError::from);
            }
            let child = match returns {
                Returns::Child => Ok(Agent::start(living, parent).await?),
                Returns::Nothing => Err(BoxError::from(StartError::Ignored)),
            };
            starts.fetch_add(1, Ordering::SeqCst);
            let _ = receiver.lock().unwrap().recv_timeout(Duration::from_secs(20));
            child
        }
    });
    (spec.backoff(Backoff::NONE), release, starts)
}

async fn until(mut done: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < limit, "it does not come to that");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn restart_that_was_cancelled_and_succeeds_leaves_no_child() {
    let living = Living::default();
    let (spec, release, starts) = blocks(&living, Returns::Child);
    let builder =
        Supervisor::builder("top").intensity(100, Duration::from_secs(60)).kill_timeout(Duration::from_secs(60));
    let tree = builder.child(spec).start().await.unwrap();
    fail(tree.child("a").unwrap().actor());
    until(|| starts.load(Ordering::SeqCst) == 3).await;
    let terminating = tokio::spawn({
        let tree = tree.clone();
        async move { tree.terminate_child("a").await }
    });
    until(|| tree.inspect().details.children[0].status != plimsoll::inspect::Status::Running).await;
    // The cancellation is under way; the start returns a child all the same.
    tokio::time::sleep(Duration::from_millis(20)).await;
    release.send(()).unwrap();
    assert_eq!(terminating.await.unwrap(), Ok(()));
    living.until_none().await;
    assert_eq!(shown(&tree), "a-");
    assert!(tree.restart_child("a").await.is_ok(), "it can be started again");
    assert!(tree.stop().await.unwrap().is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn dynamic_restart_that_was_cancelled_and_succeeds_leaves_no_child() {
    let living = Living::default();
    let (release, receiver) = mpsc::channel::<()>();
    let (receiver, starts, alive) = (Arc::new(Mutex::new(receiver)), Arc::new(AtomicUsize::new(0)), living.clone());
    let counted = starts.clone();
    let builder = DynamicSupervisor::builder("top", move |parent, ()| {
        let (receiver, starts, living) = (receiver.clone(), counted.clone(), alive.clone());
        async move {
            let child = Agent::start(living, parent).await;
            if starts.fetch_add(1, Ordering::SeqCst) == 1 {
                let _ = receiver.lock().unwrap().recv_timeout(Duration::from_secs(20));
            }
            child
        }
    });
    let builder = builder.backoff(Backoff::NONE).kill_timeout(Duration::from_secs(60));
    let tree = builder.start().await.unwrap();
    let first = tree.start_child(()).await.unwrap().actor().clone();
    fail(&first);
    until(|| starts.load(Ordering::SeqCst) == 2).await;
    let terminating = tokio::spawn({
        let tree = tree.clone();
        async move { tree.terminate_child(&first).await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    release.send(()).unwrap();
    assert_eq!(terminating.await.unwrap(), Ok(()));
    living.until_none().await;
    assert_eq!(tree.count_children().unwrap().workers, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn abandoned_start_that_returns_nothing_frees_its_spec() {
    let living = Living::default();
    let (spec, release, starts) = blocks(&living, Returns::Nothing);
    let builder =
        Supervisor::builder("top").intensity(100, Duration::from_secs(60)).kill_timeout(Duration::from_millis(50));
    let tree = builder.child(spec).start().await.unwrap();
    fail(tree.child("a").unwrap().actor());
    until(|| starts.load(Ordering::SeqCst) == 3).await;
    assert_eq!(tree.terminate_child("a").await, Err(ChildError::KillTimedOut));
    assert_eq!(tree.restart_child("a").await.err(), Some(ChildError::KillTimedOut));
    assert_eq!(tree.start_or_get_child(agent("a", &living)).await.err(), Some(StartError::KillTimedOut));
    assert_eq!(tree.start_child(agent("a", &living)).await.err(), Some(StartError::AlreadyPresent));
    release.send(()).unwrap();
    until(|| tree.inspect().details.children[0].status == plimsoll::inspect::Status::Stopped).await;
    assert!(tree.start_or_get_child(agent("a", &living)).await.is_ok(), "it can be started again");
    assert!(tree.stop().await.unwrap().is_clean());
}

/// An actor is known by its link, and not by an id that is larger than those of the children.
#[tokio::test(start_paused = true)]
async fn older_actor_that_a_failed_start_has_linked_is_killed() {
    let living = Living::default();
    let (old, _) = Agent::spawn(None, Agent::new(&living), ()).await.unwrap();
    let tree = Supervisor::builder("top").child(agent("b", &living)).start().await.unwrap();
    let linked = old.get_cell();
    let spec = ChildSpec::new("a", move |parent: ActorCell| {
        linked.link(parent);
        async { Err::<Child, _>("no disk") }
    });
    assert!(tree.start_child(spec).await.is_err());
    assert_eq!(old.get_status(), ActorStatus::Stopped, "it was killed before the failure was reported");
    assert_eq!(shown(&tree), "b+");
}

/// A start costs the same however many are pending, also after one was given up.
#[tokio::test]
async fn starts_do_not_slow_down_while_many_are_pending() {
    async fn time_of_starts(pending: usize) -> Duration {
        let living = Living::default();
        let (alive, gate) = (living.clone(), Gate::closed());
        let inner = gate.clone();
        let builder = DynamicSupervisor::temporary("top", move |parent, wait: Option<bool>| {
            let (alive, gate) = (alive.clone(), inner.clone());
            async move {
                match wait {
                    Some(true) => gate.pass().await,
                    Some(false) => return Err(BoxError::from("given up")),
                    None => {}
                }
                Agent::start(alive, parent).await.map_err(BoxError::from)
            }
        });
        let tree = builder.max_children(100_000).start().await.unwrap();
        for _ in 0..pending {
            let tree = tree.clone();
            tokio::spawn(async move { tree.start_child(Some(true)).await });
        }
        gate.until_waiting(pending).await;
        assert!(tree.start_child(Some(false)).await.is_err());
        let began = Instant::now();
        for _ in 0..500 {
            let child = tree.start_child(None).await.unwrap();
            assert!(inside(child.actor(), || async {}).await.is_some());
        }
        let time = began.elapsed();
        gate.open();
        tree.stop().await.unwrap();
        time
    }
    let mut ratios = Vec::new();
    for _ in 0..3 {
        let (few, many) = (time_of_starts(10).await, time_of_starts(20_000).await);
        println!("500 starts: {few:?} with 10 pending, {many:?} with 20,000");
        ratios.push(many.as_secs_f64() / few.as_secs_f64());
    }
    let best = ratios.iter().copied().fold(f64::MAX, f64::min);
    assert!(best < 4.0, "{ratios:?}");
}

//! Starts that go wrong after their actor runs: nothing is left, and the name is free.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use plimsoll::supervisor::{
    Backoff, BoxError, Child, ChildSpec, DynamicBuilder, DynamicSupervisor, StartError, Supervisor, SupervisorBuilder,
};
use ractor::registry::where_is;
use ractor::{Actor, ActorCell, ActorRef};

use crate::support::{Begin, Do, Puppet, Stage, quiet, start_meanwhile};
use crate::trees::shown;

/// What a start function does once its actor runs.
#[derive(Clone, Copy)]
enum Then {
    Hang,
    Fail,
    Panic,
}

async fn half_start(
    puppet: Puppet,
    name: &str,
    parent: ActorCell,
    then: Option<Then>,
) -> Result<(ActorRef<Do>, tokio::task::JoinHandle<()>), BoxError> {
    let started = Puppet::spawn_linked(Some(name.to_owned()), puppet, (), parent).await?;
    match then {
        None => Ok(started),
        Some(Then::Hang) => std::future::pending().await,
        Some(Then::Fail) => Err("told to fail late".into()),
        Some(Then::Panic) => panic!("told to panic late"),
    }
}

/// A named child whose first start goes wrong after its actor runs.
fn half_started(stage: &Stage, name: &'static str, then: Then) -> ChildSpec {
    let (stage, wrong) = (stage.clone(), AtomicBool::new(true));
    ChildSpec::new(name, move |parent| {
        let then = wrong.swap(false, Ordering::Relaxed).then_some(then);
        let puppet = stage.puppet(name);
        async move { half_start(puppet, name, parent, then).await }
    })
    .backoff(Backoff::NONE)
}

#[tokio::test(start_paused = true)]
async fn otp_start_timeout_of_a_running_actor_leaves_nothing() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").start().await.unwrap();
    let spec = half_started(&stage, "attack timeout", Then::Hang).start_timeout(Duration::from_secs(1));
    assert_eq!(tree.start_child(spec.clone()).await, Err(StartError::Timeout(Duration::from_secs(1))));
    assert!(where_is("attack timeout").is_none(), "the name is free when the error is returned");
    tree.start_child(spec).await.unwrap();
    tree.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn otp_start_that_fails_or_panics_after_its_actor_runs_leaves_nothing() {
    for (name, then) in [("attack late error", Then::Fail), ("attack late panic", Then::Panic)] {
        let stage = Stage::default();
        let tree = Supervisor::builder("top").start().await.unwrap();
        let spec = half_started(&stage, name, then);
        assert!(matches!(tree.start_child(spec.clone()).await, Err(StartError::Failed(_))));
        assert!(where_is(name).is_none());
        tree.start_child(spec).await.unwrap();
        tree.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn otp_start_terminated_after_its_actor_runs_leaves_nothing() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").start().await.unwrap();
    let spec = half_started(&stage, "attack terminated", Then::Hang);
    let starting = start_meanwhile(&tree, spec);
    quiet().await;
    assert_eq!(tree.terminate_child("attack terminated").await, Ok(()));
    assert!(where_is("attack terminated").is_none());
    assert_eq!(starting.await.unwrap(), Err(StartError::Terminated));
    tree.restart_child("attack terminated").await.unwrap();
    tree.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn otp_start_that_fails_late_while_another_start_hangs_leaves_nothing() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").start().await.unwrap();
    stage.script.next("hangs", [Begin::Hang]);
    let hanging = start_meanwhile(&tree, stage.child("hangs"));
    quiet().await;
    let spec = half_started(&stage, "attack beside", Then::Fail);
    assert!(tree.start_child(spec.clone()).await.is_err());
    tree.terminate_child("hangs").await.unwrap();
    hanging.await.unwrap().unwrap_err();
    quiet().await;
    assert!(where_is("attack beside").is_none());
    tree.start_child(spec).await.unwrap();
    tree.stop().await.unwrap();
}

fn named_pair(stage: &Stage, name: &'static str, hangs: bool) -> SupervisorBuilder {
    let inner = stage.clone();
    let first = ChildSpec::new("first", move |parent| {
        Puppet::spawn_linked(Some(name.to_owned()), inner.puppet("first"), (), parent)
    });
    let second = if hangs {
        ChildSpec::new("second", |_| std::future::pending::<Result<Child, BoxError>>())
    } else {
        stage.child("second")
    };
    Supervisor::builder("nested").child(first).child(second)
}

#[tokio::test(start_paused = true)]
async fn otp_start_timeout_of_a_nested_supervisor_leaves_nothing() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").start().await.unwrap();
    let (inner, hangs) = (stage.clone(), AtomicBool::new(true));
    let spec = ChildSpec::supervisor("nested", move || {
        named_pair(&inner, "attack nested timeout", hangs.swap(false, Ordering::Relaxed))
    })
    .start_timeout(Duration::from_secs(1));
    assert_eq!(tree.start_child(spec.clone()).await, Err(StartError::Timeout(Duration::from_secs(1))));
    assert!(where_is("attack nested timeout").is_none());
    assert_eq!(stage.diary.take(), ["start first", "drop first"]);
    tree.start_child(spec).await.unwrap();
    tree.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn otp_restart_of_a_nested_supervisor_that_times_out_never_finds_its_own_names_taken() {
    let stage = Stage::default();
    let (inner, starts) = (stage.clone(), Arc::new(AtomicUsize::new(0)));
    let counted = starts.clone();
    let spec = ChildSpec::supervisor("nested", move || {
        named_pair(&inner, "attack nested retry", counted.fetch_add(1, Ordering::Relaxed) == 1)
    })
    .backoff(Backoff::NONE)
    .start_timeout(Duration::from_secs(1));
    let tree = Supervisor::builder("top").intensity(2, Duration::from_secs(60)).child(spec).start().await.unwrap();
    tree.child("nested").unwrap().actor().kill();
    tokio::time::sleep(Duration::from_secs(10)).await;
    // The kill, and one time-out: the third start succeeds.
    assert_eq!(starts.load(Ordering::Relaxed), 3);
    assert_eq!(shown(&tree), "nested+");
    tree.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn otp_terminate_of_a_nested_supervisor_that_starts_leaves_nothing() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").start().await.unwrap();
    let (inner, hangs) = (stage.clone(), AtomicBool::new(true));
    let spec = ChildSpec::supervisor("nested", move || {
        named_pair(&inner, "attack nested terminated", hangs.swap(false, Ordering::Relaxed))
    });
    let starting = start_meanwhile(&tree, spec);
    quiet().await;
    assert_eq!(tree.terminate_child("nested").await, Ok(()));
    assert!(where_is("attack nested terminated").is_none());
    starting.await.unwrap().unwrap_err();
    tree.restart_child("nested").await.unwrap();
    tree.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn otp_stop_while_a_nested_supervisor_starts_leaves_nothing() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").start().await.unwrap();
    let inner = stage.clone();
    let spec = ChildSpec::supervisor("nested", move || named_pair(&inner, "attack nested stop", true));
    let starting = start_meanwhile(&tree, spec);
    quiet().await;
    tree.stop().await.unwrap();
    assert_eq!(starting.await.unwrap(), Err(StartError::ShuttingDown));
    assert_eq!(stage.diary.take(), ["start first", "drop first"]);
}

#[tokio::test(start_paused = true)]
async fn otp_a_supervisors_start_that_is_dropped_leaves_nothing() {
    let stage = Stage::default();
    let start = named_pair(&stage, "attack dropped start", true).start();
    assert!(tokio::time::timeout(Duration::from_secs(1), start).await.is_err());
    quiet().await;
    assert_eq!(stage.diary.take(), ["start first", "drop first"]);
}

fn dynamic_half(stage: &Stage, name: &'static str, then: Then) -> DynamicBuilder<()> {
    let (stage, wrong) = (stage.clone(), Arc::new(AtomicBool::new(true)));
    DynamicSupervisor::builder("half", move |parent, (): ()| {
        let then = wrong.swap(false, Ordering::Relaxed).then_some(then);
        let puppet = stage.puppet(name);
        async move { half_start(puppet, name, parent, then).await }
    })
    .backoff(Backoff::NONE)
}

#[tokio::test(start_paused = true)]
async fn otp_simple_start_timeout_of_a_running_actor_leaves_nothing() {
    let stage = Stage::default();
    let dynamic =
        dynamic_half(&stage, "attack dynamic timeout", Then::Hang).start_timeout(Duration::from_secs(1)).start();
    let dynamic = dynamic.await.unwrap();
    assert_eq!(dynamic.start_child(()).await, Err(StartError::Timeout(Duration::from_secs(1))));
    assert!(where_is("attack dynamic timeout").is_none());
    dynamic.start_child(()).await.unwrap();
    dynamic.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn otp_simple_start_that_fails_or_panics_after_its_actor_runs_leaves_nothing() {
    for (name, then) in [("attack dynamic error", Then::Fail), ("attack dynamic panic", Then::Panic)] {
        let stage = Stage::default();
        let dynamic = dynamic_half(&stage, name, then).start().await.unwrap();
        assert!(matches!(dynamic.start_child(()).await, Err(StartError::Failed(_))));
        assert!(where_is(name).is_none());
        dynamic.start_child(()).await.unwrap();
        dynamic.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn otp_simple_start_dropped_by_its_caller_leaves_nothing() {
    let stage = Stage::default();
    let dynamic = dynamic_half(&stage, "attack dynamic drop", Then::Hang).start().await.unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(1), dynamic.start_child(())).await.is_err());
    quiet().await;
    assert!(where_is("attack dynamic drop").is_none());
    dynamic.start_child(()).await.unwrap();
    dynamic.stop().await.unwrap();
}

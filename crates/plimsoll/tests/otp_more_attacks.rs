//! Children, starts and callers that misbehave: nothing is left behind, and nobody else suffers.

mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plimsoll::exit::ExitReason;
use plimsoll::supervisor::{
    Backoff, BoxError, ChildError, ChildSpec, ChildState, DynamicSupervisor, DynamicSupervisorRef, Restart, Shutdown,
    ShutdownCause, StartError, Started, Strategy, Supervisor, SupervisorBuilder, SupervisorRef, TroubleKind,
};
use ractor::registry::where_is;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
use support::{Begin, Do, Puppet, Stage, quiet, tell_id};
use tokio::time::Instant;

fn shown(tree: &SupervisorRef) -> String {
    let letter = |state: &ChildState| match state {
        ChildState::Running(_) => '+',
        ChildState::Restarting => '~',
        _ => '-',
    };
    let children = tree.which_children().unwrap().into_iter().rev();
    children.map(|child| format!("{}{}", child.id.unwrap(), letter(&child.state))).collect::<Vec<_>>().join(" ")
}

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

// --- starts that go wrong half-way -------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn otp_start_timeout_of_a_running_actor_leaves_nothing() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").start().await.unwrap();
    let spec = half_started(&stage, "attack timeout", Then::Hang).start_timeout(Duration::from_secs(1));
    assert_eq!(tree.start_child(spec.clone()).await, Err(StartError::Timeout(Duration::from_secs(1))));
    assert!(where_is("attack timeout").is_none(), "the name is free when the error is returned");
    assert!(matches!(tree.start_child(spec).await, Ok(Started::Child(_))));
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn otp_start_that_fails_or_panics_after_its_actor_runs_leaves_nothing() {
    for (name, then) in [("attack late error", Then::Fail), ("attack late panic", Then::Panic)] {
        let stage = Stage::default();
        let tree = Supervisor::builder("top").start().await.unwrap();
        let spec = half_started(&stage, name, then);
        assert!(matches!(tree.start_child(spec.clone()).await, Err(StartError::Failed(_))));
        assert!(where_is(name).is_none());
        assert!(matches!(tree.start_child(spec).await, Ok(Started::Child(_))));
        tree.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn otp_start_terminated_after_its_actor_runs_leaves_nothing() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").start().await.unwrap();
    let spec = half_started(&stage, "attack terminated", Then::Hang);
    let starting = tokio::spawn({
        let tree = tree.clone();
        async move { tree.start_child(spec).await }
    });
    quiet().await;
    assert_eq!(tree.terminate_child("attack terminated").await, Ok(()));
    assert!(where_is("attack terminated").is_none());
    assert_eq!(starting.await.unwrap(), Err(StartError::Terminated));
    assert!(matches!(tree.restart_child("attack terminated").await, Ok(Started::Child(_))));
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn otp_start_that_fails_late_while_another_start_hangs_leaves_nothing() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").start().await.unwrap();
    stage.script.next("hangs", [Begin::Hang]);
    let hanging = tokio::spawn({
        let (tree, spec) = (tree.clone(), stage.child("hangs"));
        async move { tree.start_child(spec).await }
    });
    quiet().await;
    let spec = half_started(&stage, "attack beside", Then::Fail);
    assert!(tree.start_child(spec.clone()).await.is_err());
    tree.terminate_child("hangs").await.unwrap();
    hanging.await.unwrap().unwrap_err();
    quiet().await;
    assert!(where_is("attack beside").is_none());
    assert!(matches!(tree.start_child(spec).await, Ok(Started::Child(_))));
    tree.stop().await;
}

fn named_pair(stage: &Stage, name: &'static str, hangs: bool) -> SupervisorBuilder {
    let inner = stage.clone();
    let first = ChildSpec::new("first", move |parent| {
        Puppet::spawn_linked(Some(name.to_owned()), inner.puppet("first"), (), parent)
    });
    let second = if hangs {
        ChildSpec::new("second", |_| std::future::pending::<Result<Option<plimsoll::supervisor::Child>, BoxError>>())
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
    assert!(matches!(tree.start_child(spec).await, Ok(Started::Child(_))));
    tree.stop().await;
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
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn otp_terminate_of_a_nested_supervisor_that_starts_leaves_nothing() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").start().await.unwrap();
    let (inner, hangs) = (stage.clone(), AtomicBool::new(true));
    let spec = ChildSpec::supervisor("nested", move || {
        named_pair(&inner, "attack nested terminated", hangs.swap(false, Ordering::Relaxed))
    });
    let starting = tokio::spawn({
        let tree = tree.clone();
        async move { tree.start_child(spec).await }
    });
    quiet().await;
    assert_eq!(tree.terminate_child("nested").await, Ok(()));
    assert!(where_is("attack nested terminated").is_none());
    starting.await.unwrap().unwrap_err();
    assert!(matches!(tree.restart_child("nested").await, Ok(Started::Child(_))));
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn otp_stop_while_a_nested_supervisor_starts_leaves_nothing() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").start().await.unwrap();
    let inner = stage.clone();
    let spec = ChildSpec::supervisor("nested", move || named_pair(&inner, "attack nested stop", true));
    let starting = tokio::spawn({
        let tree = tree.clone();
        async move { tree.start_child(spec).await }
    });
    quiet().await;
    tree.stop().await;
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

fn dynamic_half(stage: &Stage, name: &'static str, then: Then) -> plimsoll::supervisor::DynamicBuilder<()> {
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
    assert!(matches!(dynamic.start_child(()).await, Ok(Started::Child(_))));
    dynamic.stop().await;
}

#[tokio::test(start_paused = true)]
async fn otp_simple_start_that_fails_or_panics_after_its_actor_runs_leaves_nothing() {
    for (name, then) in [("attack dynamic error", Then::Fail), ("attack dynamic panic", Then::Panic)] {
        let stage = Stage::default();
        let dynamic = dynamic_half(&stage, name, then).start().await.unwrap();
        assert!(matches!(dynamic.start_child(()).await, Err(StartError::Failed(_))));
        assert!(where_is(name).is_none());
        assert!(matches!(dynamic.start_child(()).await, Ok(Started::Child(_))));
        dynamic.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn otp_simple_start_dropped_by_its_caller_leaves_nothing() {
    let stage = Stage::default();
    let dynamic = dynamic_half(&stage, "attack dynamic drop", Then::Hang).start().await.unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(1), dynamic.start_child(())).await.is_err());
    quiet().await;
    assert!(where_is("attack dynamic drop").is_none());
    assert!(matches!(dynamic.start_child(()).await, Ok(Started::Child(_))));
    dynamic.stop().await;
}

// --- drops that panic --------------------------------------------------------------------------------------------

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("dropped")
        }
    }
}

/// An actor whose own drop, or whose state's, panics.
struct Bombs {
    _own: Option<Bomb>,
    in_state: bool,
}

impl Actor for Bombs {
    type Msg = Do;
    type State = Option<Bomb>;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Do>, (): ()) -> Result<Option<Bomb>, ActorProcessingErr> {
        Ok(self.in_state.then(|| Bomb))
    }

    async fn handle(&self, me: ActorRef<Do>, _: Do, _: &mut Option<Bomb>) -> Result<(), ActorProcessingErr> {
        me.stop(None);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn otp_a_drop_that_panics_is_a_failure_with_its_message_and_nobody_elses() {
    for in_state in [true, false] {
        let stage = Stage::default();
        let starts = Arc::new(AtomicUsize::new(0));
        let counted = starts.clone();
        let spec = ChildSpec::new("bomb", move |parent| {
            counted.fetch_add(1, Ordering::Relaxed);
            Bombs::spawn_linked(None, Bombs { _own: (!in_state).then(|| Bomb), in_state }, (), parent)
        });
        let spec = spec.restart(Restart::Transient).backoff(Backoff::NONE);
        let tree = Supervisor::builder("top").child(stage.child("a")).child(spec).start().await.unwrap();
        tell_id(&tree, "bomb", Do::Normal);
        quiet().await;
        // A normal end with a panicking drop is a failure.
        assert_eq!(starts.load(Ordering::Relaxed), 2, "in state: {in_state}");
        assert_eq!(shown(&tree), "a+ bomb+");
        let report = tree.stop().await;
        let told: Vec<_> = report.troubles.iter().map(|trouble| (&*trouble.path[0], &trouble.what)).collect();
        assert_eq!(told, [("bomb", &TroubleKind::Ended(ExitReason::failed("dropped")))], "in state: {in_state}");
    }
}

#[tokio::test(start_paused = true)]
async fn otp_a_start_function_whose_drop_panics_hurts_nobody() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").child(stage.child("a")).start().await.unwrap();
    for restart in [Restart::Permanent, Restart::Temporary] {
        let (bomb, inner) = (Bomb, stage.clone());
        let spec = ChildSpec::new("bomb", move |parent| {
            let _ = &bomb;
            Puppet::spawn_linked(None, inner.puppet("bomb"), (), parent)
        });
        let _ = tokio::spawn({
            let tree = tree.clone();
            async move { tree.start_child(spec.restart(restart)).await }
        })
        .await;
        quiet().await;
        let _ = tree.terminate_child("bomb").await;
        let _ = tokio::spawn({
            let tree = tree.clone();
            async move { tree.delete_child("bomb").await }
        })
        .await;
        assert_eq!(shown(&tree), "a+", "{restart:?}");
    }
    assert!(tree.stop().await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn otp_an_observer_that_panics_hurts_nobody() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = seen.clone();
    let stage = Stage::default();
    let tree = Supervisor::builder("top")
        .intensity(0, Duration::from_secs(1))
        .on_shutdown(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            panic!("observer")
        })
        .child(stage.child("a"))
        .start()
        .await
        .unwrap();
    tell_id(&tree, "a", Do::Panic);
    assert_eq!(tree.wait().await.cause, ShutdownCause::GaveUp);
    quiet().await;
    assert_eq!(seen.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn otp_the_observer_is_told_when_nobody_asked() {
    let seen: Arc<Mutex<Vec<ShutdownCause>>> = Arc::default();
    let build = || {
        let seen = seen.clone();
        Supervisor::builder("top").on_shutdown(move |report| seen.lock().unwrap().push(report.cause))
    };
    build().start().await.unwrap().stop().await;
    assert!(seen.lock().unwrap().is_empty(), "who stops it is told already");
    let tree = build().start().await.unwrap();
    tree.actor().kill();
    tree.wait().await;
    quiet().await;
    assert_eq!(*seen.lock().unwrap(), [ShutdownCause::Killed]);
}

struct Payload;

impl Drop for Payload {
    fn drop(&mut self) {
        panic!("a payload that panics")
    }
}

#[tokio::test(start_paused = true)]
async fn otp_a_panic_that_is_no_text_is_a_failure_all_the_same() {
    struct Odd;
    impl Actor for Odd {
        type Msg = ();
        type State = ();
        type Arguments = ();
        async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
            Ok(())
        }
        async fn handle(&self, _: ActorRef<()>, (): (), _: &mut ()) -> Result<(), ActorProcessingErr> {
            std::panic::panic_any(17_u8)
        }
    }
    let spec = ChildSpec::new("odd", |parent| Odd::spawn_linked(None, Odd, (), parent)).restart(Restart::Transient);
    let tree = Supervisor::builder("top").child(spec.backoff(Backoff::NONE)).start().await.unwrap();
    let odd = tree.child("odd").unwrap();
    odd.actor_ref::<()>().unwrap().cast(()).unwrap();
    quiet().await;
    assert_ne!(tree.child("odd").unwrap(), odd);

    // A start whose panic payload panics when it is dropped.
    let worse = ChildSpec::new("worse", |_| async {
        if true {
            std::panic::panic_any(Payload)
        }
        Ok::<Option<plimsoll::supervisor::Child>, BoxError>(None)
    });
    let started = tokio::spawn({
        let tree = tree.clone();
        async move { tokio::time::timeout(Duration::from_secs(5), tree.start_child(worse)).await }
    });
    assert!(matches!(started.await.unwrap(), Ok(Err(StartError::Failed(_)))));
    assert_eq!(shown(&tree), "odd+");
    tree.stop().await;
}

// --- unlinked ----------------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn otp_child_unlink_is_reported_as_it_ends() {
    let stage = Stage::default();
    let failing = |mut puppet: Puppet| {
        puppet.fail_stop = true;
        puppet
    };
    let slow = |mut puppet: Puppet| {
        puppet.slow_stop = Duration::from_secs(60);
        puppet
    };
    let builder = Supervisor::builder("top").child(stage.child("clean")).child(stage.child_with("fails", failing));
    let tree = builder.child(stage.child_with("slow", slow)).start().await.unwrap();
    for id in ["clean", "fails", "slow"] {
        tell_id(&tree, id, Do::Unlink);
    }
    quiet().await;
    let began = Instant::now();
    let report = tree.stop().await;
    assert_eq!(began.elapsed(), Duration::from_secs(5));
    let told: Vec<_> = report.troubles.iter().map(|trouble| (&*trouble.path[0], &trouble.what)).collect();
    let failed = TroubleKind::Ended(ExitReason::failed("told to fail"));
    assert_eq!(told, [("slow", &TroubleKind::Killed), ("fails", &failed)]);
}

#[tokio::test(start_paused = true)]
async fn otp_child_unlink_is_terminated_and_restarted_by_hand() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").child(stage.child("a")).start().await.unwrap();
    tell_id(&tree, "a", Do::Unlink);
    quiet().await;
    assert_eq!(tree.terminate_child("a").await, Ok(()));
    assert_eq!(shown(&tree), "a-");
    assert!(matches!(tree.restart_child("a").await, Ok(Started::Child(_))));
}

#[tokio::test(start_paused = true)]
async fn otp_child_unlink_takes_part_in_a_group_restart() {
    let stage = Stage::default();
    let builder = Supervisor::builder("top").strategy(Strategy::OneForAll).child(stage.child("a"));
    let tree = builder.child(stage.child("b")).start().await.unwrap();
    stage.did();
    tell_id(&tree, "b", Do::Unlink);
    quiet().await;
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    assert_eq!(stage.did(), ["stop b", "start a", "start b"]);
}

// --- operations while a stop phase is under way ------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn otp_operations_queued_behind_a_stop_phase_are_served_in_order() {
    let stage = Stage::default();
    let slow = |mut puppet: Puppet| {
        puppet.slow_stop = Duration::from_secs(2);
        puppet
    };
    let builder = Supervisor::builder("top").strategy(Strategy::RestForOne).child(stage.child("first"));
    let builder = builder.child(stage.child("a")).child(stage.child_with("slow", slow));
    let tree = builder.start().await.unwrap();
    tree.terminate_child("first").await.unwrap();
    stage.did();
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    let began = Instant::now();
    let (restarted, deleted, started) =
        tokio::join!(tree.restart_child("first"), tree.delete_child("first"), tree.start_child(stage.child("new")));
    assert!(matches!(restarted, Ok(Started::Child(_))));
    assert_eq!(deleted, Err(ChildError::Running));
    assert!(matches!(started, Ok(Started::Child(_))));
    assert!(began.elapsed() >= Duration::from_millis(1_990));
    quiet().await;
    assert_eq!(shown(&tree), "first+ a+ slow+ new+");
}

#[tokio::test(start_paused = true)]
async fn otp_terminate_of_a_sibling_while_its_group_stops_keeps_it_down() {
    let stage = Stage::default();
    let slow = |mut puppet: Puppet| {
        puppet.slow_stop = Duration::from_secs(2);
        puppet
    };
    let builder = Supervisor::builder("top").strategy(Strategy::OneForAll).child(stage.child("a"));
    let tree = builder.child(stage.child("b")).child(stage.child_with("slow", slow)).start().await.unwrap();
    stage.did();
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    assert_eq!(tree.terminate_child("b").await, Ok(()));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(shown(&tree), "a+ b- slow+");
    assert_eq!(stage.did(), ["stopping slow", "stop b", "stop slow", "start a", "start slow"]);
}

#[tokio::test(start_paused = true)]
async fn otp_a_caller_that_gives_up_in_the_queue_changes_nothing_for_others() {
    let stage = Stage::default();
    let slow = |mut puppet: Puppet| {
        puppet.slow_stop = Duration::from_secs(2);
        puppet
    };
    let builder = Supervisor::builder("top").strategy(Strategy::OneForAll).child(stage.child("a"));
    let tree = builder.child(stage.child_with("slow", slow)).start().await.unwrap();
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    assert!(tokio::time::timeout(Duration::from_millis(10), tree.start_child(stage.child("x"))).await.is_err());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(shown(&tree), "a+ slow+ x+");
}

// --- killed ------------------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn otp_nested_supervisor_killed_is_restarted_after_its_children_are_gone() {
    let stage = Stage::default();
    let inner = stage.clone();
    let slow = |mut puppet: Puppet| {
        puppet.slow_stop = Duration::from_secs(100);
        puppet
    };
    let spec = ChildSpec::supervisor("nested", move || {
        Supervisor::builder("nested").child(inner.child_with("x", slow)).child(inner.child("y"))
    });
    let tree = Supervisor::builder("top").child(spec.backoff(Backoff::NONE)).start().await.unwrap();
    let nested = tree.child("nested").unwrap();
    tell_id(&nested.value::<SupervisorRef>().unwrap(), "x", Do::Normal);
    quiet().await;
    stage.diary.take();
    nested.actor().kill();
    quiet().await;
    let events = stage.diary.take();
    let position = |event: &str| events.iter().position(|seen| seen == event).unwrap_or_else(|| panic!("{events:?}"));
    assert!(position("drop x") < position("start x"), "{events:?}");
    assert!(position("drop y") < position("start x"), "{events:?}");
    assert_eq!(shown(&tree), "nested+");
}

#[tokio::test(start_paused = true)]
async fn otp_nested_supervisor_is_brutally_stopped_with_its_children() {
    let stage = Stage::default();
    let inner = stage.clone();
    let spec = ChildSpec::supervisor("nested", move || Supervisor::builder("nested").child(inner.child("x")));
    let tree = Supervisor::builder("top").child(spec.shutdown(Shutdown::Brutal)).start().await.unwrap();
    let report = tree.stop().await;
    assert_eq!(stage.diary.take(), ["start x", "drop x"]);
    assert!(report.is_clean(), "{report}");
}

#[tokio::test(start_paused = true)]
async fn otp_nested_supervisor_with_a_grace_is_killed_with_its_children() {
    let stage = Stage::default();
    let inner = stage.clone();
    let slow = |mut puppet: Puppet| {
        puppet.slow_stop = Duration::from_secs(100);
        puppet
    };
    let spec = ChildSpec::supervisor("nested", move || {
        Supervisor::builder("nested").child(inner.child_with("x", slow).shutdown(Shutdown::Infinity))
    });
    let spec = spec.shutdown(Shutdown::After(Duration::from_secs(1)));
    let tree = Supervisor::builder("top").child(spec).start().await.unwrap();
    let began = Instant::now();
    let report = tree.stop().await;
    assert_eq!(began.elapsed(), Duration::from_secs(1));
    assert!(report.stragglers().any(|trouble| &*trouble.path[0] == "nested" && trouble.path.len() == 1), "{report}");
    assert_eq!(stage.diary.take(), ["start x", "stopping x", "drop x"]);
}

#[test]
fn otp_a_dropped_runtime_leaves_nobody() {
    let stage = Stage::default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let inner = stage.clone();
    let (tree, dynamic) = runtime.block_on(async move {
        let nested = inner.clone();
        let spec = ChildSpec::supervisor("nested", move || Supervisor::builder("nested").child(nested.child("x")));
        let tree = Supervisor::builder("top").child(inner.child("a")).child(spec).start().await.unwrap();
        let dynamic = DynamicSupervisor::builder("dynamic", move |parent, (): ()| {
            Puppet::spawn_linked(None, inner.puppet("d"), (), parent)
        });
        let dynamic = dynamic.start().await.unwrap();
        dynamic.start_child(()).await.unwrap();
        (tree, dynamic)
    });
    drop(runtime);
    let mut left: Vec<_> = stage.diary.take().into_iter().filter(|event| event.starts_with("drop")).collect();
    left.sort();
    assert_eq!(left, ["drop a", "drop d", "drop x"]);
    drop((tree, dynamic));
}

// --- many at once ------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn otp_many_callers_at_once_leave_the_books_in_order() {
    let stage = Stage::default();
    let builder = Supervisor::builder("top").strategy(Strategy::OneForAll).intensity(u32::MAX, Duration::from_secs(60));
    let tree = builder.child(stage.child("anchor")).start().await.unwrap();
    let callers = (0..8_usize).map(|caller| {
        let (tree, stage) = (tree.clone(), stage.clone());
        tokio::spawn(async move {
            for round in 0..50 {
                let id = format!("{}", (caller + round) % 5);
                match round % 5 {
                    0 | 1 => drop(tree.start_child(stage.child(&id)).await),
                    2 => drop(tree.terminate_child(&id).await),
                    3 => drop(tree.restart_child(&id).await),
                    _ => drop(tree.delete_child(&id).await),
                }
                if let (0, Ok(child)) = (round % 7, tree.child("anchor")) {
                    child.actor().kill();
                }
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        tokio::time::timeout(Duration::from_secs(20), caller).await.expect("every caller is answered").unwrap();
    }
    let report = tokio::time::timeout(Duration::from_secs(20), tree.stop()).await.expect("it stops");
    assert_eq!(report.left_behind().count(), 0, "{report}");
    let events = stage.diary.take();
    let count = |verb: &str| events.iter().filter(|event| event.starts_with(verb)).count();
    assert!(count("start ") <= count("drop "), "who started has gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn otp_simple_many_callers_at_once_leave_the_books_in_order() {
    let stage = Stage::default();
    let inner = stage.clone();
    let dynamic: DynamicSupervisorRef<()> = DynamicSupervisor::builder("dynamic", move |parent, (): ()| {
        Puppet::spawn_linked(None, inner.puppet("d"), (), parent)
    })
    .intensity(u32::MAX, Duration::from_secs(60))
    .backoff(Backoff::constant(Duration::from_millis(1)))
    .max_children(100)
    .start()
    .await
    .unwrap();
    let callers = (0..8).map(|caller| {
        let dynamic = dynamic.clone();
        tokio::spawn(async move {
            for round in 0..100 {
                let Ok(Started::Child(child)) = dynamic.start_child(()).await else { continue };
                match (round + caller) % 4 {
                    0 => child.actor().kill(),
                    1 => drop(child.actor_ref::<Do>().unwrap().cast(Do::Panic)),
                    _ => {}
                }
                if round % 3 > 0 {
                    dynamic.terminate_child(child.actor()).await.unwrap();
                }
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        tokio::time::timeout(Duration::from_secs(20), caller).await.expect("every caller is answered").unwrap();
    }
    let report = tokio::time::timeout(Duration::from_secs(20), dynamic.stop()).await.expect("it stops");
    assert_eq!(report.left_behind().count(), 0, "{report}");
    let events = stage.diary.take();
    let count = |verb: &str| events.iter().filter(|event| event.starts_with(verb)).count();
    assert_eq!(count("start "), count("drop "));
}

//! Nothing is left behind: whichever way a supervisor ends, nobody below it runs on, drains or stays in a stop hook. And
//! what panics, wherever it does, becomes an exit reason.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use plimsoll::exit::ExitReason;
use plimsoll::supervisor::{
    Backoff, BoxError, Child, ChildError, ChildSpec, ChildState, DynamicSupervisor, Restart, Shutdown, ShutdownCause,
    StartError, StopFailureKind, StopMode, Strategy, Supervisor, SupervisorRef,
};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, ActorStatus};
use support::{Begin, Do, Puppet, Stage, quiet, slow, stop_meanwhile, tell_id};

/// A tree with a child that runs, one that drains, one in its stop hook, and a supervisor with the same.
async fn busy_tree(stage: &Stage) -> (SupervisorRef, Vec<ActorCell>) {
    let inner = stage.clone();
    let tree = Supervisor::builder("top")
        .child(stage.child("runs"))
        .child(stage.child_with("hooked", slow(3_600)).restart(Restart::Temporary))
        .child(stage.child("drains").restart(Restart::Temporary))
        .child(ChildSpec::supervisor("nested", move || {
            Supervisor::builder("nested").child(inner.child("deep")).child(inner.child_with("deep hooked", slow(3_600)))
        }))
        .start()
        .await
        .unwrap();
    let nested = tree.child("nested").unwrap().value::<SupervisorRef>().unwrap();
    let mut actors: Vec<ActorCell> =
        ["runs", "hooked", "drains"].iter().map(|id| tree.child(id).unwrap().actor().clone()).collect();
    actors.extend(["deep", "deep hooked"].iter().map(|id| nested.child(id).unwrap().actor().clone()));
    actors[1].stop(None);
    tell_id(&tree, "drains", Do::Busy(Duration::from_secs(3_600)));
    actors[2].drain().unwrap();
    actors[4].stop(None);
    quiet().await;
    (tree, actors)
}

fn assert_gone(stage: &Stage, actors: &[ActorCell]) {
    assert!(actors.iter().all(|actor| actor.get_status() == ActorStatus::Stopped), "{actors:?}");
    let drops = stage.diary.take().iter().filter(|event| event.starts_with("drop")).count();
    assert_eq!(drops, actors.len());
}

#[tokio::test(start_paused = true)]
async fn a_killed_supervisor_leaves_nobody_running_draining_or_in_a_stop_hook() {
    let stage = Stage::default();
    let (tree, actors) = busy_tree(&stage).await;
    let began = tokio::time::Instant::now();
    tree.actor().kill();
    let report = tree.wait().await.unwrap();
    assert_eq!((&report.cause, &report.reason), (&ShutdownCause::Killed, &ExitReason::Killed));
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_gone(&stage, &actors);
}

#[tokio::test(start_paused = true)]
async fn a_killed_anchor_is_the_end_of_the_supervisor() {
    let stage = Stage::default();
    let (tree, actors) = busy_tree(&stage).await;
    actors[0].try_get_supervisor().unwrap().kill();
    tree.wait().await.unwrap();
    assert_gone(&stage, &actors);
}

#[tokio::test(start_paused = true)]
async fn an_ordinary_stop_of_its_actor_stops_the_tree_in_order() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").child(stage.child("a")).child(stage.child("b")).start().await.unwrap();
    tree.actor().stop(None);
    assert!(tree.wait().await.unwrap().is_clean());
    assert_eq!(stage.did(), ["start a", "start b", "stop b", "stop a"]);
}

#[test]
fn a_dropped_runtime_leaves_nobody() {
    let stage = Stage::default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let actors = runtime.block_on(async {
        let tree = Supervisor::builder("top")
            .child(stage.child("a"))
            .child(stage.child_with("b", slow(3_600)))
            .start()
            .await
            .unwrap();
        ["a", "b"].map(|id| tree.child(id).unwrap().actor().clone())
    });
    drop(runtime);
    assert_gone(&stage, &actors);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_dropped_half_way_leaves_nobody() {
    let stage = Stage::default();
    stage.script.next("b", [Begin::Hang]);
    let start = Supervisor::builder("top").child(stage.child("a")).child(stage.child("b")).start();
    assert!(tokio::time::timeout(Duration::from_secs(1), start).await.is_err());
    quiet().await;
    let mut did = stage.diary.take();
    did.sort();
    assert_eq!(did, ["drop a", "drop b", "start a"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_failed_start_linked_is_killed() {
    let stage = Stage::default();
    let half = stage.clone();
    let spec = ChildSpec::new("half", move |parent: ActorCell| {
        let puppet = half.puppet("half");
        async move {
            Puppet::spawn_linked(None, puppet, (), parent).await?;
            Err::<Child, BoxError>("the second half is missing".into())
        }
    });
    let tree = Supervisor::builder("top").start().await.unwrap();
    assert!(matches!(tree.start_child(spec).await, Err(StartError::Failed(_))));
    quiet().await;
    assert_eq!(stage.diary.take(), ["start half", "drop half"]);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_outlives_its_supervisor_is_not_adopted() {
    let stage = Stage::default();
    let dynamic = DynamicSupervisor::temporary("late", {
        let stage = stage.clone();
        move |parent: ActorCell, (): ()| {
            let puppet = stage.puppet("late");
            async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                Puppet::spawn_linked(None, puppet, (), parent).await
            }
        }
    })
    .start()
    .await
    .unwrap();
    let starting = tokio::spawn({
        let dynamic = dynamic.clone();
        async move { dynamic.start_child(()).await }
    });
    quiet().await;
    assert!(dynamic.stop().await.unwrap().is_clean());
    assert_eq!(starting.await.unwrap(), Err(StartError::ShuttingDown));
    assert_eq!(stage.diary.take(), ["drop late"]);
}

/// Blocks its thread when it is asked to stop, until it is let go.
struct Stubborn {
    let_go: Arc<AtomicBool>,
    alive: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Stubborn {
    fn new(let_go: &Arc<AtomicBool>, alive: &Arc<AtomicUsize>, most: &Arc<AtomicUsize>) -> Self {
        let now = alive.fetch_add(1, Ordering::SeqCst) + 1;
        most.fetch_max(now, Ordering::SeqCst);
        Self { let_go: let_go.clone(), alive: alive.clone(), most: most.clone() }
    }
}

impl Drop for Stubborn {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
        let _ = &self.most;
    }
}

impl Actor for Stubborn {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<()>, _: &mut ()) -> Result<(), ActorProcessingErr> {
        while !self.let_go.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// Lets the thread go also when a test fails, so that its runtime can end.
struct LetGo(Arc<AtomicBool>);

impl Drop for LetGo {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn stubborn(let_go: &Arc<AtomicBool>, alive: &Arc<AtomicUsize>, most: &Arc<AtomicUsize>) -> ChildSpec {
    let (let_go, alive, most) = (let_go.clone(), alive.clone(), most.clone());
    ChildSpec::new("stubborn", move |parent| {
        Stubborn::spawn_linked(None, Stubborn::new(&let_go, &alive, &most), (), parent)
    })
    .shutdown(Shutdown::After(Duration::from_millis(20)))
    .backoff(Backoff::NONE)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whom_no_kill_can_end_is_named_and_does_not_hold_up_the_rest() {
    let (let_go, alive, most) = Default::default();
    let _guard = LetGo(Arc::clone(&let_go));
    let stage = Stage::default();
    let (spec, leave) = (stubborn(&let_go, &alive, &most), Duration::from_millis(50));
    let nested = move || Supervisor::builder("nested").kill_timeout(leave).child(spec.clone());
    let tree = Supervisor::builder("top")
        .kill_timeout(leave)
        .child(stage.child("a"))
        .child(ChildSpec::supervisor("nested", nested))
        .start()
        .await
        .unwrap();
    let report = tree.stop().await.unwrap();
    let left: Vec<_> = report.kill_timed_out().map(|failure| failure.path.join("/")).collect();
    assert_eq!(left, ["nested/stubborn"], "{report}");
    assert!(report.failures[0].waited >= Duration::from_millis(70), "{report}");
    assert!(report.failures[0].actor.is_some());
    assert_eq!(stage.did(), ["start a", "stop a"]);
    assert_eq!(alive.load(Ordering::SeqCst), 1);
    let_go.store(true, Ordering::SeqCst);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_second_incarnation_starts_before_the_first_has_ended() {
    let (let_go, alive, most) = Default::default();
    let _guard = LetGo(Arc::clone(&let_go));
    let stage = Stage::default();
    let tree = Supervisor::builder("top")
        .strategy(Strategy::OneForAll)
        .kill_timeout(Duration::from_millis(20))
        .child(stage.child("a"))
        .child(stubborn(&let_go, &alive, &most))
        .start()
        .await
        .unwrap();
    tell_id(&tree, "a", Do::Panic);
    // The others go on without the one left behind.
    let running = |id: &'static str| {
        let tree = tree.clone();
        async move {
            for _ in 0..5_000 {
                if tree.child(id).is_ok_and(|child| child.actor().get_status() == ActorStatus::Running) {
                    return true;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            false
        }
    };
    while stage.did() != ["start a"] {
        tokio::time::sleep(Duration::from_millis(1)).await;
        if stage.diary.take().contains(&"start a".to_owned()) {
            break;
        }
    }
    assert!(running("a").await);
    assert_eq!(tree.terminate_child("stubborn").await, Err(ChildError::KillTimedOut));
    assert_eq!(tree.restart_child("stubborn").await.unwrap_err(), ChildError::KillTimedOut);
    assert_eq!(most.load(Ordering::SeqCst), 1);
    let_go.store(true, Ordering::SeqCst);
    for _ in 0..5_000 {
        if tree.restart_child("stubborn").await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(running("stubborn").await);
    assert_eq!((alive.load(Ordering::SeqCst), most.load(Ordering::SeqCst)), (1, 1));
    tree.stop().await.unwrap();
}

/// Panics where it is told to.
struct Grenade(&'static str);

struct Pin(&'static str);

impl Drop for Pin {
    fn drop(&mut self) {
        assert_ne!(self.0, "state drop", "told to panic in the state's drop");
    }
}

impl Drop for Grenade {
    fn drop(&mut self) {
        assert_ne!(self.0, "drop", "told to panic in the actor's drop");
    }
}

impl Actor for Grenade {
    type Msg = ();
    type State = Pin;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<Pin, ActorProcessingErr> {
        Ok(Pin(self.0))
    }

    async fn post_start(&self, _: ActorRef<()>, _: &mut Pin) -> Result<(), ActorProcessingErr> {
        assert_ne!(self.0, "post_start", "told to panic in post_start");
        Ok(())
    }

    async fn handle(&self, myself: ActorRef<()>, (): (), _: &mut Pin) -> Result<(), ActorProcessingErr> {
        assert_ne!(self.0, "handle", "told to panic in handle");
        myself.stop(None);
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<()>, _: &mut Pin) -> Result<(), ActorProcessingErr> {
        assert_ne!(self.0, "post_stop", "told to panic in post_stop");
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_anywhere_is_an_exit_reason_with_its_message() {
    plimsoll::panics::record_locations();
    for place in ["post_start", "handle", "post_stop", "drop", "state drop"] {
        // During a stop the report tells the reason.
        let holds = Arc::new(tokio::sync::Notify::new());
        let hold = holds.clone();
        let tree = Supervisor::builder("top")
            .child(
                ChildSpec::new("grenade", move |parent| Grenade::spawn_linked(None, Grenade(place), (), parent))
                    .restart(Restart::Temporary),
            )
            .child(ChildSpec::task("holds", move |_| {
                let hold = hold.clone();
                async move {
                    hold.notified().await;
                    Ok::<_, BoxError>(())
                }
            }))
            .start()
            .await
            .unwrap();
        let grenade = tree.child("grenade");
        let stopping = stop_meanwhile(&tree);
        if place != "post_start" {
            quiet().await;
            grenade.unwrap().actor().send_message(()).unwrap();
        }
        quiet().await;
        holds.notify_one();
        let report = stopping.await.unwrap();
        if place == "post_start" {
            continue;
        }
        let StopFailureKind::Ended(ExitReason::Failed(failure)) = &report.failures[0].kind else {
            panic!("{place}: {report}")
        };
        assert!(failure.message.contains("told to panic in"), "{place}: {failure}");
        let location = failure.location.as_deref().unwrap_or_else(|| panic!("{place}: no location"));
        assert!(location.contains("leftovers.rs:"), "{place}: {location}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_task_child_or_in_its_making_is_a_failure() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").child(stage.child("a")).start().await.unwrap();
    let making = ChildSpec::task("making", |_| -> std::future::Ready<Result<(), BoxError>> { panic!("told to panic") });
    assert_eq!(tree.start_child(making).await.unwrap_err().to_string(), "the start failed: told to panic");
    let running =
        ChildSpec::task("running", |_| async { if true { panic!("told to panic") } else { Ok::<_, BoxError>(()) } });
    tree.start_child(running.restart(Restart::Transient).backoff(Backoff::constant(Duration::from_secs(60))))
        .await
        .unwrap();
    quiet().await;
    let states: Vec<_> = tree.which_children().unwrap().into_iter().map(|child| child.state).collect();
    assert_eq!(states[0], ChildState::Restarting);
}

#[tokio::test(start_paused = true)]
async fn a_task_child_is_asked_by_its_token_and_then_killed() {
    let tree = Supervisor::builder("top")
        .child(ChildSpec::task("obeys", |stop| async move {
            stop.cancelled().await;
            Ok::<_, BoxError>(())
        }))
        .child(
            ChildSpec::task("deaf", |_| std::future::pending::<Result<(), BoxError>>())
                .shutdown(Shutdown::After(Duration::from_secs(2))),
        )
        .start()
        .await
        .unwrap();
    let report = tree.stop().await.unwrap();
    assert_eq!(report.took, Duration::from_secs(2));
    assert_eq!(report.failures.len(), 1, "{report}");
    assert_eq!((&*report.failures[0].path[0], &report.failures[0].kind), ("deaf", &StopFailureKind::Killed));
}

#[tokio::test(start_paused = true)]
async fn a_drained_child_serves_its_queue_first() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").child(stage.child("a").stop_mode(StopMode::Drain)).start().await.unwrap();
    tell_id(&tree, "a", Do::Busy(Duration::from_secs(1)));
    tell_id(&tree, "a", Do::Busy(Duration::from_secs(2)));
    let report = tree.stop().await.unwrap();
    assert_eq!(report.took, Duration::from_secs(3));
    assert!(report.is_clean(), "{report}");
}

#[tokio::test(start_paused = true)]
async fn the_observer_is_told_when_nobody_else_is() {
    let told = Arc::new(AtomicUsize::new(0));
    let count = told.clone();
    let build = || {
        let count = count.clone();
        let stage = Stage::default();
        let builder = Supervisor::builder("top").intensity(0, Duration::from_secs(1)).child(stage.child("a"));
        builder.on_shutdown(move |report| {
            assert!(matches!(report.cause, ShutdownCause::GaveUp { .. }));
            count.fetch_add(1, Ordering::SeqCst);
        })
    };
    build().start().await.unwrap().stop().await.unwrap();
    assert_eq!(told.load(Ordering::SeqCst), 0);
    let tree = build().start().await.unwrap();
    tell_id(&tree, "a", Do::Panic);
    tree.wait().await.unwrap();
    quiet().await;
    assert_eq!(told.load(Ordering::SeqCst), 1);
}

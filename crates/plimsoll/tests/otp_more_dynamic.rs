//! Further cases of OTP's `simple_one_for_one`, in every state of the dynamic supervisor.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plimsoll::exit::ExitReason;
use plimsoll::inspect::Kind;
use plimsoll::supervisor::{
    Backoff, BoxError, Child, ChildError, ChildRef, ChildSpec, ChildState, DynamicBuilder, DynamicSupervisor,
    DynamicSupervisorRef, Restart, Shutdown, ShutdownCause, SpecError, Start, StartError, Started, Strategy,
    Supervisor, TroubleKind,
};
use ractor::{Actor, ActorCell};
use support::{Begin, Do, Puppet, Stage, quiet, tell};
use tokio::time::Instant;

type Id = &'static str;

/// A dynamic supervisor of puppets, named by their argument; `slow N` stops slowly, `ignored` is not started.
fn puppets(stage: &Stage) -> DynamicBuilder<Id> {
    let stage = stage.clone();
    DynamicSupervisor::builder("puppets", move |parent: ActorCell, id: Id| {
        let mut puppet = stage.puppet(id);
        let script = stage.script.clone();
        if let Some(seconds) = id.strip_prefix("slow ") {
            puppet.slow_stop = Duration::from_secs(seconds.parse().unwrap());
        }
        async move {
            if id == "ignored" || script.ignores(id) {
                return Ok::<_, BoxError>(Start::Ignore);
            }
            let child: Child = Puppet::spawn_linked(None, puppet, (), parent).await?.into();
            Ok(Start::Child(child.value(id)))
        }
    })
    .backoff(Backoff::NONE)
    .intensity(5, Duration::from_secs(60))
}

async fn child(dynamic: &DynamicSupervisorRef<Id>, id: Id) -> ChildRef {
    dynamic.start_child(id).await.unwrap().child().unwrap()
}

fn states(dynamic: &DynamicSupervisorRef<Id>) -> String {
    let letter = |state: &ChildState| match state {
        ChildState::Running(_) => '+',
        ChildState::Restarting => '~',
        _ => '-',
    };
    dynamic.which_children().unwrap().iter().rev().map(|child| letter(&child.state)).collect()
}

fn counts(dynamic: &DynamicSupervisorRef<Id>) -> (usize, usize, usize, usize) {
    let count = dynamic.count_children().unwrap();
    (count.specs, count.active, count.supervisors, count.workers)
}

#[tokio::test(start_paused = true)]
async fn otp_sup_start_ignore_permanent_child_start_child_simple() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).max_children(1).start().await.unwrap();
    for _ in 0..3 {
        assert_eq!(dynamic.start_child("ignored").await, Ok(Started::Ignored));
        assert_eq!(counts(&dynamic), (1, 0, 0, 0));
    }
    // The place is free.
    child(&dynamic, "a").await;
}

#[tokio::test(start_paused = true)]
async fn otp_sup_start_ignore_temporary_child_start_child_simple() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).restart(Restart::Temporary).start().await.unwrap();
    assert_eq!(dynamic.start_child("ignored").await, Ok(Started::Ignored));
    assert_eq!(counts(&dynamic), (1, 0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn otp_simple_flags_are_checked() {
    let stage = Stage::default();
    let error = puppets(&stage).max_children(0).start().await.unwrap_err();
    assert_eq!(error, StartError::Spec(SpecError::ZeroMaxChildren));
    let error = puppets(&stage).intensity(1, Duration::ZERO).start().await.unwrap_err();
    assert_eq!(error, StartError::Spec(SpecError::ZeroPeriod));
}

#[tokio::test(start_paused = true)]
async fn otp_simple_which_children_newest_first() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).start().await.unwrap();
    let mut children = Vec::new();
    for id in ["a", "b", "c"] {
        children.push(child(&dynamic, id).await);
    }
    dynamic.terminate_child(children[0].actor()).await.unwrap();
    children.push(child(&dynamic, "d").await);
    let expected: Vec<_> =
        [3, 2, 1].into_iter().map(|n: usize| ChildState::Running(children[n].actor().clone())).collect();
    let seen: Vec<_> = dynamic.which_children().unwrap().into_iter().map(|child| child.state).collect();
    assert_eq!(seen, expected);
}

#[tokio::test(start_paused = true)]
async fn otp_simple_terminate_a_restarting_child_by_its_last_actor() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).backoff(Backoff::constant(Duration::from_secs(10))).start().await.unwrap();
    let a = child(&dynamic, "a").await;
    tell(&a, Do::Panic);
    quiet().await;
    assert_eq!(states(&dynamic), "~");
    assert_eq!(counts(&dynamic), (1, 0, 0, 1));
    assert_eq!(dynamic.terminate_child(a.actor()).await, Ok(()));
    assert_eq!(counts(&dynamic), (1, 0, 0, 0));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(stage.did(), ["start a"]);
    assert_eq!(dynamic.terminate_child(a.actor()).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn otp_simple_terminate_while_the_restart_hangs() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).start().await.unwrap();
    let a = child(&dynamic, "a").await;
    stage.script.next("a", [Begin::Hang]);
    tell(&a, Do::Panic);
    quiet().await;
    assert_eq!(states(&dynamic), "~");
    assert_eq!(dynamic.terminate_child(a.actor()).await, Ok(()));
    assert_eq!(states(&dynamic), "");
}

#[tokio::test(start_paused = true)]
async fn otp_simple_the_last_actor_of_a_child_that_runs_again_is_just_dead() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).start().await.unwrap();
    let a = child(&dynamic, "a").await;
    tell(&a, Do::Panic);
    quiet().await;
    assert_eq!(dynamic.terminate_child(a.actor()).await, Ok(()));
    assert_eq!(states(&dynamic), "+");
    assert_eq!(dynamic.child_spec(a.actor().get_id()), Err(ChildError::NotFound));
}

#[tokio::test(start_paused = true)]
async fn otp_simple_living_foreign_actor_is_not_found() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).start().await.unwrap();
    let other = puppets(&stage).start().await.unwrap();
    let foreign = child(&other, "foreign").await;
    assert_eq!(dynamic.terminate_child(foreign.actor()).await, Err(ChildError::NotFound));
    assert_eq!(dynamic.terminate_child(&other.actor()).await, Err(ChildError::NotFound));
    assert_eq!(dynamic.terminate_child(&dynamic.actor()).await, Err(ChildError::NotFound));
    other.terminate_child(foreign.actor()).await.unwrap();
    assert_eq!(dynamic.terminate_child(foreign.actor()).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn otp_simple_max_children_counts_restarting_ones() {
    let stage = Stage::default();
    let slow = Backoff::constant(Duration::from_secs(10));
    let dynamic = puppets(&stage).backoff(slow).max_children(2).start().await.unwrap();
    let a = child(&dynamic, "a").await;
    child(&dynamic, "b").await;
    tell(&a, Do::Panic);
    quiet().await;
    assert_eq!(dynamic.start_child("c").await, Err(StartError::MaxChildren { max: 2 }));
    dynamic.terminate_child(a.actor()).await.unwrap();
    child(&dynamic, "c").await;
    assert_eq!(dynamic.inspect().details.counters["refused_max_children"], 1);
}

#[tokio::test(start_paused = true)]
async fn otp_simple_max_children_is_free_again_once_a_child_has_ended() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).restart(Restart::Transient).max_children(1).start().await.unwrap();
    let slow = child(&dynamic, "slow 2").await;
    tell(&slow, Do::Normal);
    quiet().await;
    // It has not ended yet.
    assert_eq!(dynamic.start_child("b").await, Err(StartError::MaxChildren { max: 1 }));
    tokio::time::sleep(Duration::from_secs(2)).await;
    child(&dynamic, "b").await;
}

#[tokio::test(start_paused = true)]
async fn otp_simple_a_failed_start_gives_its_place_back() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).max_children(1).start().await.unwrap();
    for begin in [Begin::Fail, Begin::Panic] {
        stage.script.next("a", [begin]);
        assert!(matches!(dynamic.start_child("a").await, Err(StartError::Failed(_))));
    }
    stage.script.next("a", [Begin::Hang]);
    assert!(tokio::time::timeout(Duration::from_secs(1), dynamic.start_child("a")).await.is_err());
    child(&dynamic, "a").await;
}

#[tokio::test(start_paused = true)]
async fn otp_simple_restart_types() {
    for (restart, normal, failure) in
        [(Restart::Permanent, "+", "+"), (Restart::Transient, "", "+"), (Restart::Temporary, "", "")]
    {
        let stage = Stage::default();
        for (what, expected) in [
            (Do::Normal, normal),
            (Do::Stop("shutdown"), normal),
            (Do::Stop("upgrade"), normal),
            (Do::Stop("killed"), failure),
            (Do::Fail, failure),
            (Do::Panic, failure),
        ] {
            let dynamic = puppets(&stage).restart(restart).start().await.unwrap();
            let a = child(&dynamic, "a").await;
            let told = format!("{restart:?} {what:?}");
            tell(&a, what);
            quiet().await;
            assert_eq!(states(&dynamic), expected, "{told}");
            assert!(dynamic.stop().await.is_clean());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn otp_simple_killed_child_is_restarted() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).restart(Restart::Transient).start().await.unwrap();
    let a = child(&dynamic, "a").await;
    a.actor().kill();
    quiet().await;
    assert_eq!(states(&dynamic), "+");
}

#[tokio::test(start_paused = true)]
async fn otp_hanging_restart_loop_simple() {
    let stage = Stage::default();
    let dynamic = puppets(&stage)
        .intensity(u32::MAX, Duration::from_secs(1))
        .backoff(Backoff::constant(Duration::from_millis(10)))
        .start()
        .await
        .unwrap();
    let a = child(&dynamic, "a").await;
    let b = child(&dynamic, "b").await;
    stage.script.always("a", Begin::Fail);
    tell(&a, Do::Panic);
    tokio::time::sleep(Duration::from_millis(95)).await;
    assert_eq!(states(&dynamic), "~+");
    assert_eq!(counts(&dynamic), (1, 1, 0, 2));
    // Others are started and stopped meanwhile.
    let c = child(&dynamic, "c").await;
    dynamic.terminate_child(b.actor()).await.unwrap();
    assert_eq!(dynamic.terminate_child(a.actor()).await, Ok(()));
    dynamic.terminate_child(c.actor()).await.unwrap();
    assert_eq!(counts(&dynamic), (1, 0, 0, 0));
    assert!(dynamic.stop().await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn otp_simple_restart_that_fails_without_backoff_serves_others() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).intensity(u32::MAX, Duration::from_secs(1)).start().await.unwrap();
    let a = child(&dynamic, "a").await;
    stage.script.always("a", Begin::Fail);
    tell(&a, Do::Panic);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let b = child(&dynamic, "b").await;
    dynamic.terminate_child(b.actor()).await.unwrap();
    assert_eq!(dynamic.terminate_child(a.actor()).await, Ok(()));
    assert!(dynamic.stop().await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn otp_simple_restart_that_fails_is_charged_each_time() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).intensity(3, Duration::from_secs(60)).start().await.unwrap();
    let a = child(&dynamic, "a").await;
    stage.script.next("a", [Begin::Fail, Begin::Panic]);
    tell(&a, Do::Panic);
    quiet().await;
    assert_eq!(states(&dynamic), "+");
    let ChildState::Running(again) = dynamic.which_children().unwrap()[0].state.clone() else { panic!("it runs") };
    again.send_message(Do::Panic).unwrap();
    assert_eq!(dynamic.wait().await.cause, ShutdownCause::GaveUp);
}

#[tokio::test(start_paused = true)]
async fn otp_simple_restart_that_is_ignored_drops_the_child() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).max_children(1).start().await.unwrap();
    let a = child(&dynamic, "a").await;
    stage.script.next("a", [Begin::Ignore]);
    tell(&a, Do::Panic);
    quiet().await;
    assert_eq!(counts(&dynamic), (1, 0, 0, 0));
    child(&dynamic, "b").await;
}

#[tokio::test(start_paused = true)]
async fn otp_simple_terminated_is_neither_restarted_nor_charged() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).intensity(0, Duration::from_secs(60)).start().await.unwrap();
    for _ in 0..3 {
        let a = child(&dynamic, "a").await;
        assert_eq!(dynamic.terminate_child(a.actor()).await, Ok(()));
        quiet().await;
        assert_eq!(states(&dynamic), "");
    }
}

#[tokio::test(start_paused = true)]
async fn otp_simple_terminate_kills_after_the_grace() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).shutdown(Shutdown::After(Duration::from_secs(2))).start().await.unwrap();
    let a = child(&dynamic, "slow 60").await;
    let began = Instant::now();
    let (first, second) = tokio::join!(dynamic.terminate_child(a.actor()), dynamic.terminate_child(a.actor()));
    assert_eq!((first, second), (Ok(()), Ok(())));
    assert_eq!(began.elapsed(), Duration::from_secs(2));
    assert_eq!(counts(&dynamic), (1, 0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn otp_simple_terminate_of_one_that_is_ending_waits_for_it_and_it_is_not_restarted() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).start().await.unwrap();
    let a = child(&dynamic, "slow 2").await;
    tell(&a, Do::Normal);
    quiet().await;
    let began = Instant::now();
    assert_eq!(dynamic.terminate_child(a.actor()).await, Ok(()));
    assert!(began.elapsed() > Duration::from_secs(1));
    quiet().await;
    assert_eq!(stage.did(), ["start slow 2", "stopping slow 2", "stop slow 2"]);
    assert_eq!(states(&dynamic), "");
}

#[tokio::test(start_paused = true)]
async fn otp_simple_one_for_one_shutdown() {
    // All are told at once; the report names those who outlasted the common time.
    let stage = Stage::default();
    let dynamic = puppets(&stage).shutdown(Shutdown::After(Duration::from_secs(3))).start().await.unwrap();
    for id in ["slow 1", "slow 2", "slow 50", "quick"] {
        child(&dynamic, id).await;
    }
    stage.did();
    let began = Instant::now();
    let report = dynamic.stop().await;
    assert_eq!(began.elapsed(), Duration::from_secs(3));
    assert_eq!(report.troubles.len(), 1, "{report}");
    assert_eq!(report.troubles[0].what, TroubleKind::Killed);
    assert_eq!(report.troubles[0].waited, Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn otp_simple_shutdown_infinity_waits() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).shutdown(Shutdown::Infinity).start().await.unwrap();
    child(&dynamic, "slow 5000").await;
    child(&dynamic, "slow 4000").await;
    let began = Instant::now();
    assert!(dynamic.stop().await.is_clean());
    assert_eq!(began.elapsed(), Duration::from_secs(5_000));
}

#[tokio::test(start_paused = true)]
async fn otp_simple_shutdown_brutal() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).shutdown(Shutdown::Brutal).start().await.unwrap();
    child(&dynamic, "slow 5000").await;
    let began = Instant::now();
    assert!(dynamic.stop().await.is_clean());
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(stage.diary.take(), ["start slow 5000", "drop slow 5000"]);
}

#[tokio::test(start_paused = true)]
async fn otp_simple_shutdown_reports_a_permanent_child_that_ended_normally_meanwhile() {
    for (restart, troubles) in [(Restart::Permanent, 1), (Restart::Transient, 0), (Restart::Temporary, 0)] {
        let stage = Stage::default();
        let dynamic = puppets(&stage).restart(restart).start().await.unwrap();
        let a = child(&dynamic, "a").await;
        child(&dynamic, "slow 2").await;
        // Its own stop is there first, and wins.
        tell(&a, Do::Busy(Duration::from_secs(1)));
        quiet().await;
        a.actor().stop(None);
        let report = dynamic.stop().await;
        let told: Vec<_> = report.troubles.iter().map(|trouble| &trouble.what).collect();
        assert_eq!(told, vec![&TroubleKind::Ended(ExitReason::Normal); troubles], "{restart:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn otp_simple_stop_while_a_start_hangs() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).start().await.unwrap();
    stage.script.next("a", [Begin::Hang]);
    let starting = tokio::spawn({
        let dynamic = dynamic.clone();
        async move { dynamic.start_child("a").await }
    });
    quiet().await;
    let began = Instant::now();
    assert!(dynamic.stop().await.is_clean());
    assert_eq!(starting.await.unwrap(), Err(StartError::ShuttingDown));
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(stage.diary.take(), ["drop a"]);
}

#[tokio::test(start_paused = true)]
async fn otp_simple_stop_while_a_restart_hangs_or_waits() {
    let stage = Stage::default();
    for hangs in [true, false] {
        let backoff = if hangs { Backoff::NONE } else { Backoff::constant(Duration::from_secs(1_000)) };
        let dynamic = puppets(&stage).backoff(backoff).start().await.unwrap();
        let a = child(&dynamic, "a").await;
        stage.script.next("a", [Begin::Hang]);
        tell(&a, Do::Panic);
        quiet().await;
        assert_eq!(states(&dynamic), "~");
        let began = Instant::now();
        let report = dynamic.stop().await;
        assert!(report.is_clean(), "{hangs} {report}");
        assert_eq!(began.elapsed(), Duration::ZERO);
        let last = stage.diary.take().pop();
        assert_eq!(last.as_deref(), Some("drop a"));
    }
}

#[tokio::test(start_paused = true)]
async fn otp_simple_while_stopping_everything_is_refused_at_once() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).start().await.unwrap();
    let a = child(&dynamic, "slow 3").await;
    let stopping = tokio::spawn({
        let dynamic = dynamic.clone();
        async move { dynamic.stop().await }
    });
    quiet().await;
    let began = Instant::now();
    assert_eq!(dynamic.start_child("b").await, Err(StartError::ShuttingDown));
    assert_eq!(dynamic.terminate_child(a.actor()).await, Err(ChildError::ShuttingDown));
    assert_eq!(dynamic.which_children(), Err(ChildError::ShuttingDown));
    assert_eq!(dynamic.child_spec(a.actor().get_id()), Err(ChildError::ShuttingDown));
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert!(stopping.await.unwrap().is_clean());
}

#[tokio::test(start_paused = true)]
async fn otp_simple_a_terminate_under_way_is_answered_at_once_when_the_supervisor_stops() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).start().await.unwrap();
    let a = child(&dynamic, "slow 3").await;
    let terminating = tokio::spawn({
        let (dynamic, a) = (dynamic.clone(), a.clone());
        async move { dynamic.terminate_child(a.actor()).await }
    });
    quiet().await;
    let began = Instant::now();
    let stop = tokio::spawn({
        let dynamic = dynamic.clone();
        async move { dynamic.stop().await }
    });
    assert_eq!(terminating.await.unwrap(), Err(ChildError::ShuttingDown));
    assert_eq!(began.elapsed(), Duration::ZERO);
    stop.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn otp_simple_killed_supervisor_leaves_nobody() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).start().await.unwrap();
    let drains = child(&dynamic, "drains").await;
    tell(&drains, Do::Busy(Duration::from_secs(1_000)));
    drains.actor().drain().unwrap();
    let stops = child(&dynamic, "slow 1000").await;
    tell(&stops, Do::Normal);
    child(&dynamic, "runs").await;
    quiet().await;
    stage.diary.take();
    dynamic.actor().kill();
    assert_eq!(dynamic.wait().await.cause, ShutdownCause::Killed);
    let mut left = stage.diary.take();
    left.sort();
    assert_eq!(left, ["drop drains", "drop runs", "drop slow 1000"]);
}

#[tokio::test(start_paused = true)]
async fn otp_simple_one_for_one_extra_value_is_read_again_at_a_restart() {
    let starts = Arc::new(AtomicUsize::new(0));
    let stage = Stage::default();
    let (counted, inner) = (starts.clone(), stage.clone());
    let dynamic = DynamicSupervisor::builder("counted", move |parent, (): ()| {
        let (value, puppet) = (counted.fetch_add(1, Ordering::Relaxed), inner.puppet("a"));
        async move {
            let child: Child = Puppet::spawn_linked(None, puppet, (), parent).await?.into();
            Ok::<_, BoxError>(child.value(value))
        }
    })
    .backoff(Backoff::NONE)
    .start()
    .await
    .unwrap();
    let a = dynamic.start_child(()).await.unwrap().child().unwrap();
    assert_eq!(*a.value::<usize>().unwrap(), 0);
    tell(&a, Do::Panic);
    quiet().await;
    assert_eq!(starts.load(Ordering::Relaxed), 2);
}

#[derive(Clone)]
struct Args {
    _held: Arc<()>,
}

#[tokio::test(start_paused = true)]
async fn otp_simple_do_not_save_start_parameters_for_temporary_children() {
    for (restart, kept) in [(Restart::Temporary, false), (Restart::Transient, true), (Restart::Permanent, true)] {
        let stage = Stage::default();
        let inner = stage.clone();
        let dynamic = DynamicSupervisor::builder("args", move |parent, args: Args| {
            drop(args);
            Puppet::spawn_linked(None, inner.puppet("a"), (), parent)
        })
        .restart(restart)
        .start()
        .await
        .unwrap();
        let held = Arc::new(());
        let a = dynamic.start_child(Args { _held: held.clone() }).await.unwrap().child().unwrap();
        assert_eq!(Arc::strong_count(&held) > 1, kept, "{restart:?}");
        dynamic.terminate_child(a.actor()).await.unwrap();
        assert_eq!(Arc::strong_count(&held), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn otp_simple_one_for_one_scale_many_temporary_children() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).restart(Restart::Temporary).start().await.unwrap();
    let mut children = Vec::new();
    for _ in 0..5_000 {
        children.push(child(&dynamic, "a").await);
    }
    assert_eq!(counts(&dynamic), (1, 5_000, 0, 5_000));
    for child in children.iter().step_by(2) {
        tell(child, Do::Normal);
    }
    quiet().await;
    assert_eq!(counts(&dynamic), (1, 2_500, 0, 2_500));
    for child in children.iter().skip(1).step_by(2) {
        dynamic.terminate_child(child.actor()).await.unwrap();
    }
    assert_eq!(counts(&dynamic), (1, 0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn otp_simple_supervisor_children_are_counted_as_such() {
    let stage = Stage::default();
    let inner = stage.clone();
    let dynamic = DynamicSupervisor::builder("trees", move |parent, id: Id| {
        Supervisor::builder(id).child(inner.child(id)).start_linked(parent)
    })
    .kind(Kind::Supervisor)
    .shutdown(Shutdown::Infinity)
    .start()
    .await
    .unwrap();
    let a = child(&dynamic, "a").await;
    child(&dynamic, "b").await;
    assert_eq!(counts(&dynamic), (1, 2, 2, 0));
    dynamic.terminate_child(a.actor()).await.unwrap();
    assert_eq!(stage.did(), ["start a", "start b", "stop a"]);
    assert!(dynamic.stop().await.is_clean());
    assert_eq!(stage.did(), ["stop b"]);
}

#[tokio::test(start_paused = true)]
async fn otp_simple_under_a_supervisor_gives_up_and_is_restarted_empty() {
    let stage = Stage::default();
    let inner = stage.clone();
    let spec = ChildSpec::supervisor("pool", move || puppets(&inner).intensity(0, Duration::from_secs(1)));
    let tree = Supervisor::builder("top")
        .strategy(Strategy::RestForOne)
        .child(spec.backoff(Backoff::NONE))
        .child(stage.child("after"))
        .start()
        .await
        .unwrap();
    let pool = || tree.child("pool").unwrap().value::<DynamicSupervisorRef<Id>>().unwrap();
    let first = pool();
    let a = child(&first, "a").await;
    child(&first, "b").await;
    tell(&a, Do::Panic);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(stage.did(), ["start after", "start a", "start b", "stop b", "stop after", "start after"]);
    assert_eq!(counts(&pool()), (1, 0, 0, 0));
    assert_eq!(first.start_child("c").await, Err(StartError::ShuttingDown));
}

#[tokio::test(start_paused = true)]
async fn otp_simple_child_that_dies_before_its_start_returns() {
    for (restart, expected) in [(Restart::Permanent, "+"), (Restart::Temporary, "")] {
        let stage = Stage::default();
        let (inner, dies) = (stage.clone(), Arc::new(Mutex::new(true)));
        let dynamic = DynamicSupervisor::builder("early", move |parent, id: Id| {
            let (puppet, dies) = (inner.puppet(id), std::mem::take(&mut *dies.lock().unwrap()));
            async move {
                let (actor, ended) = Puppet::spawn_linked(None, puppet, (), parent).await?;
                if dies {
                    actor.cast(Do::Panic)?;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Ok::<_, BoxError>((actor, ended))
            }
        })
        .restart(restart)
        .backoff(Backoff::NONE)
        .start()
        .await
        .unwrap();
        assert!(matches!(dynamic.start_child("a").await, Ok(Started::Child(_))));
        quiet().await;
        assert_eq!(states(&dynamic), expected, "{restart:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn otp_simple_unlinked_child_is_refused() {
    let stage = Stage::default();
    let inner = stage.clone();
    let dynamic = DynamicSupervisor::builder("loose", move |_parent, id: Id| Puppet::spawn(None, inner.puppet(id), ()))
        .max_children(1)
        .start()
        .await
        .unwrap();
    for _ in 0..2 {
        assert_eq!(dynamic.start_child("a").await, Err(StartError::NotLinked));
    }
    assert_eq!(counts(&dynamic), (1, 0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn otp_simple_child_unlink() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).start().await.unwrap();
    let a = child(&dynamic, "a").await;
    let b = child(&dynamic, "b").await;
    tell(&a, Do::Unlink);
    tell(&b, Do::Unlink);
    quiet().await;
    // One that unlinked itself is terminated and stopped all the same.
    assert_eq!(dynamic.terminate_child(a.actor()).await, Ok(()));
    let report = dynamic.stop().await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(stage.did(), ["start a", "start b", "stop a", "stop b"]);
}

#[tokio::test(start_paused = true)]
async fn otp_simple_child_unlinked_and_dead_is_terminated_without_a_wait() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).start().await.unwrap();
    let a = child(&dynamic, "a").await;
    let b = child(&dynamic, "b").await;
    for child in [&a, &b] {
        tell(child, Do::Unlink);
        tell(child, Do::Normal);
    }
    quiet().await;
    let began = Instant::now();
    assert_eq!(dynamic.terminate_child(a.actor()).await, Ok(()));
    dynamic.stop().await;
    assert!(began.elapsed() < Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn otp_simple_start_timeout_frees_the_name() {
    let stage = Stage::default();
    let inner = stage.clone();
    let dynamic = DynamicSupervisor::builder("slow", move |parent, id: Id| {
        Puppet::spawn_linked(Some("otp_more slow start".to_owned()), inner.puppet(id), (), parent)
    })
    .start_timeout(Duration::from_secs(1))
    .start()
    .await
    .unwrap();
    stage.script.next("a", [Begin::Hang]);
    assert_eq!(dynamic.start_child("a").await, Err(StartError::Timeout(Duration::from_secs(1))));
    assert!(ractor::registry::where_is("otp_more slow start").is_none());
    child(&dynamic, "a").await;
    dynamic.stop().await;
}

#[tokio::test(start_paused = true)]
async fn otp_simple_taken_name_is_already_started() {
    let stage = Stage::default();
    let inner = stage.clone();
    let dynamic = DynamicSupervisor::builder("named", move |parent, id: Id| {
        Puppet::spawn_linked(Some("otp_more only one".to_owned()), inner.puppet(id), (), parent)
    })
    .start()
    .await
    .unwrap();
    let a = child(&dynamic, "a").await;
    assert_eq!(dynamic.start_child("b").await, Err(StartError::AlreadyStarted(a)));
    dynamic.stop().await;
}

#[tokio::test(start_paused = true)]
async fn otp_simple_lowered_maximum_refuses_and_keeps() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).max_children(3).start().await.unwrap();
    let mut children = Vec::new();
    for id in ["a", "b", "c"] {
        children.push(child(&dynamic, id).await);
    }
    dynamic.set_max_children(2);
    assert_eq!(states(&dynamic), "+++");
    dynamic.terminate_child(children[0].actor()).await.unwrap();
    assert_eq!(dynamic.start_child("d").await, Err(StartError::MaxChildren { max: 2 }));
    dynamic.terminate_child(children[1].actor()).await.unwrap();
    child(&dynamic, "d").await;
}

#[tokio::test(start_paused = true)]
async fn otp_simple_many_start_at_once_and_never_more_than_the_maximum() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).max_children(10).start().await.unwrap();
    let starts = (0..50).map(|_| {
        let dynamic = dynamic.clone();
        tokio::spawn(async move { dynamic.start_child("a").await.is_ok() })
    });
    let mut started = 0;
    for start in starts.collect::<Vec<_>>() {
        started += usize::from(start.await.unwrap());
    }
    assert_eq!(started, 10);
    assert_eq!(counts(&dynamic), (1, 10, 0, 10));
}

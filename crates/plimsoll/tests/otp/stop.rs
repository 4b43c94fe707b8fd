//! Stops: the order, the grace of each child, and what the report says.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use plimsoll::exit::ExitReason;
use plimsoll::supervisor::{
    Backoff, BoxError, ChildSpec, Restart, Shutdown, ShutdownCause, StartError, StopFailureKind, StopMode, Strategy,
    Supervisor,
};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
use tokio::time::Instant;

use crate::support::{
    Begin, Do, Puppet, Stage, failing, failures, quiet, slow, start_meanwhile, stop_meanwhile, tell, tell_id,
};
use crate::trees::{start, start_three};

#[tokio::test(start_paused = true)]
async fn otp_sup_stop_infinity() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top")
        .child(stage.child("obeys").shutdown(Shutdown::Infinity))
        .child(stage.child_with("dawdles", slow(86_400)).shutdown(Shutdown::Infinity))
        .start()
        .await
        .unwrap();
    stage.did();
    let began = Instant::now();
    let report = tree.stop().await.unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(began.elapsed(), Duration::from_secs(86_400));
    assert_eq!(stage.did(), ["stopping dawdles", "stop dawdles", "stop obeys"]);
}

#[tokio::test(start_paused = true)]
async fn otp_sup_stop_timeout() {
    let stage = Stage::default();
    let grace = Shutdown::After(Duration::from_secs(1));
    let tree = Supervisor::builder("top")
        .child(stage.child("obeys").shutdown(grace))
        .child(stage.child_with("dawdles", slow(60)).shutdown(grace))
        .start()
        .await
        .unwrap();
    stage.did();
    let report = tree.stop().await.unwrap();
    assert_eq!(stage.did(), ["stopping dawdles", "stop obeys"]);
    assert_eq!(report.failures.len(), 1, "{report}");
    assert_eq!(&*report.failures[0].path[0], "dawdles");
    assert_eq!(report.failures[0].kind, StopFailureKind::Killed);
    assert_eq!(report.failures[0].waited, Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_brutal_shutdown_runs_no_stop_hook_and_is_not_reported() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").child(stage.child("a").shutdown(Shutdown::Brutal)).start().await.unwrap();
    assert!(tree.stop().await.unwrap().is_clean());
    assert_eq!(stage.diary.take(), ["start a", "drop a"]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_reports_what_otp_reports() {
    let stage = Stage::default();
    let stubborn = |id: &'static str, restart| {
        ChildSpec::task(id, |_stop| async { std::future::pending::<Result<(), BoxError>>().await }).restart(restart)
    };
    let tree = Supervisor::builder("top")
        .child(stage.child_with("fails", failing))
        .child(stubborn("stubborn", Restart::Temporary).shutdown(Shutdown::After(Duration::from_millis(10))))
        .child(stage.child("drains").stop_mode(StopMode::Drain))
        .start()
        .await
        .unwrap();
    let report = tree.stop().await.unwrap();
    let told = failures(&report);
    let failed = StopFailureKind::Ended(ExitReason::failed("told to fail"));
    assert_eq!(told, [("stubborn", &StopFailureKind::Killed), ("fails", &failed)]);
}

#[tokio::test(start_paused = true)]
async fn who_ends_by_itself_during_a_stop_is_not_waited_for_later() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top")
        .child(stage.child("normal"))
        .child(stage.child("panics").restart(Restart::Temporary))
        .child(stage.child_with("slow", slow(1)))
        .start()
        .await
        .unwrap();
    let (normal, panics) = (tree.child("normal").unwrap(), tree.child("panics").unwrap());
    let stopping = stop_meanwhile(&tree);
    quiet().await;
    tell(&normal, Do::Normal);
    tell(&panics, Do::Panic);
    let report = stopping.await.unwrap();
    let told = failures(&report);
    let panicked = StopFailureKind::Ended(ExitReason::failed("told to panic"));
    // A permanent child's normal end is an error during a stop.
    assert_eq!(told, [("normal", &StopFailureKind::Ended(ExitReason::Normal)), ("panics", &panicked)]);
}

#[tokio::test(start_paused = true)]
async fn otp_sup_stop_manual_by_its_actor() {
    let stage = Stage::default();
    let tree = start_three(&stage, Strategy::OneForOne).await;
    tree.actor().stop(None);
    let report = tree.wait().await.unwrap();
    assert_eq!((&report.cause, report.is_clean()), (&ShutdownCause::Stopped, true));
    assert_eq!(stage.did(), ["stop c", "stop b", "stop a"]);
}

#[tokio::test(start_paused = true)]
async fn otp_sup_stop_twice_gives_the_same_report() {
    let stage = Stage::default();
    let tree = start(&stage, Supervisor::builder("top").child(stage.child_with("a", slow(1)))).await;
    let other = tree.clone();
    let (first, second) = tokio::join!(tree.stop(), other.stop());
    assert_eq!(first, second);
    assert_eq!(tree.stop().await, first);
    assert_eq!(tree.wait().await, first);
}

#[tokio::test(start_paused = true)]
async fn otp_sup_stop_graces_are_summed_and_each_child_has_its_own() {
    let stage = Stage::default();
    let grace = |seconds| Shutdown::After(Duration::from_secs(seconds));
    let builder = Supervisor::builder("top")
        .child(stage.child_with("a", slow(60)).shutdown(grace(1)))
        .child(stage.child_with("b", slow(2)).shutdown(grace(3)))
        .child(stage.child_with("c", slow(60)).shutdown(grace(4)));
    let tree = start(&stage, builder).await;
    let began = Instant::now();
    let report = tree.stop().await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(1 + 2 + 4));
    assert_eq!(stage.did(), ["stopping c", "stopping b", "stop b", "stopping a"]);
    let told: Vec<_> = report.failures.iter().map(|failure| (&*failure.path[0], failure.waited.as_secs())).collect();
    assert_eq!(told, [("c", 4), ("a", 1)]);
    assert_eq!(report.took, Duration::from_secs(7));
}

#[tokio::test(start_paused = true)]
async fn otp_sup_stop_of_a_child_that_ends_by_itself_meanwhile_is_not_waited_for() {
    let stage = Stage::default();
    let builder = Supervisor::builder("top")
        .child(stage.child("early").restart(Restart::Transient))
        .child(stage.child("late"))
        .child(stage.child_with("slow", slow(2)));
    let tree = start(&stage, builder).await;
    let early = tree.child("early").unwrap();
    let late = tree.child("late").unwrap();
    let stopping = stop_meanwhile(&tree);
    quiet().await;
    tell(&early, Do::Normal);
    tell(&late, Do::Normal);
    quiet().await;
    let report = stopping.await.unwrap();
    assert_eq!(stage.did(), ["stopping slow", "stop early", "stop late", "stop slow"]);
    // A transient one may end normally, a permanent one is reported.
    let told = failures(&report);
    assert_eq!(told, [("late", &StopFailureKind::Ended(ExitReason::Normal))]);
}

#[tokio::test(start_paused = true)]
async fn otp_sup_stop_reports_a_permanent_child_that_stops_with_another_reason() {
    struct OwnReason;
    impl Actor for OwnReason {
        type Msg = ();
        type State = ();
        type Arguments = ();
        async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
            Ok(())
        }
        async fn handle(&self, me: ActorRef<()>, (): (), _: &mut ()) -> Result<(), ActorProcessingErr> {
            me.stop(Some("upgrade".to_owned()));
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(())
        }
    }
    for (restart, reported) in [(Restart::Permanent, true), (Restart::Transient, false), (Restart::Temporary, false)] {
        let spec = ChildSpec::new("a", |parent| OwnReason::spawn_linked(None, OwnReason, (), parent)).restart(restart);
        let tree = Supervisor::builder("top").child(spec).start().await.unwrap();
        tree.child("a").unwrap().actor_ref::<()>().unwrap().cast(()).unwrap();
        quiet().await;
        // The first stop wins.
        let report = tree.stop().await.unwrap();
        let upgrade = StopFailureKind::Ended(ExitReason::ShutdownWith { reason: "upgrade".into() });
        let told: Vec<_> = report.failures.iter().map(|failure| &failure.kind).collect();
        assert_eq!(told, if reported { vec![&upgrade] } else { vec![] }, "{restart:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn otp_sup_stop_of_brutal_children_expects_a_kill_and_nothing_else() {
    let stage = Stage::default();
    let brutal = |id| stage.child(id).shutdown(Shutdown::Brutal);
    let slow = stage.child_with("slow", slow(1));
    let builder = Supervisor::builder("top")
        .child(brutal("killed"))
        .child(brutal("permanent"))
        .child(brutal("transient").restart(Restart::Transient))
        .child(stage.child("worker"))
        .child(slow);
    let tree = builder.start().await.unwrap();
    let [killed, permanent, transient, worker] =
        ["killed", "permanent", "transient", "worker"].map(|id| tree.child(id).unwrap());
    let stopping = stop_meanwhile(&tree);
    quiet().await;
    killed.actor().kill();
    for child in [permanent, transient, worker] {
        child.actor().stop(Some("shutdown".to_owned()));
    }
    let report = stopping.await.unwrap();
    let told: Vec<_> = report.failures.iter().map(|failure| (failure.path[0].to_string(), &failure.kind)).collect();
    assert_eq!(told, [("permanent".to_owned(), &StopFailureKind::Ended(ExitReason::Shutdown))]);
}

#[tokio::test(start_paused = true)]
async fn otp_sup_stop_drains_where_a_drain_is_asked_for() {
    let stage = Stage::default();
    let builder = Supervisor::builder("top").child(stage.child("a").stop_mode(StopMode::Drain));
    let tree = start(&stage, builder).await;
    tell_id(&tree, "a", Do::Busy(Duration::from_secs(1)));
    tell_id(&tree, "a", Do::Busy(Duration::from_secs(2)));
    let began = Instant::now();
    assert!(tree.stop().await.unwrap().is_clean());
    assert_eq!(began.elapsed(), Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn otp_sup_stop_kills_a_child_that_drains_beyond_its_grace() {
    let stage = Stage::default();
    let builder = Supervisor::builder("top");
    let tree = start(
        &stage,
        builder.child(stage.child("a").stop_mode(StopMode::Drain).shutdown(Shutdown::After(Duration::from_secs(1)))),
    )
    .await;
    tell_id(&tree, "a", Do::Busy(Duration::from_secs(100)));
    quiet().await;
    let began = Instant::now();
    let report = tree.stop().await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(1));
    assert_eq!(report.failures[0].kind, StopFailureKind::Killed);
    assert_eq!(stage.diary.take(), ["drop a"]);
}

#[tokio::test(start_paused = true)]
async fn otp_sup_stop_while_a_child_waits_for_its_restart() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top")
        .child(stage.child("a").backoff(Backoff::constant(Duration::from_secs(3_600))))
        .start()
        .await
        .unwrap();
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    let began = Instant::now();
    assert!(tree.stop().await.unwrap().is_clean());
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn otp_sup_stop_while_start_child_hangs() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").start().await.unwrap();
    stage.script.next("a", [Begin::Hang]);
    let starting = start_meanwhile(&tree, stage.child("a"));
    quiet().await;
    let began = Instant::now();
    assert!(tree.stop().await.unwrap().is_clean());
    assert_eq!(starting.await.unwrap(), Err(StartError::ShuttingDown));
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn otp_sup_stop_a_start_that_succeeds_after_the_stop_is_stopped() {
    // A start function that cannot be cancelled: the actor is made in a task of its own.
    let stage = Stage::default();
    let inner = stage.clone();
    let spec = ChildSpec::new("a", move |parent: ActorCell| {
        let puppet = inner.puppet("a");
        async move {
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                Puppet::spawn_linked(None, puppet, (), parent).await
            })
            .await
            .expect("no panic")
        }
    });
    let tree = Supervisor::builder("top").start().await.unwrap();
    let starting = start_meanwhile(&tree, spec);
    quiet().await;
    tree.stop().await.unwrap();
    assert_eq!(starting.await.unwrap(), Err(StartError::ShuttingDown));
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Whatever came of it, nothing of it is left.
    let events = stage.diary.take();
    assert_eq!(events.last().map(String::as_str), Some("drop a"), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn otp_the_observer_is_told_when_nobody_asked() {
    let seen: Arc<Mutex<Vec<ShutdownCause>>> = Arc::default();
    let build = || {
        let seen = seen.clone();
        Supervisor::builder("top").on_shutdown(move |report| seen.lock().unwrap().push(report.cause.clone()))
    };
    build().start().await.unwrap().stop().await.unwrap();
    assert!(seen.lock().unwrap().is_empty(), "who stops it is told already");
    let tree = build().start().await.unwrap();
    tree.actor().kill();
    tree.wait().await.unwrap();
    quiet().await;
    assert_eq!(*seen.lock().unwrap(), [ShutdownCause::Killed]);
}

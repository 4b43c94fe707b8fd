//! OTP's cases of start and stop.

mod support;

use std::time::Duration;

use plimsoll::exit::ExitReason;
use plimsoll::inspect::Kind;
use plimsoll::supervisor::{
    Ask, AutoShutdown, Backoff, BoxError, ChildError, ChildSpec, ChildState, Init, Restart, Shutdown, ShutdownCause,
    SpecError, StartError, Started, Supervisor, TroubleKind,
};
use ractor::Actor;
use support::{Begin, Do, Puppet, Stage, quiet};

#[tokio::test(start_paused = true)]
async fn otp_sup_start_normal() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top")
        .child(stage.child("a"))
        .child(stage.child("b"))
        .child(ChildSpec::task("t", |stop| async move {
            stop.cancelled().await;
            Ok::<_, BoxError>(())
        }))
        .start()
        .await
        .unwrap();
    assert_eq!(stage.did(), ["start a", "start b"]);
    let report = tree.stop().await;
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.cause, &report.reason), (ShutdownCause::Stopped, &ExitReason::Shutdown));
    assert_eq!(stage.did(), ["stop b", "stop a"]);
    assert_eq!(tree.which_children(), Err(ChildError::ShuttingDown));
}

#[tokio::test(start_paused = true)]
async fn otp_sup_start_ignore_init() {
    let stage = Stage::default();
    let ignored = Supervisor::init("ignored", |_| async { Ok::<_, BoxError>(Init::Ignore) });
    assert!(ignored.start().await.unwrap().is_none());

    // As a child it is ignored, too, and its spec kept.
    let tree = Supervisor::builder("top")
        .child(ChildSpec::supervisor("ignored", || {
            Supervisor::init("ignored", |_| async { Ok::<_, BoxError>(Init::Ignore) })
        }))
        .start()
        .await
        .unwrap();
    assert_eq!(tree.which_children().unwrap()[0].state, ChildState::None);

    let child = stage.child("a");
    let init = Supervisor::init("runs", move |flags| async move { Ok::<_, BoxError>(Init::Run(flags.child(child))) });
    let runs = init.start().await.unwrap().expect("it is not ignored");
    assert_eq!(stage.did(), ["start a"]);
    runs.stop().await;
}

#[tokio::test(start_paused = true)]
async fn otp_sup_start_ignore_child() {
    let stage = Stage::default();
    stage.script.next("a", [Begin::Ignore]);
    let tree = Supervisor::builder("top").child(stage.child("a")).child(stage.child("b")).start().await.unwrap();
    let states: Vec<_> = tree.which_children().unwrap().into_iter().map(|child| (child.id, child.state)).collect();
    assert_eq!(states[1], (Some("a".into()), ChildState::None));
    assert!(matches!(states[0], (_, ChildState::Running(_))));
    let count = tree.count_children().unwrap();
    assert_eq!((count.specs, count.active, count.workers), (2, 1, 2));

    stage.script.next("c", [Begin::Ignore]);
    assert_eq!(tree.start_child(stage.child("c")).await, Ok(Started::Ignored));
    assert_eq!(tree.count_children().unwrap().specs, 3);
    assert_eq!(tree.start_child(stage.child("c")).await, Err(StartError::AlreadyPresent));
    assert!(matches!(tree.restart_child("c").await, Ok(Started::Child(_))));
}

#[tokio::test(start_paused = true)]
async fn otp_sup_start_ignore_temporary_child() {
    let stage = Stage::default();
    stage.script.next("a", [Begin::Ignore]);
    let temporary = stage.child("a").restart(Restart::Temporary);
    let tree = Supervisor::builder("top").child(temporary).child(stage.child("b")).start().await.unwrap();
    let ids: Vec<_> = tree.which_children().unwrap().into_iter().filter_map(|child| child.id).collect();
    assert_eq!(ids, ["b".into()]);
}

#[tokio::test(start_paused = true)]
async fn otp_sup_start_ignore_temporary_child_start_child() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").start().await.unwrap();
    stage.script.next("a", [Begin::Ignore]);
    let temporary = stage.child("a").restart(Restart::Temporary);
    assert_eq!(tree.start_child(temporary.clone()).await, Ok(Started::Ignored));
    assert_eq!(tree.count_children().unwrap().specs, 0);
    assert!(matches!(tree.start_child(temporary).await, Ok(Started::Child(_))));
}

#[tokio::test(start_paused = true)]
async fn otp_sup_start_error_return() {
    let init = Supervisor::init("top", |_| async { Err::<Init, BoxError>("no such thing".into()) });
    let error = init.start().await.unwrap_err();
    assert_eq!(error.to_string(), "the start failed: no such thing");
    let init = Supervisor::init("top", |_| async {
        if true { panic!("no such luck") } else { Ok::<_, BoxError>(Init::Ignore) }
    });
    assert_eq!(init.start().await.unwrap_err().to_string(), "the start failed: no such luck");
}

#[tokio::test(start_paused = true)]
async fn otp_sup_start_fail() {
    for begin in [Begin::Fail, Begin::Panic] {
        let stage = Stage::default();
        stage.script.next("c", [begin]);
        let children = ["a", "b", "c", "d"].map(|id| stage.child(id));
        let error = Supervisor::builder("top").children(children).start().await.unwrap_err();
        let StartError::FailedToStart { id, reason } = &error else { panic!("{error}") };
        assert_eq!(&**id, "c");
        let message =
            if begin == Begin::Fail { "the start failed: told to fail" } else { "the start failed: told to panic" };
        assert_eq!(reason.to_string(), message);
        assert_eq!(stage.did(), ["start a", "start b", "stop b", "stop a"]);
    }
}

#[tokio::test(start_paused = true)]
async fn otp_sup_start_map() {
    let stage = Stage::default();
    let bare = ChildSpec::new("bare", {
        let stage = stage.clone();
        move |parent| Puppet::spawn_linked(None, stage.puppet("bare"), (), parent)
    });
    let nested = ChildSpec::supervisor("nested", || Supervisor::builder("nested"));
    let tree = Supervisor::builder("top").child(bare).child(nested).start().await.unwrap();
    let defaults = tree.child_spec("bare").unwrap();
    assert_eq!((defaults.restart, defaults.significant), (Restart::Permanent, false));
    assert_eq!(defaults.shutdown, Shutdown::After(Duration::from_secs(5)));
    assert_eq!((defaults.kind, defaults.ask), (Kind::Worker, Ask::Stop));
    assert_eq!((defaults.backoff, defaults.start_timeout), (Backoff::default(), None));
    let defaults = tree.child_spec("nested").unwrap();
    assert_eq!((defaults.kind, defaults.shutdown), (Kind::Supervisor, Shutdown::Infinity));
}

#[tokio::test(start_paused = true)]
async fn otp_sup_start_map_faulty_specs() {
    let stage = Stage::default();
    let error = |builder: plimsoll::supervisor::SupervisorBuilder| async move {
        match builder.start().await {
            Err(StartError::Spec(error)) => error,
            other => panic!("{other:?}"),
        }
    };
    let twice = Supervisor::builder("top").child(stage.child("a")).child(stage.child("a"));
    assert_eq!(error(twice).await, SpecError::DuplicateId { id: "a".into() });
    let permanent = stage.child("a").significant(true);
    let any = Supervisor::builder("top").auto_shutdown(AutoShutdown::AnySignificant).child(permanent.clone());
    assert_eq!(error(any).await, SpecError::SignificantPermanent { id: "a".into() });
    let transient = stage.child("a").significant(true).restart(Restart::Transient);
    let never = Supervisor::builder("top").child(transient.clone());
    assert_eq!(error(never).await, SpecError::SignificantNever { id: "a".into() });
    let instant = Supervisor::builder("top").intensity(1, Duration::ZERO);
    assert_eq!(error(instant).await, SpecError::ZeroPeriod);
    assert!(stage.did().is_empty());

    let tree = Supervisor::builder("top").start().await.unwrap();
    assert_eq!(
        tree.start_child(transient).await,
        Err(StartError::Spec(SpecError::SignificantNever { id: "a".into() }))
    );
    assert_eq!(
        tree.start_child(permanent).await,
        Err(StartError::Spec(SpecError::SignificantPermanent { id: "a".into() }))
    );
}

#[tokio::test(start_paused = true)]
async fn otp_sup_stop_infinity() {
    let stage = Stage::default();
    let slow = |mut puppet: Puppet| {
        puppet.slow_stop = Duration::from_secs(86_400);
        puppet
    };
    let tree = Supervisor::builder("top")
        .child(stage.child("obeys").shutdown(Shutdown::Infinity))
        .child(stage.child_with("dawdles", slow).shutdown(Shutdown::Infinity))
        .start()
        .await
        .unwrap();
    stage.did();
    let began = tokio::time::Instant::now();
    let report = tree.stop().await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(began.elapsed(), Duration::from_secs(86_400));
    assert_eq!(stage.did(), ["stopping dawdles", "stop dawdles", "stop obeys"]);
}

#[tokio::test(start_paused = true)]
async fn otp_sup_stop_timeout() {
    let stage = Stage::default();
    let slow = |mut puppet: Puppet| {
        puppet.slow_stop = Duration::from_secs(60);
        puppet
    };
    let grace = Shutdown::After(Duration::from_secs(1));
    let tree = Supervisor::builder("top")
        .child(stage.child("obeys").shutdown(grace))
        .child(stage.child_with("dawdles", slow).shutdown(grace))
        .start()
        .await
        .unwrap();
    stage.did();
    let report = tree.stop().await;
    assert_eq!(stage.did(), ["stopping dawdles", "stop obeys"]);
    assert_eq!(report.troubles.len(), 1, "{report}");
    assert_eq!(&*report.troubles[0].path[0], "dawdles");
    assert_eq!(report.troubles[0].what, TroubleKind::Killed);
    assert_eq!(report.troubles[0].waited, Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_brutal_shutdown_runs_no_stop_hook_and_is_not_reported() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").child(stage.child("a").shutdown(Shutdown::Brutal)).start().await.unwrap();
    assert!(tree.stop().await.is_clean());
    assert_eq!(stage.diary.take(), ["start a", "drop a"]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_reports_what_otp_reports() {
    let stage = Stage::default();
    let failing = |mut puppet: Puppet| {
        puppet.fail_stop = true;
        puppet
    };
    let stubborn = |id: &'static str, restart| {
        ChildSpec::task(id, |_stop| async { std::future::pending::<Result<(), BoxError>>().await }).restart(restart)
    };
    let tree = Supervisor::builder("top")
        .child(stage.child_with("fails", failing))
        .child(stubborn("stubborn", Restart::Temporary).shutdown(Shutdown::After(Duration::from_millis(10))))
        .child(stage.child("drains").ask(Ask::Drain))
        .start()
        .await
        .unwrap();
    let report = tree.stop().await;
    let told: Vec<_> = report.troubles.iter().map(|trouble| (&*trouble.path[0], &trouble.what)).collect();
    let failed = TroubleKind::Ended(ExitReason::failed("told to fail"));
    assert_eq!(told, [("stubborn", &TroubleKind::Killed), ("fails", &failed)]);
}

#[tokio::test(start_paused = true)]
async fn who_ends_by_itself_during_a_stop_is_not_waited_for_later() {
    let stage = Stage::default();
    let slow = |mut puppet: Puppet| {
        puppet.slow_stop = Duration::from_secs(1);
        puppet
    };
    let tree = Supervisor::builder("top")
        .child(stage.child("normal"))
        .child(stage.child("panics").restart(Restart::Temporary))
        .child(stage.child_with("slow", slow))
        .start()
        .await
        .unwrap();
    let (normal, panics) = (tree.child("normal").unwrap(), tree.child("panics").unwrap());
    let stopping = tokio::spawn({
        let tree = tree.clone();
        async move { tree.stop().await }
    });
    quiet().await;
    support::tell(&normal, Do::Normal);
    support::tell(&panics, Do::Panic);
    let report = stopping.await.unwrap();
    let told: Vec<_> = report.troubles.iter().map(|trouble| (&*trouble.path[0], &trouble.what)).collect();
    let panicked = TroubleKind::Ended(ExitReason::failed("told to panic"));
    // A permanent child's normal end is an error during a stop.
    assert_eq!(told, [("normal", &TroubleKind::Ended(ExitReason::Normal)), ("panics", &panicked)]);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_taken_is_already_started() {
    let stage = Stage::default();
    let named = |id: &'static str, stage: &Stage| {
        let stage = stage.clone();
        ChildSpec::new(id, move |parent| {
            Puppet::spawn_linked(Some("the only one".to_owned()), stage.puppet(id), (), parent)
        })
    };
    let tree = Supervisor::builder("top").child(named("first", &stage)).start().await.unwrap();
    let first = tree.child("first").unwrap();
    assert_eq!(tree.start_child(named("second", &stage)).await, Err(StartError::AlreadyStarted(first)));
    assert_eq!(tree.count_children().unwrap().specs, 1);
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_start_that_takes_too_long_is_gone_and_its_name_free() {
    let stage = Stage::default();
    stage.script.next("slow", [Begin::Hang]);
    let slow = stage.clone();
    let spec = ChildSpec::new("slow", move |parent| {
        Puppet::spawn_linked(Some("slow starter".to_owned()), slow.puppet("slow"), (), parent)
    })
    .start_timeout(Duration::from_secs(3));
    let tree = Supervisor::builder("top").start().await.unwrap();
    assert_eq!(tree.start_child(spec.clone()).await, Err(StartError::Timeout(Duration::from_secs(3))));
    assert!(ractor::registry::where_is("slow starter").is_none());
    assert!(matches!(tree.start_child(spec).await, Ok(Started::Child(_))));
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_child_that_is_not_linked_is_killed_and_refused() {
    let stage = Stage::default();
    let loose = stage.clone();
    let spec = ChildSpec::new("loose", move |_parent| Puppet::spawn(None, loose.puppet("loose"), ()));
    let tree = Supervisor::builder("top").start().await.unwrap();
    assert_eq!(tree.start_child(spec).await, Err(StartError::NotLinked));
    assert_eq!(stage.diary.take(), ["start loose", "drop loose"]);
}

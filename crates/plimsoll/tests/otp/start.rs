//! Starts: children one after the other, their specs checked, and what dies meanwhile.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use plimsoll::exit::ExitReason;
use plimsoll::inspect::Kind;
use plimsoll::supervisor::{
    AutoShutdown, Backoff, BoxError, ChildError, ChildSpec, ChildState, Restart, Shutdown, ShutdownCause, SpecError,
    StartError, StopMode, Strategy, Supervisor, SupervisorBuilder,
};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};

use crate::support::{Do, Puppet, Stage, quiet, tell_id};
use crate::trees::shown;

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
    let report = tree.stop().await.unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!((&report.cause, &report.reason), (&ShutdownCause::Stopped, &ExitReason::Shutdown));
    assert_eq!(stage.did(), ["stop b", "stop a"]);
    assert_eq!(tree.which_children(), Err(ChildError::ShuttingDown));
}

#[tokio::test(start_paused = true)]
async fn otp_sup_start_ignore_init() {
    let stage = Stage::default();
    let ignored = Supervisor::init("ignored", |_| async { Err(StartError::Ignored.into()) });
    assert_eq!(ignored.start().await.unwrap_err(), StartError::Ignored);

    // As a child it is ignored, too, and its spec kept.
    let tree = Supervisor::builder("top")
        .child(ChildSpec::supervisor("ignored", || {
            Supervisor::init("ignored", |_| async { Err(StartError::Ignored.into()) })
        }))
        .start()
        .await
        .unwrap();
    assert_eq!(tree.which_children().unwrap()[0].state, ChildState::None);

    let child = stage.child("a");
    let init = Supervisor::init("runs", move |flags| async move { Ok(flags.child(child)) });
    let runs = init.start().await.unwrap();
    assert_eq!(stage.did(), ["start a"]);
    runs.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn otp_sup_start_error_return() {
    let init = Supervisor::init("top", |_| async { Err("no such thing".into()) });
    let error = init.start().await.unwrap_err();
    assert_eq!(error.to_string(), "the start failed: no such thing");
    let init = Supervisor::init("top", |_| async {
        if true { panic!("no such luck") } else { Err(StartError::Ignored.into()) }
    });
    assert_eq!(init.start().await.unwrap_err().to_string(), "the start failed: no such luck");
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
    assert_eq!((defaults.kind, defaults.stop_mode), (Kind::Worker, StopMode::Stop));
    assert_eq!((defaults.backoff, defaults.start_timeout), (Backoff::default(), None));
    let defaults = tree.child_spec("nested").unwrap();
    assert_eq!((defaults.kind, defaults.shutdown), (Kind::Supervisor, Shutdown::Infinity));
}

#[tokio::test(start_paused = true)]
async fn otp_sup_start_map_faulty_specs() {
    let stage = Stage::default();
    let error = |builder: SupervisorBuilder| async move {
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
async fn otp_sup_start_each_running_before_the_next_begins() {
    let log: Arc<Mutex<Vec<String>>> = Arc::default();
    let child = |id: &'static str| {
        let (log, stage) = (log.clone(), Stage::default());
        ChildSpec::new(id, move |parent| {
            let (log, puppet) = (log.clone(), stage.puppet(id));
            async move {
                log.lock().unwrap().push(format!("begin {id}"));
                tokio::time::sleep(Duration::from_secs(1)).await;
                let child = Puppet::spawn_linked(None, puppet, (), parent).await;
                log.lock().unwrap().push(format!("end {id}"));
                child
            }
        })
        .backoff(Backoff::NONE)
    };
    let builder = Supervisor::builder("top").strategy(Strategy::OneForAll).child(child("a")).child(child("b"));
    let tree = builder.start().await.unwrap();
    let expected = ["begin a", "end a", "begin b", "end b"];
    assert_eq!(std::mem::take(&mut *log.lock().unwrap()), expected);
    tell_id(&tree, "b", Do::Panic);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(std::mem::take(&mut *log.lock().unwrap()), expected);
}

#[tokio::test(start_paused = true)]
async fn otp_sup_start_a_child_that_dies_during_boot_is_restarted_after_it() {
    let stage = Stage::default();
    let seen: Arc<Mutex<Option<ActorCell>>> = Arc::default();
    let (first, seen_by_start) = (stage.clone(), seen.clone());
    let a = ChildSpec::new("a", move |parent| {
        let (puppet, seen) = (first.puppet("a"), seen_by_start.clone());
        async move {
            let (actor, ended) = Puppet::spawn_linked(None, puppet, (), parent).await?;
            *seen.lock().unwrap() = Some(actor.get_cell());
            Ok::<_, BoxError>((actor, ended))
        }
    })
    .backoff(Backoff::NONE);
    let b = ChildSpec::new("b", {
        let stage = stage.clone();
        move |parent| {
            let (puppet, a) = (stage.puppet("b"), seen.lock().unwrap().take());
            async move {
                if let Some(a) = a {
                    a.kill();
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Puppet::spawn_linked(None, puppet, (), parent).await
            }
        }
    });
    let tree = Supervisor::builder("top").child(a).child(b).start().await.unwrap();
    quiet().await;
    assert_eq!(stage.did(), ["start a", "start b", "start a"]);
    assert_eq!(shown(&tree), "a+ b+");
}

#[tokio::test(start_paused = true)]
async fn otp_sup_start_a_child_that_dies_before_its_start_returns_is_restarted() {
    let stage = Stage::default();
    let deaths = Arc::new(Mutex::new(1));
    let inner = stage.clone();
    let spec = ChildSpec::new("a", move |parent| {
        let (puppet, deaths) = (inner.puppet("a"), deaths.clone());
        async move {
            let (actor, ended) = Puppet::spawn_linked(None, puppet, (), parent).await?;
            let dies = std::mem::take(&mut *deaths.lock().unwrap()) > 0;
            if dies {
                actor.cast(Do::Panic)?;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Ok::<_, BoxError>((actor, ended))
        }
    })
    .backoff(Backoff::NONE);
    let tree = Supervisor::builder("top").start().await.unwrap();
    tree.start_child(spec).await.unwrap();
    quiet().await;
    assert_eq!(stage.did(), ["start a", "start a"]);
    assert_eq!(shown(&tree), "a+");
}

#[tokio::test(start_paused = true)]
async fn otp_sup_start_a_temporary_child_that_dies_before_its_start_returns_is_dropped() {
    let stage = Stage::default();
    let inner = stage.clone();
    let spec = ChildSpec::new("a", move |parent| {
        let puppet = inner.puppet("a");
        async move {
            let (actor, ended) = Puppet::spawn_linked(None, puppet, (), parent).await?;
            actor.stop(None);
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok::<_, BoxError>((actor, ended))
        }
    })
    .restart(Restart::Temporary);
    let tree = Supervisor::builder("top").start().await.unwrap();
    tree.start_child(spec).await.unwrap();
    quiet().await;
    assert_eq!(shown(&tree), "");
}

struct FailsAfterStart(Stage);

impl Actor for FailsAfterStart {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        self.0.diary.note("start");
        Ok(())
    }

    async fn post_start(&self, _: ActorRef<()>, _: &mut ()) -> Result<(), ActorProcessingErr> {
        panic!("after the start")
    }
}

#[tokio::test(start_paused = true)]
async fn otp_a_failure_in_post_start_is_one_of_a_child_that_had_started() {
    let stage = Stage::default();
    let inner = stage.clone();
    let spec = ChildSpec::new("a", move |parent| {
        FailsAfterStart::spawn_linked(None, FailsAfterStart(inner.clone()), (), parent)
    });
    let builder = Supervisor::builder("top").intensity(2, Duration::from_secs(60));
    let tree = builder.child(spec.backoff(Backoff::NONE)).start().await.expect("the start succeeds");
    assert!(matches!(tree.wait().await.unwrap().cause, ShutdownCause::GaveUp { .. }));
    assert_eq!(stage.did(), ["start", "start", "start"]);
}

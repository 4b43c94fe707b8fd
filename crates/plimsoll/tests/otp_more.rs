//! Further cases of OTP's `supervisor_SUITE`: supervisors of named children.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use plimsoll::exit::ExitReason;
use plimsoll::supervisor::{
    Ask, AutoShutdown, Backoff, BoxError, Child, ChildError, ChildSpec, ChildState, Restart, Shutdown, ShutdownCause,
    StartError, Started, Strategy, Supervisor, SupervisorBuilder, SupervisorRef, TroubleKind,
};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
use support::{Begin, Do, Puppet, Stage, quiet, tell, tell_id};
use tokio::time::Instant;

/// The children oldest first: `+` runs, `~` restarts, `-` none.
fn shown(tree: &SupervisorRef) -> String {
    let letter = |state: &ChildState| match state {
        ChildState::Running(_) => '+',
        ChildState::Restarting => '~',
        _ => '-',
    };
    let children = tree.which_children().unwrap().into_iter().rev();
    children.map(|child| format!("{}{}", child.id.unwrap(), letter(&child.state))).collect::<Vec<_>>().join(" ")
}

fn named(stage: &Stage, ids: &[&str]) -> Vec<ChildSpec> {
    ids.iter().map(|id| stage.child(id)).collect()
}

fn slow(seconds: u64) -> impl Fn(Puppet) -> Puppet + Send + Sync + 'static {
    move |mut puppet| {
        puppet.slow_stop = Duration::from_secs(seconds);
        puppet
    }
}

async fn start(stage: &Stage, builder: SupervisorBuilder) -> SupervisorRef {
    let tree = builder.start().await.unwrap();
    stage.did();
    tree
}

async fn start_three(stage: &Stage, strategy: Strategy) -> SupervisorRef {
    let builder = Supervisor::builder("top").strategy(strategy).intensity(3, Duration::from_secs(60));
    start(stage, builder.children(named(stage, &["a", "b", "c"]))).await
}

// --- start -------------------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn otp_sup_start_restart_child() {
    // restart_child of a spec whose child was ignored at boot.
    let stage = Stage::default();
    stage.script.next("a", [Begin::Ignore, Begin::Ignore]);
    let tree = start(&stage, Supervisor::builder("top").child(stage.child("a"))).await;
    assert_eq!(tree.restart_child("a").await, Ok(Started::Ignored));
    assert_eq!(shown(&tree), "a-");
    assert!(matches!(tree.restart_child("a").await, Ok(Started::Child(_))));
    assert_eq!(shown(&tree), "a+");
}

#[tokio::test(start_paused = true)]
async fn otp_sup_start_restart_ignored_at_an_automatic_restart() {
    let stage = Stage::default();
    let tree = start_three(&stage, Strategy::OneForOne).await;
    stage.script.next("b", [Begin::Ignore]);
    tell_id(&tree, "b", Do::Panic);
    quiet().await;
    assert_eq!(shown(&tree), "a+ b- c+");
    assert_eq!(tree.count_children().unwrap().specs, 3);
    assert!(matches!(tree.restart_child("b").await, Ok(Started::Child(_))));
}

#[tokio::test(start_paused = true)]
async fn otp_sup_start_ignore_in_a_group_restart_goes_on_with_the_next() {
    let stage = Stage::default();
    let tree = start_three(&stage, Strategy::OneForAll).await;
    stage.script.next("b", [Begin::Ignore]);
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    assert_eq!(shown(&tree), "a+ b- c+");
    assert_eq!(stage.did(), ["stop c", "stop b", "start a", "start c"]);
}

#[tokio::test(start_paused = true)]
async fn otp_sup_start_fail_of_the_first_child() {
    let stage = Stage::default();
    stage.script.next("a", [Begin::Fail]);
    let builder = Supervisor::builder("top").children(named(&stage, &["a", "b"]));
    let Err(StartError::FailedToStart { id, .. }) = builder.start().await else { panic!("it fails") };
    assert_eq!(&*id, "a");
    assert!(stage.did().is_empty());
}

#[tokio::test(start_paused = true)]
async fn otp_sup_start_fail_of_a_temporary_child_fails_the_supervisor() {
    let stage = Stage::default();
    stage.script.next("b", [Begin::Fail]);
    let builder = Supervisor::builder("top").child(stage.child("a"));
    let builder = builder.child(stage.child("b").restart(Restart::Temporary));
    let Err(StartError::FailedToStart { id, .. }) = builder.start().await else { panic!("it fails") };
    assert_eq!(&*id, "b");
    assert_eq!(stage.did(), ["start a", "stop a"]);
}

#[tokio::test(start_paused = true)]
async fn otp_sup_start_fail_of_a_nested_supervisor_says_both_ids() {
    let stage = Stage::default();
    stage.script.next("x", [Begin::Fail]);
    let inner = stage.clone();
    let nested = ChildSpec::supervisor("nested", move || {
        Supervisor::builder("nested").child(inner.child("y")).child(inner.child("x"))
    });
    let builder = Supervisor::builder("top").child(stage.child("a")).child(nested);
    let Err(StartError::FailedToStart { id, reason }) = builder.start().await else { panic!("it fails") };
    assert_eq!(&*id, "nested");
    let StartError::FailedToStart { id, .. } = *reason else { panic!("{reason}") };
    assert_eq!(&*id, "x");
    assert_eq!(stage.did(), ["start a", "start y", "stop y", "stop a"]);
}

#[tokio::test(start_paused = true)]
async fn otp_sup_start_rolls_back_with_graces() {
    let stage = Stage::default();
    stage.script.next("b", [Begin::Fail]);
    let builder = Supervisor::builder("top");
    let builder = builder.child(stage.child_with("a", slow(60)).shutdown(Shutdown::After(Duration::from_secs(2))));
    let began = Instant::now();
    assert!(builder.child(stage.child("b")).start().await.is_err());
    assert_eq!(began.elapsed(), Duration::from_secs(2));
    assert_eq!(stage.diary.take(), ["start a", "drop b", "stopping a", "drop a"]);
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
    assert!(matches!(tree.start_child(spec).await, Ok(Started::Child(_))));
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
    assert!(matches!(tree.start_child(spec).await, Ok(Started::Child(_))));
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
    assert_eq!(tree.wait().await.cause, ShutdownCause::GaveUp);
    assert_eq!(stage.did(), ["start", "start", "start"]);
}

// --- stop --------------------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn otp_sup_stop_manual_by_its_actor() {
    let stage = Stage::default();
    let tree = start_three(&stage, Strategy::OneForOne).await;
    tree.actor().stop(None);
    let report = tree.wait().await;
    assert_eq!((report.cause, report.is_clean()), (ShutdownCause::Stopped, true));
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
    let report = tree.stop().await;
    assert_eq!(began.elapsed(), Duration::from_secs(1 + 2 + 4));
    assert_eq!(stage.did(), ["stopping c", "stopping b", "stop b", "stopping a"]);
    let told: Vec<_> = report.troubles.iter().map(|trouble| (&*trouble.path[0], trouble.waited.as_secs())).collect();
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
    let stopping = tokio::spawn({
        let tree = tree.clone();
        async move { tree.stop().await }
    });
    quiet().await;
    tell(&early, Do::Normal);
    tell(&late, Do::Normal);
    quiet().await;
    let report = stopping.await.unwrap();
    assert_eq!(stage.did(), ["stopping slow", "stop early", "stop late", "stop slow"]);
    // A transient one may end normally, a permanent one is reported.
    let told: Vec<_> = report.troubles.iter().map(|trouble| (&*trouble.path[0], &trouble.what)).collect();
    assert_eq!(told, [("late", &TroubleKind::Ended(ExitReason::Normal))]);
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
        let report = tree.stop().await;
        let upgrade = TroubleKind::Ended(ExitReason::ShutdownWith { reason: "upgrade".into() });
        let told: Vec<_> = report.troubles.iter().map(|trouble| &trouble.what).collect();
        assert_eq!(told, if reported { vec![&upgrade] } else { vec![] }, "{restart:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn otp_sup_stop_drains_where_a_drain_is_asked_for() {
    let stage = Stage::default();
    let builder = Supervisor::builder("top").child(stage.child("a").ask(Ask::Drain));
    let tree = start(&stage, builder).await;
    tell_id(&tree, "a", Do::Busy(Duration::from_secs(1)));
    tell_id(&tree, "a", Do::Busy(Duration::from_secs(2)));
    let began = Instant::now();
    assert!(tree.stop().await.is_clean());
    assert_eq!(began.elapsed(), Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn otp_sup_stop_kills_a_child_that_drains_beyond_its_grace() {
    let stage = Stage::default();
    let builder = Supervisor::builder("top");
    let tree = start(
        &stage,
        builder.child(stage.child("a").ask(Ask::Drain).shutdown(Shutdown::After(Duration::from_secs(1)))),
    )
    .await;
    tell_id(&tree, "a", Do::Busy(Duration::from_secs(100)));
    quiet().await;
    let began = Instant::now();
    let report = tree.stop().await;
    assert_eq!(began.elapsed(), Duration::from_secs(1));
    assert_eq!(report.troubles[0].what, TroubleKind::Killed);
    assert_eq!(stage.diary.take(), ["drop a"]);
}

#[tokio::test(start_paused = true)]
async fn otp_sup_stop_killed_mid_stop_leaves_nobody() {
    let stage = Stage::default();
    let builder = Supervisor::builder("top")
        .child(stage.child("a").shutdown(Shutdown::Infinity))
        .child(stage.child_with("b", slow(1_000_000)).shutdown(Shutdown::Infinity));
    let tree = start(&stage, builder).await;
    let stopping = tokio::spawn({
        let tree = tree.clone();
        async move { tree.stop().await }
    });
    quiet().await;
    assert_eq!(stage.diary.take(), ["stopping b"]);
    let began = Instant::now();
    tree.actor().kill();
    let report = stopping.await.unwrap();
    assert_eq!(report.cause, ShutdownCause::Killed);
    assert!(began.elapsed() < Duration::from_millis(10));
    let left: BTreeSet<_> = stage.diary.take().into_iter().collect();
    assert_eq!(left, ["drop a".to_owned(), "drop b".to_owned()].into());
}

#[tokio::test(start_paused = true)]
async fn otp_sup_stop_killed_supervisor_kills_children_that_drain_or_stop() {
    let stage = Stage::default();
    let builder = Supervisor::builder("top")
        .child(stage.child("drains"))
        .child(stage.child_with("stops", slow(1_000)))
        .child(stage.child("runs"));
    let tree = start(&stage, builder).await;
    tell_id(&tree, "drains", Do::Busy(Duration::from_secs(1_000)));
    tree.child("drains").unwrap().actor().drain().unwrap();
    tell_id(&tree, "stops", Do::Normal);
    quiet().await;
    stage.diary.take();
    tree.actor().kill();
    let report = tree.wait().await;
    assert_eq!((report.cause, &report.reason), (ShutdownCause::Killed, &ExitReason::Killed));
    let left: BTreeSet<_> = stage.diary.take().into_iter().collect();
    assert_eq!(left, ["drop drains".to_owned(), "drop runs".to_owned(), "drop stops".to_owned()].into());
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
    assert!(tree.stop().await.is_clean());
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn otp_sup_stop_while_start_child_hangs() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").start().await.unwrap();
    stage.script.next("a", [Begin::Hang]);
    let starting = tokio::spawn({
        let (tree, spec) = (tree.clone(), stage.child("a"));
        async move { tree.start_child(spec).await }
    });
    quiet().await;
    let began = Instant::now();
    assert!(tree.stop().await.is_clean());
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
    let starting = tokio::spawn({
        let tree = tree.clone();
        async move { tree.start_child(spec).await }
    });
    quiet().await;
    tree.stop().await;
    assert_eq!(starting.await.unwrap(), Err(StartError::ShuttingDown));
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Whatever came of it, nothing of it is left.
    let events = stage.diary.take();
    assert_eq!(events.last().map(String::as_str), Some("drop a"), "{events:?}");
}

// --- administration ----------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn otp_child_adm_of_a_transient_child_that_ended() {
    let stage = Stage::default();
    let tree = start(&stage, Supervisor::builder("top").child(stage.child("a").restart(Restart::Transient))).await;
    tell_id(&tree, "a", Do::Normal);
    quiet().await;
    assert_eq!(tree.start_child(stage.child("a")).await, Err(StartError::AlreadyPresent));
    assert_eq!(tree.terminate_child("a").await, Ok(()));
    assert!(matches!(tree.restart_child("a").await, Ok(Started::Child(_))));
    tell_id(&tree, "a", Do::Normal);
    quiet().await;
    assert_eq!(tree.delete_child("a").await, Ok(()));
    assert_eq!(shown(&tree), "");
}

#[tokio::test(start_paused = true)]
async fn otp_child_adm_terminated_is_not_charged_and_not_restarted() {
    let stage = Stage::default();
    let builder = Supervisor::builder("top").intensity(0, Duration::from_secs(60)).child(stage.child("a"));
    let tree = start(&stage, builder).await;
    for _ in 0..5 {
        tree.terminate_child("a").await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(shown(&tree), "a-");
        tree.restart_child("a").await.unwrap();
    }
    assert!(tree.report().is_none());
}

#[tokio::test(start_paused = true)]
async fn otp_child_adm_terminate_of_a_child_that_fails_while_stopping_is_ok() {
    let stage = Stage::default();
    let failing = |mut puppet: Puppet| {
        puppet.fail_stop = true;
        puppet
    };
    let tree = start(&stage, Supervisor::builder("top").child(stage.child_with("a", failing))).await;
    assert_eq!(tree.terminate_child("a").await, Ok(()));
    quiet().await;
    assert_eq!(shown(&tree), "a-");
}

#[tokio::test(start_paused = true)]
async fn otp_child_adm_two_terminations_of_one_child_are_both_answered() {
    let stage = Stage::default();
    let tree = start(&stage, Supervisor::builder("top").child(stage.child_with("a", slow(2)))).await;
    let (first, second) = tokio::join!(tree.terminate_child("a"), tree.terminate_child("a"));
    assert_eq!((first, second), (Ok(()), Ok(())));
    assert_eq!(stage.did(), ["stopping a", "stop a"]);
}

#[tokio::test(start_paused = true)]
async fn otp_child_adm_restart_and_delete_wait_for_a_termination_under_way() {
    let stage = Stage::default();
    let tree = start(&stage, Supervisor::builder("top").child(stage.child_with("a", slow(2)))).await;
    let (terminated, restarted) = tokio::join!(tree.terminate_child("a"), tree.restart_child("a"));
    assert_eq!(terminated, Ok(()));
    assert!(matches!(restarted, Ok(Started::Child(_))));
    let (terminated, deleted) = tokio::join!(tree.terminate_child("a"), tree.delete_child("a"));
    assert_eq!((terminated, deleted), (Ok(()), Ok(())));
}

#[tokio::test(start_paused = true)]
async fn otp_child_adm_start_child_waits_for_the_termination_of_a_temporary_namesake() {
    let stage = Stage::default();
    let temporary = || stage.child_with("a", slow(2)).restart(Restart::Temporary);
    let tree = start(&stage, Supervisor::builder("top").child(temporary())).await;
    let (terminated, started) = tokio::join!(tree.terminate_child("a"), tree.start_child(temporary()));
    assert_eq!(terminated, Ok(()));
    assert!(matches!(started, Ok(Started::Child(_))));
    assert_eq!(stage.did(), ["stopping a", "stop a", "start a"]);
}

#[tokio::test(start_paused = true)]
async fn otp_child_adm_terminate_while_start_child_hangs() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").start().await.unwrap();
    stage.script.next("a", [Begin::Hang]);
    let starting = tokio::spawn({
        let (tree, spec) = (tree.clone(), stage.child("a"));
        async move { tree.start_child(spec).await }
    });
    quiet().await;
    // Others are served meanwhile.
    assert!(matches!(tree.start_child(stage.child("b")).await, Ok(Started::Child(_))));
    assert_eq!(tree.terminate_child("a").await, Ok(()));
    assert_eq!(starting.await.unwrap(), Err(StartError::Terminated));
    quiet().await;
    assert!(!shown(&tree).contains("a+"));
}

#[tokio::test(start_paused = true)]
async fn otp_child_adm_start_child_of_a_starting_id_is_not_started_twice() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").start().await.unwrap();
    stage.script.next("a", [Begin::Hang]);
    let starting = tokio::spawn({
        let (tree, spec) = (tree.clone(), stage.child("a"));
        async move { tree.start_child(spec).await }
    });
    quiet().await;
    assert_eq!(tree.start_child(stage.child("a")).await, Err(StartError::AlreadyPresent));
    starting.abort();
}

#[tokio::test(start_paused = true)]
async fn otp_child_adm_a_caller_that_gives_up_leaves_the_child_to_the_supervisor() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").start().await.unwrap();
    let inner = stage.clone();
    let spec = ChildSpec::new("a", move |parent| {
        let puppet = inner.puppet("a");
        async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Puppet::spawn_linked(None, puppet, (), parent).await
        }
    });
    assert!(tokio::time::timeout(Duration::from_millis(10), tree.start_child(spec)).await.is_err());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(shown(&tree), "a+");
    assert!(tokio::time::timeout(Duration::ZERO, tree.terminate_child("a")).await.is_err());
    quiet().await;
    assert_eq!(shown(&tree), "a-");
}

#[tokio::test(start_paused = true)]
async fn otp_order_of_children() {
    let stage = Stage::default();
    let tree = start(&stage, Supervisor::builder("top").children(named(&stage, &["a", "b", "c", "d"]))).await;
    let order =
        || tree.which_children().unwrap().into_iter().map(|child| child.id.unwrap().to_string()).collect::<String>();
    assert_eq!(order(), "dcba");
    tree.start_child(stage.child("e")).await.unwrap();
    tell_id(&tree, "b", Do::Panic);
    quiet().await;
    tree.terminate_child("c").await.unwrap();
    tree.restart_child("c").await.unwrap();
    assert_eq!(order(), "edcba");
    stage.did();
    tree.stop().await;
    assert_eq!(stage.did(), ["stop e", "stop d", "stop c", "stop b", "stop a"]);
}

#[tokio::test(start_paused = true)]
async fn otp_scale_start_stop_many_children() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").start().await.unwrap();
    for round in 0..2 {
        for n in 0..1_000 {
            tree.start_child(stage.child(&format!("{round} {n}"))).await.unwrap();
        }
        assert_eq!(tree.count_children().unwrap().active, 1_000);
        for n in 0..1_000 {
            let id = format!("{round} {n}");
            tree.terminate_child(&id).await.unwrap();
            tree.delete_child(&id).await.unwrap();
        }
        assert_eq!(tree.count_children().unwrap().specs, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn otp_count_children_supervisor() {
    let stage = Stage::default();
    let nested = |id: &'static str| ChildSpec::supervisor(id, move || Supervisor::builder(id)).backoff(Backoff::NONE);
    let builder = Supervisor::builder("top").children([nested("s1"), nested("s2"), nested("s3")]);
    let tree = start(&stage, builder.child(stage.child("w"))).await;
    let count = || {
        let count = tree.count_children().unwrap();
        (count.specs, count.active, count.supervisors, count.workers)
    };
    assert_eq!(count(), (4, 4, 3, 1));
    tree.terminate_child("s2").await.unwrap();
    assert_eq!(count(), (4, 3, 3, 1));
    tree.delete_child("s2").await.unwrap();
    assert_eq!(count(), (3, 3, 2, 1));
}

#[tokio::test(start_paused = true)]
async fn otp_count_children_while_restarting() {
    let stage = Stage::default();
    let slow = Backoff::constant(Duration::from_secs(10));
    let builder = Supervisor::builder("top").child(stage.child("a").backoff(slow)).child(stage.child("b"));
    let tree = start(&stage, builder).await;
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    let count = tree.count_children().unwrap();
    assert_eq!((count.specs, count.active, count.supervisors, count.workers), (2, 1, 0, 2));
}

struct Dropped(Arc<Mutex<bool>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        *self.0.lock().unwrap() = true;
    }
}

fn holding(stage: &Stage, dropped: &Arc<Mutex<bool>>, restart: Restart) -> ChildSpec {
    let (stage, held) = (stage.clone(), Dropped(dropped.clone()));
    ChildSpec::new("a", move |parent| {
        let _ = &held;
        Puppet::spawn_linked(None, stage.puppet("a"), (), parent)
    })
    .restart(restart)
}

#[tokio::test(start_paused = true)]
async fn otp_do_not_save_start_parameters_for_temporary_children() {
    for at_boot in [true, false] {
        for (restart, gone) in [(Restart::Temporary, true), (Restart::Transient, false), (Restart::Permanent, false)] {
            let stage = Stage::default();
            let dropped = Arc::default();
            let spec = holding(&stage, &dropped, restart);
            let builder = Supervisor::builder("top");
            let tree = if at_boot {
                builder.child(spec).start().await.unwrap()
            } else {
                let tree = builder.start().await.unwrap();
                tree.start_child(spec).await.unwrap();
                tree
            };
            assert_eq!(*dropped.lock().unwrap(), gone, "{restart:?}, at boot: {at_boot}");
            assert_eq!(shown(&tree), "a+");
            assert_eq!(tree.child_spec("a").unwrap().restart, restart);
            if !gone {
                tree.terminate_child("a").await.unwrap();
                assert!(!*dropped.lock().unwrap());
                tree.delete_child("a").await.unwrap();
                assert!(*dropped.lock().unwrap(), "the spec is gone and its closure is not");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn otp_do_not_save_child_specs_for_temporary_children() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").start().await.unwrap();
    let temporary = || stage.child("t").restart(Restart::Temporary);
    tree.start_child(temporary()).await.unwrap();
    tell_id(&tree, "t", Do::Panic);
    quiet().await;
    assert_eq!(tree.restart_child("t").await, Err(ChildError::NotFound));
    assert_eq!(tree.delete_child("t").await, Err(ChildError::NotFound));
    assert_eq!(tree.child_spec("t"), Err(ChildError::NotFound));
    tree.start_child(temporary()).await.unwrap();
    tree.terminate_child("t").await.unwrap();
    assert_eq!(tree.restart_child("t").await, Err(ChildError::NotFound));
    assert_eq!(shown(&tree), "");
}

#[tokio::test(start_paused = true)]
async fn otp_temporary_bystander() {
    // A temporary sibling that a strategy stopped can be started anew, under its old id, and is then last.
    for strategy in [Strategy::OneForAll, Strategy::RestForOne] {
        let stage = Stage::default();
        let temporary = || stage.child("t").restart(Restart::Temporary);
        let builder = Supervisor::builder("top").strategy(strategy).child(stage.child("a")).child(temporary());
        let tree = start(&stage, builder.child(stage.child("b"))).await;
        tell_id(&tree, "a", Do::Panic);
        quiet().await;
        assert_eq!(shown(&tree), "a+ b+");
        tree.start_child(temporary()).await.unwrap();
        assert_eq!(shown(&tree), "a+ b+ t+");
    }
}

#[tokio::test(start_paused = true)]
async fn otp_temporary_that_fails_takes_nobody_along() {
    for strategy in [Strategy::OneForAll, Strategy::RestForOne] {
        let stage = Stage::default();
        let builder = Supervisor::builder("top").strategy(strategy).intensity(0, Duration::from_secs(1));
        let builder = builder.child(stage.child("t").restart(Restart::Temporary)).child(stage.child("b"));
        let tree = start(&stage, builder).await;
        tell_id(&tree, "t", Do::Panic);
        quiet().await;
        assert_eq!(shown(&tree), "b+");
        assert!(stage.did().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn otp_transient_that_ends_normally_takes_nobody_along() {
    for strategy in [Strategy::OneForAll, Strategy::RestForOne] {
        let stage = Stage::default();
        let builder = Supervisor::builder("top").strategy(strategy).intensity(0, Duration::from_secs(1));
        let builder = builder.child(stage.child("t").restart(Restart::Transient)).child(stage.child("b"));
        let tree = start(&stage, builder).await;
        tell_id(&tree, "t", Do::Stop("shutdown"));
        quiet().await;
        assert_eq!(shown(&tree), "t- b+");
        assert_eq!(stage.did(), ["stop t"]);
    }
}

// --- restart -----------------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn otp_one_for_all_other_child_fails_restart() {
    let stage = Stage::default();
    let tree = start_three(&stage, Strategy::OneForAll).await;
    stage.script.next("b", [Begin::Fail]);
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    assert_eq!(stage.did(), ["stop c", "stop b", "start a", "stop a", "start a", "start b", "start c"]);
    assert_eq!(shown(&tree), "a+ b+ c+");
}

#[tokio::test(start_paused = true)]
async fn otp_rest_for_one_other_child_fails_restart() {
    let stage = Stage::default();
    let tree = start_three(&stage, Strategy::RestForOne).await;
    stage.script.next("b", [Begin::Fail]);
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    assert_eq!(stage.did(), ["stop c", "stop b", "start a", "start b", "start c"]);
    assert_eq!(shown(&tree), "a+ b+ c+");
}

#[tokio::test(start_paused = true)]
async fn otp_other_child_fails_restart_until_the_budget_is_gone() {
    for (strategy, last) in [(Strategy::OneForAll, "stop a"), (Strategy::RestForOne, "stop a")] {
        let stage = Stage::default();
        let tree = start_three(&stage, strategy).await;
        stage.script.always("b", Begin::Fail);
        tell_id(&tree, "a", Do::Panic);
        let report = tree.wait().await;
        assert_eq!((report.cause, &report.reason), (ShutdownCause::GaveUp, &ExitReason::Shutdown));
        let events = stage.did();
        assert_eq!(events.last().map(String::as_str), Some(last), "{events:?}");
        // Three restarts within the budget: the failure, and two retries; the fourth is one too many.
        let starts = events.iter().filter(|event| *event == "start a").count();
        assert_eq!(starts, if strategy == Strategy::OneForAll { 3 } else { 1 }, "{events:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn otp_hanging_restart_loop_rest_for_one() {
    let stage = Stage::default();
    let builder = Supervisor::builder("top")
        .strategy(Strategy::RestForOne)
        .intensity(u32::MAX, Duration::from_secs(1))
        .children(["a", "b", "c"].map(|id| stage.child(id).backoff(Backoff::constant(Duration::from_millis(10)))));
    let tree = start(&stage, builder).await;
    stage.script.always("b", Begin::Fail);
    tell_id(&tree, "b", Do::Panic);
    tokio::time::sleep(Duration::from_millis(95)).await;
    assert_eq!(shown(&tree), "a+ b~ c-");
    assert_eq!(tree.restart_child("b").await, Err(ChildError::Restarting));
    assert_eq!(tree.delete_child("b").await, Err(ChildError::Restarting));
    assert_eq!(tree.start_child(stage.child("b")).await, Err(StartError::AlreadyPresent));
    // Siblings can be handled meanwhile.
    assert_eq!(tree.terminate_child("a").await, Ok(()));
    assert!(matches!(tree.restart_child("a").await, Ok(Started::Child(_))));
    assert_eq!(tree.terminate_child("c").await, Ok(()));
    assert_eq!(tree.terminate_child("b").await, Ok(()));
    assert_eq!(shown(&tree), "a+ b- c-");
    stage.script.no_longer("b");
    assert!(matches!(tree.restart_child("b").await, Ok(Started::Child(_))));
    assert!(matches!(tree.restart_child("c").await, Ok(Started::Child(_))));
    assert_eq!(shown(&tree), "a+ b+ c+");
}

#[tokio::test(start_paused = true)]
async fn otp_restart_that_fails_is_charged_each_time() {
    let stage = Stage::default();
    let builder = Supervisor::builder("top").intensity(3, Duration::from_secs(60)).child(stage.child("a"));
    let tree = start(&stage, builder).await;
    stage.script.next("a", [Begin::Fail, Begin::Panic]);
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    // One failure and two failed tries: three. The next is one too many.
    assert_eq!(shown(&tree), "a+");
    tell_id(&tree, "a", Do::Panic);
    assert_eq!(tree.wait().await.cause, ShutdownCause::GaveUp);
}

#[tokio::test(start_paused = true)]
async fn otp_restart_whose_name_was_taken_is_tried_again() {
    let stage = Stage::default();
    let inner = stage.clone();
    let spec = ChildSpec::new("a", move |parent| {
        Puppet::spawn_linked(Some("otp_more contested".to_owned()), inner.puppet("a"), (), parent)
    })
    .backoff(Backoff::constant(Duration::from_secs(1)));
    let builder = Supervisor::builder("top").intensity(5, Duration::from_secs(60)).child(spec);
    let tree = start(&stage, builder).await;
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    let (thief, ended) =
        Puppet::spawn(Some("otp_more contested".to_owned()), Stage::default().puppet("thief"), ()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(shown(&tree), "a~");
    thief.stop(None);
    ended.await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(shown(&tree), "a+");
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn otp_simple_global_supervisor_takes_the_name_again() {
    // Named children with a slow stop hook under one_for_all: no name is found taken.
    let stage = Stage::default();
    let child = |id: &'static str| {
        let stage = stage.clone();
        ChildSpec::new(id, move |parent| {
            let puppet = slow(1)(stage.puppet(id));
            Puppet::spawn_linked(Some(format!("otp_more named {id}")), puppet, (), parent)
        })
        .backoff(Backoff::NONE)
    };
    let builder = Supervisor::builder("top").strategy(Strategy::OneForAll).intensity(3, Duration::from_secs(60));
    let tree = start(&stage, builder.children([child("x"), child("y")])).await;
    for what in [|| Do::Panic, || Do::Normal, || Do::Fail] {
        tell_id(&tree, "x", what());
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(shown(&tree), "x+ y+");
    }
    // Three were charged and no more.
    assert!(tree.report().is_none());
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn otp_restart_begins_only_when_the_old_one_has_really_ended() {
    let stage = Stage::default();
    let builder = Supervisor::builder("top").child(stage.child_with("a", slow(3)));
    let tree = start(&stage, builder).await;
    tell_id(&tree, "a", Do::Normal);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(stage.diary.take(), ["stopping a"]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(stage.diary.take(), ["stop a", "drop a", "start a"]);
}

#[tokio::test(start_paused = true)]
async fn otp_window_is_the_supervisors_and_not_the_childs() {
    let stage = Stage::default();
    let builder = Supervisor::builder("top").intensity(2, Duration::from_secs(60));
    let tree = start(&stage, builder.children(named(&stage, &["a", "b", "c"]))).await;
    for id in ["a", "b"] {
        tell_id(&tree, id, Do::Panic);
        quiet().await;
    }
    tell_id(&tree, "c", Do::Panic);
    assert_eq!(tree.wait().await.cause, ShutdownCause::GaveUp);
    assert_eq!(stage.did(), ["start a", "start b", "stop b", "stop a"]);
}

#[tokio::test(start_paused = true)]
async fn otp_intensity_is_counted_at_the_failure_and_not_after_the_delay() {
    let stage = Stage::default();
    let late = stage.child("a").backoff(Backoff::constant(Duration::from_secs(8)));
    let builder = Supervisor::builder("top").intensity(1, Duration::from_secs(10)).child(late).child(stage.child("b"));
    let tree = start(&stage, builder).await;
    tell_id(&tree, "a", Do::Panic);
    tokio::time::sleep(Duration::from_millis(10_001)).await;
    tell_id(&tree, "b", Do::Panic);
    quiet().await;
    assert!(tree.report().is_none());
    assert_eq!(shown(&tree), "a+ b+");
}

#[tokio::test(start_paused = true)]
async fn otp_terminate_during_a_delay_refunds_nothing() {
    let stage = Stage::default();
    let late = stage.child("a").backoff(Backoff::constant(Duration::from_secs(8)));
    let builder = Supervisor::builder("top").intensity(1, Duration::from_secs(60)).child(late);
    let tree = start(&stage, builder).await;
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    tree.terminate_child("a").await.unwrap();
    tree.restart_child("a").await.unwrap();
    tell_id(&tree, "a", Do::Panic);
    assert_eq!(tree.wait().await.cause, ShutdownCause::GaveUp);
}

#[tokio::test(start_paused = true)]
async fn otp_one_for_one_never_touches_a_sibling_without_a_child() {
    let stage = Stage::default();
    stage.script.next("ignored", [Begin::Ignore]);
    let tree = start(&stage, Supervisor::builder("top").children(named(&stage, &["a", "ignored"]))).await;
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    assert_eq!(shown(&tree), "a+ ignored-");
}

#[tokio::test(start_paused = true)]
async fn otp_one_for_all_starts_an_ignored_sibling() {
    let stage = Stage::default();
    stage.script.next("ignored", [Begin::Ignore]);
    let builder = Supervisor::builder("top").strategy(Strategy::OneForAll);
    let tree = start(&stage, builder.children(named(&stage, &["a", "ignored"]))).await;
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    assert_eq!(shown(&tree), "a+ ignored+");
}

#[tokio::test(start_paused = true)]
async fn otp_rest_for_one_leaves_those_before_it_alone() {
    let stage = Stage::default();
    let tree = start_three(&stage, Strategy::RestForOne).await;
    tree.terminate_child("a").await.unwrap();
    stage.did();
    tell_id(&tree, "b", Do::Panic);
    quiet().await;
    assert_eq!(stage.did(), ["stop c", "start b", "start c"]);
    assert_eq!(shown(&tree), "a- b+ c+");
}

#[tokio::test(start_paused = true)]
async fn otp_rest_for_one_of_the_last_child_takes_nobody_along() {
    let stage = Stage::default();
    let tree = start_three(&stage, Strategy::RestForOne).await;
    tell_id(&tree, "c", Do::Panic);
    quiet().await;
    assert_eq!(stage.did(), ["start c"]);
}

#[tokio::test(start_paused = true)]
async fn otp_rest_for_one_reaches_children_added_later() {
    let stage = Stage::default();
    let tree = start_three(&stage, Strategy::RestForOne).await;
    tree.start_child(stage.child("d")).await.unwrap();
    stage.did();
    tell_id(&tree, "c", Do::Panic);
    quiet().await;
    assert_eq!(stage.did(), ["stop d", "start c", "start d"]);
}

#[tokio::test(start_paused = true)]
async fn otp_group_stop_gives_each_sibling_its_grace() {
    let stage = Stage::default();
    let builder = Supervisor::builder("top")
        .strategy(Strategy::OneForAll)
        .child(stage.child("a"))
        .child(stage.child_with("b", slow(60)).shutdown(Shutdown::After(Duration::from_secs(1))))
        .child(stage.child_with("c", slow(2)).shutdown(Shutdown::Infinity));
    let tree = start(&stage, builder).await;
    tell_id(&tree, "a", Do::Panic);
    tokio::time::sleep(Duration::from_millis(2_990)).await;
    assert_eq!(stage.did(), ["stopping c", "stop c", "stopping b"]);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(stage.did(), ["start a", "start b", "start c"]);
}

#[tokio::test(start_paused = true)]
async fn otp_simultaneous_failures_of_a_group_charge_once() {
    // All fail at one moment: the first is the cause, the others were stopped with it.
    let stage = Stage::default();
    let builder = Supervisor::builder("top").strategy(Strategy::OneForAll).intensity(1, Duration::from_secs(60));
    let builder =
        builder.child(stage.child("a")).child(stage.child_with("b", slow(1))).child(stage.child_with("c", slow(1)));
    let tree = start(&stage, builder).await;
    let (a, b) = (tree.child("a").unwrap(), tree.child("b").unwrap());
    tell_id(&tree, "c", Do::Panic);
    quiet().await;
    tell(&a, Do::Panic);
    drop(b);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(shown(&tree), "a+ b+ c+");
    assert!(tree.report().is_none());
}

#[tokio::test(start_paused = true)]
async fn otp_start_child_under_way_survives_a_group_restart_or_is_refused_in_full() {
    // Never both: refused to its caller, and running.
    let stage = Stage::default();
    let tree = start_three(&stage, Strategy::OneForAll).await;
    stage.script.next("new", [Begin::Hang]);
    let starting = tokio::spawn({
        let (tree, spec) = (tree.clone(), stage.child("new"));
        async move { tree.start_child(spec).await }
    });
    quiet().await;
    tell_id(&tree, "a", Do::Panic);
    tokio::time::sleep(Duration::from_secs(1)).await;
    match starting.await.unwrap() {
        Ok(_) => assert_eq!(shown(&tree), "a+ b+ c+ new+"),
        Err(error) => assert_eq!(shown(&tree), "a+ b+ c+", "{error}"),
    }
}

// --- backoff -----------------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn otp_backoff_in_a_group_lies_between_the_last_stop_and_the_first_start() {
    let stage = Stage::default();
    let builder = Supervisor::builder("top")
        .strategy(Strategy::OneForAll)
        .child(stage.child("a").backoff(Backoff::constant(Duration::from_secs(2))))
        .child(stage.child_with("b", slow(1)));
    let tree = start(&stage, builder).await;
    tell_id(&tree, "a", Do::Panic);
    tokio::time::sleep(Duration::from_millis(2_990)).await;
    assert_eq!(stage.did(), ["stopping b", "stop b"]);
    assert_eq!(shown(&tree), "a~ b-");
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(stage.did(), ["start a", "start b"]);
}

#[tokio::test(start_paused = true)]
async fn otp_backoff_of_one_child_does_not_hold_up_another() {
    let stage = Stage::default();
    let slow = stage.child("a").backoff(Backoff::constant(Duration::from_secs(1_000)));
    let builder = Supervisor::builder("top").intensity(10, Duration::from_secs(60)).child(slow).child(stage.child("b"));
    let tree = start(&stage, builder).await;
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    tell_id(&tree, "b", Do::Panic);
    quiet().await;
    assert_eq!(shown(&tree), "a~ b+");
}

// --- auto_shutdown -----------------------------------------------------------------------------------------------

fn significant(stage: &Stage, auto: AutoShutdown, strategy: Strategy) -> SupervisorBuilder {
    Supervisor::builder("top")
        .auto_shutdown(auto)
        .strategy(strategy)
        .intensity(5, Duration::from_secs(60))
        .child(stage.child("plain"))
        .child(stage.child("s1").restart(Restart::Transient).significant(true))
        .child(stage.child("s2").restart(Restart::Temporary).significant(true))
}

#[tokio::test(start_paused = true)]
async fn otp_significant_bystander_of_a_group_restart() {
    for auto in [AutoShutdown::AnySignificant, AutoShutdown::AllSignificant] {
        for strategy in [Strategy::OneForAll, Strategy::RestForOne] {
            let stage = Stage::default();
            let tree = start(&stage, significant(&stage, auto, strategy)).await;
            tell_id(&tree, "plain", Do::Panic);
            quiet().await;
            assert_eq!(shown(&tree), "plain+ s1+", "{auto:?} {strategy:?}");
            // Now s1 is the only one, and its end counts.
            tell_id(&tree, "s1", Do::Normal);
            assert_eq!(tree.wait().await.cause, ShutdownCause::AutoShutdown);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn otp_significant_child_that_is_restarting_is_active() {
    let stage = Stage::default();
    let late = Backoff::constant(Duration::from_secs(10));
    let builder = Supervisor::builder("top")
        .auto_shutdown(AutoShutdown::AllSignificant)
        .child(stage.child("s1").restart(Restart::Transient).significant(true).backoff(late))
        .child(stage.child("s2").restart(Restart::Temporary).significant(true));
    let tree = start(&stage, builder).await;
    tell_id(&tree, "s1", Do::Panic);
    quiet().await;
    tell_id(&tree, "s2", Do::Normal);
    quiet().await;
    assert_eq!(shown(&tree), "s1~");
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(shown(&tree), "s1+");
    tell_id(&tree, "s1", Do::Stop("shutdown"));
    assert_eq!(tree.wait().await.cause, ShutdownCause::AutoShutdown);
}

#[tokio::test(start_paused = true)]
async fn otp_significant_child_that_is_ignored_or_terminated_is_not_active() {
    let stage = Stage::default();
    stage.script.next("s1", [Begin::Ignore]);
    let builder = significant(&stage, AutoShutdown::AllSignificant, Strategy::OneForOne);
    let builder = builder.child(stage.child("s3").restart(Restart::Transient).significant(true));
    let tree = start(&stage, builder).await;
    tree.terminate_child("s3").await.unwrap();
    quiet().await;
    assert_eq!(shown(&tree), "plain+ s1- s2+ s3-");
    tell_id(&tree, "s2", Do::Panic);
    assert_eq!(tree.wait().await.cause, ShutdownCause::AutoShutdown);
}

#[tokio::test(start_paused = true)]
async fn otp_significant_last_one_terminated_by_hand_does_not_shut_down() {
    for auto in [AutoShutdown::AnySignificant, AutoShutdown::AllSignificant] {
        let stage = Stage::default();
        let tree = start(&stage, significant(&stage, auto, Strategy::OneForOne)).await;
        tree.terminate_child("s1").await.unwrap();
        tree.terminate_child("s2").await.unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(shown(&tree), "plain+ s1-");
    }
}

#[tokio::test(start_paused = true)]
async fn otp_significant_added_by_start_child_counts() {
    let stage = Stage::default();
    let builder = Supervisor::builder("top").auto_shutdown(AutoShutdown::AllSignificant).child(stage.child("plain"));
    let tree = start(&stage, builder).await;
    let spec = stage.child("s").restart(Restart::Temporary).significant(true);
    tree.start_child(spec).await.unwrap();
    tell_id(&tree, "s", Do::Normal);
    let report = tree.wait().await;
    assert_eq!((report.cause, &report.reason), (ShutdownCause::AutoShutdown, &ExitReason::Shutdown));
}

#[tokio::test(start_paused = true)]
async fn otp_significant_plain_children_do_not_shut_down() {
    let stage = Stage::default();
    let builder = Supervisor::builder("top")
        .auto_shutdown(AutoShutdown::AnySignificant)
        .child(stage.child("t").restart(Restart::Temporary))
        .child(stage.child("x").restart(Restart::Transient));
    let tree = start(&stage, builder).await;
    tell_id(&tree, "t", Do::Normal);
    tell_id(&tree, "x", Do::Normal);
    quiet().await;
    assert!(tree.report().is_none());
}

#[tokio::test(start_paused = true)]
async fn otp_significant_escalation() {
    // The nested supervisor ends with shutdown: as a significant transient child it takes its parent along.
    let stage = Stage::default();
    let inner = stage.clone();
    let nested =
        ChildSpec::supervisor("nested", move || significant(&inner, AutoShutdown::AnySignificant, Strategy::OneForOne));
    let builder = Supervisor::builder("top")
        .auto_shutdown(AutoShutdown::AnySignificant)
        .child(stage.child("a"))
        .child(nested.restart(Restart::Transient).significant(true));
    let tree = start(&stage, builder).await;
    let nested = tree.child("nested").unwrap().value::<SupervisorRef>().unwrap();
    tell_id(&nested, "s1", Do::Normal);
    assert_eq!(tree.wait().await.cause, ShutdownCause::AutoShutdown);
    assert_eq!(stage.did(), ["stop s1", "stop s2", "stop plain", "stop a"]);
}

#[tokio::test(start_paused = true)]
async fn otp_significant_nested_that_ends_normally_restarts_its_permanent_self() {
    let stage = Stage::default();
    let inner = stage.clone();
    let nested =
        ChildSpec::supervisor("nested", move || significant(&inner, AutoShutdown::AnySignificant, Strategy::OneForOne));
    let tree = start(&stage, Supervisor::builder("top").child(nested.backoff(Backoff::NONE))).await;
    let nested = tree.child("nested").unwrap().value::<SupervisorRef>().unwrap();
    tell_id(&nested, "s2", Do::Panic);
    quiet().await;
    assert_eq!(stage.did(), ["stop s1", "stop plain", "start plain", "start s1", "start s2"]);
    assert_eq!(shown(&tree), "nested+");
}

#[tokio::test(start_paused = true)]
async fn otp_significant_failing_restart_gives_up_rather_than_shut_down() {
    let stage = Stage::default();
    let builder = Supervisor::builder("top")
        .auto_shutdown(AutoShutdown::AnySignificant)
        .intensity(1, Duration::from_secs(60))
        .child(stage.child("s").restart(Restart::Transient).significant(true));
    let tree = start(&stage, builder).await;
    stage.script.always("s", Begin::Fail);
    tell_id(&tree, "s", Do::Panic);
    assert_eq!(tree.wait().await.cause, ShutdownCause::GaveUp);
}

// --- tasks -------------------------------------------------------------------------------------------------------

fn task(id: &'static str, run: impl Fn() -> Result<(), BoxError> + Send + Sync + Clone + 'static) -> ChildSpec {
    ChildSpec::task(id, move |_stop| {
        let run = run.clone();
        async move { run() }
    })
    .backoff(Backoff::NONE)
}

#[tokio::test(start_paused = true)]
async fn otp_task_child_that_returns_ends_normally() {
    let tree =
        Supervisor::builder("top").child(task("t", || Ok(())).restart(Restart::Transient)).start().await.unwrap();
    quiet().await;
    assert_eq!(shown(&tree), "t-");
}

#[tokio::test(start_paused = true)]
async fn otp_task_child_that_fails_or_panics_is_restarted() {
    fn fails() -> Result<(), BoxError> {
        Err("told to fail".into())
    }
    fn panics() -> Result<(), BoxError> {
        panic!("told to panic")
    }
    for run in [fails, panics] {
        let spec = task("t", run).restart(Restart::Transient);
        let tree = Supervisor::builder("top").intensity(3, Duration::from_secs(60)).child(spec).start().await.unwrap();
        assert_eq!(tree.wait().await.cause, ShutdownCause::GaveUp);
    }
}

#[tokio::test(start_paused = true)]
async fn otp_task_child_that_ignores_its_token_is_aborted_after_its_grace() {
    let spec = ChildSpec::task("t", |_stop| std::future::pending::<Result<(), BoxError>>());
    let tree =
        Supervisor::builder("top").child(spec.shutdown(Shutdown::After(Duration::from_secs(2)))).start().await.unwrap();
    let began = Instant::now();
    let report = tree.stop().await;
    assert_eq!(began.elapsed(), Duration::from_secs(2));
    assert_eq!(report.troubles[0].what, TroubleKind::Killed);
}

#[tokio::test(start_paused = true)]
async fn otp_task_child_that_errs_when_asked_to_stop_is_reported() {
    let spec = ChildSpec::task("t", |stop| async move {
        stop.cancelled().await;
        Err::<(), BoxError>("not yet".into())
    });
    let tree = Supervisor::builder("top").child(spec).start().await.unwrap();
    let report = tree.stop().await;
    assert_eq!(report.troubles[0].what, TroubleKind::Ended(ExitReason::failed("not yet")));
}

#[tokio::test(start_paused = true)]
async fn otp_task_child_whose_function_panics_fails_like_its_future() {
    // The panic is in the function itself, before there is a future.
    let spec = ChildSpec::task("t", |_stop| {
        if true {
            panic!("no future")
        }
        async { Ok::<_, BoxError>(()) }
    });
    let error = Supervisor::builder("top").child(spec).start().await.unwrap_err();
    assert_eq!(error.to_string(), "child `t` failed to start: the start failed: no future");
}

#[tokio::test(start_paused = true)]
async fn otp_task_child_brutal_is_aborted_at_once() {
    let stopped = Arc::new(Mutex::new(false));
    let seen = stopped.clone();
    let spec = ChildSpec::task("t", move |stop| {
        let seen = seen.clone();
        async move {
            stop.cancelled().await;
            *seen.lock().unwrap() = true;
            Ok::<_, BoxError>(())
        }
    });
    let tree = Supervisor::builder("top").child(spec.shutdown(Shutdown::Brutal)).start().await.unwrap();
    quiet().await;
    assert!(tree.stop().await.is_clean());
    assert!(!*stopped.lock().unwrap());
}

// --- under an ordinary ractor actor ------------------------------------------------------------------------------

struct Parent(Arc<Mutex<Vec<String>>>);

impl Actor for Parent {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<()>,
        event: ractor::SupervisionEvent,
        _: &mut (),
    ) -> Result<(), ActorProcessingErr> {
        if let ractor::SupervisionEvent::ActorTerminated(_, _, reason) = event {
            self.0.lock().unwrap().push(format!("{reason:?}"));
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn otp_a_tree_under_a_ractor_actor_ends_with_shutdown_when_it_gives_up() {
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let (parent, _) = Parent::spawn(None, Parent(heard.clone()), ()).await.unwrap();
    let stage = Stage::default();
    let builder = Supervisor::builder("tree").intensity(0, Duration::from_secs(1)).child(stage.child("a"));
    let child: Child = builder.start_linked(parent.get_cell()).await.unwrap();
    let tree = child.value_ref::<SupervisorRef>().unwrap();
    tell_id(&tree, "a", Do::Panic);
    tree.wait().await;
    quiet().await;
    assert_eq!(*heard.lock().unwrap(), ["Some(\"shutdown\")"]);
}

#[tokio::test(start_paused = true)]
async fn otp_a_tree_dies_with_the_ractor_actor_that_it_is_linked_to() {
    for kill in [true, false] {
        let (parent, ended) = Parent::spawn(None, Parent(Arc::default()), ()).await.unwrap();
        let stage = Stage::default();
        let builder = Supervisor::builder("tree").child(stage.child("a")).child(stage.child_with("b", slow(100)));
        let child: Child = builder.start_linked(parent.get_cell()).await.unwrap();
        let tree = child.value_ref::<SupervisorRef>().unwrap();
        tell_id(&tree, "b", Do::Normal);
        quiet().await;
        stage.diary.take();
        if kill {
            parent.kill()
        } else {
            parent.stop(None)
        }
        ended.await.unwrap();
        tree.wait().await;
        let left: BTreeSet<_> = stage.diary.take().into_iter().collect();
        assert_eq!(left, ["drop a".to_owned(), "drop b".to_owned()].into());
    }
}

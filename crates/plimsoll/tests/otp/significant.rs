//! Significant children and auto_shutdown.

use std::time::Duration;

use plimsoll::exit::ExitReason;
use plimsoll::supervisor::{
    AutoShutdown, Backoff, ChildSpec, Restart, ShutdownCause, Strategy, Supervisor, SupervisorBuilder, SupervisorRef,
};

use crate::support::{Begin, Do, Stage, quiet, tell_id};
use crate::trees::{ended, shown, start};

/// Tests by name, each with what it runs.
macro_rules! cases {
    ($($name:ident: $case:expr;)*) => {
        $(
            #[tokio::test(start_paused = true)]
            async fn $name() {
                $case.await;
            }
        )*
    };
}

mod simple;

/// Two significant children and one that is not.
fn tree(stage: &Stage, auto_shutdown: AutoShutdown, restart: Restart) -> SupervisorBuilder {
    Supervisor::builder("top")
        .auto_shutdown(auto_shutdown)
        .intensity(10, Duration::from_secs(60))
        .child(stage.child("first").restart(restart).significant(true))
        .child(stage.child("second").restart(restart).significant(true))
        .child(stage.child("other"))
}

async fn alive(tree: &SupervisorRef) -> bool {
    quiet().await;
    tree.report().is_none()
}

async fn assert_shut_down(tree: &SupervisorRef, stage: &Stage, stopped: &[&str]) {
    let report = tree.wait().await.unwrap();
    assert_eq!((&report.cause, &report.reason), (&ShutdownCause::AutoShutdown, &ExitReason::Shutdown));
    assert_eq!(stage.did(), stopped);
}

/// A significant child ends by itself and it counts.
async fn counts(auto_shutdown: AutoShutdown, restart: Restart, what: fn() -> Do, noted: bool) {
    let stage = Stage::default();
    let tree = tree(&stage, auto_shutdown, restart).start().await.unwrap();
    stage.did();
    tell_id(&tree, "first", what());
    let stop = |events: &[&'static str]| -> Vec<&'static str> {
        if noted { [&["stop first"], events].concat() } else { events.to_vec() }
    };
    if auto_shutdown == AutoShutdown::AnySignificant {
        return assert_shut_down(&tree, &stage, &stop(&["stop other", "stop second"])).await;
    }
    assert!(alive(&tree).await, "another significant child is active");
    tell_id(&tree, "second", what());
    let mut events = stop(&[]);
    if noted {
        events.push("stop second");
    }
    events.push("stop other");
    assert_shut_down(&tree, &stage, &events).await;
}

/// A transient child that fails is restarted, and nothing else happens.
async fn restarts(auto_shutdown: AutoShutdown) {
    let stage = Stage::default();
    let tree = tree(&stage, auto_shutdown, Restart::Transient).start().await.unwrap();
    stage.did();
    for id in ["first", "second"] {
        tell_id(&tree, id, Do::Panic);
        assert!(alive(&tree).await);
    }
    assert_eq!(stage.did(), ["start first", "start second"]);
}

/// Termination by hand never triggers it; and one that was terminated is not active.
async fn terminated(auto_shutdown: AutoShutdown, restart: Restart) {
    let stage = Stage::default();
    let tree = tree(&stage, auto_shutdown, restart).start().await.unwrap();
    tree.terminate_child("first").await.unwrap();
    assert!(alive(&tree).await);
    stage.did();
    if auto_shutdown == AutoShutdown::AllSignificant {
        tell_id(&tree, "second", Do::Normal);
        return assert_shut_down(&tree, &stage, &["stop second", "stop other"]).await;
    }
    tree.terminate_child("second").await.unwrap();
    assert!(alive(&tree).await);
}

/// Neither does the stop of significant children by a sibling's restart.
async fn sibling(auto_shutdown: AutoShutdown, restart: Restart) {
    for strategy in [Strategy::OneForAll, Strategy::RestForOne] {
        let stage = Stage::default();
        let builder = Supervisor::builder("top")
            .auto_shutdown(auto_shutdown)
            .strategy(strategy)
            .child(stage.child("other"))
            .child(stage.child("first").restart(restart).significant(true))
            .child(stage.child("second").restart(restart).significant(true));
        let tree = builder.start().await.unwrap();
        tell_id(&tree, "other", Do::Panic);
        assert!(alive(&tree).await);
        let active = if restart == Restart::Temporary { 1 } else { 3 };
        assert_eq!(tree.count_children().unwrap().active, active);
    }
}

const ANY: AutoShutdown = AutoShutdown::AnySignificant;

const ALL: AutoShutdown = AutoShutdown::AllSignificant;

cases! {
    otp_significant_any_transient_normal: counts(ANY, Restart::Transient, || Do::Normal, true);
    otp_significant_any_transient_shutdown: counts(ANY, Restart::Transient, || Do::Stop("shutdown"), true);
    otp_significant_any_transient_abnormal: restarts(ANY);
    otp_significant_any_transient_terminated: terminated(ANY, Restart::Transient);
    otp_significant_any_transient_sibling: sibling(ANY, Restart::Transient);
    otp_significant_any_temporary_normal: counts(ANY, Restart::Temporary, || Do::Normal, true);
    otp_significant_any_temporary_shutdown: counts(ANY, Restart::Temporary, || Do::Stop("shutdown"), true);
    otp_significant_any_temporary_abnormal: counts(ANY, Restart::Temporary, || Do::Panic, false);
    otp_significant_any_temporary_terminated: terminated(ANY, Restart::Temporary);
    otp_significant_any_temporary_sibling: sibling(ANY, Restart::Temporary);
    otp_significant_all_transient_normal: counts(ALL, Restart::Transient, || Do::Normal, true);
    otp_significant_all_transient_shutdown: counts(ALL, Restart::Transient, || Do::Stop("upgrade"), true);
    otp_significant_all_transient_abnormal: restarts(ALL);
    otp_significant_all_transient_terminated: terminated(ALL, Restart::Transient);
    otp_significant_all_transient_sibling: sibling(ALL, Restart::Transient);
    otp_significant_all_temporary_normal: counts(ALL, Restart::Temporary, || Do::Normal, true);
    otp_significant_all_temporary_shutdown: counts(ALL, Restart::Temporary, || Do::Stop("upgrade"), true);
    otp_significant_all_temporary_abnormal: counts(ALL, Restart::Temporary, || Do::Panic, false);
    otp_significant_all_temporary_terminated: terminated(ALL, Restart::Temporary);
    otp_significant_all_temporary_sibling: sibling(ALL, Restart::Temporary);
}

#[tokio::test(start_paused = true)]
async fn a_restarting_significant_child_counts_as_active() {
    let stage = Stage::default();
    let slow = Backoff::constant(Duration::from_secs(5));
    let significant = |id| stage.child(id).restart(Restart::Transient).significant(true);
    let tree = Supervisor::builder("top")
        .auto_shutdown(ALL)
        .child(significant("first").backoff(slow))
        .child(significant("second"))
        .start()
        .await
        .unwrap();
    tell_id(&tree, "first", Do::Panic);
    quiet().await;
    tell_id(&tree, "second", Do::Normal);
    assert!(alive(&tree).await);
    tokio::time::sleep(Duration::from_secs(6)).await;
    tell_id(&tree, "first", Do::Normal);
    assert_eq!(tree.wait().await.unwrap().cause, ShutdownCause::AutoShutdown);
}

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
            assert_eq!(tree.wait().await.unwrap().cause, ShutdownCause::AutoShutdown);
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
    assert_eq!(tree.wait().await.unwrap().cause, ShutdownCause::AutoShutdown);
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
    assert_eq!(tree.wait().await.unwrap().cause, ShutdownCause::AutoShutdown);
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
    let report = tree.wait().await.unwrap();
    assert_eq!((&report.cause, &report.reason), (&ShutdownCause::AutoShutdown, &ExitReason::Shutdown));
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
    assert_eq!(tree.wait().await.unwrap().cause, ShutdownCause::AutoShutdown);
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
    assert!(matches!(tree.wait().await.unwrap().cause, ShutdownCause::GaveUp { .. }));
}

#[tokio::test(start_paused = true)]
async fn otp_significant_all_counts_nobody_who_has_no_child_between_two_tries() {
    let stage = Stage::default();
    let patient = |id| stage.child(id).backoff(Backoff::constant(Duration::from_secs(1)));
    let significant = |id| patient(id).restart(Restart::Transient).significant(true);
    let builder = Supervisor::builder("top")
        .strategy(Strategy::RestForOne)
        .auto_shutdown(AutoShutdown::AllSignificant)
        .intensity(10, Duration::from_secs(60))
        .children([significant("a"), significant("b"), patient("c"), significant("d")]);
    let tree = builder.start().await.unwrap();
    stage.script.next("c", [Begin::Fail]);
    tell_id(&tree, "c", Do::Panic);
    quiet().await;
    tell_id(&tree, "a", Do::Normal);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(tree.report().is_none(), "b runs");
    tell_id(&tree, "b", Do::Normal);
    assert_eq!(ended(&tree).await, ShutdownCause::AutoShutdown, "d is undefined, c waits for its next try");
}

//! OTP's cases of significant children and auto_shutdown.

mod support;

use std::time::Duration;

use plimsoll::exit::ExitReason;
use plimsoll::supervisor::{
    AutoShutdown, Restart, ShutdownCause, Strategy, Supervisor, SupervisorBuilder, SupervisorRef,
};
use support::{Do, Stage, quiet, tell_id};

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
    let report = tree.wait().await;
    assert_eq!((report.cause, &report.reason), (ShutdownCause::AutoShutdown, &ExitReason::Shutdown));
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
    let slow = plimsoll::supervisor::Backoff::constant(Duration::from_secs(5));
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
    assert_eq!(tree.wait().await.cause, ShutdownCause::AutoShutdown);
}

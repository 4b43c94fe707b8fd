//! A child's normal, shutdown and abnormal end, by its restart type.

use std::time::Duration;

use plimsoll::supervisor::{ChildState, Restart, ShutdownCause, Supervisor, SupervisorRef};

use crate::support::{Do, Stage, quiet, tell_id};

async fn tree(stage: &Stage, restart: Restart) -> SupervisorRef {
    let tree = Supervisor::builder("top")
        .intensity(1, Duration::from_secs(60))
        .child(stage.child("child").restart(restart))
        .start()
        .await
        .unwrap();
    stage.did();
    tree
}

/// What is seen of the child after it ended so: running, none (the spec is kept), or no spec.
#[derive(Debug, PartialEq)]
enum Seen {
    Running,
    NoChild,
    NoSpec,
}

async fn after(restart: Restart, what: Do) -> (Seen, Vec<String>) {
    let stage = Stage::default();
    let tree = tree(&stage, restart).await;
    tell_id(&tree, "child", what);
    quiet().await;
    let seen = match tree.which_children().unwrap().first().map(|child| child.state.clone()) {
        Some(ChildState::Running(_)) => Seen::Running,
        Some(ChildState::None) => Seen::NoChild,
        Some(other) => panic!("{other:?}"),
        None => Seen::NoSpec,
    };
    (seen, stage.did())
}

fn did(events: &[&str]) -> Vec<String> {
    events.iter().map(|event| (*event).to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn otp_permanent_normal() {
    assert_eq!(after(Restart::Permanent, Do::Normal).await, (Seen::Running, did(&["stop child", "start child"])));
    // A permanent child's normal end is charged like any other.
    let stage = Stage::default();
    let tree = tree(&stage, Restart::Permanent).await;
    tell_id(&tree, "child", Do::Normal);
    quiet().await;
    tell_id(&tree, "child", Do::Normal);
    assert!(matches!(tree.wait().await.unwrap().cause, ShutdownCause::GaveUp { .. }));
}

#[tokio::test(start_paused = true)]
async fn otp_transient_normal() {
    assert_eq!(after(Restart::Transient, Do::Normal).await, (Seen::NoChild, did(&["stop child"])));
}

#[tokio::test(start_paused = true)]
async fn otp_temporary_normal() {
    assert_eq!(after(Restart::Temporary, Do::Normal).await, (Seen::NoSpec, did(&["stop child"])));
}

#[tokio::test(start_paused = true)]
async fn otp_permanent_shutdown() {
    for reason in ["shutdown", "upgrade"] {
        let restarted = (Seen::Running, did(&["stop child", "start child"]));
        assert_eq!(after(Restart::Permanent, Do::Stop(reason)).await, restarted);
    }
}

#[tokio::test(start_paused = true)]
async fn otp_transient_shutdown() {
    for reason in ["shutdown", "upgrade"] {
        assert_eq!(after(Restart::Transient, Do::Stop(reason)).await, (Seen::NoChild, did(&["stop child"])));
    }
    // The word for a kill is a kill's: a failure.
    let restarted = (Seen::Running, did(&["stop child", "start child"]));
    assert_eq!(after(Restart::Transient, Do::Stop("killed")).await, restarted);
}

#[tokio::test(start_paused = true)]
async fn otp_permanent_abnormal() {
    for what in [Do::Fail, Do::Panic] {
        assert_eq!(after(Restart::Permanent, what).await, (Seen::Running, did(&["start child"])));
    }
}

#[tokio::test(start_paused = true)]
async fn otp_transient_abnormal() {
    for what in [Do::Fail, Do::Panic] {
        assert_eq!(after(Restart::Transient, what).await, (Seen::Running, did(&["start child"])));
    }
    let stage = Stage::default();
    let tree = tree(&stage, Restart::Transient).await;
    tree.child("child").unwrap().actor().kill();
    quiet().await;
    assert_eq!(stage.did(), ["start child"]);
}

#[tokio::test(start_paused = true)]
async fn otp_temporary_abnormal() {
    for what in [Do::Fail, Do::Panic] {
        assert_eq!(after(Restart::Temporary, what).await, (Seen::NoSpec, did(&[])));
    }
    // Nothing is charged for a child that is not restarted.
    let stage = Stage::default();
    let tree = tree(&stage, Restart::Temporary).await;
    for _ in 0..5 {
        tell_id(&tree, "child", Do::Panic);
        quiet().await;
        tree.start_child(stage.child("child").restart(Restart::Temporary)).await.unwrap();
    }
    assert_eq!(tree.count_children().unwrap().active, 1);
}

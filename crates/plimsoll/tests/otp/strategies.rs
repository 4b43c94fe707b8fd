//! The three strategies: who is stopped and started along with a child that failed.

use std::time::Duration;

use plimsoll::supervisor::{Restart, Shutdown, ShutdownCause, Strategy, Supervisor};

use crate::support::{Do, Stage, quiet, slow, tell_id};
use crate::trees::{shown, start, start_three, three};

#[tokio::test(start_paused = true)]
async fn otp_one_for_one() {
    let stage = Stage::default();
    let tree = start(&stage, three(&stage, Strategy::OneForOne)).await;
    tell_id(&tree, "b", Do::Panic);
    quiet().await;
    assert_eq!(stage.did(), ["start b"]);
    // It keeps its place.
    assert_eq!(shown(&tree), "a+ b+ c+");
}

#[tokio::test(start_paused = true)]
async fn otp_one_for_all() {
    let stage = Stage::default();
    let tree = start(&stage, three(&stage, Strategy::OneForAll)).await;
    tell_id(&tree, "b", Do::Panic);
    quiet().await;
    assert_eq!(stage.did(), ["stop c", "stop a", "start a", "start b", "start c"]);
    // One cycle charges once: the budget of one is used up only now.
    tell_id(&tree, "b", Do::Panic);
    assert!(matches!(tree.wait().await.unwrap().cause, ShutdownCause::GaveUp { .. }));
    assert_eq!(stage.did(), ["stop c", "stop a"]);
}

#[tokio::test(start_paused = true)]
async fn otp_rest_for_one() {
    let stage = Stage::default();
    let tree = start(&stage, three(&stage, Strategy::RestForOne).child(stage.child("d"))).await;
    tell_id(&tree, "b", Do::Panic);
    quiet().await;
    assert_eq!(stage.did(), ["stop d", "stop c", "start b", "start c", "start d"]);
    assert_eq!(shown(&tree), "a+ b+ c+ d+");
}

#[tokio::test(start_paused = true)]
async fn temporary_siblings_are_dropped_and_transient_ones_started_again() {
    let stage = Stage::default();
    for strategy in [Strategy::OneForAll, Strategy::RestForOne] {
        let builder = Supervisor::builder("top")
            .strategy(strategy)
            .child(stage.child("a"))
            .child(stage.child("t").restart(Restart::Temporary))
            .child(stage.child("x").restart(Restart::Transient));
        let tree = start(&stage, builder).await;
        tell_id(&tree, "a", Do::Panic);
        quiet().await;
        assert_eq!(stage.did(), ["stop x", "stop t", "start a", "start x"]);
        assert_eq!(shown(&tree), "a+ x+");
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_starts_every_spec_that_it_covers() {
    let stage = Stage::default();
    for (strategy, events) in [
        (Strategy::OneForAll, vec!["stop z", "start a", "start ended", "start terminated", "start z"]),
        (Strategy::RestForOne, vec!["stop z", "start a", "start ended", "start terminated", "start z"]),
        (Strategy::OneForOne, vec!["start a"]),
    ] {
        let builder = Supervisor::builder("top")
            .strategy(strategy)
            .child(stage.child("a"))
            .child(stage.child("ended").restart(Restart::Transient))
            .child(stage.child("terminated"))
            .child(stage.child("z"));
        let tree = start(&stage, builder).await;
        tell_id(&tree, "ended", Do::Normal);
        tree.terminate_child("terminated").await.unwrap();
        quiet().await;
        assert_eq!(shown(&tree), "a+ ended- terminated- z+");
        stage.did();
        tell_id(&tree, "a", Do::Panic);
        quiet().await;
        assert_eq!(stage.did(), events);
    }
}

#[tokio::test(start_paused = true)]
async fn failures_during_a_stop_phase_are_absorbed_or_dealt_with_afterwards() {
    let stage = Stage::default();
    let builder = Supervisor::builder("top")
        .strategy(Strategy::RestForOne)
        .intensity(2, Duration::from_secs(60))
        .child(stage.child("outside"))
        .child(stage.child("origin"))
        .child(stage.child("inside"))
        .child(stage.child_with("slow", slow(1)));
    let tree = start(&stage, builder).await;
    tell_id(&tree, "origin", Do::Panic);
    quiet().await;
    assert_eq!(stage.did(), ["stopping slow"]);
    // Covered: absorbed, nothing is charged. Not covered: a restart of its own, afterwards.
    tell_id(&tree, "inside", Do::Panic);
    tell_id(&tree, "outside", Do::Panic);
    quiet().await;
    assert_eq!(stage.did(), [""; 0]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let events = stage.did();
    assert_eq!(events[0], "stop slow");
    assert_eq!(events[events.len() - 4..], ["start outside", "start origin", "start inside", "start slow"]);
    // Two were charged.
    tell_id(&tree, "outside", Do::Panic);
    assert!(matches!(tree.wait().await.unwrap().cause, ShutdownCause::GaveUp { .. }));
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

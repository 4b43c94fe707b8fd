//! OTP's cases of the three strategies, their intensity and what escalates.

mod support;

use std::time::Duration;

use plimsoll::supervisor::{
    Backoff, ChildSpec, ChildState, Restart, ShutdownCause, Started, Strategy, Supervisor, SupervisorBuilder,
    SupervisorRef,
};
use support::{Begin, Do, Puppet, Stage, quiet, tell_id};

fn three(stage: &Stage, strategy: Strategy) -> SupervisorBuilder {
    let children = ["a", "b", "c"].map(|id| stage.child(id));
    Supervisor::builder("top").strategy(strategy).children(children).intensity(1, Duration::from_secs(60))
}

async fn start(stage: &Stage, builder: SupervisorBuilder) -> SupervisorRef {
    let tree = builder.start().await.unwrap();
    stage.did();
    tree
}

fn states(tree: &SupervisorRef) -> Vec<(String, char)> {
    let letter = |state: &ChildState| match state {
        ChildState::Running(_) => '+',
        ChildState::Restarting => '~',
        _ => '-',
    };
    let children = tree.which_children().unwrap().into_iter().rev();
    children.map(|child| (child.id.unwrap().to_string(), letter(&child.state))).collect()
}

fn shown(tree: &SupervisorRef) -> String {
    states(tree).into_iter().map(|(id, letter)| format!("{id}{letter}")).collect::<Vec<_>>().join(" ")
}

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
async fn otp_one_for_one_escalation() {
    escalation(Strategy::OneForOne, &["stop c", "stop b"]).await;
}

#[tokio::test(start_paused = true)]
async fn otp_one_for_all_escalation() {
    escalation(Strategy::OneForAll, &["stop c", "stop b"]).await;
}

#[tokio::test(start_paused = true)]
async fn otp_rest_for_one_escalation() {
    escalation(Strategy::RestForOne, &["stop c", "stop b"]).await;
}

/// Over the budget the supervisor stops all and ends with `shutdown`; its parent does as its restart type says.
async fn escalation(strategy: Strategy, stopped: &[&str]) {
    for (restart, again) in [(Restart::Permanent, true), (Restart::Transient, false)] {
        let stage = Stage::default();
        let inner = stage.clone();
        let nested =
            ChildSpec::supervisor("nested", move || three(&inner, strategy).intensity(0, Duration::from_secs(1)));
        let tree =
            Supervisor::builder("top").child(nested.restart(restart).backoff(Backoff::NONE)).start().await.unwrap();
        stage.did();
        let nested = tree.child("nested").unwrap().value::<SupervisorRef>().unwrap();
        tell_id(&nested, "a", Do::Panic);
        quiet().await;
        assert_eq!(nested.wait().await.cause, ShutdownCause::GaveUp);
        let mut events: Vec<&str> = stopped.to_vec();
        if again {
            events.extend(["start a", "start b", "start c"]);
        }
        assert_eq!(stage.did(), events);
        assert_eq!(shown(&tree), if again { "nested+" } else { "nested-" });
    }
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
    assert_eq!(tree.wait().await.cause, ShutdownCause::GaveUp);
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
async fn otp_multiple_restarts() {
    let stage = Stage::default();
    let builder = three(&stage, Strategy::OneForAll).intensity(1, Duration::from_secs(1));
    let tree = start(&stage, builder).await;
    // Far enough apart that the budget is never used up.
    for _ in 0..4 {
        tell_id(&tree, "a", Do::Panic);
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        assert_eq!(stage.did(), ["stop c", "stop b", "start a", "start b", "start c"]);
    }
    // A restart exactly a period ago still counts.
    let builder = three(&stage, Strategy::OneForOne).intensity(1, Duration::from_secs(1));
    let tree = start(&stage, builder).await;
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    tokio::time::sleep(Duration::from_millis(999)).await;
    tell_id(&tree, "b", Do::Panic);
    assert_eq!(tree.wait().await.cause, ShutdownCause::GaveUp);
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
async fn a_start_that_fails_in_a_group_is_tried_again_from_there() {
    let stage = Stage::default();
    let slow = Backoff::constant(Duration::from_secs(1));
    for (strategy, again) in [
        (Strategy::RestForOne, vec!["start c", "start d"]),
        (Strategy::OneForAll, vec!["stop b", "stop a", "start a", "start b", "start c", "start d"]),
    ] {
        let builder = Supervisor::builder("top")
            .strategy(strategy)
            .intensity(2, Duration::from_secs(60))
            .child(stage.child("a"))
            .child(stage.child("b"))
            .child(stage.child("c").backoff(slow))
            .child(stage.child("d"));
        let tree = start(&stage, builder).await;
        stage.script.next("c", [Begin::Fail]);
        tell_id(&tree, "a", Do::Panic);
        quiet().await;
        // Those before it are up again, those after it have no child and are not restarting.
        assert_eq!(stage.did(), ["stop d", "stop c", "stop b", "start a", "start b"]);
        assert_eq!(shown(&tree), "a+ b+ c~ d-");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(stage.did(), again);
        assert_eq!(shown(&tree), "a+ b+ c+ d+");
        // The failure and the retry were charged: one more is within the budget of two only if neither was.
        tell_id(&tree, "a", Do::Panic);
        assert_eq!(tree.wait().await.cause, ShutdownCause::GaveUp);
        stage.did();
    }
}

#[tokio::test(start_paused = true)]
async fn between_tries_the_others_can_be_restarted_by_hand_and_are_stopped_again() {
    let stage = Stage::default();
    let builder = Supervisor::builder("top")
        .strategy(Strategy::RestForOne)
        .intensity(5, Duration::from_secs(60))
        .child(stage.child("a").backoff(Backoff::constant(Duration::from_secs(1))))
        .child(stage.child("b"))
        .child(stage.child("c"));
    let tree = start(&stage, builder).await;
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    // The siblings are stopped at the failure; the delay lies between the last stop and the first start.
    assert_eq!(stage.did(), ["stop c", "stop b"]);
    assert_eq!(shown(&tree), "a~ b- c-");
    assert!(matches!(tree.restart_child("b").await, Ok(Started::Child(_))));
    tree.delete_child("c").await.unwrap();
    assert_eq!(stage.did(), ["start b"]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(stage.did(), ["stop b", "start a", "start b"]);

    // Terminating the child that waits ends the restart; those after it stay without a child.
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    tree.terminate_child("a").await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(stage.did(), ["stop b"]);
    assert_eq!(shown(&tree), "a- b-");
}

#[tokio::test(start_paused = true)]
async fn a_wider_restart_takes_over_a_narrower_one_with_its_timer() {
    let stage = Stage::default();
    let builder = Supervisor::builder("top")
        .strategy(Strategy::RestForOne)
        .intensity(5, Duration::from_secs(60))
        .child(stage.child("a"))
        .child(stage.child("b").backoff(Backoff::constant(Duration::from_secs(1))))
        .child(stage.child("c"));
    let tree = start(&stage, builder).await;
    tell_id(&tree, "b", Do::Panic);
    quiet().await;
    assert_eq!(shown(&tree), "a+ b~ c-");
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    assert_eq!(stage.did(), ["stop c", "start a", "start b", "start c"]);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(stage.did(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn failures_during_a_stop_phase_are_absorbed_or_dealt_with_afterwards() {
    let stage = Stage::default();
    let slow = |mut puppet: Puppet| {
        puppet.slow_stop = Duration::from_secs(1);
        puppet
    };
    let builder = Supervisor::builder("top")
        .strategy(Strategy::RestForOne)
        .intensity(2, Duration::from_secs(60))
        .child(stage.child("outside"))
        .child(stage.child("origin"))
        .child(stage.child("inside"))
        .child(stage.child_with("slow", slow));
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
    assert_eq!(tree.wait().await.cause, ShutdownCause::GaveUp);
}

#[tokio::test(start_paused = true)]
async fn the_backoff_grows_and_is_reset_after_a_healthy_period() {
    let stage = Stage::default();
    let backoff = Backoff::exponential(Duration::from_millis(100), Duration::from_secs(1)).without_jitter();
    let builder =
        Supervisor::builder("top").intensity(100, Duration::from_secs(10)).child(stage.child("a").backoff(backoff));
    let tree = start(&stage, builder).await;
    for delay in [100, 200, 400, 800, 1_000, 1_000] {
        tell_id(&tree, "a", Do::Panic);
        tokio::time::sleep(Duration::from_millis(delay - 10)).await;
        assert_eq!(shown(&tree), "a~", "before {delay} ms");
        tokio::time::sleep(Duration::from_millis(11)).await;
        assert_eq!(shown(&tree), "a+", "after {delay} ms");
    }
    tokio::time::sleep(Duration::from_secs(11)).await;
    tell_id(&tree, "a", Do::Panic);
    tokio::time::sleep(Duration::from_millis(101)).await;
    assert_eq!(shown(&tree), "a+");
}

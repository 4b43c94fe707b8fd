//! Restarts that fail and are tried again, and those that take over others.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use plimsoll::exit::ExitReason;
use plimsoll::supervisor::{
    Backoff, BoxError, Child, ChildError, ChildSpec, Restart, ShutdownCause, Strategy, Supervisor, SupervisorRef,
};
use ractor::Actor;

use crate::support::{Begin, Do, Puppet, Stage, quiet, slow, tell_id};
use crate::trees::{ended, shown, start, start_three};

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
        let report = tree.wait().await.unwrap();
        assert!(matches!(report.cause, ShutdownCause::GaveUp { .. }) && report.reason == ExitReason::Shutdown);
        let events = stage.did();
        assert_eq!(events.last().map(String::as_str), Some(last), "{events:?}");
        // Three restarts within the budget: the failure, and two retries; the fourth is one too many.
        let starts = events.iter().filter(|event| *event == "start a").count();
        assert_eq!(starts, if strategy == Strategy::OneForAll { 3 } else { 1 }, "{events:?}");
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
        assert!(matches!(tree.wait().await.unwrap().cause, ShutdownCause::GaveUp { .. }));
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
    tree.restart_child("b").await.unwrap();
    tree.delete_child("c").await.unwrap();
    assert_eq!(stage.did(), ["start b"]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(stage.did(), ["stop b", "start a", "start b"]);

    // The child that is terminated while it waits stays down; those after it are started when its delay is over.
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    tree.terminate_child("a").await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(stage.did(), ["stop b", "start b"]);
    assert_eq!(shown(&tree), "a- b+");
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

async fn patient_three(stage: &Stage, strategy: Strategy) -> SupervisorRef {
    let patient = |id| stage.child(id).backoff(Backoff::constant(Duration::from_secs(1)));
    let builder = Supervisor::builder("top").strategy(strategy).intensity(100, Duration::from_secs(1));
    builder.children(["a", "b", "c"].map(patient)).start().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn otp_rest_for_one_that_takes_over_a_waiting_restart_leaves_it_without_a_child() {
    let stage = Stage::default();
    let tree = patient_three(&stage, Strategy::RestForOne).await;
    tell_id(&tree, "b", Do::Panic);
    quiet().await;
    assert_eq!(shown(&tree), "a+ b~ c-");
    stage.script.always("a", Begin::Fail);
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    assert_eq!(shown(&tree), "a~ b- c-", "undefined, as after terminate_children");
    assert_eq!(tree.restart_child("a").await, Err(ChildError::Restarting));
    tree.restart_child("b").await.unwrap();
    assert_eq!(tree.delete_child("c").await, Ok(()));
    stage.script.no_longer("a");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(shown(&tree), "a+ b+");
    assert_eq!(stage.did().last().map(String::as_str), Some("start b"), "the next try stopped it again");
}

#[tokio::test(start_paused = true)]
async fn otp_one_for_all_whose_first_start_fails_leaves_the_one_that_failed_without_a_child() {
    let stage = Stage::default();
    let tree = patient_three(&stage, Strategy::OneForAll).await;
    stage.script.next("a", [Begin::Fail]);
    tell_id(&tree, "c", Do::Panic);
    quiet().await;
    assert_eq!(shown(&tree), "a- b- c~", "before its delay is over");
    tokio::time::sleep(Duration::from_millis(1_001)).await;
    assert_eq!(shown(&tree), "a~ b- c-");
    assert_eq!(tree.delete_child("c").await, Ok(()));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(shown(&tree), "a+ b+");
}

#[tokio::test(start_paused = true)]
async fn otp_all_ends_that_waited_for_a_stop_phase_come_before_its_first_start() {
    let stage = Stage::default();
    let slow = stage.child_with("d", slow(1));
    let builder = Supervisor::builder("top").strategy(Strategy::RestForOne).intensity(10, Duration::from_secs(60));
    let temporary = stage.child("b").restart(Restart::Temporary);
    let tree = builder.children([stage.child("a"), temporary, stage.child("c"), slow]).start().await.unwrap();
    tell_id(&tree, "c", Do::Panic);
    quiet().await;
    stage.did();
    tell_id(&tree, "b", Do::Panic);
    quiet().await;
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    assert_eq!(tree.terminate_child("c").await, Ok(()));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(stage.did(), ["stop d", "start a", "start d"], "nothing is started for the narrower restart first");
    assert_eq!(shown(&tree), "a+ c- d+", "c was terminated by hand meanwhile");
}

#[tokio::test(start_paused = true)]
async fn otp_a_try_that_a_siblings_restart_makes_needless_is_not_charged() {
    let stage = Stage::default();
    let (top, starts) = (Arc::new(OnceLock::<SupervisorRef>::new()), Arc::new(AtomicUsize::new(0)));
    let (above, counted, puppets) = (top.clone(), starts.clone(), stage.clone());
    // Its second start fails, and takes a sibling along that has just been started again.
    let b = ChildSpec::new("b", move |parent| {
        let (above, n) = (above.clone(), counted.fetch_add(1, Ordering::SeqCst));
        let puppet = puppets.puppet("b");
        async move {
            if n == 1 {
                let sibling = above.get().expect("it runs").child("a").expect("it runs");
                sibling.actor().kill();
                let _ = sibling.actor().wait(None).await;
                return Err(BoxError::from("told to fail"));
            }
            Ok(Child::from(Puppet::spawn_linked(None, puppet, (), parent).await?))
        }
    });
    let builder = Supervisor::builder("top").strategy(Strategy::OneForAll).intensity(2, Duration::from_secs(60));
    let tree = builder.child(stage.child("a")).child(b.backoff(Backoff::NONE)).start().await.unwrap();
    top.set(tree.clone()).unwrap();
    tell_id(&tree, "b", Do::Panic);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(tree.report().is_none(), "b's end and a's are charged, and no try: a's restart started b, too");
    assert_eq!(starts.load(Ordering::SeqCst), 3);
    assert_eq!(tree.count_children().unwrap().active, 2);
    tell_id(&tree, "a", Do::Panic);
    assert!(matches!(ended(&tree).await, ShutdownCause::GaveUp { .. }));
}

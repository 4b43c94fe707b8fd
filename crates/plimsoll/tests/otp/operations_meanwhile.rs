//! Operations while children are being stopped: what acts at once, what waits, what is refused.

use std::time::Duration;

use plimsoll::inspect::Status;
use plimsoll::supervisor::{ChildError, ChildState, Restart, StartError, Strategy, Supervisor};
use tokio::time::Instant;

use crate::support::{Begin, Do, Stage, quiet, slow, start_meanwhile, stop_meanwhile, tell_id};
use crate::trees::{shown, start, start_three, state};

#[tokio::test(start_paused = true)]
async fn otp_child_adm_while_a_child_takes_its_grace() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top")
        .strategy(Strategy::OneForAll)
        .child(stage.child("a"))
        .child(stage.child_with("slow", slow(3)))
        .start()
        .await
        .unwrap();
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    let began = Instant::now();
    // Reads and terminate_child act at once, a start waits for the stop phase.
    assert_eq!(state(&tree, "a"), Some(ChildState::Restarting));
    assert!(matches!(state(&tree, "slow"), Some(ChildState::Running(_))));
    tree.terminate_child("a").await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
    tree.start_child(stage.child("c")).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(2_990));
    assert_eq!(state(&tree, "a"), Some(ChildState::None));
    // terminate_child waits for the end of the child, and only that.
    let began = Instant::now();
    tree.terminate_child("slow").await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn otp_child_adm_while_stopping() {
    let stage = Stage::default();
    let builder = Supervisor::builder("top").strategy(Strategy::OneForAll);
    let tree = builder.child(stage.child("a")).child(stage.child_with("slow", slow(3))).start().await.unwrap();
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    // Queued behind the stop phase, and refused when the supervisor stops.
    let queued = start_meanwhile(&tree, stage.child("queued"));
    quiet().await;
    let stopping = stop_meanwhile(&tree);
    quiet().await;
    let began = Instant::now();
    assert_eq!(queued.await.unwrap(), Err(StartError::ShuttingDown));
    assert_eq!(tree.start_child(stage.child("b")).await, Err(StartError::ShuttingDown));
    assert_eq!(tree.terminate_child("a").await, Err(ChildError::ShuttingDown));
    assert_eq!(tree.restart_child("a").await, Err(ChildError::ShuttingDown));
    assert_eq!(tree.delete_child("a").await, Err(ChildError::ShuttingDown));
    assert_eq!(tree.child_spec("a"), Err(ChildError::ShuttingDown));
    assert_eq!(tree.count_children(), Err(ChildError::ShuttingDown));
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(tree.inspect().status, Status::Stopping);
    assert!(stopping.await.unwrap().is_clean());
    assert_eq!(tree.start_child(stage.child("b")).await, Err(StartError::ShuttingDown));
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
    restarted.unwrap();
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
    started.unwrap();
    assert_eq!(stage.did(), ["stopping a", "stop a", "start a"]);
}

#[tokio::test(start_paused = true)]
async fn otp_operations_queued_behind_a_stop_phase_are_served_in_order() {
    let stage = Stage::default();
    let builder = Supervisor::builder("top").strategy(Strategy::RestForOne).child(stage.child("first"));
    let builder = builder.child(stage.child("a")).child(stage.child_with("slow", slow(2)));
    let tree = builder.start().await.unwrap();
    tree.terminate_child("first").await.unwrap();
    stage.did();
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    let began = Instant::now();
    let (restarted, deleted, started) =
        tokio::join!(tree.restart_child("first"), tree.delete_child("first"), tree.start_child(stage.child("new")));
    restarted.unwrap();
    assert_eq!(deleted, Err(ChildError::Running));
    started.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(1_990));
    quiet().await;
    assert_eq!(shown(&tree), "first+ a+ slow+ new+");
}

#[tokio::test(start_paused = true)]
async fn otp_terminate_of_a_sibling_while_its_group_stops_keeps_it_down() {
    let stage = Stage::default();
    let builder = Supervisor::builder("top").strategy(Strategy::OneForAll).child(stage.child("a"));
    let tree = builder.child(stage.child("b")).child(stage.child_with("slow", slow(2))).start().await.unwrap();
    stage.did();
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    assert_eq!(tree.terminate_child("b").await, Ok(()));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(shown(&tree), "a+ b- slow+");
    assert_eq!(stage.did(), ["stopping slow", "stop b", "stop slow", "start a", "start slow"]);
}

#[tokio::test(start_paused = true)]
async fn otp_a_caller_that_gives_up_in_the_queue_changes_nothing_for_others() {
    let stage = Stage::default();
    let builder = Supervisor::builder("top").strategy(Strategy::OneForAll).child(stage.child("a"));
    let tree = builder.child(stage.child_with("slow", slow(2))).start().await.unwrap();
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    let stays = start_meanwhile(&tree, stage.child("w"));
    quiet().await;
    // Unlike in OTP, whose supervisor cannot know that the caller has left, its start is withdrawn.
    assert!(tokio::time::timeout(Duration::from_millis(10), tree.start_child(stage.child("x"))).await.is_err());
    let also_stays = start_meanwhile(&tree, stage.child("y"));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(stays.await.unwrap().is_ok() && also_stays.await.unwrap().is_ok());
    assert_eq!(shown(&tree), "a+ slow+ w+ y+");
}

#[tokio::test(start_paused = true)]
async fn otp_start_child_under_way_survives_a_group_restart_or_is_refused_in_full() {
    // Never both: refused to its caller, and running.
    let stage = Stage::default();
    let tree = start_three(&stage, Strategy::OneForAll).await;
    stage.script.next("new", [Begin::Hang]);
    let starting = start_meanwhile(&tree, stage.child("new"));
    quiet().await;
    tell_id(&tree, "a", Do::Panic);
    tokio::time::sleep(Duration::from_secs(1)).await;
    match starting.await.unwrap() {
        Ok(_) => assert_eq!(shown(&tree), "a+ b+ c+ new+"),
        Err(error) => assert_eq!(shown(&tree), "a+ b+ c+", "{error}"),
    }
}

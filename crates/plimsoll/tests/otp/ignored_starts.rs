//! Children whose start has nothing to run: no child, and the spec is kept unless it is temporary.

use plimsoll::supervisor::{ChildError, ChildState, Restart, StartError, Strategy, Supervisor};

use crate::support::{Begin, Do, Stage, quiet, tell_id};
use crate::trees::{named, shown, start, start_three};

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
    assert_eq!(tree.start_child(stage.child("c")).await, Err(StartError::Ignored));
    assert_eq!(tree.count_children().unwrap().specs, 3);
    assert_eq!(tree.start_child(stage.child("c")).await, Err(StartError::AlreadyPresent));
    tree.restart_child("c").await.unwrap();
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
    assert_eq!(tree.start_child(temporary.clone()).await, Err(StartError::Ignored));
    assert_eq!(tree.count_children().unwrap().specs, 0);
    tree.start_child(temporary).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn otp_sup_start_restart_child() {
    // restart_child of a spec whose child was ignored at boot.
    let stage = Stage::default();
    stage.script.next("a", [Begin::Ignore, Begin::Ignore]);
    let tree = start(&stage, Supervisor::builder("top").child(stage.child("a"))).await;
    assert_eq!(tree.restart_child("a").await, Err(ChildError::Start(StartError::Ignored)));
    assert_eq!(shown(&tree), "a-");
    tree.restart_child("a").await.unwrap();
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
    tree.restart_child("b").await.unwrap();
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

//! Operations on a supervisor that is at rest, for a child in every state.

use std::time::Duration;

use plimsoll::inspect::Status;
use plimsoll::supervisor::{Backoff, ChildError, ChildSpec, ChildState, Restart, StartError, Strategy, Supervisor};
use ractor::Actor;

use crate::support::{Begin, Do, Puppet, Stage, failing, quiet, start_meanwhile, tell_id};
use crate::trees::{shown, start, state};

#[tokio::test(start_paused = true)]
async fn otp_child_adm() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").start().await.unwrap();
    // Nothing there.
    assert_eq!(tree.terminate_child("a").await, Err(ChildError::NotFound));
    assert_eq!(tree.restart_child("a").await, Err(ChildError::NotFound));
    assert_eq!(tree.delete_child("a").await, Err(ChildError::NotFound));
    assert_eq!(tree.child_spec("a"), Err(ChildError::NotFound));
    // A start that fails leaves no spec.
    stage.script.next("a", [Begin::Fail]);
    assert!(matches!(tree.start_child(stage.child("a")).await, Err(StartError::Failed(_))));
    assert_eq!(state(&tree, "a"), None);
    // Running.
    let Ok(a) = tree.start_child(stage.child("a")).await else { panic!("it starts") };
    assert_eq!(tree.start_child(stage.child("a")).await, Err(StartError::AlreadyStarted(a.clone())));
    assert_eq!(tree.restart_child("a").await, Err(ChildError::Running));
    assert_eq!(tree.delete_child("a").await, Err(ChildError::Running));
    assert_eq!(tree.child("a"), Ok(a.clone()));
    // Terminated: the spec is kept.
    assert_eq!(tree.terminate_child("a").await, Ok(()));
    assert_eq!(tree.terminate_child("a").await, Ok(()));
    assert_eq!(state(&tree, "a"), Some(ChildState::None));
    assert_eq!(tree.start_child(stage.child("a")).await, Err(StartError::AlreadyPresent));
    stage.script.next("a", [Begin::Fail]);
    assert!(matches!(tree.restart_child("a").await, Err(ChildError::Start(StartError::Failed(_)))));
    assert_eq!(state(&tree, "a"), Some(ChildState::None));
    let Ok(again) = tree.restart_child("a").await else { panic!("it starts") };
    assert_ne!(again, a);
    // Gone.
    tree.terminate_child("a").await.unwrap();
    assert_eq!(tree.delete_child("a").await, Ok(()));
    assert_eq!(tree.delete_child("a").await, Err(ChildError::NotFound));
    // A temporary child's spec goes with it.
    tree.start_child(stage.child("t").restart(Restart::Temporary)).await.unwrap();
    assert_eq!(tree.terminate_child("t").await, Ok(()));
    assert_eq!(state(&tree, "t"), None);
    assert_eq!(tree.terminate_child("t").await, Err(ChildError::NotFound));
    // One added again later is last.
    for id in ["x", "y"] {
        tree.start_child(stage.child(id)).await.unwrap();
    }
    tree.terminate_child("x").await.unwrap();
    tree.delete_child("x").await.unwrap();
    tree.start_child(stage.child("x")).await.unwrap();
    let ids: Vec<_> = tree.which_children().unwrap().into_iter().filter_map(|child| child.id).collect();
    assert_eq!(ids, ["x".into(), "y".into()]);
}

#[tokio::test(start_paused = true)]
async fn otp_child_adm_while_restarting() {
    let stage = Stage::default();
    let slow = Backoff::constant(Duration::from_secs(10));
    let tree = Supervisor::builder("top").child(stage.child("a").backoff(slow)).start().await.unwrap();
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    assert_eq!(state(&tree, "a"), Some(ChildState::Restarting));
    assert_eq!(tree.start_child(stage.child("a")).await, Err(StartError::AlreadyPresent));
    assert_eq!(tree.restart_child("a").await, Err(ChildError::Restarting));
    assert_eq!(tree.delete_child("a").await, Err(ChildError::Restarting));
    assert_eq!(tree.child("a"), Err(ChildError::Restarting));
    assert_eq!(tree.count_children().unwrap().active, 0);
    assert_eq!(tree.inspect().details.children[0].status, Status::Restarting);
    assert_eq!(tree.terminate_child("a").await, Ok(()));
    assert_eq!(state(&tree, "a"), Some(ChildState::None));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(state(&tree, "a"), Some(ChildState::None));
    assert_eq!(tree.delete_child("a").await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn otp_child_adm_of_a_transient_child_that_ended() {
    let stage = Stage::default();
    let tree = start(&stage, Supervisor::builder("top").child(stage.child("a").restart(Restart::Transient))).await;
    tell_id(&tree, "a", Do::Normal);
    quiet().await;
    assert_eq!(tree.start_child(stage.child("a")).await, Err(StartError::AlreadyPresent));
    assert_eq!(tree.terminate_child("a").await, Ok(()));
    tree.restart_child("a").await.unwrap();
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
    let tree = start(&stage, Supervisor::builder("top").child(stage.child_with("a", failing))).await;
    assert_eq!(tree.terminate_child("a").await, Ok(()));
    quiet().await;
    assert_eq!(shown(&tree), "a-");
}

#[tokio::test(start_paused = true)]
async fn otp_child_adm_while_a_restart_hangs() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").child(stage.child("a")).child(stage.child("b")).start().await.unwrap();
    stage.script.next("a", [Begin::Hang]);
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    assert_eq!(state(&tree, "a"), Some(ChildState::Restarting));
    assert_eq!(tree.restart_child("a").await, Err(ChildError::Restarting));
    // The others are served meanwhile.
    tree.start_child(stage.child("c")).await.unwrap();
    tree.terminate_child("b").await.unwrap();
    tree.restart_child("b").await.unwrap();
    // It can be terminated, and is then startable.
    assert_eq!(tree.terminate_child("a").await, Ok(()));
    assert_eq!(state(&tree, "a"), Some(ChildState::None));
    tree.restart_child("a").await.unwrap();

    stage.script.next("a", [Begin::Hang]);
    tokio::time::sleep(Duration::from_secs(6)).await;
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    // And the supervisor be stopped.
    assert!(tree.stop().await.unwrap().is_clean());
}

#[tokio::test(start_paused = true)]
async fn otp_child_adm_terminate_while_start_child_hangs() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").start().await.unwrap();
    stage.script.next("a", [Begin::Hang]);
    let starting = start_meanwhile(&tree, stage.child("a"));
    quiet().await;
    // Others are served meanwhile.
    tree.start_child(stage.child("b")).await.unwrap();
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
    let starting = start_meanwhile(&tree, stage.child("a"));
    quiet().await;
    assert_eq!(tree.start_child(stage.child("a")).await, Err(StartError::Starting));
    assert_eq!(tree.restart_child("a").await, Err(ChildError::Starting));
    assert_eq!(tree.delete_child("a").await, Err(ChildError::Starting));
    assert_eq!(tree.child("a").err(), Some(ChildError::Starting));
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
async fn otp_hanging_restart_loop() {
    let stage = Stage::default();
    for strategy in [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne] {
        let tree = Supervisor::builder("top")
            .strategy(strategy)
            .intensity(u32::MAX, Duration::from_secs(1))
            .child(stage.child("a"))
            .child(stage.child("b"))
            .start()
            .await
            .unwrap();
        stage.script.always("a", Begin::Fail);
        tell_id(&tree, "a", Do::Panic);
        // It fails and is tried again without end, and the supervisor answers all the same.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(state(&tree, "a"), Some(ChildState::Restarting));
        assert_eq!(tree.restart_child("a").await, Err(ChildError::Restarting));
        tree.terminate_child("a").await.unwrap();
        stage.script.no_longer("a");
        tree.restart_child("a").await.unwrap();
        stage.script.always("a", Begin::Fail);
        tell_id(&tree, "a", Do::Panic);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(tree.stop().await.unwrap().is_clean());
        stage.script.no_longer("a");
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
    tree.restart_child("a").await.unwrap();
    assert_eq!(tree.terminate_child("c").await, Ok(()));
    assert_eq!(tree.terminate_child("b").await, Ok(()));
    assert_eq!(shown(&tree), "a+ b- c-");
    stage.script.no_longer("b");
    tree.restart_child("b").await.unwrap();
    tree.restart_child("c").await.unwrap();
    assert_eq!(shown(&tree), "a+ b+ c+");
}

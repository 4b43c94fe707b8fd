//! Operations during the delay of a restart: a child terminated by hand stays down, the others come back.

use std::time::Duration;

use plimsoll::supervisor::{Backoff, Strategy, Supervisor, SupervisorRef};

use crate::stage::shown;
use crate::support::{Do, Stage, quiet, tell_id};

const GROUPS: [Strategy; 2] = [Strategy::OneForAll, Strategy::RestForOne];

/// The children a, b and c; each waits a second for its restart.
async fn delayed(stage: &Stage, strategy: Strategy) -> SupervisorRef {
    let delay = Backoff::constant(Duration::from_secs(1));
    let builder = Supervisor::builder("top").strategy(strategy).intensity(10, Duration::from_secs(60));
    let tree = builder.children(["a", "b", "c"].map(|id| stage.child(id).backoff(delay))).start().await.unwrap();
    stage.did();
    tree
}

/// The delay of a's restart has begun.
async fn in_the_delay(stage: &Stage, strategy: Strategy) -> SupervisorRef {
    let tree = delayed(stage, strategy).await;
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    assert_eq!(shown(&tree), "a~ b- c-");
    tree
}

async fn delay_over() {
    tokio::time::sleep(Duration::from_secs(2)).await;
}

#[tokio::test(start_paused = true)]
async fn sibling_terminated_during_the_delay_stays_down() {
    for strategy in GROUPS {
        let stage = Stage::default();
        let tree = in_the_delay(&stage, strategy).await;
        tree.terminate_child("b").await.unwrap();
        delay_over().await;
        assert_eq!(shown(&tree), "a+ b- c+", "{strategy:?}");
        // The next restart covers it again, as every other spec without a child.
        tell_id(&tree, "a", Do::Panic);
        quiet().await;
        delay_over().await;
        assert_eq!(shown(&tree), "a+ b+ c+", "{strategy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn failed_child_terminated_during_the_delay_stays_down_and_the_others_come_back() {
    for strategy in GROUPS {
        let stage = Stage::default();
        let tree = in_the_delay(&stage, strategy).await;
        tree.terminate_child("a").await.unwrap();
        delay_over().await;
        assert_eq!(shown(&tree), "a- b+ c+", "{strategy:?}");
        tree.restart_child("a").await.unwrap();
        assert_eq!(shown(&tree), "a+ b+ c+", "{strategy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn all_terminated_during_the_delay_stay_down() {
    for strategy in GROUPS {
        let stage = Stage::default();
        let tree = in_the_delay(&stage, strategy).await;
        for id in ["c", "a", "b"] {
            tree.terminate_child(id).await.unwrap();
        }
        delay_over().await;
        assert_eq!(shown(&tree), "a- b- c-", "{strategy:?}");
        assert!(tree.stop().await.unwrap().is_clean());
    }
}

#[tokio::test(start_paused = true)]
async fn sibling_terminated_and_restarted_by_hand_during_the_delay_runs_afterwards() {
    for strategy in GROUPS {
        let stage = Stage::default();
        let tree = in_the_delay(&stage, strategy).await;
        tree.terminate_child("b").await.unwrap();
        tree.restart_child("b").await.unwrap();
        delay_over().await;
        assert_eq!(shown(&tree), "a+ b+ c+", "{strategy:?}: the later order holds");
    }
}

#[tokio::test(start_paused = true)]
async fn sibling_restarted_and_terminated_by_hand_during_the_delay_stays_down() {
    for strategy in GROUPS {
        let stage = Stage::default();
        let tree = in_the_delay(&stage, strategy).await;
        tree.restart_child("b").await.unwrap();
        tree.terminate_child("b").await.unwrap();
        delay_over().await;
        assert_eq!(shown(&tree), "a+ b- c+", "{strategy:?}: the later order holds");
    }
}

#[tokio::test(start_paused = true)]
async fn sibling_deleted_during_the_delay_is_gone_and_a_new_one_is_its_own() {
    for strategy in GROUPS {
        let stage = Stage::default();
        let tree = in_the_delay(&stage, strategy).await;
        tree.terminate_child("b").await.unwrap();
        tree.delete_child("b").await.unwrap();
        tree.start_child(stage.child("b")).await.unwrap();
        delay_over().await;
        assert_eq!(shown(&tree), "a+ c+ b+", "{strategy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_for_one_child_terminated_during_its_delay_stays_down() {
    let stage = Stage::default();
    let tree = delayed(&stage, Strategy::OneForOne).await;
    tell_id(&tree, "a", Do::Panic);
    quiet().await;
    tree.terminate_child("a").await.unwrap();
    delay_over().await;
    assert_eq!(shown(&tree), "a- b+ c+");
}

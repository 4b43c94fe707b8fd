//! How many children a dynamic supervisor may have.

use std::time::Duration;

use plimsoll::supervisor::{Backoff, Restart, StartError};

use super::{child, puppets, states};
use crate::support::{Begin, Do, Stage, quiet, tell};

#[tokio::test(start_paused = true)]
async fn otp_simple_max_children_counts_restarting_ones() {
    let stage = Stage::default();
    let slow = Backoff::constant(Duration::from_secs(10));
    let dynamic = puppets(&stage).backoff(slow).max_children(2).start().await.unwrap();
    let a = child(&dynamic, "a").await;
    child(&dynamic, "b").await;
    tell(&a, Do::Panic);
    quiet().await;
    assert_eq!(dynamic.start_child("c").await, Err(StartError::MaxChildren { max: 2 }));
    dynamic.terminate_child(a.actor()).await.unwrap();
    child(&dynamic, "c").await;
    assert_eq!(dynamic.inspect().details.counters["refused_max_children"], 1);
}

#[tokio::test(start_paused = true)]
async fn otp_simple_max_children_is_free_again_once_a_child_has_ended() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).restart(Restart::Transient).max_children(1).start().await.unwrap();
    let slow = child(&dynamic, "slow 2").await;
    tell(&slow, Do::Normal);
    quiet().await;
    // It has not ended yet.
    assert_eq!(dynamic.start_child("b").await, Err(StartError::MaxChildren { max: 1 }));
    tokio::time::sleep(Duration::from_secs(2)).await;
    child(&dynamic, "b").await;
}

#[tokio::test(start_paused = true)]
async fn otp_simple_a_failed_start_gives_its_place_back() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).max_children(1).start().await.unwrap();
    for begin in [Begin::Fail, Begin::Panic] {
        stage.script.next("a", [begin]);
        assert!(matches!(dynamic.start_child("a").await, Err(StartError::Failed(_))));
    }
    stage.script.next("a", [Begin::Hang]);
    assert!(tokio::time::timeout(Duration::from_secs(1), dynamic.start_child("a")).await.is_err());
    child(&dynamic, "a").await;
}

#[tokio::test(start_paused = true)]
async fn otp_simple_lowered_maximum_refuses_and_keeps() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).max_children(3).start().await.unwrap();
    let mut children = Vec::new();
    for id in ["a", "b", "c"] {
        children.push(child(&dynamic, id).await);
    }
    dynamic.set_max_children(2);
    assert_eq!(states(&dynamic), "+++");
    dynamic.terminate_child(children[0].actor()).await.unwrap();
    assert_eq!(dynamic.start_child("d").await, Err(StartError::MaxChildren { max: 2 }));
    dynamic.terminate_child(children[1].actor()).await.unwrap();
    child(&dynamic, "d").await;
}

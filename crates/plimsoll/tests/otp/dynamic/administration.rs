//! Operations on the children of a dynamic supervisor, in every state.

use std::time::Duration;

use plimsoll::supervisor::{Backoff, ChildError, ChildState, Restart, Shutdown, StartError};
use ractor::Actor;
use tokio::time::Instant;

use super::{child, counts, puppets, states};
use crate::support::{Begin, Do, Puppet, Stage, quiet, tell};

#[tokio::test(start_paused = true)]
async fn otp_child_adm_simple() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).max_children(2).start().await.unwrap();
    assert_eq!(dynamic.start_child("ignored").await, Err(StartError::Ignored));
    assert_eq!(dynamic.count_children().unwrap().workers, 0);

    let a = dynamic.start_child("a").await.unwrap();
    stage.script.next("bad", [Begin::Fail]);
    assert!(matches!(dynamic.start_child("bad").await, Err(StartError::Failed(_))));
    let b = dynamic.start_child("b").await.unwrap();
    assert_eq!(dynamic.start_child("c").await, Err(StartError::MaxChildren { max: 2 }));
    assert_eq!(dynamic.inspect().details.counters["refused_max_children"], 1);
    let count = dynamic.count_children().unwrap();
    assert_eq!((count.specs, count.active, count.workers, count.supervisors), (1, 2, 2, 0));
    assert_eq!(dynamic.child_spec(a.actor().get_id()).unwrap().restart, Restart::Permanent);

    assert_eq!(dynamic.terminate_child(a.actor()).await, Ok(()));
    assert_eq!(dynamic.count_children().unwrap().active, 1);
    // Any dead actor is fine, a living stranger is not.
    assert_eq!(dynamic.terminate_child(a.actor()).await, Ok(()));
    let (stranger, _) = Puppet::spawn(None, stage.puppet("stranger"), ()).await.unwrap();
    assert_eq!(dynamic.terminate_child(&stranger.get_cell()).await, Err(ChildError::NotFound));
    assert_eq!(dynamic.child_spec(stranger.get_id()), Err(ChildError::NotFound));

    assert!(dynamic.stop().await.unwrap().is_clean());
    assert_eq!(dynamic.start_child("d").await, Err(StartError::ShuttingDown));
    assert_eq!(dynamic.terminate_child(b.actor()).await, Err(ChildError::ShuttingDown));
    assert_eq!(dynamic.count_children(), Err(ChildError::ShuttingDown));
}

#[tokio::test(start_paused = true)]
async fn otp_sup_start_ignore_permanent_child_start_child_simple() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).max_children(1).start().await.unwrap();
    for _ in 0..3 {
        assert_eq!(dynamic.start_child("ignored").await, Err(StartError::Ignored));
        assert_eq!(counts(&dynamic), (1, 0, 0, 0));
    }
    // The place is free.
    child(&dynamic, "a").await;
}

#[tokio::test(start_paused = true)]
async fn otp_sup_start_ignore_temporary_child_start_child_simple() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).restart(Restart::Temporary).start().await.unwrap();
    assert_eq!(dynamic.start_child("ignored").await, Err(StartError::Ignored));
    assert_eq!(counts(&dynamic), (1, 0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn otp_simple_which_children_newest_first() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).start().await.unwrap();
    let mut children = Vec::new();
    for id in ["a", "b", "c"] {
        children.push(child(&dynamic, id).await);
    }
    dynamic.terminate_child(children[0].actor()).await.unwrap();
    children.push(child(&dynamic, "d").await);
    let expected: Vec<_> =
        [3, 2, 1].into_iter().map(|n: usize| ChildState::Running(children[n].actor().clone())).collect();
    let seen: Vec<_> = dynamic.which_children().unwrap().into_iter().map(|child| child.state).collect();
    assert_eq!(seen, expected);
}

#[tokio::test(start_paused = true)]
async fn otp_simple_terminate_a_restarting_child_by_its_last_actor() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).backoff(Backoff::constant(Duration::from_secs(10))).start().await.unwrap();
    let a = child(&dynamic, "a").await;
    tell(&a, Do::Panic);
    quiet().await;
    assert_eq!(states(&dynamic), "~");
    assert_eq!(counts(&dynamic), (1, 0, 0, 1));
    assert_eq!(dynamic.terminate_child(a.actor()).await, Ok(()));
    assert_eq!(counts(&dynamic), (1, 0, 0, 0));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(stage.did(), ["start a"]);
    assert_eq!(dynamic.terminate_child(a.actor()).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn otp_simple_terminate_while_the_restart_hangs() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).start().await.unwrap();
    let a = child(&dynamic, "a").await;
    stage.script.next("a", [Begin::Hang]);
    tell(&a, Do::Panic);
    quiet().await;
    assert_eq!(states(&dynamic), "~");
    assert_eq!(dynamic.terminate_child(a.actor()).await, Ok(()));
    assert_eq!(states(&dynamic), "");
}

#[tokio::test(start_paused = true)]
async fn otp_simple_the_last_actor_of_a_child_that_runs_again_is_just_dead() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).start().await.unwrap();
    let a = child(&dynamic, "a").await;
    tell(&a, Do::Panic);
    quiet().await;
    assert_eq!(dynamic.terminate_child(a.actor()).await, Ok(()));
    assert_eq!(states(&dynamic), "+");
    assert_eq!(dynamic.child_spec(a.actor().get_id()), Err(ChildError::NotFound));
}

#[tokio::test(start_paused = true)]
async fn otp_simple_living_foreign_actor_is_not_found() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).start().await.unwrap();
    let other = puppets(&stage).start().await.unwrap();
    let foreign = child(&other, "foreign").await;
    assert_eq!(dynamic.terminate_child(foreign.actor()).await, Err(ChildError::NotFound));
    assert_eq!(dynamic.terminate_child(&other.actor()).await, Err(ChildError::NotFound));
    assert_eq!(dynamic.terminate_child(&dynamic.actor()).await, Err(ChildError::NotFound));
    other.terminate_child(foreign.actor()).await.unwrap();
    assert_eq!(dynamic.terminate_child(foreign.actor()).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn otp_simple_terminated_is_neither_restarted_nor_charged() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).intensity(0, Duration::from_secs(60)).start().await.unwrap();
    for _ in 0..3 {
        let a = child(&dynamic, "a").await;
        assert_eq!(dynamic.terminate_child(a.actor()).await, Ok(()));
        quiet().await;
        assert_eq!(states(&dynamic), "");
    }
}

#[tokio::test(start_paused = true)]
async fn otp_simple_terminate_kills_after_the_grace() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).shutdown(Shutdown::After(Duration::from_secs(2))).start().await.unwrap();
    let a = child(&dynamic, "slow 60").await;
    let began = Instant::now();
    let (first, second) = tokio::join!(dynamic.terminate_child(a.actor()), dynamic.terminate_child(a.actor()));
    assert_eq!((first, second), (Ok(()), Ok(())));
    assert_eq!(began.elapsed(), Duration::from_secs(2));
    assert_eq!(counts(&dynamic), (1, 0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn otp_simple_terminate_of_one_that_is_ending_waits_for_it_and_it_is_not_restarted() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).start().await.unwrap();
    let a = child(&dynamic, "slow 2").await;
    tell(&a, Do::Normal);
    quiet().await;
    let began = Instant::now();
    assert_eq!(dynamic.terminate_child(a.actor()).await, Ok(()));
    assert!(began.elapsed() > Duration::from_secs(1));
    quiet().await;
    assert_eq!(stage.did(), ["start slow 2", "stopping slow 2", "stop slow 2"]);
    assert_eq!(states(&dynamic), "");
}

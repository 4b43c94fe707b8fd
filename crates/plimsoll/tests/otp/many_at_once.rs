//! Many children, and many callers at once.

use std::time::Duration;

use plimsoll::supervisor::{Backoff, DynamicSupervisor, DynamicSupervisorRef, Restart, Strategy, Supervisor};
use ractor::Actor;
use tokio::task::JoinHandle;

use crate::dynamic::{child, counts, puppets};
use crate::support::{Do, Puppet, Stage, quiet, tell};

#[tokio::test(start_paused = true)]
async fn otp_scale_start_stop_many_children() {
    let stage = Stage::default();
    let tree = Supervisor::builder("top").start().await.unwrap();
    for round in 0..2 {
        for n in 0..1_000 {
            tree.start_child(stage.child(&format!("{round} {n}"))).await.unwrap();
        }
        assert_eq!(tree.count_children().unwrap().active, 1_000);
        for n in 0..1_000 {
            let id = format!("{round} {n}");
            tree.terminate_child(&id).await.unwrap();
            tree.delete_child(&id).await.unwrap();
        }
        assert_eq!(tree.count_children().unwrap().specs, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn otp_simple_one_for_one_scale_many_temporary_children() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).restart(Restart::Temporary).start().await.unwrap();
    let mut children = Vec::new();
    for _ in 0..5_000 {
        children.push(child(&dynamic, "a").await);
    }
    assert_eq!(counts(&dynamic), (1, 5_000, 0, 5_000));
    for child in children.iter().step_by(2) {
        tell(child, Do::Normal);
    }
    quiet().await;
    assert_eq!(counts(&dynamic), (1, 2_500, 0, 2_500));
    for child in children.iter().skip(1).step_by(2) {
        dynamic.terminate_child(child.actor()).await.unwrap();
    }
    assert_eq!(counts(&dynamic), (1, 0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn otp_simple_many_start_at_once_and_never_more_than_the_maximum() {
    let stage = Stage::default();
    let dynamic = puppets(&stage).max_children(10).start().await.unwrap();
    let starts = (0..50).map(|_| {
        let dynamic = dynamic.clone();
        tokio::spawn(async move { dynamic.start_child("a").await.is_ok() })
    });
    let mut started = 0;
    for start in starts.collect::<Vec<_>>() {
        started += usize::from(start.await.unwrap());
    }
    assert_eq!(started, 10);
    assert_eq!(counts(&dynamic), (1, 10, 0, 10));
}

/// No caller waits for ever.
async fn all_answered(callers: impl Iterator<Item = JoinHandle<()>>) {
    for caller in callers.collect::<Vec<_>>() {
        tokio::time::timeout(Duration::from_secs(20), caller).await.expect("every caller is answered").unwrap();
    }
}

fn started_and_dropped(stage: &Stage) -> (usize, usize) {
    let events = stage.diary.take();
    let count = |verb: &str| events.iter().filter(|event| event.starts_with(verb)).count();
    (count("start "), count("drop "))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn otp_many_callers_at_once_leave_the_books_in_order() {
    let stage = Stage::default();
    let builder = Supervisor::builder("top").strategy(Strategy::OneForAll).intensity(u32::MAX, Duration::from_secs(60));
    let tree = builder.child(stage.child("anchor")).start().await.unwrap();
    let callers = (0..8_usize).map(|caller| {
        let (tree, stage) = (tree.clone(), stage.clone());
        tokio::spawn(async move {
            for round in 0..50 {
                let id = format!("{}", (caller + round) % 5);
                match round % 5 {
                    0 | 1 => drop(tree.start_child(stage.child(&id)).await),
                    2 => drop(tree.terminate_child(&id).await),
                    3 => drop(tree.restart_child(&id).await),
                    _ => drop(tree.delete_child(&id).await),
                }
                if let (0, Ok(child)) = (round % 7, tree.child("anchor")) {
                    child.actor().kill();
                }
            }
        })
    });
    all_answered(callers).await;
    let report = tokio::time::timeout(Duration::from_secs(20), tree.stop()).await.expect("it stops").unwrap();
    assert_eq!(report.kill_timed_out().count(), 0, "{report}");
    let (started, dropped) = started_and_dropped(&stage);
    assert!(started <= dropped, "who started has gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn otp_simple_many_callers_at_once_leave_the_books_in_order() {
    let stage = Stage::default();
    let inner = stage.clone();
    let dynamic: DynamicSupervisorRef<()> = DynamicSupervisor::builder("dynamic", move |parent, (): ()| {
        Puppet::spawn_linked(None, inner.puppet("d"), (), parent)
    })
    .intensity(u32::MAX, Duration::from_secs(60))
    .backoff(Backoff::constant(Duration::from_millis(1)))
    .max_children(100)
    .start()
    .await
    .unwrap();
    let callers = (0..8).map(|caller| {
        let dynamic = dynamic.clone();
        tokio::spawn(async move {
            for round in 0..100 {
                let Ok(child) = dynamic.start_child(()).await else { continue };
                match (round + caller) % 4 {
                    0 => child.actor().kill(),
                    1 => drop(child.actor_ref::<Do>().unwrap().cast(Do::Panic)),
                    _ => {}
                }
                if round % 3 > 0 {
                    dynamic.terminate_child(child.actor()).await.unwrap();
                }
            }
        })
    });
    all_answered(callers).await;
    let report = tokio::time::timeout(Duration::from_secs(20), dynamic.stop()).await.expect("it stops").unwrap();
    assert_eq!(report.kill_timed_out().count(), 0, "{report}");
    let (started, dropped) = started_and_dropped(&stage);
    assert_eq!(started, dropped);
}

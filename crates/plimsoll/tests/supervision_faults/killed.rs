//! A supervisor that is killed, stopped or crashes while its children end: no exit is lost.

use std::time::Duration;

use plimsoll::supervisor::{ChildSpec, Supervisor, SupervisorRef};

use crate::stage::{Living, agent, agents, fail};

const ROUNDS: usize = 1_500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_supervisor_notices_its_childs_exit() {
    for round in 0..ROUNDS {
        let living = Living::default();
        let top = Supervisor::builder("top").child(agent("w", &living)).start().await.unwrap();
        top.actor().kill();
        let report = top.wait().await.unwrap();
        assert!(report.is_clean(), "round {round}: {report}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killed_supervisor_of_many_notices_every_exit() {
    for round in 0..ROUNDS / 5 {
        let living = Living::default();
        let children = (0..20).map(|n| agent(&n.to_string(), &living));
        let top = Supervisor::builder("top").children(children).start().await.unwrap();
        top.actor().kill();
        let report = top.wait().await.unwrap();
        assert!(report.is_clean(), "round {round}: {report}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_dynamic_supervisor_notices_its_childs_exit() {
    for round in 0..ROUNDS {
        let living = Living::default();
        let top = agents(&living).start().await.unwrap();
        top.start_child(()).await.unwrap();
        top.actor().kill();
        let report = top.wait().await.unwrap();
        assert!(report.is_clean(), "round {round}: {report}");
    }
}

fn nested(living: &Living) -> ChildSpec {
    let inner = living.clone();
    ChildSpec::supervisor("nested", move || Supervisor::builder("nested").child(agent("w", &inner)))
        .backoff(plimsoll::supervisor::Backoff::NONE)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killed_nested_supervisor_comes_back() {
    let living = Living::default();
    let builder = Supervisor::builder("top").intensity(u32::MAX, Duration::from_secs(1));
    let top = builder.child(nested(&living)).start().await.unwrap();
    for round in 0..ROUNDS / 5 {
        let before = top.child("nested").unwrap();
        before.actor().kill();
        let back = async {
            while top.child("nested").map_or(true, |now| now == before) {
                tokio::time::sleep(Duration::from_micros(100)).await;
            }
        };
        let back = tokio::time::timeout(Duration::from_secs(5), back).await;
        assert!(back.is_ok(), "round {round}: {:?}", top.inspect());
        let inner = top.child("nested").unwrap().value::<SupervisorRef>().unwrap();
        assert!(inner.child("w").is_ok(), "round {round}");
    }
    top.stop().await.unwrap();
    living.until_none().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn supervisor_killed_while_its_child_fails_notices_the_exit() {
    for round in 0..ROUNDS / 3 {
        let living = Living::default();
        let top = Supervisor::builder("top").child(agent("w", &living)).start().await.unwrap();
        let (child, face) = (top.child("w").unwrap().actor().clone(), top.actor());
        let failing = tokio::spawn(async move { fail(&child) });
        face.kill();
        failing.await.unwrap();
        let report = top.wait().await.unwrap();
        assert_eq!(report.stragglers().count(), 0, "round {round}: {report}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn supervisor_stopped_while_its_child_is_killed_notices_the_exit() {
    for round in 0..ROUNDS / 3 {
        let living = Living::default();
        let top = Supervisor::builder("top").child(agent("w", &living)).start().await.unwrap();
        let child = top.child("w").unwrap().actor().clone();
        let killing = tokio::spawn(async move { child.kill() });
        let stopped = tokio::time::timeout(Duration::from_secs(3), top.stop()).await;
        killing.await.unwrap();
        assert!(stopped.is_ok(), "round {round}: it waits for its child's grace");
    }
}

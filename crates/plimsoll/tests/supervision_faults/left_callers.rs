//! Callers that leave: what they asked for is withdrawn where it still waits for its turn.

use std::future::Future;
use std::time::Duration;

use plimsoll::supervisor::{ChildError, StartError, Strategy, Supervisor, SupervisorRef};
use plimsoll_testkit::gate::Gate;

use crate::stage::{Gates, Living, Starts, agent, fail, gated, shown};
use crate::support::quiet;

/// A tree whose child `a` hangs in its restart, so that starts wait behind it.
async fn hanging(strategy: Strategy, living: &Living) -> (SupervisorRef, Gate) {
    let (gates, starts) = (Gates::default(), Starts::default());
    let builder = Supervisor::builder("top").strategy(strategy).intensity(100, Duration::from_secs(60));
    let tree = builder.child(gated("a", living, &gates, &starts)).child(agent("b", living)).start().await.unwrap();
    let gate = gates.next();
    fail(tree.child("a").unwrap().actor());
    quiet().await;
    (tree, gate)
}

async fn leaves<T>(operation: impl Future<Output = T>) {
    assert!(tokio::time::timeout(Duration::from_millis(10), operation).await.is_err(), "it waits for its turn");
}

#[tokio::test(start_paused = true)]
async fn start_of_a_caller_that_left_is_not_served() {
    for strategy in [Strategy::OneForAll, Strategy::RestForOne] {
        let living = Living::default();
        let (tree, gate) = hanging(strategy, &living).await;
        leaves(tree.start_child(agent("c", &living))).await;
        leaves(tree.start_or_get_child(agent("d", &living))).await;
        let stays = tokio::spawn({
            let (tree, spec) = (tree.clone(), agent("e", &living));
            async move { tree.start_child(spec).await }
        });
        quiet().await;
        gate.open();
        quiet().await;
        assert!(stays.await.unwrap().is_ok(), "others are served");
        assert_eq!(shown(&tree), "a+ b+ e+", "{strategy:?}");
        // The ids were not taken.
        assert!(tree.start_child(agent("c", &living)).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn restart_of_a_caller_that_left_is_not_served() {
    let living = Living::default();
    let (gates, starts) = (Gates::default(), Starts::default());
    let builder = Supervisor::builder("top").strategy(Strategy::RestForOne).intensity(100, Duration::from_secs(60));
    let tree = builder.child(gated("a", &living, &gates, &starts)).child(agent("b", &living)).start().await.unwrap();
    tree.terminate_child("b").await.unwrap();
    tree.terminate_child("a").await.unwrap();
    let gate = gates.next();
    let starting = tokio::spawn({
        let tree = tree.clone();
        async move { tree.restart_child("a").await }
    });
    quiet().await;
    leaves(tree.restart_child("b")).await;
    gate.open();
    assert!(starting.await.unwrap().is_ok());
    quiet().await;
    assert_eq!(shown(&tree), "a+ b-");
}

#[tokio::test(start_paused = true)]
async fn start_that_has_begun_goes_on_without_its_caller() {
    let living = Living::default();
    let (gates, starts) = (Gates::default(), Starts::default());
    let tree = Supervisor::builder("top").start().await.unwrap();
    let gate = gates.next();
    leaves(tree.start_child(gated("a", &living, &gates, &starts))).await;
    assert_eq!(tree.child("a").err(), Some(ChildError::Starting));
    assert_eq!(tree.start_child(agent("a", &living)).await, Err(StartError::Starting));
    gate.open();
    quiet().await;
    assert_eq!(shown(&tree), "a+");
}

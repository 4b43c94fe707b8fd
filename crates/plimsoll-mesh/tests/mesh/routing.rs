//! Whom the router asks, and when it asks somebody else.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use plimsoll_mesh::identity::TrustStore;
use plimsoll_mesh::problem::Code;
use plimsoll_mesh::rpc::ProviderChoice;

use super::support::{PATIENCE, Plan, TestResult};

#[tokio::test]
async fn a_call_is_served_here_if_it_can_be_and_elsewhere_otherwise() -> TestResult {
    let first = Plan::new(&[("here", true)], &[])?.start().await?;
    let second = Plan::new(&[("here", true), ("there", true)], &[first.address])?.start().await?;
    let third = Plan::new(&[("there", true)], &[first.address])?.start().await?;
    first.sees_providers("here", &[&second]).await?;
    first.sees_providers("there", &[&second, &third]).await?;

    for _ in 0..50 {
        assert_eq!(first.call("here", "").await, Ok(first.id), "local first");
    }
    let asked = futures::future::join_all((0..50).map(|_| first.call("there", ""))).await;
    let asked: Result<HashSet<_>, _> = asked.into_iter().collect();
    assert_eq!(asked, Ok(HashSet::from([second.id, third.id])), "both have their share");

    third.sees_providers("here", &[&first, &second]).await?;
    let nobody = first.call("nowhere", "").await.err().ok_or("nobody")?;
    assert_eq!((nobody.code, nobody.node), (Code::NoProvider, Some(first.id)));
    let panicked = third.call("here", "panic").await.err().ok_or("panicked")?;
    assert_eq!(panicked.code, Code::WorkerPanicked);
    assert!([Some(first.id), Some(second.id)].contains(&panicked.node), "where it ran: {panicked:?}");
    for node in [first, second, third] {
        node.stop().await;
    }
    Ok(())
}

/// Two services at once: each goes round by itself.
#[tokio::test]
async fn in_turn_every_provider_is_asked_as_often_as_the_others() -> TestResult {
    let offers = [("here", true), ("there", true)];
    let first = Plan { choice: ProviderChoice::RoundRobin, ..Plan::new(&[], &[])? }.start().await?;
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(Plan::new(&offers, &[first.address])?.start().await?);
    }
    let all: Vec<_> = others.iter().collect();
    first.sees_providers("here", &all).await?;
    first.sees_providers("there", &all).await?;
    first.eventually("all are up", || all.iter().all(|node| first.state_of(node.id).as_deref() == Some("up"))).await?;
    let mut asked: HashMap<_, usize> = HashMap::new();
    for _ in 0..30 {
        for service in ["here", "there"] {
            *asked.entry((service, first.call(service, "").await.map_err(|problem| problem.detail)?)).or_default() += 1;
        }
    }
    assert!(asked.len() == 6 && asked.values().all(|&calls| calls == 10), "{asked:?}");
    first.stop().await;
    for node in others {
        node.stop().await;
    }
    Ok(())
}

#[tokio::test]
async fn a_client_stays_with_its_provider_until_that_is_gone() -> TestResult {
    let first = Plan { choice: ProviderChoice::Sticky, ..Plan::new(&[], &[])? }.start().await?;
    let second = Plan::new(&[("work", false)], &[first.address])?.start().await?;
    let third = Plan::new(&[("work", false)], &[first.address])?.start().await?;
    first.sees_providers("work", &[&second, &third]).await?;
    let within = Duration::from_secs(5);
    let mut served = HashMap::new();
    for client in 0..32 {
        let theirs = first.call_of(client, "work", "", within).await.map_err(|problem| problem.detail)?;
        for _ in 0..5 {
            assert_eq!(first.call_of(client, "work", "", within).await, Ok(theirs));
        }
        served.insert(client, theirs);
    }
    let both: HashSet<_> = served.values().copied().collect();
    assert_eq!(both, HashSet::from([second.id, third.id]), "the clients are spread over both");
    let gone = third.id;
    third.stop().await;
    first.eventually("it is gone", || first.state_of(gone).as_deref() != Some("up")).await?;
    for client in 0..32 {
        assert_eq!(first.call_of(client, "work", "", within).await, Ok(second.id));
    }
    first.stop().await;
    second.stop().await;
    Ok(())
}

/// A provider that does not take this node for a peer is none for its callers: 404 and not 502, and they read why.
#[tokio::test]
async fn a_lone_provider_that_refuses_this_node_is_no_provider() -> TestResult {
    let middle = Plan::new(&[], &[])?.start().await?;
    let choosy = Plan::new(&[("echo", true)], &[middle.address])?;
    let choosy = Plan { trust: TrustStore::listed([middle.id])?, ..choosy }.start().await?;
    let refused = Plan::new(&[], &[middle.address])?.start().await?;
    // It hears of the provider through the one in the middle.
    refused.sees_providers("echo", &[&choosy]).await?;
    refused.eventually("refused", || refused.state_of(choosy.id).as_deref() == Some("refused")).await?;
    let problem = refused.call("echo", "").await.err().ok_or("answered")?;
    assert_eq!((problem.code, problem.node), (Code::NoProvider, Some(refused.id)));
    assert!(problem.detail.contains(&format!("node {} provides echo", choosy.id)), "{}", problem.detail);
    assert!(problem.detail.contains("is not on the allow-list"), "{}", problem.detail);
    // Whom it passed the record on to may have looked at it first.
    middle.sees_providers("echo", &[&choosy]).await?;
    assert_eq!(middle.call("echo", "").await, Ok(choosy.id));
    for node in [middle, choosy, refused] {
        node.stop().await;
    }
    Ok(())
}

/// A service that is full here is asked for elsewhere: the call never ran.
#[tokio::test]
async fn a_call_refused_before_it_ran_is_tried_elsewhere() -> TestResult {
    let first = Plan { at_once: 1, ..Plan::new(&[("work", false)], &[])? }.start().await?;
    let second = Plan { at_once: 1, ..Plan::new(&[("work", false)], &[first.address])? }.start().await?;
    first.sees_providers("work", &[&second]).await?;
    let mut held = Box::pin(first.call_within("work", "hold", PATIENCE));
    assert!(futures::poll!(&mut held).is_pending());
    assert_eq!(first.call("work", "").await, Ok(second.id));

    let mut held_there = Box::pin(second.call_within("work", "hold", PATIENCE));
    assert!(futures::poll!(&mut held_there).is_pending());
    let full = first.call("work", "").await.err().ok_or("all full")?;
    assert_eq!(full.code, Code::Overloaded);
    first.release.add_permits(1);
    assert_eq!(held.await, Ok(first.id));
    drop(held_there);
    first.stop().await;
    second.stop().await;
    Ok(())
}

/// Killed in mid-call: 502 for this caller and not its deadline, and the next call is answered elsewhere. The end-to-end
/// test `mesh` measures the time.
#[tokio::test]
async fn a_killed_provider_is_a_502_and_the_next_call_goes_elsewhere() -> TestResult {
    let first = Plan::new(&[], &[])?.start().await?;
    let victim = Plan::new(&[("work", false)], &[first.address])?.start_apart().await?;
    first.sees_providers("work", &[&victim]).await?;
    let mut held = Box::pin(first.call_within("work", "hold", PATIENCE));
    assert!(futures::poll!(&mut held).is_pending());
    victim.eventually("it runs", || victim.in_flight() == 1).await?;
    let other = Plan::new(&[("work", false)], &[first.address])?.start().await?;
    first.sees_providers("work", &[&victim, &other]).await?;

    let killed = Instant::now();
    let victim = victim.vanish().await?;
    let died = held.await.err().ok_or("died")?;
    assert_eq!(died.code, Code::ProviderDied);
    assert!(killed.elapsed() < Duration::from_secs(8), "{:?}", killed.elapsed());
    for _ in 0..20 {
        assert_eq!(first.call("work", "").await, Ok(other.id));
    }
    let state = first.state_of(victim).unwrap_or_default();
    assert!(["down", "suspect", "connecting"].contains(&state.as_str()), "{state}");
    first.stop().await;
    other.stop().await;
    Ok(())
}

/// The same for a service whose calls may run twice: this very caller is answered by the other one.
#[tokio::test]
async fn an_idempotent_call_survives_its_provider() -> TestResult {
    let first = Plan::new(&[], &[])?.start().await?;
    let victim = Plan::new(&[("work", true)], &[first.address])?.start_apart().await?;
    first.sees_providers("work", &[&victim]).await?;
    let mut held = Box::pin(first.call_within("work", "hold", PATIENCE));
    assert!(futures::poll!(&mut held).is_pending());
    victim.eventually("it runs", || victim.in_flight() == 1).await?;
    let other = Plan::new(&[("work", true)], &[first.address])?.start().await?;
    other.release.add_permits(1);
    first.sees_providers("work", &[&victim, &other]).await?;
    victim.vanish().await?;
    assert_eq!(held.await, Ok(other.id));
    assert_eq!(first.call("work", "").await, Ok(other.id));
    first.stop().await;
    other.stop().await;
    Ok(())
}

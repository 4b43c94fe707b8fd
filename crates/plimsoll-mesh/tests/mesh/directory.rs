//! Membership and services by gossip.

use std::time::{Duration, Instant};

use plimsoll::inspect::Inspect as _;
use plimsoll_mesh::directory::Directory as _;
use plimsoll_mesh::identity::TrustStore;
use plimsoll_mesh::service::Overview as _;

use super::support::{Plan, TestResult};

/// Two nodes that know only the first one meet each other through it.
#[tokio::test]
async fn a_mesh_grows_from_one_seed_and_every_node_knows_every_service() -> TestResult {
    let first = Plan::new(&[("echo", true)], &[])?.start().await?;
    let second = Plan::new(&[("echo", true), ("time", true)], &[first.address])?.start().await?;
    let third = Plan::new(&[("crash", false)], &[first.address])?.start().await?;
    let nodes = [&first, &second, &third];
    for node in nodes {
        let others: Vec<_> = nodes.into_iter().filter(|other| other.id != node.id).collect();
        for other in &others {
            node.eventually("all up", || node.state_of(other.id).as_deref() == Some("up")).await?;
        }
        for (service, providers) in [("echo", vec![&first, &second]), ("time", vec![&second]), ("crash", vec![&third])]
        {
            let others: Vec<_> = providers.into_iter().filter(|other| other.id != node.id).collect();
            node.sees_providers(service, &others).await?;
        }
    }
    let listed = third.router.services();
    let names: Vec<_> = listed.iter().map(|entry| (entry.name.as_str(), entry.callable, entry.idempotent)).collect();
    assert_eq!(names, [("crash", true, false), ("echo", true, true), ("time", true, true)]);
    for node in [first, second, third] {
        node.stop().await;
    }
    Ok(())
}

#[tokio::test]
async fn a_service_that_is_withdrawn_is_forgotten_everywhere_and_can_come_back() -> TestResult {
    let first = Plan::new(&[], &[])?.start().await?;
    let second = Plan::new(&[], &[first.address])?.start().await?;
    let server = plimsoll::call::CallServer::builder(Echo).start().await?;
    for _ in 0..3 {
        let offered = second.services.register("echo".parse()?, false, server.client()).await?;
        first.sees_providers("echo", &[&second]).await?;
        drop(offered);
        first.sees_providers("echo", &[]).await?;
    }
    first.stop().await;
    second.stop().await;
    Ok(())
}

/// M-9, M-10: names are renewed by their owner's lease, and end with it when the owner is gone without a word.
#[tokio::test]
async fn names_live_as_long_as_their_owner_renews_them() -> TestResult {
    let first = Plan::new(&[], &[])?.start().await?;
    let ttl = Duration::from_secs(3);
    let second = Plan { ttl, ..Plan::new(&[("echo", true), ("time", true)], &[first.address])? };
    let second = second.start_apart().await?;
    first.sees_providers("echo", &[&second]).await?;
    let known = Instant::now();
    while known.elapsed() < ttl * 2 {
        assert_eq!(first.directory.view().services.len(), 2, "renewed without a gap");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    second.vanish().await?;
    let gone = Instant::now();
    first.sees_providers("echo", &[]).await?;
    assert!(first.directory.view().services.is_empty(), "all at once");
    assert!(gone.elapsed() < ttl + Duration::from_secs(5), "{:?}", gone.elapsed());
    first.stop().await;
    Ok(())
}

/// A node that is about to stop takes its names back: nobody waits for its lease to end, which would be five minutes here.
#[tokio::test]
async fn names_of_a_node_that_stops_in_order_are_forgotten_at_once() -> TestResult {
    let first = Plan::new(&[], &[])?.start().await?;
    let second = Plan::new(&[("echo", true), ("time", true)], &[first.address])?.start().await?;
    let third = Plan::new(&[("echo", true)], &[first.address])?.start().await?;
    for node in [&first, &third] {
        node.sees_providers("time", &[&second]).await?;
    }
    second.directory.withdraw(super::support::PATIENCE).await;
    // It is heard already; all that is waited for here is a look at the engine, not another message.
    second.stop().await;
    for node in [&first, &third] {
        node.sees_providers("time", &[]).await?;
    }
    first.sees_providers("echo", &[&third]).await?;
    first.directory.withdraw(super::support::PATIENCE).await;
    first.stop().await;
    third.stop().await;
    Ok(())
}

/// Gossip passes through other hands; what a node that is not trusted says does not count, whoever passes it on.
#[tokio::test]
async fn records_of_a_node_that_is_not_trusted_do_not_count() -> TestResult {
    let middle = Plan::new(&[], &[])?.start().await?;
    let stranger = Plan::new(&[("echo", true)], &[middle.address])?.start().await?;
    let careful = Plan::new(&[], &[middle.address])?;
    let careful = Plan { trust: TrustStore::listed([middle.id])?, ..careful }.start().await?;
    middle.sees_providers("echo", &[&stranger]).await?;
    careful.eventually("up", || careful.state_of(middle.id).as_deref() == Some("up")).await?;
    careful.eventually("gossip", || careful.directory.inspect().counters["received"] > 10).await?;
    assert!(careful.directory.view().services.is_empty());
    assert_eq!(careful.directory.view().members.len(), 1);
    for node in [middle, stranger, careful] {
        node.stop().await;
    }
    Ok(())
}

/// A peer that gossips poison is refused by name, and the directory of the others goes on.
#[tokio::test]
async fn poison_expels_its_sender_and_harms_nobody() -> TestResult {
    let first = Plan::new(&[("echo", true)], &[])?.start().await?;
    let second = Plan::new(&[("time", true)], &[first.address])?.start().await?;
    let bad = Plan::new(&[], &[first.address])?.start().await?;
    first.eventually("up", || first.state_of(bad.id).as_deref() == Some("up")).await?;
    bad.eventually("up", || bad.state_of(first.id).as_deref() == Some("up")).await?;

    // An `Ack` with a key that begins with a multi-byte character: it would panic the engine's task.
    let mut entries = vec![0];
    entries.extend_from_slice(&64u16.to_le_bytes());
    entries.extend_from_slice(bad.id.to_string().as_bytes());
    entries.extend_from_slice(&1u64.to_le_bytes());
    entries.extend_from_slice(&[6, 0xfd]);
    entries.extend_from_slice(&bad.id.as_bytes()[..15]);
    entries.extend_from_slice(&1u16.to_le_bytes());
    entries.extend_from_slice(&[0; 16]);
    entries.extend_from_slice(&[1, 2, 0, 0xc3, 0xa9, 1, 0, b'x', 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut message = 45_139u16.to_le_bytes().to_vec();
    message.extend_from_slice(&[0, 2, 2]);
    message.extend_from_slice(&u16::try_from(entries.len())?.to_le_bytes());
    message.extend_from_slice(&entries);
    message.push(0);
    assert!(bad.peers.gossip(&first.id, message.into()));

    first.eventually("refused", || first.state_of(bad.id).as_deref() == Some("refused")).await?;
    bad.eventually("told", || bad.state_of(first.id).as_deref() == Some("refused")).await?;
    let told = bad.router.nodes().into_iter().find(|entry| entry.id == first.id).and_then(|entry| entry.reason);
    assert!(told.as_ref().is_some_and(|reason| reason.contains("ASCII")), "{told:?}");
    assert_eq!(first.directory.inspect().counters["engine_restarts"], 0);
    first.sees_providers("time", &[&second]).await?;
    second.sees_providers("echo", &[&first]).await?;
    for node in [first, second, bad] {
        node.stop().await;
    }
    Ok(())
}

struct Echo;

impl plimsoll::call::Service for Echo {
    type Request = plimsoll_mesh::service::Request;
    type Reply = plimsoll_mesh::service::Response;
    type Error = plimsoll_mesh::service::ApplicationError;

    async fn call(&self, _: plimsoll::call::CallContext, request: Self::Request) -> Result<Self::Reply, Self::Error> {
        Ok(plimsoll_mesh::service::Response { content_type: "text/plain".into(), body: request.body })
    }
}

//! Faults that were reported publicly of other meshes, each of its kind tried on this one.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use plimsoll::inspect::Inspect as _;
use plimsoll_mesh::directory::Directory as _;
use plimsoll_mesh::identity::{GENERATION_FILE, Generations, Identity};
use plimsoll_mesh::peers::Resolve;
use plimsoll_mesh::problem::Code;
use plimsoll_mesh::service::Overview as _;

use super::support::{Node, PATIENCE, Plan, TestResult};

/// Quickwit chitchat, issue 23: "dead nodes resurrecting for a few moments on newly joined nodes". The newcomer hears of the
/// dead node from a third one, whose lease for it lasts five minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_neither_lists_nor_calls_a_dead_node() -> TestResult {
    let first = Plan::new(&[], &[])?.start().await?;
    let dead = Plan::new(&[("echo", false)], &[first.address])?.start_apart().await?;
    first.sees_providers("echo", &[&dead]).await?;
    let dead = dead.vanish().await?;
    first.eventually("it is lost", || first.state_of(dead).as_deref() != Some("up")).await?;

    let newcomer = Plan::new(&[], &[first.address])?.start().await?;
    newcomer.eventually("gossip", || newcomer.state_of(dead).is_some()).await?;
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        let view = newcomer.directory.view();
        assert!(view.services.is_empty(), "{view:?}");
        assert!(view.members.iter().all(|member| member.node != dead || !member.alive), "{view:?}");
        assert!(newcomer.router.services().is_empty());
        assert_ne!(newcomer.state_of(dead).as_deref(), Some("up"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let called = newcomer.call("echo", "").await.err().ok_or("a dead node was called")?;
    assert_eq!(called.code, Code::NoProvider);
    for node in [first, newcomer] {
        node.stop().await;
    }
    Ok(())
}

/// HashiCorp memberlist, issue 311: after a mass restart some nodes keep others for dead, since the number of a new incarnation
/// is lower than that of the former one. Here the clock of one node was set back by an hour as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_mass_restart_every_node_sees_every_other_one() -> TestResult {
    let folder = tempfile::tempdir()?;
    let generations = || Generations::in_folder(folder.path());
    // The last incarnation was started when the clock was an hour ahead.
    let ahead = Generations::in_memory().next()? + 3_600_000;
    std::fs::write(folder.path().join(GENERATION_FILE), ahead.to_string())?;
    let identities = [Identity::generate()?, Identity::generate()?, Identity::generate()?];
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for round in 0..2 {
        let mut nodes: Vec<Node> = Vec::new();
        for (at, identity) in identities.iter().enumerate() {
            let plan = match addresses.get(at).copied() {
                Some(address) => Plan::again(identity, address, &[("echo", true)])?,
                None => Plan { identity: identity.clone(), ..Plan::new(&[("echo", true)], &[])? },
            };
            let seeds = nodes.first().map(|first: &Node| first.address).into_iter().collect();
            let generations = if at == 0 { generations()? } else { Generations::in_memory() };
            nodes.push(Plan { seeds, generations, ..plan }.start_apart().await?);
        }
        for node in &nodes {
            let others: Vec<_> = nodes.iter().filter(|other| other.id != node.id).collect();
            let mut others = others;
            others.sort_unstable_by_key(|other| other.id);
            node.sees_providers("echo", &others).await?;
            for other in others {
                node.eventually("up", || node.state_of(other.id).as_deref() == Some("up")).await?;
            }
        }
        addresses = nodes.iter().map(|node| node.address).collect();
        for node in nodes {
            if round == 0 {
                node.vanish().await?;
            } else {
                node.stop().await;
            }
        }
    }
    Ok(())
}

/// Akka, issues 16224 and 16726: a node that is killed and restarted at once, on the same host and port, is refused or stays
/// unreachable until its former incarnation is removed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_restarted_at_once_takes_the_place_of_its_former_incarnation() -> TestResult {
    let first = Plan::new(&[], &[])?.start().await?;
    let identity = Identity::generate()?;
    let mut address = None;
    for round in 0..3 {
        let plan = match address {
            Some(address) => Plan::again(&identity, address, &[("echo", true)])?,
            None => Plan { identity: identity.clone(), ..Plan::new(&[("echo", true)], &[])? },
        };
        let node = Plan { seeds: vec![first.address], ..plan }.start_apart().await?;
        address = Some(node.address);
        first.eventually("up", || first.state_of(node.id).as_deref() == Some("up")).await?;
        first.sees_providers("echo", &[&node]).await?;
        let called = Instant::now();
        while first.call("echo", "").await != Ok(node.id) {
            assert!(called.elapsed() < Duration::from_secs(5), "round {round}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(first.peers.inspect().counters["up"], 1, "one connection in round {round}");
        node.vanish().await?;
    }
    first.stop().await;
    Ok(())
}

/// Apple swift-distributed-actors, issue 866: gossip brings back the former incarnation of a node that was replaced after a
/// crash. The new one offers something else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_does_not_bring_a_former_incarnation_back() -> TestResult {
    let first = Plan::new(&[], &[])?.start().await?;
    let second = Plan::new(&[], &[first.address])?.start().await?;
    let identity = Identity::generate()?;
    let former = Plan { identity: identity.clone(), ..Plan::new(&[("old", true)], &[first.address])? };
    let former = former.start_apart().await?;
    for node in [&first, &second] {
        node.sees_providers("old", &[&former]).await?;
    }
    let address = former.address;
    former.vanish().await?;
    let later =
        Plan { seeds: vec![first.address], ..Plan::again(&identity, address, &[("new", true)])? }.start().await?;
    let third = Plan::new(&[], &[second.address])?.start().await?;
    for node in [&first, &second, &third] {
        node.sees_providers("new", &[&later]).await?;
        node.sees_providers("old", &[]).await?;
    }
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        for node in [&first, &second, &third] {
            assert!(node.directory.view().services.keys().all(|name| name.as_str() == "new"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for node in [first, second, third, later] {
        node.stop().await;
    }
    Ok(())
}

/// HashiCorp serf, issue 231: a member that left in order and comes back is still listed as one that left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_left_in_order_can_come_back() -> TestResult {
    let first = Plan::new(&[], &[])?.start().await?;
    let identity = Identity::generate()?;
    let node =
        Plan { identity: identity.clone(), ..Plan::new(&[("echo", true)], &[first.address])? }.start_apart().await?;
    let (id, address) = (node.id, node.address);
    first.sees_providers("echo", &[&node]).await?;
    node.directory.withdraw(PATIENCE).await;
    first.sees_providers("echo", &[]).await?;
    node.vanish().await?;
    let again =
        Plan { seeds: vec![first.address], ..Plan::again(&identity, address, &[("echo", true)])? }.start().await?;
    first.sees_providers("echo", &[&again]).await?;
    let members = first.directory.view();
    assert!(members.members.iter().any(|member| member.node == id && member.alive && !member.leaving), "{members:?}");
    assert_eq!(first.call("echo", "").await, Ok(id));
    again.stop().await;
    first.stop().await;
    Ok(())
}

/// Akka, issue 25361: the first seed node is killed, restarted, and does not get back into the cluster: it has nobody to dial,
/// and the others do not dial it any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_seed_gets_back_in_although_it_knows_nobody() -> TestResult {
    let identity = Identity::generate()?;
    let seed = Plan { identity: identity.clone(), ..Plan::new(&[("echo", true)], &[])? }.start_apart().await?;
    let (id, address) = (seed.id, seed.address);
    let others = [Plan::new(&[], &[address])?.start().await?, Plan::new(&[], &[address])?.start().await?];
    for node in &others {
        node.sees_providers("echo", &[&seed]).await?;
    }
    seed.vanish().await?;
    for node in &others {
        node.eventually("lost", || node.state_of(id).as_deref() != Some("up")).await?;
    }
    let seed = Plan::again(&identity, address, &[("echo", true)])?.start().await?;
    for node in &others {
        node.eventually("back", || node.state_of(id).as_deref() == Some("up")).await?;
        assert_eq!(node.call("echo", "").await, Ok(id));
    }
    seed.eventually("both", || others.iter().all(|node| seed.state_of(node.id).as_deref() == Some("up"))).await?;
    seed.stop().await;
    for node in others {
        node.stop().await;
    }
    Ok(())
}

/// libp2p, rust-libp2p issue 752 and go-libp2p-swarm issue 79: two nodes that dial each other at the same time close both
/// connections. Calls of either side go on meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_simultaneous_dials_one_connection_stays_and_no_call_is_lost() -> TestResult {
    for _ in 0..5 {
        let (left, right) = (Plan::new(&[("echo", false)], &[])?, Plan::new(&[("time", false)], &[])?);
        let (left_at, right_at) = (left.socket.local_addr()?, right.socket.local_addr()?);
        let left = Plan { seeds: vec![right_at], ..left };
        let right = Plan { seeds: vec![left_at], ..right };
        let (left, right) = tokio::try_join!(left.start(), right.start())?;
        left.sees_providers("time", &[&right]).await?;
        right.sees_providers("echo", &[&left]).await?;
        for _ in 0..100 {
            let (one, other) = tokio::join!(left.call("time", ""), right.call("echo", ""));
            assert_eq!((one, other), (Ok(right.id), Ok(left.id)));
        }
        for node in [&left, &right] {
            node.eventually("one connection", || node.peers.inspect().counters["open"] == 1).await?;
            node.eventually("nothing is left", || node.census() == [0; 5]).await?;
        }
        tokio::join!(left.stop(), right.stop());
    }
    Ok(())
}

/// iroh, issue 3492: dialling an unknown node hangs for ever. Here its record names an address where nobody answers: the caller
/// waits for its own deadline and not for the dial, and its places are free afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_to_a_node_that_cannot_be_dialled_ends_by_its_deadline() -> TestResult {
    let first = Plan::new(&[], &[])?.start().await?;
    // It is bound, and nobody reads from it.
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let unknown = Identity::generate()?.node_id();
    first.peers.set_members(&[(unknown, silent.local_addr()?)]);
    for within in [50, 200, 400].map(Duration::from_millis) {
        let mut request = super::support::request(0, "echo", "", within);
        request.deadline = Instant::now() + within;
        let began = Instant::now();
        let refused = first.peers.call(unknown, &request).await.err().ok_or("a call to nobody")?;
        assert_eq!((refused.problem.code, refused.never_ran), (Code::Deadline, true), "{refused:?}");
        let took = began.elapsed();
        assert!(took >= within && took < within + Duration::from_secs(1), "{took:?} for {within:?}");
    }
    let nowhere = Identity::generate()?.node_id();
    let began = Instant::now();
    let request = super::support::request(0, "echo", "", PATIENCE);
    let refused = first.peers.call(nowhere, &request).await.err().ok_or("a call to nobody")?;
    assert_eq!((refused.problem.code, refused.never_ran), (Code::ProviderDied, true));
    assert!(began.elapsed() < Duration::from_secs(1), "no address of it is known");
    first.peers.set_members(&[]);
    first.eventually("nothing is left", || first.census() == [0; 5]).await?;
    first.stop().await;
    Ok(())
}

/// go-libp2p, issue 105: two callers share a dial; the first one gives up. The other one must not fail with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_gives_up_a_shared_dial_does_not_end_it_for_the_others() -> TestResult {
    let provider = Plan::new(&[("echo", false)], &[])?.start().await?;
    for _ in 0..10 {
        let caller = Plan::new(&[], &[])?.start().await?;
        caller.peers.set_members(&[(provider.id, provider.address)]);
        let request = || super::support::request(0, "echo", "", Duration::from_secs(5));
        let (one, other) = (request(), request());
        let mut first = Box::pin(caller.peers.call(provider.id, &one));
        let mut second = Box::pin(caller.peers.call(provider.id, &other));
        let _ = futures::poll!(&mut first);
        let _ = futures::poll!(&mut second);
        drop(first);
        let response = second.await.map_err(|refusal| refusal.problem.detail)?;
        assert_eq!(String::from_utf8_lossy(&response.body), provider.id.to_string());
        caller.eventually("nothing is left", || caller.census() == [0; 5]).await?;
        caller.stop().await;
    }
    provider.stop().await;
    Ok(())
}

/// Names with the addresses that they have now.
#[derive(Default)]
struct Names(Mutex<HashMap<String, Vec<SocketAddr>>>);

impl Names {
    fn set(&self, name: &str, addresses: &[SocketAddr]) {
        self.0.lock().insert(name.to_owned(), addresses.to_vec());
    }
}

impl Resolve for Names {
    fn resolve(&self, host: &str, _: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let found = self.0.lock().get(host).cloned();
        Box::pin(async move { found.ok_or_else(|| io::Error::other("no such host")) })
    }
}

/// NATS, pull request 1590 for issue 1586: the seed's name resolves to all machines of the cluster; a node that takes the
/// address of itself, or of one that is gone, tries no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_addresses_of_a_seed_name_are_tried_and_the_own_one_is_passed_over() -> TestResult {
    let first = Plan::new(&[("echo", true)], &[])?.start().await?;
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let (names, plan) = (Arc::new(Names::default()), Plan::new(&[], &[])?);
    let own = plan.socket.local_addr()?;
    names.set("cluster.example", &[own, silent.local_addr()?, first.address]);
    let node = Plan { names: vec!["cluster.example:4433"], resolver: Some(names), ..plan }.start().await?;
    node.eventually("up", || node.state_of(first.id).as_deref() == Some("up")).await?;
    node.sees_providers("echo", &[&first]).await?;
    assert_eq!(node.state_of(node.id).as_deref(), Some("up"));
    assert_eq!(node.peers.inspect().counters["up"], 1, "it is no peer of its own");
    node.stop().await;
    first.stop().await;
    Ok(())
}

/// IPFS Cluster, issue 2004, and BitShares, issue 2153: a name is resolved once, at the start; when its machine gets another
/// address, the node never finds it again. Here it does not resolve at the start either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_name_is_resolved_again_after_a_failure_and_after_a_loss() -> TestResult {
    let names = Arc::new(Names::default());
    let node = Plan { names: vec!["seed.example:4433"], resolver: Some(names.clone()), ..Plan::new(&[], &[])? };
    let node = node.start().await?;
    let counter = |name: &str| node.peers.inspect().counters[name];
    node.eventually("it does not resolve", || counter("lookups_failed") > 0).await?;
    let first = Plan::new(&[], &[])?.start_apart().await?;
    names.set("seed.example", &[first.address]);
    node.eventually("up", || node.state_of(first.id).as_deref() == Some("up")).await?;
    let lookups = counter("lookups");
    // It moves: another port, and a name that says so.
    let second = Plan::new(&[], &[])?.start().await?;
    names.set("seed.example", &[second.address]);
    first.vanish().await?;
    node.eventually("at its new address", || node.state_of(second.id).as_deref() == Some("up")).await?;
    assert!(counter("lookups") > lookups);
    node.stop().await;
    second.stop().await;
    Ok(())
}

/// Quickwit, issue 1018: a process that is restarted with another id on the same address is seen as two nodes, both alive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_on_the_address_of_a_dead_one_is_one_node_alive() -> TestResult {
    let first = Plan::new(&[], &[])?.start().await?;
    let red = Plan::new(&[("echo", true)], &[first.address])?.start_apart().await?;
    first.sees_providers("echo", &[&red]).await?;
    let (address, red) = (red.address, red.vanish().await?);
    first.eventually("lost", || first.state_of(red).as_deref() != Some("up")).await?;
    let blue = Plan { seeds: vec![first.address], ..Plan::again(&Identity::generate()?, address, &[("time", true)])? };
    let blue = blue.start().await?;
    first.eventually("up", || first.state_of(blue.id).as_deref() == Some("up")).await?;
    first.sees_providers("time", &[&blue]).await?;
    let alive = |node| first.directory.view().members.iter().any(|member| member.node == node && member.alive);
    first.eventually("one of them is alive", || !alive(red) && alive(blue.id)).await?;
    assert_ne!(first.state_of(red).as_deref(), Some("up"));
    assert_eq!(first.call("time", "").await, Ok(blue.id));
    blue.stop().await;
    first.stop().await;
    Ok(())
}

/// Issue 10, 4.3: the last heartbeats of a node that has just died reach a newcomer through several nodes, one after the
/// other. It never lists the dead node, and never calls it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_does_not_take_the_last_heartbeats_of_a_dead_node_for_life() -> TestResult {
    let first = Plan::new(&[], &[])?.start().await?;
    let second = Plan::new(&[], &[first.address])?.start().await?;
    let third = Plan::new(&[], &[first.address])?.start().await?;
    let dead = Plan::new(&[("echo", false)], &[first.address])?.start_apart().await?;
    for node in [&first, &second, &third] {
        node.sees_providers("echo", &[&dead]).await?;
    }
    let dead = dead.vanish().await?;
    let newcomer = Plan::new(&[], &[first.address, second.address, third.address])?.start().await?;
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        let view = newcomer.directory.view();
        assert!(view.services.is_empty(), "{view:?}");
        assert!(view.members.iter().all(|member| member.node != dead || !member.alive), "{view:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(newcomer.state_of(dead).is_some(), "it has its records");
    assert!(newcomer.call("echo", "").await.is_err());
    for node in [first, second, third, newcomer] {
        node.stop().await;
    }
    Ok(())
}

/// Issue 10, 4.9: calls of peers that a stop cuts off are counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_peers_that_a_stop_cuts_off_are_counted() -> TestResult {
    let first = Plan::new(&[], &[])?.start().await?;
    let second = Plan::new(&[("echo", false)], &[first.address])?.start().await?;
    first.sees_providers("echo", &[&second]).await?;
    assert_eq!(first.call("echo", "").await, Ok(second.id));
    let (services, peers) = (second.services.clone(), second.peers.clone());
    let calls = async {
        tokio::join!(first.call_within("echo", "hold", PATIENCE), first.call_within("echo", "hold", PATIENCE))
    };
    let stopping = async {
        second.eventually("both run", || second.in_flight() == 2).await.unwrap();
        second.stop().await;
    };
    let ((one, two), ()) = tokio::join!(calls, stopping);
    assert!(one.is_err() && two.is_err(), "{one:?} {two:?}");
    assert_eq!(services.calls_cut_off() + peers.calls_cut_off(), 2);
    first.stop().await;
    Ok(())
}

//! One connection a pair.

use std::time::{Duration, Instant};

use plimsoll_mesh::peers::PeerState;
use plimsoll_mesh::problem::Code;

use super::support::{Plan, TestResult, pair, request};

#[tokio::test]
async fn a_pair_is_up_on_both_sides_after_one_exchange() -> TestResult {
    let (left, right) = pair().await?;
    assert_eq!(left.peer(right.id).and_then(|peer| peer.address), Some(right.address));
    assert_eq!(right.peer(left.id).and_then(|peer| peer.address), Some(left.address), "the listening address is told");
    assert_eq!((left.counter("open"), right.counter("open")), (1, 1));
    let (left_id, right_id, peers) = (left.id, right.id, left.peers.clone());
    left.stop().await;
    let of_right = peers.list().into_iter().find(|peer| peer.node == right_id).and_then(|peer| peer.reason);
    assert_eq!(of_right, Some(format!("node {left_id} is stopping")), "it knows why itself");
    let told = right.peer(right.id);
    assert_eq!(told, None, "a node is not its own peer");
    right.stop().await;
    Ok(())
}

/// The connection dialled by the smaller node id stays, on both sides, and no call is lost over it.
#[tokio::test]
async fn if_both_dial_at_once_one_connection_stays() -> TestResult {
    for _ in 0..3 {
        let (left, right) = (Plan::new()?, Plan::new()?);
        let (left_at, right_at) = (left.address()?, right.address()?);
        let (left, right) = tokio::try_join!(left.dials(right_at, None).start(), right.dials(left_at, None).start())?;
        left.sees(right.id, PeerState::Up).await?;
        right.sees(left.id, PeerState::Up).await?;

        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            let (there, back) = tokio::join!(left.call(right.id, "echo", b"a"), right.call(left.id, "echo", b"b"));
            assert!(there.is_ok() && back.is_ok(), "{there:?} {back:?}");
            if left.counter("open") == 1 && right.counter("open") == 1 && left.counter("retired") == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!((left.counter("open"), right.counter("open")), (1, 1));
        assert_eq!((left.counter("up"), right.counter("up")), (1, 1));
        tokio::join!(left.stop(), right.stop());
    }
    Ok(())
}

/// Silence alone would take half a minute here: the former life's connection is ended by a stateless reset.
#[tokio::test]
async fn a_node_that_restarts_on_its_port_is_up_again_at_once() -> TestResult {
    let (mut left, mut right) = (Plan::new()?, Plan::new()?);
    (left.config.idle, right.config.idle) = (Duration::from_secs(30), Duration::from_secs(30));
    let (address, right_id) = (right.address()?, right.id());
    let left = left.dials(address, Some(right_id)).start().await?;
    let right = right.start_apart().await?;
    left.sees(right_id, PeerState::Up).await?;
    let identity = right.identity.clone();
    right.vanish().await?;

    let mut plan = Plan::new()?;
    (plan.identity, plan.socket) = (identity, std::net::UdpSocket::bind(address)?);
    let restarted = Instant::now();
    let right = plan.start().await?;
    right.sees(left.id, PeerState::Up).await?;
    left.sees(right_id, PeerState::Up).await?;
    assert!(left.call(right_id, "echo", b"again").await.is_ok());
    assert!(restarted.elapsed() < Duration::from_secs(9), "{:?}", restarted.elapsed());
    tokio::join!(left.stop(), right.stop());
    Ok(())
}

#[tokio::test]
async fn a_node_that_dials_itself_does_not_become_its_own_peer() -> TestResult {
    let plan = Plan::new()?;
    let address = plan.address()?;
    let node = plan.dials(address, None).start().await?;
    node.counts("dials_failed", 1).await?;
    assert_eq!((node.counter("open"), node.peers.list().len()), (0, 0));
    node.stop().await;
    Ok(())
}

/// M-2, M-5: the least recently used idle connection makes room and is closed once; one in use never does.
#[tokio::test]
async fn a_full_pool_closes_the_idle_connection_used_longest_ago() -> TestResult {
    let (first, second, third) = (Plan::new()?, Plan::new()?, Plan::new()?);
    let mut hub = Plan::new()?;
    hub.config.connections = plimsoll::bounded::Cap::of::<2>();
    let hub_at = hub.address()?;
    let hub = hub.start().await?;
    let first = first.dials(hub_at, None).start().await?;
    hub.sees(first.id, PeerState::Up).await?;
    let second = second.dials(hub_at, None).start().await?;
    hub.sees(second.id, PeerState::Up).await?;

    // The first is used longest ago, and in use: so the second has to go.
    let held = request("hold", b"", Duration::from_secs(30));
    let (peers, id) = (hub.peers.clone(), first.id);
    let holding = tokio::spawn(async move { peers.call(id, &held).await });
    first.service.running(1).await?;
    assert!(hub.call(second.id, "echo", b"").await.is_ok());
    let third = third.dials(hub_at, None).start().await?;
    hub.sees(third.id, PeerState::Up).await?;
    second.sees(hub.id, PeerState::Down).await?;
    assert_eq!((hub.counter("up"), hub.counter("evicted")), (2, 1));
    hub.counts("pool_closed", 1).await?;
    assert_eq!((hub.counter("open"), hub.counter("pool_used"), hub.counter("pool_evicted")), (2, 2, 1));

    first.service.release.add_permits(1);
    assert!(holding.await?.is_ok(), "the call on the connection in use is not disturbed");

    // Its node comes back when a call asks for it, and not before.
    assert!(second.call(hub.id, "echo", b"").await.is_ok());
    assert_eq!(hub.counter("up"), 2);
    for node in [first, second, third, hub] {
        node.stop().await;
    }
    Ok(())
}

#[tokio::test]
async fn gossip_arrives_with_its_sender_and_poison_expels_it() -> TestResult {
    let (left, right) = pair().await?;
    assert!(left.peers.gossip(&right.id, "hello".into()));
    right.counts("gossip_received", 1).await?;
    assert_eq!(*right.gossip.heard.lock(), [(left.id, "hello".into())]);

    assert!(left.peers.gossip(&right.id, "poison".into()));
    let seen = left.sees(right.id, PeerState::Refused).await?;
    let reason = seen.reason.unwrap_or_default();
    assert!(reason.contains("it says poison") && reason.contains(&left.id.to_string()), "{reason}");
    let refused = left.call(right.id, "echo", b"").await.err().ok_or("expelled")?;
    assert_eq!((refused.problem.code, refused.never_ran), (Code::NoProvider, true));
    tokio::join!(left.stop(), right.stop());
    Ok(())
}

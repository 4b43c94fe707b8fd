//! Calls between two nodes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt as _;
use plimsoll_mesh::events::EventKind;
use plimsoll_mesh::identity::{SERVER_NAME, peer_client_config};
use plimsoll_mesh::peers::{PeerState, Redial};
use plimsoll_mesh::problem::Code;
use plimsoll_mesh::service::Caller;

use super::support::{Node, Plan, TestResult, pair, request};

#[tokio::test]
async fn a_call_goes_either_way_and_says_who_calls_and_until_when() -> TestResult {
    let (left, right) = pair().await?;
    for (from, to) in [(&left, &right), (&right, &left)] {
        let answered = from.peers.call(to.id, &request("echo", b"hello", Duration::from_secs(3))).await;
        assert_eq!(answered.map(|response| response.body), Ok(Bytes::from_static(b"hello")));
        let (caller, left) = to.service.callers.lock().pop().ok_or("served")?;
        assert_eq!(caller, Caller::Peer(from.id));
        assert!(left <= Duration::from_secs(3) && left > Duration::from_secs(2), "{left:?}");
    }
    tokio::join!(left.stop(), right.stop());
    Ok(())
}

#[tokio::test]
async fn a_refusal_keeps_its_code_its_node_and_whether_it_ran() -> TestResult {
    let (left, right) = pair().await?;
    let full = left.call(right.id, "full", b"").await.err().ok_or("full")?;
    assert_eq!((full.problem.code, full.problem.node, full.never_ran), (Code::Overloaded, Some(right.id), true));
    let boom = left.call(right.id, "boom", b"").await.err().ok_or("boom")?;
    assert_eq!((boom.problem.code, boom.problem.node, boom.never_ran), (Code::WorkerPanicked, Some(right.id), false));
    tokio::join!(left.stop(), right.stop());
    Ok(())
}

#[tokio::test]
async fn bodies_up_to_the_cap_arrive_whole_and_larger_ones_are_refused_unsent() -> TestResult {
    let (left, right) = pair().await?;
    for size in [0, 1, 4_096, 4_097, 65_536, 1 << 20] {
        let mut call = request("echo", b"", Duration::from_secs(5));
        call.body = (0..size).map(|at: usize| at as u8).collect::<Vec<_>>().into();
        let answered = left.peers.call(right.id, &call).await;
        assert_eq!(answered.map(|response| response.body), Ok(call.body), "{size} bytes");
    }
    let mut call = request("echo", b"", Duration::from_secs(5));
    call.body = vec![0; (1 << 20) + 1].into();
    let refused = left.peers.call(right.id, &call).await.err().ok_or("too large")?;
    assert_eq!((refused.problem.code, refused.never_ran), (Code::BodyTooLarge, true));
    tokio::join!(left.stop(), right.stop());
    Ok(())
}

/// An answer that this node does not take is no fault of the caller's: 500 with the node that gave it, and not 400.
#[tokio::test]
async fn an_answer_over_the_cap_is_no_answer() -> TestResult {
    let (mut left, right) = (Plan::new()?, Plan::new()?);
    left.config.max_body = 16 * 1024;
    let right = right.start().await?;
    let left = left.dials(right.address, Some(right.id)).start().await?;
    left.sees(right.id, PeerState::Up).await?;
    let refused = left.call(right.id, "long", b"").await.err().ok_or("too long")?;
    assert_eq!((refused.problem.code, refused.problem.node), (Code::WorkerDied, Some(right.id)));
    assert!(!refused.never_ran && refused.problem.detail.contains("65536"), "{}", refused.problem.detail);
    assert!(left.call(right.id, "echo", b"and on").await.is_ok(), "the connection lives");
    tokio::join!(left.stop(), right.stop());
    Ok(())
}

/// M-16: who calls a node that cannot be reached shares one attempt with all others, and is told why; who calls right after
/// is refused without another.
#[tokio::test]
async fn callers_of_a_node_that_cannot_be_reached_share_one_attempt() -> TestResult {
    let silent = Plan::new()?;
    let mut plan = Plan::new()?.dials(silent.address()?, Some(silent.id()));
    plan.config.patience = Duration::from_millis(100);
    let never = Duration::from_secs(600);
    plan.config.redial = Redial { first: never, longest: never, longest_refused: never };
    let node = plan.start().await?;
    node.counts("dials_failed", 1).await?;

    let calls = (0..8).map(|_| node.call(silent.id(), "echo", b""));
    for answer in futures::future::join_all(calls).await {
        let refused = answer.err().ok_or("nobody is there")?;
        assert_eq!((refused.problem.code, refused.never_ran), (Code::ProviderDied, true));
        assert!(refused.problem.detail.contains("nobody answers"), "{}", refused.problem.detail);
    }
    assert_eq!((node.counter("dialled"), node.counter("pool_waiters_failed")), (2, 8));

    let refused = node.call(silent.id(), "echo", b"").await.err().ok_or("nobody is there")?;
    assert_eq!((refused.problem.code, refused.never_ran), (Code::ProviderDied, true));
    assert_eq!((node.counter("dialled"), node.counter("pool_refused_backing_off")), (2, 1));
    assert_eq!(node.counter("pool_used"), 0, "no place is kept for it");
    node.stop().await;
    Ok(())
}

/// E-10: the caller's leaving stops the work on the other node at once.
#[tokio::test]
async fn a_call_given_up_is_stopped_where_it_runs() -> TestResult {
    let (left, right) = pair().await?;
    for _ in 0..20 {
        let call = request("hold", b"", Duration::from_secs(60));
        let mut call = Box::pin(left.peers.call(right.id, &call));
        tokio::select! {
            ended = &mut call => return Err(format!("{ended:?}").into()),
            running = right.service.running(1) => running?,
        }
        drop(call);
        right.service.running(0).await?;
    }
    left.counts("calls_out", 0).await?;
    right.counts("calls_in", 0).await?;
    tokio::join!(left.stop(), right.stop());
    Ok(())
}

#[tokio::test]
async fn the_deadline_ends_a_call_on_both_sides() -> TestResult {
    let (left, right) = pair().await?;
    let started = Instant::now();
    let late = left.peers.call(right.id, &request("hold", b"", Duration::from_millis(200))).await;
    let late = late.err().ok_or("late")?;
    assert_eq!((late.problem.code, late.never_ran), (Code::Deadline, false));
    assert!(started.elapsed() < Duration::from_secs(8));
    right.service.running(0).await?;
    tokio::join!(left.stop(), right.stop());
    Ok(())
}

/// M-15: the loss of a peer ends the calls to it now; a provider that closes is a 502 at once.
#[tokio::test]
async fn a_provider_that_stops_in_mid_call_is_a_502_at_once() -> TestResult {
    let (left, right) = pair().await?;
    let call = request("hold", b"", Duration::from_secs(60));
    let (call, ()) = tokio::join!(left.peers.call(right.id, &call), async {
        let _ = right.service.running(1).await;
        right.stop().await;
    });
    assert_eq!(left.counter("calls_out"), 0);
    let died = call.err().ok_or("died")?;
    assert_eq!((died.problem.code, died.never_ran), (Code::ProviderDied, false));
    assert!(died.problem.detail.contains("is stopping"), "{}", died.problem.detail);
    left.stop().await;
    Ok(())
}

/// A provider that is killed sends no packet: 502 by its silence, and not by the call's deadline. The end-to-end test
/// `mesh` measures the time.
#[tokio::test]
async fn a_provider_that_falls_silent_in_mid_call_is_a_502_long_before_the_deadline() -> TestResult {
    let (left, right) = pair().await?;
    let call = request("hold", b"", Duration::from_secs(60));
    let right_id = right.id;
    let mut call = Box::pin(left.peers.call(right_id, &call));
    tokio::select! {
        ended = &mut call => return Err(format!("{ended:?}").into()),
        running = right.service.running(1) => running?,
    }
    right.vanish().await?;
    let silent = Instant::now();
    let died = call.await.err().ok_or("died")?;
    assert_eq!((died.problem.code, died.never_ran), (Code::ProviderDied, false));
    assert!(died.problem.detail.contains("silent"), "{}", died.problem.detail);
    assert!(silent.elapsed() < Duration::from_secs(10), "{:?}", silent.elapsed());
    let seen = left.sees(right_id, PeerState::Down).await?;
    assert!(seen.reason.is_some());
    left.stop().await;
    Ok(())
}

#[tokio::test]
async fn calls_over_the_cap_are_refused_here_and_counted_nowhere_else() -> TestResult {
    let right = Plan::new()?.start().await?;
    let mut left = Plan::new()?.dials(right.address, Some(right.id));
    left.config.calls = 3;
    let left = left.start().await?;
    left.sees(right.id, PeerState::Up).await?;
    let call = request("hold", b"", Duration::from_secs(60));
    let mut held: Vec<_> = (0..3).map(|_| Box::pin(left.peers.call(right.id, &call))).collect();
    for call in &mut held {
        assert!(call.now_or_never().is_none());
    }
    let fourth = left.call(right.id, "echo", b"").await.err().ok_or("over the cap")?;
    assert_eq!((fourth.problem.code, fourth.never_ran), (Code::Overloaded, true));
    drop(held);
    assert!(left.call(right.id, "echo", b"").await.is_ok());
    left.counts("calls_out", 0).await?;
    tokio::join!(left.stop(), right.stop());
    Ok(())
}

/// A connection of a node whose frames the test writes itself.
pub(super) async fn raw(host: &Node, plan: &Plan) -> TestResult<(quinn::Endpoint, quinn::Connection)> {
    raw_with(host, plan, quinn::TransportConfig::default()).await
}

pub(super) async fn raw_with(
    host: &Node,
    plan: &Plan,
    transport: quinn::TransportConfig,
) -> TestResult<(quinn::Endpoint, quinn::Connection)> {
    let endpoint = quinn::Endpoint::client((std::net::Ipv4Addr::LOCALHOST, 0).into())?;
    let config = peer_client_config(&plan.identity, Arc::new(transport))?;
    let connection = endpoint.connect_with(config, host.address, SERVER_NAME)?.await?;
    Ok((endpoint, connection))
}

/// Realm `default`, versions 1 to 1, incarnation 1, no listening address; in postcard.
pub(super) const HELLO: &[u8] = &[1, 0, 0, 12, 0, 0, 0, 0, 7, b'd', b'e', b'f', b'a', b'u', b'l', b't', 1, 1, 1, 0];

pub(super) async fn exchange(connection: &quinn::Connection, frame: &[u8]) -> TestResult<Vec<u8>> {
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(frame).await?;
    send.finish()?;
    Ok(recv.read_to_end(1 << 16).await?)
}

/// Length before allocation: what announces too much is refused on its prefix, and the connection lives.
#[tokio::test]
async fn frames_that_break_a_limit_are_refused_and_harm_nothing_else() -> TestResult {
    let (host, plan) = (Plan::new()?.start().await?, Plan::new()?);
    let (_endpoint, connection) = raw(&host, &plan).await?;
    assert_eq!(exchange(&connection, HELLO).await?[..2], [1, 0], "a hello for a hello");
    host.sees(plan.id(), PeerState::Up).await?;

    let bad: [&[u8]; 7] = [
        &[],
        &[1, 1],
        &[9, 1, 0, 0, 0, 0, 0, 0],
        &[1, 3, 0, 0, 0, 0, 0, 0],
        &[1, 1, 0xff, 0xff, 0, 0, 0, 0],
        &[1, 1, 0, 1, 0x40, 0, 0, 0, 0],
        &[1, 1, 0, 2, 0, 0, 0, 0, 0xff, 0xff],
    ];
    for frame in bad {
        let answer = exchange(&connection, frame).await?;
        let text = String::from_utf8_lossy(&answer);
        assert!(text.contains("bad_frame"), "{frame:?}: {text}");
    }
    host.counts("calls_malformed", bad.len() as u64).await?;
    assert!(connection.close_reason().is_none());
    host.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_node_without_a_hello_is_not_up() -> TestResult {
    let (host, plan) = (Plan::new()?.start().await?, Plan::new()?);
    let (_endpoint, connection) = raw(&host, &plan).await?;
    let (mut send, _recv) = connection.open_bi().await?;
    send.write_all(&[1, 1, 0, 0, 0, 0, 0, 0]).await?;
    send.finish()?;
    let closed = connection.closed().await.to_string();
    assert!(closed.contains("handshake failed"), "{closed}");
    assert_eq!((host.counter("up"), host.counter("open")), (0, 0));
    host.stop().await;
    Ok(())
}

/// Issue 9, point 9: each call of a peer has a worker. One that panics ends its own call and is counted; its connection, the
/// calls beside it and the node go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_panics_ends_its_own_call_only() -> TestResult {
    let (left, right) = pair().await?;
    let mut held = Box::pin(left.call(right.id, "hold", b"still there"));
    assert!(futures::poll!(&mut held).is_pending());
    right.service.running(1).await?;
    assert_eq!(right.counter("workers_peer_call"), 1);
    for _ in 0..3 {
        let died = left.call(right.id, "panic", b"").await.err().ok_or("it panicked")?;
        assert_eq!((died.problem.code, died.problem.node, died.never_ran), (Code::WorkerDied, Some(right.id), false));
    }
    right.counts("calls_panicked", 3).await?;
    assert_eq!(right.events.latest(100).iter().filter(|event| event.kind == EventKind::Panic).count(), 1, "throttled");
    right.service.release.add_permits(1);
    assert_eq!(held.await.map(|response| response.body), Ok(Bytes::from_static(b"still there")));
    right.counts("workers_peer_call", 0).await?;
    assert_eq!((right.counter("up"), right.counter("ended")), (1, 0));
    tokio::join!(left.stop(), right.stop());
    Ok(())
}

/// The workers of a connection end with it, whatever they wait for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_end_with_their_connection() -> TestResult {
    let (left, right) = pair().await?;
    let calls = (0..20).map(|_| left.call(right.id, "hold", b"")).collect::<Vec<_>>();
    let mut calls = Box::pin(futures::future::join_all(calls));
    assert!(futures::poll!(&mut calls).is_pending());
    right.service.running(20).await?;
    right.trust.replace([])?;
    assert!(calls.await.iter().all(Result::is_err));
    right.service.running(0).await?;
    right.counts("workers_peer_call", 0).await?;
    right.counts("calls_abandoned", 20).await?;
    tokio::join!(left.stop(), right.stop());
    Ok(())
}

//! Clients that take more than their share: half-open handshakes, idle connections, cancelled requests, one origin for all.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use h3::error::Code as H3Code;
use http::Request;
use plimsoll::bounded::Cap;
use plimsoll::inspect::Inspect as _;
use plimsoll_mesh::gateway::{AdmissionLimits, Limits};
use plimsoll_mesh::problem::Code;

use crate::support::{Client, Server, closed, dial, dial_from, eventually, head, post};

const EXCESSIVE_LOAD: u64 = 0x107;

fn counter(server: &Server, name: &str) -> u64 {
    server.gateway.inspect().counters.get(name).copied().unwrap_or(0)
}

/// A first flight as an attacker with a forged address sends it: the answer reaches nobody.
pub(crate) async fn forged(server: &Server, count: usize) -> Vec<std::net::UdpSocket> {
    let mut sockets = Vec::new();
    for n in 0..count {
        // A real first packet, which a client sent to somebody else.
        let recorder = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
        let connecting = endpoint.connect_with(server.client_config(), recorder.local_addr().unwrap(), "node").unwrap();
        let mut packet = vec![0; 2048];
        let (bytes, _) = recorder.recv_from(&mut packet).await.unwrap();
        drop(connecting);
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let before = server.gateway.attempts();
        socket.send_to(&packet[..bytes], server.address).unwrap();
        eventually(&format!("packet {n} is seen"), || {
            let now = server.gateway.attempts();
            now.offered + now.retries > before.offered + before.retries
        })
        .await;
        sockets.push(socket);
    }
    sockets
}

/// Handshakes that nobody completes get an eighth of the places; beyond that an address must be proved, so they keep nobody
/// else out.
#[tokio::test]
async fn forged_first_packets_keep_no_client_out() {
    let admission = AdmissionLimits { half_open: Cap::of::<16>(), ..AdmissionLimits::default() };
    let server =
        Server::start(Limits { admission, handshake_timeout: Duration::from_secs(20), ..Limits::default() }).await;
    let _sockets = forged(&server, 64).await;
    let attempts = server.gateway.attempts();
    assert_eq!((attempts.offered, attempts.pending, attempts.retries), (2, 2, 62), "{attempts:?}");
    // A client that reads what it is sent proves its address and comes in.
    let client = server.client().await;
    assert_eq!(client.call("echo", "in").await.unwrap().status, 200);
    let attempts = server.gateway.attempts();
    assert_eq!((attempts.served, attempts.retries), (1, 63));
    assert!(attempts.balanced());
    drop(client);
    drop(server.tree.stop().await.unwrap());
}

/// A client that opens and cancels requests is closed with H3_EXCESSIVE_LOAD once over half of the last 200 were cancelled.
#[tokio::test]
async fn a_client_that_cancels_its_requests_is_disconnected() {
    let server = Server::start(Limits::default()).await;
    let neighbour = server.client().await;
    let connection = dial(&server, server.client_config()).await.unwrap();
    let mut opened = 0;
    while opened < 20_000 && connection.close_reason().is_none() {
        let Ok((mut send, mut recv)) = connection.open_bi().await else { break };
        opened += 1;
        if send.write_all(&head(20, "/v1/call/hang")).await.is_err() {
            break;
        }
        let _ = send.reset(0x10c_u32.into());
        let _ = recv.stop(0x10c_u32.into());
    }
    assert_eq!(closed(&connection).await.0, EXCESSIVE_LOAD);
    assert!(opened < 2_000, "{opened} requests");
    assert_eq!(counter(&server, "disconnected_cancelled_requests"), 1);
    assert_eq!(neighbour.call("echo", "unharmed").await.unwrap().status, 200);
    server.stop().await;
}

/// Cancelling less than half, for as long as one likes, is no attack.
#[tokio::test]
async fn a_client_that_cancels_some_requests_stays() {
    let server = Server::start(Limits::default()).await;
    let client = server.client().await;
    for _ in 0..150 {
        let mut stream = client.open(post("hang").body(()).unwrap()).await.unwrap();
        stream.finish().await.unwrap();
        stream.stop_sending(H3Code::H3_REQUEST_CANCELLED);
        for _ in 0..2 {
            assert_eq!(client.call("echo", "served").await.unwrap().status, 200);
        }
    }
    eventually("all are cancelled", || server.gateway.requests().cancelled == 150).await;
    assert!(client.quic.close_reason().is_none());
    server.stop().await;
}

/// Idle clients do not keep a full gateway for ever, however often they send a PING: the one that was idle for longest goes.
#[tokio::test]
async fn the_longest_idle_client_of_a_full_gateway_makes_room() {
    let admission = AdmissionLimits { per_origin: Some(Cap::of::<4>()), ..AdmissionLimits::default() };
    let limits = Limits { clients: 4, admission, idle_timeout: Duration::from_millis(600), ..Limits::default() };
    let server = Server::start(limits).await;
    // The keep-alives of the clients and of the gateway keep each of them connected.
    let oldest = server.client().await;
    oldest.call("echo", "first").await.unwrap();
    let busy = server.client().await;
    let mut hanging = busy.open(post("hang").body(()).unwrap()).await.unwrap();
    hanging.finish().await.unwrap();
    let subscriber = server.client().await;
    let request = Request::get("https://node/v1/subscribe/a").body(()).unwrap();
    let mut subscription = subscriber.open(request).await.unwrap();
    subscription.finish().await.unwrap();
    assert_eq!(subscription.recv_response().await.unwrap().status(), 200);
    let recent = server.client().await;
    eventually("all are in", || server.gateway.attempts().clients == 4).await;
    // Longer than the idle timeout: keep-alives hold the connections.
    tokio::time::sleep(Duration::from_millis(900)).await;
    recent.call("echo", "again").await.unwrap();
    let new = server.client().await;
    assert_eq!(new.call("echo", "in").await.unwrap().status, 200);
    let (code, reason) = closed(&oldest.quic).await;
    assert_eq!((code, reason.as_str()), (0x100, "the gateway is full and this client was idle for longest"));
    assert_eq!(counter(&server, "disconnected_idle"), 1);
    for other in [&busy, &subscriber, &recent] {
        assert!(other.quic.close_reason().is_none());
    }
    // The others have not been idle for long enough, or not at all.
    let refused = server.client().await.call("echo", "out").await.unwrap();
    assert_eq!(refused.problem().code, Code::MaxClientsReached);
    drop((hanging, subscription));
    server.stop().await;
}

/// By default one address prefix gets half of the places, and the refusal says so.
#[tokio::test]
async fn one_origin_gets_half_of_the_places() {
    let server = Server::start(Limits { clients: 4, ..Limits::default() }).await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        clients.push(dial_from(&server, [127, 1, 0, 1]).await.unwrap());
    }
    eventually("both are in", || server.gateway.attempts().served == 2).await;
    let third = Client::on(dial_from(&server, [127, 1, 0, 2]).await.unwrap()).await;
    let problem = third.call("echo", "out").await.unwrap().problem();
    assert_eq!(problem.code, Code::OriginFull);
    assert!(problem.detail.contains("127.1.0.0/24"), "{}", problem.detail);
    assert_eq!(closed(&third.quic).await, (0x100, "origin_full".into()));
    let other = Client::on(dial_from(&server, [127, 2, 0, 1]).await.unwrap()).await;
    assert_eq!(other.call("echo", "in").await.unwrap().status, 200);
    assert_eq!(counter(&server, "admission_clients_refused_origin_full"), 1);
    assert_eq!(counter(&server, "admission_clients_refused_max_clients"), 0);
    server.stop().await;
}

/// Many connections of one origin get no more requests in flight than its share.
#[tokio::test]
async fn one_origin_gets_its_share_of_requests() {
    let limits = Limits { requests_per_origin: 6, requests_per_client: 4, ..Limits::default() };
    let server = Server::start(limits).await;
    let mut clients = Vec::new();
    for (nth, calls) in [(1, 4), (2, 2)] {
        let client = Client::on(dial_from(&server, [127, 1, 0, nth]).await.unwrap()).await;
        let mut streams = Vec::new();
        for _ in 0..calls {
            let mut stream = client.open(post("hang").body(()).unwrap()).await.unwrap();
            stream.finish().await.unwrap();
            streams.push(stream);
        }
        clients.push((client, streams));
    }
    eventually("six calls run", || server.stand.hanging.load(SeqCst) == 6).await;
    let of_client = clients[0].0.call("echo", "").await.unwrap().problem();
    assert_eq!(of_client.code, Code::RateLimited);
    assert!(of_client.detail.contains("this client has 4"), "{}", of_client.detail);
    let of_origin = clients[1].0.call("echo", "").await.unwrap().problem();
    assert_eq!(of_origin.code, Code::RateLimited);
    assert!(of_origin.detail.contains("127.1.0.0/24"), "{}", of_origin.detail);
    let other = Client::on(dial_from(&server, [127, 2, 0, 1]).await.unwrap()).await;
    assert_eq!(other.call("echo", "in").await.unwrap().status, 200);
    drop(clients);
    eventually("the calls are cancelled", || server.stand.hanging.load(SeqCst) == 0).await;
    let again = Client::on(dial_from(&server, [127, 1, 0, 3]).await.unwrap()).await;
    assert_eq!(again.call("echo", "in").await.unwrap().status, 200);
    server.stop().await;
}

/// Small responses that a client does not acknowledge are bounded and have an end.
#[tokio::test]
async fn unacknowledged_small_responses_are_reset_in_time() {
    let limits =
        Limits { response_timeout: Duration::from_secs(2), idle_timeout: Duration::from_secs(30), ..Limits::default() };
    let server = Server::start(limits).await;
    let relay = crate::support::Relay::start(server.address).await;
    let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    let quic = endpoint.connect_with(server.client_config(), relay.address, "node").unwrap().await.unwrap();
    let client = Client::on(quic).await;
    let mut streams = Vec::new();
    for _ in 0..60 {
        let mut stream = client.open(post("gate").body(()).unwrap()).await.unwrap();
        stream.send_data(vec![7; 4096].into()).await.unwrap();
        stream.finish().await.unwrap();
        streams.push(stream);
    }
    eventually("all calls run", || server.stand.hanging.load(SeqCst) == 60).await;
    relay.cut();
    let began = Instant::now();
    for _ in 0..60 {
        server.stand.gate.notify_one();
        tokio::task::yield_now().await;
    }
    eventually("beyond 32 KiB they are in the budget", || server.gateway.response_bytes_held() > 0).await;
    let held = server.gateway.response_bytes_held();
    assert!((60 * 4096 - 32 * 1024..=60 * 4096).contains(&held), "{held}");
    eventually("they are reset", || {
        server.gateway.response_bytes_held() == 0 && counter(&server, "requests_unacknowledged") > 0
    })
    .await;
    assert!(began.elapsed() >= Duration::from_secs(2));
    let requests = server.gateway.requests();
    assert_eq!(requests.unacknowledged + requests.failed, 60, "{requests:?}");
    drop(streams);
    drop(server.tree.stop().await.unwrap());
}

/// HEADERS frames that are never completed hold no more than the share of their connection.
#[tokio::test]
async fn incomplete_header_sections_of_one_connection_are_bounded() {
    let server = Server::start(Limits::default()).await;
    let connection = dial(&server, server.client_config()).await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..4 {
        let (mut send, recv) = connection.open_bi().await.unwrap();
        // All but the last byte of a section of 32 KiB.
        send.write_all(&[&[0x01, 0x80, 0x00, 0x80, 0x00][..], &vec![0; 32 * 1024 - 1]].concat()).await.unwrap();
        streams.push((send, recv));
    }
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    let _ = send.write_all(&[&[0x01, 0x80, 0x00, 0x80, 0x00][..], &vec![0; 1024]].concat()).await;
    assert_eq!(recv.read_to_end(64).await, Err(quinn::ReadError::Reset(0x107_u32.into()).into()));
    assert!(connection.close_reason().is_none());
    drop(streams);
    let client = server.client().await;
    assert_eq!(client.call("echo", "unharmed").await.unwrap().status, 200);
    server.stop().await;
}

/// A connection whose handshake is half open does not outlast its time, whatever comes meanwhile.
#[tokio::test]
async fn half_open_handshakes_give_their_places_back() {
    let admission = AdmissionLimits { half_open: Cap::of::<16>(), ..AdmissionLimits::default() };
    let limits = Limits { admission, handshake_timeout: Duration::from_millis(300), ..Limits::default() };
    let server = Server::start(limits).await;
    let _sockets = forged(&server, 8).await;
    eventually("they are over", || server.gateway.attempts().pending == 0).await;
    let attempts = server.gateway.attempts();
    assert_eq!((attempts.failed_handshakes, attempts.clients), (attempts.offered, 0));
    assert_eq!(server.client().await.call("echo", "in").await.unwrap().status, 200);
    server.stop().await;
}

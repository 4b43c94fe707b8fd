//! The bytes that all clients may hold together, of requests and of answers that they do not read, and the share of one.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h3::error::Code as H3Code;
use plimsoll::inspect::Inspect as _;
use plimsoll_mesh::gateway::Limits;
use plimsoll_mesh::problem::Code;

use crate::support::{Answer, Client, Relay, Server, Stream, answer, dial, eventually, post};

/// What the tests give to all answers, and what one connection may hold of that.
const ALL: u64 = 400_000;
const SHARE: u64 = ALL / 4;

fn scarce() -> Limits {
    let response_timeout = Duration::from_secs(600);
    Limits { all_responses_bytes: ALL as usize, all_bodies_bytes: 1000, response_timeout, ..Limits::default() }
}

/// How a client connects to which an answer comes only as far as it reads it.
fn narrow(server: &Server) -> quinn::ClientConfig {
    let mut narrow = quinn::TransportConfig::default();
    narrow.stream_receive_window(1024u32.into());
    let mut config = server.client_config();
    config.transport_config(narrow.into());
    config
}

async fn slow_reader(server: &Server) -> Client {
    Client::on(dial(server, narrow(server)).await.unwrap()).await
}

/// A client that can vanish: no packet of it arrives any more.
struct Vanishing {
    relay: Relay,
    client: Client,
}

impl Vanishing {
    async fn connect(server: &Server, config: quinn::ClientConfig) -> Self {
        let relay = Relay::start(server.address).await;
        let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
        let quic = endpoint.connect_with(config, relay.address, "node").unwrap().await.unwrap();
        Self { relay, client: Client::on(quic).await }
    }

    fn vanish(&self) {
        self.relay.cut();
    }
}

/// Asks for an answer of so many bytes and does not read it.
async fn unread(client: &Client, bytes: u64) -> Stream {
    let mut stream = client.open(post("size").body(()).unwrap()).await.unwrap();
    stream.send_data(bytes.to_string().into()).await.unwrap();
    stream.finish().await.unwrap();
    stream
}

/// Sends a body whose call does not end.
async fn held_body(client: &Client, bytes: usize) -> Stream {
    let mut stream = client.open(post("hang").body(()).unwrap()).await.unwrap();
    stream.send_data(vec![0; bytes].into()).await.unwrap();
    stream.finish().await.unwrap();
    stream
}

async fn size(client: &Client, bytes: u64) -> Answer {
    client.call("size", bytes.to_string()).await.unwrap()
}

async fn until_held(server: &Server, bytes: u64) {
    eventually(&format!("{bytes} bytes of answers are held"), || server.gateway.response_bytes_held() == bytes).await;
}

fn figures<const N: usize>(server: &Server, names: [&str; N]) -> [u64; N] {
    let counters = server.gateway.inspect().counters;
    names.map(|name| counters.get(name).copied().unwrap_or(0))
}

/// M-1, M-19: readers that read, reset or leave give back what they held, and none but these.
#[tokio::test]
async fn all_responses_together_have_a_cap() {
    let server = Server::start(scarce()).await;
    let mut readers = Vec::new();
    for nth in 1..=4 {
        let client = slow_reader(&server).await;
        let stream = unread(&client, SHARE).await;
        readers.push((client, stream));
        until_held(&server, nth * SHARE).await;
    }
    let other = server.client().await;
    let named = post("size").header("plimsoll-call-id", "mine").body(Bytes::from_static(b"5000")).unwrap();
    let refused = other.request(named).await.unwrap();
    assert_eq!((refused.header("plimsoll-call-id"), refused.header("retry-after")), (Some("mine"), Some("1")));
    let problem = refused.problem();
    assert_eq!(problem.code, Code::Overloaded);
    assert_eq!(
        problem.detail,
        "the request was served, but its response was dropped: responses of all clients together hold 400000 of 400000 \
         bytes, 5000 more are too many"
    );
    let small = size(&other, Limits::LISTED_RESPONSE as u64).await;
    assert_eq!((small.status.as_u16(), small.body.len()), (200, Limits::LISTED_RESPONSE), "a small one needs no room");

    let (_first, mut stream) = readers.pop().unwrap();
    assert_eq!(answer(&mut stream).await.unwrap().body.len(), SHARE as usize);
    until_held(&server, 3 * SHARE).await;
    assert_eq!(size(&other, SHARE).await.body.len(), SHARE as usize);
    until_held(&server, 3 * SHARE).await;
    let (_second, mut stream) = readers.pop().unwrap();
    stream.stop_sending(H3Code::H3_REQUEST_CANCELLED);
    until_held(&server, 2 * SHARE).await;
    let (third, _stream) = readers.pop().unwrap();
    third.quic.close(0x100u32.into(), b"bye");
    until_held(&server, SHARE).await;
    assert_eq!(answer(&mut readers[0].1).await.unwrap().body.len(), SHARE as usize);
    until_held(&server, 0).await;
    assert_eq!(
        figures(
            &server,
            [
                "response_bytes_cap",
                "response_bytes_high_water",
                "response_bytes_refused_full",
                "response_bytes_refused_share"
            ]
        ),
        [ALL, ALL, 1, 0]
    );
    assert_eq!(figures(&server, ["refused_overloaded", "requests_completed", "requests_cancelled"]), [1, 5, 2]);
    server.stop().await;
}

/// M-1: what is not read in time is given up, and its bytes with it.
#[tokio::test]
async fn a_response_that_is_not_read_in_time_is_released() {
    let server = Server::start(Limits { response_timeout: Duration::from_secs(2), ..scarce() }).await;
    let client = slow_reader(&server).await;
    let _stream = unread(&client, SHARE).await;
    until_held(&server, SHARE).await;
    until_held(&server, 0).await;
    assert_eq!(figures(&server, ["requests_failed", "response_bytes_high_water"]), [1, SHARE]);
    server.stop().await;
}

/// M-1: a reader that is gone without a word holds nothing for longer than its connection is kept.
#[tokio::test]
async fn a_reader_that_vanishes_gives_back_what_it_held() {
    let server = Server::start(Limits { idle_timeout: Duration::from_secs(2), ..scarce() }).await;
    let reader = Vanishing::connect(&server, narrow(&server)).await;
    let _stream = unread(&reader.client, SHARE).await;
    until_held(&server, SHARE).await;
    reader.vanish();
    until_held(&server, 0).await;
    assert_eq!(server.gateway.requests().cancelled, 1);
    server.stop().await;
}

/// Asks for 50,000 bytes and is gone before they are there. They fit the windows: they are written at once, to nobody.
async fn written_to_nobody(server: &Server) -> Stream {
    let reader = Vanishing::connect(server, server.client_config()).await;
    let mut stream = reader.client.open(post("gate").body(()).unwrap()).await.unwrap();
    stream.send_data(vec![7; 50_000].into()).await.unwrap();
    stream.finish().await.unwrap();
    eventually("the call runs", || server.stand.hanging.load(SeqCst) == 1).await;
    reader.vanish();
    server.stand.gate.notify_one();
    until_held(server, 50_000).await;
    stream
}

/// M-1: what was written whole and never acknowledged goes with the connection, and was no answer to anybody.
#[tokio::test]
async fn a_client_that_vanishes_during_a_response_counts_as_cancelled() {
    let server = Server::start(Limits { idle_timeout: Duration::from_secs(2), ..Limits::default() }).await;
    let _stream = written_to_nobody(&server).await;
    until_held(&server, 0).await;
    assert_eq!(figures(&server, ["requests_completed", "requests_cancelled"]), [0, 1]);
    server.stop().await;
}

/// M-1: what the transport has taken is in memory until it is acknowledged, so it counts until then, however long that
/// takes; and it does not take for ever.
#[tokio::test]
async fn a_response_is_held_until_it_is_acknowledged_or_reset() {
    let server = Server::start(Limits { response_timeout: Duration::from_secs(2), ..Limits::default() }).await;
    let began = Instant::now();
    let _stream = written_to_nobody(&server).await;
    until_held(&server, 0).await;
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(server.gateway.requests().failed, 1);
    server.stop().await;
}

/// M-1: one client may hold a quarter of all answers, and locks nobody out by it.
#[tokio::test]
async fn one_connection_holds_at_most_its_share_of_all_responses() {
    let server = Server::start(scarce()).await;
    let (greedy, other) = (slow_reader(&server).await, server.client().await);
    let mut first = unread(&greedy, 60_000).await;
    until_held(&server, 60_000).await;
    let refused = size(&greedy, 40_001).await;
    assert_eq!(refused.header("retry-after"), Some("1"));
    let problem = refused.problem();
    assert_eq!(problem.code, Code::RateLimited);
    assert_eq!(
        problem.detail,
        "the request was served, but its response was dropped: responses of this connection hold 60000 of the 100000 bytes \
         that one may, 40001 more are too many"
    );
    let mut second = unread(&greedy, 40_000).await;
    until_held(&server, SHARE).await;
    assert_eq!(size(&greedy, 5_000).await.problem().code, Code::RateLimited);
    assert_eq!(size(&other, SHARE).await.body.len(), SHARE as usize, "nobody else is locked out");
    // What could never be held is not to be asked for again.
    let never = size(&other, SHARE + 1).await;
    assert_eq!((never.header("retry-after"), never.problem().code), (None, Code::WorkerDied));

    assert_eq!(answer(&mut first).await.unwrap().body.len(), 60_000);
    assert_eq!(answer(&mut second).await.unwrap().body.len(), 40_000);
    until_held(&server, 0).await;
    assert_eq!(size(&greedy, SHARE).await.body.len(), SHARE as usize);
    until_held(&server, 0).await;
    assert_eq!(
        figures(
            &server,
            ["response_bytes_refused_full", "response_bytes_refused_share", "response_bytes_refused_too_large"]
        ),
        [0, 2, 1]
    );
    assert_eq!(figures(&server, ["refused_rate_limited", "refused_worker_died", "requests_completed"]), [2, 1, 7]);
    server.stop().await;
}

#[tokio::test]
async fn all_bodies_together_have_a_cap() {
    let server = Server::start(scarce()).await;
    let mut held = Vec::new();
    for (nth, bytes) in [(1, 250), (2, 250), (3, 250), (4, 150)] {
        let client = server.client().await;
        let stream = held_body(&client, bytes).await;
        held.push((client, stream));
        eventually("the body is held", || server.stand.hanging.load(SeqCst) == nth).await;
    }
    assert_eq!(server.gateway.body_bytes_held(), 900);
    let client = server.client().await;
    let problem = client.call("echo", vec![0; 101]).await.unwrap().problem();
    assert_eq!(problem.code, Code::Overloaded);
    assert_eq!(problem.detail, "request bodies of all clients together hold 900 of 1000 bytes, 101 more are too many");
    assert_eq!(client.call("echo", vec![0; 100]).await.unwrap().body.len(), 100);
    for (_, stream) in &mut held {
        stream.stop_sending(H3Code::H3_REQUEST_CANCELLED);
    }
    eventually("they are given back with their requests", || server.gateway.body_bytes_held() == 0).await;
    assert_eq!(
        figures(&server, ["body_bytes_high_water", "body_bytes_refused_full", "body_bytes_refused_share"]),
        [1000, 1, 0]
    );
    server.stop().await;
}

/// M-1: one client may hold a quarter of all bodies, and locks nobody out by it.
#[tokio::test]
async fn one_connection_holds_at_most_its_share_of_all_bodies() {
    let server = Server::start(scarce()).await;
    let (greedy, other) = (server.client().await, server.client().await);
    let mut held = held_body(&greedy, 200).await;
    eventually("the body is held", || server.stand.hanging.load(SeqCst) == 1).await;
    let problem = greedy.call("echo", vec![0; 51]).await.unwrap().problem();
    assert_eq!(problem.code, Code::RateLimited);
    assert_eq!(
        problem.detail,
        "request bodies of this connection hold 200 of the 250 bytes that one may, 51 more are too many"
    );
    assert_eq!(greedy.call("echo", vec![0; 50]).await.unwrap().body.len(), 50);
    assert_eq!(other.call("echo", vec![0; 250]).await.unwrap().body.len(), 250, "nobody else is locked out");
    assert_eq!(other.call("echo", vec![0; 251]).await.unwrap().problem().code, Code::BodyTooLarge);
    held.stop_sending(H3Code::H3_REQUEST_CANCELLED);
    eventually("it is given back with its request", || server.gateway.body_bytes_held() == 0).await;
    assert_eq!(greedy.call("echo", vec![0; 250]).await.unwrap().body.len(), 250);
    assert_eq!(
        figures(&server, ["body_bytes_refused_full", "body_bytes_refused_share", "body_bytes_refused_too_large"]),
        [0, 1, 1]
    );
    server.stop().await;
}

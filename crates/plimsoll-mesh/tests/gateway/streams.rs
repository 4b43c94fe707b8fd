//! Who holds the stream: panics, and clients that leave.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h3::error::{Code as H3Code, StreamError};
use http::Response;
use plimsoll_mesh::gateway::Limits;
use plimsoll_mesh::http3::Connection;
use plimsoll_mesh::problem::Code;

use crate::support::{Client, Relay, Server, answer, dial, eventually, post};

#[tokio::test]
async fn a_panic_behind_the_gateway_is_a_problem_and_harms_no_other_request() {
    let server = Server::start(Limits::default()).await;
    let client = server.client().await;
    let mut neighbour = client.open(post("gate").body(()).unwrap()).await.unwrap();
    neighbour.finish().await.unwrap();
    let problem = client.call("panic", "on purpose").await.unwrap().problem();
    assert_eq!((problem.code, problem.status), (Code::WorkerPanicked, 500));
    eventually("the neighbour runs", || server.stand.hanging.load(SeqCst) == 1).await;
    server.stand.gate.notify_one();
    assert_eq!(answer(&mut neighbour).await.unwrap().status, 200);
    assert_eq!(server.gateway.requests().panicked, 1);
    server.stop().await;
}

/// When a task that does hold a stream panics, what the client sees.
#[derive(Clone, Copy, PartialEq)]
enum Panics {
    BeforeTheHeaders,
    InTheBody,
    AfterFinish,
}

/// A bare server on the adapter, whose handlers panic while they hold their stream, as no code of the gateway does.
async fn careless_server(quic: quinn::Connection, when: Panics) {
    let mut h3: h3::server::Connection<Connection, Bytes> =
        h3::server::builder().build(Connection::server(quic)).await.unwrap();
    while let Ok(Some(resolver)) = h3.accept().await {
        tokio::spawn(async move {
            let (request, mut stream) = resolver.resolve_request().await.unwrap();
            let careful = request.uri().path() != "/v1/call/panic";
            assert!(careful || when != Panics::BeforeTheHeaders, "before the headers");
            stream.send_response(Response::new(())).await.unwrap();
            stream.send_data(Bytes::from_static(b"first half")).await.unwrap();
            assert!(careful || when != Panics::InTheBody, "in the body");
            stream.send_data(Bytes::from_static(b", second half")).await.unwrap();
            stream.finish().await.unwrap();
            assert!(careful, "after finish");
        });
    }
}

async fn panicking_with_the_stream(when: Panics) -> Result<crate::support::Answer, StreamError> {
    let server = Server::start(Limits::default()).await;
    server.ask_to_stop();
    let identity = plimsoll_mesh::identity::Identity::generate().unwrap();
    let config = plimsoll_mesh::identity::server_config(&identity, std::sync::Arc::default()).unwrap();
    let endpoint = quinn::Endpoint::server(config, ([127, 0, 0, 1], 0).into()).unwrap();
    let address = endpoint.local_addr().unwrap();
    let accepting = tokio::spawn(async move { endpoint.accept().await.unwrap().await.unwrap() });
    let dialled = {
        let config = plimsoll_mesh::identity::client_config(identity.node_id(), std::sync::Arc::default()).unwrap();
        let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
        endpoint.connect_with(config, address, "node").unwrap().await.unwrap()
    };
    tokio::spawn(careless_server(accepting.await.unwrap(), when));
    let client = Client::on(dialled).await;
    let outcome = client.call("panic", "").await;
    for _ in 0..3 {
        let other = client.call("other", "").await.unwrap();
        assert_eq!(&other.body[..], b"first half, second half", "the connection's other requests are unharmed");
    }
    outcome
}

#[tokio::test]
async fn a_panic_before_the_headers_is_a_stream_error() {
    let error = panicking_with_the_stream(Panics::BeforeTheHeaders).await.unwrap_err();
    assert!(matches!(error, StreamError::RemoteTerminate { code: H3Code::H3_INTERNAL_ERROR, .. }), "{error}");
}

#[tokio::test]
async fn a_panic_in_the_body_is_a_stream_error_and_never_a_whole_answer() {
    let error = panicking_with_the_stream(Panics::InTheBody).await.unwrap_err();
    assert!(matches!(error, StreamError::RemoteTerminate { code: H3Code::H3_INTERNAL_ERROR, .. }), "{error}");
}

#[tokio::test]
async fn a_panic_after_finish_takes_nothing_back() {
    let whole = panicking_with_the_stream(Panics::AfterFinish).await.unwrap();
    assert_eq!(&whole.body[..], b"first half, second half");
}

async fn hanging(server: &Server, client: &Client) -> crate::support::Stream {
    let before = server.stand.hanging.load(SeqCst);
    let mut stream = client.open(post("hang").body(()).unwrap()).await.unwrap();
    stream.finish().await.unwrap();
    eventually("the call runs", || server.stand.hanging.load(SeqCst) == before + 1).await;
    stream
}

/// M-15: a client that leaves cancels its calls.
#[tokio::test]
async fn a_client_that_stops_reading_cancels_its_call_at_once() {
    let server = Server::start(Limits::default()).await;
    let client = server.client().await;
    let mut stream = hanging(&server, &client).await;
    let _kept = hanging(&server, &client).await;
    stream.stop_sending(H3Code::H3_REQUEST_CANCELLED);
    eventually("the call is given up", || server.stand.hanging.load(SeqCst) == 1).await;
    assert_eq!(server.gateway.requests().cancelled, 1);
    assert_eq!(client.call("echo", "unharmed").await.unwrap().status, 200);
    server.stop().await;
}

/// M-15: a client that leaves cancels its calls.
#[tokio::test]
async fn a_client_that_resets_its_body_gives_the_call_up() {
    let server = Server::start(Limits::default()).await;
    let client = server.client().await;
    let mut stream = client.open(post("echo").body(()).unwrap()).await.unwrap();
    stream.send_data(Bytes::from_static(b"half")).await.unwrap();
    eventually("the body is being read", || server.gateway.body_bytes_held() == 4).await;
    stream.stop_stream(H3Code::H3_REQUEST_CANCELLED);
    eventually("the request is given up", || server.gateway.requests().cancelled == 1).await;
    assert_eq!(server.gateway.body_bytes_held(), 0);
    server.stop().await;
}

/// M-15: a client that leaves cancels its calls.
#[tokio::test]
async fn a_client_that_closes_cancels_all_its_calls_at_once() {
    let server = Server::start(Limits::default()).await;
    let client = server.client().await;
    let calls = [hanging(&server, &client).await, hanging(&server, &client).await];
    client.quic.close(0x100u32.into(), b"bye");
    eventually("the calls are given up", || server.stand.hanging.load(SeqCst) == 0).await;
    eventually("the place is free", || server.gateway.attempts().clients == 0).await;
    assert_eq!(server.gateway.requests().cancelled, 2);
    drop(calls);
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_vanishes_is_missed_after_the_idle_time() {
    let server = Server::start(Limits { idle_timeout: Duration::from_millis(500), ..Limits::default() }).await;
    let relay = Relay::start(server.address).await;
    let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    let quic = endpoint.connect_with(server.client_config(), relay.address, "node").unwrap().await.unwrap();
    let client = Client::on(quic).await;
    let _call = hanging(&server, &client).await;
    let vanished = Instant::now();
    // No packet says that the client is gone.
    relay.cut();
    eventually("the call is given up", || server.stand.hanging.load(SeqCst) == 0).await;
    assert!(vanished.elapsed() < Duration::from_secs(9));
    eventually("the place is free", || server.gateway.attempts().clients == 0).await;
    drop(dial(&server, server.client_config()).await.unwrap());
    server.stop().await;
}

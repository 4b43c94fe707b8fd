//! The kinds of public bug reports of other gateways and brokers, each tried here. The source stands above each test.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use h3::error::Code as H3Code;
use http::Request;
use plimsoll_mesh::gateway::Limits;
use plimsoll_mesh::problem::Code;

use crate::support::{Client, Relay, Server, Stream, answer, closed, dial, eventually, frame, head, post};

const POST: u8 = 20;

/// <https://github.com/alibaba/xquic/issues/742>: DATA before the header section was buffered, and an empty DATA frame passed.
#[tokio::test]
async fn xquic_742_data_before_headers_is_not_buffered() {
    let server = Server::start(Limits::default()).await;
    for first in [frame(0x0, b""), frame(0x0, b"early")] {
        let connection = dial(&server, server.client_config()).await.unwrap();
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(&[first, head(POST, "/v1/call/echo")].concat()).await.unwrap();
        assert_eq!(closed(&connection).await.0, 0x105);
    }
    assert!(server.stand.last.lock().is_none());
    server.stop().await;
}

/// <https://github.com/lodgvideon/poseidon-http-server/issues/167>: DATA after the trailers was folded into the body.
#[tokio::test]
async fn poseidon_167_data_after_trailers_never_reaches_the_service() {
    let server = Server::start(Limits::default()).await;
    let connection = dial(&server, server.client_config()).await.unwrap();
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    let trailers = frame(0x1, &[0, 0]);
    send.write_all(&[head(POST, "/v1/call/echo"), frame(0x0, b"body"), trailers].concat()).await.unwrap();
    // In a later packet, so that the body and the trailers are read before.
    eventually("the body is read", || server.gateway.body_bytes_held() == 4).await;
    send.write_all(&frame(0x0, b"after")).await.unwrap();
    assert_eq!(closed(&connection).await.0, 0x105);
    assert!(server.stand.last.lock().is_none());
    server.stop().await;
}

/// <https://github.com/quicwg/base-drafts/issues/2858>: a second trailer section was discarded in silence.
#[tokio::test]
async fn base_drafts_2858_a_second_trailer_section_is_an_error() {
    let server = Server::start(Limits::default()).await;
    let connection = dial(&server, server.client_config()).await.unwrap();
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    let trailers = frame(0x1, &[0, 0]);
    let message = [head(POST, "/v1/call/echo"), frame(0x0, b"body"), trailers.clone(), trailers].concat();
    send.write_all(&message).await.unwrap();
    assert_eq!(closed(&connection).await.0, 0x105);
    server.stop().await;
}

/// <https://github.com/netty/netty-incubator-codec-http3/pull/89> and <https://github.com/hyperium/h2/pull/813>: a body that
/// contradicts its content-length was served, above all an empty one.
#[tokio::test]
async fn netty_http3_89_a_body_that_contradicts_its_length_is_not_served() {
    let server = Server::start(Limits::default()).await;
    let client = server.client().await;
    for (length, body) in [("5", ""), ("5", "four"), ("5", "sixsix"), ("0", "x")] {
        let request = post("echo").header("content-length", length).body(Bytes::from_static(body.as_bytes())).unwrap();
        assert_eq!(client.request(request).await.unwrap().problem().code, Code::BadFrame, "{length}: {body:?}");
    }
    assert!(server.stand.last.lock().is_none());
    server.stop().await;
}

/// <https://github.com/haga-rak/fluxzy.core/pull/613>: Firefox sends an empty DATA frame after the head of a request with
/// content-length 0, which broke the request.
#[tokio::test]
async fn fluxzy_613_an_empty_data_frame_after_content_length_zero_is_served() {
    let server = Server::start(Limits::default()).await;
    let client = server.client().await;
    let mut stream = client.open(post("echo").header("content-length", "0").body(()).unwrap()).await.unwrap();
    stream.send_data(Bytes::new()).await.unwrap();
    stream.finish().await.unwrap();
    let served = answer(&mut stream).await.unwrap();
    assert_eq!((served.status.as_u16(), served.body.len()), (200, 0));
    server.stop().await;
}

/// <https://github.com/oven-sh/bun/pull/35763>: one large header field ended the whole connection with all its requests.
#[tokio::test]
async fn bun_35763_a_large_header_field_ends_no_other_request() {
    let server = Server::start(Limits::default()).await;
    let client = server.client().await;
    let mut neighbour = client.open(post("gate").body(()).unwrap()).await.unwrap();
    neighbour.finish().await.unwrap();
    eventually("the neighbour runs", || server.stand.hanging.load(SeqCst) == 1).await;
    for size in [20_000, 40_000, 60_000] {
        let large = post("echo").header("x-large", "A".repeat(size)).body(Bytes::new()).unwrap();
        match client.request(large).await {
            Ok(refused) => assert_eq!(refused.problem().code, Code::HeadersTooLarge, "{size}"),
            Err(error) => assert!(error.to_string().contains("EXCESSIVE_LOAD"), "{size}: {error}"),
        }
    }
    server.stand.gate.notify_one();
    assert_eq!(answer(&mut neighbour).await.unwrap().status, 200);
    server.stop().await;
}

/// <https://github.com/quinn-rs/quinn/issues/1680>: HTTP/2's rapid reset, as a server on QUIC sees it.
#[tokio::test]
async fn quinn_1680_rapid_reset_ends_the_connection_and_leaves_no_call() {
    let server = Server::start(Limits::default()).await;
    let client = server.client().await;
    let mut opened = 0;
    while opened < 5_000 {
        let Ok(mut stream) = client.open(post("hang").body(()).unwrap()).await else { break };
        stream.stop_stream(H3Code::H3_REQUEST_CANCELLED);
        stream.stop_sending(H3Code::H3_REQUEST_CANCELLED);
        opened += 1;
    }
    assert_eq!(closed(&client.quic).await.0, 0x107);
    assert!(opened < 2_000, "{opened}");
    eventually("no call is left", || server.stand.hanging.load(SeqCst) == 0).await;
    eventually("no request is left", || server.gateway.requests().in_flight == 0).await;
    server.stop().await;
}

async fn subscribe(client: &Client, filter: &str) -> Stream {
    let request = Request::get(format!("https://node/v1/subscribe/{filter}")).body(()).unwrap();
    let mut stream = client.open(request).await.unwrap();
    stream.finish().await.unwrap();
    assert_eq!(stream.recv_response().await.unwrap().status(), 200);
    stream
}

/// <https://github.com/nats-io/nats-server/issues/2679>: a subscriber whose process is suspended blocked the publisher, and
/// through it all others, for the whole write deadline.
#[tokio::test]
async fn nats_2679_a_suspended_subscriber_blocks_neither_publisher_nor_others() {
    let server = Server::start(Limits::default()).await;
    let relay = Relay::start(server.address).await;
    let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    let quic = endpoint.connect_with(server.client_config(), relay.address, "node").unwrap().await.unwrap();
    let suspended = Client::on(quic).await;
    let _stalled = subscribe(&suspended, "a").await;
    let (reader, publisher) = (server.client().await, server.client().await);
    let mut reading = subscribe(&reader, "a").await;
    relay.cut();
    let mut slowest = Duration::ZERO;
    for _ in 0..50 {
        let began = Instant::now();
        let request = Request::post("https://node/v1/publish/a").body(Bytes::from(vec![b'x'; 20_000])).unwrap();
        assert_eq!(publisher.request(request).await.unwrap().status, 200);
        slowest = slowest.max(began.elapsed());
        let mut received = 0;
        while received < 20_000 {
            received += reading.recv_data().await.unwrap().unwrap().remaining();
        }
    }
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    drop(server.tree.stop().await.unwrap());
}

/// <https://github.com/cloudflare/quiche/issues/887> and <https://github.com/quinn-rs/quinn/issues/1160>: after a change of the
/// client's address the connection received nothing until its idle timeout.
#[tokio::test]
async fn quiche_887_a_call_in_flight_survives_a_change_of_address() {
    let server = Server::start(Limits::default()).await;
    let relay = Relay::start(server.address).await;
    let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    let quic = endpoint.connect_with(server.client_config(), relay.address, "node").unwrap().await.unwrap();
    let client = Client::on(quic).await;
    let mut call = client.open(post("gate").body(()).unwrap()).await.unwrap();
    call.finish().await.unwrap();
    eventually("the call runs", || server.stand.hanging.load(SeqCst) == 1).await;
    relay.rebind().await;
    // The gateway sees the new address with the client's next packet.
    assert_eq!(client.call("echo", "from the new address").await.unwrap().status, 200);
    server.stand.gate.notify_one();
    let began = Instant::now();
    assert_eq!(answer(&mut call).await.unwrap().status, 200);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    server.stop().await;
}

/// <https://github.com/electric-sql/electric/pull/4708> and <https://github.com/naviserver-project/naviserver/issues/38>:
/// responses to clients that stopped reading stayed in memory without a bound and without an end, and appeared in no counter.
#[tokio::test]
async fn electric_4708_stalled_responses_are_bounded_counted_and_end() {
    let limits = Limits { response_timeout: Duration::from_secs(2), all_responses_bytes: 1 << 20, ..Limits::default() };
    let server = Server::start(limits).await;
    let mut narrow = quinn::TransportConfig::default();
    narrow.stream_receive_window(1024u32.into());
    let mut config = server.client_config();
    config.transport_config(narrow.into());
    let client = Client::on(dial(&server, config).await.unwrap()).await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = client.open(post("size").body(()).unwrap()).await.unwrap();
        stream.send_data(Bytes::from_static(b"100000")).await.unwrap();
        stream.finish().await.unwrap();
        streams.push(stream);
    }
    eventually("some are held", || server.gateway.response_bytes_held() > 0).await;
    let mut most = 0;
    eventually("they end", || {
        most = most.max(server.gateway.response_bytes_held());
        server.gateway.response_bytes_held() == 0
    })
    .await;
    assert!(most <= (1 << 20) / 4, "{most}");
    eventually("each is counted", || {
        let requests = server.gateway.requests();
        requests.balanced() && requests.in_flight == 0 && requests.failed > 0
    })
    .await;
    server.stop().await;
}

/// <https://github.com/hyperium/h3/issues/308> and <https://github.com/alibaba/xquic/issues/959>: a body that came faster than
/// it was used was buffered without a bound.
#[tokio::test]
async fn h3_308_bodies_are_buffered_within_their_budget() {
    let limits = Limits { all_bodies_bytes: 1 << 20, body_timeout: Duration::from_secs(2), ..Limits::default() };
    let server = Server::start(limits).await;
    let client = server.client().await;
    let mut streams = Vec::new();
    for _ in 0..16 {
        let mut stream = client.open(post("echo").body(()).unwrap()).await.unwrap();
        // 100,000 bytes, and no end.
        let _ = tokio::time::timeout(Duration::from_secs(1), stream.send_data(vec![0; 100_000].into())).await;
        assert!(server.gateway.body_bytes_held() <= (1 << 20) / 4);
        streams.push(stream);
    }
    eventually("they are refused or too slow", || server.gateway.body_bytes_held() == 0).await;
    assert_eq!(client.call("echo", "unharmed").await.unwrap().status, 200);
    server.stop().await;
}

/// <https://github.com/dotnet/aspnetcore/issues/32007> and <https://github.com/ngtcp2/nghttp3/issues/86>: requests that were
/// on their way when GOAWAY was sent were lost in silence.
#[tokio::test]
async fn aspnetcore_32007_every_request_around_goaway_has_an_outcome() {
    let server = Server::start(Limits::default()).await;
    let client = server.client().await;
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..40 {
        let send = client.send.clone();
        calls.spawn(async move {
            let client = send;
            let mut client = client;
            let mut stream = client.send_request(post("sleep").body(()).unwrap()).await.ok()?;
            stream.send_data(Bytes::from((n % 5 * 10).to_string())).await.ok()?;
            stream.finish().await.ok()?;
            Some(answer(&mut stream).await)
        });
    }
    eventually("some run", || server.stand.hanging.load(SeqCst) > 5).await;
    server.ask_to_stop();
    for call in calls.join_all().await {
        match call {
            // Not sent: the client had received GOAWAY.
            None => {}
            Some(Ok(answer)) => {
                assert!(answer.status == 200 || answer.problem().code == Code::ShuttingDown, "{answer:?}");
            }
            Some(Err(error)) => panic!("a request without an outcome: {error}"),
        }
    }
    server.stop().await;
}

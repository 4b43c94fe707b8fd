//! Every limit on a request, from the client's side.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use plimsoll_mesh::gateway::Limits;
use plimsoll_mesh::problem::Code;

use crate::support::{Server, answer, dial, eventually, post};

fn quick() -> Limits {
    let soon = Duration::from_millis(200);
    Limits { header_timeout: soon, body_timeout: soon, response_timeout: soon, ..Limits::default() }
}

#[tokio::test]
async fn refusals_of_the_gateway_itself() {
    let server = Server::start(Limits::default()).await;
    let client = server.client().await;
    let request = |method: &str, path: &str| {
        Request::builder().method(method).uri(format!("https://node{path}")).body(Bytes::new()).unwrap()
    };
    for (method, path, code, allow) in [
        ("GET", "/", Code::NoSuchRoute, None),
        ("GET", "/v1/admin/snapshot", Code::NoSuchRoute, None),
        ("GET", "/v1/call/echo", Code::MethodNotAllowed, Some("POST")),
        ("POST", "/v1/nodes", Code::MethodNotAllowed, Some("GET")),
        ("POST", "/v1/call/Echo", Code::BadName, None),
    ] {
        let answer = client.request(request(method, path)).await.unwrap();
        let problem = answer.problem();
        assert_eq!((problem.code, problem.node), (code, Some(server.node)), "{method} {path}");
        assert_eq!(answer.header("allow"), allow, "{method} {path}");
    }
    for (name, value, code) in [
        ("plimsoll-deadline-ms", "soon", Code::BadDeadline),
        ("plimsoll-call-id", "", Code::BadFrame),
        ("x-long", &"x".repeat(17 * 1024), Code::HeadersTooLarge),
    ] {
        let answer = client.request(post("echo").header(name, value).body(Bytes::new()).unwrap()).await.unwrap();
        assert_eq!(answer.problem().code, code, "{name}");
    }
    let many = (0..65).fold(post("echo"), |request, n| request.header(format!("x-{n}"), ""));
    assert_eq!(client.request(many.body(Bytes::new()).unwrap()).await.unwrap().problem().code, Code::HeadersTooLarge);
    server.stop().await;
}

#[tokio::test]
async fn a_long_deadline_reaches_the_service_clamped() {
    let server = Server::start(Limits::default()).await;
    let client = server.client().await;
    let before = std::time::Instant::now();
    client.request(post("echo").header("plimsoll-deadline-ms", "86400000").body(Bytes::new()).unwrap()).await.unwrap();
    let deadline = server.stand.last.lock().as_ref().unwrap().deadline;
    assert!(deadline >= before + Duration::from_secs(60) && deadline <= before + Duration::from_secs(62));
    server.stop().await;
}

#[tokio::test]
async fn a_body_is_taken_to_the_byte_and_not_beyond() {
    let server = Server::start(Limits::default()).await;
    let client = server.client().await;
    let fits = client.call("echo", vec![1; 1 << 20]).await.unwrap();
    assert_eq!(fits.body.len(), 1 << 20);
    // Announced: refused before it comes. Not announced: refused when it passes the cap.
    let announced = post("echo").header("content-length", "1048577").body(()).unwrap();
    let mut stream = client.open(announced).await.unwrap();
    assert_eq!(answer(&mut stream).await.unwrap().problem().code, Code::BodyTooLarge);
    let mut stream = client.open(post("echo").body(()).unwrap()).await.unwrap();
    // The gateway stops the stream as soon as it has seen enough, so that sending may fail.
    let _ = stream.send_data(vec![1; (1 << 20) + 1].into()).await;
    assert_eq!(answer(&mut stream).await.unwrap().problem().code, Code::BodyTooLarge);
    assert_eq!(server.gateway.body_bytes_held(), 0);
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_contradicts_its_announced_length_is_refused() {
    let server = Server::start(Limits::default()).await;
    let client = server.client().await;
    for length in ["4", "6"] {
        let request = post("echo").header("content-length", length).body(Bytes::from_static(b"hello")).unwrap();
        assert_eq!(client.request(request).await.unwrap().problem().code, Code::BadFrame, "{length}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_drips_is_refused_in_time() {
    let server = Server::start(quick()).await;
    let client = server.client().await;
    let mut stream = client.open(post("echo").body(()).unwrap()).await.unwrap();
    stream.send_data(Bytes::from_static(b"he")).await.unwrap();
    assert_eq!(answer(&mut stream).await.unwrap().problem().code, Code::SlowRequest);
    // The call's own deadline may come first.
    let hurried = post("echo").header("plimsoll-deadline-ms", "50").body(()).unwrap();
    let mut stream = client.open(hurried).await.unwrap();
    assert_eq!(answer(&mut stream).await.unwrap().problem().code, Code::Deadline);
    server.stop().await;
}

#[tokio::test]
async fn headers_that_drip_are_refused_in_time() {
    let server = Server::start(quick()).await;
    let client = server.client().await;
    let (mut send, mut recv) = client.quic.open_bi().await.unwrap();
    // A HEADERS frame of 100 bytes, of which two come.
    send.write_all(&[0x01, 0x40, 100, 0, 0]).await.unwrap();
    let raw = recv.read_to_end(4096).await.unwrap();
    let text = String::from_utf8_lossy(&raw);
    assert!(text.contains("urn:plimsoll:problem:slow_request"), "{text}");
    assert_eq!(client.call("echo", "unharmed").await.unwrap().status, 200);
    server.stop().await;
}

/// A byte of QPACK can stand for 40 bytes of header.
#[tokio::test]
async fn headers_that_only_unpack_too_large_are_refused_by_name() {
    let server = Server::start(Limits::default()).await;
    let client = server.client().await;
    let (mut send, mut recv) = client.quic.open_bi().await.unwrap();
    let accept = 0xc0 | 29;
    let section = [vec![0, 0, 0xc0 | 17, 0xc0 | 23, 0x50, 1, b'x', 0xc0 | 1], vec![accept; 4000]].concat();
    let length = (section.len() as u16 | 0x4000).to_be_bytes();
    send.write_all(&[&[0x01][..], &length, &section].concat()).await.unwrap();
    let raw = recv.read_to_end(4096).await.unwrap();
    let text = String::from_utf8_lossy(&raw);
    assert!(text.contains("urn:plimsoll:problem:headers_too_large"), "{text}");
    assert_eq!(client.call("echo", "unharmed").await.unwrap().status, 200);
    server.stop().await;
}

#[tokio::test]
async fn a_malformed_message_is_an_error_of_its_stream() {
    let server = Server::start(Limits::default()).await;
    let client = server.client().await;
    let (mut send, mut recv) = client.quic.open_bi().await.unwrap();
    // A HEADERS frame without any pseudo-header (RFC 9114, 4.3.1).
    send.write_all(&[0x01, 3, 0, 0, 0xc0 | 29]).await.unwrap();
    let reset = recv.read_to_end(4096).await.unwrap_err();
    assert_eq!(reset, quinn::ReadError::Reset(0x10e_u32.into()).into());
    assert_eq!(client.call("echo", "unharmed").await.unwrap().status, 200);
    server.stop().await;
}

#[tokio::test]
async fn a_response_that_the_client_does_not_read_is_reset() {
    let server = Server::start(quick()).await;
    let mut narrow = quinn::TransportConfig::default();
    narrow.stream_receive_window(1024u32.into());
    let mut config = server.client_config();
    config.transport_config(narrow.into());
    let quic = dial(&server, config).await.unwrap();
    let client = crate::support::Client::on(quic).await;
    let mut stream = client.open(post("big").body(()).unwrap()).await.unwrap();
    stream.finish().await.unwrap();
    eventually("the answer is given up", || server.gateway.requests().failed == 1).await;
    assert!(answer(&mut stream).await.is_err(), "half an answer must not look whole");
    assert_eq!(client.call("echo", "unharmed").await.unwrap().status, 200);
    server.stop().await;
}

#[tokio::test]
async fn an_empty_data_frame_does_not_end_a_body() {
    let server = Server::start(Limits::default()).await;
    let client = server.client().await;
    let mut stream = client.open(post("echo").body(()).unwrap()).await.unwrap();
    for piece in ["he", "", "llo"] {
        stream.send_data(Bytes::from_static(piece.as_bytes())).await.unwrap();
    }
    stream.finish().await.unwrap();
    assert_eq!(&answer(&mut stream).await.unwrap().body[..], b"hello");
    server.stop().await;
}

#[tokio::test]
async fn a_client_may_have_as_many_streams_as_the_limits_say() {
    let server = Server::start(Limits::default()).await;
    let client = server.client().await;
    let mut open = Vec::new();
    for _ in 0..64 {
        let mut stream = client.open(post("hang").body(()).unwrap()).await.unwrap();
        stream.finish().await.unwrap();
        open.push(stream);
    }
    let hanging = &server.stand.hanging;
    eventually("64 run", || hanging.load(std::sync::atomic::Ordering::SeqCst) == 64).await;
    let one_more = tokio::time::timeout(Duration::from_millis(100), client.open(post("echo").body(()).unwrap())).await;
    assert!(one_more.is_err(), "the 65th waits for a stream");
    let early = dial(&server, server.client_config()).await.unwrap();
    assert!(early.max_datagram_size().is_none(), "datagrams are off");
    let mut unis = Vec::new();
    for _ in 0..8 {
        unis.push(early.open_uni().await.unwrap());
    }
    assert!(tokio::time::timeout(Duration::from_millis(100), early.open_uni()).await.is_err(), "the ninth waits");
    drop(open);
    server.stop().await;
}

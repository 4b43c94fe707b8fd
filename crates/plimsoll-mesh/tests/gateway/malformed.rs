//! Requests that RFC 9114 calls malformed or invalid, in one packet and in several.

use std::time::Duration;

use plimsoll_mesh::gateway::Limits;

use crate::support::{Server, closed, dial, frame, head};

const GET: u8 = 17;
const POST: u8 = 20;
const FRAME_UNEXPECTED: u64 = 0x105;

/// A trailer section with one ordinary field.
fn trailers() -> Vec<u8> {
    frame(0x1, &[&[0, 0, 0x24][..], b"x-ok", &[1, b'1']].concat())
}

/// RFC 9114, 4.1: an invalid sequence of frames is an error of the connection, and nothing of it is served.
#[tokio::test]
async fn an_invalid_sequence_of_frames_closes_the_connection() {
    let server = Server::start(Limits::default()).await;
    let data = || frame(0x0, b"body");
    let post = || head(POST, "/v1/call/echo");
    let cases: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("DATA after trailers", vec![post(), data(), trailers(), data()]),
        ("HEADERS HEADERS DATA", vec![post(), trailers(), data()]),
        ("three header sections", vec![post(), trailers(), trailers()]),
        ("an empty DATA after trailers", vec![post(), data(), trailers(), frame(0x0, b"")]),
        ("DATA first", vec![data(), post()]),
        ("an empty DATA first", vec![frame(0x0, b""), post()]),
        ("SETTINGS in a request", vec![post(), data(), frame(0x4, &[])]),
        ("GOAWAY after trailers", vec![post(), trailers(), frame(0x7, &[0])]),
        ("a type of HTTP/2", vec![post(), frame(0x6, &[0; 8])]),
        ("DATA after the trailers of a listing", vec![head(GET, "/v1/services"), trailers(), data()]),
        ("DATA after the trailers of a subscription", vec![head(GET, "/v1/subscribe/a"), trailers(), data()]),
        ("DATA after the trailers of a publication", vec![head(POST, "/v1/publish/a"), data(), trailers(), data()]),
    ];
    for (name, frames) in cases {
        for in_pieces in [false, true] {
            let connection = dial(&server, server.client_config()).await.unwrap();
            let (mut send, _recv) = connection.open_bi().await.unwrap();
            if in_pieces {
                for frame in &frames {
                    for piece in frame.chunks(5) {
                        if send.write_all(piece).await.is_err() {
                            break;
                        }
                        tokio::task::yield_now().await;
                    }
                }
            } else {
                send.write_all(&frames.concat()).await.unwrap();
            }
            let _ = send.finish();
            assert_eq!(closed(&connection).await.0, FRAME_UNEXPECTED, "{name}, in pieces: {in_pieces}");
        }
    }
    assert_eq!(server.client().await.call("echo", "unharmed").await.unwrap().status, 200);
    server.stop().await;
}

/// RFC 9114, 4.2 and 4.3: pseudo-header fields and fields of a connection do not belong in trailers.
#[tokio::test]
async fn malformed_trailers_are_rejected_and_the_connection_lives() {
    let server = Server::start(Limits::default()).await;
    let client = server.client().await;
    let connection = [&[0, 0, 0x27, 0x03][..], b"connection", &[5], b"close"].concat();
    for section in [vec![0, 0, 0xc1], [&[0, 0, 0x51, 1][..], b"/"].concat(), connection] {
        let (mut send, mut recv) = client.quic.open_bi().await.unwrap();
        let message = [head(POST, "/v1/call/echo"), frame(0x0, b"body"), frame(0x1, &section)].concat();
        send.write_all(&message).await.unwrap();
        send.finish().unwrap();
        let raw = recv.read_to_end(4096).await.unwrap();
        let text = String::from_utf8_lossy(&raw);
        assert!(text.contains("urn:plimsoll:problem:bad_frame"), "{section:x?}: {text}");
    }
    assert!(server.stand.last.lock().is_none(), "nothing of it was served");
    assert_eq!(client.call("echo", "unharmed").await.unwrap().status, 200);
    server.stop().await;
}

/// Valid trailers, and unknown frames anywhere, change nothing.
#[tokio::test]
async fn valid_trailers_are_accepted() {
    let server = Server::start(Limits::default()).await;
    let client = server.client().await;
    let grease = || frame(0x21, b"grease");
    for frames in [
        vec![head(POST, "/v1/call/echo"), frame(0x0, b"body"), trailers()],
        vec![grease(), head(POST, "/v1/call/echo"), grease(), frame(0x0, b"body"), grease(), trailers(), grease()],
    ] {
        let (mut send, mut recv) = client.quic.open_bi().await.unwrap();
        send.write_all(&frames.concat()).await.unwrap();
        send.finish().unwrap();
        let raw = recv.read_to_end(4096).await.unwrap();
        assert!(raw.ends_with(b"body"), "{}", String::from_utf8_lossy(&raw));
    }
    server.stop().await;
}

/// A request that ends before its body does not hold its stream: it is rejected in time.
#[tokio::test]
async fn a_request_without_end_is_rejected_in_time() {
    let soon = Duration::from_millis(200);
    let server = Server::start(Limits { body_timeout: soon, ..Limits::default() }).await;
    let client = server.client().await;
    for path in ["/v1/services", "/v1/nodes", "/v1/subscribe/a"] {
        let (mut send, mut recv) = client.quic.open_bi().await.unwrap();
        send.write_all(&head(GET, path)).await.unwrap();
        let raw = recv.read_to_end(4096).await.unwrap();
        let text = String::from_utf8_lossy(&raw);
        assert!(text.contains("urn:plimsoll:problem:slow_request"), "{path}: {text}");
    }
    server.stop().await;
}

//! Frames that announce too much, and streams that nobody reads.

use std::time::Duration;

use plimsoll_mesh::gateway::Limits;
use quinn::{ConnectionError, ReadError, VarInt, WriteError};

use crate::support::{Server, closed, dial, eventually, frame, post, varint};

const EXCESSIVE_LOAD: VarInt = VarInt::from_u32(0x107);
const STREAM_CREATION_ERROR: VarInt = VarInt::from_u32(0x103);
const GIBIBYTE: u64 = 1 << 30;

fn frame_header(kind: u64, announced: u64) -> Vec<u8> {
    [varint(kind), varint(announced)].concat()
}

/// Sends junk until the other side stops it; the code and the bytes that went out.
async fn flood(send: &mut quinn::SendStream, at_most: usize) -> (Option<WriteError>, usize) {
    let junk = vec![0xa5; 64 * 1024];
    let mut sent = 0;
    while sent < at_most {
        match send.write(&junk).await {
            Ok(written) => sent += written,
            Err(error) => return (Some(error), sent),
        }
    }
    (None, sent)
}

#[tokio::test]
async fn a_gibibyte_announced_on_a_request_ends_the_stream_and_not_the_connection() {
    let server = Server::start(Limits::default()).await;
    let client = server.client().await;
    let mut neighbour = client.open(post("gate").body(()).unwrap()).await.unwrap();
    neighbour.finish().await.unwrap();
    for kind in [0x1, 0x21, 0x4] {
        let (mut send, mut recv) = client.quic.open_bi().await.unwrap();
        send.write_all(&frame_header(kind, GIBIBYTE)).await.unwrap();
        let (error, sent) = flood(&mut send, 16 << 20).await;
        assert_eq!(error, Some(WriteError::Stopped(EXCESSIVE_LOAD)), "{kind:#x}");
        assert!(sent <= 512 * 1024, "{sent} bytes were taken");
        assert_eq!(recv.read_to_end(64).await, Err(ReadError::Reset(EXCESSIVE_LOAD).into()), "{kind:#x}");
    }
    assert_eq!(client.call("echo", "unharmed").await.unwrap().status, 200);
    server.stand.gate.notify_one();
    assert_eq!(crate::support::answer(&mut neighbour).await.unwrap().status, 200);
    assert_eq!(server.gateway.requests().failed, 3);
    server.stop().await;
}

#[tokio::test]
async fn a_gibibyte_announced_on_the_control_stream_ends_the_connection() {
    let server = Server::start(Limits::default()).await;
    for kind in [0x4, 0x21] {
        let connection = dial(&server, server.client_config()).await.unwrap();
        let mut control = connection.open_uni().await.unwrap();
        control.write_all(&[varint(0x0), frame_header(kind, GIBIBYTE)].concat()).await.unwrap();
        let closed = tokio::time::timeout(Duration::from_secs(5), connection.closed()).await.unwrap();
        let ConnectionError::ApplicationClosed(close) = closed else { panic!("{closed:?}") };
        assert_eq!(close.error_code, EXCESSIVE_LOAD);
    }
    server.stop().await;
}

#[tokio::test]
async fn small_frames_of_unknown_kinds_pass() {
    let server = Server::start(Limits::default()).await;
    let client = server.client().await;
    let (mut send, mut recv) = client.quic.open_bi().await.unwrap();
    let grease = [frame_header(0x21, 1000), vec![0; 1000]].concat();
    // GET https://x/v1/nodes: method and scheme from QPACK's static table, authority and path by name from there.
    let path = b"/v1/nodes";
    let head = [&[0x00, 0x00, 0xc0 | 17, 0xc0 | 23, 0x50, 1, b'x', 0x51, path.len() as u8][..], path].concat();
    let headers = [frame_header(0x1, head.len() as u64), head].concat();
    send.write_all(&[grease.clone(), headers, grease].concat()).await.unwrap();
    send.finish().unwrap();
    let raw = recv.read_to_end(4096).await.unwrap();
    assert!(String::from_utf8_lossy(&raw).contains("\"nodes\""));
    server.stop().await;
}

/// RFC 9204, 4.2 and 4.3: with a dynamic table of zero bytes almost nothing is valid on a QPACK stream, and such a stream is
/// never closed.
#[tokio::test]
async fn junk_on_a_qpack_stream_and_its_end_are_errors_of_the_connection() {
    const CLOSED_CRITICAL_STREAM: u64 = 0x104;
    let server = Server::start(Limits::default()).await;
    let unharmed = server.client().await;
    for (kind, junk, code) in [
        (0x2, Some(vec![0; 64 * 1024]), 0x201),
        (0x2, Some(vec![0xc1, 0x01, b'x']), 0x201),
        (0x3, Some(vec![0x80; 64 * 1024]), 0x202),
        (0x3, Some(vec![0x01]), 0x202),
        (0x2, None, CLOSED_CRITICAL_STREAM),
        (0x3, None, CLOSED_CRITICAL_STREAM),
    ] {
        let connection = dial(&server, server.client_config()).await.unwrap();
        let mut qpack = connection.open_uni().await.unwrap();
        qpack.write_all(&varint(kind)).await.unwrap();
        match &junk {
            // The connection may be closed before all of it is written.
            Some(junk) => drop(qpack.write_all(junk).await),
            None => qpack.finish().unwrap(),
        }
        assert_eq!(closed(&connection).await.0, code, "stream {kind}");
    }
    assert_eq!(unharmed.call("echo", "unharmed").await.unwrap().status, 200);
    server.stop().await;
}

/// What is valid on a QPACK stream is read, however much comes: nothing of it stays in the transport.
#[tokio::test]
async fn valid_instructions_on_a_qpack_stream_are_read_and_dropped() {
    let server = Server::start(Limits::default()).await;
    let connection = dial(&server, server.client_config()).await.unwrap();
    for (kind, instruction) in [(0x2, 0x20), (0x3, 0x44)] {
        let mut qpack = connection.open_uni().await.unwrap();
        qpack.write_all(&varint(kind)).await.unwrap();
        let written = tokio::time::timeout(Duration::from_secs(20), qpack.write_all(&vec![instruction; 4 << 20])).await;
        written.expect("four times every window passes").unwrap();
        std::mem::forget(qpack);
    }
    assert!(connection.close_reason().is_none());
    server.stop().await;
}

/// A second stream of a kind, and push ids that no client may send, are errors of the connection.
#[tokio::test]
async fn invalid_critical_streams_and_push_ids_are_errors_of_the_connection() {
    let server = Server::start(Limits::default()).await;
    for kind in [0x0, 0x2, 0x3] {
        let connection = dial(&server, server.client_config()).await.unwrap();
        let mut streams = Vec::new();
        for _ in 0..2 {
            let mut stream = connection.open_uni().await.unwrap();
            stream.write_all(&varint(kind)).await.unwrap();
            streams.push(stream);
        }
        assert_eq!(closed(&connection).await.0, 0x103, "stream {kind}");
    }
    let settings = frame(0x4, &[]);
    for frames in
        [[frame(0xd, &[7]), frame(0xd, &[6])].concat(), frame(0x3, &[0]), [frame(0xd, &[7]), frame(0x3, &[3])].concat()]
    {
        let connection = dial(&server, server.client_config()).await.unwrap();
        let mut control = connection.open_uni().await.unwrap();
        control.write_all(&[varint(0x0), settings.clone(), frames].concat()).await.unwrap();
        assert_eq!(closed(&connection).await.0, 0x108);
    }
    server.stop().await;
}

#[tokio::test]
async fn an_unknown_stream_is_stopped_by_its_code_and_its_credit_comes_back() {
    let server = Server::start(Limits::default()).await;
    let client = server.client().await;
    // More of them than the client may have at once: each must be given back.
    for _ in 0..20 {
        let mut unknown = client.quic.open_uni().await.unwrap();
        unknown.write_all(&varint(0x21)).await.unwrap();
        let (error, sent) = flood(&mut unknown, 16 << 20).await;
        assert_eq!(error, Some(WriteError::Stopped(STREAM_CREATION_ERROR)));
        assert!(sent <= 512 * 1024);
    }
    assert_eq!(client.call("echo", "unharmed").await.unwrap().status, 200);
    server.stop().await;
}

#[tokio::test]
async fn a_push_stream_from_a_client_is_an_error_of_the_connection() {
    let server = Server::start(Limits::default()).await;
    let connection = dial(&server, server.client_config()).await.unwrap();
    let mut push = connection.open_uni().await.unwrap();
    push.write_all(&[varint(0x1), varint(0)].concat()).await.unwrap();
    let closed = tokio::time::timeout(Duration::from_secs(5), connection.closed()).await.unwrap();
    let ConnectionError::ApplicationClosed(close) = closed else { panic!("{closed:?}") };
    assert_eq!(close.error_code, STREAM_CREATION_ERROR);
    eventually("its place is free again", || server.gateway.attempts().clients == 0).await;
    server.stop().await;
}

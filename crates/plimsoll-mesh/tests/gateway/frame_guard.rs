//! Frames that announce too much, and streams that nobody reads.

use std::time::Duration;

use plimsoll_mesh::gateway::Limits;
use quinn::{ConnectionError, ReadError, VarInt, WriteError};

use crate::support::{Server, dial, eventually, post, varint};

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

/// h3 never reads QPACK streams, and an adapter that dropped them would pass a test on memory too; so the window is what
/// is asserted: exactly so much is taken, and nothing more.
#[tokio::test]
async fn what_comes_on_a_qpack_stream_is_bounded_by_its_window() {
    let limits = Limits::default();
    let window = limits.stream_window as usize;
    let server = Server::start(limits).await;
    let client = server.client().await;
    let connection = dial(&server, server.client_config()).await.unwrap();
    for kind in [0x2, 0x3] {
        let mut qpack = connection.open_uni().await.unwrap();
        qpack.write_all(&varint(kind)).await.unwrap();
        let stalled = tokio::time::timeout(Duration::from_millis(300), qpack.write_all(&vec![0; 2 * window])).await;
        assert!(stalled.is_err(), "stream {kind} takes no more than its window");
        // What did go out is the window: the stream is stalled, not stopped.
        assert!(tokio::time::timeout(Duration::from_millis(10), qpack.stopped()).await.is_err());
    }
    assert_eq!(client.call("echo", "unharmed").await.unwrap().status, 200);
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

//! What is stored of an origin's responses, and what happens when descriptors run out.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use plimsoll_testkit::process::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::clients;
use crate::process::Proxy;

const PATIENCE: Duration = Duration::from_secs(20);

/// Image, response of the origin, status and body that the client receives (`None`: the body breaks off), requests that the
/// origin sees when the image is requested twice.
const CASES: &[(&str, &str, u16, Option<&str>, usize)] = &[
    ("length", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody", 200, Some("body"), 1),
    ("chunked", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n", 200, Some("body"), 1),
    ("max-age", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncache-control: max-age=600\r\n\r\nbody", 200, Some("body"), 1),
    ("accepted", "HTTP/1.1 202 Accepted\r\ncontent-length: 4\r\n\r\nbody", 202, Some("body"), 2),
    ("transformed", "HTTP/1.1 203 Other\r\ncontent-length: 4\r\n\r\nbody", 203, Some("body"), 2),
    ("no-content", "HTTP/1.1 204 No Content\r\n\r\n", 204, Some(""), 2),
    (
        "partial",
        "HTTP/1.1 206 Partial\r\ncontent-range: bytes 0-3/9\r\ncontent-length: 4\r\n\r\nbody",
        502,
        Some("*"),
        2,
    ),
    ("no-store", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncache-control: no-store\r\n\r\nbody", 200, Some("body"), 2),
    ("private", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncache-control: private\r\n\r\nbody", 200, Some("body"), 2),
    ("no-cache", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncache-control: no-cache\r\n\r\nbody", 200, Some("body"), 2),
    (
        "stale",
        "HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncache-control: max-age=9\r\nage: 9\r\n\r\nbody",
        200,
        Some("body"),
        2,
    ),
    ("varies", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\nvary: *\r\n\r\nbody", 200, Some("body"), 2),
    ("empty", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200, Some(""), 2),
    ("empty-chunked", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 200, Some(""), 2),
    ("closed", "HTTP/1.1 200 OK\r\n\r\nbody", 200, Some("body"), 2),
    ("short", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbody", 200, None, 2),
    ("short-chunked", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nbody", 200, None, 2),
];

type Requests = Arc<Mutex<HashMap<String, usize>>>;

/// An origin that sends the response of its case and closes.
async fn origin() -> (SocketAddr, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, requests) = (listener.local_addr().unwrap(), Requests::default());
    let seen = requests.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let seen = seen.clone();
            tokio::spawn(async move {
                let (mut request, mut piece) = (Vec::new(), [0; 1_024]);
                while !request.ends_with(b"\r\n\r\n") {
                    let n = stream.read(&mut piece).await.unwrap();
                    if n == 0 {
                        return;
                    }
                    request.extend_from_slice(&piece[..n]);
                }
                let text = String::from_utf8(request).unwrap();
                let image = text.split(' ').nth(1).unwrap().rsplit('/').next().unwrap().to_owned();
                let case = CASES.iter().find(|case| case.0 == image).expect("a case");
                *seen.lock().entry(image).or_default() += 1;
                stream.write_all(case.1.as_bytes()).await.unwrap();
            });
        }
    });
    (address, requests)
}

/// RFC 9111: only a complete, non-empty 200 that may be stored by a shared cache is; every other response reaches its
/// client and is requested again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_cacheable_responses_are_stored() {
    let (address, requests) = origin().await;
    let proxy = Proxy::start(address, &[], Duration::ZERO).await;
    for (image, _, status, body, expected) in CASES {
        for round in 0..2 {
            let got = clients::get(proxy.address, &format!("/cases/{image}")).await;
            match (got, body) {
                (Ok((got, _)), Some("*")) => assert_eq!(got.as_u16(), *status, "{image}, {round}"),
                (Ok((got, bytes)), Some(body)) => {
                    assert_eq!((got.as_u16(), &bytes[..]), (*status, body.as_bytes()), "{image}, {round}");
                }
                // The failure of the body may come before the response head is sent.
                (Ok((got, _)), None) => assert_eq!(got.as_u16(), 502, "{image}, {round}"),
                (Err(_), None) => {}
                (Err(error), Some(_)) => panic!("{image}, {round}: {error}"),
            }
            proxy.quiet().await;
        }
        assert_eq!(requests.lock()[*image], *expected, "{image}");
    }
    assert_eq!(proxy.stop(), 0);
}

/// When descriptors run out the proxy stops accepting for a moment, and serves on when there are some again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exhausted_descriptors_pause_accepting() {
    let (address, _) = origin().await;
    let proxy = Proxy::start_limited(address, 32).await;
    let mut idle = Vec::new();
    for _ in 0..64 {
        idle.push(TcpStream::connect(proxy.address).await.unwrap());
    }
    // Those beyond the limit wait in the kernel's queue; the proxy is alive.
    tokio::task::yield_now().await;
    let waiting = tokio::time::timeout(Duration::from_secs(1), clients::get(proxy.address, "/cases/length")).await;
    assert!(waiting.is_err(), "no descriptor is left for it: {waiting:?}");
    drop(idle);
    until("the proxy serves again", PATIENCE, async || {
        let got = clients::get(proxy.address, "/cases/length").await;
        got.is_ok_and(|(status, _)| status.as_u16() == 200).then_some(())
    })
    .await;
    assert_eq!(proxy.stop(), 0, "the same process");
}

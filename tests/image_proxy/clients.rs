//! Clients of the proxy, some of whom leave early.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use plimsoll_testkit::ledger::Ledger;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::origin::{byte_of, length_of};
use crate::process::Stats;

/// What the load came to.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) took: Duration,
    /// The 99th percentile of images that were served.
    pub(crate) p99: Duration,
    pub(crate) ledger: Ledger,
    /// What the proxy said about itself when half of the requests were made.
    pub(crate) halfway: Stats,
}

/// What a request is for, by its number: mostly images, one in a hundred given up, some that cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Image,
    GivenUp,
    Fails,
    Stalls,
    Breaks,
    Panics,
}

fn kind(number: u64) -> Kind {
    match number % 200 {
        7 | 107 => Kind::GivenUp,
        13 | 113 => Kind::Fails,
        17 => Kind::Stalls,
        19 => Kind::Breaks,
        23 | 123 => Kind::Panics,
        _ => Kind::Image,
    }
}

/// How many of `requests` are given up.
pub(crate) fn given_up(requests: u64) -> u64 {
    (0..requests).filter(|number| kind(*number) == Kind::GivenUp).count() as u64
}

/// A hundred clients at once make the requests.
pub(crate) async fn load(proxy: SocketAddr, requests: usize) -> Load {
    let (next, start) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let shared = Arc::new((Ledger::default(), Mutex::new(Vec::new()), Mutex::new(None)));
    let clients: Vec<_> = (0..100)
        .map(|_| {
            let (next, shared) = (next.clone(), shared.clone());
            tokio::spawn(async move {
                let mut connection = None;
                loop {
                    let number = next.fetch_add(1, SeqCst);
                    if number >= requests {
                        break;
                    }
                    if number == requests / 2 {
                        let halfway = Stats::of(proxy).await;
                        *shared.2.lock() = Some(halfway);
                    }
                    let call = shared.0.issue();
                    let from = Instant::now();
                    let outcome = request(proxy, &mut connection, number as u64).await;
                    if outcome == "served" {
                        shared.1.lock().push(from.elapsed());
                    }
                    shared.0.settled(call, outcome);
                }
            })
        })
        .collect();
    futures::future::join_all(clients).await.into_iter().for_each(|client| client.unwrap());
    let took = start.elapsed();
    let (ledger, times, halfway) = Arc::into_inner(shared).expect("every client has ended");
    let mut times = times.into_inner();
    times.sort_unstable();
    Load {
        took,
        p99: times[times.len() * 99 / 100],
        ledger,
        halfway: halfway.into_inner().expect("half of them were made"),
    }
}

type Connection = Option<SendRequest<Empty<Bytes>>>;

/// Makes one request and names what came of it.
async fn request(proxy: SocketAddr, connection: &mut Connection, number: u64) -> &'static str {
    // A few images are asked for often, most of them once or twice.
    let image = if number.is_multiple_of(3) { number % 40 } else { number.wrapping_mul(7_919) % 2_003 };
    let tenant = image % 400;
    match kind(number) {
        Kind::Image => match fetch(proxy, connection, &format!("/t{tenant}/img-{image}")).await {
            Ok((StatusCode::OK, body)) if body.len() == length_of(image) && body[0] == byte_of(image) => "served",
            other => panic!("image {image}: {other:?}"),
        },
        Kind::GivenUp => {
            // A connection of its own, which goes with the request that it is waiting for.
            let path = format!("/t{tenant}/slow-{number}");
            let given_up = tokio::time::timeout(Duration::from_millis(20), fetch(proxy, &mut None, &path)).await;
            assert!(given_up.is_err(), "{given_up:?}");
            "given up"
        }
        Kind::Fails => match fetch(proxy, connection, &format!("/t{tenant}/fail-{number}")).await {
            Ok((StatusCode::BAD_GATEWAY, _)) => "the origin failed",
            other => panic!("{other:?}"),
        },
        Kind::Stalls => match fetch(proxy, connection, &format!("/t{tenant}/stall-{number}")).await {
            Err(_) => "cut off: the origin stalled",
            other => panic!("{other:?}"),
        },
        Kind::Breaks => match fetch(proxy, connection, &format!("/t{tenant}/broken-{number}")).await {
            // Depending on whether the head had gone out.
            Err(_) | Ok((StatusCode::BAD_GATEWAY, _)) => "cut off: the origin broke off",
            other => panic!("{other:?}"),
        },
        Kind::Panics => match fetch(proxy, connection, &format!("/panic/img-{number}")).await {
            Ok((StatusCode::INTERNAL_SERVER_ERROR, _)) => "the handler panicked",
            other => panic!("{other:?}"),
        },
    }
}

async fn connect(proxy: SocketAddr) -> SendRequest<Empty<Bytes>> {
    let stream = TcpStream::connect(proxy).await.expect("the proxy accepts");
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn fetch(proxy: SocketAddr, connection: &mut Connection, path: &str) -> hyper::Result<(StatusCode, Bytes)> {
    let mut sender = match connection.take() {
        Some(sender) if sender.is_ready() => sender,
        _ => connect(proxy).await,
    };
    let request = Request::get(path).header("host", "images").body(Empty::new()).unwrap();
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    // The connection takes the next request once its task has seen the end of this one.
    if sender.ready().await.is_ok() {
        *connection = Some(sender);
    }
    Ok((status, body))
}

/// One request on a connection of its own.
pub(crate) async fn get(proxy: SocketAddr, path: &str) -> hyper::Result<(StatusCode, Bytes)> {
    fetch(proxy, &mut None, path).await
}

/// The length that a HEAD request tells.
pub(crate) async fn length(proxy: SocketAddr, path: &str) -> Option<u64> {
    let request = Request::head(path).header("host", "images").body(Empty::<Bytes>::new()).unwrap();
    let answer = connect(proxy).await.send_request(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    answer.headers().get("content-length")?.to_str().unwrap().parse().ok()
}

/// Sends a request on a connection of its own and leaves the answer alone.
pub(crate) async fn ask(proxy: SocketAddr, path: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut stream = socket.connect(proxy).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: images\r\n\r\n").as_bytes()).await.unwrap();
    stream
}

/// A client with as little room as the system allows, that has read `bytes` of its answer and then stops reading.
pub(crate) async fn read_some(proxy: SocketAddr, path: &str, bytes: usize) -> TcpStream {
    let mut stream = ask(proxy, path).await;
    let mut piece = vec![0; 64 << 10];
    let mut read = 0;
    while read < bytes {
        let n = stream.read(&mut piece).await.unwrap();
        assert!(n > 0, "the answer ended after {read} bytes");
        read += n;
    }
    stream
}

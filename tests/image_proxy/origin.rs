//! An origin of images that also stalls, fails and breaks off, and counts requests.
//!
//! | image | response |
//! |---|---|
//! | `img-N` | 4 to 64 KiB, after 2 ms |
//! | `slow-N` | 8 KiB, after a second |
//! | `hot-N` | 1,000,000 bytes |
//! | `large-N` | 16 MiB of unknown length, 64 KiB each ms |
//! | `fail-N` | 500, with a body that does not end |
//! | `stall-N` | a length and a first piece, then silence |
//! | `broken-N` | a length, half of it, then the connection closes |
//! | `silent-N` | none |
//! | `halves-N` | 2,000 bytes in two halves, the second after a second |
//! | `tears-N` | the same, with a close in place of the second half |

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpSocket;

const PIECE: usize = 64 << 10;
pub(crate) const LARGE: usize = 16 << 20;
pub(crate) const HOT: usize = 1_000_000;

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// What the origin has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Connections open now.
    pub(crate) connections: AtomicU64,
    /// Requests.
    pub(crate) requests: AtomicU64,
    /// Large images on their way.
    pub(crate) large: AtomicU64,
    /// Bytes of large images that went out.
    pub(crate) large_bytes: AtomicU64,
    /// Bodies of failures that nobody has closed.
    pub(crate) failing: AtomicU64,
}

/// The length of `img-N`.
pub(crate) fn length_of(image: u64) -> usize {
    4_096 + (image.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48) as usize % 61_440
}

/// What every byte of `img-N` is.
pub(crate) fn byte_of(image: u64) -> u8 {
    image as u8
}

/// Starts an origin on a free port.
pub(crate) async fn start() -> (SocketAddr, Arc<Seen>) {
    let socket = TcpSocket::new_v4().unwrap();
    // What the kernel takes on for a reader that has gone would count as sent.
    socket.set_send_buffer_size(64 << 10).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1_024).unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Seen::default());
    let counts = seen.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let seen = counts.clone();
            tokio::spawn(async move {
                let _open = Count::up(&seen, |seen| &seen.connections);
                let answering = seen.clone();
                let service = service_fn(move |request| answer(request, answering.clone()));
                drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    (address, seen)
}

/// Counted as long as it lives.
struct Count(Arc<Seen>, fn(&Seen) -> &AtomicU64);

impl Count {
    fn up(seen: &Arc<Seen>, which: fn(&Seen) -> &AtomicU64) -> Self {
        which(seen).fetch_add(1, SeqCst);
        Self(seen.clone(), which)
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.1(&self.0).fetch_sub(1, SeqCst);
    }
}

async fn answer(request: Request<Incoming>, seen: Arc<Seen>) -> Result<Response<Body>, Infallible> {
    seen.requests.fetch_add(1, SeqCst);
    let image = request.uri().path().rsplit('/').next().unwrap_or_default();
    let (kind, number) = image.split_once('-').unwrap_or((image, "0"));
    let number: u64 = number.parse().unwrap_or_default();
    let whole =
        |bytes: Vec<u8>| Response::new(Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed_unsync());
    Ok(match kind {
        "img" => {
            tokio::time::sleep(Duration::from_millis(2)).await;
            whole(vec![byte_of(number); length_of(number)])
        }
        "slow" => {
            tokio::time::sleep(Duration::from_secs(1)).await;
            whole(vec![0; 8 << 10])
        }
        "hot" => whole(vec![1; HOT]),
        "large" => Response::new(large(seen)),
        "fail" => {
            let mut answer = Response::new(unending(Some(Count::up(&seen, |seen| &seen.failing))));
            *answer.status_mut() = hyper::StatusCode::INTERNAL_SERVER_ERROR;
            answer
        }
        "stall" => announced(Response::new(unending(None)), PIECE as u64),
        "broken" => {
            let half = stream::iter([Ok(Bytes::from(vec![0; 1_000])), Err(std::io::Error::other("breaks off"))]);
            announced(Response::new(StreamBody::new(half.map(|piece| piece.map(Frame::data))).boxed_unsync()), 2_000)
        }
        "silent" => std::future::pending().await,
        "halves" => announced(Response::new(in_halves(Ok(Bytes::from(vec![3; 1_000])))), 2_000),
        "tears" => announced(Response::new(in_halves(Err(std::io::Error::other("breaks off")))), 2_000),
        _ => {
            let mut answer = whole(Vec::new());
            *answer.status_mut() = hyper::StatusCode::NOT_FOUND;
            answer
        }
    })
}

/// The first half of a body, and a second later the second one.
fn in_halves(second: std::io::Result<Bytes>) -> Body {
    let first = stream::iter([Ok(Bytes::from(vec![3; 1_000]))]);
    let second = stream::once(async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        second
    });
    StreamBody::new(first.chain(second).map(|piece| piece.map(Frame::data))).boxed_unsync()
}

fn announced(mut answer: Response<Body>, length: u64) -> Response<Body> {
    answer.headers_mut().insert("content-length", length.into());
    answer
}

fn large(seen: Arc<Seen>) -> Body {
    let (piece, on_its_way) = (Bytes::from(vec![2; PIECE]), Arc::new(Count::up(&seen, |seen| &seen.large)));
    let pieces = stream::iter(0..LARGE / PIECE).then(move |_| {
        let (piece, on_its_way) = (piece.clone(), on_its_way.clone());
        async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            on_its_way.0.large_bytes.fetch_add(PIECE as u64, SeqCst);
            Ok(Frame::data(piece))
        }
    });
    StreamBody::new(pieces).boxed_unsync()
}

/// One piece, and then nothing, until the connection is closed.
fn unending(counted: Option<Count>) -> Body {
    let first = stream::iter([Ok(Frame::data(Bytes::from_static(b"well")))]);
    let never = stream::once(async move {
        let _counted = counted;
        std::future::pending::<Result<Frame<Bytes>, std::io::Error>>().await
    });
    StreamBody::new(first.chain(never)).boxed_unsync()
}

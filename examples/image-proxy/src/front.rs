//! The clients' side: HTTP/1.1 on TCP.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::RwLock;
use plimsoll::bounded::{Cap, LogThrottle};
use plimsoll::call::{CallClient, CallError};
use plimsoll::supervisor::{CancellationToken, SupervisorRef};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::body::Body;
use crate::images::{Image, ImageError, ImageRequest, Images, Mechanisms};
use crate::key::ImageKey;
use crate::origin::FetchError;
use crate::write_timeout::WriteTimeout;

type HttpResponse = Response<UnsyncBoxBody<Bytes, FetchError>>;

/// How long a client may take to send its request.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);

/// How long nothing is accepted after descriptors or memory ran out.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// How long a connection may go on when the proxy stops; less than the supervisor's grace of five seconds.
const LAST: Duration = Duration::from_secs(3);

/// How many connections there may be, and how long a client may read nothing of its response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) connections: Cap,
    pub(crate) patience: Duration,
}

/// The state that all connections share.
#[derive(Debug)]
pub(crate) struct Front {
    mechanisms: Mechanisms,
    /// The client of the service as it runs now; another one after a restart.
    pub(crate) images: RwLock<Option<CallClient<Images>>>,
    pub(crate) tree: RwLock<Option<SupervisorRef>>,
}

impl Front {
    pub(crate) fn new(mechanisms: Mechanisms) -> Self {
        Self { mechanisms, images: RwLock::default(), tree: RwLock::default() }
    }

    /// Serves connections up to the cap until `stop`; open ones end with their request, or after [`LAST`] without it.
    ///
    /// A connection over the cap is not accepted: it waits in the kernel's queue, which is bounded too. All connections end
    /// when this is dropped.
    pub(crate) async fn serve(
        self: Arc<Self>,
        listener: Arc<TcpListener>,
        bounds: Bounds,
        stop: CancellationToken,
    ) -> io::Result<()> {
        let (permits, mut open) = (Arc::new(Semaphore::new(bounds.connections.get())), JoinSet::new());
        let next = async || {
            let permit = permits.clone().acquire_owned().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((accept(&listener).await?, permit))
        };
        while let Some(accepted) = stop.run_until_cancelled(next()).await {
            let (stream, permit) = accepted?;
            // As many tasks as permits, and those that have ended.
            while open.try_join_next().is_some() {}
            let (front, stop, stream) = (self.clone(), stop.clone(), WriteTimeout::new(stream, bounds.patience));
            open.spawn(async move {
                front.connection(stream, stop).await;
                drop(permit);
            });
        }
        while open.join_next().await.is_some() {}
        Ok(())
    }

    async fn connection(self: Arc<Self>, stream: WriteTimeout<TcpStream>, stop: CancellationToken) {
        let service = service_fn(move |request| {
            let front = self.clone();
            async move { Ok::<_, Infallible>(front.respond(request).await) }
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEADERS_WITHIN);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        // An error of one connection is none of the proxy: its client left, or the body broke off.
        if stop.run_until_cancelled(connection.as_mut()).await.is_none() {
            connection.as_mut().graceful_shutdown();
            drop(timeout(LAST, connection).await);
        }
    }

    async fn respond(&self, request: Request<Incoming>) -> HttpResponse {
        if request.uri().path() == "/stats" {
            return self.stats();
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are supported");
            refusal.headers_mut().insert(ALLOW, http::HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        let Some(key) = ImageKey::parse(request.uri().path()) else {
            return plain(StatusCode::NOT_FOUND, "the path of an image is /TENANT/IMAGE");
        };
        let images = self.images.read().clone();
        let Some(images) = images else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "starting");
        };
        let wanted = ImageRequest { key, head: *request.method() == Method::HEAD };
        (self.mechanisms.call)(images, wanted).await.map_or_else(refused, served)
    }

    /// The snapshot of the whole tree, how many tasks there are, and how many bytes are held.
    fn stats(&self) -> HttpResponse {
        let tree = self.tree.read().as_ref().map(SupervisorRef::inspect);
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let stats = serde_json::json!({ "tasks": tasks, "heap": crate::heap::held(), "tree": tree }).to_string();
        let mut response = Response::new(Body::Bytes(stats.into()).into_http());
        response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        response
    }
}

/// The next connection. One that failed while it waited is skipped; while descriptors or memory are exhausted nothing is
/// accepted, and connections wait in the kernel's queue.
async fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let mut throttle = LogThrottle::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return Ok(stream),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) if is_exhaustion(&error) => {
                if let Some(suppressed) = throttle.record(Instant::now()) {
                    crate::output::warn(format_args!(
                        "not accepting connections: {error}; suppressed {suppressed} times"
                    ));
                }
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// The connection ended before it was accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// ENOMEM, ENFILE, EMFILE and ENOBUFS of Linux.
fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(12 | 23 | 24 | 105))
}

fn served(image: Image) -> HttpResponse {
    let mut response = Response::new(image.body.into_http());
    *response.status_mut() = image.status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/octet-stream"));
    if let Some(length) = image.length {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    response
}

fn refused(error: CallError<ImageError>) -> HttpResponse {
    let status = match &error {
        CallError::App(ImageError::Fetch(FetchError::Status(StatusCode::NOT_FOUND))) => StatusCode::NOT_FOUND,
        CallError::App(ImageError::Fetch(FetchError::TimedOut(_))) | CallError::Timeout => StatusCode::GATEWAY_TIMEOUT,
        CallError::App(ImageError::Fetch(FetchError::NoClient(_))) => StatusCode::SERVICE_UNAVAILABLE,
        CallError::App(ImageError::Fetch(_)) => StatusCode::BAD_GATEWAY,
        CallError::App(ImageError::Busy) | CallError::Overloaded(_) | CallError::ShuttingDown => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let reason = match error {
        CallError::App(error) => error.to_string(),
        other => other.to_string(),
    };
    plain(status, &reason)
}

fn plain(status: StatusCode, text: &str) -> HttpResponse {
    let mut response = Response::new(Body::Bytes(format!("{text}\n").into()).into_http());
    *response.status_mut() = status;
    response
}

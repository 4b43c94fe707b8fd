//! A client of a node's HTTP/3, for programs, tools and tests.
//!
//! A [`Client`] is one connection to one node, identified by its id alone. Calls run concurrently on it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use h3::client::{RequestStream, SendRequest};
use h3::error::Code as H3Code;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::http3::{BidiStream, Connection, OpenStreams};
use crate::identity::{self, IdentityError};
use crate::names::{NodeId, ServiceName};
use crate::problem;
use crate::pubsub::{Filter, Topic};

/// The largest response that is read, in bytes.
pub const MAX_RESPONSE: usize = 16 << 20;

/// How long connecting may take: the handshake and the setup of HTTP/3.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one address of a node is tried alone before the next one is tried too.
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// How long a client waits for a node that does not respond. Each method has a timer of its own, so a node that is frozen
/// holds none of them.
///
/// ```
/// use std::time::Duration;
/// use plimsoll_mesh::client::Timeouts;
///
/// let timeouts = Timeouts { request: Duration::from_secs(2), ..Timeouts::default() };
/// assert_eq!(timeouts.call, Duration::from_secs(60));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// A request other than a call: listing, publishing, advertising, the head of a subscription. Default 10 s.
    pub request: Duration,
    /// A call that names no deadline. Default 60 s, the longest deadline that a node allows by default.
    pub call: Duration,
    /// Added to the deadline of a call that names one, so that the node's own response arrives first. Default 500 ms.
    pub margin: Duration,
    /// A subscription without an event or heartbeat. Default 25 s: two heartbeats of a node's default may be lost.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(10),
            call: Duration::from_secs(60),
            margin: Duration::from_millis(500),
            idle: Duration::from_secs(25),
        }
    }
}

/// How often a quiet connection shows that it lives, and how long it is kept without a sign of the node.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// One connection to one node. Cloning shares it; it closes with its last clone.
#[derive(Clone)]
pub struct Client {
    requests: SendRequest<OpenStreams, Bytes>,
    connection: quinn::Connection,
    authority: Arc<str>,
    timeouts: Timeouts,
    // h3 makes progress on its control streams only while this runs.
    _driver: Arc<AbortOnDropHandle<()>>,
}

/// One call, before it is made.
#[derive(Debug, Clone)]
pub struct Call {
    service: ServiceName,
    body: Bytes,
    headers: HeaderMap,
    deadline: Option<Duration>,
}

/// The response to a request.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// All headers.
    pub headers: HeaderMap,
    /// The body, whole.
    pub body: Bytes,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The node refused the connection before a handshake: it is full, or it is stopping.
    #[error("connection refused: the node is at its cap of clients, or it is stopping")]
    Refused,
    /// The node did not respond.
    #[error("no response from {address} within {CONNECT_TIMEOUT:?}")]
    Timeout {
        /// The address.
        address: SocketAddr,
    },
    /// The node at the address is another one.
    #[error("expected node {expected} at {address}, found node {found}")]
    WrongNode {
        /// The expected node.
        expected: NodeId,
        /// The node at the address.
        found: NodeId,
        /// The address.
        address: SocketAddr,
    },
    /// The handshake failed otherwise.
    #[error("the handshake with {address} failed")]
    Handshake {
        /// The address.
        address: SocketAddr,
        /// The error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no address to connect to.
    #[error("the node has no address")]
    NoAddress,
    /// The TLS configuration of the client is not valid.
    #[error(transparent)]
    Setup(#[from] IdentityError),
}

/// Why a request has no response. It may have run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The connection or the stream failed.
    #[error("the connection failed")]
    Connection(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The node did not respond in time.
    #[error("no response within {0:?}")]
    Timeout(Duration),
    /// The response is longer than [`MAX_RESPONSE`].
    #[error("the response is longer than {MAX_RESPONSE} bytes")]
    ResponseTooLarge,
    /// The node refused; this is its response.
    #[error("the node refused with {}", .0.status)]
    Refused(Box<Response>),
}

/// A UDP socket for clients of nodes whose addresses are of the same family as `address`.
///
/// # Errors
/// When the system has no socket to give. Must be called within a tokio runtime.
pub fn endpoint(address: SocketAddr) -> std::io::Result<quinn::Endpoint> {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    quinn::Endpoint::client(SocketAddr::new(any, 0))
}

impl Client {
    /// Connects from `endpoint` to the node `pin` at `address`.
    ///
    /// # Errors
    /// See [`ConnectError`].
    ///
    /// Cancel safe: the connection attempt ends.
    pub async fn connect(endpoint: &quinn::Endpoint, address: SocketAddr, pin: NodeId) -> Result<Self, ConnectError> {
        Self::connect_over(endpoint, address, pin, transport()).await
    }

    /// Connects to the node `pin` at the first of `addresses` that it is reached at, over an endpoint of its own, which is
    /// returned too. All are tried: each next one [`ATTEMPT_DELAY`] after the one before (RFC 8305, 5), or as soon as that has
    /// failed.
    ///
    /// # Errors
    /// [`ConnectError`] of the first address that responded in another way, of the last one if none did;
    /// [`ConnectError::NoAddress`] without an address.
    ///
    /// Cancel safe: the attempts end.
    pub async fn connect_any(addresses: &[SocketAddr], pin: NodeId) -> Result<(Self, quinn::Endpoint), ConnectError> {
        let mut attempts = FuturesUnordered::new();
        let (mut rest, mut failure) = (addresses.iter().copied(), None::<ConnectError>);
        loop {
            let more = rest.next().map(|address| attempts.push(connect_at(address, pin))).is_some();
            loop {
                let next = attempts.next();
                let ended = if more { timeout(ATTEMPT_DELAY, next).await } else { Ok(next.await) };
                match ended {
                    // The next address has its turn.
                    Err(_) => break,
                    Ok(None) if more => break,
                    Ok(None) => return Err(failure.unwrap_or(ConnectError::NoAddress)),
                    Ok(Some(Ok(connected))) => return Ok(connected),
                    Ok(Some(Err(error))) => {
                        if failure.as_ref().is_none_or(|known| matches!(known, ConnectError::Timeout { .. })) {
                            failure = Some(error);
                        }
                        if more {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// As [`connect`](Self::connect), with windows, stream limits and times of the caller's choice.
    ///
    /// # Errors
    /// See [`ConnectError`].
    ///
    /// Cancel safe: the connection attempt ends.
    pub async fn connect_over(
        endpoint: &quinn::Endpoint,
        address: SocketAddr,
        pin: NodeId,
        transport: quinn::TransportConfig,
    ) -> Result<Self, ConnectError> {
        let (config, stranger) = identity::pinned_client_config(pin, Arc::new(transport))?;
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| ConnectError::Handshake { address, source };
        let connecting =
            endpoint.connect_with(config, address, identity::SERVER_NAME).map_err(|error| failed(error.into()))?;
        let end = Instant::now() + CONNECT_TIMEOUT;
        let connection = match timeout_at(end, connecting).await {
            Ok(Ok(connection)) => connection,
            Err(_) | Ok(Err(quinn::ConnectionError::TimedOut)) => return Err(ConnectError::Timeout { address }),
            Ok(Err(quinn::ConnectionError::ConnectionClosed(close)))
                if close.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED =>
            {
                return Err(ConnectError::Refused);
            }
            Ok(Err(error)) => {
                return Err(match stranger.get() {
                    Some(&found) => ConnectError::WrongNode { expected: pin, found, address },
                    None => failed(error.into()),
                });
            }
        };
        let setup = timeout_at(end, h3::client::new(Connection::client(connection.clone()))).await;
        let (mut driver, requests) = match setup {
            Ok(setup) => setup.map_err(|error| failed(error.into()))?,
            Err(_) => return Err(ConnectError::Timeout { address }),
        };
        let driver = tokio::spawn(async move {
            // The requests on it return the reason of its end.
            let _ = poll_fn(|cx| driver.poll_close(cx)).await;
        });
        Ok(Self {
            requests,
            connection,
            authority: address.to_string().into(),
            timeouts: Timeouts::default(),
            _driver: Arc::new(AbortOnDropHandle::new(driver)),
        })
    }

    /// Sets how long this client waits for the node. Clones made before keep theirs.
    #[must_use]
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// Makes a call and reads the whole response, whatever its status. Waits for the deadline of the call and
    /// [`Timeouts::margin`], or for [`Timeouts::call`] when it names none.
    ///
    /// # Errors
    /// [`RequestError`] when there is no response.
    ///
    /// Cancel safe: the stream is reset, and the node cancels the call.
    pub async fn call(&self, call: Call) -> Result<Response, RequestError> {
        let path = format!("/v1/call/{}", call.service);
        let limit = call.deadline.map_or(self.timeouts.call, |deadline| deadline.saturating_add(self.timeouts.margin));
        self.exchange(limit, Method::POST, &path, call.headers, call.body).await
    }

    /// Advertises `name` while this connection lasts, for `ttl` or the node's default; again, it refreshes the lease.
    ///
    /// # Errors
    /// [`RequestError`] when there is no response; a refusal is a response.
    ///
    /// Cancel safe, but it may have been advertised.
    pub async fn advertise(&self, name: &ServiceName, ttl: Option<Duration>) -> Result<Response, RequestError> {
        let mut headers = HeaderMap::new();
        if let Some(ttl) = ttl {
            headers.insert("plimsoll-ttl-ms", milliseconds(ttl).into());
        }
        self.exchange(self.timeouts.request, Method::PUT, &format!("/v1/services/{name}"), headers, Bytes::new()).await
    }

    /// Withdraws an advertisement of this connection.
    ///
    /// # Errors
    /// [`RequestError`] when there is no response; a refusal is a response.
    ///
    /// Cancel safe, but it may have been withdrawn.
    pub async fn withdraw(&self, name: &ServiceName) -> Result<Response, RequestError> {
        self.exchange(
            self.timeouts.request,
            Method::DELETE,
            &format!("/v1/services/{name}"),
            HeaderMap::new(),
            Bytes::new(),
        )
        .await
    }

    /// Publishes `text` to all subscribers with a filter that matches `topic`.
    ///
    /// # Errors
    /// [`RequestError`] when there is no response; a refusal is a response.
    ///
    /// Cancel safe, but it may have been published.
    pub async fn publish(&self, topic: &Topic, text: impl Into<Bytes>) -> Result<Response, RequestError> {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"))]);
        self.exchange(self.timeouts.request, Method::POST, &format!("/v1/publish/{topic}"), headers, text.into()).await
    }

    /// Subscribes to what is published from now on to topics that `filter` matches.
    ///
    /// # Errors
    /// [`RequestError::Refused`] with the node's response, another when there is none.
    ///
    /// Cancel safe: the subscription ends.
    pub async fn subscribe(&self, filter: &Filter) -> Result<Subscription, RequestError> {
        in_time(self.timeouts.request, async {
            let mut stream = self.open(Method::GET, &format!("/v1/subscribe/{filter}"), HeaderMap::new()).await?;
            send(&mut stream, Bytes::new()).await?;
            let head = stream.recv_response().await.map_err(|error| RequestError::Connection(error.into()))?;
            if head.status() == StatusCode::OK {
                let idle = self.timeouts.idle;
                return Ok(Subscription { stream, read: BytesMut::new(), scanned: 0, idle });
            }
            let (head, ()) = head.into_parts();
            let body = body(&mut stream).await?;
            Err(RequestError::Refused(Box::new(Response { status: head.status, headers: head.headers, body })))
        })
        .await
    }

    /// Gets `path`.
    ///
    /// # Errors
    /// [`RequestError`] when there is no response.
    ///
    /// Cancel safe.
    pub async fn get(&self, path: &str) -> Result<Response, RequestError> {
        self.exchange(self.timeouts.request, Method::GET, path, HeaderMap::new(), Bytes::new()).await
    }

    /// The QUIC connection: its address, statistics and close reason.
    pub fn connection(&self) -> &quinn::Connection {
        &self.connection
    }

    /// Closes the connection at once; requests in flight are cancelled.
    pub fn close(&self) {
        let code = quinn::VarInt::from_u64(H3Code::H3_NO_ERROR.value()).unwrap_or_default();
        self.connection.close(code, b"done");
    }

    async fn exchange(
        &self,
        limit: Duration,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response, RequestError> {
        in_time(limit, async {
            let mut stream = self.open(method, path, headers).await?;
            // A node that refuses early stops reading: its response counts, not the failed send.
            let sent = send(&mut stream, body).await;
            let received = response(&mut stream).await;
            match (sent, received) {
                (_, Ok(response)) => Ok(response),
                (Err(error), Err(RequestError::Connection(_))) => Err(error),
                (_, Err(error)) => Err(error),
            }
        })
        .await
    }

    async fn open(&self, method: Method, path: &str, headers: HeaderMap) -> Result<Stream, RequestError> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.authority))
            .body(())
            .map_err(|error| RequestError::Connection(error.into()))?;
        *request.headers_mut() = headers;
        self.requests.clone().send_request(request).await.map_err(|error| RequestError::Connection(error.into()))
    }
}

type Stream = RequestStream<BidiStream, Bytes>;

/// A subscription; it ends when this is dropped.
pub struct Subscription {
    stream: Stream,
    read: BytesMut,
    /// No event ends before this offset.
    scanned: usize,
    idle: Duration,
}

impl Subscription {
    /// The next server-sent event, without the empty line that ends it: a message, a heartbeat, or the reason why the
    /// subscription was cut off. `None` at the end.
    ///
    /// # Errors
    /// [`RequestError::Connection`] when the node or the connection ended it, [`RequestError::Timeout`] when not even a
    /// heartbeat came for [`Timeouts::idle`], [`RequestError::ResponseTooLarge`] when an event is
    /// longer than [`MAX_RESPONSE`].
    ///
    /// Cancel safe.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RequestError> {
        loop {
            if let Some(end) = self.read[self.scanned..].windows(2).position(|two| two == b"\n\n") {
                let end = std::mem::take(&mut self.scanned) + end;
                return Ok(Some(self.read.split_to(end + 2).freeze().slice(..end)));
            }
            self.scanned = self.read.len().saturating_sub(1);
            let data = async { self.stream.recv_data().await.map_err(|error| RequestError::Connection(error.into())) };
            let Some(mut piece) = in_time(self.idle, data).await? else { return Ok(None) };
            if self.read.len() + piece.remaining() > MAX_RESPONSE {
                return Err(RequestError::ResponseTooLarge);
            }
            self.read.extend_from_slice(&piece.copy_to_bytes(piece.remaining()));
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("read", &self.read.len()).finish_non_exhaustive()
    }
}

async fn connect_at(address: SocketAddr, pin: NodeId) -> Result<(Client, quinn::Endpoint), ConnectError> {
    let endpoint = endpoint(address).map_err(|error| ConnectError::Handshake { address, source: Box::new(error) })?;
    Ok((Client::connect(&endpoint, address, pin).await?, endpoint))
}

async fn in_time<T>(limit: Duration, work: impl Future<Output = Result<T, RequestError>>) -> Result<T, RequestError> {
    timeout(limit, work).await.unwrap_or(Err(RequestError::Timeout(limit)))
}

async fn send(stream: &mut Stream, body: Bytes) -> Result<(), RequestError> {
    if !body.is_empty() {
        stream.send_data(body).await.map_err(|error| RequestError::Connection(error.into()))?;
    }
    stream.finish().await.map_err(|error| RequestError::Connection(error.into()))
}

async fn response(stream: &mut Stream) -> Result<Response, RequestError> {
    let (head, ()) = stream.recv_response().await.map_err(|error| RequestError::Connection(error.into()))?.into_parts();
    Ok(Response { status: head.status, headers: head.headers, body: body(stream).await? })
}

async fn body(stream: &mut Stream) -> Result<Bytes, RequestError> {
    let mut body = BytesMut::new();
    while let Some(mut piece) = stream.recv_data().await.map_err(|error| RequestError::Connection(error.into()))? {
        if body.len() + piece.remaining() > MAX_RESPONSE {
            return Err(RequestError::ResponseTooLarge);
        }
        body.extend_from_slice(&piece.copy_to_bytes(piece.remaining()));
    }
    Ok(body.freeze())
}

fn transport() -> quinn::TransportConfig {
    let mut transport = quinn::TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(0_u8.into())
        .max_concurrent_uni_streams(8_u8.into())
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(quinn::VarInt::from_u32(IDLE_TIMEOUT.as_millis() as u32).into()));
    transport
}

/// Whole milliseconds from 1.
fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

impl Call {
    /// A call of `service` with `body`.
    pub fn new(service: ServiceName, body: impl Into<Bytes>) -> Self {
        Self { service, body: body.into(), headers: HeaderMap::new(), deadline: None }
    }

    /// Gives the body a media type.
    #[must_use]
    pub fn content_type(mut self, value: HeaderValue) -> Self {
        self.headers.insert(header::CONTENT_TYPE, value);
        self
    }

    /// Sets the deadline, in whole milliseconds from 1; the node clamps it to a minute.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.headers.insert("plimsoll-deadline-ms", milliseconds(deadline).into());
        self.deadline = Some(deadline);
        self
    }
}

impl Response {
    /// The media type, if there is one in plain text.
    pub fn content_type(&self) -> Option<&str> {
        self.headers.get(header::CONTENT_TYPE)?.to_str().ok()
    }

    /// The problem document, when the response is one.
    pub fn problem(&self) -> Option<problem::Document> {
        self.content_type().filter(|kind| kind.starts_with("application/problem+json"))?;
        serde_json::from_slice(&self.body).ok()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("authority", &self.authority).finish_non_exhaustive()
    }
}

//! A gateway with a stand-in behind it, and clients.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::future::BoxFuture;
use h3::error::StreamError;
use http::{Request, StatusCode};
use parking_lot::Mutex;
use plimsoll::supervisor::SupervisorRef;
use plimsoll_mesh::events::Events;
use plimsoll_mesh::gateway::{AcceptPeer, Backends, Gateway, Limits};
use plimsoll_mesh::http3::{BidiStream, Connection, OpenStreams};
use plimsoll_mesh::identity::{Identity, client_config, endpoint_config, peer_client_config, server_config};
use plimsoll_mesh::names::NodeId;
use plimsoll_mesh::problem::{Code, Document, Problem};
use plimsoll_mesh::service::{
    ApplicationError, Dispatch, NodeEntry, Overview, Request as Call, Response, ServiceEntry,
};
use tokio::sync::Notify;

/// Where the stand-in's refusals happen.
pub(crate) const PROVIDER: NodeId = NodeId::from_digest([9; 32]);

/// ServiceTable for the tests, by name.
#[derive(Default)]
pub(crate) struct Stand {
    /// Calls of `hang` that run now.
    pub(crate) hanging: AtomicUsize,
    /// Lets calls of `gate` through.
    pub(crate) gate: Notify,
    pub(crate) last: Mutex<Option<Call>>,
    pub(crate) peers: Mutex<Vec<quinn::Connection>>,
    /// Services to list beside `echo`.
    pub(crate) listed: AtomicUsize,
    /// How often the services were listed.
    pub(crate) listings: AtomicUsize,
    /// The version of the listings.
    pub(crate) version: AtomicUsize,
    /// Listing nodes panics.
    pub(crate) panics: AtomicUsize,
}

struct Hanging<'a>(&'a AtomicUsize);

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Dispatch for Stand {
    fn dispatch(&self, call: Call) -> BoxFuture<'_, Result<Response, Problem>> {
        *self.last.lock() = Some(call.clone());
        Box::pin(async move {
            let text: Arc<str> = "text/plain".into();
            match call.service.as_str() {
                "echo" => Ok(Response { content_type: call.content_type.unwrap_or(text), body: call.body }),
                "panic" => panic!("{}", String::from_utf8_lossy(&call.body)),
                "hang" => {
                    self.hanging.fetch_add(1, Ordering::SeqCst);
                    let _running = Hanging(&self.hanging);
                    std::future::pending().await
                }
                "gate" => {
                    self.hanging.fetch_add(1, Ordering::SeqCst);
                    let _running = Hanging(&self.hanging);
                    self.gate.notified().await;
                    Ok(Response { content_type: text, body: call.body })
                }
                "sleep" => {
                    let millis = String::from_utf8_lossy(&call.body).parse().unwrap_or(0);
                    self.hanging.fetch_add(1, Ordering::SeqCst);
                    let _running = Hanging(&self.hanging);
                    let nap = tokio::time::sleep(Duration::from_millis(millis));
                    match tokio::time::timeout_at(call.deadline.into(), nap).await {
                        Ok(()) => Ok(Response { content_type: text, body: call.body }),
                        Err(_) => Err(Problem::new(Code::Deadline, "the deadline passed")),
                    }
                }
                "size" => {
                    let size = String::from_utf8_lossy(&call.body).parse().unwrap();
                    Ok(Response { content_type: text, body: vec![7; size].into() })
                }
                "big" => Ok(Response { content_type: text, body: vec![7; 8 << 20].into() }),
                "refuse" => Err(Problem::application(ApplicationError { content_type: text, body: call.body })),
                code => match serde_json::from_value::<Code>(code.into()) {
                    Ok(code) => Err(Problem::new(code, "as asked").on(PROVIDER)),
                    Err(_) => Err(Problem::new(Code::NoProvider, "nobody provides this")),
                },
            }
        })
    }
}

impl Overview for Stand {
    fn version(&self) -> u64 {
        self.version.load(Ordering::SeqCst) as u64
    }

    fn services(&self) -> Vec<ServiceEntry> {
        self.listings.fetch_add(1, Ordering::SeqCst);
        let more = (0..self.listed.load(Ordering::SeqCst)).map(|n| format!("service-{n:05}"));
        let names = std::iter::once("echo".to_owned()).chain(more);
        let entry = |name: String| ServiceEntry {
            name: name.parse().unwrap(),
            providers: vec![PROVIDER],
            callable: true,
            idempotent: true,
        };
        names.map(entry).collect()
    }

    fn nodes(&self) -> Vec<NodeEntry> {
        assert_eq!(self.panics.load(Ordering::SeqCst), 0, "listing panics on purpose");
        vec![NodeEntry { id: PROVIDER, address: None, this: true, state: "up".into(), reason: None }]
    }
}

impl AcceptPeer for Stand {
    fn accept_peer(&self, connection: quinn::Connection) {
        self.peers.lock().push(connection);
    }
}

/// A running gateway. Stopped with [`Server::stop`], and at the latest when the test's runtime ends.
pub(crate) struct Server {
    pub(crate) node: NodeId,
    pub(crate) gateway: Gateway,
    pub(crate) stand: Arc<Stand>,
    pub(crate) address: SocketAddr,
    pub(crate) tree: SupervisorRef,
    pub(crate) events: Events,
}

impl Server {
    pub(crate) async fn start(limits: Limits) -> Self {
        Self::start_with(limits, Duration::from_secs(5)).await
    }

    pub(crate) async fn start_with(limits: Limits, grace: Duration) -> Self {
        let identity = Identity::generate().unwrap();
        let server = server_config(&identity, Arc::new(limits.transport())).unwrap();
        let endpoint = plimsoll_mesh::gateway::bind(([127, 0, 0, 1], 0).into(), endpoint_config(&identity)).unwrap();
        let node = identity.node_id();
        let stand = Arc::new(Stand::default());
        let events = Events::default();
        let behind =
            Backends { dispatch: stand.clone(), overview: stand.clone(), peers: stand.clone(), events: events.clone() };
        let gateway = Gateway::new(node, endpoint.clone(), server, limits, behind).grace(grace);
        let tree = gateway.supervisor().start().await.unwrap();
        Self { node, gateway, stand, address: endpoint.local_addr().unwrap(), tree, events }
    }

    pub(crate) fn ask_to_stop(&self) {
        let tree = self.tree.clone();
        tokio::spawn(async move { tree.stop().await });
    }

    /// Stops it and checks that its counters balance and nothing is left.
    pub(crate) async fn stop(self) {
        let report = self.tree.stop().await.unwrap();
        assert!(report.is_clean(), "{report:?}");
        let (attempts, requests) = (self.gateway.attempts(), self.gateway.requests());
        assert!(attempts.balanced(), "{attempts:?}");
        assert_eq!((attempts.clients, attempts.responding, attempts.pending), (0, 0, 0), "{attempts:?}");
        assert!(requests.balanced() && requests.in_flight == 0, "{requests:?}");
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self).await.unwrap()
    }

    pub(crate) fn client_config(&self) -> quinn::ClientConfig {
        client_config(self.node, Arc::default()).unwrap()
    }

    pub(crate) fn peer_config(&self) -> quinn::ClientConfig {
        peer_client_config(&Identity::generate().unwrap(), Arc::default()).unwrap()
    }
}

/// Polls real state until it holds; for what only a packet can bring about.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let patience = tokio::time::Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(tokio::time::Instant::now() < patience, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// As [`dial`], from another address of this machine: an origin is a /24.
pub(crate) async fn dial_from(server: &Server, from: [u8; 4]) -> Result<quinn::Connection, quinn::ConnectionError> {
    let endpoint = quinn::Endpoint::client((from, 0).into()).unwrap();
    endpoint.connect_with(server.client_config(), server.address, "node").unwrap().await
}

/// A bare QUIC connection to the gateway, for clients that do not play by the rules.
pub(crate) async fn dial(
    server: &Server,
    config: quinn::ClientConfig,
) -> Result<quinn::Connection, quinn::ConnectionError> {
    let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    endpoint.connect_with(config, server.address, "node").unwrap().await
}

/// A path between a client and the gateway that can change its address, as a NAT does, or be cut.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    gateway: SocketAddr,
    /// The socket that the gateway sees.
    outside: Arc<Mutex<Arc<tokio::net::UdpSocket>>>,
    changed: Arc<Notify>,
    task: tokio_util::task::AbortOnDropHandle<()>,
}

impl Relay {
    pub(crate) async fn start(gateway: SocketAddr) -> Self {
        let inside = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = inside.local_addr().unwrap();
        let outside = Arc::new(Mutex::new(Self::outside(gateway).await));
        let changed = Arc::new(Notify::new());
        let (current, change) = (Arc::clone(&outside), Arc::clone(&changed));
        let task = tokio::spawn(async move {
            let (mut client, mut to_gateway, mut to_client) = (None, vec![0; 65_536], vec![0; 65_536]);
            loop {
                let outside = Arc::clone(&current.lock());
                tokio::select! {
                    Ok((bytes, from)) = inside.recv_from(&mut to_gateway) => {
                        client = Some(from);
                        let _ = outside.send(&to_gateway[..bytes]).await;
                    }
                    Ok(bytes) = outside.recv(&mut to_client) => {
                        if let Some(client) = client {
                            let _ = inside.send_to(&to_client[..bytes], client).await;
                        }
                    }
                    () = change.notified() => {}
                }
            }
        });
        Self { address, gateway, outside, changed, task: tokio_util::task::AbortOnDropHandle::new(task) }
    }

    async fn outside(gateway: SocketAddr) -> Arc<tokio::net::UdpSocket> {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(gateway).await.unwrap();
        Arc::new(socket)
    }

    /// The gateway sees another port from now on.
    pub(crate) async fn rebind(&self) {
        *self.outside.lock() = Self::outside(self.gateway).await;
        self.changed.notify_one();
    }

    /// Nothing passes any more, in either direction.
    pub(crate) fn cut(&self) {
        self.task.abort();
    }
}

/// A HEADERS frame of a request: its method by its index in QPACK's static table, 17 for GET and 20 for POST.
pub(crate) fn head(method: u8, path: &str) -> Vec<u8> {
    let section =
        [&[0x00, 0x00, 0xc0 | method, 0xc0 | 23, 0x50, 1, b'x', 0x51, path.len() as u8][..], path.as_bytes()].concat();
    frame(0x1, &section)
}

/// A frame of HTTP/3.
pub(crate) fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
    [varint(kind), varint(payload.len() as u64), payload.to_vec()].concat()
}

/// Code and reason with which the gateway closed a connection.
pub(crate) async fn closed(connection: &quinn::Connection) -> (u64, String) {
    let closed = tokio::time::timeout(Duration::from_secs(20), connection.closed()).await.expect("it is closed");
    match closed {
        quinn::ConnectionError::ApplicationClosed(close) => {
            (close.error_code.into_inner(), String::from_utf8_lossy(&close.reason).into_owned())
        }
        other => panic!("{other:?}"),
    }
}

/// A variable-length integer of eight bytes (RFC 9000, 16).
pub(crate) fn varint(value: u64) -> Vec<u8> {
    (value | 3 << 62).to_be_bytes().to_vec()
}

pub(crate) type Stream = h3::client::RequestStream<BidiStream, Bytes>;

/// A well-behaved client.
pub(crate) struct Client {
    pub(crate) quic: quinn::Connection,
    pub(crate) send: h3::client::SendRequest<OpenStreams, Bytes>,
}

/// An answer as a client sees it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The problem document, checked for what every problem has.
    #[track_caller]
    pub(crate) fn problem(&self) -> Document {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let document: Document = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(document.kind, format!("urn:plimsoll:problem:{}", document.code.as_str()));
        assert_eq!(document.status, self.status.as_u16());
        assert_eq!(document.code.status(), self.status);
        document
    }
}

impl Client {
    pub(crate) async fn connect(server: &Server) -> Result<Self, quinn::ConnectionError> {
        let quic = dial(server, server.client_config()).await?;
        Ok(Self::on(quic).await)
    }

    pub(crate) async fn on(quic: quinn::Connection) -> Self {
        let connection = Connection::client(quic.clone());
        let (mut driver, send) = h3::client::builder().build(connection).await.unwrap();
        tokio::spawn(async move { std::future::poll_fn(|cx| driver.poll_close(cx)).await });
        Self { quic, send }
    }

    pub(crate) async fn open(&self, request: Request<()>) -> Result<Stream, StreamError> {
        self.send.clone().send_request(request).await
    }

    pub(crate) async fn request(&self, request: Request<Bytes>) -> Result<Answer, StreamError> {
        let (parts, body) = request.into_parts();
        let mut stream = self.open(Request::from_parts(parts, ())).await?;
        if !body.is_empty() {
            stream.send_data(body).await?;
        }
        stream.finish().await?;
        answer(&mut stream).await
    }

    pub(crate) async fn call(&self, service: &str, body: impl Into<Bytes>) -> Result<Answer, StreamError> {
        self.request(post(service).body(body.into()).unwrap()).await
    }
}

pub(crate) fn post(service: &str) -> http::request::Builder {
    Request::post(format!("https://node/v1/call/{service}"))
}

pub(crate) async fn answer(stream: &mut Stream) -> Result<Answer, StreamError> {
    let (head, ()) = stream.recv_response().await?.into_parts();
    let mut body = BytesMut::new();
    while let Some(mut piece) = stream.recv_data().await? {
        body.extend_from_slice(&piece.copy_to_bytes(piece.remaining()));
    }
    Ok(Answer { status: head.status, headers: head.headers, body: body.freeze() })
}

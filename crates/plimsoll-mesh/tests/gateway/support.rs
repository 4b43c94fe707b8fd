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
use plimsoll_mesh::gateway::{AcceptPeer, Behind, CLIENT_PROTOCOL, Gateway, GatewayError, Limits, PEER_PROTOCOL};
use plimsoll_mesh::http3::{BidiStream, Connection, OpenStreams};
use plimsoll_mesh::names::NodeId;
use plimsoll_mesh::problem::{Code, Document, Problem};
use plimsoll_mesh::service::{
    ApplicationError, Dispatch, NodeEntry, Overview, Request as Call, Response, ServiceEntry,
};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const NODE: NodeId = NodeId::from_digest([7; 32]);

/// Services for the tests, by name.
#[derive(Default)]
pub struct Stand {
    /// Calls of `hang` that run now.
    pub hanging: AtomicUsize,
    /// Lets calls of `gate` through.
    pub gate: Notify,
    pub last: Mutex<Option<Call>>,
    pub peers: Mutex<Vec<quinn::Connection>>,
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
                "big" => Ok(Response { content_type: text, body: vec![7; 8 << 20].into() }),
                "refuse" => Err(Problem::application(ApplicationError { content_type: text, body: call.body })),
                code => match serde_json::from_value::<Code>(code.into()) {
                    Ok(code) => Err(Problem::new(code, "as asked").on(NodeId::from_digest([9; 32]))),
                    Err(_) => Err(Problem::new(Code::NoProvider, "nobody provides this")),
                },
            }
        })
    }
}

impl Overview for Stand {
    fn services(&self) -> Vec<ServiceEntry> {
        let name = "echo".parse().unwrap();
        vec![ServiceEntry { name, providers: vec![NODE], callable: true, idempotent: true }]
    }

    fn nodes(&self) -> Vec<NodeEntry> {
        vec![NodeEntry { id: NODE, address: None, this: true, state: "up".into(), reason: None }]
    }
}

impl AcceptPeer for Stand {
    fn accept_peer(&self, connection: quinn::Connection) {
        self.peers.lock().push(connection);
    }
}

/// A running gateway. Stopped with [`Server::stop`], and at the latest when the test's runtime ends.
pub struct Server {
    pub gateway: Gateway,
    pub stand: Arc<Stand>,
    pub address: SocketAddr,
    pub endpoint: quinn::Endpoint,
    stop: CancellationToken,
    running: JoinHandle<Result<(), GatewayError>>,
}

impl Server {
    pub fn start(limits: Limits) -> Self {
        Self::start_with(limits, Duration::from_secs(5))
    }

    pub fn start_with(limits: Limits, grace: Duration) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(["node".to_owned()]).unwrap().self_signed(&key).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut tls = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        tls.alpn_protocols = vec![CLIENT_PROTOCOL.into(), PEER_PROTOCOL.into()];
        let server = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
        let endpoint = quinn::Endpoint::server(server.clone(), ([127, 0, 0, 1], 0).into()).unwrap();
        let stand = Arc::new(Stand::default());
        let behind = Behind { dispatch: stand.clone(), overview: stand.clone(), peers: stand.clone() };
        let gateway = Gateway::new(NODE, endpoint.clone(), server, limits, behind).grace(grace);
        let stop = CancellationToken::new();
        let running = tokio::spawn(gateway.clone().run(stop.clone()));
        Self { gateway, stand, address: endpoint.local_addr().unwrap(), endpoint, stop, running }
    }

    pub fn ask_to_stop(&self) {
        self.stop.cancel();
    }

    /// Stops it and checks that its books balance and nothing is left.
    pub async fn stop(self) {
        self.stop.cancel();
        self.running.await.unwrap().unwrap();
        let (attempts, requests) = (self.gateway.attempts(), self.gateway.requests());
        assert!(attempts.balanced(), "{attempts:?}");
        assert_eq!((attempts.clients, attempts.at_desk, attempts.deciding), (0, 0, 0), "{attempts:?}");
        assert!(requests.balanced() && requests.in_flight == 0, "{requests:?}");
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.address).await.unwrap()
    }
}

/// Polls real state until it holds; for what only a packet can bring about.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let patience = tokio::time::Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(tokio::time::Instant::now() < patience, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Takes any certificate: these tests are about what comes after the handshake.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

pub fn client_config(protocol: &[u8]) -> quinn::ClientConfig {
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer))
        .with_no_client_auth();
    tls.alpn_protocols = vec![protocol.to_vec()];
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
}

/// A bare QUIC connection to the gateway, for clients that do not play by the rules.
pub async fn dial(address: SocketAddr, protocol: &[u8]) -> Result<quinn::Connection, quinn::ConnectionError> {
    let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    endpoint.connect_with(client_config(protocol), address, "node").unwrap().await
}

pub type Stream = h3::client::RequestStream<BidiStream, Bytes>;

/// A well-behaved client.
pub struct Client {
    pub quic: quinn::Connection,
    pub send: h3::client::SendRequest<OpenStreams, Bytes>,
    pub driver: JoinHandle<h3::error::ConnectionError>,
}

/// An answer as a client sees it.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The problem document, checked for what every problem has.
    #[track_caller]
    pub fn problem(&self) -> Document {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let document: Document = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(document.kind, format!("urn:plimsoll:problem:{}", document.code.as_str()));
        assert_eq!(document.status, self.status.as_u16());
        assert_eq!(document.code.status(), self.status);
        document
    }
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Result<Self, quinn::ConnectionError> {
        let quic = dial(address, CLIENT_PROTOCOL).await?;
        let connection = Connection::client(quic.clone());
        let (mut driver, send) = h3::client::builder().build(connection).await.unwrap();
        let driver = tokio::spawn(async move { std::future::poll_fn(|cx| driver.poll_close(cx)).await });
        Ok(Self { quic, send, driver })
    }

    pub async fn open(&self, request: Request<()>) -> Result<Stream, StreamError> {
        self.send.clone().send_request(request).await
    }

    pub async fn request(&self, request: Request<Bytes>) -> Result<Answer, StreamError> {
        let (parts, body) = request.into_parts();
        let mut stream = self.open(Request::from_parts(parts, ())).await?;
        if !body.is_empty() {
            stream.send_data(body).await?;
        }
        stream.finish().await?;
        answer(&mut stream).await
    }

    pub async fn call(&self, service: &str, body: impl Into<Bytes>) -> Result<Answer, StreamError> {
        self.request(post(service).body(body.into()).unwrap()).await
    }
}

pub fn post(service: &str) -> http::request::Builder {
    Request::post(format!("https://node/v1/call/{service}"))
}

pub async fn answer(stream: &mut Stream) -> Result<Answer, StreamError> {
    let (head, ()) = stream.recv_response().await?.into_parts();
    let mut body = BytesMut::new();
    while let Some(mut piece) = stream.recv_data().await? {
        body.extend_from_slice(&piece.copy_to_bytes(piece.remaining()));
    }
    Ok(Answer { status: head.status, headers: head.headers, body: body.freeze() })
}

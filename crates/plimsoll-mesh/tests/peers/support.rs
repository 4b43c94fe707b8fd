//! Nodes in one process, with real sockets between them.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use plimsoll::inspect::Inspect as _;
use plimsoll::supervisor::SupervisorRef;
use plimsoll_mesh::events::Events;
use plimsoll_mesh::identity::{Identity, TrustStore};
use plimsoll_mesh::names::NodeId;
use plimsoll_mesh::peers::{Gossip, Peer, PeerState, Peers, PeersConfig, Poison, Seed};
use plimsoll_mesh::problem::{Code, Problem};
use plimsoll_mesh::service::{Caller, Refusal, Request, Response, ServePeer};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::shared;
pub use crate::shared::{PATIENCE, TestResult};

/// Serves what the tests ask for, and counts what it is doing.
pub struct TestService {
    pub me: NodeId,
    pub release: Semaphore,
    running: watch::Sender<usize>,
    pub callers: Mutex<Vec<(Caller, Duration)>>,
}

impl TestService {
    fn new(me: NodeId) -> Self {
        Self { me, release: Semaphore::new(0), running: watch::Sender::new(0), callers: Mutex::default() }
    }

    /// Waits until so many calls run here.
    pub async fn running(&self, wanted: usize) -> TestResult {
        let mut running = self.running.subscribe();
        tokio::time::timeout(PATIENCE, running.wait_for(|&running| running == wanted)).await??;
        Ok(())
    }
}

struct Running<'a>(&'a watch::Sender<usize>);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
    }
}

/// What it does is chosen by the name of the service.
pub struct Serve(pub Arc<TestService>);

impl ServePeer for Serve {
    fn serve(&self, request: Request) -> BoxFuture<'static, Result<Response, Refusal>> {
        let service = Arc::clone(&self.0);
        async move {
            service.running.send_modify(|running| *running += 1);
            let _running = Running(&service.running);
            let left = request.deadline.saturating_duration_since(Instant::now());
            service.callers.lock().push((request.caller, left));
            match request.service.as_str() {
                "echo" => Ok(Response { content_type: "text/plain".into(), body: request.body }),
                "hold" => {
                    let _ = service.release.acquire().await;
                    Ok(Response { content_type: "text/plain".into(), body: request.body })
                }
                "long" => Ok(Response { content_type: "text/plain".into(), body: vec![b'x'; 64 * 1024].into() }),
                "panic" => panic!("told to"),
                "full" => Err(Refusal::never_ran(Problem::new(Code::Overloaded, "full").on(service.me))),
                _ => Err(Refusal::may_have_run(Problem::new(Code::WorkerPanicked, "boom").on(service.me))),
            }
        }
        .boxed()
    }
}

/// Keeps gossip; takes `poison` for poison.
#[derive(Default)]
pub struct RecordingGossip {
    pub heard: Mutex<Vec<(NodeId, Bytes)>>,
}

impl Gossip for RecordingGossip {
    fn deliver(&self, from: NodeId, message: Bytes) -> Result<(), Poison> {
        if &*message == b"poison" {
            return Err(Poison("it says poison".to_owned()));
        }
        self.heard.lock().push((from, message));
        Ok(())
    }

    fn up(&self, _: NodeId) {}

    fn down(&self, _: NodeId) {}
}

/// A node without a gateway.
pub struct Node {
    pub id: NodeId,
    pub identity: Identity,
    pub trust: TrustStore,
    pub peers: Peers,
    pub service: Arc<TestService>,
    pub gossip: Arc<RecordingGossip>,
    pub address: SocketAddr,
    pub endpoint: quinn::Endpoint,
    pub events: Events,
    tree: SupervisorRef,
    _accepting: AbortOnDropHandle<()>,
    apart: Option<Runtime>,
}

/// How a node is to be.
pub struct Plan {
    pub identity: Identity,
    pub trust: TrustStore,
    pub config: PeersConfig,
    pub socket: UdpSocket,
}

impl Plan {
    /// An open node on a free port of loopback.
    pub fn new() -> TestResult<Self> {
        let mut config = PeersConfig::new("default");
        config.redial.longest_refused = Duration::from_millis(400);
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        Ok(Self { identity: Identity::generate()?, trust: TrustStore::open(), config, socket })
    }

    pub fn id(&self) -> NodeId {
        self.identity.node_id()
    }

    pub fn address(&self) -> TestResult<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }

    pub fn dials(mut self, address: SocketAddr, node: Option<NodeId>) -> Self {
        self.config.seeds.push(Seed { address: address.into(), node });
        self
    }

    pub async fn start(mut self) -> TestResult<Node> {
        let address = self.address()?;
        self.config.listens = Some(address);
        let id = self.id();
        let mut transport = quinn::TransportConfig::default();
        transport.max_idle_timeout(Some(Duration::from_secs(30).try_into()?));
        let endpoint = shared::endpoint(&self.identity, self.socket, transport)?;
        let (service, gossip) = (Arc::new(TestService::new(id)), Arc::new(RecordingGossip::default()));
        let events = self.config.events.clone();
        let peers = Peers::new(
            self.identity.clone(),
            self.trust.clone(),
            endpoint.clone(),
            self.config,
            Arc::new(Serve(Arc::clone(&service))),
            Arc::clone(&gossip) as Arc<dyn Gossip>,
        )?;
        let tree = peers.supervisor().start().await?;
        let accepting = shared::accepting(endpoint.clone(), peers.clone());
        Ok(Node {
            id,
            identity: self.identity,
            trust: self.trust,
            peers,
            service,
            gossip,
            address,
            endpoint,
            events,
            tree,
            _accepting: accepting,
            apart: None,
        })
    }

    /// The same on a runtime of its own, so that it can [vanish](Node::vanish).
    pub async fn start_apart(self) -> TestResult<Node> {
        let (node, runtime) = shared::apart(self.start()).await?;
        Ok(Node { apart: Some(runtime), ..node })
    }
}

impl Node {
    /// What this node knows of `node`.
    pub fn peer(&self, node: NodeId) -> Option<Peer> {
        self.peers.list().into_iter().find(|peer| peer.node == node)
    }

    /// Waits until `node` stands like this here; its line says why.
    pub async fn sees(&self, node: NodeId, state: PeerState) -> TestResult<Peer> {
        let mut changes = self.peers.changes();
        let seen = async {
            loop {
                if let Some(peer) = self.peer(node).filter(|peer| peer.state == state) {
                    return peer;
                }
                // Between nodes in other processes there is no more than this to wait for.
                let _ = tokio::time::timeout(Duration::from_millis(20), changes.changed()).await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, seen).await;
        Ok(found.map_err(|_| format!("{node} is not {state:?} but {:?}", self.peer(node)))?)
    }

    pub fn counter(&self, name: &str) -> u64 {
        self.peers.inspect().counters.get(name).copied().unwrap_or_default()
    }

    /// Polls a counter; for what only a packet can bring about.
    pub async fn counts(&self, name: &str, wanted: u64) -> TestResult {
        let deadline = Instant::now() + PATIENCE;
        while self.counter(name) != wanted {
            if Instant::now() > deadline {
                return Err(format!("{name} is {} and not {wanted}", self.counter(name)).into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    pub async fn call(&self, node: NodeId, service: &str, body: &'static [u8]) -> Result<Response, Refusal> {
        self.peers.call(node, &request(service, body, Duration::from_secs(5))).await
    }

    /// Stops in order.
    pub async fn stop(mut self) {
        self.tree.stop().await.unwrap();
        self.endpoint.close(0u32.into(), b"test over");
        // A dial under way to a node that is gone lingers for seconds.
        let _ = tokio::time::timeout(Duration::from_millis(500), self.endpoint.wait_idle()).await;
        if let Some(runtime) = self.apart.take() {
            runtime.shutdown_background();
        }
    }

    /// Ends as a killed process does: nothing of it runs any more, and its port is free.
    pub async fn vanish(mut self) -> TestResult {
        shared::vanish(self.apart.take()).await
    }
}

pub fn request(service: &str, body: &'static [u8], within: Duration) -> Request {
    Request {
        service: service.parse().unwrap_or_else(|error| panic!("{error}")),
        body: Bytes::from_static(body),
        content_type: Some("text/plain".into()),
        deadline: Instant::now() + within,
        call_id: "call-1".into(),
        traceparent: None,
        caller: Caller::Client(0),
    }
}

/// Two nodes that know of each other, up on both sides; the second can vanish.
pub async fn pair() -> TestResult<(Node, Node)> {
    let (left, right) = (Plan::new()?, Plan::new()?);
    let right_at = right.address()?;
    let (left, right) = (left.dials(right_at, None).start().await?, right.start_apart().await?);
    left.sees(right.id, PeerState::Up).await?;
    right.sees(left.id, PeerState::Up).await?;
    Ok((left, right))
}

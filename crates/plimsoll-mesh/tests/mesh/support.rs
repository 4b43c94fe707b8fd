//! Nodes in one process.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll::call::{CallContext, CallServer, Service};
use plimsoll::inspect::Inspect as _;
use plimsoll::supervisor::{ChildSpec, Strategy, Supervisor, SupervisorRef};
use plimsoll_mesh::directory::{Directory as _, DirectoryConfig, GossipDirectory};
use plimsoll_mesh::identity::{Generations, Identity, TrustStore};
use plimsoll_mesh::names::NodeId;
use plimsoll_mesh::peers::{Peers, PeersConfig, Resolve, Seed, SeedAddress};
use plimsoll_mesh::problem::Problem;
use plimsoll_mesh::rpc::{ProviderChoice, Router};
use plimsoll_mesh::service::{ApplicationError, Caller, Dispatch as _, Overview as _, Request, Response};
use plimsoll_mesh::services::{ServiceTable, provide};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use crate::shared;
pub use crate::shared::{PATIENCE, TestResult};

/// Answers with the id of its node; `hold` waits for a release first, `panic` panics.
struct Whoami {
    me: NodeId,
    release: Arc<Semaphore>,
}

impl Service for Whoami {
    type Request = Request;
    type Reply = Response;
    type Error = ApplicationError;

    async fn call(&self, _: CallContext, request: Request) -> Result<Response, ApplicationError> {
        match &*request.body {
            b"hold" => drop(self.release.acquire().await),
            b"panic" => panic!("told to"),
            _ => {}
        }
        Ok(Response { content_type: "text/plain".into(), body: self.me.to_string().into() })
    }
}

/// A node without a gateway.
pub struct Node {
    pub id: NodeId,
    pub address: SocketAddr,
    pub peers: Peers,
    pub directory: GossipDirectory,
    pub services: ServiceTable,
    pub router: Router,
    pub release: Arc<Semaphore>,
    pub endpoint: quinn::Endpoint,
    tree: SupervisorRef,
    _accepting: AbortOnDropHandle<()>,
    apart: Option<Runtime>,
}

/// How a node is to be.
pub struct Plan {
    pub identity: Identity,
    pub socket: UdpSocket,
    pub trust: TrustStore,
    pub realm: &'static str,
    pub seeds: Vec<SocketAddr>,
    /// Seeds that are host names, and what looks them up.
    pub names: Vec<&'static str>,
    pub resolver: Option<Arc<dyn Resolve>>,
    pub generations: Generations,
    pub ttl: Duration,
    /// Names, and whether their calls may run twice.
    pub offers: Vec<(&'static str, bool)>,
    /// Calls that each service serves at once.
    pub at_once: u32,
    pub choice: ProviderChoice,
}

impl Plan {
    pub fn new(offers: &[(&'static str, bool)], seeds: &[SocketAddr]) -> TestResult<Self> {
        Ok(Self {
            identity: Identity::generate()?,
            socket: UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?,
            trust: TrustStore::open(),
            realm: "default",
            seeds: seeds.to_vec(),
            names: Vec::new(),
            resolver: None,
            generations: Generations::in_memory(),
            ttl: Duration::from_secs(300),
            offers: offers.to_vec(),
            at_once: 100,
            choice: ProviderChoice::default(),
        })
    }

    /// The next incarnation of a node that was there before, on the same port.
    pub fn again(identity: &Identity, address: SocketAddr, offers: &[(&'static str, bool)]) -> TestResult<Self> {
        Ok(Self { identity: identity.clone(), socket: UdpSocket::bind(address)?, ..Self::new(offers, &[])? })
    }

    pub async fn start(self) -> TestResult<Node> {
        let address = self.socket.local_addr()?;
        let id = self.identity.node_id();
        let endpoint = shared::endpoint(&self.identity, self.socket, quinn::TransportConfig::default())?;
        let services = ServiceTable::new();
        let mut config = DirectoryConfig::new(self.realm);
        config.gossip_interval = Duration::from_millis(100);
        config.ttl = self.ttl;
        config.listens = Some(address);
        config.generations = self.generations.clone();
        let directory = GossipDirectory::new(self.identity.clone(), self.trust.clone(), config);
        let mut config = PeersConfig::new(self.realm);
        config.listens = Some(address);
        config.seeds = self.seeds.iter().map(|&address| Seed::new(address)).collect();
        for name in self.names {
            config.seeds.push(Seed::new(name.parse::<SeedAddress>()?));
        }
        if let Some(resolver) = self.resolver {
            config.resolver = resolver;
        }
        config.incarnation = self.generations.next()?;
        let local = Router::local(id, Some(address), services.clone());
        let gossip = Arc::new(directory.clone());
        let peers = Peers::new(self.identity.clone(), self.trust, endpoint.clone(), config, Arc::new(local), gossip)?;
        let (seen, forward) = (Arc::new(directory.clone()), Arc::new(peers.clone()));
        let router = Router::meshed(id, Some(address), services.clone(), seen, forward, self.choice);

        let release = Arc::new(Semaphore::new(0));
        let mut servers = Supervisor::builder("services").strategy(Strategy::OneForOne);
        for (name, idempotent) in self.offers {
            let (services, release, at_once) = (services.clone(), release.clone(), self.at_once);
            servers = servers.child(ChildSpec::new(name, move |parent| {
                let service = Whoami { me: id, release: release.clone() };
                let server = CallServer::builder(service).max_in_flight(at_once).deadline(PATIENCE);
                let services = services.clone();
                async move {
                    let name = name.parse().unwrap_or_else(|error| panic!("{error}"));
                    provide(&services, name, idempotent, server, parent).await
                }
            }));
        }
        let (gossiping, connecting) = (directory.supervisor(&peers, &services), peers.supervisor());
        let tree = Supervisor::builder("node").strategy(Strategy::RestForOne).start().await?;
        let mut owners = vec![services.owner(), router.child()].into_iter();
        for (name, part) in [("directory", gossiping), ("peers", connecting), ("services", servers)] {
            if name == "services" {
                for owner in owners.by_ref() {
                    tree.start_child(owner).await?;
                }
            }
            let part = parking_lot::Mutex::new(Some(part));
            let build = move || part.lock().take().unwrap_or_else(|| Supervisor::builder("none"));
            tree.start_child(ChildSpec::supervisor(name, build)).await?;
        }
        let accepting = shared::accepting(endpoint.clone(), peers.clone());
        Ok(Node {
            id,
            address,
            peers,
            directory,
            services,
            router,
            release,
            endpoint,
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
    /// Calls as a client of this node would.
    pub async fn call(&self, service: &str, body: &'static str) -> Result<NodeId, Problem> {
        self.call_within(service, body, Duration::from_secs(5)).await
    }

    pub async fn call_within(&self, service: &str, body: &'static str, within: Duration) -> Result<NodeId, Problem> {
        self.call_of(0, service, body, within).await
    }

    /// Calls as this one of several clients.
    pub async fn call_of(
        &self,
        client: u64,
        service: &str,
        body: &'static str,
        within: Duration,
    ) -> Result<NodeId, Problem> {
        let request = request(client, service, body, within);
        let response = self.router.dispatch(request).await?;
        let id = String::from_utf8_lossy(&response.body).parse();
        Ok(id.unwrap_or_else(|_| panic!("{:?}", response.body)))
    }

    /// Waits until it knows that exactly these others provide the service.
    pub async fn sees_providers(&self, service: &str, providers: &[&Node]) -> TestResult {
        let mut wanted: Vec<_> = providers.iter().map(|node| node.id).collect();
        wanted.sort_unstable();
        let what = format!("{service} provided by {wanted:?}");
        self.eventually(&what, || {
            let view = self.directory.view();
            let seen: Vec<_> = view
                .services
                .iter()
                .filter(|(name, _)| name.as_str() == service)
                .flat_map(|(_, providers)| providers.iter().map(|provider| provider.node))
                .collect();
            seen == wanted
        })
        .await
    }

    /// Polls real state; for what only packets can bring about.
    pub async fn eventually(&self, what: &str, mut holds: impl FnMut() -> bool) -> TestResult {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            if Instant::now() > deadline {
                let (view, nodes) = (self.directory.view(), self.router.nodes());
                return Err(format!("not so on {}: {what}; {view:?} {nodes:?}", self.id).into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    pub fn state_of(&self, node: NodeId) -> Option<String> {
        self.router.nodes().into_iter().find(|entry| entry.id == node).map(|entry| entry.state)
    }

    /// What must be zero when nothing is going on: attempts, callers waiting for them, handshakes, closings, and calls.
    pub fn census(&self) -> [u64; 5] {
        let counters = self.peers.inspect().counters;
        ["dialling", "dials_awaited", "handshakes", "closing", "workers_peer_call"].map(|name| counters[name])
    }

    pub fn in_flight(&self) -> u64 {
        let counters = self.peers.inspect().counters;
        counters.get("calls_in").copied().unwrap_or_default()
    }

    pub async fn stop(mut self) {
        self.tree.stop().await.unwrap();
        self.endpoint.close(0u32.into(), b"test over");
        if let Some(runtime) = self.apart.take() {
            runtime.shutdown_background();
        }
    }

    /// Goes without a word, as a killed process does.
    pub async fn vanish(mut self) -> TestResult<NodeId> {
        shared::vanish(self.apart.take()).await.map(|()| self.id)
    }
}

/// A call of a client.
pub fn request(client: u64, service: &str, body: &'static str, within: Duration) -> Request {
    Request {
        service: service.parse().unwrap_or_else(|error| panic!("{error}")),
        body: body.into(),
        content_type: None,
        deadline: Instant::now() + within,
        call_id: "test".into(),
        traceparent: None,
        caller: Caller::Client(client),
    }
}

//! From settings to a running node.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use plimsoll::call::Service;
use plimsoll::ractor::ActorCell;
use plimsoll::supervisor::{BoxError, Child, ChildSpec};

use crate::directory::{DirectoryConfig, GossipDirectory};
use crate::events::Events;
use crate::gateway::{self, Backends, Gateway, MemoryRequirement};
use crate::identity::{self, Generations, Identity, TrustStore};
use crate::peers::{Peers, PeersConfig};
use crate::rpc::Router;
use crate::service::{ApplicationError, Request, Response};
use crate::services::ServiceTable;

use super::advertised_address;
use super::config::{NodeConfig, Trusted};
use super::offer::{AnyOffer, Offer};
use super::snapshot::NodeView;
use super::tree::{Parts, tree};
use super::{Node, NodeError, read_allow_list};

type Console = Box<dyn FnOnce(NodeView) -> ChildSpec + Send>;

/// A node that is being put together.
pub struct NodeBuilder {
    config: NodeConfig,
    offers: Vec<AnyOffer>,
    console: Option<Console>,
}

impl NodeBuilder {
    pub(super) fn new(config: NodeConfig) -> Self {
        Self { config, offers: Vec::new(), console: None }
    }

    /// Offers a service.
    #[must_use]
    pub fn service<S>(mut self, offer: Offer<S>) -> Self
    where
        S: Service<Request = Request, Reply = Response, Error = ApplicationError>,
    {
        self.offers.push(offer.forget());
        self
    }

    /// Adds the child `console`, the last to start and the first to stop; it may show what the view shows.
    #[must_use]
    pub fn console<F, Fut, E>(mut self, start: F) -> Self
    where
        F: Fn(ActorCell, NodeView) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Child, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.console = Some(Box::new(move |view| ChildSpec::new("console", move |parent| start(parent, view.clone()))));
        self
    }

    /// Checks everything that can be checked, then starts the node.
    ///
    /// # Errors
    /// [`NodeError`]; nothing of the node is left then.
    ///
    /// Cancel safe: a start that is given up leaves nothing but the identity in the data folder.
    pub async fn start(self) -> Result<Node, NodeError> {
        let Self { config, offers, console } = self;
        MemoryRequirement::of(&config.gateway, config.max_peers.get()).fits(config.memory_budget)?;
        distinct(&offers)?;
        let trust = match &config.trusted {
            Trusted::Open => TrustStore::open(),
            Trusted::Listed(path) => {
                TrustStore::listed(read_allow_list(path)?).map_err(|full| NodeError::Wiring(full.into()))?
            }
        };
        let identity = Identity::load_or_create(&config.data)?;
        let folder = lock(&config.data)?;
        let bind_error = |source| NodeError::Bind { address: config.listen, source };
        let addresses = [&[config.listen], &*config.listen_fallbacks].concat();
        let endpoint = gateway::bind_first(&addresses, &identity::endpoint_config(&identity)).map_err(bind_error)?;
        let address = endpoint.local_addr().map_err(bind_error)?;

        let me = identity.node_id();
        let own = advertised_address::advertised(config.advertise, address, advertised_address::own)?;
        let advertised = Some(own);
        let events = Events::with_capacity(config.max_events);
        let services = ServiceTable::with_events(events.clone());
        let generations = Generations::in_folder(&config.data)?;
        let directory =
            GossipDirectory::new(identity.clone(), trust.clone(), directory_config(&config, advertised, &generations));
        let local = Router::local(me, advertised, services.clone());
        let peers = Peers::new(
            identity.clone(),
            trust.clone(),
            endpoint.clone(),
            peers_config(&config, advertised, &events, generations.next()?),
            Arc::new(local.clone()),
            Arc::new(directory.clone()),
        )?;
        let (seen, forward) = (Arc::new(directory.clone()), Arc::new(peers.clone()));
        let router = Router::meshed(me, advertised, services.clone(), seen, forward, config.choice);
        let server = identity::server_config(&identity, Arc::new(config.gateway.transport()))?;
        let behind = Backends {
            dispatch: Arc::new(router.clone()),
            overview: Arc::new(router.clone()),
            peers: Arc::new(peers.clone()),
            events: events.clone(),
        };
        let gateway = Gateway::new(me, endpoint.clone(), server, config.gateway.clone(), behind).grace(config.grace);
        let view = NodeView::new(me, [address, own], config.realm.clone(), [local, router.clone()], events);
        let console = console.map(|console| console(view.clone()));
        let (withdrawing, counted) = (directory.clone(), (gateway.clone(), services.clone(), peers.clone()));
        let observed = view.events().clone();
        let parts = Parts {
            trusted: config.trusted,
            trust,
            directory,
            peers,
            services,
            offers,
            router,
            gateway,
            console,
            events: observed,
        };
        let tree = tree(parts).start().await?;
        view.show(&tree);
        let (gateway, services, peers) = counted;
        Ok(Node { tree, directory: withdrawing, gateway, services, peers, endpoint, view, _folder: folder })
    }
}

fn directory_config(config: &NodeConfig, advertised: Option<SocketAddr>, generations: &Generations) -> DirectoryConfig {
    let mut directory = DirectoryConfig::new(config.realm.as_str());
    directory.gossip_interval = config.gossip_interval;
    directory.ttl = config.service_ttl;
    directory.listens = advertised;
    directory.generations = generations.clone();
    directory
}

fn peers_config(config: &NodeConfig, advertised: Option<SocketAddr>, events: &Events, incarnation: u64) -> PeersConfig {
    let mut peers = PeersConfig::new(config.realm.as_str());
    peers.listens = advertised;
    peers.incarnation = incarnation;
    peers.seeds = config.seeds.clone();
    peers.connections = config.max_peers;
    peers.max_body = config.gateway.body_bytes;
    peers.events = events.clone();
    peers
}

fn distinct(offers: &[AnyOffer]) -> Result<(), NodeError> {
    let mut names = BTreeSet::new();
    match offers.iter().find(|offer| !names.insert(&offer.name)) {
        None => Ok(()),
        Some(twice) => Err(NodeError::Wiring(format!("{} is offered twice", twice.name).into())),
    }
}

/// Locks the data folder for the life of the returned file.
fn lock(data: &Path) -> Result<File, NodeError> {
    let path = data.join("lock");
    let refuse = |source| NodeError::Lock { path: path.clone(), source };
    let file = File::create(&path).map_err(refuse)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(NodeError::FolderInUse(data.to_owned())),
        Err(TryLockError::Error(error)) => Err(refuse(error)),
    }
}

impl std::fmt::Debug for NodeBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeBuilder")
            .field("config", &self.config)
            .field("offers", &self.offers)
            .finish_non_exhaustive()
    }
}

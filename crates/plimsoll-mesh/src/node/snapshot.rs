//! A node at one moment, as its admin listener shows it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use plimsoll::inspect::{Details, Inspect, Kind, Snapshot, Status, TreeNode};
use plimsoll::supervisor::SupervisorRef;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use crate::events::{Event, EventKind, Events};
use crate::names::{NodeId, ServiceName};
use crate::rpc::Router;
use crate::service::{NodeEntry, Overview, ServiceEntry};

/// Events in a snapshot.
const SHOWN_EVENTS: usize = 100;

/// The runtime's snapshot, and what the node knows of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeSnapshot {
    /// Schema, time and tree.
    #[serde(flatten)]
    pub runtime: Snapshot,
    /// The node.
    pub node: NodeId,
    /// Where it listens for clients and peers (UDP).
    pub address: SocketAddr,
    /// Where others reach it.
    pub advertised: SocketAddr,
    /// Its realm.
    pub realm: ServiceName,
    /// How calls were routed, ever since.
    pub routing: BTreeMap<String, u64>,
    /// All services it knows, sorted by name.
    pub services: Vec<ServiceEntry>,
    /// All nodes it knows, itself first.
    pub nodes: Vec<NodeEntry>,
    /// The latest events, at most a hundred, oldest first.
    #[serde(default)]
    pub events: Vec<Event>,
    /// The history that they are of: how many there are, how many there may be, how many went.
    #[serde(default)]
    pub history: BTreeMap<String, u64>,
    /// Tasks of its runtime, those of actors included; 0 when it is taken outside.
    #[serde(default)]
    pub tasks: usize,
}

/// What can be read of a node at any time, without a turn of any actor. Cloning shares it.
#[derive(Clone)]
pub struct NodeView(Arc<Inner>);

struct Inner {
    node: NodeId,
    address: SocketAddr,
    advertised: SocketAddr,
    realm: ServiceName,
    /// One for the calls of other nodes, one for those of clients: the second sees the mesh.
    routers: [Router; 2],
    events: Events,
    // The console is started within the tree that it shows.
    tree: OnceLock<SupervisorRef>,
}

impl NodeView {
    /// Of the addresses, the first is the one listened on, the second the advertised one.
    pub(super) fn new(
        node: NodeId,
        addresses: [SocketAddr; 2],
        realm: ServiceName,
        routers: [Router; 2],
        events: Events,
    ) -> Self {
        let [address, advertised] = addresses;
        Self(Arc::new(Inner { node, address, advertised, realm, routers, events, tree: OnceLock::new() }))
    }

    pub(super) fn show(&self, tree: &SupervisorRef) {
        let _ = self.0.tree.set(tree.clone());
    }

    /// The node's id.
    pub fn id(&self) -> NodeId {
        self.0.node
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Where others reach it.
    pub fn advertised(&self) -> SocketAddr {
        self.0.advertised
    }

    /// Adds an event about no peer, as the program sees it. Its reason is cut to 256 bytes.
    pub fn record(&self, kind: EventKind, reason: &str) {
        self.0.events.record(kind, None, reason);
    }

    pub(super) fn events(&self) -> &Events {
        &self.0.events
    }

    /// Everything, now.
    pub fn snapshot(&self) -> NodeSnapshot {
        let [_, meshed] = &self.0.routers;
        let tree = self.0.tree.get().map_or_else(starting, SupervisorRef::inspect);
        NodeSnapshot {
            runtime: Snapshot::of(tree),
            node: self.0.node,
            address: self.0.address,
            advertised: self.0.advertised,
            realm: self.0.realm.clone(),
            routing: self.0.routing(),
            services: meshed.services(),
            nodes: meshed.nodes(),
            events: self.0.events.latest(SHOWN_EVENTS),
            history: self.0.events.inspect().counters.into(),
            tasks: Handle::try_current().map_or(0, |runtime| runtime.metrics().num_alive_tasks()),
        }
    }
}

impl Inner {
    fn routing(&self) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for (name, count) in self.routers.iter().flat_map(|router| router.inspect().counters) {
            *sums.entry(name).or_default() += count.value;
        }
        sums
    }
}

/// The root before all its children have started for the first time.
fn starting() -> TreeNode {
    TreeNode {
        id: super::tree::ROOT.to_owned(),
        kind: Kind::Supervisor,
        status: Status::Starting,
        actor: None,
        restarts: 0,
        details: Details::default(),
    }
}

impl std::fmt::Debug for NodeView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeView").field("node", &self.0.node).field("address", &self.0.address).finish_non_exhaustive()
    }
}

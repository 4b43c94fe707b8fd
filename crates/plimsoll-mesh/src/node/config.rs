//! What a node runs with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use plimsoll::bounded::Cap;

use crate::gateway::Limits;
use crate::names::ServiceName;
use crate::peers::Seed;
use crate::rpc::ProviderChoice;

/// The settings of a node.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NodeConfig {
    /// The data folder: identity, lock, admin socket.
    pub data: PathBuf,
    /// The UDP address for clients and peers; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Tried in order when [`listen`](Self::listen) cannot be listened on: the other addresses of a host name. Default none.
    pub listen_fallbacks: Vec<SocketAddr>,
    /// Where others should dial this node; port 0 stands for the one it listens on. Default: where it listens, and if
    /// that is every address, the one from which this machine reaches others.
    pub advertise: Option<SocketAddr>,
    /// The realm. Default `default`.
    pub realm: ServiceName,
    /// Which nodes are trusted as peers. Default: those of the file `allowed-nodes` in the data folder.
    pub trusted: Trusted,
    /// Nodes to connect to first; with an id, the node there must prove it.
    pub seeds: Vec<Seed>,
    /// Peer connections kept. Default 1,000.
    pub max_peers: Cap,
    /// Time between gossip rounds. Default 500 ms.
    pub gossip_interval: Duration,
    /// How long the services of a silent node are kept. Default 300 s.
    pub service_ttl: Duration,
    /// Which of several providers on other nodes is asked. Default: the better of two.
    pub choice: ProviderChoice,
    /// Events kept. Default 10,000; at the cap the oldest hundredth goes.
    pub max_events: Cap,
    /// Limits of the gateway.
    pub gateway: Limits,
    /// How long requests in flight are served after a stop. Default 5 s.
    pub grace: Duration,
    /// Bytes that all caps together must fit. Default: three quarters of what this process may use; all there can be
    /// when the system does not show it.
    pub memory_budget: u64,
}

/// Which nodes are trusted as peers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trusted {
    /// Every node that proves its key.
    Open,
    /// The nodes of this file, which is read again when it changes.
    Listed(PathBuf),
}

impl NodeConfig {
    /// The default settings for a node with this data folder and address.
    pub fn new(data: PathBuf, listen: SocketAddr) -> Self {
        let trusted = Trusted::Listed(data.join("allowed-nodes"));
        Self {
            data,
            listen,
            listen_fallbacks: Vec::new(),
            advertise: None,
            realm: "default".parse().unwrap_or_else(|error| unreachable!("{error}")),
            trusted,
            seeds: Vec::new(),
            max_peers: Cap::of::<1_000>(),
            gossip_interval: Duration::from_millis(500),
            service_ttl: Duration::from_secs(300),
            choice: ProviderChoice::default(),
            max_events: Cap::of::<10_000>(),
            gateway: Limits::default(),
            grace: Duration::from_secs(5),
            memory_budget: super::memory().map_or(u64::MAX, |(bytes, _)| bytes / 4 * 3),
        }
    }
}

//! A whole node: one supervision tree, wired.
//!
//! ```text
//! node            rest_for_one
//! |- identity     follows the allow-list file, if there is one
//! |- directory    members and their services, by gossip
//! |- peers        connections to other nodes
//! |- service-table  the owner of the table of services
//! |- services     a call server a service                        one_for_one
//! |- router       counters, and the positions of round robin
//! |- gateway      clients over HTTP/3
//! `- console      what the program shows to its operator
//! ```
//!
//! The UDP port and the data folder belong to the node itself: they outlive every restart within it.

mod advertised_address;
mod allow_list;
mod builder;
mod config;
mod memory_limit;
mod offer;
mod snapshot;
mod tree;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use plimsoll::supervisor::{BoxError, Deadlock, ShutdownReport, StartError, SupervisorRef};

use crate::directory::GossipDirectory;
use crate::gateway::{BudgetTooSmall, Gateway};
use crate::identity::IdentityError;
use crate::names::NodeId;
use crate::peers::Peers;
use crate::services::ServiceTable;

pub use allow_list::{AllowListError, read_allow_list};
pub use builder::NodeBuilder;
pub use config::{NodeConfig, Trusted};
pub use memory_limit::{Source, memory};
pub use offer::Offer;
pub use snapshot::{NodeSnapshot, NodeView};

/// Name of the admin socket in the data folder.
pub const ADMIN_SOCKET: &str = "admin.sock";

/// How long a stop waits until the peers have acknowledged the withdrawal: longer than the liveness limit of a peer.
const WITHDRAWAL_TIMEOUT: Duration = Duration::from_secs(2);

/// A running node.
#[derive(Debug)]
pub struct Node {
    tree: SupervisorRef,
    directory: GossipDirectory,
    gateway: Gateway,
    services: ServiceTable,
    peers: Peers,
    endpoint: quinn::Endpoint,
    view: NodeView,
    // Unlocks the data folder when the node is gone.
    _folder: std::fs::File,
}

/// Why a node did not start. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The caps do not fit the memory.
    #[error(transparent)]
    BudgetTooSmall(#[from] BudgetTooSmall),
    /// The allow-list cannot be used.
    #[error(transparent)]
    AllowList(#[from] AllowListError),
    /// There is no identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Another node runs with this data folder.
    #[error("another node runs with the data folder {}", .0.display())]
    FolderInUse(std::path::PathBuf),
    /// The data folder cannot be locked.
    #[error("cannot lock {}", path.display())]
    Lock {
        /// The lock file.
        path: std::path::PathBuf,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address} (UDP)")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// The node listens on every address, and which of them others can dial is not known.
    #[error(
        "the node listens on every address ({0}), and this machine has no route that shows which of them others reach; \
         set advertise to the address that they should dial, or listen on that one"
    )]
    NoAddress(SocketAddr),
    /// What is to be advertised is no address that others could dial.
    #[error("others cannot dial {0}; advertise the address of one machine")]
    BadAdvertise(SocketAddr),
    /// A part of the tree did not start.
    #[error(transparent)]
    Tree(#[from] StartError),
    /// A service that is offered twice, or another contradiction.
    #[error(transparent)]
    Wiring(BoxError),
}

impl Node {
    /// A node with these settings, to be given its services.
    pub fn builder(config: NodeConfig) -> NodeBuilder {
        NodeBuilder::new(config)
    }

    /// Its id.
    pub fn id(&self) -> NodeId {
        self.view.id()
    }

    /// Where it listens for clients and peers (UDP).
    pub fn address(&self) -> SocketAddr {
        self.view.address()
    }

    /// Where others reach it.
    pub fn advertised(&self) -> SocketAddr {
        self.view.advertised()
    }

    /// What can be read of it at any time.
    pub fn view(&self) -> &NodeView {
        &self.view
    }

    /// Calls of clients and of peers that were still running when the grace of a stop had passed. They may have run.
    pub fn calls_cut_off(&self) -> u64 {
        self.gateway.requests().cut_off + self.services.calls_cut_off() + self.peers.calls_cut_off()
    }

    /// The root of its tree.
    pub fn tree(&self) -> &SupervisorRef {
        &self.tree
    }

    /// Stops it in order. First it withdraws its services from the other nodes, for two seconds at most; then the children of
    /// the tree stop in reverse order of their start, each with its own grace; then the port is closed.
    ///
    /// # Errors
    /// [`Deadlock`] when the caller is part of the node, such as a service of it: the stop goes on all the same.
    ///
    /// Cancel safe: the stop goes on, and a second one waits for the same end.
    pub async fn stop(&self) -> Result<Arc<ShutdownReport>, Deadlock> {
        let (directory, tree) = (self.directory.clone(), self.tree.clone());
        let stopping = tokio::spawn(async move {
            directory.withdraw(WITHDRAWAL_TIMEOUT).await;
            tree.stop().await
        });
        let report = match stopping.await {
            Ok(report) => report,
            // It panicked; whether the others know or not, the tree is stopped.
            Err(_) => self.tree.stop().await,
        }?;
        self.close().await;
        Ok(report)
    }

    /// Waits until the node has ended by itself, which it does when its tree gives up.
    ///
    /// # Errors
    /// [`Deadlock`] when the caller is part of the node, such as a service of it.
    ///
    /// Cancel safe.
    pub async fn wait(&self) -> Result<Arc<ShutdownReport>, Deadlock> {
        let report = self.tree.wait().await?;
        self.close().await;
        Ok(report)
    }

    /// Closes the port at once, whatever is in flight: the end of a node that is not to be stopped in order. Connected
    /// clients and peers get the close; a quarter of a second is for repeating it.
    ///
    /// Cancel safe: the port is closed by the first poll.
    pub async fn close(&self) {
        self.endpoint.close(0_u8.into(), b"the node has stopped");
        let _ = tokio::time::timeout(Duration::from_millis(250), self.endpoint.wait_idle()).await;
    }
}

//! A whole node: one supervision tree, wired.
//!
//! ```text
//! node            rest_for_one
//! |- identity     follows the allow-list, when there is one
//! |- directory    members and their services, by gossip
//! |- peers        connections to other nodes
//! |- services     a call server a service                        one_for_one
//! |- gateway      clients over HTTP/3
//! `- console      whatever the program shows its operator with
//! ```
//!
//! The router has no place of its own: it never waits and keeps nothing but counters, each call runs in its caller's task.
//! The UDP port and the data folder belong to the node itself: they outlive every restart within it.

mod allow_list;
mod builder;
mod config;
mod machine;
mod offer;
mod snapshot;
mod tree;

use std::net::SocketAddr;
use std::sync::Arc;

use plimsoll::supervisor::{BoxError, ShutdownReport, StartError, SupervisorRef};

use crate::gateway::BudgetTooSmall;
use crate::identity::IdentityError;
use crate::names::NodeId;

pub use allow_list::{AllowListError, read_allow_list};
pub use builder::NodeBuilder;
pub use config::{NodeConfig, Trusted};
pub use machine::{Source, memory};
pub use offer::Offer;
pub use snapshot::{NodeSnapshot, View};

/// Name of the admin socket in the data folder.
pub const ADMIN_SOCKET: &str = "admin.sock";

/// A running node.
#[derive(Debug)]
pub struct Node {
    tree: SupervisorRef,
    endpoint: quinn::Endpoint,
    view: View,
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
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address} (UDP)")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
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

    /// What can be read of it at any time.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The root of its tree.
    pub fn tree(&self) -> &SupervisorRef {
        &self.tree
    }

    /// Stops it in order: whoever came last goes first, each with its own grace. Then the port is closed.
    ///
    /// Cancel safe: the stop goes on, and a second one waits for the same end.
    pub async fn stop(&self) -> Arc<ShutdownReport> {
        let report = self.tree.stop().await;
        self.close().await;
        report
    }

    /// Waits until the node has ended by itself, which it does when its tree gives up.
    ///
    /// Cancel safe.
    pub async fn wait(&self) -> Arc<ShutdownReport> {
        let report = self.tree.wait().await;
        self.close().await;
        report
    }

    /// Closes the port. Whoever is still connected is told at once; a quarter of a second is for saying it again.
    async fn close(&self) {
        self.endpoint.close(0_u8.into(), b"the node has stopped");
        let _ = tokio::time::timeout(std::time::Duration::from_millis(250), self.endpoint.wait_idle()).await;
    }
}

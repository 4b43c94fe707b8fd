//! The directory at one moment.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::names::{NodeId, ServiceName};

/// What is known of the other nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectoryView {
    /// Providers by service, each list by node.
    pub services: BTreeMap<ServiceName, Vec<Provider>>,
    /// Nodes, by id.
    pub members: Vec<Member>,
}

/// A node that provides a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Provider {
    /// The node.
    pub node: NodeId,
    /// Whether a call may run twice there.
    pub idempotent: bool,
}

impl Provider {
    /// A provider.
    pub const fn new(node: NodeId, idempotent: bool) -> Self {
        Self { node, idempotent }
    }
}

/// Another node of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// Where it listens, if it announces that.
    pub address: Option<SocketAddr>,
    /// Whether it is connected, or its heartbeats have arrived through other nodes for long enough to prove that they are new.
    pub alive: bool,
    /// Whether it has withdrawn its services, as a node does that stops in order.
    pub leaving: bool,
}

//! The address under which the gossip engine knows a node. It is derived from the node's id, so that no node can claim that
//! of another.

use std::net::{Ipv6Addr, SocketAddr};

use crate::names::NodeId;

/// A unique local address (RFC 4193) of the first 120 bits of the node's id. Nothing is ever sent to it: messages go
/// over the connection to that node, or nowhere.
pub(crate) fn address_of(node: &NodeId) -> SocketAddr {
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..].copy_from_slice(&node.as_bytes()[..15]);
    SocketAddr::new(Ipv6Addr::from(octets).into(), 1)
}

//! The overview of a router: the services and nodes of the mesh, with states and reasons.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::directory::Member;
use crate::names::NodeId;
use crate::peers::{Peer, PeerState};
use crate::service::{NodeEntry, Overview, ServiceEntry};

use super::provider_choice::Health;
use super::router::Router;

impl Overview for Router {
    /// From the services of this node and the view of the directory, of which a new one has another address.
    fn version(&self) -> u64 {
        let view = self.0.mesh.as_ref().map_or(0, |mesh| Arc::as_ptr(&mesh.directory.view()) as usize as u64);
        let own = *self.0.services.changes().borrow();
        own.rotate_left(32) ^ view
    }

    fn services(&self) -> Vec<ServiceEntry> {
        let mut entries: BTreeMap<_, ServiceEntry> = BTreeMap::new();
        for served in self.0.services.list() {
            let entry = ServiceEntry {
                name: served.name.clone(),
                providers: vec![self.0.me],
                callable: served.callable,
                idempotent: served.idempotent,
            };
            entries.insert(served.name, entry);
        }
        let Some(mesh) = &self.0.mesh else { return entries.into_values().collect() };
        for (name, providers) in &mesh.directory.view().services {
            for provider in providers {
                let entry = entries.entry(name.clone()).or_insert_with(|| ServiceEntry {
                    name: name.clone(),
                    providers: Vec::new(),
                    callable: false,
                    idempotent: true,
                });
                entry.providers.push(provider.node);
                entry.idempotent &= provider.idempotent;
                entry.callable |= mesh.health(&provider.node) != Health::Failing;
            }
        }
        entries.into_values().collect()
    }

    fn nodes(&self) -> Vec<NodeEntry> {
        let this =
            NodeEntry { id: self.0.me, address: self.0.listens, this: true, state: "up".to_owned(), reason: None };
        let mut nodes = vec![this];
        if let Some(mesh) = &self.0.mesh {
            nodes.extend(others(mesh.forward.list(), &mesh.directory.view().members));
        }
        nodes
    }
}

/// One entry a node, from the state of its connection and from gossip.
fn others(peers: Vec<Peer>, members: &[Member]) -> Vec<NodeEntry> {
    let members: BTreeMap<NodeId, &Member> = members.iter().map(|member| (member.node, member)).collect();
    let mut lines: BTreeMap<NodeId, NodeEntry> = BTreeMap::new();
    for peer in peers {
        let member = members.get(&peer.node);
        let (state, reason) = health(peer.state, peer.reason, member.and_then(|member| liveness(member)));
        let address = peer.address.or(member.and_then(|member| member.address));
        lines.insert(peer.node, NodeEntry { id: peer.node, address, this: false, state, reason });
    }
    for (node, member) in members {
        lines.entry(node).or_insert_with(|| {
            let reason = Some("known by gossip, not connected".to_owned());
            let state = if liveness(member) == Some(true) { "connecting" } else { "down" }.to_owned();
            NodeEntry { id: node, address: member.address, this: false, state, reason }
        });
    }
    lines.into_values().collect()
}

/// Whether it is alive; `None` for a node that is stopping.
fn liveness(member: &Member) -> Option<bool> {
    (!member.leaving).then_some(member.alive)
}

fn health(state: PeerState, reason: Option<String>, alive: Option<bool>) -> (String, Option<String>) {
    let (word, reason) = match (state, alive) {
        (PeerState::Up, Some(false)) => ("suspect", Some("connected, but its heartbeats do not arrive".to_owned())),
        (PeerState::Up, _) => ("up", None),
        (PeerState::Connecting, _) => ("connecting", reason),
        (PeerState::Refused, _) => ("refused", reason),
        (PeerState::Down, Some(true)) => ("suspect", reason),
        (PeerState::Down, _) => ("down", reason),
    };
    (word.to_owned(), reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_and_gossip_together_make_the_state() {
        let why = || Some("why".to_owned());
        for (state, alive, word) in [
            (PeerState::Up, None, "up"),
            (PeerState::Up, Some(true), "up"),
            (PeerState::Up, Some(false), "suspect"),
            (PeerState::Down, Some(true), "suspect"),
            (PeerState::Down, Some(false), "down"),
            (PeerState::Down, None, "down"),
            (PeerState::Refused, Some(true), "refused"),
            (PeerState::Connecting, None, "connecting"),
        ] {
            let (shown, reason) = health(state, why(), alive);
            assert_eq!(shown, word);
            assert_eq!(reason.is_some(), word != "up", "{word} has a reason");
        }
    }
}

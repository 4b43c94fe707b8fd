//! The nodes that are trusted as peers.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

use crate::names::NodeId;

/// The most nodes an allow-list holds: more than a fully replicated directory serves.
pub const MAX_TRUSTED: usize = 10_000;

/// The trusted nodes, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trust {
    /// Every node that proves its key. Only by explicit choice.
    Open,
    /// The nodes listed.
    Listed(BTreeSet<NodeId>),
}

impl Trust {
    /// Whether `node` is trusted.
    pub fn allows(&self, node: &NodeId) -> bool {
        match self {
            Self::Open => true,
            Self::Listed(nodes) => nodes.contains(node),
        }
    }
}

/// The allow-list is as long as it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the allow-list holds {MAX_TRUSTED} nodes, as many as it may")]
pub struct TrustFull;

/// The nodes that may be peers; it can change while the node runs. Cloning shares it.
///
/// Holders of connections subscribe: a node that is removed loses its live connection too.
///
/// ```
/// use plimsoll_mesh::identity::{Identity, TrustStore};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let peer = Identity::generate()?.node_id();
/// let trust = TrustStore::listed([peer])?;
/// assert!(trust.allows(&peer));
/// trust.remove(&peer);
/// assert!(!trust.allows(&peer));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct TrustStore(Arc<watch::Sender<Trust>>);

impl TrustStore {
    /// Trusts every node that proves its key: for demonstrations, and for meshes whose network is the fence.
    pub fn open() -> Self {
        Self(Arc::new(watch::Sender::new(Trust::Open)))
    }

    /// Trusts these nodes and no other.
    ///
    /// # Errors
    /// [`TrustFull`] beyond [`MAX_TRUSTED`] nodes.
    pub fn listed(nodes: impl IntoIterator<Item = NodeId>) -> Result<Self, TrustFull> {
        Ok(Self(Arc::new(watch::Sender::new(Trust::Listed(capped(nodes)?)))))
    }

    /// Whether `node` is trusted now.
    pub fn allows(&self, node: &NodeId) -> bool {
        self.0.borrow().allows(node)
    }

    /// Adds a node; `false` when it was trusted already.
    ///
    /// # Errors
    /// [`TrustFull`] when the list is at its cap.
    pub fn add(&self, node: NodeId) -> Result<bool, TrustFull> {
        let mut full = false;
        let added = self.0.send_if_modified(|trust| match trust {
            Trust::Open => false,
            Trust::Listed(nodes) if nodes.contains(&node) => false,
            Trust::Listed(nodes) if nodes.len() >= MAX_TRUSTED => {
                full = true;
                false
            }
            Trust::Listed(nodes) => nodes.insert(node),
        });
        if full { Err(TrustFull) } else { Ok(added) }
    }

    /// Removes a node and notifies the subscribers; `false` when it was not on the list. In open mode nothing is listed.
    pub fn remove(&self, node: &NodeId) -> bool {
        self.0.send_if_modified(|trust| match trust {
            Trust::Open => false,
            Trust::Listed(nodes) => nodes.remove(node),
        })
    }

    /// Replaces the whole list, for instance after a reload; ends the open mode.
    ///
    /// # Errors
    /// [`TrustFull`] beyond [`MAX_TRUSTED`] nodes; nothing has changed then.
    pub fn replace(&self, nodes: impl IntoIterator<Item = NodeId>) -> Result<(), TrustFull> {
        let next = Trust::Listed(capped(nodes)?);
        self.0.send_if_modified(|trust| {
            let differs = *trust != next;
            *trust = next;
            differs
        });
        Ok(())
    }

    /// The list now and at every change. Only the latest state is kept, so a slow reader costs nothing.
    pub fn subscribe(&self) -> watch::Receiver<Trust> {
        self.0.subscribe()
    }
}

fn capped(nodes: impl IntoIterator<Item = NodeId>) -> Result<BTreeSet<NodeId>, TrustFull> {
    let mut listed = BTreeSet::new();
    for node in nodes {
        listed.insert(node);
        if listed.len() > MAX_TRUSTED {
            return Err(TrustFull);
        }
    }
    Ok(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u16) -> NodeId {
        let mut digest = [0; 32];
        digest[..2].copy_from_slice(&n.to_be_bytes());
        NodeId::from_digest(digest)
    }

    #[test]
    fn subscribers_see_a_removal() -> Result<(), TrustFull> {
        let trust = TrustStore::listed([node(1), node(2)])?;
        let mut changes = trust.subscribe();
        changes.mark_unchanged();

        assert!(!trust.remove(&node(3)), "an unknown node changes nothing");
        assert!(!changes.has_changed().unwrap_or(true));
        assert!(trust.remove(&node(1)));
        assert!(changes.has_changed().unwrap_or(false));
        assert!(!changes.borrow().allows(&node(1)));
        assert!(changes.borrow().allows(&node(2)));
        Ok(())
    }

    #[test]
    fn the_list_has_a_cap() -> Result<(), TrustFull> {
        let nodes = (0..).map(node).take(MAX_TRUSTED);
        let trust = TrustStore::listed(nodes.clone())?;
        assert_eq!(trust.add(node(60_000)), Err(TrustFull));
        assert_eq!(trust.add(node(5)), Ok(false), "a node that is listed needs no room");
        assert_eq!(trust.replace(nodes.chain([node(60_000)])), Err(TrustFull));
        assert!(trust.allows(&node(5)), "a refused replacement changes nothing");
        Ok(())
    }
}

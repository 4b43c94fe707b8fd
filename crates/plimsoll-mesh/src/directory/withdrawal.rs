//! Withdrawing what this node offers, before it stops.
//!
//! A lease of zero length is signed and gossiped like any other, so that every node stops listing this node's services as soon
//! as it receives it, through any node. The versions in the digests of gossiping nodes show which of them have it.

use std::collections::HashSet;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::names::NodeId;

/// How often it is sent again to nodes that have not acknowledged it.
pub(super) const ROUND: Duration = Duration::from_millis(50);

/// Connected nodes that it is sent to at once. Gossip reaches a thousand nodes from these in three rounds; sending it to each of
/// a thousand would take longer.
const AT_ONCE: usize = 16;

/// Whether this node has withdrawn its services, and which nodes have acknowledged that.
#[derive(Debug, Default)]
pub(super) struct Withdrawal {
    requested: CancellationToken,
    published: Mutex<Published>,
    progress: Notify,
}

#[derive(Debug, Default)]
struct Published {
    /// The version of this node's records from which on it offers nothing.
    version: Option<u64>,
    acknowledged: HashSet<NodeId>,
}

impl Withdrawal {
    /// Requests it; `false` when it was requested before.
    pub(super) fn request(&self) -> bool {
        let _published = self.published.lock();
        let first = !self.requested.is_cancelled();
        self.requested.cancel();
        first
    }

    /// Waits until it is requested.
    pub(super) async fn requested(&self) {
        self.requested.cancelled().await;
    }

    /// It is in this node's records, from `version` on.
    pub(super) fn publish(&self, version: u64) {
        *self.published.lock() = Published { version: Some(version), acknowledged: HashSet::new() };
    }

    /// `from` has this node's records up to `version`, if its digest names one.
    pub(super) fn acknowledge(&self, from: NodeId, version: Option<u64>) {
        if !self.requested.is_cancelled() {
            return;
        }
        let mut published = self.published.lock();
        if version.zip(published.version).is_some_and(|(has, wanted)| has >= wanted)
            && published.acknowledged.insert(from)
        {
            self.progress.notify_one();
        }
    }

    /// A connection is gone: there is one less to wait for.
    pub(super) fn lost(&self) {
        self.progress.notify_one();
    }

    /// Waits for the next reason to look again.
    pub(super) async fn progress(&self) {
        self.progress.notified().await;
    }

    /// The connected nodes to send it to now.
    pub(super) fn unacknowledged<'a>(&self, connected: impl Iterator<Item = &'a NodeId>) -> Vec<NodeId> {
        let published = self.published.lock();
        let room = AT_ONCE.saturating_sub(published.acknowledged.len());
        connected.filter(|node| !published.acknowledged.contains(*node)).take(room).copied().collect()
    }

    /// Whether all connected nodes have acknowledged it, or enough of them.
    pub(super) fn is_acknowledged<'a>(&self, connected: impl Iterator<Item = &'a NodeId>) -> bool {
        self.unacknowledged(connected).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId::from_digest([n; 32])
    }

    #[test]
    fn it_is_acknowledged_when_every_connected_node_has_that_version() {
        let (withdrawal, both) = (Withdrawal::default(), [node(1), node(2)]);
        withdrawal.acknowledge(node(1), Some(9));
        assert!(withdrawal.request() && !withdrawal.request());
        withdrawal.acknowledge(node(1), Some(9));
        assert_eq!(withdrawal.unacknowledged(both.iter()), both, "nothing is published yet");
        withdrawal.publish(5);
        withdrawal.acknowledge(node(1), Some(4));
        withdrawal.acknowledge(node(2), None);
        assert_eq!(withdrawal.unacknowledged(both.iter()), both);
        withdrawal.acknowledge(node(1), Some(5));
        assert_eq!(withdrawal.unacknowledged(both.iter()), [node(2)]);
        assert!(withdrawal.is_acknowledged([node(1)].iter()), "the other one is gone");
        withdrawal.acknowledge(node(2), Some(6));
        assert!(withdrawal.is_acknowledged(both.iter()));
    }

    #[test]
    fn of_many_nodes_some_get_it_and_pass_it_on() {
        let (withdrawal, many) = (Withdrawal::default(), (0..100).map(node).collect::<Vec<_>>());
        withdrawal.request();
        withdrawal.publish(5);
        assert_eq!(withdrawal.unacknowledged(many.iter()).len(), AT_ONCE);
        many[40..40 + AT_ONCE].iter().for_each(|&node| withdrawal.acknowledge(node, Some(5)));
        assert!(withdrawal.is_acknowledged(many.iter()));
    }
}

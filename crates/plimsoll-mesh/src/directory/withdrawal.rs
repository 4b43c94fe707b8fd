//! Taking back what this node offers, before it stops.
//!
//! A lease that is over at once is signed and gossiped like any other, so that every node stops listing this one's
//! services when it hears, through whichever hands. Who has heard is told by the versions that gossiping nodes name.

use std::collections::HashSet;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::names::NodeId;

/// How often those who have not heard are told again.
pub(super) const ROUND: Duration = Duration::from_millis(50);

/// Connected nodes that are told at once. More need not hear it from here: gossip reaches a thousand nodes from these in
/// three rounds, and to tell each of a thousand would take longer.
const AT_ONCE: usize = 16;

/// Whether this node has taken its offers back, and who knows.
#[derive(Debug, Default)]
pub(super) struct Withdrawal {
    asked: CancellationToken,
    said: Mutex<Published>,
    progress: Notify,
}

#[derive(Debug, Default)]
struct Published {
    /// The version of this node's records from which on it offers nothing.
    version: Option<u64>,
    heard: HashSet<NodeId>,
}

impl Withdrawal {
    /// Asks for it; `false` when somebody did before.
    pub(super) fn ask(&self) -> bool {
        let _said = self.said.lock();
        let first = !self.asked.is_cancelled();
        self.asked.cancel();
        first
    }

    /// Waits until it is asked for.
    pub(super) async fn asked(&self) {
        self.asked.cancelled().await;
    }

    /// It stands in this node's records, from `version` on.
    pub(super) fn say(&self, version: u64) {
        *self.said.lock() = Published { version: Some(version), heard: HashSet::new() };
    }

    /// `from` has this node's records up to `version`, if it says so.
    pub(super) fn hears(&self, from: NodeId, version: Option<u64>) {
        if !self.asked.is_cancelled() {
            return;
        }
        let mut said = self.said.lock();
        if version.zip(said.version).is_some_and(|(has, wanted)| has >= wanted) && said.heard.insert(from) {
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

    /// Whom to tell now, of those connected.
    pub(super) fn waits_for<'a>(&self, connected: impl Iterator<Item = &'a NodeId>) -> Vec<NodeId> {
        let said = self.said.lock();
        let room = AT_ONCE.saturating_sub(said.heard.len());
        connected.filter(|node| !said.heard.contains(*node)).take(room).copied().collect()
    }

    /// Whether all who are connected have heard, or enough of them.
    pub(super) fn is_heard<'a>(&self, connected: impl Iterator<Item = &'a NodeId>) -> bool {
        self.waits_for(connected).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId::from_digest([n; 32])
    }

    #[test]
    fn it_is_heard_when_everybody_connected_has_that_version() {
        let (withdrawal, both) = (Withdrawal::default(), [node(1), node(2)]);
        withdrawal.hears(node(1), Some(9));
        assert!(withdrawal.ask() && !withdrawal.ask());
        withdrawal.hears(node(1), Some(9));
        assert_eq!(withdrawal.waits_for(both.iter()), both, "nothing is said yet");
        withdrawal.say(5);
        withdrawal.hears(node(1), Some(4));
        withdrawal.hears(node(2), None);
        assert_eq!(withdrawal.waits_for(both.iter()), both);
        withdrawal.hears(node(1), Some(5));
        assert_eq!(withdrawal.waits_for(both.iter()), [node(2)]);
        assert!(withdrawal.is_heard([node(1)].iter()), "the other one is gone");
        withdrawal.hears(node(2), Some(6));
        assert!(withdrawal.is_heard(both.iter()));
    }

    #[test]
    fn of_many_some_are_told_and_those_tell_the_others() {
        let (withdrawal, many) = (Withdrawal::default(), (0..100).map(node).collect::<Vec<_>>());
        withdrawal.ask();
        withdrawal.say(5);
        assert_eq!(withdrawal.waits_for(many.iter()).len(), AT_ONCE);
        many[40..40 + AT_ONCE].iter().for_each(|&node| withdrawal.hears(node, Some(5)));
        assert!(withdrawal.is_heard(many.iter()));
    }
}

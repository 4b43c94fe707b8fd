//! Which peers there are, which connection to each counts, and whom to dial when: rules without I/O.
//!
//! One connection a pair. If both sides dial at once, the one dialled by the smaller node id stays; the other takes no
//! new calls and closes when it is idle. A later life of a node replaces an earlier one at once.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Instant;

use crate::names::NodeId;

use super::close_reason::{Disconnect, DisconnectKind};
use super::config::Redial;

#[cfg(test)]
mod tests;

/// A connection, by a number of this node's own.
pub(crate) type LinkId = u64;

/// Addresses dialled at most: the seeds, and the members that gossip tells of.
pub(crate) const MAX_TARGETS: usize = 10_000;
/// Nodes without a connection that are remembered with the reason, for the operator.
const MAX_REMEMBERED: usize = 1_024;

/// Who dialled a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialler {
    Local,
    Remote,
}

/// The state of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerState {
    /// One exchange succeeded on its connection.
    Up,
    /// It is being dialled for the first time, or was lost and has not failed since.
    Connecting,
    /// It cannot be reached, or its connection ended.
    Down,
    /// One side does not want the other; the reason says which and why.
    Refused,
}

/// A connection on its way in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewConnection {
    pub(crate) link: LinkId,
    pub(crate) node: NodeId,
    pub(crate) dialler: Dialler,
    pub(crate) incarnation: u64,
}

/// What counts of a connection when another comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CurrentConnection {
    pub(crate) link: LinkId,
    pub(crate) dialler: Dialler,
    pub(crate) incarnation: u64,
}

impl NewConnection {
    pub(crate) fn known(self) -> CurrentConnection {
        CurrentConnection { link: self.link, dialler: self.dialler, incarnation: self.incarnation }
    }
}

/// What becomes of a new connection, and of the one that was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is the peer's connection now.
    Up,
    /// It is, and the former one takes no new calls and closes when idle.
    UpRetiring(LinkId),
    /// It is, and the former one belongs to a node that no longer lives: close it now.
    UpReplacing(LinkId),
    /// The other one stays.
    Duplicate,
    /// It comes from an earlier life of the node.
    Stale,
    /// There is no room, and nothing idle to make some. The pool's word, not the rules'.
    Full,
}

/// Somebody to dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dial {
    pub(crate) address: SocketAddr,
    pub(crate) expected: Option<NodeId>,
}

/// One line of the list of peers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peer {
    /// The node.
    pub node: NodeId,
    /// How it stands.
    pub state: PeerState,
    /// Why it is not up, in words.
    pub reason: Option<String>,
    /// Where it listens, if known.
    pub address: Option<SocketAddr>,
}

#[derive(Debug)]
struct Entry {
    state: PeerState,
    reason: Option<String>,
    address: Option<SocketAddr>,
    changed: Instant,
}

impl Entry {
    fn is_up(&self) -> bool {
        self.state == PeerState::Up
    }
}

#[derive(Debug)]
struct Target {
    expected: Option<NodeId>,
    seed: bool,
    /// Who answered there last, or who is said to be there.
    node: Option<NodeId>,
    dialling: bool,
    failures: u32,
    due: Instant,
    /// Closed to make room; dialled again when a call asks for it.
    evicted: bool,
    /// A call waits for it, and has a place.
    demanded: bool,
}

/// The peers of one node. Which connection counts for one is the pool's to know; it is told here who is up.
#[derive(Debug)]
pub(crate) struct PeerTable {
    me: NodeId,
    redial: Redial,
    entries: HashMap<NodeId, Entry>,
    targets: HashMap<SocketAddr, Target>,
    up: usize,
}

impl PeerTable {
    pub(crate) fn new(me: NodeId, redial: Redial) -> Self {
        Self { me, redial, entries: HashMap::new(), targets: HashMap::new(), up: 0 }
    }

    /// Adds an address to stay connected to. `false` when the table is full.
    pub(crate) fn add_target(&mut self, dial: Dial, seed: bool, now: Instant) -> bool {
        let full = self.targets.len() >= MAX_TARGETS;
        match self.targets.get_mut(&dial.address) {
            Some(target) => {
                target.seed |= seed;
                if !target.seed && target.expected != dial.expected {
                    (target.expected, target.node) = (dial.expected, dial.expected);
                }
                return true;
            }
            None if full || dial.expected == Some(self.me) => return false,
            None => {}
        }
        let Dial { address, expected } = dial;
        let target = Target {
            expected,
            seed,
            node: expected,
            dialling: false,
            failures: 0,
            due: now,
            evicted: false,
            demanded: false,
        };
        self.targets.insert(address, target);
        if let Some(node) = expected {
            let entry = self.entry(node, now);
            entry.address.get_or_insert(address);
        }
        true
    }

    /// Forgets the addresses of members that are gone; seeds stay.
    pub(crate) fn retain_members(&mut self, members: &HashSet<SocketAddr>) {
        self.targets.retain(|address, target| target.seed || target.dialling || members.contains(address));
    }

    /// Whom to dial now, so many at most; each is being dialled from here on. Without room only those that a call waits
    /// for, which has a place.
    pub(crate) fn due(&mut self, now: Instant, most: usize, room: bool, trusts: impl Fn(&NodeId) -> bool) -> Vec<Dial> {
        let mut due = Vec::new();
        for (&address, target) in &mut self.targets {
            if due.len() >= most {
                break;
            }
            let node = target.node;
            let idle = !target.dialling && target.due <= now && !target.evicted && node != Some(self.me);
            let up = node.and_then(|node| self.entries.get(&node)).is_some_and(Entry::is_up);
            if idle && !up && (room || target.demanded) && target.expected.is_none_or(|node| trusts(&node)) {
                target.dialling = true;
                due.push(Dial { address, expected: target.expected });
            }
        }
        due
    }

    /// When to look again for somebody to dial.
    pub(crate) fn next_due(&self, room: bool, trusts: impl Fn(&NodeId) -> bool) -> Option<Instant> {
        let waits = |target: &&Target| {
            let up = target.node.and_then(|node| self.entries.get(&node)).is_some_and(Entry::is_up);
            let welcome = (room || target.demanded) && target.expected.is_none_or(|node| trusts(&node));
            !target.dialling && !target.evicted && !up && welcome && target.node != Some(self.me)
        };
        self.targets.values().filter(waits).map(|target| target.due).min()
    }

    /// Dials `node` at the next opportunity, whatever its redial says. `false` when no address of it is known.
    pub(crate) fn demand(&mut self, node: &NodeId, now: Instant) -> bool {
        let mut known = false;
        for target in self.targets.values_mut().filter(|target| target.node == Some(*node)) {
            (target.evicted, target.demanded, known) = (false, true, true);
            target.due = target.due.min(now);
        }
        known
    }

    /// Whether an address of `node` is known.
    pub(crate) fn knows(&self, node: &NodeId) -> bool {
        self.targets.values().any(|target| target.node == Some(*node))
    }

    /// Dials everybody who is refused or waiting without delay: the allow-list changed.
    pub(crate) fn demand_all(&mut self, now: Instant) {
        for target in self.targets.values_mut() {
            (target.failures, target.due) = (0, target.due.min(now));
        }
    }

    /// An attempt ended without a connection. `node` is who answered or was expected there; the answer is whom it was
    /// about.
    pub(crate) fn dial_failed(
        &mut self,
        address: SocketAddr,
        node: Option<NodeId>,
        ended: Disconnect,
        now: Instant,
        jitter: f64,
    ) -> Option<NodeId> {
        let redial = self.redial;
        let mut about = node;
        if let Some(target) = self.targets.get_mut(&address) {
            (target.dialling, target.demanded) = (false, false);
            target.failures = target.failures.saturating_add(1);
            target.due = now + redial.delay(target.failures, ended.kind == DisconnectKind::Refused, jitter);
            target.evicted |= ended.kind == DisconnectKind::Evicted;
            about = about.or(target.node);
        }
        if let Some(node) = about {
            self.note(node, Some(address), ended, now);
        }
        about
    }

    /// An attempt led to a connection with `node`, which is judged by [`arrive`](Self::arrive) when it has completed the handshake.
    pub(crate) fn dial_connected(&mut self, address: SocketAddr, node: NodeId) {
        if let Some(target) = self.targets.get_mut(&address) {
            target.node = Some(node);
        }
    }

    /// The dialled connection is judged or has ended: the address may be dialled again. The answer is who is there.
    pub(crate) fn dial_settled(
        &mut self,
        address: SocketAddr,
        ended: Option<&Disconnect>,
        now: Instant,
        jitter: f64,
    ) -> Option<NodeId> {
        let redial = self.redial;
        let target = self.targets.get_mut(&address)?;
        (target.dialling, target.demanded) = (false, false);
        target.failures = if ended.is_some() { target.failures.saturating_add(1) } else { 0 };
        let refused = ended.is_some_and(|ended| ended.kind == DisconnectKind::Refused);
        target.evicted |= ended.is_some_and(|ended| ended.kind == DisconnectKind::Evicted);
        target.due = now + redial.delay(target.failures, refused, jitter);
        target.node
    }

    /// What becomes of a connection that has completed the handshake, given the one that counts for its node.
    pub(crate) fn judge(&self, arrival: NewConnection, current: Option<CurrentConnection>) -> Verdict {
        let NewConnection { node, dialler, incarnation, .. } = arrival;
        match current {
            None => Verdict::Up,
            Some(old) if incarnation > old.incarnation => Verdict::UpReplacing(old.link),
            Some(old) if incarnation < old.incarnation => Verdict::Stale,
            Some(old) if old.dialler == dialler => Verdict::UpReplacing(old.link),
            Some(old) => {
                let stays = if self.me < node { Dialler::Local } else { Dialler::Remote };
                if dialler == stays { Verdict::UpRetiring(old.link) } else { Verdict::Duplicate }
            }
        }
    }

    /// A connection to `node` counts from now on.
    pub(crate) fn up(&mut self, node: NodeId, listens: Option<SocketAddr>, now: Instant) {
        let entry = self.entry(node, now);
        let was_up = entry.is_up();
        (entry.state, entry.reason, entry.changed) = (PeerState::Up, None, now);
        entry.address = listens.or(entry.address);
        self.up += usize::from(!was_up);
    }

    /// The connection that counted for `node` ended. `false` when it was not up.
    pub(crate) fn down(&mut self, node: NodeId, ended: Disconnect, now: Instant, jitter: f64) -> bool {
        let Some(entry) = self.entries.get_mut(&node).filter(|entry| entry.is_up()) else { return false };
        entry.state = PeerState::Down;
        self.up -= 1;
        let (how, redial) = (ended.kind, self.redial);
        self.note(node, None, ended, now);
        for target in self.targets.values_mut().filter(|target| target.node == Some(node)) {
            target.failures = u32::from(how == DisconnectKind::Refused);
            target.due = now + redial.delay(target.failures, how == DisconnectKind::Refused, jitter);
            target.evicted |= how == DisconnectKind::Evicted;
        }
        true
    }

    /// Somebody was turned away, or turned us away, without ever being up.
    pub(crate) fn note(&mut self, node: NodeId, address: Option<SocketAddr>, ended: Disconnect, now: Instant) {
        if node == self.me {
            return;
        }
        let entry = self.entry(node, now);
        if entry.is_up() {
            return;
        }
        entry.state = if ended.kind == DisconnectKind::Refused { PeerState::Refused } else { PeerState::Down };
        entry.reason = Some(ended.reason);
        entry.address = entry.address.or(address);
        entry.changed = now;
        self.forget_oldest();
    }

    /// Peers that are up.
    pub(crate) fn count_up(&self) -> usize {
        self.up
    }

    /// DisconnectKind `node` stands.
    pub(crate) fn state(&self, node: &NodeId) -> Option<(PeerState, Option<&str>)> {
        self.entries.get(node).map(|entry| (entry.state, entry.reason.as_deref()))
    }

    /// All peers, by id.
    pub(crate) fn peers(&self) -> Vec<Peer> {
        let line = |(&node, entry): (&NodeId, &Entry)| Peer {
            node,
            state: entry.state,
            reason: entry.reason.clone(),
            address: entry.address,
        };
        let mut peers: Vec<_> = self.entries.iter().map(line).collect();
        peers.sort_by_key(|peer| peer.node);
        peers
    }

    fn entry(&mut self, node: NodeId, now: Instant) -> &mut Entry {
        self.entries.entry(node).or_insert_with(|| Entry {
            state: PeerState::Connecting,
            reason: None,
            address: None,
            changed: now,
        })
    }

    /// Keeps what is remembered about nodes without a connection within its cap, whoever knocks. Several go at once, so
    /// that looking for the oldest costs little per stranger.
    fn forget_oldest(&mut self) {
        if self.entries.len() <= self.up + MAX_REMEMBERED {
            return;
        }
        let dialled: HashSet<NodeId> = self.targets.values().filter_map(|target| target.node).collect();
        let stranger = |(node, entry): &(&NodeId, &Entry)| !entry.is_up() && !dialled.contains(node);
        let mut strangers: Vec<_> =
            self.entries.iter().filter(stranger).map(|(node, entry)| (entry.changed, *node)).collect();
        strangers.sort_unstable();
        for (_, node) in strangers.into_iter().take(MAX_REMEMBERED / 8) {
            self.entries.remove(&node);
        }
    }
}

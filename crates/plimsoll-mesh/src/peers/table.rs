//! Which peers there are, which connection to each is in use, and what to dial when: rules without I/O.
//!
//! One connection a pair. If both sides dial at once, the one dialled by the smaller node id stays; the other takes no
//! new calls and closes when it is idle. A later incarnation of a node replaces an earlier one at once.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Instant;

use crate::names::NodeId;

use super::close_reason::{Disconnect, DisconnectKind};
use super::redial::Redial;
use super::seed_names::{Lookup, LookupOutcome, SeedNames};

#[cfg(test)]
mod tests;

/// A connection, by a number that this node counts up.
pub(crate) type LinkId = u64;

/// The most addresses that are dialled: the seeds, and the members that the directory names.
pub(crate) const MAX_TARGETS: usize = 10_000;
/// Nodes without a connection that are remembered with the reason, for the operator.
const MAX_REMEMBERED: usize = 1_024;

/// The side that dialled a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialler {
    Local,
    Remote,
}

/// The state of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerState {
    /// The handshake on its connection is complete.
    Up,
    /// It is being dialled for the first time, or was lost and has not failed since.
    Connecting,
    /// It cannot be reached, or its connection ended.
    Down,
    /// One side refuses the other; the reason names the side and why.
    Refused,
}

/// A connection that has completed the handshake and is not entered yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewConnection {
    pub(crate) link: LinkId,
    pub(crate) node: NodeId,
    pub(crate) dialler: Dialler,
    pub(crate) incarnation: u64,
}

/// The connection in use to a node, as far as the rules need to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CurrentConnection {
    pub(crate) link: LinkId,
    pub(crate) dialler: Dialler,
    pub(crate) incarnation: u64,
}

impl NewConnection {
    pub(crate) fn current(self) -> CurrentConnection {
        CurrentConnection { link: self.link, dialler: self.dialler, incarnation: self.incarnation }
    }
}

/// What happens to a new connection, and to the one that was in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The new connection is in use from now on.
    Up,
    /// The new connection is in use; the former one takes no new calls and closes when idle.
    UpRetiring(LinkId),
    /// The new connection is in use; the former one belongs to an earlier incarnation and is closed now.
    UpReplacing(LinkId),
    /// The former connection stays in use.
    Duplicate,
    /// The new connection comes from an earlier incarnation of the node.
    Stale,
    /// There is no room, and no idle connection to close. The pool decides this, not the rules here.
    Full,
}

/// An address to dial, and the node expected there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dial {
    pub(crate) address: SocketAddr,
    pub(crate) expected: Option<NodeId>,
}

/// One entry of the list of peers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peer {
    /// The node.
    pub node: NodeId,
    /// Its state.
    pub state: PeerState,
    /// Why it is not up.
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
    /// An address of the configuration.
    seed: bool,
    /// An address of a name in the configuration.
    named: bool,
    /// The node that was found there last, or is expected there.
    node: Option<NodeId>,
    dialling: bool,
    failures: u32,
    due: Instant,
    /// Closed to make room; dialled again when a call needs it.
    evicted: bool,
    /// A call waits for it, and has a place.
    demanded: bool,
}

impl Target {
    fn new(expected: Option<NodeId>, now: Instant) -> Self {
        Self {
            expected,
            seed: false,
            named: false,
            node: expected,
            dialling: false,
            failures: 0,
            due: now,
            evicted: false,
            demanded: false,
        }
    }
}

/// The peers of one node. The pool holds the connections; this table records which peers are up.
#[derive(Debug)]
pub(crate) struct PeerTable {
    me: NodeId,
    redial: Redial,
    entries: HashMap<NodeId, Entry>,
    targets: HashMap<SocketAddr, Target>,
    names: SeedNames,
    up: usize,
}

impl PeerTable {
    pub(crate) fn new(me: NodeId, redial: Redial) -> Self {
        Self { me, redial, entries: HashMap::new(), targets: HashMap::new(), names: SeedNames::new(redial), up: 0 }
    }

    /// Adds an address of the configuration to stay connected to. `false` when the table is full.
    pub(crate) fn add_seed(&mut self, dial: Dial, now: Instant) -> bool {
        self.add_target(dial, now).is_some_and(|target| {
            target.seed = true;
            true
        })
    }

    /// Stays connected to these members beside the seeds, and forgets other members.
    pub(crate) fn set_members(&mut self, members: impl Iterator<Item = Dial>, now: Instant) {
        let members: Vec<Dial> = members.collect();
        let addresses: HashSet<SocketAddr> = members.iter().map(|member| member.address).collect();
        self.targets
            .retain(|address, target| target.seed || target.named || target.dialling || addresses.contains(address));
        for member in members {
            self.add_target(member, now);
        }
    }

    /// The seeds that are host names.
    pub(crate) fn names(&mut self) -> &mut SeedNames {
        &mut self.names
    }

    /// The names to look up now.
    pub(crate) fn due_lookups(&mut self, now: Instant) -> Vec<Lookup> {
        let (targets, entries) = (&self.targets, &self.entries);
        self.names.due(now, |address| is_up_at(targets, entries, address))
    }

    /// A lookup ended: the addresses of names become targets, and those that no name has any more are forgotten.
    pub(crate) fn resolved(
        &mut self,
        index: usize,
        result: Result<Vec<SocketAddr>, String>,
        now: Instant,
        jitter: f64,
    ) -> LookupOutcome {
        let outcome = self.names.resolved(index, result, now, jitter);
        if outcome == LookupOutcome::Changed {
            let named: HashMap<SocketAddr, Option<NodeId>> = self.names.addresses().collect();
            self.targets.retain(|address, target| {
                let gone = target.named && !named.contains_key(address);
                target.named &= !gone;
                !gone || target.seed || target.dialling
            });
            for (address, expected) in named {
                if let Some(target) = self.add_target(Dial { address, expected }, now) {
                    target.named = true;
                }
            }
        }
        outcome
    }

    fn add_target(&mut self, dial: Dial, now: Instant) -> Option<&mut Target> {
        let Dial { address, expected } = dial;
        let is_new = !self.targets.contains_key(&address);
        if is_new && (self.targets.len() >= MAX_TARGETS || expected == Some(self.me)) {
            return None;
        }
        if is_new && let Some(node) = expected {
            self.entry(node, now).address.get_or_insert(address);
        }
        let target = self.targets.entry(address).or_insert_with(|| Target::new(expected, now));
        if !target.seed && !target.named && target.expected != expected {
            (target.expected, target.node) = (expected, expected);
        }
        Some(target)
    }

    /// What to dial now, at most `max`, longest due first; each is being dialled from here on. Without `room` only targets
    /// that a call waits for, which have a place.
    pub(crate) fn due(&mut self, now: Instant, max: usize, room: bool, trusts: impl Fn(&NodeId) -> bool) -> Vec<Dial> {
        let candidates =
            self.targets.iter().filter(|(_, target)| self.is_waiting(target, room, &trusts) && target.due <= now);
        let mut due: Vec<_> = candidates.map(|(&address, target)| (!target.demanded, target.due, address)).collect();
        // In the order of the map, targets at its front that fail would keep those behind them waiting for ever.
        due.sort_unstable();
        due.truncate(max);
        let begin = |(_, _, address)| {
            let target = self.targets.get_mut(&address)?;
            target.dialling = true;
            Some(Dial { address, expected: target.expected })
        };
        due.into_iter().filter_map(begin).collect()
    }

    /// When the next target or name is due.
    pub(crate) fn next_due(&self, room: bool, trusts: impl Fn(&NodeId) -> bool) -> Option<Instant> {
        let targets = self.targets.values().filter(|target| self.is_waiting(target, room, &trusts));
        let lookup = self.names.next_due(|address| is_up_at(&self.targets, &self.entries, address));
        targets.map(|target| target.due).chain(lookup).min()
    }

    fn is_waiting(&self, target: &Target, room: bool, trusts: &impl Fn(&NodeId) -> bool) -> bool {
        let up = target.node.and_then(|node| self.entries.get(&node)).is_some_and(Entry::is_up);
        let wanted = (room || target.demanded) && target.expected.is_none_or(|node| trusts(&node));
        // A node without any peer dials also those that closed its connection to make room: it would stay alone for ever.
        let evicted = target.evicted && self.up > 0;
        !target.dialling && !evicted && !up && wanted && target.node != Some(self.me)
    }

    /// Dials `node` at the next opportunity, whatever its redial delay. `false` when no address of it is known.
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

    /// Dials every target that is not connected without delay: the allow-list changed.
    pub(crate) fn demand_all(&mut self, now: Instant) {
        for target in self.targets.values_mut() {
            (target.failures, target.due) = (0, target.due.min(now));
        }
    }

    /// An attempt ended without a connection. `node` is the node found or expected there; returns the node that the attempt
    /// was for.
    pub(crate) fn dial_failed(
        &mut self,
        address: SocketAddr,
        node: Option<NodeId>,
        disconnect: Disconnect,
        now: Instant,
        jitter: f64,
    ) -> Option<NodeId> {
        let target = self.dial_settled(address, Some(&disconnect), now, jitter);
        let node = node.or(target);
        if let Some(node) = node {
            self.note(node, Some(address), disconnect, now);
        }
        node
    }

    /// An attempt led to a connection with `node`. It is judged when it has completed the handshake.
    pub(crate) fn dial_connected(&mut self, address: SocketAddr, node: NodeId) {
        if let Some(target) = self.targets.get_mut(&address) {
            target.node = Some(node);
        }
    }

    /// The attempt at `address` is over, without a `disconnect` when its connection was entered. Returns the node there.
    pub(crate) fn dial_settled(
        &mut self,
        address: SocketAddr,
        disconnect: Option<&Disconnect>,
        now: Instant,
        jitter: f64,
    ) -> Option<NodeId> {
        let redial = self.redial;
        let target = self.targets.get_mut(&address)?;
        (target.dialling, target.demanded) = (false, false);
        target.failures = if disconnect.is_some() { target.failures.saturating_add(1) } else { 0 };
        let kind = disconnect.map(|disconnect| disconnect.kind);
        target.evicted |= kind == Some(DisconnectKind::Evicted);
        let rarely = matches!(kind, Some(DisconnectKind::Refused | DisconnectKind::Evicted));
        target.due = now + redial.delay(target.failures, rarely, jitter);
        target.node
    }

    /// What happens to a connection that has completed the handshake, given the one in use.
    pub(crate) fn judge(&self, new: NewConnection, current: Option<CurrentConnection>) -> Verdict {
        let NewConnection { node, dialler, incarnation, .. } = new;
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

    /// A connection to `node` is in use from now on.
    pub(crate) fn up(&mut self, node: NodeId, listens: Option<SocketAddr>, now: Instant) {
        let entry = self.entry(node, now);
        let was_up = entry.is_up();
        (entry.state, entry.reason, entry.changed) = (PeerState::Up, None, now);
        entry.address = listens.or(entry.address);
        self.up += usize::from(!was_up);
    }

    /// The connection in use to `node` ended. `false` when it was not up.
    pub(crate) fn down(&mut self, node: NodeId, disconnect: Disconnect, now: Instant, jitter: f64) -> bool {
        let Some(entry) = self.entries.get_mut(&node).filter(|entry| entry.is_up()) else { return false };
        entry.state = PeerState::Down;
        self.up -= 1;
        let (kind, redial) = (disconnect.kind, self.redial);
        self.note(node, None, disconnect, now);
        let mut addresses = Vec::new();
        for (address, target) in self.targets.iter_mut().filter(|(_, target)| target.node == Some(node)) {
            addresses.push(*address);
            target.failures = u32::from(kind == DisconnectKind::Refused);
            target.due = now + redial.delay(target.failures, kind == DisconnectKind::Refused, jitter);
            target.evicted |= kind == DisconnectKind::Evicted;
        }
        self.names.lost(&addresses, now);
        true
    }

    /// Remembers why there is no connection with `node`, for the operator. Does nothing while it is up.
    pub(crate) fn note(&mut self, node: NodeId, address: Option<SocketAddr>, disconnect: Disconnect, now: Instant) {
        if node == self.me {
            return;
        }
        let entry = self.entry(node, now);
        if entry.is_up() {
            return;
        }
        let refused = disconnect.kind == DisconnectKind::Refused;
        entry.state = if refused { PeerState::Refused } else { PeerState::Down };
        entry.reason = Some(disconnect.reason);
        entry.address = entry.address.or(address);
        entry.changed = now;
        self.forget_oldest();
    }

    /// Peers that are up.
    pub(crate) fn count_up(&self) -> usize {
        self.up
    }

    /// Attempts in progress.
    pub(crate) fn count_dialling(&self) -> usize {
        self.targets.values().filter(|target| target.dialling).count()
    }

    /// Addresses to stay connected to.
    pub(crate) fn count_targets(&self) -> usize {
        self.targets.len()
    }

    /// The state of `node`, and why it is not up.
    pub(crate) fn state(&self, node: &NodeId) -> Option<(PeerState, Option<&str>)> {
        self.entries.get(node).map(|entry| (entry.state, entry.reason.as_deref()))
    }

    /// All peers, by id.
    pub(crate) fn peers(&self) -> Vec<Peer> {
        let peer = |(&node, entry): (&NodeId, &Entry)| Peer {
            node,
            state: entry.state,
            reason: entry.reason.clone(),
            address: entry.address,
        };
        let mut peers: Vec<_> = self.entries.iter().map(peer).collect();
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

    /// Keeps what is remembered about nodes without a connection within its cap, however many nodes dial this one. Several
    /// entries go at once, so that looking for the oldest costs little for each of them.
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

fn is_up_at(targets: &HashMap<SocketAddr, Target>, entries: &HashMap<NodeId, Entry>, address: &SocketAddr) -> bool {
    let node = targets.get(address).and_then(|target| target.node);
    node.and_then(|node| entries.get(&node)).is_some_and(Entry::is_up)
}

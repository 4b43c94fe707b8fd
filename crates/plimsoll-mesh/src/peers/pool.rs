//! The connections that count, in a pool that makes room by closing the idle one used longest ago.
//!
//! Every call, of either side, leases its connection, so that none is closed under one. A call to a node without a
//! connection waits for the one attempt that all callers share; a node that cannot be reached is left alone for a while.
//! Decisions are made under the lock of [`ConnectionPool`]; what they ask for is done after it.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll::bounded::pool::{
    CloseOutcome, Closing, Creation, Lease, LruPool, PoolAction, PoolRefusal, Requested, WaitKey, WhenFull,
};
use plimsoll::bounded::{Cap, Compact, CompactPolicy, Compacted, PoolSettings};
use tokio::sync::oneshot;

use crate::controls::switched_off;
use crate::names::NodeId;

use super::close_reason::CloseReason;
use super::close_reason::ConnectError;
use super::config::Redial;
use super::link::Link;
use super::state::{PeersState, count};
use super::table::{CurrentConnection, LinkId, NewConnection, PeerState, Verdict};

/// How long the actor of a closed connection may take to end before that counts as failed.
const CLOSE_TIME: Duration = Duration::from_secs(5);
/// The same for a connection that takes no new calls: as long as the longest call on it, and a little.
const RETIRED_TIME: Duration = Duration::from_secs(75);

/// A caller that waits for a connection.
type Waiter = oneshot::Sender<Result<LeasedConnection, ConnectError>>;

/// The connection that counts for one node.
struct PooledConnection {
    link: Arc<Link>,
    known: CurrentConnection,
}

/// All connections that have completed the handshake.
pub(crate) struct ConnectionPool {
    pool: LruPool<NodeId, PooledConnection, Waiter>,
    /// Retired ones included.
    open: HashMap<LinkId, Arc<Link>>,
    /// Nodes that callers wait for, each with a place.
    creations: HashMap<NodeId, Creation>,
    /// Connections of which no lease is left, until their actor has ended or their time is up.
    closings: HashMap<LinkId, (Closing, Instant)>,
}

/// What a decision asks for.
enum PoolCommand {
    Dial(NodeId),
    Evict(Arc<Link>),
    Grant(Waiter, Arc<Link>, Lease),
    Refuse(Waiter, PoolRefusal),
}

impl ConnectionPool {
    pub(crate) fn new(cap: Cap, redial: Redial) -> Self {
        let settings = PoolSettings {
            cap,
            retry_first: redial.first,
            retry_longest: redial.longest,
            close_time: CLOSE_TIME,
            // A connection that nobody calls over is in use all the same: gossip goes over it, and whoever closed it would
            // dial it again to stay in the mesh. A peer that is dead is found by its silence.
            idle_time: Duration::MAX,
            ..PoolSettings::default()
        };
        Self { pool: LruPool::new(settings), open: HashMap::new(), creations: HashMap::new(), closings: HashMap::new() }
    }

    /// The pool itself, for its counters.
    pub(crate) fn pool(&self) -> &LruPool<NodeId, impl Sized, impl Sized> {
        &self.pool
    }

    pub(crate) fn open(&self) -> impl ExactSizeIterator<Item = &Arc<Link>> {
        self.open.values()
    }

    pub(crate) fn has_room(&self) -> bool {
        self.pool.len() < self.pool.settings().cap.get()
    }

    pub(crate) fn link(&self, node: &NodeId) -> Option<&Arc<Link>> {
        self.pool.find(node).map(|(_, live)| &live.link)
    }

    /// What the rules have to know of the connection that counts for `node`.
    pub(crate) fn known(&self, node: &NodeId) -> Option<CurrentConnection> {
        self.pool.find(node).map(|(_, live)| live.known)
    }

    /// Enters a connection that was judged.
    pub(crate) fn arrive(
        &mut self,
        link: &Arc<Link>,
        arrival: NewConnection,
        verdict: Verdict,
        now: Instant,
    ) -> Verdict {
        match verdict {
            Verdict::Up | Verdict::UpRetiring(_) | Verdict::UpReplacing(_) => {}
            Verdict::Stale | Verdict::Full => return verdict,
            Verdict::Duplicate => {
                link.retire();
                self.open.insert(link.id, Arc::clone(link));
                return verdict;
            }
        }
        let live = PooledConnection { link: Arc::clone(link), known: arrival.known() };
        let entered = match self.creations.remove(&arrival.node) {
            Some(creation) => {
                let entry = creation.entry();
                self.pool.created(creation, live, now).map(|()| entry).map_err(|(closing, _)| {
                    self.pool.closed(closing, CloseOutcome::Closed);
                })
            }
            None => self.pool.replace(arrival.node, live, now).map_err(drop),
        };
        let Ok(entry) = entered else { return Verdict::Full };
        link.entered(entry);
        self.open.insert(link.id, Arc::clone(link));
        // The former one is told why before the pool asks for its end.
        match verdict {
            Verdict::UpRetiring(old) => drop(self.open.get(&old).map(|old| old.retire())),
            Verdict::UpReplacing(old) => drop(self.open.get(&old).map(|old| old.close(CloseReason::Replaced))),
            Verdict::Up | Verdict::Duplicate | Verdict::Stale | Verdict::Full => {}
        }
        verdict
    }

    /// A connection's actor has ended. `true` when it was the one that counted.
    fn ended(&mut self, link: &Link) -> bool {
        self.open.remove(&link.id);
        if let Some((closing, _)) = self.closings.remove(&link.id) {
            self.pool.closed(closing, CloseOutcome::Closed);
            return false;
        }
        link.entry().is_some_and(|entry| self.pool.retire(entry))
    }

    /// Closings whose time is up: the place is free, and the connection is closed if it was left to end by itself.
    fn expire_closings(&mut self, now: Instant) {
        let due = self.closings.extract_if(|_, (_, due)| *due <= now).collect::<Vec<_>>();
        for (link, (closing, _)) in due {
            if let Some(link) = self.open.get(&link) {
                link.close(CloseReason::Duplicate);
            }
            self.pool.closed(closing, CloseOutcome::TimedOut);
        }
    }

    /// Gives back the room that a crowd of connections left behind. O(1) when little of it is free, O(room) otherwise.
    fn compact(&mut self) -> Compacted {
        let policy = CompactPolicy::default();
        let maps =
            self.open.compact(&policy).plus(self.creations.compact(&policy)).plus(self.closings.compact(&policy));
        self.pool.compact(&policy).plus(maps)
    }

    /// Takes what the pool asks for.
    fn collect_commands(&mut self, commands: &mut Vec<PoolCommand>) {
        while let Some(action) = self.pool.next_action() {
            match action {
                PoolAction::Create { creation, key, evicted } => {
                    if let Some((closing, _, live)) = evicted {
                        self.close(closing, live.link, commands);
                    }
                    self.creations.insert(key, creation);
                    commands.push(PoolCommand::Dial(key));
                }
                PoolAction::Abandon { entry } => {
                    // The attempt goes on by itself; its connection is welcome if there is room when it comes.
                    let creation = self.pool.key(entry).copied().and_then(|node| self.creations.remove(&node));
                    if let Some(creation) = creation {
                        self.pool.creation_abandoned(creation);
                    }
                }
                PoolAction::Close { closing, value, .. } => self.close(closing, value.link, commands),
                PoolAction::Grant { waiter, lease } => {
                    if let Some(live) = self.pool.value(lease.entry()) {
                        commands.push(PoolCommand::Grant(waiter, Arc::clone(&live.link), lease));
                    }
                }
                PoolAction::Refuse { waiter, refusal } => commands.push(PoolCommand::Refuse(waiter, refusal)),
                _ => {}
            }
        }
    }

    fn close(&mut self, closing: Closing, link: Arc<Link>, commands: &mut Vec<PoolCommand>) {
        if !self.open.contains_key(&link.id) || switched_off("close-on-evict") {
            self.pool.closed(closing, CloseOutcome::Closed);
            return;
        }
        // One that is retired ends by itself when what is on its way has arrived.
        let time = if link.is_retired() { RETIRED_TIME } else { CLOSE_TIME };
        self.closings.insert(link.id, (closing, Instant::now() + time));
        if !link.is_retired() && link.closing().is_none() {
            commands.push(PoolCommand::Evict(link));
        }
    }
}

/// A connection that stays open until this is dropped.
pub(crate) struct LeasedConnection {
    shared: Arc<PeersState>,
    link: Arc<Link>,
    lease: Option<Lease>,
}

impl Deref for LeasedConnection {
    type Target = Link;

    fn deref(&self) -> &Link {
        &self.link
    }
}

impl Drop for LeasedConnection {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.shared.update(|connections| connections.pool.release(lease, Instant::now()));
        }
    }
}

impl PeersState {
    /// Changes the connections, then does what the change asks for.
    fn update<R>(self: &Arc<Self>, change: impl FnOnce(&mut ConnectionPool) -> R) -> R {
        let mut commands = Vec::new();
        let result = {
            let mut connections = self.connections.lock();
            let result = change(&mut connections);
            connections.collect_commands(&mut commands);
            result
        };
        self.execute(commands);
        result
    }

    fn execute(self: &Arc<Self>, commands: Vec<PoolCommand>) {
        for item in commands {
            match item {
                PoolCommand::Dial(node) => self.dial_on_demand(node),
                PoolCommand::Evict(link) => {
                    count(&self.counters.evicted);
                    let reason = CloseReason::Evicted { me: self.me };
                    let ended = reason.disconnect();
                    link.close(reason);
                    self.forget(&link, &ended);
                }
                PoolCommand::Grant(waiter, link, lease) => {
                    // Whoever waited may have gone this moment; then the lease goes back with what comes back.
                    let _ = waiter.send(Ok(LeasedConnection { shared: Arc::clone(self), link, lease: Some(lease) }));
                }
                PoolCommand::Refuse(waiter, refusal) => {
                    drop(waiter.send(Err(ConnectError::Unreachable(refusal.to_string()))))
                }
            }
        }
    }

    fn dial_on_demand(self: &Arc<Self>, node: NodeId) {
        match self.refusal_for(node) {
            Some(reason) => self.unreachable(&node, &ConnectError::from(&reason.disconnect())),
            None => {
                self.table.lock().demand(&node, Instant::now());
                self.wake_dialler.notify_one();
            }
        }
    }

    /// Judges a connection and enters it, if it is to stay.
    pub(crate) fn enter(
        self: &Arc<Self>,
        link: &Arc<Link>,
        arrival: NewConnection,
        listens: Option<std::net::SocketAddr>,
    ) -> Verdict {
        let (now, mut commands) = (Instant::now(), Vec::new());
        let verdict = {
            // Both locks, in this order: who is up in the table has a connection in the pool.
            let (mut table, mut connections) = (self.table.lock(), self.connections.lock());
            let judged = table.judge(arrival, connections.known(&arrival.node));
            let verdict = connections.arrive(link, arrival, judged, now);
            connections.collect_commands(&mut commands);
            if matches!(verdict, Verdict::Up | Verdict::UpRetiring(_) | Verdict::UpReplacing(_)) {
                table.up(arrival.node, listens, now);
            }
            verdict
        };
        self.execute(commands);
        verdict
    }

    /// A connection's actor has ended. `true` when it was the one that counted.
    pub(crate) fn left(self: &Arc<Self>, link: &Link) -> bool {
        self.update(|connections| connections.ended(link))
    }

    /// Gives up on closings that take too long, and gives back room.
    pub(crate) fn maintain(self: &Arc<Self>) {
        self.update(|connections| {
            connections.expire_closings(Instant::now());
            connections.compact();
        });
    }

    /// An attempt at `node` failed: those that wait for it are told.
    pub(crate) fn unreachable(self: &Arc<Self>, node: &NodeId, why: &ConnectError) {
        let told = self.update(|connections| match connections.creations.remove(node) {
            Some(creation) => connections.pool.failed(creation, Instant::now()),
            None => Vec::new(),
        });
        for waiter in told {
            let _ = waiter.send(Err(why.clone()));
        }
    }

    /// The connection to `node`, if there is one.
    pub(crate) fn hit(self: &Arc<Self>, node: &NodeId) -> Option<LeasedConnection> {
        let mut connections = self.connections.lock();
        let lease = connections.pool.hit(node)?;
        self.leased(&connections, lease)
    }

    /// Keeps `link` open for a call of its peer. `None` when it is not in the pool: it ends when it is idle.
    pub(crate) fn hold(self: &Arc<Self>, link: &Link) -> Option<LeasedConnection> {
        let mut connections = self.connections.lock();
        let lease = connections.pool.lease(link.entry()?)?;
        self.leased(&connections, lease)
    }

    fn leased(self: &Arc<Self>, connections: &ConnectionPool, lease: Lease) -> Option<LeasedConnection> {
        let link = Arc::clone(&connections.pool.value(lease.entry())?.link);
        Some(LeasedConnection { shared: Arc::clone(self), link, lease: Some(lease) })
    }

    /// The connection to `node`, dialled if there is none: waits until it is up, the attempt failed, or `until`.
    pub(crate) async fn lease(
        self: &Arc<Self>,
        node: NodeId,
        until: Instant,
    ) -> Result<LeasedConnection, ConnectError> {
        let unreached = |why: &str| ConnectError::Unreachable(why.to_owned());
        let (waiter, answer) = oneshot::channel();
        let asked = self.update(|connections| {
            let asked = connections.pool.request(&node, WhenFull::Wait, waiter, Instant::now());
            match asked {
                Requested::Leased(lease) => Err(self.leased(connections, lease).ok_or(None)),
                Requested::Waiting(wait) => Ok(wait),
                Requested::Refused(refusal, _) => Err(Err(Some(refusal))),
            }
        });
        let wait = match asked {
            Ok(wait) => wait,
            Err(Ok(leased)) => return Ok(leased),
            Err(Err(None)) => return Err(unreached("it has just gone")),
            Err(Err(Some(refusal))) => return Err(self.no_connection(&node, &refusal.to_string())),
        };
        let _waiting = LeaseWait { shared: self, wait };
        match tokio::time::timeout_at(until.into(), answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(unreached("this node is stopping"))),
            Err(_) => Err(self.no_connection(&node, "it did not answer in time")),
        }
    }

    /// Why there is no connection to a node. Where the last attempt ended in a refusal, that is why.
    fn no_connection(&self, node: &NodeId, otherwise: &str) -> ConnectError {
        match self.table.lock().state(node) {
            Some((PeerState::Refused, Some(why))) => ConnectError::Refused(why.to_owned()),
            _ => ConnectError::Unreachable(otherwise.to_owned()),
        }
    }
}

/// Takes a caller that gives up out of its queue.
struct LeaseWait<'a> {
    shared: &'a Arc<PeersState>,
    wait: WaitKey,
}

impl Drop for LeaseWait<'_> {
    fn drop(&mut self) {
        // Says no, and does nothing, when the answer is there.
        self.shared.update(|connections| connections.pool.cancel(self.wait));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections() -> ConnectionPool {
        ConnectionPool::new(Cap::of::<1_000>(), Redial::default())
    }

    /// M-2: peers are never closed for being idle, however long that is.
    #[test]
    fn no_connection_is_closed_for_being_idle() {
        assert_eq!(connections().pool().settings().idle_time, Duration::MAX);
    }

    /// L-2: the room of a thousand waiting callers goes back when they have gone.
    #[test]
    fn the_room_of_a_crowd_goes_back() {
        let (mut connections, now) = (connections(), Instant::now());
        let waits: Vec<_> = (0..1_000_u16)
            .map(|n| {
                let mut digest = [0; 32];
                digest[..2].copy_from_slice(&n.to_le_bytes());
                let asked =
                    connections.pool.request(&NodeId::from_digest(digest), WhenFull::Wait, oneshot::channel().0, now);
                let Requested::Waiting(wait) = asked else { panic!("there is no connection") };
                wait
            })
            .collect();
        connections.collect_commands(&mut Vec::new());
        assert_eq!(connections.creations.len(), 1_000);
        assert!(waits.into_iter().all(|wait| connections.pool.cancel(wait)));
        connections.collect_commands(&mut Vec::new());
        assert!(connections.creations.is_empty());
        assert!(connections.compact().freed() > 0);
        assert_eq!(connections.creations.capacity(), 0);
    }
}

//! The connections in use, in a pool that makes room by closing the idle one used least recently.
//!
//! Every call, of either side, leases its connection, so that none is closed while a call uses it. Calls to a node without
//! a connection share one attempt to make it; a node that cannot be reached is not dialled again for a while. Decisions are
//! made under the lock of [`ConnectionPool`]; the commands that follow from them are executed after its release
//! (`connections`).

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll::bounded::pool::{
    CloseOutcome, Closing, Creation, Lease, LruPool, PoolAction, PoolRefusal, Requested, WaitKey, WhenFull,
};
use plimsoll::bounded::{Cap, Compact, CompactPolicy, Compacted, PoolSettings};
use tokio::sync::oneshot;

use crate::names::NodeId;

use super::close_reason::{CloseReason, ConnectError};
use super::link::Link;
use super::redial::Redial;
use super::table::{CurrentConnection, LinkId, NewConnection, Verdict};

/// How long the actor of a closed connection may take to end before that counts as failed.
const CLOSE_TIME: Duration = Duration::from_secs(5);
/// The same for a retired connection: as long as the longest call on it, and a little.
const RETIRED_TIME: Duration = Duration::from_secs(75);

/// A caller that waits for a connection.
pub(super) type Waiter = oneshot::Sender<Result<LeasedConnection, ConnectError>>;

/// The connection in use to one node.
struct PooledConnection {
    link: Arc<Link>,
    current: CurrentConnection,
}

/// All connections that have completed the handshake.
pub(crate) struct ConnectionPool {
    pool: LruPool<NodeId, PooledConnection, Waiter>,
    /// Retired ones included.
    open: HashMap<LinkId, Arc<Link>>,
    /// Nodes that callers wait for, each with a place.
    creations: HashMap<NodeId, Creation>,
    /// Connections without a lease, until their actor has ended or their time is up.
    closings: HashMap<LinkId, (Closing, Instant)>,
    close: Close,
}

/// Begins the end of a connection that the pool has given up.
type Close = fn(&mut ConnectionPool, Closing, Arc<Link>, &mut Vec<PoolCommand>);

/// What has to be done after a decision.
pub(super) enum PoolCommand {
    Dial(NodeId),
    Evict(Arc<Link>),
    Grant(Waiter, Arc<Link>, Lease),
    Refuse(Waiter, PoolRefusal),
}

/// What a caller gets that asks for the connection to a node.
pub(super) enum LeaseRequest {
    Leased(Arc<Link>, Lease),
    Waiting(WaitKey),
    Refused(String),
}

impl ConnectionPool {
    pub(crate) fn new(cap: Cap, redial: Redial) -> Self {
        let settings = PoolSettings {
            cap,
            retry_first: redial.first,
            retry_longest: redial.longest,
            close_time: CLOSE_TIME,
            // A connection without calls is in use all the same: gossip goes over it, and the node that closed it would dial
            // it again to stay in the mesh. The liveness check closes connections to dead peers.
            idle_time: Duration::MAX,
            ..PoolSettings::default()
        };
        Self {
            pool: LruPool::new(settings),
            open: HashMap::new(),
            creations: HashMap::new(),
            closings: HashMap::new(),
            close: Self::close,
        }
    }

    /// Counts connections that it gives up as closed, and leaves them open.
    #[cfg(plimsoll_controls)]
    pub(crate) fn without_closing(mut self) -> Self {
        self.close = |pool, closing, _, _| pool.pool.closed(closing, CloseOutcome::Closed);
        self
    }

    /// The pool itself, for its counters.
    pub(crate) fn pool(&self) -> &LruPool<NodeId, impl Sized, impl Sized> {
        &self.pool
    }

    /// All open connections, retired ones included.
    pub(crate) fn open(&self) -> impl ExactSizeIterator<Item = &Arc<Link>> {
        self.open.values()
    }

    pub(crate) fn has_room(&self) -> bool {
        self.pool.len() < self.pool.settings().cap.get()
    }

    /// Nodes being dialled for callers, and connections being closed.
    pub(crate) fn pending(&self) -> (usize, usize) {
        (self.creations.len(), self.closings.len())
    }

    /// The connection in use to `node`.
    pub(crate) fn link(&self, node: &NodeId) -> Option<&Arc<Link>> {
        self.pool.find(node).map(|(_, pooled)| &pooled.link)
    }

    /// What the rules need to know of the connection in use to `node`.
    pub(crate) fn current(&self, node: &NodeId) -> Option<CurrentConnection> {
        self.pool.find(node).map(|(_, pooled)| pooled.current)
    }

    /// Enters a new connection according to `verdict`.
    pub(super) fn insert(&mut self, link: &Arc<Link>, new: NewConnection, verdict: Verdict, now: Instant) -> Verdict {
        match verdict {
            Verdict::Up | Verdict::UpRetiring(_) | Verdict::UpReplacing(_) => {}
            Verdict::Stale | Verdict::Full => return verdict,
            Verdict::Duplicate => {
                link.retire();
                self.open.insert(link.id, Arc::clone(link));
                return verdict;
            }
        }
        let pooled = PooledConnection { link: Arc::clone(link), current: new.current() };
        let entered = match self.creations.remove(&new.node) {
            Some(creation) => {
                let entry = creation.entry();
                self.pool.created(creation, pooled, now).map(|()| entry).map_err(|(closing, _)| {
                    self.pool.closed(closing, CloseOutcome::Closed);
                })
            }
            None => self.pool.replace(new.node, pooled, now).map_err(drop),
        };
        let Ok(entry) = entered else { return Verdict::Full };
        link.set_entry(entry);
        self.open.insert(link.id, Arc::clone(link));
        // The former connection gets its reason before the pool asks for its end.
        match verdict {
            Verdict::UpRetiring(old) => drop(self.open.get(&old).map(|old| old.retire())),
            Verdict::UpReplacing(old) => drop(self.open.get(&old).map(|old| old.close(CloseReason::Replaced))),
            Verdict::Up | Verdict::Duplicate | Verdict::Stale | Verdict::Full => {}
        }
        verdict
    }

    /// Removes a connection whose actor has ended. `true` when it was the one in use.
    pub(super) fn remove(&mut self, link: &Link) -> bool {
        self.open.remove(&link.id);
        if let Some((closing, _)) = self.closings.remove(&link.id) {
            self.pool.closed(closing, CloseOutcome::Closed);
            return false;
        }
        link.entry().is_some_and(|entry| self.pool.retire(entry))
    }

    /// Asks for the connection to `node`.
    pub(super) fn request(&mut self, node: &NodeId, waiter: Waiter, now: Instant) -> LeaseRequest {
        match self.pool.request(node, WhenFull::Wait, waiter, now) {
            Requested::Leased(lease) => match self.pool.value(lease.entry()) {
                Some(pooled) => LeaseRequest::Leased(Arc::clone(&pooled.link), lease),
                None => LeaseRequest::Refused("the connection has just ended".to_owned()),
            },
            Requested::Waiting(wait) => LeaseRequest::Waiting(wait),
            Requested::Refused(refusal, _) => LeaseRequest::Refused(refusal.to_string()),
        }
    }

    /// Removes a caller that gave up from its queue; does nothing when it has been served.
    pub(super) fn cancel(&mut self, wait: WaitKey) {
        self.pool.cancel(wait);
    }

    /// Leases the connection in use to `node`, if there is one.
    pub(super) fn lease_existing(&mut self, node: &NodeId) -> Option<(Arc<Link>, Lease)> {
        let lease = self.pool.hit(node)?;
        self.with_link(lease)
    }

    /// Leases this very connection. `None` when it is not in the pool.
    pub(super) fn lease_link(&mut self, link: &Link) -> Option<(Arc<Link>, Lease)> {
        let lease = self.pool.lease(link.entry()?)?;
        self.with_link(lease)
    }

    fn with_link(&self, lease: Lease) -> Option<(Arc<Link>, Lease)> {
        let link = Arc::clone(&self.pool.value(lease.entry())?.link);
        Some((link, lease))
    }

    pub(super) fn give_back(&mut self, lease: Lease, now: Instant) {
        self.pool.release(lease, now);
    }

    /// An attempt at `node` failed: the callers that waited for it.
    pub(super) fn failed(&mut self, node: &NodeId, now: Instant) -> Vec<Waiter> {
        self.creations.remove(node).map_or_else(Vec::new, |creation| self.pool.failed(creation, now))
    }

    /// Ends closings whose time is up: their place is free, and a connection that was left to end by itself is closed.
    pub(super) fn expire_closings(&mut self, now: Instant) {
        let expired = self.closings.extract_if(|_, (_, due)| *due <= now).collect::<Vec<_>>();
        for (link, (closing, _)) in expired {
            if let Some(link) = self.open.get(&link) {
                link.close(CloseReason::Duplicate);
            }
            self.pool.closed(closing, CloseOutcome::TimedOut);
        }
    }

    /// Gives unused memory back. O(1) when there is little of it, O(capacity) otherwise.
    pub(super) fn compact(&mut self) -> Compacted {
        let policy = CompactPolicy::default();
        let maps =
            self.open.compact(&policy).plus(self.creations.compact(&policy)).plus(self.closings.compact(&policy));
        self.pool.compact(&policy).plus(maps)
    }

    /// Takes the commands that the pool has ready.
    pub(super) fn collect_commands(&mut self, commands: &mut Vec<PoolCommand>) {
        while let Some(action) = self.pool.next_action() {
            match action {
                PoolAction::Create { creation, key, evicted } => {
                    if let Some((closing, _, pooled)) = evicted {
                        (self.close)(self, closing, pooled.link, commands);
                    }
                    self.creations.insert(key, creation);
                    commands.push(PoolCommand::Dial(key));
                }
                PoolAction::Abandon { entry } => {
                    // The attempt goes on by itself; its connection is entered if there is room when it is up.
                    let creation = self.pool.key(entry).copied().and_then(|node| self.creations.remove(&node));
                    if let Some(creation) = creation {
                        self.pool.creation_abandoned(creation);
                    }
                }
                PoolAction::Close { closing, value, .. } => (self.close)(self, closing, value.link, commands),
                PoolAction::Grant { waiter, lease } => {
                    if let Some(pooled) = self.pool.value(lease.entry()) {
                        commands.push(PoolCommand::Grant(waiter, Arc::clone(&pooled.link), lease));
                    }
                }
                PoolAction::Refuse { waiter, refusal } => commands.push(PoolCommand::Refuse(waiter, refusal)),
                _ => {}
            }
        }
    }

    fn close(&mut self, closing: Closing, link: Arc<Link>, commands: &mut Vec<PoolCommand>) {
        if !self.open.contains_key(&link.id) {
            self.pool.closed(closing, CloseOutcome::Closed);
            return;
        }
        // A retired connection ends by itself when its calls have ended.
        let time = if link.is_retired() { RETIRED_TIME } else { CLOSE_TIME };
        self.closings.insert(link.id, (closing, Instant::now() + time));
        if !link.is_retired() && link.closing().is_none() {
            commands.push(PoolCommand::Evict(link));
        }
    }
}

/// Takes leases back.
pub(super) trait LeaseOwner: Send + Sync {
    fn give_back(self: Arc<Self>, lease: Lease);
}

/// A connection that stays open until this is dropped.
pub(crate) struct LeasedConnection {
    link: Arc<Link>,
    /// Taken when it is dropped.
    lease: Option<(Arc<dyn LeaseOwner>, Lease)>,
}

impl LeasedConnection {
    pub(super) fn new(link: Arc<Link>, owner: Arc<dyn LeaseOwner>, lease: Lease) -> Self {
        Self { link, lease: Some((owner, lease)) }
    }
}

impl Deref for LeasedConnection {
    type Target = Link;

    fn deref(&self) -> &Link {
        &self.link
    }
}

impl Drop for LeasedConnection {
    fn drop(&mut self) {
        if let Some((owner, lease)) = self.lease.take() {
            owner.give_back(lease);
        }
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

    /// L-2: the memory of a thousand waiting callers is given back when they have gone.
    #[test]
    fn memory_of_callers_that_have_gone_is_given_back() {
        let (mut connections, now) = (connections(), Instant::now());
        let waits: Vec<_> = (0..1_000_u16)
            .map(|n| {
                let mut digest = [0; 32];
                digest[..2].copy_from_slice(&n.to_le_bytes());
                match connections.request(&NodeId::from_digest(digest), oneshot::channel().0, now) {
                    LeaseRequest::Waiting(wait) => wait,
                    LeaseRequest::Leased(..) | LeaseRequest::Refused(_) => panic!("there is no connection"),
                }
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

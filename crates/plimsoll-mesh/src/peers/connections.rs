//! Which connections are in use: entering and removing them, and leasing one for a call.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll::bounded::pool::{Lease, WaitKey};
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::events::EventKind;
use crate::names::NodeId;

use super::close_reason::{CloseReason, ConnectError, Disconnect, DisconnectKind};
use super::link::Link;
use super::pool::{ConnectionPool, LeaseOwner, LeaseRequest, LeasedConnection, PoolCommand};
use super::state::{PeersState, count};
use super::table::{NewConnection, PeerState, Verdict};

/// How long a call waits for a node to be connected: far more than a handshake takes, far less than a caller has.
const ON_DEMAND: Duration = Duration::from_secs(1);

impl PeersState {
    /// Why a new connection is closed instead of accepted, if it is.
    pub(crate) fn verdict_against(&self, new: NewConnection) -> Option<CloseReason> {
        let current = self.connections.lock().current(&new.node);
        match self.table.lock().judge(new, current) {
            Verdict::Duplicate => Some(CloseReason::Duplicate),
            Verdict::Stale => Some(CloseReason::Replaced),
            // There may be an idle one to close.
            Verdict::Full | Verdict::Up | Verdict::UpRetiring(_) | Verdict::UpReplacing(_) => None,
        }
    }

    /// Judges a connection that has completed the handshake, and announces the peer if it is in use now.
    pub(crate) fn enter(
        self: &Arc<Self>,
        link: &Arc<Link>,
        new: NewConnection,
        listens: Option<SocketAddr>,
    ) -> Verdict {
        let (now, mut commands) = (Instant::now(), Vec::new());
        let verdict = {
            // Both locks, in this order: a peer that is up in the table has a connection in the pool.
            let (mut table, mut connections) = (self.table.lock(), self.connections.lock());
            let judged = table.judge(new, connections.current(&new.node));
            let verdict = connections.insert(link, new, judged, now);
            connections.collect_commands(&mut commands);
            if matches!(verdict, Verdict::Up | Verdict::UpRetiring(_) | Verdict::UpReplacing(_)) {
                table.up(new.node, listens, now);
            }
            verdict
        };
        self.execute(commands);
        match verdict {
            Verdict::Stale | Verdict::Full => return verdict,
            Verdict::UpRetiring(_) | Verdict::Duplicate => count(&self.counters.duplicates),
            Verdict::Up => {
                info!(target: "plimsoll::mesh", node = %self.me, peer = %link.node, "peer up");
                self.config.events.record(EventKind::PeerUp, Some(link.node), "");
            }
            Verdict::UpReplacing(_) => {}
        }
        if verdict != Verdict::Duplicate {
            self.gossip.up(link.node);
            self.notify_change();
        }
        verdict
    }

    /// Removes a connection that was entered and has ended.
    pub(crate) fn leave(self: &Arc<Self>, link: &Link, disconnect: Disconnect) {
        count(&self.counters.ended);
        if self.update(|connections| connections.remove(link)) {
            self.mark_down(link, &link.closing().map_or(disconnect, CloseReason::disconnect));
        }
    }

    /// The connection in use to its node is not in use any more.
    fn mark_down(&self, link: &Link, disconnect: &Disconnect) {
        {
            let mut table = self.table.lock();
            // Another one may have been entered in between.
            let successor = self.connections.lock().current(&link.node).is_some();
            if successor || !table.down(link.node, disconnect.clone(), Instant::now(), rand::random()) {
                return;
            }
        }
        let (peer, reason) = (link.node, &disconnect.reason);
        let event = if disconnect.kind == DisconnectKind::Refused {
            warn!(target: "plimsoll::mesh", node = %self.me, %peer, reason, "peer refused");
            EventKind::PeerRefused
        } else {
            info!(target: "plimsoll::mesh", node = %self.me, %peer, reason, "peer down");
            EventKind::PeerDown
        };
        self.config.events.record(event, Some(peer), reason);
        self.gossip.down(link.node);
        self.notify_change();
        self.wake_dialler.notify_one();
    }

    /// The connection to `node`, dialled if there is none: waits until it is up, the attempt failed, or `deadline`.
    pub(crate) async fn lease_on_demand(
        self: &Arc<Self>,
        node: NodeId,
        deadline: Instant,
    ) -> Result<LeasedConnection, ConnectError> {
        if !self.table.lock().knows(&node) {
            return Err(ConnectError::Unreachable("no address of it is known".to_owned()));
        }
        let (waiter, granted) = oneshot::channel();
        let wait = match self.update(|connections| connections.request(&node, waiter, Instant::now())) {
            LeaseRequest::Leased(link, lease) => return Ok(self.leased(link, lease)),
            LeaseRequest::Refused(refusal) => return Err(self.no_connection(&node, refusal)),
            LeaseRequest::Waiting(wait) => LeaseWait { shared: self, wait },
        };
        let until = deadline.min(Instant::now() + ON_DEMAND);
        let result = tokio::time::timeout_at(until.into(), granted).await;
        drop(wait);
        match result {
            Ok(granted) => {
                granted.unwrap_or_else(|_| Err(ConnectError::Unreachable("this node is stopping".to_owned())))
            }
            Err(_) => Err(self.no_connection(&node, "it did not connect in time".to_owned())),
        }
    }

    /// The connection in use to `node`, if there is one.
    pub(crate) fn lease_existing(self: &Arc<Self>, node: &NodeId) -> Option<LeasedConnection> {
        let (link, lease) = self.connections.lock().lease_existing(node)?;
        Some(self.leased(link, lease))
    }

    /// Keeps `link` open for a call of its peer. `None` when it is not in the pool: it ends when it is idle.
    pub(crate) fn lease_for_serving(self: &Arc<Self>, link: &Link) -> Option<LeasedConnection> {
        let (link, lease) = self.connections.lock().lease_link(link)?;
        Some(self.leased(link, lease))
    }

    /// An attempt at `node` failed: the callers that wait for it get `error`.
    pub(crate) fn fail_waiters(self: &Arc<Self>, node: &NodeId, error: &ConnectError) {
        for waiter in self.update(|connections| connections.failed(node, Instant::now())) {
            let _ = waiter.send(Err(error.clone()));
        }
    }

    /// Ends closings that take too long, and gives unused memory back.
    pub(crate) fn maintain(self: &Arc<Self>) {
        self.update(|connections| {
            connections.expire_closings(Instant::now());
            connections.compact();
        });
    }

    fn leased(self: &Arc<Self>, link: Arc<Link>, lease: Lease) -> LeasedConnection {
        LeasedConnection::new(link, Arc::clone(self) as Arc<dyn LeaseOwner>, lease)
    }

    /// Changes the connections, then executes the commands that follow from it.
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
        for command in commands {
            match command {
                PoolCommand::Dial(node) => self.dial_on_demand(node),
                PoolCommand::Evict(link) => {
                    count(&self.counters.evicted);
                    let reason = CloseReason::Evicted { me: self.me };
                    let disconnect = reason.disconnect();
                    link.close(reason);
                    self.mark_down(&link, &disconnect);
                }
                // A caller that has just gone drops the lease, which gives it back.
                PoolCommand::Grant(waiter, link, lease) => drop(waiter.send(Ok(self.leased(link, lease)))),
                PoolCommand::Refuse(waiter, refusal) => {
                    drop(waiter.send(Err(ConnectError::Unreachable(refusal.to_string()))));
                }
            }
        }
    }

    fn dial_on_demand(self: &Arc<Self>, node: NodeId) {
        match self.refusal_for(node) {
            Some(reason) => self.fail_waiters(&node, &ConnectError::from(&reason.disconnect())),
            None => {
                self.table.lock().demand(&node, Instant::now());
                self.wake_dialler.notify_one();
            }
        }
    }

    /// Why there is no connection to a node: the refusal, where the last attempt ended in one.
    fn no_connection(&self, node: &NodeId, otherwise: String) -> ConnectError {
        match self.table.lock().state(node) {
            Some((PeerState::Refused, Some(reason))) => ConnectError::Refused(reason.to_owned()),
            _ => ConnectError::Unreachable(otherwise),
        }
    }
}

impl LeaseOwner for PeersState {
    fn give_back(self: Arc<Self>, lease: Lease) {
        self.update(|connections| connections.give_back(lease, Instant::now()));
    }
}

/// Removes a caller that gives up from its queue.
struct LeaseWait<'a> {
    shared: &'a Arc<PeersState>,
    wait: WaitKey,
}

impl Drop for LeaseWait<'_> {
    fn drop(&mut self) {
        self.shared.update(|connections| connections.cancel(self.wait));
    }
}

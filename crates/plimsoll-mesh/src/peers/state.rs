//! What the parts of the peers have in common: the table, the connections, the counters, and the nodes that are refused.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use plimsoll::bounded::LogThrottle;
use plimsoll::inspect::{Details, Inspect, Metric};
use plimsoll::mailbox::BoundedRef;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tracing::warn;

use crate::events::EventKind;
use crate::identity::{self, Identity, IdentityError, TrustStore};
use crate::names::NodeId;
use crate::service::ServePeer;

use super::close_reason::{CloseReason, ConnectError, Disconnect, DisconnectKind};
use super::config::{PeersConfig, SeedAddress};
use super::link::Link;
use super::pool::ConnectionPool;
use super::table::{Dial, Dialler, LinkId, PeerTable};
use super::{Gossip, Poison};

/// How long a node that sent a harmful gossip message is refused.
const EXPELLED: Duration = Duration::from_secs(600);
/// Nodes that are refused for that at once; the oldest is admitted again first.
const MAX_EXPELLED: usize = 1_024;

/// A connection that has not completed the handshake.
pub(crate) struct PendingConnection {
    pub(crate) connection: quinn::Connection,
    pub(crate) node: NodeId,
    pub(crate) dialler: Dialler,
    /// The place of an accepted connection among those in the handshake.
    pub(crate) place: Option<OwnedSemaphorePermit>,
    /// The attempt that made a dialled connection.
    pub(crate) dial: Option<DialGuard>,
}

/// An attempt in progress. The table learns its end when this is dropped, wherever that is; without a result it failed.
pub(crate) struct DialGuard {
    shared: Arc<PeersState>,
    dial: Dial,
    /// The node that the failure is about, if it is known, and the failure. `None` when the connection was entered.
    failure: Option<(Option<NodeId>, Disconnect)>,
}

impl DialGuard {
    pub(crate) fn new(shared: &Arc<PeersState>, dial: Dial) -> Self {
        let failure = Some((None, Disconnect::lost("the attempt was abandoned")));
        Self { shared: Arc::clone(shared), dial, failure }
    }

    /// The connection was entered.
    pub(crate) fn connected(mut self) {
        self.failure = None;
    }

    /// The attempt failed.
    pub(crate) fn failed(mut self, node: Option<NodeId>, disconnect: Disconnect) {
        self.failure = Some((node, disconnect));
    }
}

impl Drop for DialGuard {
    fn drop(&mut self) {
        let (shared, Dial { address, expected }) = (&self.shared, self.dial);
        let now = Instant::now();
        match self.failure.take() {
            None => drop(shared.table.lock().dial_settled(address, None, now, rand::random())),
            Some((node, disconnect)) => {
                count(&shared.counters.dials_failed);
                let node = node.or(expected);
                if let Some(node) = node {
                    shared.log_refusal(&node, &disconnect);
                }
                let error = ConnectError::from(&disconnect);
                let node = shared.table.lock().dial_failed(address, node, disconnect, now, rand::random());
                if let Some(node) = node {
                    shared.fail_waiters(&node, &error);
                }
                shared.notify_change();
            }
        }
        shared.wake_dialler.notify_one();
    }
}

/// Starts the actor of a connection under the running supervisor of connections.
pub(crate) type Start = Box<dyn Fn(PendingConnection) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

pub(crate) struct PeersState {
    pub(crate) me: NodeId,
    pub(crate) trust: TrustStore,
    pub(crate) endpoint: quinn::Endpoint,
    pub(crate) client: quinn::ClientConfig,
    pub(crate) config: PeersConfig,
    pub(crate) serve: Arc<dyn ServePeer>,
    pub(crate) gossip: Arc<dyn Gossip>,
    pub(crate) table: Mutex<PeerTable>,
    /// Locked after the table, where both are.
    pub(crate) connections: Mutex<ConnectionPool>,
    expelled: Mutex<HashMap<NodeId, (Instant, String)>>,
    /// Refusals without a node to name, for the log.
    anonymous: Mutex<LogThrottle>,
    handshakes: Arc<Semaphore>,
    pub(crate) start: ArcSwapOption<Start>,
    pub(crate) acceptor: ArcSwapOption<BoundedRef<PendingConnection>>,
    pub(crate) changed: watch::Sender<u64>,
    pub(crate) wake_dialler: Notify,
    next_link: AtomicU64,
    pub(crate) counters: Counters,
}

/// Totals since the node started.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) dialled: AtomicU64,
    pub(crate) dials_failed: AtomicU64,
    pub(crate) lookups: AtomicU64,
    pub(crate) lookups_failed: AtomicU64,
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) ended: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) evicted: AtomicU64,
    pub(crate) calls_answered: AtomicU64,
    pub(crate) calls_abandoned: AtomicU64,
    pub(crate) calls_cut_off: AtomicU64,
    pub(crate) calls_malformed: AtomicU64,
    pub(crate) calls_panicked: AtomicU64,
    pub(crate) calls_timed_out: AtomicU64,
    pub(crate) gossip_received: AtomicU64,
    pub(crate) gossip_sent: AtomicU64,
    pub(crate) gossip_dropped: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl PeersState {
    pub(crate) fn new(
        identity: Identity,
        trust: TrustStore,
        endpoint: quinn::Endpoint,
        config: PeersConfig,
        serve: Arc<dyn ServePeer>,
        gossip: Arc<dyn Gossip>,
    ) -> Result<Self, IdentityError> {
        let me = identity.node_id();
        let client = identity::peer_client_config(&identity, config.transport())?;
        let (mut table, now) = (PeerTable::new(me, config.redial), Instant::now());
        for seed in &config.seeds {
            match &seed.address {
                SeedAddress::Socket(address) => {
                    table.add_seed(Dial { address: *address, expected: seed.node }, now);
                }
                SeedAddress::Name { host, port } => table.names().add(host, *port, seed.node, now),
            }
        }
        let connections = ConnectionPool::new(config.connections, config.redial);
        #[cfg(plimsoll_controls)]
        let connections =
            if crate::controls::is_off("close-on-evict") { connections.without_closing() } else { connections };
        Ok(Self {
            me,
            trust,
            endpoint,
            client,
            serve,
            gossip,
            table: Mutex::new(table),
            connections: Mutex::new(connections),
            expelled: Mutex::default(),
            anonymous: Mutex::default(),
            handshakes: Arc::new(Semaphore::new(config.max_handshakes)),
            config,
            start: ArcSwapOption::empty(),
            acceptor: ArcSwapOption::empty(),
            changed: watch::Sender::new(0),
            wake_dialler: Notify::new(),
            next_link: AtomicU64::new(1),
            counters: Counters::default(),
        })
    }

    /// Passes an accepted connection to the acceptor, or closes it with the reason.
    pub(crate) fn accept(&self, connection: quinn::Connection) {
        let me = self.me;
        let Some(node) = identity::handshake(&connection).and_then(|handshake| handshake.node) else {
            self.refuse(&connection, None, &CloseReason::Anonymous { me });
            return;
        };
        if let Some(reason) = self.refusal_for(node) {
            self.refuse(&connection, Some(node), &reason);
            return;
        }
        let Ok(place) = Arc::clone(&self.handshakes).try_acquire_owned() else {
            self.refuse(&connection, Some(node), &CloseReason::Busy { me });
            return;
        };
        self.config.widen(&connection);
        let dialler = Dialler::Remote;
        let pending = PendingConnection { connection, node, dialler, place: Some(place), dial: None };
        let refused = match &*self.acceptor.load() {
            // Its mailbox has room for as many as there are places.
            Some(acceptor) => acceptor.send(pending).err().map(|error| error.into_message()),
            None => Some(pending),
        };
        match refused {
            None => count(&self.counters.accepted),
            Some(pending) => self.refuse(&pending.connection, None, &CloseReason::Stopping { me }),
        }
    }

    /// Starts the actor of a connection. Without a running supervisor the connection is closed.
    pub(crate) async fn start(&self, pending: PendingConnection) -> bool {
        let connection = pending.connection.clone();
        let started = match &*self.start.load() {
            Some(start) => start(pending).await,
            None => Err("the peers are not running".to_owned()),
        };
        if let Err(error) = &started {
            warn!(target: "plimsoll::mesh", node = %self.me, error, "the actor of a peer's connection did not start");
            CloseReason::Stopping { me: self.me }.close(&connection);
        }
        started.is_ok()
    }

    /// Why `node` may not be a peer now.
    pub(crate) fn refusal_for(&self, node: NodeId) -> Option<CloseReason> {
        let me = self.me;
        if node == me {
            return Some(CloseReason::Myself);
        }
        if !self.trust.allows(&node) {
            return Some(CloseReason::Untrusted { node, me });
        }
        let mut expelled = self.expelled.lock();
        match expelled.get(&node) {
            Some((since, why)) if since.elapsed() < EXPELLED => Some(CloseReason::Poison { node, why: why.clone() }),
            Some(_) => {
                expelled.remove(&node);
                None
            }
            None => None,
        }
    }

    /// Closes a connection that is not in use, with the reason; logs and records it once per reason and node.
    pub(crate) fn refuse(&self, connection: &quinn::Connection, node: Option<NodeId>, reason: &CloseReason) {
        let disconnect = reason.disconnect();
        reason.close(connection);
        let remote = connection.remote_address();
        let refused = disconnect.kind == DisconnectKind::Refused;
        count(if refused { &self.counters.refused } else { &self.counters.ended });
        if *reason == CloseReason::Duplicate {
            count(&self.counters.duplicates);
            return;
        }
        match node {
            Some(peer) => {
                if !self.is_repeated(&peer, &disconnect) {
                    let text = &disconnect.reason;
                    warn!(target: "plimsoll::mesh", node = %self.me, %peer, %remote, reason = text, "peer refused");
                    let full = matches!(reason, CloseReason::Full { .. } | CloseReason::Busy { .. });
                    let kind = if full { EventKind::CapReached } else { EventKind::PeerRefused };
                    self.config.events.record(kind, Some(peer), text);
                }
                self.table.lock().note(peer, None, disconnect, Instant::now());
                self.notify_change();
            }
            None => {
                if let Some(suppressed) = self.anonymous.lock().record(Instant::now()) {
                    let reason = disconnect.reason;
                    warn!(target: "plimsoll::mesh", node = %self.me, %remote, reason, suppressed, "peer refused");
                    self.config.events.record(EventKind::PeerRefused, None, &reason);
                }
            }
        }
    }

    /// Whether the last connection with `peer` ended for the same reason. A refused node dials again and again; only the first
    /// refusal is logged.
    fn is_repeated(&self, peer: &NodeId, disconnect: &Disconnect) -> bool {
        self.table.lock().state(peer).is_some_and(|(_, reason)| reason == Some(&*disconnect.reason))
    }

    /// Logs that `peer` refused this node, unless it did so for the same reason before.
    pub(crate) fn log_refusal(&self, peer: &NodeId, disconnect: &Disconnect) {
        if disconnect.kind == DisconnectKind::Refused && !self.is_repeated(peer, disconnect) {
            warn!(target: "plimsoll::mesh", node = %self.me, %peer, reason = disconnect.reason, "peer refused");
            self.config.events.record(EventKind::PeerRefused, Some(*peer), &disconnect.reason);
        }
    }

    /// The connection in use to `node`.
    pub(crate) fn link(&self, node: &NodeId) -> Option<Arc<Link>> {
        self.connections.lock().link(node).cloned()
    }

    pub(crate) fn gossip_to(&self, node: &NodeId, message: Bytes) -> bool {
        let sent = self.link(node).is_some_and(|link| link.gossip(message));
        count(if sent { &self.counters.gossip_sent } else { &self.counters.gossip_dropped });
        sent
    }

    pub(crate) fn set_members(&self, members: &[(NodeId, SocketAddr)], now: Instant) {
        let members = members.iter().map(|&(node, address)| Dial { address, expected: Some(node) });
        self.table.lock().set_members(members, now);
        self.wake_dialler.notify_one();
    }

    pub(crate) fn expel(&self, node: NodeId, why: &Poison) {
        let mut expelled = self.expelled.lock();
        if expelled.len() >= MAX_EXPELLED
            && let Some(oldest) = expelled.iter().min_by_key(|(_, (since, _))| *since).map(|(node, _)| *node)
        {
            expelled.remove(&oldest);
        }
        expelled.insert(node, (Instant::now(), why.0.clone()));
        drop(expelled);
        let reason = CloseReason::Poison { node, why: why.0.clone() };
        self.table.lock().note(node, None, reason.disconnect(), Instant::now());
        self.close_all(|link| (link.node == node).then(|| CloseReason::Poison { node, why: why.0.clone() }));
    }

    /// Closes every open connection for which `judge` returns a reason.
    pub(crate) fn close_all(&self, judge: impl Fn(&Link) -> Option<CloseReason>) {
        for link in self.connections.lock().open() {
            if let Some(reason) = judge(link) {
                link.close(reason);
            }
        }
    }

    pub(crate) fn next_link(&self) -> LinkId {
        self.next_link.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn notify_change(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    pub(crate) fn inspect(&self) -> Details {
        let mut details = Details::default();
        let mut put = |name: &str, metric| details.counters.insert(name, metric);
        {
            let table = self.table.lock();
            put("up", Metric::gauge(table.count_up() as u64));
            put("dialling", Metric::gauge(table.count_dialling() as u64));
            put("targets", Metric::gauge(table.count_targets() as u64));
        }
        put("limit", Metric::gauge(self.config.connections.get() as u64));
        let places = self.handshakes.available_permits();
        put("handshakes", Metric::gauge(self.config.max_handshakes.saturating_sub(places) as u64));
        put("handshakes_limit", Metric::gauge(self.config.max_handshakes as u64));
        let pool = {
            let connections = self.connections.lock();
            put("open", Metric::gauge(connections.open().len() as u64));
            put("retired", Metric::gauge(connections.open().filter(|link| link.is_retired()).count() as u64));
            put("calls_out", Metric::gauge(connections.open().map(|link| link.calling() as u64).sum()));
            let serving: u64 = connections.open().map(|link| link.serving() as u64).sum();
            put("calls_in", Metric::gauge(serving));
            put("workers_peer_call", Metric::gauge(serving));
            let (awaited, closing) = connections.pending();
            put("dials_awaited", Metric::gauge(awaited as u64));
            put("closing", Metric::gauge(closing as u64));
            put("calls_waiting", Metric::gauge(connections.pool().waiting() as u64));
            connections.pool().counters().inspect()
        };
        let counters = &self.counters;
        for (name, counter) in [
            ("dialled", &counters.dialled),
            ("dials_failed", &counters.dials_failed),
            ("lookups", &counters.lookups),
            ("lookups_failed", &counters.lookups_failed),
            ("accepted", &counters.accepted),
            ("refused", &counters.refused),
            ("ended", &counters.ended),
            ("duplicates", &counters.duplicates),
            ("evicted", &counters.evicted),
            ("calls_answered", &counters.calls_answered),
            ("calls_abandoned", &counters.calls_abandoned),
            ("calls_cut_off", &counters.calls_cut_off),
            ("calls_malformed", &counters.calls_malformed),
            ("calls_panicked", &counters.calls_panicked),
            ("calls_timed_out", &counters.calls_timed_out),
            ("gossip_received", &counters.gossip_received),
            ("gossip_sent", &counters.gossip_sent),
            ("gossip_dropped", &counters.gossip_dropped),
        ] {
            put(name, Metric::counter(counter.load(Ordering::Relaxed)));
        }
        details.counters.extend(pool.counters);
        details
    }
}

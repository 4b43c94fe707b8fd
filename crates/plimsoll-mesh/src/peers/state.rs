//! What the parts of the peers share: the table, the connections, and the counters.

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
use plimsoll::inspect::{Details, Inspect};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tracing::{info, warn};

use crate::events::EventKind;
use crate::identity::{self, Identity, IdentityError, TrustStore};
use crate::names::NodeId;
use crate::service::ServePeer;

use super::close_reason::CloseReason;
use super::close_reason::{Disconnect, DisconnectKind};
use super::link::Link;
use super::pool::ConnectionPool;
use super::table::{Dial, Dialler, LinkId, NewConnection, PeerTable, Verdict};
use super::{Gossip, PeersConfig, Poison};

/// How long a node that gossiped poison is refused.
const EXPELLED: Duration = Duration::from_secs(600);
/// Nodes that are refused for that at once; the oldest is forgiven first.
const MAX_EXPELLED: usize = 1_024;

/// A connection that has not completed the handshake.
pub(crate) struct PendingConnection {
    pub(crate) connection: quinn::Connection,
    pub(crate) node: NodeId,
    pub(crate) dialler: Dialler,
    /// The address dialled.
    pub(crate) address: Option<SocketAddr>,
    /// Its place among the accepted ones that have not completed the handshake.
    pub(crate) place: Option<OwnedSemaphorePermit>,
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
    /// Connections without a certificate, for the log.
    anonymous: Mutex<LogThrottle>,
    pub(crate) handshakes: Arc<Semaphore>,
    pub(crate) start: ArcSwapOption<Start>,
    pub(crate) changed: watch::Sender<u64>,
    pub(crate) wake_dialler: Notify,
    next_link: AtomicU64,
    pub(crate) counters: Counters,
}

/// What happened, ever since.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) dialled: AtomicU64,
    pub(crate) dials_failed: AtomicU64,
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) ended: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) evicted: AtomicU64,
    pub(crate) calls_answered: AtomicU64,
    pub(crate) calls_abandoned: AtomicU64,
    pub(crate) calls_malformed: AtomicU64,
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
        let mut table = PeerTable::new(me, config.redial);
        for seed in &config.seeds {
            table.add_target(Dial { address: seed.address, expected: seed.node }, true, Instant::now());
        }
        Ok(Self {
            me,
            trust,
            endpoint,
            client,
            serve,
            gossip,
            table: Mutex::new(table),
            connections: Mutex::new(ConnectionPool::new(config.connections, config.redial)),
            expelled: Mutex::default(),
            anonymous: Mutex::default(),
            handshakes: Arc::new(Semaphore::new(config.max_handshakes)),
            config,
            start: ArcSwapOption::empty(),
            changed: watch::Sender::new(0),
            wake_dialler: Notify::new(),
            next_link: AtomicU64::new(1),
            counters: Counters::default(),
        })
    }

    /// Takes an accepted connection, or closes it with the reason.
    pub(crate) fn accept(shared: &Arc<Self>, connection: quinn::Connection) {
        let Some(node) = identity::handshake(&connection).and_then(|handshake| handshake.node) else {
            shared.refuse(&connection, None, &CloseReason::Anonymous { me: shared.me });
            return;
        };
        if let Some(reason) = shared.refusal_for(node) {
            shared.refuse(&connection, Some(node), &reason);
            return;
        }
        let Ok(place) = Arc::clone(&shared.handshakes).try_acquire_owned() else {
            shared.refuse(&connection, Some(node), &CloseReason::Full { me: shared.me });
            return;
        };
        count(&shared.counters.accepted);
        shared.config.widen(&connection);
        let pending =
            PendingConnection { connection, node, dialler: Dialler::Remote, address: None, place: Some(place) };
        let shared = Arc::clone(shared);
        // Bounded by the places for connections that have not completed the handshake.
        tokio::spawn(async move { shared.start(pending).await });
    }

    /// Starts the actor of a connection; without a running supervisor the connection is closed.
    pub(crate) async fn start(&self, pending: PendingConnection) -> bool {
        let connection = pending.connection.clone();
        let started = match &*self.start.load() {
            Some(start) => start(pending).await,
            None => Err("the peers are not running".to_owned()),
        };
        if let Err(why) = &started {
            warn!(target: "plimsoll::mesh", node = %self.me, why, "a peer's connection found no actor");
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

    /// Turns a connection away before it counts, by name.
    pub(crate) fn refuse(&self, connection: &quinn::Connection, node: Option<NodeId>, reason: &CloseReason) {
        let ended = reason.disconnect();
        reason.close(connection);
        let remote = connection.remote_address();
        count(if ended.kind == DisconnectKind::Refused { &self.counters.refused } else { &self.counters.ended });
        if *reason == CloseReason::Duplicate {
            count(&self.counters.duplicates);
            return;
        }
        match node {
            Some(peer) => {
                if !self.is_repeated(&peer, &ended) {
                    let reason = &ended.reason;
                    warn!(target: "plimsoll::mesh", node = %self.me, %peer, %remote, reason, "peer refused");
                    self.config.events.record(EventKind::PeerRefused, Some(peer), reason);
                }
                self.table.lock().note(peer, None, ended, Instant::now());
                self.notify_change();
            }
            None => {
                if let Some(unsaid) = self.anonymous.lock().record(Instant::now()) {
                    let reason = ended.reason;
                    warn!(target: "plimsoll::mesh", node = %self.me, %remote, reason, unsaid, "peer refused");
                }
            }
        }
    }

    /// Whether `peer` ended just so the last time. Who is turned away comes again and again; the log tells of the first.
    fn is_repeated(&self, peer: &NodeId, ended: &Disconnect) -> bool {
        self.table.lock().state(peer).is_some_and(|(_, reason)| reason == Some(&*ended.reason))
    }

    /// Logs that `peer` turned this node away; once, and not at every attempt that ends alike.
    pub(crate) fn log_refusal(&self, peer: &NodeId, ended: &Disconnect) {
        if ended.kind == DisconnectKind::Refused && !self.is_repeated(peer, ended) {
            warn!(target: "plimsoll::mesh", node = %self.me, %peer, reason = ended.reason, "peer refused");
            self.config.events.record(EventKind::PeerRefused, Some(*peer), &ended.reason);
        }
    }

    /// Judges a connection that has completed the handshake, and publishes it if it counts.
    pub(crate) fn arrive(
        self: &Arc<Self>,
        link: &Arc<Link>,
        arrival: NewConnection,
        listens: Option<SocketAddr>,
    ) -> Verdict {
        let verdict = self.enter(link, arrival, listens);
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

    /// Why a connection that has completed the handshake is closed without an answer, if it is.
    pub(crate) fn would_refuse(&self, arrival: NewConnection) -> Option<CloseReason> {
        let current = self.connections.lock().known(&arrival.node);
        match self.table.lock().judge(arrival, current) {
            Verdict::Duplicate => Some(CloseReason::Duplicate),
            Verdict::Stale => Some(CloseReason::Replaced),
            // There may be an idle one to close.
            Verdict::Full | Verdict::Up | Verdict::UpRetiring(_) | Verdict::UpReplacing(_) => None,
        }
    }

    /// A connection that had completed the handshake ended; `error` is quinn's word for it.
    pub(crate) fn ended(self: &Arc<Self>, link: &Link, ended: Disconnect) {
        count(&self.counters.ended);
        if self.left(link) {
            self.forget(link, &link.closing().map_or(ended, CloseReason::disconnect));
        }
    }

    /// The connection that counted for its node does not any more.
    pub(crate) fn forget(&self, link: &Link, ended: &Disconnect) {
        {
            let mut table = self.table.lock();
            // A later one may have come meanwhile.
            let successor = self.connections.lock().known(&link.node).is_some();
            if successor || !table.down(link.node, ended.clone(), Instant::now(), rand::random()) {
                return;
            }
        }
        let (peer, reason) = (link.node, &ended.reason);
        let what = if ended.kind == DisconnectKind::Refused {
            warn!(target: "plimsoll::mesh", node = %self.me, %peer, reason, "peer refused");
            EventKind::PeerRefused
        } else {
            info!(target: "plimsoll::mesh", node = %self.me, %peer, reason, "peer down");
            EventKind::PeerDown
        };
        self.config.events.record(what, Some(peer), reason);
        self.gossip.down(link.node);
        self.notify_change();
        self.wake_dialler.notify_one();
    }

    /// The connection to `node` that takes new calls, for a look at it.
    pub(crate) fn link(&self, node: &NodeId) -> Option<Arc<Link>> {
        self.connections.lock().link(node).cloned()
    }

    pub(crate) fn gossip_to(&self, node: &NodeId, message: Bytes) -> bool {
        let sent = self.link(node).is_some_and(|link| link.gossip(message));
        count(if sent { &self.counters.gossip_sent } else { &self.counters.gossip_dropped });
        sent
    }

    pub(crate) fn set_members(&self, members: &[(NodeId, SocketAddr)], now: Instant) {
        let mut table = self.table.lock();
        table.retain_members(&members.iter().map(|(_, address)| *address).collect());
        for &(node, address) in members {
            table.add_target(Dial { address, expected: Some(node) }, false, now);
        }
        drop(table);
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

    /// Closes the connections that `judge` finds a reason against.
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
        let mut put = |name: &str, value: u64| details.counters.insert(name.to_owned(), value);
        put("up", self.table.lock().count_up() as u64);
        put("limit", self.config.connections.get() as u64);
        let pool = {
            let connections = self.connections.lock();
            put("open", connections.open().len() as u64);
            put("retired", connections.open().filter(|link| link.is_retired()).count() as u64);
            put("calls_out", connections.open().map(|link| link.calling() as u64).sum());
            put("calls_in", connections.open().map(|link| link.serving() as u64).sum());
            connections.pool().counters().inspect()
        };
        let counters = &self.counters;
        for (name, counter) in [
            ("dialled", &counters.dialled),
            ("dials_failed", &counters.dials_failed),
            ("accepted", &counters.accepted),
            ("refused", &counters.refused),
            ("ended", &counters.ended),
            ("duplicates", &counters.duplicates),
            ("evicted", &counters.evicted),
            ("calls_answered", &counters.calls_answered),
            ("calls_abandoned", &counters.calls_abandoned),
            ("calls_malformed", &counters.calls_malformed),
            ("gossip_received", &counters.gossip_received),
            ("gossip_sent", &counters.gossip_sent),
            ("gossip_dropped", &counters.gossip_dropped),
        ] {
            put(name, counter.load(Ordering::Relaxed));
        }
        details.counters.extend(pool.counters);
        details
    }
}

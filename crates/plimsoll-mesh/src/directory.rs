//! Which nodes there are, and which services they provide.
//!
//! Every node holds the whole directory; the rest of the mesh uses it through [`Directory`]. It spreads by Scuttlebutt gossip
//! (chitchat) over the authenticated connections of the [peers](crate::peers). Each record is signed by the node that it
//! names, and holds as long as that node renews its lease.
//!
//! ```text
//! connection --deliver--> validate --inbox--> engine (chitchat) --> record table (signatures, leases) --> view
//!     ^                                      |
//!     '------------- one stream a message ---'
//! ```

mod address;
mod gossip;
mod publisher;
mod record_table;
mod signed_record;
#[cfg(test)]
mod test_messages;
#[cfg(test)]
mod tests;
mod transport;
mod validate;
mod view;
mod withdrawal;

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use chitchat::{ChitchatMessage, Deserializable as _};
use parking_lot::{Mutex, RwLock};
use plimsoll::inspect::{Details, Inspect, Metric};
use plimsoll::supervisor::{ChildSpec, Strategy, Supervisor, SupervisorBuilder};
use tokio::sync::{Notify, mpsc};
use tracing::warn;

use crate::identity::{Generations, Identity, TrustStore};
use crate::names::{NodeId, ServiceName};
use crate::peers::{Gossip, Peers, Poison};
use crate::services::ServiceTable;

pub use view::{DirectoryView, Member, Provider};

use validate::{EngineSummary, Rejected};
use withdrawal::Withdrawal;

/// The directory as the rest of the mesh uses it. Reading sends no message to any actor.
pub trait Directory: Send + Sync + 'static {
    /// Everything it knows now, without the services of this node.
    fn view(&self) -> Arc<DirectoryView>;

    /// The other nodes that provide `service`.
    fn providers(&self, service: &ServiceName) -> Vec<Provider> {
        self.view().services.get(service).cloned().unwrap_or_default()
    }
}

/// The settings of a directory.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DirectoryConfig {
    /// The realm; names do not cross realms. Default `default`.
    pub realm: String,
    /// Time between gossip rounds. Default 500 ms.
    pub gossip_interval: Duration,
    /// How long the names of a silent node are kept, from 1 s to 300 s. Default 300 s; renewed at a third of it.
    pub ttl: Duration,
    /// Where this node listens, as others should dial it.
    pub listens: Option<SocketAddr>,
    /// Numbers the incarnations of this node. Default: numbers in memory, which rise between processes as the clock does.
    pub generations: Generations,
}

impl DirectoryConfig {
    /// The defaults, in `realm`.
    pub fn new(realm: impl Into<String>) -> Self {
        Self {
            realm: realm.into(),
            gossip_interval: Duration::from_millis(500),
            ttl: Duration::from_secs(300),
            listens: None,
            generations: Generations::in_memory(),
        }
    }

    fn ttl(&self) -> Duration {
        self.ttl.clamp(Duration::from_secs(1), Duration::from_secs(300))
    }
}

/// The most gossip messages that wait for the engine; a further one is dropped, and the next round brings its content.
const INBOX: usize = 256;

/// A directory that spreads by gossip. Cloning shares it.
#[derive(Clone)]
pub struct GossipDirectory(Arc<Inner>);

struct Inner {
    identity: Identity,
    trust: TrustStore,
    config: DirectoryConfig,
    view: ArcSwap<DirectoryView>,
    inbox: ArcSwapOption<mpsc::Sender<(NodeId, ChitchatMessage)>>,
    known: RwLock<EngineSummary>,
    /// Nodes with a connection, by the address under which the engine knows them.
    reachable: RwLock<HashMap<SocketAddr, NodeId>>,
    arrived: Mutex<Vec<NodeId>>,
    arrival: Notify,
    /// The sender of the last message that the engine received: if the engine fails, that message is the likely cause.
    last_from: Mutex<Option<NodeId>>,
    withdrawal: Withdrawal,
    counters: Counters,
}

/// Totals since the node started.
#[derive(Debug, Default)]
struct Counters {
    received: AtomicU64,
    dropped: AtomicU64,
    poison: AtomicU64,
    invalid_records: AtomicU64,
    restarts: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl GossipDirectory {
    /// The directory of the node `identity`; records of nodes that `trust` does not allow do not count.
    ///
    /// It receives gossip from the start, and replies once its [supervisor](Self::supervisor) runs.
    pub fn new(identity: Identity, trust: TrustStore, config: DirectoryConfig) -> Self {
        Self(Arc::new(Inner {
            identity,
            trust,
            config,
            view: ArcSwap::default(),
            inbox: ArcSwapOption::empty(),
            known: RwLock::default(),
            reachable: RwLock::default(),
            arrived: Mutex::default(),
            arrival: Notify::new(),
            last_from: Mutex::new(None),
            withdrawal: Withdrawal::default(),
            counters: Counters::default(),
        }))
    }

    /// Withdraws what this node offers, for good: the others stop listing it as soon as they receive the withdrawal, and not
    /// when its lease ends. Waits until the connected nodes have acknowledged it, or enough of them to pass it on to the rest;
    /// `within` at most. For a node that is about to stop.
    ///
    /// Cancel safe: what was withdrawn stays withdrawn.
    pub async fn withdraw(&self, within: Duration) {
        let inner = &self.0;
        if !inner.withdrawal.request() {
            return;
        }
        let acknowledged = async {
            while !inner.withdrawal.is_acknowledged(inner.reachable.read().values()) {
                inner.withdrawal.progress().await;
            }
        };
        if tokio::time::timeout(within, acknowledged).await.is_err() {
            warn!(target: "plimsoll::mesh", "not all peers acknowledged the withdrawal of this node: they list its services until its lease ends");
        }
    }

    /// The supervisor of the gossip, not started yet: for [`ChildSpec::supervisor`]. It publishes what `services` offers over
    /// `peers`, and gives `peers` the members to stay connected to.
    pub fn supervisor(&self, peers: &Peers, services: &ServiceTable) -> SupervisorBuilder {
        let (inner, peers, services) = (Arc::clone(&self.0), peers.clone(), services.clone());
        let gossip = ChildSpec::task("gossip", move |stop| {
            gossip::run(Arc::clone(&inner), peers.clone(), services.clone(), stop)
        });
        Supervisor::builder("directory")
            .strategy(Strategy::OneForOne)
            // A peer that breaks the engine is expelled for it; a mesh of such peers must not take the node down.
            .intensity(20, Duration::from_secs(60))
            .child(gossip.inspect(Arc::new(self.clone())))
    }
}

impl Directory for GossipDirectory {
    fn view(&self) -> Arc<DirectoryView> {
        self.0.view.load_full()
    }
}

impl Gossip for GossipDirectory {
    fn deliver(&self, from: NodeId, message: Bytes) -> Result<(), Poison> {
        let counters = &self.0.counters;
        count(&counters.received);
        match validate::check(&message, &self.0.known.read()) {
            Ok(version) => self.0.withdrawal.acknowledge(from, version),
            Err(Rejected::Dropped(_)) => {
                count(&counters.dropped);
                return Ok(());
            }
            Err(Rejected::Poison(why)) => {
                count(&counters.poison);
                return Err(Poison(why));
            }
        }
        let message = ChitchatMessage::deserialize(&mut &message[..]).map_err(|error| {
            count(&counters.poison);
            Poison(error.to_string())
        })?;
        let inbox = self.0.inbox.load();
        if inbox.as_ref().is_none_or(|inbox| inbox.try_send((from, message)).is_err()) {
            count(&counters.dropped);
        }
        Ok(())
    }

    fn up(&self, node: NodeId) {
        self.0.reachable.write().insert(address::address_of(&node), node);
        let mut arrived = self.0.arrived.lock();
        if !arrived.contains(&node) {
            arrived.push(node);
        }
        self.0.arrival.notify_one();
    }

    fn down(&self, node: NodeId) {
        self.0.reachable.write().remove(&address::address_of(&node));
        self.0.arrived.lock().retain(|arrived| *arrived != node);
        self.0.withdrawal.lost();
    }
}

impl Inspect for GossipDirectory {
    fn inspect(&self) -> Details {
        let mut details = Details::default();
        let (view, counters) = (self.0.view.load(), &self.0.counters);
        let providers: usize = view.services.values().map(Vec::len).sum();
        details.counters.extend([
            ("members", Metric::gauge(view.members.len() as u64)),
            ("services", Metric::gauge(view.services.len() as u64)),
            ("records", Metric::gauge(providers as u64)),
            ("records_limit", Metric::gauge(record_table::MAX_RECORDS as u64)),
            ("received", Metric::counter(counters.received.load(Ordering::Relaxed))),
            ("dropped", Metric::counter(counters.dropped.load(Ordering::Relaxed))),
            ("poison", Metric::counter(counters.poison.load(Ordering::Relaxed))),
            ("invalid_records", Metric::counter(counters.invalid_records.load(Ordering::Relaxed))),
            ("engine_restarts", Metric::counter(counters.restarts.load(Ordering::Relaxed))),
        ]);
        details
    }
}

impl fmt::Debug for GossipDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GossipDirectory").field("node", &self.0.identity.node_id()).finish_non_exhaustive()
    }
}

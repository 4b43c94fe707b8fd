//! Other nodes: one mutually authenticated QUIC connection a pair, under `plimsoll-peer/1`.
//!
//! A call is a bidirectional stream, opened by either side; gossip uses unidirectional ones. A peer is up after one
//! exchange of hellos and not before: with TLS 1.3 the dialling side is connected while the other may still refuse it. What
//! to dial, which of two connections stays and what is remembered are rules without I/O (`table`); each connection is an
//! actor under a dynamic supervisor (`connection`), and each call of a peer a worker actor linked to it (`call_worker`).
//!
//! ```text
//! peers             rest_for_one
//! |- connections    one actor a connection, with a worker for each call of its peer
//! |- acceptor       starts the actors of accepted connections
//! |- dialler        keeps connections to the seeds and members
//! `- trust-watcher  closes the connections of nodes that are no longer trusted
//! ```

mod call;
mod call_worker;
mod close_reason;
mod config;
mod connection;
mod connections;
mod dial;
mod frames;
mod handshake;
mod link;
mod liveness;
mod pool;
mod redial;
mod seed_names;
mod state;
mod table;
mod tree;
mod wire;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use plimsoll::inspect::{Details, Inspect};

use crate::gateway::AcceptPeer;
use crate::identity::{Identity, IdentityError, TrustStore};
use crate::names::NodeId;
use crate::problem::{Code, Problem};
use crate::service::{Refusal, Request, Response, ServePeer};

pub use config::{InvalidSeedAddress, PeersConfig, Seed, SeedAddress};
pub use redial::Redial;
pub use seed_names::{Resolve, SystemResolver};
pub use table::{Peer, PeerState};

use close_reason::ConnectError;
use state::PeersState;

/// Receives the gossip of other nodes, and is notified of the nodes that it can be sent to.
pub trait Gossip: Send + Sync + 'static {
    /// Receives a message. Must not block; a message without room is dropped and counted by the receiver.
    ///
    /// # Errors
    /// [`Poison`] when the message would harm its receiver: the peer is refused from then on.
    fn deliver(&self, from: NodeId, message: Bytes) -> Result<(), Poison>;

    /// A connection to `node` is up.
    fn up(&self, node: NodeId);

    /// The connection to `node` is gone.
    fn down(&self, node: NodeId);
}

/// What is wrong with a gossip message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Poison(pub String);

/// The connections of a node to its peers. Cloning shares them.
#[derive(Clone)]
pub struct Peers(Arc<PeersState>);

/// The load of a peer, as far as this node observes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Load {
    /// This node's own calls in flight there.
    pub in_flight: usize,
    /// Moving average of the time to a reply; it decays while there are no calls.
    pub latency: std::time::Duration,
}

impl Peers {
    /// The peers of the node `identity`, which dials from `endpoint` and accepts the nodes that `trust` allows.
    ///
    /// Nothing happens before its [supervisor](Self::supervisor) runs.
    ///
    /// # Errors
    /// [`IdentityError::Crypto`] when the key does not suit TLS.
    pub fn new(
        identity: Identity,
        trust: TrustStore,
        endpoint: quinn::Endpoint,
        config: PeersConfig,
        serve: Arc<dyn ServePeer>,
        gossip: Arc<dyn Gossip>,
    ) -> Result<Self, IdentityError> {
        PeersState::new(identity, trust, endpoint, config, serve, gossip).map(|shared| Self(Arc::new(shared)))
    }

    /// Takes over a connection whose handshake is complete and whose protocol is `plimsoll-peer/1`, or closes it with
    /// the reason.
    pub fn accept(&self, connection: quinn::Connection) {
        self.0.accept(connection);
    }

    /// Calls a service on `node`, which is dialled first when it is not connected.
    ///
    /// # Errors
    /// The peer's refusal, or 404 `no_provider` when one of the two nodes refuses the other, or 502 `provider_died` when
    /// its connection is gone, or 504 `deadline`; each carries whether the call certainly never ran.
    ///
    /// Cancel safe: dropping the future resets the stream, and the peer stops its worker.
    pub async fn call(&self, node: NodeId, request: &Request) -> Result<Response, Refusal> {
        let link = match self.0.lease_existing(&node) {
            Some(link) => link,
            None => match self.0.lease_on_demand(node, request.deadline).await {
                Ok(link) => link,
                Err(error) => return Err(self.not_connected(node, request, error)),
            },
        };
        call::call(&link, request).await
    }

    /// The refusal of a call for which no connection could be had: it never ran.
    fn not_connected(&self, node: NodeId, request: &Request, error: ConnectError) -> Refusal {
        let problem = match error {
            ConnectError::Refused(reason) => {
                let service = &request.service;
                let detail = format!("node {node} provides {service}, but is no peer of this node: {reason}");
                Problem::new(Code::NoProvider, detail)
            }
            ConnectError::Unreachable(reason) if Instant::now() >= request.deadline => {
                let detail = format!("node {node} was not connected by the deadline: {reason}");
                Problem::new(Code::Deadline, detail)
            }
            ConnectError::Unreachable(reason) => {
                Problem::new(Code::ProviderDied, format!("node {node} cannot be reached: {reason}"))
            }
        };
        Refusal::never_ran(problem.on(self.0.me))
    }

    /// The load of `node`; `None` when it is not up.
    pub fn load(&self, node: &NodeId) -> Option<Load> {
        let link = self.0.link(node)?;
        Some(Load { in_flight: link.calling(), latency: link.latency() })
    }

    /// Whether `node` could be dialled now, as far as is known: it is up, or neither refused nor failing.
    pub fn is_dialable(&self, node: &NodeId) -> bool {
        let table = self.0.table.lock();
        table.state(node).is_none_or(|(state, _)| matches!(state, PeerState::Up | PeerState::Connecting))
    }

    /// Sends a gossip message. `false` when there is no connection or its queue is full.
    pub fn gossip(&self, node: &NodeId, message: Bytes) -> bool {
        self.0.gossip_to(node, message)
    }

    /// Stays connected to these nodes beside the seeds, and forgets those of the last call that are not among them.
    pub fn set_members(&self, members: &[(NodeId, SocketAddr)]) {
        self.0.set_members(members, Instant::now());
    }

    /// Closes the connection of a node that does harm, and refuses the node for ten minutes.
    pub fn expel(&self, node: NodeId, why: &Poison) {
        self.0.expel(node, why);
    }

    /// All peers that are or were known, by id, with their state and the reason.
    pub fn list(&self) -> Vec<Peer> {
        self.0.table.lock().peers()
    }

    /// Calls of peers that were stopped on this node before they had ended, with their streams. They may have run.
    pub fn calls_cut_off(&self) -> u64 {
        self.0.counters.calls_cut_off.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Changes whenever a peer's state does.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.0.changed.subscribe()
    }
}

impl Inspect for Peers {
    fn inspect(&self) -> Details {
        self.0.inspect()
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").field("node", &self.0.me).finish_non_exhaustive()
    }
}

impl AcceptPeer for Peers {
    fn accept_peer(&self, connection: quinn::Connection) {
        self.accept(connection);
    }
}

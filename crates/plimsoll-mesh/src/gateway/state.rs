//! What all connections of one gateway share.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwapOption;
use plimsoll::supervisor::DynamicSupervisorRef;

use super::admission::{AdmittedConnection, ClientAdmission};
use super::byte_budget::ByteBudget;
use super::client_activity::Disconnect;
use super::limits::Limits;
use super::listings::CachedListing;
use super::origin_requests::OriginRequests;
use super::request_counters::RequestCounters;
use super::request_workers::RequestWorkers;
use super::sessions::SessionsHandle;
use crate::events::{EventKind, Events};
use crate::names::NodeId;
use crate::pubsub::Pubsub;
use crate::service::{Dispatch, Overview};

/// Accepts connections of peers.
pub trait AcceptPeer: Send + Sync + 'static {
    /// Accepts `connection`, whose handshake is complete and whose protocol is
    /// [`ALPN_PEER`](crate::identity::ALPN_PEER). Returns at once. The implementation decides whether the peer may stay, and
    /// closes the connection with the reason if not.
    fn accept_peer(&self, connection: quinn::Connection);
}

/// Where a gateway sends its requests, and where it reads the state of the mesh.
#[derive(Clone)]
pub struct Backends {
    /// Serves calls.
    pub dispatch: Arc<dyn Dispatch>,
    /// Lists services and nodes.
    pub overview: Arc<dyn Overview>,
    /// Accepts connections of peers.
    pub peers: Arc<dyn AcceptPeer>,
    /// Records events for the operator.
    pub events: Events,
}

/// The supervisor of the connections.
pub(super) type ConnectionSupervisor = DynamicSupervisorRef<AdmittedConnection>;

/// State that all connections of one gateway share.
pub(super) struct GatewayState {
    pub(super) node: NodeId,
    pub(super) limits: Limits,
    pub(super) admission: ClientAdmission,
    /// Handshakes are begun one at a time.
    pub(super) handshake_turn: tokio::sync::Mutex<()>,
    pub(super) sessions: SessionsHandle,
    pub(super) connections: ArcSwapOption<ConnectionSupervisor>,
    pub(super) requests: RequestCounters,
    pub(super) origins: OriginRequests,
    /// Workers of listings, publications and advertisements.
    pub(super) workers: RequestWorkers,
    /// Workers of subscriptions.
    pub(super) subscriptions: RequestWorkers,
    pub(super) services: CachedListing,
    pub(super) nodes: CachedListing,
    disconnects: [AtomicU64; Disconnect::ALL.len()],
    pub(super) body_bytes: ByteBudget,
    pub(super) response_bytes: ByteBudget,
    pub(super) pubsub: Pubsub,
    pub(super) backends: Backends,
    call_id_prefix: String,
    call_ids: AtomicU64,
}

impl GatewayState {
    pub(super) fn new(node: NodeId, limits: Limits, backends: Backends) -> Self {
        Self {
            node,
            admission: ClientAdmission::new(limits.clients, limits.refusal_responders, &limits.admission),
            handshake_turn: tokio::sync::Mutex::new(()),
            sessions: SessionsHandle::new(
                limits.clients,
                limits.pubsub.subscribers,
                limits.bidi_streams,
                limits.advertisements.clone(),
            ),
            connections: ArcSwapOption::empty(),
            requests: RequestCounters::default(),
            origins: OriginRequests::new(limits.requests_per_origin),
            workers: RequestWorkers::new(limits.workers),
            // The sessions and the topics refuse a subscription too many, with the reason.
            subscriptions: RequestWorkers::new(
                u32::try_from(limits.pubsub.subscribers.get()).unwrap_or(u32::MAX).saturating_mul(2),
            ),
            services: CachedListing::default(),
            nodes: CachedListing::default(),
            disconnects: Default::default(),
            body_bytes: ByteBudget::new("request bodies", limits.all_bodies_bytes),
            response_bytes: ByteBudget::new("responses", limits.all_responses_bytes),
            pubsub: Pubsub::new(limits.pubsub),
            limits,
            backends,
            call_id_prefix: node.short(),
            call_ids: AtomicU64::new(0),
        }
    }

    /// The supervisor of the connections, once it runs.
    pub(super) fn connections(&self) -> Option<Arc<ConnectionSupervisor>> {
        self.connections.load_full()
    }

    /// Closes admission when all connections are being stopped, not when one of them is.
    pub(super) fn close_admission_if_stopping(&self) {
        if self.connections().is_none_or(|connections| connections.count_children().is_err()) {
            self.admission.close();
        }
    }

    /// Counts a client that the gateway disconnects.
    pub(super) fn disconnected(&self, reason: Disconnect) {
        self.disconnects[reason as usize].fetch_add(1, Relaxed);
        self.backends.events.record(EventKind::Refusal, None, &format!("client disconnected: {}", reason.reason()));
    }

    /// Clients that the gateway disconnected, by reason.
    pub(super) fn disconnects(&self) -> impl Iterator<Item = (Disconnect, u64)> {
        Disconnect::ALL.into_iter().zip(&self.disconnects).map(|(reason, count)| (reason, count.load(Relaxed)))
    }

    /// An id for a call whose caller gave none.
    pub(super) fn next_call_id(&self) -> Arc<str> {
        let number = self.call_ids.fetch_add(1, Relaxed);
        // Equal to `format!("{}-{number:x}")`, at a quarter of its cost.
        let mut id = String::with_capacity(self.call_id_prefix.len() + 17);
        id.push_str(&self.call_id_prefix);
        id.push('-');
        let digits = (u64::BITS - number.leading_zeros()).div_ceil(4).max(1);
        id.extend((0..digits).rev().filter_map(|at| char::from_digit((number >> (4 * at)) as u32 & 0xf, 16)));
        id.into()
    }
}

impl fmt::Debug for GatewayState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayState").field("node", &self.node).finish_non_exhaustive()
    }
}

impl fmt::Debug for Backends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backends").finish_non_exhaustive()
    }
}

//! The gateway: where clients come in over HTTP/3.
//!
//! ```text
//! gateway       rest_for_one
//! |- sessions     the clients, their subscriptions and what they advertise: one server, one structure
//! |- listener     one accept loop: door (cap, refusal desk), handshake, which protocol
//! |- connections  dynamic, one actor each
//! |  `- pump        a task that alone drives h3's accept
//! |     `- request    a task that only holds the stream; the work is done behind `Dispatch`
//! `- subscriptions  a task that cuts off subscribers who read too slowly
//! ```
//!
//! The connections come after the listener, so that they are stopped first: while they are served to their end, the listener is there
//! to refuse newcomers.

mod account;
mod admission;
mod advertise;
mod answer;
mod bind;
mod body;
mod budget;
mod connection;
mod desk;
mod fields;
mod keeper;
mod limits;
mod listener;
mod pump;
mod request;
mod requests;
mod routes;
mod sessions;
mod subscribe;
mod within;

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use plimsoll::inspect::{Details, Inspect, Kind};
use plimsoll::supervisor::{ChildSpec, Shutdown, StartError, Strategy, Supervisor, SupervisorBuilder};
use tokio::time::MissedTickBehavior;

use crate::events::Events;
use crate::names::NodeId;
use crate::pubsub::Pubsub;
use crate::service::{Dispatch, Overview};

pub use admission::{AdmissionLimits, Attempts};
pub use bind::bind;
pub use budget::{ADVERTISEMENT_BYTES, BudgetTooSmall, Floor, PLACE_BYTES, SUBSCRIPTION_BYTES};
pub use limits::Limits;
pub use requests::RequestCounts;
pub use sessions::AdvertisementLimits;

/// How often subscribers are looked at that have too much waiting.
const SWEEP: Duration = Duration::from_secs(1);

/// Takes over a connection that turned out to be a peer's.
pub trait AcceptPeer: Send + Sync + 'static {
    /// Takes `connection`, whose handshake is complete and whose protocol is [`ALPN_PEER`](crate::identity::ALPN_PEER). Returns at once; whether
    /// the peer may stay is decided by the peers, who close the connection with the reason if not.
    fn accept_peer(&self, connection: quinn::Connection);
}

/// A gateway. Cloning shares it.
#[derive(Clone)]
pub struct Gateway {
    shared: Arc<Shared>,
    endpoint: quinn::Endpoint,
    server: quinn::ServerConfig,
    grace: Duration,
}

/// What all connections share.
struct Shared {
    node: NodeId,
    limits: Limits,
    door: admission::Door,
    /// The turn to take up a handshake.
    taking_up: tokio::sync::Mutex<()>,
    clients: sessions::Clients,
    connections: ArcSwapOption<connection::Connections>,
    requests: requests::Requests,
    bodies: account::Account,
    answers: account::Account,
    pubsub: Pubsub,
    dispatch: Arc<dyn Dispatch>,
    overview: Arc<dyn Overview>,
    peers: Arc<dyn AcceptPeer>,
    events: Events,
    call_prefix: String,
    calls_named: AtomicU64,
}

/// Where a gateway's requests go, and what it can say about the mesh.
#[derive(Clone)]
pub struct Behind {
    /// Serves calls.
    pub dispatch: Arc<dyn Dispatch>,
    /// Lists services and nodes.
    pub overview: Arc<dyn Overview>,
    /// Takes connections of peers.
    pub peers: Arc<dyn AcceptPeer>,
    /// Keeps what happened.
    pub events: Events,
}

/// Why a gateway ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayError {
    /// The endpoint was closed under it.
    #[error("the endpoint was closed")]
    EndpointClosed,
}

impl Gateway {
    /// A gateway of `node` on `endpoint`. `server` is the TLS side; the limits' transport settings are put into it.
    ///
    /// Nothing is accepted before [`Gateway::supervisor`] is started.
    pub fn new(
        node: NodeId,
        endpoint: quinn::Endpoint,
        mut server: quinn::ServerConfig,
        limits: Limits,
        behind: Behind,
    ) -> Self {
        limits.apply(&mut server);
        let Behind { dispatch, overview, peers, events } = behind;
        let shared = Shared {
            node,
            door: admission::Door::new(limits.clients, limits.desk_places, &limits.admission),
            taking_up: tokio::sync::Mutex::new(()),
            clients: sessions::Clients::new(
                limits.clients,
                limits.pubsub.subscribers,
                limits.bidi_streams,
                limits.advertisements.clone(),
            ),
            connections: ArcSwapOption::empty(),
            requests: requests::Requests::default(),
            bodies: account::Account::new("request bodies", limits.all_bodies_bytes),
            answers: account::Account::new("answers", limits.all_answers_bytes),
            pubsub: Pubsub::new(limits.pubsub),
            limits,
            dispatch,
            overview,
            peers,
            events,
            call_prefix: node.short(),
            calls_named: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared), endpoint, server, grace: Duration::from_secs(5) }
    }

    /// How long requests in flight may take when the gateway stops. Default 5 s.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// The gateway's tree: the sessions, the listener, then the connections.
    ///
    /// Stopped, it says GOAWAY on every connection, serves what is in flight within the grace, answers the rest with 503
    /// `shutting_down`, and closes; newcomers are refused meanwhile. Give it a shutdown of infinity, as a supervisor
    /// has by default: the grace is its own.
    pub fn supervisor(&self) -> SupervisorBuilder {
        Supervisor::builder("gateway")
            .strategy(Strategy::RestForOne)
            .intensity(3, Duration::from_secs(10))
            .child(self.sessions())
            .child(self.listener())
            .child(self.connections())
            .child(self.subscriptions())
    }

    fn sessions(&self) -> ChildSpec {
        let shared = Arc::clone(&self.shared);
        ChildSpec::new("sessions", move |parent| {
            let shared = Arc::clone(&shared);
            async move { shared.clients.start(parent).await }
        })
    }

    fn listener(&self) -> ChildSpec {
        let gateway = self.clone();
        ChildSpec::new("listener", move |parent| {
            let gateway = gateway.clone();
            async move {
                let inspect = Arc::new(gateway.clone());
                keeper::keep(parent, |stop| listener::run(gateway, stop)).await.map(|child| child.inspect(inspect))
            }
        })
    }

    fn connections(&self) -> ChildSpec {
        let gateway = self.clone();
        ChildSpec::new("connections", move |parent| {
            let gateway = gateway.clone();
            async move {
                let child = connection::supervisor(&gateway).start_linked(parent).await?;
                gateway.shared.connections.store(child.value_ref());
                gateway.shared.door.open();
                Ok::<_, StartError>(child)
            }
        })
        .kind(Kind::Supervisor)
        .shutdown(Shutdown::Infinity)
    }

    /// Cuts off subscribers that read too slowly although nothing is published to them.
    fn subscriptions(&self) -> ChildSpec {
        let pubsub = self.shared.pubsub.clone();
        let sweeping = pubsub.clone();
        ChildSpec::task("subscriptions", move |stop| {
            let pubsub = sweeping.clone();
            async move {
                let mut ticks = tokio::time::interval(SWEEP);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                while stop.run_until_cancelled(ticks.tick()).await.is_some() {
                    pubsub.sweep();
                }
                Ok::<_, Infallible>(())
            }
        })
        .inspect(Arc::new(pubsub))
    }

    /// The topics that clients publish and subscribe to.
    pub fn pubsub(&self) -> &Pubsub {
        &self.shared.pubsub
    }

    /// How attempts to connect ended.
    pub fn attempts(&self) -> Attempts {
        self.shared.door.attempts()
    }

    /// Bytes of request bodies held now.
    pub fn body_bytes_held(&self) -> u64 {
        self.shared.bodies.held()
    }

    /// Bytes of answers held now that clients have not acknowledged.
    pub fn answer_bytes_held(&self) -> u64 {
        self.shared.answers.held()
    }

    /// How requests ended.
    pub fn requests(&self) -> RequestCounts {
        self.shared.requests.counts()
    }
}

impl Shared {
    /// The supervisor of the connections, once it runs.
    fn connections(&self) -> Option<Arc<connection::Connections>> {
        self.connections.load_full()
    }

    /// Shuts the door when it is all connections that are being stopped, and not one of them alone.
    fn shut_if_stopping(&self) {
        if self.connections().is_none_or(|connections| connections.count_children().is_err()) {
            self.door.shut();
        }
    }

    /// A name for a call whose caller gave none.
    fn call_id(&self) -> Arc<str> {
        let nth = self.calls_named.fetch_add(1, Relaxed);
        // What `format!("{}-{nth:x}")` gives, at a quarter of its cost.
        let mut id = String::with_capacity(self.call_prefix.len() + 17);
        id.push_str(&self.call_prefix);
        id.push('-');
        let digits = (u64::BITS - nth.leading_zeros()).div_ceil(4).max(1);
        id.extend((0..digits).rev().filter_map(|at| char::from_digit((nth >> (4 * at)) as u32 & 0xf, 16)));
        id.into()
    }
}

impl Inspect for Gateway {
    fn inspect(&self) -> Details {
        let attempts = self.attempts();
        let requests = self.requests();
        let mut counters: std::collections::BTreeMap<String, u64> = [
            ("offered", attempts.offered),
            ("served", attempts.served),
            ("peers", attempts.peers),
            ("told", attempts.told),
            ("turned_away", attempts.turned_away),
            ("failed_handshakes", attempts.failed_handshakes),
            ("deciding", attempts.deciding),
            ("clients", attempts.clients),
            ("clients_high_water", attempts.clients_high_water),
            ("clients_cap", self.shared.limits.clients as u64),
            ("at_desk", attempts.at_desk),
            ("requests_started", requests.started),
            ("requests_in_flight", requests.in_flight),
            ("requests_answered", requests.answered),
            ("requests_left", requests.left),
            ("requests_broken", requests.broken),
            ("requests_panicked", requests.panicked),
        ]
        .map(|(name, count)| (name.to_owned(), count))
        .into();
        self.shared.bodies.add_to("body", &mut counters);
        self.shared.answers.add_to("answer", &mut counters);
        for (code, count) in self.shared.requests.refusals() {
            counters.insert(format!("refused_{}", code.as_str()), count);
        }
        Details { counters, children: Vec::new() }
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("node", &self.shared.node).finish_non_exhaustive()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("node", &self.node).finish_non_exhaustive()
    }
}

impl fmt::Debug for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Behind").finish_non_exhaustive()
    }
}

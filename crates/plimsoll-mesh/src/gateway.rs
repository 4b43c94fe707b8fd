//! The gateway: serves clients over HTTP/3.
//!
//! ```text
//! gateway            rest_for_one
//! |- sessions        a server: the clients, their subscriptions and advertisements
//! |- topics          a server: the filters with their subscribers
//! |- workers         a call server: one actor for each listing, publication and advertisement
//! |- subscriptions   a call server: one actor for each subscription
//! |- listener        a task: the accept loop, admission and handshakes
//! |- connections     dynamic, one actor for each client connection
//! |  `- driver       a task that alone drives h3's accept
//! |     `- request   a task that holds one stream; the work is done in a worker
//! `- monitor         a task that checks every client once a second
//! ```
//!
//! Workers of calls are not listed: they belong to the call server of their service, on the node that serves it.
//!
//! The connections start after the listener, so they stop first: the listener refuses new connections while the existing
//! ones are drained.

mod admission;
mod byte_budget;
mod client_activity;
mod connection_context;
mod connection_driver;
mod connections;
#[cfg(plimsoll_controls)]
mod controls;
mod endpoint;
mod handle_request;
mod handshake;
mod lazy_timeout;
mod limits;
mod linked_task;
mod listener;
mod listings;
mod memory_requirement;
mod origin_requests;
mod refusal_responder;
mod request_body;
mod request_counters;
mod request_failure;
mod request_head;
mod request_workers;
mod response;
mod routes;
mod sessions;
mod state;
mod unacknowledged;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll::inspect::{Details, Inspect, Kind, Metric, Metrics};
use plimsoll::supervisor::{ChildSpec, Shutdown, StartError, Strategy, Supervisor, SupervisorBuilder};
use tokio::time::MissedTickBehavior;

use crate::names::NodeId;
use crate::pubsub::Pubsub;

pub use admission::{AdmissionLimits, Attempts};
pub use endpoint::{bind, bind_first};
pub use limits::Limits;
pub use memory_requirement::{
    ADVERTISEMENT_BYTES, BudgetTooSmall, CONNECTION_BYTES, MemoryRequirement, SUBSCRIPTION_BYTES,
};
pub use request_counters::RequestCounts;
pub use sessions::AdvertisementLimits;
pub use state::{AcceptPeer, Backends};

use request_workers::RequestWorkers;
use state::GatewayState;

/// How often every client is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A gateway. Cloning shares it.
#[derive(Clone)]
pub struct Gateway {
    state: Arc<GatewayState>,
    endpoint: quinn::Endpoint,
    server: quinn::ServerConfig,
    grace: Duration,
}

impl Gateway {
    /// A gateway of `node` on `endpoint`. `server` is the TLS configuration; the transport settings of `limits` are applied
    /// to it.
    ///
    /// Nothing is accepted before [`Gateway::supervisor`] is started.
    pub fn new(
        node: NodeId,
        endpoint: quinn::Endpoint,
        mut server: quinn::ServerConfig,
        limits: Limits,
        backends: Backends,
    ) -> Self {
        #[cfg(plimsoll_controls)]
        let limits = controls::limits(limits);
        limits.apply(&mut server);
        let state = Arc::new(GatewayState::new(node, limits, backends));
        Self { state, endpoint, server, grace: Duration::from_secs(5) }
    }

    /// How long requests in flight may take when the gateway stops. Default 5 s.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// The supervisor of the gateway, with the children that the page of this module lists.
    ///
    /// When it stops, it sends GOAWAY on every connection, serves requests in flight within the grace, responds to the rest
    /// with 503 `shutting_down`, and closes; new connections are refused meanwhile. Give it [`Shutdown::Infinity`], the
    /// default of a supervisor: the grace bounds the stop.
    pub fn supervisor(&self) -> SupervisorBuilder {
        Supervisor::builder("gateway")
            .strategy(Strategy::RestForOne)
            .intensity(3, Duration::from_secs(10))
            .on_event(self.state.backends.events.observer())
            .child(self.sessions())
            .child(self.state.pubsub.child("topics"))
            .child(workers("workers", &self.state.workers))
            .child(workers("subscriptions", &self.state.subscriptions))
            .child(self.listener())
            .child(self.connections())
            .child(self.monitor())
    }

    fn sessions(&self) -> ChildSpec {
        let state = Arc::clone(&self.state);
        ChildSpec::new("sessions", move |parent| {
            let state = Arc::clone(&state);
            async move { state.sessions.start(parent).await }
        })
    }

    fn listener(&self) -> ChildSpec {
        let gateway = self.clone();
        ChildSpec::new("listener", move |parent| {
            let gateway = gateway.clone();
            async move {
                let inspect = Arc::new(gateway.clone());
                let Self { state, endpoint, server, .. } = gateway;
                let child = linked_task::start(parent, |stop| listener::run(state, endpoint, server, stop)).await;
                child.map(|child| child.inspect(inspect))
            }
        })
    }

    fn connections(&self) -> ChildSpec {
        let (state, grace) = (Arc::clone(&self.state), self.grace);
        ChildSpec::new("connections", move |parent| {
            let state = Arc::clone(&state);
            async move {
                let child = connections::supervisor(&state, grace).start_linked(parent).await?;
                state.connections.store(child.value_ref());
                state.admission.open();
                Ok::<_, StartError>(child)
            }
        })
        .kind(Kind::Supervisor)
        .shutdown(Shutdown::Infinity)
    }

    /// Checks every client: address changes and unacknowledged responses.
    fn monitor(&self) -> ChildSpec {
        let state = Arc::clone(&self.state);
        ChildSpec::task("monitor", move |stop| {
            let state = Arc::clone(&state);
            async move {
                let mut ticks = tokio::time::interval(CHECK_INTERVAL);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                while stop.run_until_cancelled(ticks.tick()).await.is_some() {
                    let reset = state.sessions.check_clients(Instant::now(), state.limits.response_timeout);
                    state.requests.unacknowledged(reset);
                }
                Ok(())
            }
        })
    }

    /// The topics that clients publish and subscribe to.
    pub fn pubsub(&self) -> &Pubsub {
        &self.state.pubsub
    }

    /// How connection attempts ended.
    pub fn attempts(&self) -> Attempts {
        self.state.admission.attempts()
    }

    /// Bytes of request bodies held now.
    pub fn body_bytes_held(&self) -> u64 {
        self.state.body_bytes.held()
    }

    /// Bytes of responses held now that clients have not acknowledged.
    pub fn response_bytes_held(&self) -> u64 {
        self.state.response_bytes.held()
    }

    /// How requests ended.
    pub fn requests(&self) -> RequestCounts {
        self.state.requests.counts()
    }
}

fn workers(id: &'static str, workers: &RequestWorkers) -> ChildSpec {
    let workers = workers.clone();
    ChildSpec::new(id, move |parent| {
        let workers = workers.clone();
        async move { workers.start(parent).await }
    })
}

impl Inspect for Gateway {
    fn inspect(&self) -> Details {
        let attempts = self.attempts();
        let requests = self.requests();
        let mut counters = Metrics::from([
            ("offered", Metric::counter(attempts.offered)),
            ("served", Metric::counter(attempts.served)),
            ("peers", Metric::counter(attempts.peers)),
            ("refused_with_reason", Metric::counter(attempts.refused_with_reason)),
            ("refused_without_reason", Metric::counter(attempts.refused_without_reason)),
            ("failed_handshakes", Metric::counter(attempts.failed_handshakes)),
            ("pending", Metric::gauge(attempts.pending)),
            ("clients", Metric::gauge(attempts.clients)),
            ("clients_high_water", Metric::gauge(attempts.clients_high_water)),
            ("clients_cap", Metric::gauge(self.state.limits.clients as u64)),
            ("responding", Metric::gauge(attempts.responding)),
            ("retries", Metric::counter(attempts.retries)),
            ("requests_started", Metric::counter(requests.started)),
            ("requests_in_flight", Metric::gauge(requests.in_flight)),
            ("requests_completed", Metric::counter(requests.completed)),
            ("requests_cancelled", Metric::counter(requests.cancelled)),
            ("requests_failed", Metric::counter(requests.failed)),
            ("requests_panicked", Metric::counter(requests.panicked)),
            ("requests_cut_off", Metric::counter(requests.cut_off)),
            ("requests_unacknowledged", Metric::counter(requests.unacknowledged)),
        ]);
        self.state.body_bytes.add_to("body", &mut counters);
        self.state.response_bytes.add_to("response", &mut counters);
        for (reason, count) in self.state.disconnects() {
            counters.insert(format!("disconnected_{}", reason.name()), Metric::counter(count));
        }
        // The reason of each refusal at admission.
        let admission = self.state.admission.inspect().counters;
        counters.extend(admission.into_iter().map(|(name, metric)| (format!("admission_{name}"), metric)));
        for (code, count) in self.state.requests.refusals() {
            counters.insert(format!("refused_{}", code.as_str()), Metric::counter(count));
        }
        Details { counters, children: Vec::new() }
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("node", &self.state.node).finish_non_exhaustive()
    }
}

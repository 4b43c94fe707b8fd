//! The router: a request is served here, or by a node that offers the service.

use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use futures::future::BoxFuture;
use plimsoll::inspect::{Details, Inspect, Metric};
use plimsoll::supervisor::ChildSpec;

use crate::directory::Directory;
use crate::names::NodeId;
use crate::peers::{Load, Peer, Peers};
use crate::problem::{Code, Problem};
use crate::service::{Caller, Dispatch, Refusal, Request, Response, ServePeer};

use super::failover::{FailedAttempt, more_informative};
use super::provider_choice::{Candidate, Health, ProviderChoice, Rule, take_next};
use super::round_robin::{self, PositionTable};
use crate::services::ServiceTable;

/// Carries calls to other nodes.
pub trait Forward: Send + Sync + 'static {
    /// Calls the service on `node`, by the request's deadline.
    ///
    /// Cancel safe: dropping the future gives the call up there.
    fn forward<'a>(&'a self, node: NodeId, request: &'a Request) -> BoxFuture<'a, Result<Response, Refusal>>;

    /// The load of `node`; `None` when it is not connected.
    fn load(&self, node: &NodeId) -> Option<Load>;

    /// Whether dialling `node` is likely to work.
    fn is_dialable(&self, node: &NodeId) -> bool;

    /// All nodes it knows of, with their state.
    fn list(&self) -> Vec<Peer>;
}

/// The router of a node. Cloning shares it.
#[derive(Clone)]
pub struct Router(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) me: NodeId,
    pub(super) listens: Option<SocketAddr>,
    pub(super) services: ServiceTable,
    pub(super) mesh: Option<Mesh>,
    counters: Counters,
}

/// What a router needs for calls to other nodes.
pub(super) struct Mesh {
    pub(super) directory: Arc<dyn Directory>,
    pub(super) forward: Arc<dyn Forward>,
    choice: ProviderChoice,
    round_robin: Arc<PositionTable>,
    weights: RandomState,
}

/// How requests were routed, since the node started.
#[derive(Debug, Default)]
struct Counters {
    local: AtomicU64,
    remote: AtomicU64,
    for_peers: AtomicU64,
    failed_over: AtomicU64,
    no_provider: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Router {
    /// A router over the services of the node `me` alone. It is what [`Peers`] need to serve other nodes.
    pub fn local(me: NodeId, listens: Option<SocketAddr>, services: ServiceTable) -> Self {
        Self(Arc::new(Inner { me, listens, services, mesh: None, counters: Counters::default() }))
    }

    /// A router that passes requests for services that this node does not offer, by `forward`, to a provider that
    /// `directory` names; of several providers `choice` selects one.
    pub fn meshed(
        me: NodeId,
        listens: Option<SocketAddr>,
        services: ServiceTable,
        directory: Arc<dyn Directory>,
        forward: Arc<dyn Forward>,
        choice: ProviderChoice,
    ) -> Self {
        let (round_robin, weights) = (Arc::default(), RandomState::new());
        let mesh = Some(Mesh { directory, forward, choice, round_robin, weights });
        Self(Arc::new(Inner { me, listens, services, mesh, counters: Counters::default() }))
    }
}

impl Router {
    /// The router as a child of the tree: it keeps the positions of round robin and shows how requests were routed. Calls go
    /// through the router whether it runs or not.
    pub fn child(&self) -> ChildSpec {
        let table = self.0.mesh.as_ref().map_or_else(Arc::default, |mesh| Arc::clone(&mesh.round_robin));
        let inspect = Arc::new(self.clone());
        ChildSpec::new("router", move |parent| round_robin::start_owner(Arc::clone(&table), parent)).inspect(inspect)
    }
}

impl Inner {
    fn no_provider(&self, request: &Request) -> Refusal {
        count(&self.counters.no_provider);
        let detail = format!("no node provides {}", request.service);
        Refusal::never_ran(Problem::new(Code::NoProvider, detail).on(self.me))
    }

    /// Serves the request here: local first.
    async fn serve_here(&self, request: &Request) -> Option<(Result<Response, Refusal>, bool)> {
        let entry = self.services.get(&request.service)?;
        count(&self.counters.local);
        let settled = entry.provider.call(request.clone()).await;
        Some((settled.map_err(|refusal| refusal.on(self.me)), entry.idempotent))
    }

    /// Calls one provider after the other until one replies, or fails in a way that must not be repeated.
    async fn route(&self, request: &Request) -> Result<Response, Refusal> {
        let (mut last, mut attempts) = (None, 0);
        if let Some((settled, idempotent)) = self.serve_here(request).await {
            attempts += 1;
            let refusal = match settled {
                Ok(response) => return Ok(response),
                Err(refusal) => refusal,
            };
            if !self.failed(&refusal, idempotent, attempts, request).try_elsewhere() {
                return Err(refusal);
            }
            last = Some(refusal);
        }
        let Some(mesh) = self.mesh.as_ref().filter(|_| matches!(request.caller, Caller::Client(_))) else {
            return Err(last.unwrap_or_else(|| self.no_provider(request)));
        };
        let mut asked = vec![self.me];
        // Looked up anew each time: providers may have been lost or have joined meanwhile.
        while let Some(chosen) = mesh.choose(request, &asked).await {
            count(if last.is_some() { &self.counters.failed_over } else { &self.counters.remote });
            attempts += 1;
            asked.push(chosen.node);
            let refusal = match mesh.forward.forward(chosen.node, request).await {
                Ok(response) => return Ok(response),
                Err(refusal) => refusal,
            };
            if !self.failed(&refusal, chosen.idempotent, attempts, request).try_elsewhere() {
                return Err(refusal);
            }
            last = Some(more_informative(last, refusal));
        }
        Err(last.unwrap_or_else(|| self.no_provider(request)))
    }

    fn failed<'a>(
        &self,
        refusal: &'a Refusal,
        idempotent: bool,
        attempts: usize,
        request: &Request,
    ) -> FailedAttempt<'a> {
        FailedAttempt { refusal, idempotent, attempts, now: Instant::now(), deadline: request.deadline }
    }
}

impl Mesh {
    /// The provider to call next, of those not called yet.
    async fn choose(&self, request: &Request, asked: &[NodeId]) -> Option<Candidate> {
        let mut candidates = self.candidates(request, asked);
        match self.choice {
            ProviderChoice::PowerOfTwoChoices => {
                take_next(&mut candidates, Rule::PowerOfTwoChoices(&mut |below| rand::random_range(0..below)))
            }
            ProviderChoice::RoundRobin => self.round_robin.of(&request.service).await.take_next(&mut candidates),
            ProviderChoice::Sticky => {
                let weight = |node: &NodeId| self.weights.hash_one((request.caller, &request.service, node));
                take_next(&mut candidates, Rule::HighestWeight(&weight))
            }
        }
    }

    fn candidates(&self, request: &Request, asked: &[NodeId]) -> Vec<Candidate> {
        let providers = self.directory.providers(&request.service);
        let candidate = |provider: crate::directory::Provider| Candidate {
            node: provider.node,
            idempotent: provider.idempotent,
            health: self.health(&provider.node),
        };
        providers.into_iter().filter(|provider| !asked.contains(&provider.node)).map(candidate).collect()
    }

    pub(super) fn health(&self, node: &NodeId) -> Health {
        match self.forward.load(node) {
            Some(load) => Health::Connected { in_flight: load.in_flight, latency: load.latency },
            None if self.forward.is_dialable(node) => Health::Dialable,
            None => Health::Failing,
        }
    }
}

impl Dispatch for Router {
    fn dispatch(&self, request: Request) -> BoxFuture<'_, Result<Response, Problem>> {
        Box::pin(async move { self.0.route(&request).await.map_err(|refusal| refusal.into_problem(self.0.me)) })
    }
}

impl ServePeer for Router {
    fn serve(&self, request: Request) -> BoxFuture<'static, Result<Response, Refusal>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            count(&inner.counters.for_peers);
            match inner.serve_here(&request).await {
                Some((settled, _)) => settled,
                None => Err(inner.no_provider(&request)),
            }
        })
    }
}

impl Forward for Peers {
    fn forward<'a>(&'a self, node: NodeId, request: &'a Request) -> BoxFuture<'a, Result<Response, Refusal>> {
        Box::pin(self.call(node, request))
    }

    fn load(&self, node: &NodeId) -> Option<Load> {
        Peers::load(self, node)
    }

    fn is_dialable(&self, node: &NodeId) -> bool {
        Peers::is_dialable(self, node)
    }

    fn list(&self) -> Vec<Peer> {
        Peers::list(self)
    }
}

impl Inspect for Router {
    fn inspect(&self) -> Details {
        let mut details = Details::default();
        let counters = &self.0.counters;
        for (name, counter) in [
            ("local", &counters.local),
            ("remote", &counters.remote),
            ("for_peers", &counters.for_peers),
            ("failed_over", &counters.failed_over),
            ("no_provider", &counters.no_provider),
        ] {
            details.counters.insert(name, Metric::counter(counter.load(Ordering::Relaxed)));
        }
        if let Some(mesh) = &self.0.mesh {
            details.counters.insert("round_robin_positions", Metric::gauge(mesh.round_robin.len() as u64));
        }
        details
    }
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router").field("node", &self.0.me).finish_non_exhaustive()
    }
}

//! Where every edge ends: a request is served here, or by a node that offers the service.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::BoxFuture;
use plimsoll::inspect::{Details, Inspect};

use crate::names::NodeId;
use crate::problem::{Code, Problem};
use crate::service::{Dispatch, NodeEntry, Overview, Refusal, Request, Response, ServePeer, ServiceEntry};

use super::services::Services;

/// The router of a node. Cloning shares it.
#[derive(Clone)]
pub struct Router(Arc<Inner>);

struct Inner {
    me: NodeId,
    listens: Option<SocketAddr>,
    services: Services,
    counters: Counters,
}

/// How requests were routed, ever since.
#[derive(Debug, Default)]
struct Counters {
    local: AtomicU64,
    for_peers: AtomicU64,
    no_provider: AtomicU64,
}

impl Router {
    /// A router for the node `me` that stands alone.
    pub fn local(me: NodeId, listens: Option<SocketAddr>, services: Services) -> Self {
        Self(Arc::new(Inner { me, listens, services, counters: Counters::default() }))
    }
}

impl Inner {
    fn count(&self, counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn no_provider(&self, request: &Request) -> Problem {
        self.count(&self.counters.no_provider);
        Problem::new(Code::NoProvider, format!("nobody provides {}", request.service)).on(self.me)
    }

    /// Serves the request here, if the service is offered here.
    fn serve_here(&self, request: &Request) -> Option<BoxFuture<'static, Result<Response, Refusal>>> {
        let entry = self.services.get(&request.service)?;
        Some(entry.provider.call(request.clone()))
    }
}

impl Dispatch for Router {
    fn dispatch(&self, request: Request) -> BoxFuture<'_, Result<Response, Problem>> {
        Box::pin(async move {
            let Some(serving) = self.0.serve_here(&request) else { return Err(self.0.no_provider(&request)) };
            self.0.count(&self.0.counters.local);
            serving.await.map_err(|refusal| refusal.problem.on(self.0.me))
        })
    }
}

impl ServePeer for Router {
    fn serve(&self, request: Request) -> BoxFuture<'static, Result<Response, Refusal>> {
        let me = self.0.me;
        let Some(serving) = self.0.serve_here(&request) else {
            let refusal = Refusal::never_ran(self.0.no_provider(&request));
            return Box::pin(async move { Err(refusal) });
        };
        self.0.count(&self.0.counters.for_peers);
        Box::pin(async move { serving.await.map_err(|refusal| refusal.on(me)) })
    }
}

impl Overview for Router {
    fn services(&self) -> Vec<ServiceEntry> {
        let entry = |served: super::Served| ServiceEntry {
            name: served.name,
            providers: vec![self.0.me],
            callable: served.callable,
            idempotent: served.idempotent,
        };
        self.0.services.list().into_iter().map(entry).collect()
    }

    fn nodes(&self) -> Vec<NodeEntry> {
        vec![NodeEntry { id: self.0.me, address: self.0.listens, this: true, state: "up".to_owned(), reason: None }]
    }
}

impl Inspect for Router {
    fn inspect(&self) -> Details {
        let mut details = Details::default();
        let counters = &self.0.counters;
        for (name, counter) in
            [("local", &counters.local), ("for_peers", &counters.for_peers), ("no_provider", &counters.no_provider)]
        {
            details.counters.insert(name.to_owned(), counter.load(Ordering::Relaxed));
        }
        details
    }
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router").field("node", &self.0.me).finish_non_exhaustive()
    }
}

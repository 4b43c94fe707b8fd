//! The `Request -> Response` trait through which the gateway and the peers hand over calls.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::names::{NodeId, ServiceName};
use crate::problem::Problem;

pub use crate::problem::ApplicationError;

/// One call, from a client or a peer.
#[derive(Debug, Clone)]
pub struct Request {
    /// The service called.
    pub service: ServiceName,
    /// The whole body; its size was checked against the cap on arrival.
    pub body: Bytes,
    /// The body's media type, as the caller gave it.
    pub content_type: Option<Arc<str>>,
    /// When the caller stops waiting. It is never extended on the way.
    pub deadline: Instant,
    /// The id of this call, for logs on every node that handles it.
    pub call_id: Arc<str>,
    /// W3C trace context, passed on unchanged.
    pub traceparent: Option<Arc<str>>,
    /// The authenticated caller.
    pub caller: Caller,
}

/// The caller of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Caller {
    /// A client of this node's gateway, by the number of its connection.
    Client(u64),
    /// Another node. Its requests are served here or not at all: no call makes a third hop.
    Peer(NodeId),
}

/// A served call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Media type of the body.
    pub content_type: Arc<str>,
    /// The body.
    pub body: Bytes,
}

/// Serves requests: the router of a node.
pub trait Dispatch: Send + Sync + 'static {
    /// Serves one request by its deadline.
    ///
    /// Cancel safe: dropping the future cancels the call, here and on the node that serves it.
    fn dispatch(&self, request: Request) -> BoxFuture<'_, Result<Response, Problem>>;
}

/// A failed call, and whether another node may serve it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The problem for the caller.
    pub problem: Problem,
    /// The call certainly never ran: it may be tried elsewhere without running twice.
    pub never_ran: bool,
}

impl Refusal {
    /// A refusal before a worker was started.
    pub fn never_ran(problem: Problem) -> Self {
        Self { problem, never_ran: true }
    }

    /// A failure after which the service may have run.
    pub fn may_have_run(problem: Problem) -> Self {
        Self { problem, never_ran: false }
    }

    /// The problem for the caller: it names `node`, unless another is named already, and says whether the call may have run.
    pub fn into_problem(self, node: NodeId) -> Problem {
        let mut problem = self.problem.on(node);
        problem.may_have_run = !self.never_ran;
        problem
    }

    /// Names the node, unless an earlier one is named already.
    #[must_use]
    pub fn on(self, node: NodeId) -> Self {
        Self { problem: self.problem.on(node), never_ran: self.never_ran }
    }
}

/// Serves the calls of other nodes: the local half of a router.
pub trait ServePeer: Send + Sync + 'static {
    /// Serves a call here or not at all: no call makes a third hop.
    ///
    /// Cancel safe: dropping the future cancels the call and stops its worker.
    fn serve(&self, request: Request) -> BoxFuture<'static, Result<Response, Refusal>>;
}

/// A service of the mesh, as `GET /v1/services` lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceEntry {
    /// Its name.
    pub name: ServiceName,
    /// The nodes that provide it.
    pub providers: Vec<NodeId>,
    /// Whether a call can reach a provider now.
    pub callable: bool,
    /// Whether every provider declares that a call may run twice.
    pub idempotent: bool,
}

/// A node of the mesh, as `GET /v1/nodes` lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEntry {
    /// Its identity.
    pub id: NodeId,
    /// Where its endpoint is, if known.
    pub address: Option<std::net::SocketAddr>,
    /// Whether this is the responding node.
    pub this: bool,
    /// `up`, `connecting`, `suspect`, `down` or `refused`.
    pub state: String,
    /// Why it is not up.
    pub reason: Option<String>,
}

/// The state of the mesh as a node knows it, readable at any time without a message to an actor.
pub trait Overview: Send + Sync + 'static {
    /// A number that differs whenever the services or nodes may have changed in a way that a listing must show at once. What
    /// has no version, such as the state of another node, is shown at most 250 ms late. Default: always the same.
    fn version(&self) -> u64 {
        0
    }
    /// All services, sorted by name.
    fn services(&self) -> Vec<ServiceEntry>;
    /// All nodes, this one first.
    fn nodes(&self) -> Vec<NodeEntry>;
}

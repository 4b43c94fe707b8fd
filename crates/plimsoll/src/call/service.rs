//! What a call server serves, and the context of one call.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorCell, ActorId};
use tokio::time::Instant;

use super::counters::MethodTimings;
use super::{CallClient, Protocol};
use crate::inspect::Metrics;
use crate::supervisor::StopDeadline;

/// Work that is done call by call, each call in a worker of its own.
///
/// A service has no `&mut self`: calls run side by side. What a call builds up is dropped with its worker, so that nothing of
/// it stays in a long-lived process. State that calls share belongs behind the service's own lock, or in an actor.
///
/// ```
/// use plimsoll::call::{CallContext, Service};
///
/// struct Length;
///
/// impl Service for Length {
///     type Request = String;
///     type Reply = usize;
///     type Error = std::convert::Infallible;
///
///     async fn call(&self, _: CallContext, request: String) -> Result<usize, Self::Error> {
///         Ok(request.len())
///     }
/// }
/// ```
pub trait Service: Send + Sync + 'static {
    /// What a caller sends.
    type Request: Send + 'static;
    /// What it gets.
    type Reply: Send + 'static;
    /// What it gets instead: reaches the caller as [`CallError::App`](super::CallError::App).
    type Error: Send + 'static;

    /// Serves one call.
    ///
    /// A panic ends this call alone, as [`Died::Exit`](super::Died::Exit) with the message. When the call ends otherwise
    /// first (deadline, caller exit, server stop), this future is dropped where it awaits.
    fn call(
        &self,
        ctx: CallContext,
        request: Self::Request,
    ) -> impl Future<Output = Result<Self::Reply, Self::Error>> + Send;

    /// The name under which a request is counted and timed. Default: `call` for all.
    fn method(_request: &Self::Request) -> &'static str {
        "call"
    }
}

impl<S: Service> Service for Arc<S> {
    type Request = S::Request;
    type Reply = S::Reply;
    type Error = S::Error;

    fn call(
        &self,
        ctx: CallContext,
        request: Self::Request,
    ) -> impl Future<Output = Result<Self::Reply, Self::Error>> + Send {
        S::call(self, ctx, request)
    }

    fn method(request: &Self::Request) -> &'static str {
        S::method(request)
    }
}

/// The surroundings of one call: its deadline, its caller, the actor that serves it.
#[derive(Clone)]
pub struct CallContext {
    pub(crate) deadline: Instant,
    pub(crate) worker: Option<ActorCell>,
    pub(crate) caller: Option<ActorId>,
    /// Identifies the server that this call runs in, and the call within it.
    pub(crate) server: usize,
    pub(crate) call: u64,
}

impl CallContext {
    /// When this call ends with a time-out, if nothing ends it earlier.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The time that is left, zero when there is none.
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// The actor that serves this call, to which further actors can be linked; `None` under
    /// [`Worker::Task`](super::Worker::Task).
    pub fn worker(&self) -> Option<&ActorCell> {
        self.worker.as_ref()
    }

    /// The actor that the caller was bound to, if it was.
    pub fn caller(&self) -> Option<ActorId> {
        self.caller
    }

    /// `client` for calls made on behalf of this one: their deadline is never later than this call's, and they are
    /// bound to the worker, if that is an actor.
    #[must_use]
    pub fn client<P: Protocol>(&self, client: &CallClient<P>) -> CallClient<P> {
        let client = client.with_deadline(self.deadline).inside(self.server, self.call);
        match &self.worker {
            Some(worker) => client.bind(worker),
            None => client,
        }
    }
}

impl fmt::Debug for CallContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallContext")
            .field("deadline", &self.deadline)
            .field("worker", &self.worker.as_ref().map(ActorCell::get_id))
            .field("caller", &self.caller)
            .finish()
    }
}

/// The host of a [`Service`]: the service itself.
#[doc(hidden)]
#[derive(Debug)]
pub struct ServiceHost<S> {
    pub(crate) service: S,
    pub(crate) timings: MethodTimings,
    pub(crate) stop_deadline: StopDeadline,
    /// Each call runs in it: it carries the server's path in its tree.
    pub(crate) span: tracing::Span,
}

impl<S: Service> Protocol for S {
    type Request = S::Request;
    type Reply = S::Reply;
    type Error = S::Error;
    type Message = std::convert::Infallible;
    type Host = ServiceHost<S>;
    const IN_TURN: bool = false;

    fn stop_deadline(host: &ServiceHost<S>) -> StopDeadline {
        host.stop_deadline.clone()
    }

    fn describe(host: &ServiceHost<S>, metrics: &mut Metrics) {
        host.timings.describe(metrics);
    }
}

//! What a call server serves.

use std::future::Future;
use std::sync::Arc;

use super::CallContext;

/// Work that is done call by call, each call in a worker of its own.
///
/// A service has no `&mut self`: calls run side by side. What a call builds up dies with its worker, so that nothing of
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
    /// first (deadline, caller gone, server stopped), this future is dropped where it awaits.
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

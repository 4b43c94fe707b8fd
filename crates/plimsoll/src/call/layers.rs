//! A client as a `tower` service, so that tower's layers apply.

use std::task::{Context, Poll};

use super::{CallClient, CallError, Calling, Protocol};

/// Always ready: a server that is full says so in the call's outcome, at once.
impl<P: Protocol> tower_service::Service<P::Request> for CallClient<P> {
    type Response = P::Reply;
    type Error = CallError<P::Error>;
    type Future = Calling<P>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: P::Request) -> Self::Future {
        CallClient::call(self, request)
    }
}

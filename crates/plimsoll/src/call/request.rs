//! Calls without waiting in place, and calls to many.

use std::task::Waker;

use futures::future::join_all;
use ractor::{ActorRef, Message};
use tokio::time::Instant;

use super::shared::Settled;
use super::{CallClient, CallError, Protocol};

impl<P: Protocol> CallClient<P> {
    /// Calls without waiting: the outcome arrives at `to` as the message that `map` makes of it. The call is bound to
    /// that actor and ends with it.
    ///
    /// # Errors
    /// Refusals at the door, at once; then no message comes.
    ///
    /// # Panics
    /// Outside a tokio runtime; the call is given up then.
    ///
    /// Cost: a call and a small task.
    pub fn request<M: Message>(
        &self,
        request: P::Request,
        to: &ActorRef<M>,
        map: impl FnOnce(Settled<P>) -> M + Send + 'static,
    ) -> Result<(), CallError<P::Error>> {
        let mut calling = self.bind(&to.get_cell()).unawaited().call(request);
        calling.start(Waker::noop())?;
        let to = to.clone();
        tokio::spawn(async move {
            // A receiver that has gone meanwhile has no use for the answer.
            let _ = to.send_message(map(calling.await));
        });
        Ok(())
    }
}

/// Calls all of `clients` with the same request and one deadline. The outcomes are in the order of the clients; those that
/// are too slow are [`CallError::Timeout`].
///
/// Cancel safe: dropping the future gives all of the calls up.
pub async fn multi_call<P: Protocol>(
    clients: &[CallClient<P>],
    request: P::Request,
    deadline: impl Into<Instant>,
) -> Vec<Settled<P>>
where
    P::Request: Clone,
{
    let deadline = deadline.into();
    join_all(clients.iter().map(|client| client.call_by(request.clone(), deadline))).await
}

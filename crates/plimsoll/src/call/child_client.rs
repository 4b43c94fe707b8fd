//! Clients of children, which survive the restarts of their server.

use ractor::{ActorId, Message};

use super::shared::Notified;
use super::{CallClient, Protocol};
use crate::supervisor::{ChildError, ChildHandle, DynamicSupervisorRef, HandleError, SupervisorRef};

impl SupervisorRef {
    /// A client of the child with this id or path (as of [`child_handle`](Self::child_handle)), a
    /// [`CallServer`](crate::call::CallServer) that serves `P`. It survives restarts of the child and of the supervisors
    /// above it. For a [`GenServer`](crate::server::GenServer) use [`server_ref`](Self::server_ref).
    ///
    /// The counterpart of a registered name in OTP (`gen_server:call(name, ..)`), with these differences:
    /// - The name is a path below a supervisor and need not be unique in the program. Requests and replies have types.
    /// - A restart in progress is [`CallError::Restarting`](crate::call::CallError::Restarting), and no `noproc`; with
    ///   [`wait_for_restart`](CallClient::wait_for_restart) a call waits for it until its deadline. A child that is gone, or
    ///   stopped until it is restarted by hand, is [`Died::NoProcess`](crate::call::Died::NoProcess).
    /// - A request reaches one incarnation at most: one that an incarnation did not admit may go to its successor; a call
    ///   that was admitted ends with its incarnation, as [`Died::Exit`](crate::call::Died::Exit).
    /// - The name is resolved per call, without a lock; it belongs to this child. Another child that is added under the same
    ///   id later is not found by it.
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use std::time::Duration;
    /// use plimsoll::BoxError;
    /// use plimsoll::call::{CallContext, CallServer, Service};
    /// use plimsoll::supervisor::{Child, ChildSpec, Supervisor};
    ///
    /// struct Double;
    ///
    /// impl Service for Double {
    ///     type Request = u32;
    ///     type Reply = u32;
    ///     type Error = Infallible;
    ///
    ///     async fn call(&self, _: CallContext, n: u32) -> Result<u32, Infallible> {
    ///         Ok(2 * n)
    ///     }
    /// }
    ///
    /// # #[tokio::main] async fn main() -> Result<(), BoxError> {
    /// let double = ChildSpec::new("double", |parent| async {
    ///     CallServer::builder(Double).start_linked(parent).await.map(Child::from)
    /// });
    /// let tree = Supervisor::builder("top").child(double).start().await?;
    /// let double = tree.call_client::<Double>("double")?.wait_for_restart();
    /// assert_eq!(double.call(21).await?, 42);
    /// tree.child("double")?.actor().stop_and_wait(None, None).await?;
    /// assert_eq!(double.call_timeout(4, Duration::from_secs(1)).await?, 8);
    /// tree.stop().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// Cost of a call: a few atomic operations more than through a client of one incarnation.
    ///
    /// # Errors
    /// [`ChildError::NotFound`] when there is no such child, running or not; [`ChildError::WrongType`] when it runs and is no
    /// server of `P`; [`ChildError::ShuttingDown`].
    pub fn call_client<P: Protocol>(&self, path: &str) -> Result<CallClient<P>, ChildError> {
        checked(self.child_handle::<Notified>(path)?.call_client())
    }
}

impl<A: Send + 'static> DynamicSupervisorRef<A> {
    /// A client of the child that runs as this actor, a [`CallServer`](crate::call::CallServer) that serves `P`. It survives
    /// restarts of the child; see [`SupervisorRef::call_client`].
    ///
    /// # Errors
    /// [`ChildError::NotFound`], [`ChildError::WrongType`] when it is no server of `P`, [`ChildError::ShuttingDown`].
    pub fn call_client<P: Protocol>(&self, actor: ActorId) -> Result<CallClient<P>, ChildError> {
        checked(self.child_handle::<Notified>(actor)?.call_client())
    }
}

impl<M: Message> ChildHandle<M> {
    /// A client of this child, a server whose start handed over its client (a
    /// [`StartedServer`](crate::call::StartedServer) as a [`Child`](crate::supervisor::Child) does). For a child that is no
    /// server of `P` every call is [`Died::NoProcess`](crate::call::Died::NoProcess). See [`SupervisorRef::call_client`].
    pub fn call_client<P: Protocol>(&self) -> CallClient<P> {
        CallClient::of_child(self.place().clone())
    }
}

/// Rejects a client of a child that is known to be something else.
fn checked<P: Protocol>(client: CallClient<P>) -> Result<CallClient<P>, ChildError> {
    match client.target().incarnation() {
        Err(HandleError::WrongType) => Err(ChildError::WrongType),
        _ => Ok(client),
    }
}

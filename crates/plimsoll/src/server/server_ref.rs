//! Clients of a server: casts, and clients of children, which survive the restarts of their server.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ractor::{ActorId, Message};
use tokio::time::Instant;

use super::GenServer;
use super::protocol::{ServerMessage, ServerProtocol};
use crate::call::shared::{Item, Shared};
use crate::call::target::Target;
use crate::call::{CallClient, CallError, Died, Overload};
use crate::supervisor::{ChildError, ChildHandle, DynamicSupervisorRef, HandleError, SupervisorRef};

/// A client of the server `S`: calls and casts.
pub type ServerRef<S> = CallClient<ServerProtocol<S>>;

/// Why a cast was refused. Nothing else happens: a sender may ignore it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CastError {
    /// The server's mailbox is full.
    #[error(transparent)]
    Overloaded(#[from] Overload),
    /// The server is stopping.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The child that a client from a child handle sends to is being restarted.
    #[error("the server is restarting")]
    Restarting,
    /// There is no such process.
    #[error("no process")]
    NoProcess,
}

type SharedServer<S> = Arc<Shared<ServerProtocol<S>>>;

/// A cast that was not admitted.
struct NotCast<S: GenServer> {
    error: CastError,
    cast: S::Cast,
    /// The incarnation that refused it, because it has ended or is stopping.
    refused: Option<SharedServer<S>>,
}

impl<S: GenServer> CallClient<ServerProtocol<S>> {
    /// Sends a cast: into the server's mailbox, or not at all.
    ///
    /// Calls and casts of one sender to one incarnation arrive in the order in which they were sent. An admitted cast is
    /// dropped and counted when the server fails or is killed before it handles it.
    ///
    /// # Errors
    /// [`CastError`]: the mailbox is full, or the server is stopping, is being restarted or has ended.
    pub fn cast(&self, cast: S::Cast) -> Result<(), CastError> {
        self.cast_now(cast).map_err(|not_cast| not_cast.error)
    }

    /// Sends a cast to the incarnation of a child that runs, or to the next one when there is none within this time. Through
    /// a client of one incarnation the same as [`cast`](Self::cast).
    ///
    /// # Errors
    /// [`CastError`], with [`CastError::Restarting`] when the time is over.
    ///
    /// Cancel safe: a caller that gives up has sent nothing.
    pub async fn cast_within(&self, cast: S::Cast, limit: Duration) -> Result<(), CastError> {
        let now = Instant::now();
        let deadline = now.checked_add(limit);
        let mut cast = cast;
        loop {
            let not_cast = match self.cast_now(cast) {
                Ok(()) => return Ok(()),
                Err(not_cast) => not_cast,
            };
            let Target::Child(child) = self.target() else { return Err(not_cast.error) };
            let over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if over || !matches!(not_cast.error, CastError::Restarting | CastError::ShuttingDown) {
                return Err(not_cast.error);
            }
            cast = not_cast.cast;
            Arc::clone(child).wait(not_cast.refused, deadline.unwrap_or(now + FAR), None).await;
        }
    }

    fn cast_now(&self, mut cast: S::Cast) -> Result<(), NotCast<S>> {
        let child = match self.target() {
            Target::Incarnation(shared) => {
                let sent = cast_to(shared, cast);
                return sent.map_err(|(error, cast)| {
                    shared.gauges.casts_refused.fetch_add(1, Ordering::Relaxed);
                    NotCast { error, cast, refused: None }
                });
            }
            Target::Child(child) => child,
        };
        let mut refused: Option<(SharedServer<S>, CastError)> = None;
        loop {
            let shared = match child.incarnation() {
                Ok(shared) => shared,
                Err(error) => {
                    let error = match error {
                        HandleError::Restarting => CastError::Restarting,
                        HandleError::NoProcess | HandleError::WrongType => CastError::NoProcess,
                    };
                    return Err(NotCast { error, cast, refused: None });
                }
            };
            if let Some((before, error)) = refused
                && Arc::ptr_eq(&before, &shared)
            {
                // It has ended or is stopping, and its supervisor has yet to publish what follows.
                shared.gauges.casts_refused.fetch_add(1, Ordering::Relaxed);
                return Err(NotCast { error, cast, refused: Some(shared) });
            }
            let (error, back) = match cast_to(&shared, cast) {
                Ok(()) => return Ok(()),
                Err(rejected) => rejected,
            };
            let error = match error {
                CastError::NoProcess => CastError::Restarting,
                CastError::ShuttingDown => CastError::ShuttingDown,
                error => {
                    shared.gauges.casts_refused.fetch_add(1, Ordering::Relaxed);
                    return Err(NotCast { error, cast: back, refused: None });
                }
            };
            (cast, refused) = (back, Some((shared, error)));
        }
    }
}

/// Stands in for a time that the clock cannot express: 30 years.
const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);

/// Sends a cast to one incarnation.
fn cast_to<S: GenServer>(shared: &SharedServer<S>, cast: S::Cast) -> Result<(), (CastError, S::Cast)> {
    let taken = match shared.check_admission() {
        Err(CallError::Died(Died::NoProcess)) => Err(CastError::NoProcess),
        Err(_) => Err(CastError::ShuttingDown),
        Ok(()) => shared.gate.try_acquire(0).map_err(|refused| shared.overload(refused, 0).into()),
    };
    match taken {
        Ok(()) => {
            shared.gauges.casts.fetch_add(1, Ordering::Relaxed);
            shared.submit(Item::Cast(ServerMessage::Cast(cast)));
            Ok(())
        }
        Err(error) => Err((error, cast)),
    }
}

impl SupervisorRef {
    /// A client of the child with this id or path (as of [`child_handle`](Self::child_handle)), a
    /// [`GenServer`] or [`Server`](super::Server). It survives restarts of the child and of the supervisors above it; calls
    /// and casts while there is no incarnation are `Restarting`, or wait with
    /// [`wait_for_restart`](CallClient::wait_for_restart) and [`cast_within`](CallClient::cast_within). See
    /// [`call_client`](Self::call_client) for the differences from OTP's registered names.
    ///
    /// ```
    /// use plimsoll::BoxError;
    /// use plimsoll::server::{self, Context, Server};
    /// use plimsoll::supervisor::{Child, ChildSpec, Supervisor};
    ///
    /// struct Counter(u64);
    ///
    /// impl Server for Counter {
    ///     type Call = u64;
    ///     type Reply = u64;
    ///
    ///     async fn call(&mut self, add: u64, _: &mut Context<Self>) -> Result<u64, BoxError> {
    ///         self.0 += add;
    ///         Ok(self.0)
    ///     }
    /// }
    ///
    /// # #[tokio::main] async fn main() -> Result<(), BoxError> {
    /// let counter = ChildSpec::new("counter", |parent| async {
    ///     server::builder(Counter(0)).start_linked(parent).await.map(Child::from)
    /// });
    /// let tree = Supervisor::builder("top").child(counter).start().await?;
    /// let counter = tree.server_ref::<Counter>("counter")?.wait_for_restart();
    /// assert_eq!(counter.call(40).await?, 40);
    /// tree.child("counter")?.actor().stop_and_wait(None, None).await?;
    /// assert_eq!(counter.call(2).await?, 2, "its successor starts anew");
    /// tree.stop().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`call_client`](Self::call_client).
    pub fn server_ref<S: GenServer>(&self, path: &str) -> Result<ServerRef<S>, ChildError> {
        self.call_client(path)
    }
}

impl<A: Send + 'static> DynamicSupervisorRef<A> {
    /// A client of the child that runs as this actor, a [`GenServer`] or [`Server`](super::Server). It survives restarts of
    /// the child; see [`SupervisorRef::server_ref`].
    ///
    /// # Errors
    /// As [`call_client`](Self::call_client).
    pub fn server_ref<S: GenServer>(&self, actor: ActorId) -> Result<ServerRef<S>, ChildError> {
        self.call_client(actor)
    }
}

impl<M: Message> ChildHandle<M> {
    /// A client of this child, a [`GenServer`] or [`Server`](super::Server); see [`SupervisorRef::server_ref`] and
    /// [`call_client`](Self::call_client).
    pub fn server_ref<S: GenServer>(&self) -> ServerRef<S> {
        self.call_client()
    }
}

//! The caller's side: clients.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::future::join_all;
use ractor::{ActorCell, ActorRef, Message};
use tokio::time::Instant;

use super::call_table::AdmissionState;
use super::calling::{CallOptions, Calling};
use super::shared::{Settled, Shared};
use super::target::{BoundCaller, ChildTarget, Target};
use super::{CallError, OnCallerExit, Protocol};
use crate::supervisor::{ChildPlace, ChildRef};

/// Stands in for a deadline that the clock cannot express: 30 years.
const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);

/// A client of a [`CallServer`](super::CallServer) or, as a [`ServerRef`](crate::server::ServerRef), of a
/// [`GenServer`](crate::server::GenServer). Cheap to clone; it does not keep the server alive.
///
/// A client from a started server belongs to one incarnation: once that has ended every call is
/// [`Died::NoProcess`](super::Died::NoProcess), and no successor ever replies to a call. A client from a supervisor
/// ([`SupervisorRef::call_client`](crate::supervisor::SupervisorRef::call_client)) or from a
/// [`ChildHandle`](crate::supervisor::ChildHandle) belongs to the child: each call goes to the incarnation that runs.
pub struct CallClient<P: Protocol> {
    target: Target<P>,
    /// No call of this client has a later deadline.
    latest: Option<Instant>,
    caller: Option<BoundCaller<P>>,
    /// Whether the bound actor itself waits for the replies.
    awaited: bool,
    /// The server whose worker makes these calls, and the worker.
    worker: Option<(usize, u64)>,
    /// `None`: as the server was built.
    on_caller_exit: Option<OnCallerExit>,
    /// Whether calls wait for an incarnation while there is none.
    waits: bool,
}

impl<P: Protocol> CallClient<P> {
    pub(crate) fn new(shared: Arc<Shared<P>>) -> Self {
        Self::to(Target::Incarnation(shared))
    }

    /// A client of the child at this place.
    pub(crate) fn of_child(place: Arc<ChildPlace>) -> Self {
        let child = ChildTarget::new(place, |child: &ChildRef| {
            match &child.value_as::<Self>()?.target {
                Target::Incarnation(shared) => Some(shared),
                // A child hands over the client of its own server.
                Target::Child(_) => None,
            }
        });
        Self::to(Target::Child(Arc::new(child)))
    }

    fn to(target: Target<P>) -> Self {
        Self { target, latest: None, caller: None, awaited: true, worker: None, on_caller_exit: None, waits: false }
    }

    pub(crate) fn target(&self) -> &Target<P> {
        &self.target
    }

    /// Calls with the server's default deadline.
    ///
    /// # Errors
    /// Every end but a reply, see [`CallError`]. A refusal comes at once and costs no allocation.
    ///
    /// Cancel safe: dropping the future settles the call as cancelled, frees everything kept for it and stops its
    /// worker where that awaits.
    ///
    /// Cost: one allocation for the call, and the worker's own.
    pub fn call(&self, request: P::Request) -> Calling<P> {
        let now = Instant::now();
        let deadline = now.checked_add(self.target.default_deadline()).unwrap_or(now + FAR);
        self.calling(request, deadline, Some(now))
    }

    /// Calls with a deadline of its own (tokio's instant or `std`'s).
    ///
    /// # Errors
    /// As [`call`](Self::call); a deadline that has passed is [`CallError::Timeout`] at once, and nothing runs.
    ///
    /// Cancel safe: as [`call`](Self::call).
    pub fn call_by(&self, request: P::Request, deadline: impl Into<Instant>) -> Calling<P> {
        self.calling(request, deadline.into(), None)
    }

    /// Calls with a deadline `timeout` from now.
    ///
    /// # Errors
    /// As [`call_by`](Self::call_by).
    ///
    /// Cancel safe: as [`call`](Self::call).
    pub fn call_timeout(&self, request: P::Request, timeout: Duration) -> Calling<P> {
        let now = Instant::now();
        self.calling(request, now.checked_add(timeout).unwrap_or(now + FAR), None)
    }

    /// A call that is made at its first poll. `now` is the time if it is known, so that it need not be looked up again.
    fn calling(&self, request: P::Request, deadline: Instant, now: Option<Instant>) -> Calling<P> {
        let late = |latest: Instant| latest <= now.unwrap_or_else(Instant::now);
        let (deadline, late) = match (self.latest, now) {
            (Some(latest), _) if latest < deadline => (latest, late(latest)),
            (_, Some(_)) => (deadline, false),
            (_, None) => (deadline, late(deadline)),
        };
        let Self { awaited, waits, on_caller_exit, worker, .. } = *self;
        let options = CallOptions { deadline, late, awaited, waits, on_caller_exit, worker };
        Calling::new(self.target.clone(), request, options, self.caller.clone())
    }

    /// This client, with no deadline later than `latest`.
    #[must_use]
    pub fn with_deadline(&self, latest: impl Into<Instant>) -> Self {
        let latest = latest.into();
        let latest = Some(self.latest.map_or(latest, |before| before.min(latest)));
        Self { latest, ..self.clone() }
    }

    /// This client, bound to `actor`: when the actor exits, for any reason, the calls of this client are cancelled, also
    /// those that were moved to other tasks (see [`on_caller_exit`](Self::on_caller_exit)).
    ///
    /// However many clients are bound to one actor, the server monitors it once, while one of them exists. While
    /// a call waits for its reply the actor counts as waiting for the server: a cycle of such waits is
    /// [`CallError::Deadlock`] at once. See [`unawaited`](Self::unawaited) for calls that the actor itself does not await.
    #[must_use]
    pub fn bind(&self, actor: &ActorCell) -> Self {
        let caller = Some(BoundCaller::new(&self.target, actor));
        Self { caller, ..self.clone() }
    }

    /// This client, whose calls wait until their deadline for an incarnation while the child is being restarted. Without
    /// this they end as [`CallError::Restarting`] at once. Changes nothing for a client of one incarnation.
    ///
    /// A wait for a restart is never part of a cycle of waits: it ends by its deadline, as `Restarting`.
    #[must_use]
    pub fn wait_for_restart(&self) -> Self {
        Self { waits: true, ..self.clone() }
    }

    /// This client, for calls that are cancelled or finish when their caller leaves. Default: as the server was built.
    #[must_use]
    pub fn on_caller_exit(&self, on_caller_exit: OnCallerExit) -> Self {
        Self { on_caller_exit: Some(on_caller_exit), ..self.clone() }
    }

    /// This client, for calls whose reply the bound actor does not wait for in its own handler, because another task does:
    /// they are never part of a cycle.
    #[must_use]
    pub fn unawaited(&self) -> Self {
        Self { awaited: false, ..self.clone() }
    }

    /// This client, for calls that this worker of this server makes.
    pub(crate) fn inside(mut self, server: usize, worker: u64) -> Self {
        self.worker = Some((server, worker));
        self
    }

    /// Calls without waiting: the outcome arrives at `to` as the message that `map` makes of it. The call is bound to
    /// that actor and ends with it.
    ///
    /// # Errors
    /// Refusals, at once; then no message comes.
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
            // A receiver that has exited meanwhile has no use for the reply.
            let _ = to.send_message(map(calling.await));
        });
        Ok(())
    }

    /// Releases unused capacity of the server's tables when they are more than `factor` times as large as needed. Returns
    /// the bytes released. O(table), under the table's lock.
    pub fn compact(&self, factor: usize) -> usize {
        self.target.incarnation().map_or(0, |shared| shared.compact(factor))
    }

    /// Whether the server still admits calls; `false` while there is no incarnation.
    pub fn is_open(&self) -> bool {
        self.target.incarnation().is_ok_and(|shared| shared.admission() == AdmissionState::Open)
    }
}

impl<P: Protocol> Clone for CallClient<P> {
    fn clone(&self) -> Self {
        let Self { latest, awaited, worker, on_caller_exit, waits, .. } = *self;
        let (target, caller) = (self.target.clone(), self.caller.clone());
        Self { target, latest, caller, awaited, worker, on_caller_exit, waits }
    }
}

impl<P: Protocol> fmt::Debug for CallClient<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallClient")
            .field("latest", &self.latest)
            .field("bound_to", &self.caller.as_ref().map(|caller| caller.actor().get_id()))
            .finish_non_exhaustive()
    }
}

/// A client as a `tower` service, so that tower's layers apply. Always ready: a full server refuses the call at once.
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

//! The caller's side: clients, and calls as futures.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::future::join_all;
use plimsoll_sync::permits::Place;
use ractor::{ActorCell, ActorRef, Message};
use tokio::time::Instant;

use super::admission::OwnWait;
use super::call_table::AdmissionState;
use super::caller_exit::Binding;
use super::settlement::{Call, Settled};
use super::shared::{Item, Shared};
use super::{CallError, OnCallerExit, Protocol};
use crate::wait_graph::WaitEdge;

/// Stands in for a deadline that the clock cannot express: 30 years.
const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);

/// A client of one running [`CallServer`](super::CallServer) or, as a [`ServerRef`](crate::server::ServerRef), of a
/// [`GenServer`](crate::server::GenServer). Cheap to clone; it does not keep the server
/// alive.
///
/// A client belongs to one incarnation of its server: once that has ended every call is
/// [`Died::NoProcess`](super::Died::NoProcess), and no successor ever replies to a call.
pub struct CallClient<P: Protocol> {
    pub(crate) shared: Arc<Shared<P>>,
    /// No call of this client has a later deadline.
    latest: Option<Instant>,
    binding: Option<Arc<Binding<P>>>,
    /// Whether the bound actor itself waits for the replies.
    awaited: bool,
    /// The worker of this very server that makes these calls, if one does.
    inside: Option<u64>,
    on_caller_exit: OnCallerExit,
}

impl<P: Protocol> CallClient<P> {
    pub(crate) fn new(shared: Arc<Shared<P>>) -> Self {
        let on_caller_exit = shared.limits.on_caller_exit;
        Self { shared, latest: None, binding: None, awaited: true, inside: None, on_caller_exit }
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
        let deadline = now.checked_add(self.shared.limits.deadline).unwrap_or(now + FAR);
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
        let extras =
            self.binding.clone().map(|binding| Box::new(Extras { binding: Some(binding), ..Extras::default() }));
        let shared = Arc::clone(&self.shared);
        let (awaited, inside) = (self.awaited, self.inside);
        let finishes = self.on_caller_exit == OnCallerExit::Finish;
        Calling { extras, state: State::New(New { shared, request, deadline, late, awaited, finishes, inside }) }
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
        let binding = Some(Arc::new(Binding::new(&self.shared, actor)));
        Self { binding, ..self.clone() }
    }

    /// This client, for calls that are cancelled or finish when their caller leaves. Default: as the server was built.
    #[must_use]
    pub fn on_caller_exit(&self, on_caller_exit: OnCallerExit) -> Self {
        Self { on_caller_exit, ..self.clone() }
    }

    /// This client, for calls whose reply the bound actor does not wait for in its own handler, because another task does:
    /// they are never part of a cycle.
    #[must_use]
    pub fn unawaited(&self) -> Self {
        Self { awaited: false, ..self.clone() }
    }

    pub(crate) fn inside(mut self, server: usize, worker: u64) -> Self {
        self.inside = (self.shared.identity() == server).then_some(worker);
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
        self.shared.compact(factor)
    }

    /// Whether the server still admits calls.
    pub fn is_open(&self) -> bool {
        self.shared.admission() == AdmissionState::Open
    }
}

impl<P: Protocol> Clone for CallClient<P> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            latest: self.latest,
            binding: self.binding.clone(),
            awaited: self.awaited,
            inside: self.inside,
            on_caller_exit: self.on_caller_exit,
        }
    }
}

impl<P: Protocol> fmt::Debug for CallClient<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallClient")
            .field("latest", &self.latest)
            .field("bound_to", &self.binding.as_ref().map(|binding| &binding.node.label))
            .finish_non_exhaustive()
    }
}

/// A call: the future that [`CallClient::call`] returns. It starts when it is first polled; dropping it gives it up.
#[must_use = "a call that is not awaited is never made"]
pub struct Calling<P: Protocol> {
    /// What most calls do not have, in a box to keep the future small.
    pub(crate) extras: Option<Box<Extras<P>>>,
    state: State<P>,
}

/// What a bound or nested call holds while it waits.
pub(crate) struct Extras<P: Protocol> {
    pub(crate) binding: Option<Arc<Binding<P>>>,
    pub(crate) edge: Option<WaitEdge>,
    pub(crate) own: Option<OwnWait<P>>,
}

impl<P: Protocol> Default for Extras<P> {
    fn default() -> Self {
        Self { binding: None, edge: None, own: None }
    }
}

pub(crate) enum State<P: Protocol> {
    New(New<P>),
    /// Waits for a permit.
    Queued(Arc<Call<P>>, Place),
    Open(Arc<Call<P>>),
    Done,
}

/// A call that has not been made yet.
pub(crate) struct New<P: Protocol> {
    pub(crate) shared: Arc<Shared<P>>,
    pub(crate) request: P::Request,
    pub(crate) deadline: Instant,
    /// Its deadline had passed when the call was made.
    pub(crate) late: bool,
    pub(crate) awaited: bool,
    pub(crate) finishes: bool,
    pub(crate) inside: Option<u64>,
}

// Nothing in here is ever pinned.
impl<P: Protocol> Unpin for Calling<P> {}

impl<P: Protocol> Future for Calling<P> {
    type Output = Settled<P>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        match this.start(cx.waker()) {
            Err(error) => return Poll::Ready(Err(error)),
            // Whatever settles the call wakes this task.
            Ok(Started::Waits) => return Poll::Pending,
            Ok(Started::Before) => {}
        }
        if let State::Queued(call, place) = &this.state
            && call.shared.gate.claim(*place, |old| fresh(old, cx.waker()))
        {
            let call = Arc::clone(call);
            if let Some(extras) = &mut this.extras {
                drop(extras.own.take());
            }
            call.shared.submit(Item::Call(Arc::clone(&call)));
            this.state = State::Open(call);
        }
        let (State::Open(call) | State::Queued(call, _)) = &this.state else {
            return Poll::Ready(Err(CallError::Cancelled));
        };
        match call.cell.take_or_wait(|old| old.map_or_else(|| cx.waker().clone(), |old| fresh(old, cx.waker()))) {
            None => Poll::Pending,
            Some(value) => {
                this.leave();
                this.state = State::Done;
                Poll::Ready(value)
            }
        }
    }
}

/// When a call was made.
pub(crate) enum Started {
    /// Just now, and it waits.
    Waits,
    /// At an earlier poll.
    Before,
}

impl<P: Protocol> Calling<P> {
    /// Makes the call if it has not been made yet.
    pub(crate) fn start(&mut self, waker: &Waker) -> Result<Started, CallError<P::Error>> {
        let State::New(_) = self.state else { return Ok(Started::Before) };
        let State::New(new) = std::mem::replace(&mut self.state, State::Done) else { return Ok(Started::Before) };
        self.state = self.admit(new, waker)?;
        // A permit may have been granted on the way into the queue, with a waker that has been used up by that.
        Ok(if let State::Open(_) = self.state { Started::Waits } else { Started::Before })
    }

    /// Leaves the queue and removes the wait edge.
    fn leave(&mut self) {
        if let State::Queued(call, place) = &self.state {
            call.shared.gate.cancel(*place, Waker::wake);
        }
        if let Some(extras) = &mut self.extras {
            drop((extras.edge.take(), extras.own.take()));
        }
    }
}

impl<P: Protocol> Drop for Calling<P> {
    fn drop(&mut self) {
        self.leave();
        if let State::Open(call) | State::Queued(call, _) = &self.state {
            call.shared.caller_left(call);
        }
    }
}

impl<P: Protocol> fmt::Debug for Calling<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calling").finish_non_exhaustive()
    }
}

/// The waker to leave: the old one if it wakes the same task, which saves a clone.
fn fresh(old: Waker, now: &Waker) -> Waker {
    if old.will_wake(now) { old } else { now.clone() }
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

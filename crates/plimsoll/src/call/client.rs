//! The caller's side.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use plimsoll_sync::cell::Party;
use plimsoll_sync::permits::Place;
use plimsoll_sync::slots::SlotKey;
use ractor::ActorCell;
use tokio::time::Instant;

use super::admit::OwnWait;
use super::binding::Binding;
use super::book::{Door, Outcome};
use super::shared::{Call, Item, Settled, Shared};
use super::waits::{self, Waiting};
use super::{CallError, Protocol};

/// Stands in for a deadline that the clock cannot express: 30 years.
const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);

/// A way to call one running [`CallServer`](super::CallServer) or [`Server`](crate::server::Server). Cheap to clone; it does not
/// keep the server alive.
///
/// A client belongs to one incarnation of its server: once that has ended every call is
/// [`Died::NoProcess`](super::Died::NoProcess), and a call is never answered by a successor.
pub struct CallClient<P: Protocol> {
    pub(crate) shared: Arc<Shared<P>>,
    /// No call of this client has a later deadline.
    within: Option<Instant>,
    binding: Option<Arc<Binding<P>>>,
    /// Whether the bound actor itself waits for the replies.
    awaited: bool,
    /// The worker of this very server that makes these calls, if one does.
    inside: Option<u64>,
}

impl<P: Protocol> CallClient<P> {
    pub(crate) fn new(shared: Arc<Shared<P>>) -> Self {
        Self { shared, within: None, binding: None, awaited: true, inside: None }
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

    /// A call that is made at its first poll. `now` is the time if it is known, so that it need not be looked up again.
    fn calling(&self, request: P::Request, deadline: Instant, now: Option<Instant>) -> Calling<P> {
        let late = |latest: Instant| latest <= now.unwrap_or_else(Instant::now);
        let (deadline, late) = match (self.within, now) {
            (Some(latest), _) if latest < deadline => (latest, late(latest)),
            (_, Some(_)) => (deadline, false),
            (_, None) => (deadline, late(deadline)),
        };
        let ties = self.binding.clone().map(|binding| Box::new(Ties { binding: Some(binding), ..Ties::default() }));
        let shared = Arc::clone(&self.shared);
        let (awaited, inside) = (self.awaited, self.inside);
        Calling { ties, state: State::New(New { shared, request, deadline, late, awaited, inside }) }
    }

    /// This client, with no deadline later than `latest`.
    #[must_use]
    pub fn within(&self, latest: impl Into<Instant>) -> Self {
        let latest = latest.into();
        let within = Some(self.within.map_or(latest, |before| before.min(latest)));
        Self { within, ..self.clone() }
    }

    /// This client, tied to `actor`: when the actor ends, in whatever way, the calls of this client end with it, also
    /// those that were moved to other tasks.
    ///
    /// However many clients are bound to one actor, the server watches it once, for as long as one of them exists. While
    /// a call waits for its reply the actor counts as waiting for the server: a circle of such waits is
    /// [`CallError::Deadlock`] at once. See [`unawaited`](Self::unawaited) for calls that the actor itself does not await.
    #[must_use]
    pub fn bind(&self, actor: &ActorCell) -> Self {
        let binding = Some(Arc::new(Binding::new(&self.shared, actor)));
        Self { binding, ..self.clone() }
    }

    /// This client, for calls whose reply the bound actor does not wait for in its own turn, because another task does:
    /// they never count as part of a circle.
    #[must_use]
    pub fn unawaited(&self) -> Self {
        Self { awaited: false, ..self.clone() }
    }

    pub(crate) fn inside(mut self, server: usize, worker: u64) -> Self {
        self.inside = (self.shared.identity() == server).then_some(worker);
        self
    }

    /// Gives back the memory that a spike left in the server's tables when they are more than `factor` times as large as
    /// they need to be. Returns the bytes given back. O(table), under the table's lock.
    pub fn compact(&self, factor: usize) -> usize {
        self.shared.compact(factor)
    }

    /// Whether the server still takes calls.
    pub fn is_open(&self) -> bool {
        self.shared.door() == Door::Open
    }
}

impl<P: Protocol> Clone for CallClient<P> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            within: self.within,
            binding: self.binding.clone(),
            awaited: self.awaited,
            inside: self.inside,
        }
    }
}

impl<P: Protocol> fmt::Debug for CallClient<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallClient")
            .field("within", &self.within)
            .field("bound_to", &self.binding.as_ref().map(|binding| &binding.party.label))
            .finish_non_exhaustive()
    }
}

/// A request on its way into the books.
pub(crate) struct Opening<P: Protocol> {
    pub(crate) request: P::Request,
    pub(crate) deadline: Instant,
    pub(crate) bytes: u64,
    pub(crate) caller: Option<(SlotKey, Arc<waits::Party>)>,
    pub(crate) awaited: bool,
}

/// A call: the future that [`CallClient::call`] returns. It starts when it is first polled; dropping it gives it up.
#[must_use = "a call that is not awaited is never made"]
pub struct Calling<P: Protocol> {
    /// What most calls do not have, and so do not carry along.
    pub(crate) ties: Option<Box<Ties<P>>>,
    state: State<P>,
}

/// What a call is tied to while it waits.
pub(crate) struct Ties<P: Protocol> {
    pub(crate) binding: Option<Arc<Binding<P>>>,
    pub(crate) waiting: Option<Waiting>,
    pub(crate) own: Option<OwnWait<P>>,
}

impl<P: Protocol> Default for Ties<P> {
    fn default() -> Self {
        Self { binding: None, waiting: None, own: None }
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
    /// Its deadline had passed when it was asked for.
    pub(crate) late: bool,
    pub(crate) awaited: bool,
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
            if let Some(ties) = &mut this.ties {
                drop(ties.own.take());
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

    /// Leaves the queue, and stops counting as one who waits.
    fn leave(&mut self) {
        if let State::Queued(call, place) = &self.state {
            call.shared.gate.cancel(*place, Waker::wake);
        }
        if let Some(ties) = &mut self.ties {
            drop((ties.waiting.take(), ties.own.take()));
        }
    }
}

impl<P: Protocol> Drop for Calling<P> {
    fn drop(&mut self) {
        self.leave();
        if let State::Open(call) | State::Queued(call, _) = &self.state {
            call.shared.settle(call, Party::Other, Outcome::Cancelled, Err(CallError::Cancelled));
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

//! The caller's side.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use plimsoll_sync::cell::Party;
use plimsoll_sync::permits::Place;
use ractor::ActorId;
use tokio::time::Instant;

use super::book::{NotOpened, Outcome};
use super::shared::{Call, Settled, Shared, overload};
use super::{CallError, Died, Overload, Service};

/// Stands in for a deadline that the clock cannot express: 30 years.
const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);

/// A way to call one running [`CallServer`](super::CallServer). Cheap to clone; it does not keep the server alive.
///
/// A client belongs to one incarnation of its server: once that has ended every call is [`Died::NoProcess`], and a call
/// is never answered by a successor.
pub struct CallClient<S: Service> {
    shared: Arc<Shared<S>>,
    /// No call of this client has a later deadline.
    within: Option<Instant>,
}

impl<S: Service> CallClient<S> {
    pub(crate) fn new(shared: Arc<Shared<S>>) -> Self {
        Self { shared, within: None }
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
    pub fn call(&self, request: S::Request) -> Calling<S> {
        let now = Instant::now();
        self.call_by(request, now.checked_add(self.shared.limits.deadline).unwrap_or(now + FAR))
    }

    /// Calls with a deadline of its own (tokio's instant or `std`'s).
    ///
    /// # Errors
    /// As [`call`](Self::call); a deadline that has passed is [`CallError::Timeout`] at once, and nothing runs.
    ///
    /// Cancel safe: as [`call`](Self::call).
    pub fn call_by(&self, request: S::Request, deadline: impl Into<Instant>) -> Calling<S> {
        let deadline = deadline.into();
        let deadline = self.within.map_or(deadline, |latest| latest.min(deadline));
        Calling { shared: Arc::clone(&self.shared), state: State::New(request, deadline) }
    }

    /// This client, with no deadline later than `latest`.
    #[must_use]
    pub fn within(&self, latest: impl Into<Instant>) -> Self {
        let latest = latest.into();
        let within = Some(self.within.map_or(latest, |before| before.min(latest)));
        Self { shared: Arc::clone(&self.shared), within }
    }

    /// Gives back the memory that a spike left in the server's tables when they are more than `factor` times as large as
    /// they need to be. Returns the bytes given back. O(table), under the table's lock.
    pub fn compact(&self, factor: usize) -> usize {
        self.shared.compact(factor)
    }

    /// Whether the server still takes calls.
    pub fn is_open(&self) -> bool {
        self.shared.is_open()
    }
}

impl<S: Service> Clone for CallClient<S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), within: self.within }
    }
}

impl<S: Service> fmt::Debug for CallClient<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallClient").field("within", &self.within).finish_non_exhaustive()
    }
}

/// A request on its way into the books.
pub(crate) struct Opening<S: Service> {
    pub(crate) request: S::Request,
    pub(crate) deadline: Instant,
    pub(crate) bytes: u64,
    pub(crate) caller: Option<ActorId>,
}

/// A call: the future that [`CallClient::call`] returns. It starts when it is first polled; dropping it gives it up.
#[must_use = "a call that is not awaited is never made"]
pub struct Calling<S: Service> {
    shared: Arc<Shared<S>>,
    state: State<S>,
}

enum State<S: Service> {
    New(S::Request, Instant),
    /// Waits for a permit.
    Waiting(Arc<Call<S>>, Place),
    Open(Arc<Call<S>>),
    Done,
}

// Nothing in here is ever pinned.
impl<S: Service> Unpin for Calling<S> {}

impl<S: Service> Future for Calling<S> {
    type Output = Settled<S>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let State::New(..) = this.state {
            let State::New(request, deadline) = std::mem::replace(&mut this.state, State::Done) else {
                return Poll::Pending;
            };
            match this.shared.admit(request, deadline, cx.waker()) {
                Ok(state) => this.state = state,
                Err(error) => return Poll::Ready(Err(this.shared.refusals.count(error))),
            }
        }
        if let State::Waiting(call, place) = &this.state
            && this.shared.gate.claim(*place, |old| fresh(old, cx.waker()))
        {
            let call = Arc::clone(call);
            this.shared.submit(Arc::clone(&call));
            this.state = State::Open(call);
        }
        let (State::Open(call) | State::Waiting(call, _)) = &this.state else {
            return Poll::Ready(Err(CallError::Cancelled));
        };
        match call.cell.take_or_wait(|old| old.map_or_else(|| cx.waker().clone(), |old| fresh(old, cx.waker()))) {
            None => Poll::Pending,
            Some(value) => {
                this.leave_queue();
                this.state = State::Done;
                Poll::Ready(value)
            }
        }
    }
}

impl<S: Service> Calling<S> {
    fn leave_queue(&self) {
        if let State::Waiting(_, place) = self.state {
            self.shared.gate.cancel(place, Waker::wake);
        }
    }
}

impl<S: Service> Drop for Calling<S> {
    fn drop(&mut self) {
        self.leave_queue();
        if let State::Open(call) | State::Waiting(call, _) = &self.state {
            self.shared.settle(call, Party::Other, Outcome::Cancelled, Err(CallError::Cancelled));
        }
    }
}

impl<S: Service> fmt::Debug for Calling<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calling").finish_non_exhaustive()
    }
}

impl<S: Service> Shared<S> {
    /// Lets a request in, into the queue, or not at all.
    fn admit(&self, request: S::Request, deadline: Instant, waker: &Waker) -> Result<State<S>, CallError<S::Error>> {
        if deadline <= Instant::now() {
            return Err(CallError::Timeout);
        }
        let bytes = self.limits.weigh.as_ref().map_or(0, |weigh| weigh(&request));
        let opening = Opening { request, deadline, bytes, caller: None };
        match self.gate.try_acquire(bytes) {
            Ok(()) => {
                let call = self.open(opening).map_err(|(why, bytes)| {
                    self.release(bytes);
                    self.not_opened(why)
                })?;
                self.submit(Arc::clone(&call));
                Ok(State::Open(call))
            }
            Err(refused) => {
                if !self.is_open() {
                    return Err(self.not_opened(self.shut_how()));
                }
                if self.limits.queue == 0 {
                    return Err(overload(refused, bytes, 0).into());
                }
                let place = self
                    .gate
                    .enqueue(bytes, waker.clone(), Waker::wake)
                    .map_err(|refused| overload(refused, bytes, self.limits.queue))?;
                match self.open(opening) {
                    Ok(call) => Ok(State::Waiting(call, place)),
                    Err((why, _)) => {
                        self.gate.cancel(place, Waker::wake);
                        Err(self.not_opened(why))
                    }
                }
            }
        }
    }

    fn not_opened(&self, why: NotOpened) -> CallError<S::Error> {
        match why {
            NotOpened::Draining => CallError::ShuttingDown,
            NotOpened::Closed => CallError::Died(Died::NoProcess),
            NotOpened::Full => {
                let (used, limit) = (self.gate.used(), self.gate.limit());
                Overload::InFlight { in_flight: used.count, limit: limit.count }.into()
            }
        }
    }
}

/// The waker to leave: the old one if it wakes the same task, which saves a clone.
fn fresh(old: Waker, now: &Waker) -> Waker {
    if old.will_wake(now) { old } else { now.clone() }
}

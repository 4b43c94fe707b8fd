//! A call as a future: it is made at the first poll, waits for its outcome, and is given up when dropped.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use plimsoll_sync::permits::Place;
use ractor::ActorStatus;
use tokio::time::Instant;

use super::admission::{Admitted, Opening, OwnWait, Rejected};
use super::shared::{Call, Item, Settled, Shared};
use super::target::{BoundCaller, ChildTarget, Target};
use super::{CallError, Died, OnCallerExit, Protocol};
use crate::supervisor::HandleError;
use crate::wait_graph::{Node, WaitEdge};

/// A call: the future that [`CallClient::call`](super::CallClient::call) returns. It starts when it is first polled; dropping
/// it gives it up.
#[must_use = "a call that is not awaited is never made"]
pub struct Calling<P: Protocol> {
    /// What most calls do not have, in a box to keep the future small.
    extras: Option<Box<Extras<P>>>,
    state: State<P>,
}

/// What a bound or nested call holds while it waits.
struct Extras<P: Protocol> {
    caller: Option<BoundCaller<P>>,
    edge: Option<WaitEdge>,
    own: Option<OwnWait<P>>,
}

enum State<P: Protocol> {
    New(New<P>),
    /// Waits for an incarnation.
    Restarting(Box<(New<P>, Waiting)>),
    /// Waits for a permit.
    Queued(Arc<Call<P>>, Place),
    Open(Arc<Call<P>>),
    Done,
}

type Waiting = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A call that has not been made yet.
struct New<P: Protocol> {
    target: Target<P>,
    request: P::Request,
    options: CallOptions,
}

/// How a call is to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallOptions {
    pub(crate) deadline: Instant,
    /// Its deadline had passed when the call was made.
    pub(crate) late: bool,
    /// Whether the bound actor itself waits for the reply.
    pub(crate) awaited: bool,
    /// Whether it waits for an incarnation while there is none.
    pub(crate) waits: bool,
    /// `None`: as the server was built.
    pub(crate) on_caller_exit: Option<OnCallerExit>,
    /// The server whose worker makes the call, and the worker.
    pub(crate) worker: Option<(usize, u64)>,
}

/// When a call was made.
pub(crate) enum Started {
    /// Just now, and it waits.
    Waits,
    /// At an earlier poll.
    Before,
}

// Nothing in here is ever pinned.
impl<P: Protocol> Unpin for Calling<P> {}

impl<P: Protocol> Future for Calling<P> {
    type Output = Settled<P>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            match this.start(cx.waker()) {
                Err(error) => return Poll::Ready(Err(error)),
                // Whatever settles the call wakes this task.
                Ok(Started::Waits) => return Poll::Pending,
                Ok(Started::Before) => {}
            }
            let State::Restarting(waiting) = &mut this.state else { break };
            ready!(waiting.1.as_mut().poll(cx));
            if let State::Restarting(waiting) = std::mem::replace(&mut this.state, State::Done) {
                this.state = State::New(waiting.0);
            }
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

impl<P: Protocol> Calling<P> {
    pub(crate) fn new(
        target: Target<P>,
        request: P::Request,
        options: CallOptions,
        caller: Option<BoundCaller<P>>,
    ) -> Self {
        let extras = caller.map(|caller| Box::new(Extras { caller: Some(caller), edge: None, own: None }));
        Self { extras, state: State::New(New { target, request, options }) }
    }

    /// Makes the call if it has not been made yet.
    pub(crate) fn start(&mut self, waker: &Waker) -> Result<Started, CallError<P::Error>> {
        let State::New(_) = self.state else { return Ok(Started::Before) };
        let State::New(new) = std::mem::replace(&mut self.state, State::Done) else { return Ok(Started::Before) };
        let New { target, request, options } = new;
        self.state = match target {
            Target::Incarnation(shared) => {
                if options.late {
                    return Err(shared.refusals.count(CallError::Timeout));
                }
                let admitted = self.admit(&shared, request, options, waker);
                admitted.map_err(|rejected| shared.refusals.count(rejected.error))?
            }
            Target::Child(child) => self.find_incarnation(child, request, options, waker)?,
        };
        // A permit may have been granted on the way into the queue, with a waker that has been used up by that.
        Ok(if let State::Open(_) = self.state { Started::Waits } else { Started::Before })
    }

    /// Has the request admitted by the incarnation of the child that runs, or waits for one. A request that an incarnation
    /// did not admit has not reached it, and may go to its successor.
    fn find_incarnation(
        &mut self,
        child: Arc<ChildTarget<P>>,
        mut request: P::Request,
        options: CallOptions,
        waker: &Waker,
    ) -> Result<State<P>, CallError<P::Error>> {
        let mut refused: Option<Arc<Shared<P>>> = None;
        let mut absent = CallError::Restarting;
        loop {
            let shared = match child.incarnation() {
                Ok(shared) => shared,
                Err(HandleError::Restarting) => break,
                Err(HandleError::NoProcess | HandleError::WrongType) => return Err(Died::NoProcess.into()),
            };
            if refused.as_ref().is_some_and(|refused| Arc::ptr_eq(refused, &shared)) {
                // It has ended or is stopping, and its supervisor has yet to publish what follows.
                break;
            }
            if options.late {
                return Err(shared.refusals.count(CallError::Timeout));
            }
            let rejected = match self.admit(&shared, request, options, waker) {
                Ok(state) => return Ok(state),
                Err(rejected) => rejected,
            };
            absent = match rejected.error {
                CallError::Died(Died::NoProcess) => CallError::Restarting,
                CallError::ShuttingDown => CallError::ShuttingDown,
                error => return Err(shared.refusals.count(error)),
            };
            (request, refused) = (rejected.request, Some(shared));
        }
        let caller = self.extras.as_ref().and_then(|extras| extras.caller.as_ref()).map(BoundCaller::actor);
        if caller.as_ref().is_some_and(|caller| caller.get_status() == ActorStatus::Stopped) {
            return Err(CallError::Cancelled);
        }
        if options.late {
            return Err(CallError::Timeout);
        }
        if !options.waits || Instant::now() >= options.deadline {
            return Err(match &refused {
                Some(shared) => shared.refusals.count(absent),
                None => absent,
            });
        }
        let waiting = Box::pin(Arc::clone(&child).wait(refused, options.deadline, caller));
        Ok(State::Restarting(Box::new((New { target: Target::Child(child), request, options }, waiting))))
    }

    /// Has the request admitted by this incarnation.
    fn admit(
        &mut self,
        shared: &Arc<Shared<P>>,
        request: P::Request,
        options: CallOptions,
        waker: &Waker,
    ) -> Result<State<P>, Rejected<P>> {
        let mut caller = None;
        if let Some(extras) = &mut self.extras
            && let Some(bound) = &extras.caller
        {
            let binding = bound.binding(shared);
            if let (true, true, Some(server)) = (P::IN_TURN, options.awaited, shared.actor()) {
                match WaitEdge::begin(&binding.node, &Node::from(&server.get_cell())) {
                    Ok(edge) => extras.edge = Some(edge),
                    Err(cycle) => return Err(Rejected { error: CallError::Deadlock(cycle), request }),
                }
            }
            caller = Some((binding.key, Arc::clone(&binding.node)));
        }
        let CallOptions { deadline, awaited, .. } = options;
        let finishes = options.on_caller_exit.unwrap_or(shared.limits.on_caller_exit) == OnCallerExit::Finish;
        let worker = options.worker.and_then(|(server, worker)| (server == shared.identity()).then_some(worker));
        match shared.admit(Opening { request, deadline, caller, awaited, finishes, worker }, waker) {
            Ok(Admitted::Open(call)) => Ok(State::Open(call)),
            Ok(Admitted::Queued(call, place, own)) => {
                if own.is_some() {
                    self.extras.get_or_insert_with(|| Box::new(Extras { caller: None, edge: None, own: None })).own =
                        own;
                }
                Ok(State::Queued(call, place))
            }
            Err(rejected) => {
                if let Some(extras) = &mut self.extras {
                    extras.edge = None;
                }
                Err(rejected)
            }
        }
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

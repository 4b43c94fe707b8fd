//! A worker: it serves one call and ends.

use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::task::Poll;

use futures::FutureExt;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};

use super::book::Outcome;
use super::waits::{Party, Waiting};
use super::work::Work;
use super::{CallContext, CallError, Died, Service};
use crate::exit::ExitReason;
use crate::panics;

/// Which kind of worker serves a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Worker {
    /// A ractor actor linked to the server: it can be observed, and further actors can be linked to it. About 2.5
    /// microseconds and 6.5 KB while it lives.
    #[default]
    Actor,
    /// A task. The same guarantees, for calls so short that an actor's own cost shows.
    Task,
}

impl<S: Service> Work<S> {
    /// Serves the call; `Err` with the message when the service panicked.
    pub(crate) async fn serve(&self, worker: Option<ActorCell>) -> Result<(), String> {
        let Some(request) = self.call.request.lock().take() else { return Ok(()) };
        let _waiting = self.call.caller.as_ref().zip(worker.as_ref()).and_then(|(caller, worker)| {
            // Nobody waits for this worker yet, so that this closes no circle.
            Waiting::begin(caller, &Party::from(worker)).ok()
        });
        let ctx = CallContext {
            deadline: self.call.deadline,
            worker,
            caller: self.call.caller.as_ref().map(|c| c.id),
            server: self.shared.identity(),
        };
        let host = &self.shared.host;
        let service = &host.service;
        let (method, running) = (S::method(&request), host.timings.begin());
        let serving = AssertUnwindSafe(async { service.call(ctx, request).await }).catch_unwind();
        let (outcome, value, result) = match self.unless_settled(serving).await {
            None => return Ok(()),
            Some(Ok(Ok(reply))) => (Outcome::Reply, Ok(reply), Ok(())),
            Some(Ok(Err(error))) => (Outcome::AppError, Err(CallError::App(error)), Ok(())),
            Some(Err(panic)) => {
                let failure = panics::failure_here(panic.as_ref());
                let message = failure.message.to_string();
                (Outcome::Died, Err(Died::Exit(ExitReason::Failed(failure)).into()), Err(message))
            }
        };
        host.timings.end(method, running);
        self.settle(outcome, value);
        result
    }

    /// Runs `serving` until it is done or the call has been settled by someone else: then it is dropped where it awaits.
    async fn unless_settled<F: Future>(&self, serving: F) -> Option<F::Output> {
        let mut serving = pin!(serving);
        poll_fn(|cx| {
            let cell = &self.call.cell;
            if cell.is_settled() {
                return Poll::Ready(None);
            }
            if let Poll::Ready(output) = serving.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            let settled = cell.settled_or_wait(|old| match old {
                Some(old) if old.will_wake(cx.waker()) => old,
                _ => cx.waker().clone(),
            });
            if settled { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    }
}

/// The worker as an actor. It works in `post_start`: supervised, without a message to itself.
pub(crate) struct WorkerActor<S: Service>(pub(crate) Work<S>);

impl<S: Service> Actor for WorkerActor<S> {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn post_start(&self, myself: ActorRef<()>, (): &mut ()) -> Result<(), ActorProcessingErr> {
        self.0.serve(Some(myself.get_cell())).await?;
        myself.stop(None);
        Ok(())
    }
}

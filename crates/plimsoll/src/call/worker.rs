//! A worker: it serves one call and ends.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use parking_lot::Mutex;
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef};
use tracing::Instrument;

use super::call_table::Outcome;
use super::shared::BegunCall;
use super::{CallContext, CallError, Died, Service};
use crate::current_server;
use crate::exit::ExitReason;
use crate::panics;
use crate::wait_graph::{ActorTask, Node, WaitEdge};

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

impl<S: Service> BegunCall<S> {
    /// Serves the call; `Err` with the message when the service panicked. When the call is settled by someone else, the
    /// service is dropped where it awaits.
    async fn serve(&self, request: S::Request, worker: Option<ActorCell>) -> Result<(), String> {
        let (call, shared) = (&*self.call, self.shared());
        let awaiting = call.caller.as_ref().filter(|_| call.awaited);
        let _edge = awaiting.zip(worker.as_ref()).and_then(|(caller, worker)| {
            // Nobody waits for this worker yet, so that this closes no cycle.
            let edge = WaitEdge::begin(caller, &Node::from(worker)).ok();
            let task = tokio::task::try_id().map(|task| ActorTask::register(task, worker));
            edge.zip(task)
        });
        let ctx = CallContext {
            deadline: call.deadline,
            worker,
            caller: call.caller.as_ref().map(|c| c.id),
            server: shared.identity(),
            call: call.key.generation(),
        };
        let running = shared.host.timings.begin(S::method(&request));
        let serving = shared.host.service.call(ctx, request);
        let server = shared.actor().map_or(ActorId::Local(0), |actor| actor.get_id());
        let mut serving = pin!(current_server::within(server, serving.instrument(shared.host.span.clone())));
        let served = poll_fn(|cx| {
            if call.cell.is_settled() {
                return Poll::Ready(None);
            }
            match catch_unwind(AssertUnwindSafe(|| serving.as_mut().poll(cx))) {
                Ok(Poll::Ready(result)) => return Poll::Ready(Some(Ok(result))),
                Ok(Poll::Pending) => {}
                Err(panic) => return Poll::Ready(Some(Err(panic))),
            }
            let settled = call.cell.settled_or_wait(|old| match old {
                Some(old) if old.will_wake(cx.waker()) => old,
                _ => cx.waker().clone(),
            });
            if settled { Poll::Ready(None) } else { Poll::Pending }
        })
        .await;
        drop(running);
        let (outcome, value, result) = match served {
            None => return Ok(()),
            Some(Ok(Ok(reply))) => (Outcome::Reply, Ok(reply), Ok(())),
            Some(Ok(Err(error))) => (Outcome::AppError, Err(CallError::App(error)), Ok(())),
            Some(Err(panic)) => {
                let failure = panics::failure_here(panic.as_ref());
                let message = failure.message.to_string();
                (Outcome::Died, Err(Died::Exit(ExitReason::Failed(failure)).into()), Err(message))
            }
        };
        self.settle(outcome, value);
        result
    }
}

/// The worker as a task.
pub(crate) async fn task<S: Service>(call: BegunCall<S>, request: S::Request) {
    // The message of a panic is in the call's outcome already.
    let _ = call.serve(request, None).await;
}

/// The worker as an actor. It works in `post_start`: supervised, without a message to itself.
pub(crate) struct WorkerActor<S: Service> {
    call: BegunCall<S>,
    /// Here and not among the actor's arguments, which outlive a start that is cut short.
    request: Mutex<Option<S::Request>>,
}

impl<S: Service> WorkerActor<S> {
    pub(crate) fn new(call: BegunCall<S>, request: S::Request) -> Self {
        Self { call, request: Mutex::new(Some(request)) }
    }
}

impl<S: Service> Actor for WorkerActor<S> {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn post_start(&self, myself: ActorRef<()>, (): &mut ()) -> Result<(), ActorProcessingErr> {
        let request = self.request.lock().take();
        if let Some(request) = request {
            self.call.serve(request, Some(myself.get_cell())).await?;
        }
        // Its work is done and counted. ractor reports the start only after this, and then the end: two events that would
        // wake the server for nothing.
        if let Some(server) = self.call.shared().actor() {
            myself.unlink(server.get_cell());
        }
        myself.stop(None);
        Ok(())
    }
}

//! The serving half of a call between nodes: a worker actor for each call, linked to the actor of its connection.
//!
//! The worker reads the request from its stream, passes it to the node's services and writes the reply. It ends when its call,
//! its deadline or its connection ends, or its caller leaves. A panic ends this one call.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::{Either, select};
use parking_lot::Mutex;
use plimsoll::bounded::LogThrottle;
use plimsoll::ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
use quinn::{RecvStream, SendStream};
use tracing::warn;

use crate::events::EventKind;
use crate::names::NodeId;
use crate::owned_task::panic_text;
use crate::problem::{Code, Problem};
use crate::service::{Caller, Refusal, Request, Response, ServePeer};

use super::close_reason::{BAD_FRAME, CANCELLED, CloseReason};
use super::frames::{self, Frame, ReceiveError};
use super::link::Link;
use super::pool::LeasedConnection;
use super::state::{PeersState, count};
use super::wire::{self, CallHead, Expected, Kind};

/// The longest deadline that is honoured, as for clients.
const MAX_DEADLINE: Duration = Duration::from_secs(60);
/// How long a request may take to arrive, and its reply to leave.
const TRANSFER: Duration = Duration::from_secs(10);
/// The longest life of a worker: both transfers and the longest deadline.
const MAX_LIFETIME: Duration = MAX_DEADLINE.saturating_add(TRANSFER).saturating_add(TRANSFER);

/// How a call from a peer ended, for the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Answered,
    /// The caller or its connection is gone.
    Abandoned,
    /// The worker was stopped before the call had ended.
    Stopped,
    /// The frame was rejected.
    Malformed,
    /// The worker panicked.
    Panicked,
    /// The worker did not end within its longest life.
    TimedOut,
}

/// Starts the worker for the call that arrives on this stream, linked to the connection's actor.
pub(crate) async fn start(
    shared: &Arc<PeersState>,
    link: &Arc<Link>,
    connection: &ActorCell,
    send: SendStream,
    recv: RecvStream,
) {
    let accounting = Accounting::begin(shared, link);
    let job = Job { link: Arc::clone(link), accounting, _lease: shared.lease_for_serving(link), send, recv };
    let worker = CallWorker { job: Mutex::new(Some(job)), connection: connection.clone() };
    // It fails only while the connection's actor is stopping; the job and its streams are dropped with it.
    let _ = Actor::spawn_linked(None, worker, (), connection.clone()).await;
}

/// The worker. It works in `post_start`: supervised, without a message to itself.
struct CallWorker {
    /// Here and not among the actor's arguments, which outlive a start that is cut short.
    job: Mutex<Option<Job>>,
    connection: ActorCell,
}

struct Job {
    link: Arc<Link>,
    accounting: Accounting,
    /// Keeps the connection open.
    _lease: Option<LeasedConnection>,
    send: SendStream,
    recv: RecvStream,
}

impl Actor for CallWorker {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn post_start(&self, myself: ActorRef<()>, (): &mut ()) -> Result<(), ActorProcessingErr> {
        let job = self.job.lock().take();
        if let Some(job) = job {
            job.run().await;
        }
        // The work is done and counted. ractor reports a start only after this, and then the end: two events that would
        // wake the connection's actor for nothing.
        myself.unlink(self.connection.clone());
        myself.stop(None);
        Ok(())
    }
}

impl Job {
    async fn run(mut self) {
        let service = Arc::clone(&self.accounting.shared.serve);
        let serving = AssertUnwindSafe(serve(&self.link, &*service, &mut self.send, &mut self.recv)).catch_unwind();
        let outcome = match tokio::time::timeout(MAX_LIFETIME, serving).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(panic)) => {
                self.accounting.shared.call_panicked(self.link.node, &panic_text(&*panic));
                Outcome::Panicked
            }
            Err(_) => Outcome::TimedOut,
        };
        if matches!(outcome, Outcome::Panicked | Outcome::TimedOut) {
            // Dropped, the stream would be finished instead, and the peer would read a truncated reply.
            let _ = self.send.reset(CANCELLED);
        }
        self.accounting.outcome = outcome;
    }
}

/// Counts a worker while it lives, and its end, also when it is killed.
struct Accounting {
    shared: Arc<PeersState>,
    link: Arc<Link>,
    outcome: Outcome,
}

impl Accounting {
    fn begin(shared: &Arc<PeersState>, link: &Arc<Link>) -> Self {
        link.begin_serving();
        Self { shared: Arc::clone(shared), link: Arc::clone(link), outcome: Outcome::Stopped }
    }
}

impl Accounting {
    /// Whether the worker was stopped because this node stops, and not because the connection has ended.
    fn is_stopping(&self) -> bool {
        let open = matches!(self.link.connection.close_reason(), None | Some(quinn::ConnectionError::LocallyClosed));
        open && matches!(self.link.closing(), None | Some(CloseReason::Stopping { .. }))
    }
}

impl Drop for Accounting {
    fn drop(&mut self) {
        self.link.end_serving();
        let counters = &self.shared.counters;
        count(match self.outcome {
            Outcome::Answered => &counters.calls_answered,
            Outcome::Stopped if self.is_stopping() => &counters.calls_cut_off,
            Outcome::Abandoned | Outcome::Stopped => &counters.calls_abandoned,
            Outcome::Malformed => &counters.calls_malformed,
            Outcome::Panicked => &counters.calls_panicked,
            Outcome::TimedOut => &counters.calls_timed_out,
        });
    }
}

impl PeersState {
    fn call_panicked(&self, peer: NodeId, panic: &str) {
        static LOGGED: Mutex<Option<LogThrottle>> = Mutex::new(None);
        self.config.events.record(EventKind::Panic, Some(peer), panic);
        if let Some(suppressed) = LOGGED.lock().get_or_insert_default().record(Instant::now()) {
            warn!(target: "plimsoll::mesh", node = %self.me, %peer, panic, suppressed, "the worker of a peer's call panicked");
        }
    }
}

/// Serves the one call of a stream.
async fn serve(link: &Link, service: &dyn ServePeer, send: &mut SendStream, recv: &mut RecvStream) -> Outcome {
    let expected = Expected { kind: Kind::Call, max_body: link.max_body };
    let frame = match tokio::time::timeout(TRANSFER, frames::receive(recv, expected)).await {
        Ok(Ok(frame)) => frame,
        Ok(Err(ReceiveError::Frame(error))) => {
            let _ = recv.stop(BAD_FRAME);
            let refusal = Refusal::never_ran(Problem::new(Code::BadFrame, error.to_string()));
            reply(send, &Err(refusal)).await;
            return Outcome::Malformed;
        }
        Ok(Err(ReceiveError::Read(_))) | Err(_) => {
            let _ = send.reset(CANCELLED);
            return Outcome::Abandoned;
        }
    };
    let request = match request(&frame, link.node) {
        Ok(request) => request,
        Err(problem) => {
            reply(send, &Err(Refusal::never_ran(problem))).await;
            return Outcome::Malformed;
        }
    };
    // Dropping the call when the caller stops the stream, or its connection ends, ends the service's worker at once.
    let result = match select(service.serve(request), Box::pin(send.stopped())).await {
        Either::Left((result, _)) => result,
        Either::Right(_) => {
            let _ = send.reset(CANCELLED);
            return Outcome::Abandoned;
        }
    };
    if reply(send, &result).await { Outcome::Answered } else { Outcome::Abandoned }
}

fn request(frame: &Frame, caller: NodeId) -> Result<Request, Problem> {
    let head = CallHead::decode(&frame.head).map_err(|error| Problem::new(Code::BadFrame, error.to_string()))?;
    let service = head.service.parse().map_err(|error| Problem::new(Code::BadName, format!("{error}")))?;
    Ok(Request {
        service,
        body: frame.body.clone(),
        content_type: head.content_type.map(Arc::from),
        deadline: Instant::now() + head.deadline().min(MAX_DEADLINE),
        call_id: head.call_id.into(),
        traceparent: head.traceparent.map(Arc::from),
        caller: Caller::Peer(caller),
    })
}

/// Writes the reply; `false` when it cannot be delivered.
async fn reply(send: &mut SendStream, result: &Result<Response, Refusal>) -> bool {
    let encoded = wire::encode_reply(result).or_else(|error| {
        let detail = format!("the reply does not fit a frame: {error}");
        wire::encode_reply(&Err(Refusal::may_have_run(Problem::new(Code::WorkerDied, detail))))
    });
    let Ok((head, body)) = encoded else {
        let _ = send.reset(BAD_FRAME);
        return false;
    };
    match tokio::time::timeout(TRANSFER, frames::send(send, head, body)).await {
        Ok(Ok(())) => true,
        Ok(Err(_)) | Err(_) => {
            let _ = send.reset(CANCELLED);
            false
        }
    }
}

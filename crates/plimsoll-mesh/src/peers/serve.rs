//! The serving half of a call between nodes. The task that holds the stream waits for the answer and writes it; the
//! work is done by the service's own worker, so nothing that may panic owns a stream.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{Either, select};
use quinn::{RecvStream, SendStream};

use crate::names::NodeId;
use crate::problem::{Code, Problem};
use crate::service::{Caller, Refusal, Request, Response, ServePeer};

use super::close_reason::{BAD_FRAME, CANCELLED};
use super::frames::{self, Frame, ReceiveError};
use super::link::Link;
use super::wire::{self, CallHead, Expected, Kind};

/// The longest deadline that is honoured, as for clients.
const MAX_DEADLINE: Duration = Duration::from_secs(60);
/// How long a call may take to arrive, and its answer to leave.
const TRANSFER: Duration = Duration::from_secs(10);

/// How a call from a peer ended, for the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Served {
    Answered,
    /// The caller left, or the connection did.
    Abandoned,
    /// The frame was refused.
    Malformed,
}

/// Serves the one call of a stream.
pub(crate) async fn serve(
    link: Arc<Link>,
    service: Arc<dyn ServePeer>,
    mut send: SendStream,
    mut recv: RecvStream,
) -> Served {
    let _in_use = link.begin_serving();
    let expected = Expected { kind: Kind::Call, max_body: link.max_body };
    let frame = match tokio::time::timeout(TRANSFER, frames::receive(&mut recv, expected)).await {
        Ok(Ok(frame)) => frame,
        Ok(Err(ReceiveError::Frame(error))) => {
            let _ = recv.stop(BAD_FRAME);
            let refusal = Refusal::never_ran(Problem::new(Code::BadFrame, error.to_string()));
            answer(&mut send, &Err(refusal)).await;
            return Served::Malformed;
        }
        Ok(Err(ReceiveError::Read(_))) | Err(_) => {
            let _ = send.reset(CANCELLED);
            return Served::Abandoned;
        }
    };
    let request = match request(&frame, link.node) {
        Ok(request) => request,
        Err(problem) => {
            answer(&mut send, &Err(Refusal::never_ran(problem))).await;
            return Served::Malformed;
        }
    };
    // Dropping the call when the caller stops the stream, or its connection ends, ends the worker at once.
    let reply = match select(service.serve(request), Box::pin(send.stopped())).await {
        Either::Left((reply, _)) => reply,
        Either::Right(_) => {
            let _ = send.reset(CANCELLED);
            return Served::Abandoned;
        }
    };
    if answer(&mut send, &reply).await { Served::Answered } else { Served::Abandoned }
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

/// Writes the answer; `false` when it cannot be delivered.
async fn answer(send: &mut SendStream, reply: &Result<Response, Refusal>) -> bool {
    let encoded = wire::encode_reply(reply).or_else(|error| {
        let words = format!("the answer does not fit a frame: {error}");
        wire::encode_reply(&Err(Refusal::may_have_run(Problem::new(Code::WorkerDied, words))))
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

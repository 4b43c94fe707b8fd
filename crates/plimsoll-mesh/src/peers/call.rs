//! The caller's half of a call between nodes.

use std::time::Instant;

use bytes::Bytes;
use quinn::{ReadError, RecvStream, SendStream};

use crate::names::NodeId;
use crate::problem::{Code, Problem};
use crate::service::{Refusal, Request, Response};

use super::close_reason::{CANCELLED, disconnect_of};
use super::frames::{self, ReceiveError};
use super::link::Link;
use super::wire::{self, CallHead, Expected, Kind};

/// Calls the service on the peer behind `link`, by the request's deadline.
///
/// The peer acts on a call only when it has all of it. So as long as the last byte was not handed to the transport, the
/// call certainly never ran; from then on it may have.
///
/// Cancel safe: dropping the future resets the stream, and the peer stops its worker.
pub(crate) async fn call(link: &Link, request: &Request) -> Result<Response, Refusal> {
    let node = link.node;
    let Some(_in_flight) = link.begin_call() else {
        let detail = format!("{} calls to node {node} are in flight, as many as may be", link.max_calls);
        return Err(Refusal::never_ran(Problem::new(Code::Overloaded, detail)));
    };
    if request.body.len() > link.max_body {
        let detail = format!("a body of {} bytes is larger than {}", request.body.len(), link.max_body);
        return Err(Refusal::never_ran(Problem::new(Code::BodyTooLarge, detail)));
    }
    let started = Instant::now();
    let deadline = tokio::time::Instant::from_std(request.deadline);
    let Some(head) = head(request, started)? else { return Err(Refusal::never_ran(deadline_passed(node))) };

    let sent = tokio::time::timeout_at(deadline, send(link, head, request.body.clone())).await;
    let mut exchange = match sent {
        Ok(Ok(exchange)) => exchange,
        Ok(Err(gone)) => return Err(Refusal::never_ran(gone)),
        Err(_) => return Err(Refusal::never_ran(deadline_passed(node))),
    };
    let expected = Expected { kind: Kind::Reply, max_body: link.max_body };
    let received = tokio::time::timeout_at(deadline, frames::receive(&mut exchange.recv, expected)).await;
    let reply = match received {
        Ok(Ok(frame)) => wire::decode_reply(&frame.head, frame.body).map_err(ReceiveError::from),
        Ok(Err(error)) => Err(error),
        Err(_) => return Err(Refusal::may_have_run(deadline_passed(node))),
    };
    match reply {
        Ok(reply) => {
            exchange.complete = true;
            link.observe(started.elapsed());
            reply.map_err(|refusal| Refusal { problem: refusal.problem.on(node), ..refusal })
        }
        Err(error) => Err(Refusal::may_have_run(interrupted(link, &error))),
    }
}

/// The encoded head; `None` when the deadline has passed already.
fn head(request: &Request, now: Instant) -> Result<Option<Vec<u8>>, Refusal> {
    let left = request.deadline.saturating_duration_since(now).as_millis();
    if left == 0 {
        return Ok(None);
    }
    let head = CallHead {
        service: request.service.as_str(),
        deadline_ms: u32::try_from(left).unwrap_or(u32::MAX),
        call_id: &request.call_id,
        content_type: request.content_type.as_deref(),
        traceparent: request.traceparent.as_deref(),
    };
    let encoded = wire::encode(Kind::Call, &head, request.body.len());
    encoded.map(Some).map_err(|error| Refusal::never_ran(Problem::new(Code::BadFrame, error.to_string())))
}

async fn send(link: &Link, head: Vec<u8>, body: Bytes) -> Result<Exchange, Problem> {
    let gone = |why: String| Problem::new(Code::ProviderDied, format!("node {} is gone: {why}", link.node));
    let (send, recv) = link.connection.open_bi().await.map_err(|error| gone(disconnect_of(&error).reason))?;
    let mut exchange = Exchange { send, recv, complete: false };
    frames::send(&mut exchange.send, head, body).await.map_err(|error| gone(error.to_string()))?;
    Ok(exchange)
}

/// Both directions of a call. Dropped before the reply is complete, it resets them, which stops the peer.
struct Exchange {
    send: SendStream,
    recv: RecvStream,
    complete: bool,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.complete {
            // Either may have ended by itself; then there is nothing to reset.
            let _ = self.send.reset(CANCELLED);
            let _ = self.recv.stop(CANCELLED);
        }
    }
}

fn deadline_passed(node: NodeId) -> Problem {
    Problem::new(Code::Deadline, format!("node {node} did not reply by the deadline"))
}

fn interrupted(link: &Link, error: &ReceiveError) -> Problem {
    let node = link.node;
    let ended = |error| {
        let why = link.closing().map_or_else(|| disconnect_of(error).reason, ToString::to_string);
        Problem::new(Code::ProviderDied, format!("the connection to node {node} ended in mid-call: {why}"))
    };
    match (error, link.connection.close_reason()) {
        (ReceiveError::Read(ReadError::ConnectionLost(error)), _) => ended(error),
        (_, Some(error)) => ended(&error),
        // Not `bad_frame`: the caller's own request was good.
        (ReceiveError::Frame(error), None) => {
            Problem::new(Code::WorkerDied, format!("the reply of node {node} is not valid: {error}")).on(node)
        }
        (ReceiveError::Read(error), None) => {
            Problem::new(Code::WorkerDied, format!("node {node} ended the reply early: {error}")).on(node)
        }
    }
}

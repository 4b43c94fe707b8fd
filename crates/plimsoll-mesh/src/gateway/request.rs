//! One request: the task that holds its stream.
//!
//! It reads the head and the body, hands the call to [`Dispatch`](crate::service::Dispatch), watches whether the client
//! leaves, and sends the answer. It does no work of its own, so that nothing that may panic owns the stream: a panic in
//! the dispatch is caught before it reaches the stream, and any other would reset it, never end it cleanly.

use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::FutureExt;
use h3::error::{Code as H3Code, StreamError};
use h3::proto::frame::Frame;
use h3::server::RequestResolver;
use http::request::Parts;
use tokio::time::timeout;

use super::answer::Answer;
use super::body::{Body, BodyError};
use super::pump::Session;
use super::routes::{self, CallHead, Refusal, Route};
use crate::http3::{Connection, Left};
use crate::problem::{Code, Problem};
use crate::service::{Caller, Request};

pub(super) type RequestStream = h3::server::RequestStream<crate::http3::BidiStream, Bytes>;
pub(super) type Resolver = RequestResolver<Connection, Bytes>;

/// Holds one request's stream from its first byte to its end. `left` completes when the client goes away.
pub(super) async fn hold(session: Arc<Session>, resolver: Resolver, left: impl Future<Output = Left>) {
    let shared = Arc::clone(&session.shared);
    let books = shared.requests.begin();
    let mut left = pin!(left);
    let (answer, mut stream) = match head(&session, resolver).await {
        Ok(Head { parts: Ok(parts), mut stream }) => {
            let answered = tokio::select! {
                biased;
                answered = answer(&session, parts, &mut stream) => answered,
                _ = &mut left => Err(None),
            };
            match answered {
                Ok(answer) => (answer, stream),
                Err(None) => {
                    stream.stop_stream(H3Code::H3_REQUEST_CANCELLED);
                    return books.left();
                }
                Err(Some(error)) => return note(error),
            }
        }
        Ok(Head { parts: Err(problem), stream }) => (session.refuse(problem.into()), stream),
        Err(error) => return note(error),
    };
    match timeout(shared.limits.answer_time, send(&mut stream, answer)).await {
        Ok(Ok(())) => books.answered(),
        Ok(Err(StreamError::RemoteTerminate { .. } | StreamError::ConnectionError(_))) => return books.left(),
        Ok(Err(error)) => return note(error),
        Err(_) => return stream.stop_stream(H3Code::H3_REQUEST_CANCELLED),
    }
    if session.is_draining() {
        // Closing the connection would take back what the client has not acknowledged.
        let _ = timeout(super::pump::FAREWELL, left).await;
    }
}

fn note(error: StreamError) {
    tracing::debug!(target: "plimsoll::mesh", %error, "request broken off");
}

struct Head {
    parts: Result<Parts, Problem>,
    stream: RequestStream,
}

/// Reads the head, within its time.
async fn head(session: &Session, mut resolver: Resolver) -> Result<Head, StreamError> {
    let first = poll_fn(|cx| resolver.frame_stream.poll_next(cx));
    match timeout(session.shared.limits.header_time, first).await {
        Ok(frame) => {
            let (request, stream) = resolver.accept_with_frame(frame)?.resolve().await?;
            Ok(Head { parts: Ok(request.into_parts().0), stream })
        }
        Err(_) => {
            // h3 gives a stream to answer on only for a header section: it gets the shortest one.
            let frame = Frame::Headers(Bytes::from_static(GET_ROOT));
            let (_, stream) = resolver.accept_with_frame(Ok(Some(frame)))?.resolve().await?;
            let problem = Problem::new(Code::SlowRequest, "the header section did not arrive in time");
            Ok(Head { parts: Err(problem), stream })
        }
    }
}

/// `GET https://x/`: three entries of QPACK's static table, and the name of a fourth with a value (RFC 9204, 4.5).
const GET_ROOT: &[u8] = &[0x00, 0x00, 0xc0 | 17, 0xc0 | 23, 0xc0 | 1, 0x50, 1, b'x'];

/// The answer to a request. `Err(None)`: the client has reset the request.
async fn answer(
    session: &Arc<Session>,
    parts: Parts,
    stream: &mut RequestStream,
) -> Result<Answer, Option<StreamError>> {
    let shared = &session.shared;
    if session.is_draining() {
        return Ok(session.refuse(Problem::new(Code::ShuttingDown, "the node is stopping").into()));
    }
    match routes::route(&parts, &shared.limits) {
        Ok(Route::Services) => Ok(Answer::services(&shared.overview.services())),
        Ok(Route::Nodes) => Ok(Answer::nodes(&shared.overview.nodes())),
        Ok(Route::Call(head)) => call(session, head, stream).await,
        Err(refusal) => Ok(session.refuse(refusal)),
    }
}

async fn call(
    session: &Arc<Session>,
    head: CallHead,
    stream: &mut RequestStream,
) -> Result<Answer, Option<StreamError>> {
    let shared = &session.shared;
    let deadline = Instant::now() + head.deadline;
    let time = shared.limits.body_time.min(head.deadline);
    let mut body = match timeout(time, Body::read(shared, stream, head.content_length)).await {
        Ok(Ok(body)) => body,
        Ok(Err(BodyError::Refused(problem))) => return Ok(session.refuse(problem.into())),
        Ok(Err(BodyError::Stream(StreamError::RemoteTerminate { code }))) if code != H3Code::H3_EXCESSIVE_LOAD => {
            return Err(None);
        }
        Ok(Err(BodyError::Stream(error))) => return Err(Some(error)),
        Err(_) if time == head.deadline => return Ok(session.refuse(deadline_passed().into())),
        Err(_) => {
            let problem = Problem::new(Code::SlowRequest, "the body did not arrive in time");
            return Ok(session.refuse(problem.into()));
        }
    };
    let named = head.call_id.is_some();
    let call_id = head.call_id.unwrap_or_else(|| shared.call_id());
    let request = Request {
        service: head.service,
        body: body.bytes(),
        content_type: head.content_type,
        deadline,
        call_id: Arc::clone(&call_id),
        traceparent: head.traceparent,
        caller: Caller::Client,
    };
    let answer = dispatch(session, request).await;
    Ok(if named { answer.with_call_id(&call_id) } else { answer })
}

async fn dispatch(session: &Session, request: Request) -> Answer {
    let shared = &session.shared;
    // The stand-in for the dispatch may panic as it is made or as it is polled; both end here.
    let served = AssertUnwindSafe(async { shared.dispatch.dispatch(request).await }).catch_unwind();
    let outcome = tokio::select! {
        biased;
        served = served => served,
        () = session.expired() => Ok(Err(Problem::new(Code::ShuttingDown, "the node stopped before the call ended"))),
    };
    match outcome {
        Ok(Ok(response)) => Answer::served(response),
        Ok(Err(problem)) => session.refuse(problem.into()),
        Err(_panic) => {
            shared.requests.panicked();
            session.refuse(Problem::new(Code::WorkerPanicked, "the router panicked").into())
        }
    }
}

fn deadline_passed() -> Problem {
    Problem::new(Code::Deadline, "the deadline passed before the body had arrived")
}

async fn send(stream: &mut RequestStream, answer: Answer) -> Result<(), StreamError> {
    stream.send_response(answer.head).await?;
    if !answer.body.is_empty() {
        stream.send_data(answer.body).await?;
    }
    stream.finish().await
}

impl Session {
    fn refuse(&self, refusal: Refusal) -> Answer {
        self.shared.requests.refused(refusal.problem.code);
        Answer::refused(refusal, self.shared.node)
    }

    fn expired(&self) -> impl Future<Output = ()> + '_ {
        self.expire.cancelled()
    }
}

//! One request: the task that holds its stream.
//!
//! It reads the head and the body, hands the call to [`Dispatch`](crate::service::Dispatch), watches whether the client
//! leaves, and sends the answer. It does no work of its own, so that nothing that may panic owns the stream: a panic in
//! the dispatch is caught before it reaches the stream, and any other would reset it, never end it cleanly.

use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use h3::error::{Code as H3Code, StreamError};
use h3::frame::FrameStreamError;
use h3::proto::frame::{Frame, PayloadLen};
use h3::server::RequestResolver;

use super::answer::Answer;
use super::body::{Body, BodyError};
use super::pump::Session;
use super::routes::{self, CallHead, Refusal, Route};
use super::within::{TimeUp, within};
use crate::http3::{Connection, Left};
use crate::problem::{Code, Problem};
use crate::service::{Caller, Request};

pub(super) type RequestStream = h3::server::RequestStream<crate::http3::BidiStream, Bytes>;
pub(super) type Resolver = RequestResolver<Connection, Bytes>;

/// Holds one request's stream from its first byte to its end. `left` completes when the client goes away.
///
/// Written as a block, and in steps that do not wait wherever h3's would not: an async function keeps each argument
/// twice, and what a task keeps is allocated and moved for every request.
#[expect(clippy::manual_async_fn, reason = "smaller, as said above")]
pub(super) fn hold(
    session: Arc<Session>,
    mut resolver: Resolver,
    mut left: BoxFuture<'static, Left>,
) -> impl Future<Output = ()> + Send {
    async move {
        let shared = &session.shared;
        let books = shared.requests.begin();
        let first = poll_fn(|cx| resolver.frame_stream.poll_next(cx));
        let first = within(shared.limits.header_time, first).await;
        let (routed, mut stream) = match open(&session, resolver, first) {
            Ok(opened) => opened,
            Err(error) => return note(error),
        };
        let answer = match routed {
            Err(refusal) => session.refuse(refusal),
            Ok(Route::Services) => Answer::services(&shared.overview.services()),
            Ok(Route::Nodes) => Answer::nodes(&shared.overview.nodes()),
            Ok(Route::Call(head)) => {
                let called = tokio::select! {
                    biased;
                    called = call(&session, head, &mut stream) => called,
                    _ = &mut left => Err(None),
                };
                match called {
                    Ok(answer) => answer,
                    Err(None) => {
                        stream.stop_stream(H3Code::H3_REQUEST_CANCELLED);
                        return books.left();
                    }
                    Err(Some(error)) => return note(error),
                }
            }
        };
        let body = match send_head(&mut stream, answer) {
            Ok(body) => body,
            Err(error) => return note(error),
        };
        match within(shared.limits.answer_time, send_body(&mut stream, body)).await {
            Ok(Ok(())) => books.answered(),
            Ok(Err(StreamError::RemoteTerminate { .. } | StreamError::ConnectionError(_))) => return books.left(),
            Ok(Err(error)) => return note(error),
            Err(TimeUp) => return stream.stop_stream(H3Code::H3_REQUEST_CANCELLED),
        }
        if session.is_draining() {
            // Closing the connection would take back what the client has not acknowledged.
            let _ = within(super::pump::FAREWELL, left).await;
        }
    }
}

fn note(error: StreamError) {
    tracing::debug!(target: "plimsoll::mesh", %error, "request broken off");
}

type FirstFrame = Result<Option<Frame<PayloadLen>>, FrameStreamError>;

/// From the first frame, if it came in time, to the route and the stream to answer on.
fn open(
    session: &Session,
    resolver: Resolver,
    first: Result<FirstFrame, TimeUp>,
) -> Result<(Result<Route, Refusal>, RequestStream), StreamError> {
    let in_time = first.is_ok();
    // h3 gives a stream to answer on only for a header section; one that is late is replaced by the shortest there is.
    let frame = first.unwrap_or_else(|TimeUp| Ok(Some(Frame::Headers(Bytes::from_static(GET_ROOT)))));
    let (request, stream) = at_once(resolver.accept_with_frame(frame)?.resolve())?;
    let routed = if !in_time {
        Err(Problem::new(Code::SlowRequest, "the header section did not arrive in time").into())
    } else if session.is_draining() {
        Err(Problem::new(Code::ShuttingDown, "the node is stopping").into())
    } else {
        routes::route(&request.into_parts().0, &session.shared.limits)
    };
    Ok((routed, stream))
}

/// The end of a step of h3's that is async only because it sends the head of a response, which our stream takes at once.
fn at_once<T>(step: impl Future<Output = Result<T, StreamError>>) -> Result<T, StreamError> {
    step.now_or_never().unwrap_or_else(|| Err(StreamError::Undefined("the head of a response had to wait".into())))
}

/// `GET https://x/`: three entries of QPACK's static table, and the name of a fourth with a value (RFC 9204, 4.5).
const GET_ROOT: &[u8] = &[0x00, 0x00, 0xc0 | 17, 0xc0 | 23, 0xc0 | 1, 0x50, 1, b'x'];

/// One call, up to its answer. `Err(None)`: the client has reset the request.
async fn call(
    session: &Arc<Session>,
    head: CallHead,
    stream: &mut RequestStream,
) -> Result<Answer, Option<StreamError>> {
    let shared = &session.shared;
    let deadline = Instant::now() + head.deadline;
    let time = shared.limits.body_time.min(head.deadline);
    let mut body = match within(time, Body::read(shared, stream, head.content_length)).await {
        Ok(Ok(body)) => body,
        Ok(Err(BodyError::Refused(problem))) => return Ok(session.refuse(problem.into())),
        Ok(Err(BodyError::Stream(StreamError::RemoteTerminate { code }))) if code != H3Code::H3_EXCESSIVE_LOAD => {
            return Err(None);
        }
        Ok(Err(BodyError::Stream(error))) => return Err(Some(error)),
        Err(TimeUp) if time == head.deadline => return Ok(session.refuse(deadline_passed().into())),
        Err(TimeUp) => {
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

fn dispatch(session: &Session, request: Request) -> impl Future<Output = Answer> + Send {
    let dispatch = &session.shared.dispatch;
    // What is behind may panic as its future is made, or as it is polled; both end here.
    let serving = std::panic::catch_unwind(AssertUnwindSafe(|| dispatch.dispatch(request)));
    async move {
        let Ok(serving) = serving else { return panicked(session) };
        let outcome = tokio::select! {
            biased;
            served = AssertUnwindSafe(serving).catch_unwind() => served,
            () = session.expire.cancelled() => {
                Ok(Err(Problem::new(Code::ShuttingDown, "the node stopped before the call ended")))
            }
        };
        match outcome {
            Ok(Ok(response)) => Answer::served(response),
            Ok(Err(problem)) => session.refuse(problem.into()),
            Err(_panic) => panicked(session),
        }
    }
}

fn panicked(session: &Session) -> Answer {
    session.shared.requests.panicked();
    session.refuse(Problem::new(Code::WorkerPanicked, "the router panicked").into())
}

fn deadline_passed() -> Problem {
    Problem::new(Code::Deadline, "the deadline passed before the body had arrived")
}

fn send_head(stream: &mut RequestStream, answer: Answer) -> Result<Bytes, StreamError> {
    at_once(stream.send_response(answer.head))?;
    Ok(answer.body)
}

async fn send_body(stream: &mut RequestStream, body: Bytes) -> Result<(), StreamError> {
    if !body.is_empty() {
        stream.send_data(body).await?;
    }
    stream.finish().await
}

impl Session {
    fn refuse(&self, refusal: Refusal) -> Answer {
        self.shared.requests.refused(refusal.problem.code);
        Answer::refused(refusal, self.shared.node)
    }
}

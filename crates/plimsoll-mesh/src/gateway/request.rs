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

use super::Limits;
use super::account::Charge;
use super::advertise;
use super::answer::Answer;
use super::body::{Body, BodyError};
use super::fields;
use super::pump::Session;
use super::routes::{self, CallHead, PublishHead, Refusal, Route};
use super::subscribe;
use super::within::{TimeUp, within};
use crate::controls::switched_off;
use crate::http3::{Connection, Left, SendStream, pseudo_fault};
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
    mut send: SendStream,
    mut left: BoxFuture<'static, Left>,
) -> impl Future<Output = ()> + Send {
    async move {
        let shared = &session.shared;
        let books = shared.requests.begin();
        if switched_off("caller-death") {
            left = Box::pin(std::future::pending());
        }
        // Kept until the answer is on its way: dropping it wakes the pump, which would come before the transport.
        let mut received = None;
        let first = poll_fn(|cx| resolver.frame_stream.poll_next(cx));
        let answer = match within(shared.limits.header_time, first).await {
            Ok(frame) => match open(&session, resolver, frame) {
                // In boxes: they are rare, and what they hold would be part of every request.
                Ok((Route::Services, _)) => advertise::services(shared).map_err(Broken::from),
                Ok((Route::Advertisement(name, change), _)) => {
                    advertise::change(shared, &session.client, name, change).boxed().await.map_err(Broken::from)
                }
                Ok((Route::Nodes, _)) => Ok(Answer::nodes(&shared.overview.nodes())),
                Ok((Route::Call(head), stream)) => {
                    let stream = received.insert(stream);
                    tokio::select! {
                        biased;
                        called = call(&session, head, stream) => called,
                        _ = &mut left => Err(Broken::Left),
                    }
                }
                // Boxed, so that a call's task holds no room for what calls never need.
                Ok((Route::Publish(head), mut stream)) => {
                    tokio::select! {
                        biased;
                        published = Box::pin(publish(&session, head, &mut stream)) => published,
                        _ = &mut left => Err(Broken::Left),
                    }
                }
                Ok((Route::Subscribe(filter), _)) => match subscribe::begin(&session, filter).boxed().await {
                    Ok(begun) => {
                        return match Box::pin(subscribe::serve(&session, begun, &mut send, left)).await {
                            subscribe::Ended::Told => books.answered(),
                            subscribe::Ended::Left => books.left(),
                        };
                    }
                    Err(problem) => Err(problem.into()),
                },
                Err(broken) => Err(broken),
            },
            Err(TimeUp) => {
                drop(resolver);
                Err(Problem::new(Code::SlowRequest, "the header section did not arrive in time").into())
            }
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(Broken::Refused(refusal)) => session.refuse(*refusal),
            Err(Broken::Left) => {
                send.abandon(H3Code::H3_REQUEST_CANCELLED);
                return books.left();
            }
            Err(Broken::Stream(error)) => return note(&mut send, &error),
        };
        let (answer, charge) = session.charge(answer);
        let charged = (!charge.is_empty()).then(Instant::now);
        let sent = within(shared.limits.answer_time, answer.send(&mut send)).await;
        let arrived = match (sent, charged) {
            (Ok(Ok(())), Some(since)) => {
                // The transport holds all of it for as long as its last byte is not acknowledged.
                let rest = shared.limits.answer_time.saturating_sub(since.elapsed());
                within(rest, &mut left).await.map(|left| matches!(left, Left::Answered))
            }
            (sent, _) => sent.map(|sent| sent.is_ok()),
        };
        match arrived {
            Ok(true) => books.answered(),
            Ok(false) => {
                // Even of a connection that is lost the transport keeps what was not acknowledged, for a while.
                send.abandon(H3Code::H3_REQUEST_CANCELLED);
                return books.left();
            }
            Err(TimeUp) => return send.abandon(H3Code::H3_REQUEST_CANCELLED),
        }
        if charged.is_none() && session.is_draining() {
            // Closing the connection would take back what the client has not acknowledged.
            let _ = within(super::pump::FAREWELL, left).await;
        }
    }
}

/// Why a request gets no answer of its service.
enum Broken {
    /// It is told.
    Refused(Box<Refusal>),
    /// The client has gone.
    Left,
    /// Its message is malformed, a frame of it was refused, or the connection is lost.
    Stream(StreamError),
}

impl<R: Into<Refusal>> From<R> for Broken {
    fn from(refusal: R) -> Self {
        Self::Refused(Box::new(refusal.into()))
    }
}

/// Ends the stream with the code that the error calls for.
fn note(send: &mut SendStream, error: &StreamError) {
    tracing::debug!(target: "plimsoll::mesh", %error, "request broken off");
    match error {
        StreamError::StreamError { code, .. } | StreamError::RemoteTerminate { code } => send.abandon(*code),
        _ => send.abandon(H3Code::H3_INTERNAL_ERROR),
    }
}

type FirstFrame = Result<Option<Frame<PayloadLen>>, FrameStreamError>;

/// From the first frame to the route and the body's stream.
fn open(session: &Session, resolver: Resolver, first: FirstFrame) -> Result<(Route, RequestStream), Broken> {
    let pseudo = match &first {
        Ok(Some(Frame::Headers(section))) => pseudo_fault(section),
        _ => None,
    };
    let resolved = resolver.accept_with_frame(first).map_err(stream_error)?.resolve();
    // It is async only because it may answer by itself, which goes nowhere: the sending half is not h3's.
    let resolved = resolved.now_or_never().unwrap_or(Err(StreamError::RemoteClosing));
    let (request, mut stream) = match resolved {
        Ok(resolved) => resolved,
        Err(StreamError::HeaderTooBig { actual_size, .. }) => {
            let detail = format!("a header section of {actual_size} bytes or more");
            return Err(Problem::new(Code::HeadersTooLarge, detail).into());
        }
        Err(error) => return Err(stream_error(error)),
    };
    let malformed = match (pseudo, fields::of_another_version(request.headers())) {
        (Some(fault), _) => Some(format!("a request with {fault} is malformed (RFC 9114, 4.3)")),
        (None, Some(name)) => Some(format!("a request with the field {name} is malformed in HTTP/3 (RFC 9114, 4.2)")),
        (None, None) => None,
    };
    if let Some(words) = malformed {
        // It may be told before the stream ends (RFC 9114, 4.1.2).
        stream.stop_sending(H3Code::H3_MESSAGE_ERROR);
        return Err(Problem::new(Code::BadFrame, words).into());
    }
    if session.is_draining() {
        return Err(Problem::new(Code::ShuttingDown, "the node is stopping").into());
    }
    Ok((routes::route(&request.into_parts().0, &session.shared.limits)?, stream))
}

/// A stream that the client has reset is a client that left; the frame guard uses a code of its own.
fn stream_error(error: StreamError) -> Broken {
    match error {
        StreamError::RemoteTerminate { code } if code != H3Code::H3_EXCESSIVE_LOAD => Broken::Left,
        error => Broken::Stream(error),
    }
}

/// One call, up to its answer.
async fn call(session: &Arc<Session>, head: CallHead, stream: &mut RequestStream) -> Result<Answer, Broken> {
    let shared = &session.shared;
    let deadline = Instant::now() + head.deadline;
    let time = shared.limits.body_time.min(head.deadline);
    let mut body = match within(time, Body::read(session, stream, head.content_length)).await {
        Err(TimeUp) if time == head.deadline => {
            return Err(Problem::new(Code::Deadline, "the deadline passed before the body had arrived").into());
        }
        read => arrived(read)?,
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
        caller: Caller::Client(session.client.nth()),
    };
    let answer = dispatch(session, request).await;
    Ok(if named { answer.with_call_id(&call_id) } else { answer })
}

/// One message, up to the word how many it reached.
async fn publish(session: &Session, head: PublishHead, stream: &mut RequestStream) -> Result<Answer, Broken> {
    let shared = &session.shared;
    let PublishHead { topic, content_type, content_length } = head;
    let mut body = arrived(within(shared.limits.body_time, Body::read(session, stream, content_length)).await)?;
    let reached = shared.pubsub.publish(&topic, content_type.as_deref(), &body.bytes());
    reached.map(Answer::published).map_err(|error| Problem::new(Code::BodyTooLarge, error.to_string()).into())
}

fn arrived(read: Result<Result<Body<'_>, BodyError>, TimeUp>) -> Result<Body<'_>, Broken> {
    match read {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(BodyError::Refused(problem))) => Err(problem.into()),
        Ok(Err(BodyError::Stream(error))) => Err(stream_error(error)),
        Err(TimeUp) => Err(Problem::new(Code::SlowRequest, "the body did not arrive in time").into()),
    }
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

impl Session {
    fn refuse(&self, refusal: Refusal) -> Answer {
        self.shared.requests.refused(refusal.problem.code);
        Answer::refused(refusal, self.shared.node)
    }

    /// An answer and its bytes in the account, to be kept until the client has it; a refusal in its place if they are too
    /// many.
    fn charge(&self, answer: Answer) -> (Answer, Charge<'_>) {
        let mut charge = self.shared.answers.charge(&self.answers);
        let bytes = answer.len();
        if bytes <= Limits::FREE_ANSWER {
            return (answer, charge);
        }
        match charge.grow(bytes) {
            Ok(()) => (answer, charge),
            Err(refused) => {
                let words = format!("the request was served, but its answer was dropped: {refused}");
                let refusal = refused.problem(Code::WorkerDied, words);
                (self.refuse(refusal.into()).in_place_of(answer), charge)
            }
        }
    }
}

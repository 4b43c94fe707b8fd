//! One request: the task that holds its stream.
//!
//! It reads the head and the body, hands the request to a worker, watches whether the client leaves, and sends the response.
//! It does no work of its own, so nothing that may panic owns the stream: a panic of a worker or of a backend is caught
//! before it reaches the stream, and any other would reset it, never end it cleanly.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use h3::error::{Code as H3Code, StreamError};
use h3::frame::FrameStreamError;
use h3::proto::frame::{Frame, PayloadLen};
use parking_lot::Mutex;

use super::connection_context::{ConnectionContext, Tracking};
use super::lazy_timeout::{Elapsed, lazy_timeout};
use super::limits::CLOSE_TIMEOUT;
use super::request_body::{RequestBody, RequestStream, Resolver};
use super::request_counters::InFlight;
use super::request_failure::RequestFailure;
use super::request_head::{self, Route};
use super::request_workers::Served;
use super::response::HttpResponse;
use super::routes::{self, StreamSlot};
use crate::http3::{SendStream, StreamEnd, pseudo_fault};
use crate::problem::{Code, Problem};
use crate::pubsub::Filter;

/// A subscription lasts as long as its client wants. A worker has a deadline, so it has the longest that makes sense.
const SUBSCRIPTION_DEADLINE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Handles one request from the first byte of its stream to the last. `stream_end` completes when the client stops reading
/// or is gone.
///
/// Written as a block, and in steps that do not wait wherever h3's would not: an async function stores each argument twice,
/// and a task's storage is allocated and moved for every request.
#[expect(clippy::manual_async_fn, reason = "smaller, as said above")]
pub(super) fn handle_request(
    context: Arc<ConnectionContext>,
    mut resolver: Resolver,
    mut send: SendStream,
    mut stream_end: BoxFuture<'static, StreamEnd>,
) -> impl Future<Output = ()> + Send {
    async move {
        let state = &context.state;
        let mut in_flight = state.requests.begin(&context.activity);
        // Kept until the response is on its way: dropping it wakes the driver, which would run before the transport.
        let mut received = None;
        let first_frame = poll_fn(|cx| resolver.frame_stream.poll_next(cx));
        let response = match lazy_timeout(state.limits.header_timeout, first_frame).await {
            Ok(frame) => match open(&context, &in_flight, resolver, frame) {
                Ok((Route::Call(head), stream)) => {
                    let stream = received.insert(stream);
                    tokio::select! {
                        biased;
                        called = routes::call(&context, head, stream) => called,
                        _ = &mut stream_end => Err(RequestFailure::Cancelled),
                    }
                }
                // Boxed, so that a call's task has no room for what calls never need.
                Ok((Route::Subscribe(filter), stream)) => {
                    in_flight.ended_by_client();
                    let subscribed = serve_subscription(&context, filter, stream, send, stream_end).boxed().await;
                    match subscribed {
                        Subscribed::Ended(served) => {
                            return match served {
                                Served::Cancelled => in_flight.cancelled(),
                                Served::Response(_) | Served::Streamed => in_flight.completed(),
                            };
                        }
                        Subscribed::Failed(failure, returned) => {
                            let Some(stream) = returned else { return };
                            (send, stream_end) = stream;
                            Err(failure)
                        }
                    }
                }
                Ok((route, mut stream)) => {
                    tokio::select! {
                        biased;
                        served = serve_short(&context, route, &mut stream).boxed() => served,
                        _ = &mut stream_end => Err(RequestFailure::Cancelled),
                    }
                }
                Err(failure) => Err(failure),
            },
            Err(Elapsed) => {
                drop(resolver);
                Err(Problem::new(Code::SlowRequest, "the header section did not arrive in time").into())
            }
        };
        let response = match response {
            Ok(response) => response,
            Err(RequestFailure::Problem(problem)) => context.refuse(*problem),
            Err(RequestFailure::Cancelled) => {
                send.reset_with(H3Code::H3_REQUEST_CANCELLED);
                return in_flight.cancelled();
            }
            Err(RequestFailure::Stream(error)) => return reset(&mut send, &error),
            Err(RequestFailure::Connection(code, reason)) => return context.fail(code, &reason),
        };
        let bytes = response.len();
        let (response, tracking) = context.track(response);
        let sending = Instant::now();
        let sent = lazy_timeout(state.limits.response_timeout, response.send(&mut send)).await;
        let received_by_client = match (sent, &tracking) {
            (Ok(Ok(())), Tracking::Reserved { .. } | Tracking::Unreserved) => {
                // The transport holds all of it until its last byte is acknowledged.
                let rest = state.limits.response_timeout.saturating_sub(sending.elapsed());
                lazy_timeout(rest, &mut stream_end).await.map(|end| matches!(end, StreamEnd::Acknowledged))
            }
            (sent, _) => sent.map(|sent| sent.is_ok()),
        };
        match received_by_client {
            Ok(true) => in_flight.completed(),
            Ok(false) => {
                // Even for a lost connection the transport keeps unacknowledged data for a while.
                send.reset_with(H3Code::H3_REQUEST_CANCELLED);
                return in_flight.cancelled();
            }
            Err(Elapsed) => return send.reset_with(H3Code::H3_REQUEST_CANCELLED),
        }
        if let Tracking::Listed = tracking {
            if context.is_draining() {
                // Closing the connection discards what the client has not acknowledged.
                let _ = lazy_timeout(CLOSE_TIMEOUT, stream_end).await;
            } else {
                context.list(send, stream_end, bytes);
            }
        }
    }
}

/// Reads the body of a short request and runs it in a worker.
async fn serve_short(
    context: &Arc<ConnectionContext>,
    route: Route,
    stream: &mut RequestStream,
) -> Result<HttpResponse, RequestFailure> {
    let limits = &context.state.limits;
    let announced = route.content_length();
    let read = lazy_timeout(limits.body_timeout, RequestBody::read(context, stream, announced)).await;
    let mut body = RequestBody::in_time(read)?;
    let job = routes::job(context, route, body.bytes());
    let Some(job) = job else { return Err(Problem::new(Code::WorkerDied, "the route has no worker").into()) };
    match context.state.workers.run(job, limits.deadline).await? {
        Served::Response(response) => Ok(response),
        Served::Streamed | Served::Cancelled => Err(RequestFailure::Cancelled),
    }
}

/// How the task of a subscription goes on.
enum Subscribed {
    /// The worker has sent everything.
    Ended(Served),
    /// There is no subscription. The stream, unless a worker had it.
    Failed(RequestFailure, Option<(SendStream, BoxFuture<'static, StreamEnd>)>),
}

/// Reads the rest of a subscription's request and runs it in a worker.
async fn serve_subscription(
    context: &Arc<ConnectionContext>,
    filter: Filter,
    mut stream: RequestStream,
    send: SendStream,
    mut stream_end: BoxFuture<'static, StreamEnd>,
) -> Subscribed {
    let state = &context.state;
    let read = lazy_timeout(state.limits.body_timeout, RequestBody::read(context, &mut stream, None));
    let read = tokio::select! {
        biased;
        read = read => RequestBody::in_time(read).map(drop),
        _ = &mut stream_end => Err(RequestFailure::Cancelled),
    };
    if let Err(failure) = read {
        return Subscribed::Failed(failure, Some((send, stream_end)));
    }
    let slot: StreamSlot = Arc::new(Mutex::new(Some((send, stream_end))));
    match state.subscriptions.run(routes::subscribe(context, filter, &slot), SUBSCRIPTION_DEADLINE).await {
        Ok(served) => Subscribed::Ended(served),
        Err(failure) => {
            let stream = slot.lock().take();
            Subscribed::Failed(failure, stream)
        }
    }
}

/// Resets the stream with the code of the error.
fn reset(send: &mut SendStream, error: &StreamError) {
    tracing::debug!(target: "plimsoll::mesh", %error, "request failed");
    match error {
        StreamError::StreamError { code, .. } | StreamError::RemoteTerminate { code } => send.reset_with(*code),
        _ => send.reset_with(H3Code::H3_INTERNAL_ERROR),
    }
}

type FirstFrame = Result<Option<Frame<PayloadLen>>, FrameStreamError>;

/// From the first frame to the route and the body's stream.
fn open(
    context: &ConnectionContext,
    in_flight: &InFlight<'_>,
    resolver: Resolver,
    first: FirstFrame,
) -> Result<(Route, RequestStream), RequestFailure> {
    let pseudo = match &first {
        Ok(Some(Frame::Headers(section))) => pseudo_fault(section),
        _ => None,
    };
    let resolved = resolver.accept_with_frame(first).map_err(RequestFailure::of_stream)?.resolve();
    // It is async only because it may respond itself, which has no effect: the sending half is not h3's.
    let resolved = resolved.now_or_never().unwrap_or(Err(StreamError::RemoteClosing));
    let (request, mut stream) = match resolved {
        Ok(resolved) => resolved,
        Err(StreamError::HeaderTooBig { actual_size, .. }) => {
            let detail = format!("a header section of {actual_size} bytes or more");
            return Err(Problem::new(Code::HeadersTooLarge, detail).into());
        }
        Err(error) => return Err(RequestFailure::of_stream(error)),
    };
    let malformed = match (pseudo, request_head::connection_specific_field(request.headers())) {
        (Some(fault), _) => Some(format!("a request with {fault} is malformed (RFC 9114, 4.3)")),
        (None, Some(name)) => Some(format!("a request with the field {name} is malformed in HTTP/3 (RFC 9114, 4.2)")),
        (None, None) => None,
    };
    if let Some(detail) = malformed {
        // A response may be sent before the stream ends (RFC 9114, 4.1.2).
        stream.stop_sending(H3Code::H3_MESSAGE_ERROR);
        return Err(Problem::new(Code::BadFrame, detail).into());
    }
    if context.is_draining() {
        return Err(Problem::new(Code::ShuttingDown, "the node is stopping").into());
    }
    in_flight.within_shares()?;
    Ok((request_head::route(&request.into_parts().0, &context.state.limits)?, stream))
}

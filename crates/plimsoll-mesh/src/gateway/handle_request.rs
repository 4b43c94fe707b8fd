//! One request: the task that holds its stream.
//!
//! It reads the head, hands the request to its route, watches whether the client leaves, and sends the response. It does no
//! work of its own, so nothing that may panic owns the stream: a panic of a backend is caught before it reaches the stream,
//! and any other would reset it, never end it cleanly.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use futures::future::BoxFuture;
use h3::error::{Code as H3Code, StreamError};
use h3::frame::FrameStreamError;
use h3::proto::frame::{Frame, PayloadLen};

use super::connection_context::ConnectionContext;
use super::lazy_timeout::{Elapsed, lazy_timeout};
use super::limits::CLOSE_TIMEOUT;
use super::request_body::{RequestStream, Resolver};
use super::request_failure::RequestFailure;
use super::request_head::{self, Route};
use super::routes::{self, subscribe};
use crate::controls::switched_off;
use crate::http3::{SendStream, StreamEnd, pseudo_fault};
use crate::problem::{Code, Problem};

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
        let in_flight = state.requests.begin();
        if switched_off("caller-death") {
            stream_end = Box::pin(std::future::pending());
        }
        // Kept until the response is on its way: dropping it wakes the driver, which would run before the transport.
        let mut received = None;
        let first_frame = poll_fn(|cx| resolver.frame_stream.poll_next(cx));
        let response = match lazy_timeout(state.limits.header_timeout, first_frame).await {
            Ok(frame) => match open(&context, resolver, frame) {
                Ok((Route::Call(head), stream)) => {
                    let stream = received.insert(stream);
                    tokio::select! {
                        biased;
                        called = routes::call(&context, head, stream) => called,
                        _ = &mut stream_end => Err(RequestFailure::Cancelled),
                    }
                }
                Ok((Route::Subscribe(filter), _)) => match subscribe::begin(&context, filter).boxed().await {
                    Ok(subscription) => {
                        return match Box::pin(subscribe::serve(&context, subscription, &mut send, stream_end)).await {
                            subscribe::Ended::Completed => in_flight.completed(),
                            subscribe::Ended::Cancelled => in_flight.cancelled(),
                        };
                    }
                    Err(problem) => Err(problem.into()),
                },
                // Boxed, so that a call's task has no room for what calls never need.
                Ok((route, mut stream)) => {
                    tokio::select! {
                        biased;
                        served = routes::other(&context, route, &mut stream).boxed() => served,
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
        };
        let (response, reservation) = context.reserve(response);
        let reserved_at = (!reservation.is_empty()).then(Instant::now);
        let sent = lazy_timeout(state.limits.response_timeout, response.send(&mut send)).await;
        let received_by_client = match (sent, reserved_at) {
            (Ok(Ok(())), Some(since)) => {
                // The transport holds all of it until its last byte is acknowledged.
                let rest = state.limits.response_timeout.saturating_sub(since.elapsed());
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
        if reserved_at.is_none() && context.is_draining() {
            // Closing the connection discards what the client has not acknowledged.
            let _ = lazy_timeout(CLOSE_TIMEOUT, stream_end).await;
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
    Ok((request_head::route(&request.into_parts().0, &context.state.limits)?, stream))
}

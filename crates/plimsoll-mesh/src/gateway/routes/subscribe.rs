//! `GET /v1/subscribe/{filter}`: the events of a subscription, written to its stream as they come.
//!
//! A subscriber that reads too slowly is cut off by its own backlog while this waits in a write. The last event says why if
//! the client reads on within a moment, and the code of the reset otherwise.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use h3::error::Code as H3Code;
use http::StatusCode;
use parking_lot::Mutex;
use plimsoll::bounded::Disconnected;

use crate::events::EventKind;
use crate::gateway::connection_context::ConnectionContext;
use crate::gateway::lazy_timeout::lazy_timeout;
use crate::gateway::limits::CLOSE_TIMEOUT;
use crate::gateway::request_workers::{Job, Served, WorkerKind};
use crate::gateway::sessions::SubscriptionGuard;
use crate::http3::{SendStream, StreamEnd};
use crate::problem::{Code, Problem};
use crate::pubsub::{Filter, HEARTBEAT, SubscribeError, Subscriber, cut_off_event};

/// The stream of a subscription: in the request's task until its worker runs, then in the worker. A panic there drops it,
/// which resets it.
pub(crate) type StreamSlot = Arc<Mutex<Option<(SendStream, BoxFuture<'static, StreamEnd>)>>>;

/// The work of a subscription, from its head to its last event. It takes the stream out of `slot` once it is registered.
pub(crate) fn subscribe(context: &Arc<ConnectionContext>, filter: Filter, slot: &StreamSlot) -> Job {
    let (context, slot) = (Arc::clone(context), Arc::clone(slot));
    let work = async move {
        let subscription = register(&context, filter).await?;
        let Some((send, stream_end)) = slot.lock().take() else { return Ok(Served::Cancelled) };
        Ok(serve(&context, subscription, send, stream_end).await)
    };
    Job { kind: WorkerKind::Subscribe, work: Box::pin(work) }
}

/// A subscription that is registered with its client's session and with the topics. Dropping it removes it from both.
struct Registered {
    subscriber: Subscriber,
    guard: SubscriptionGuard,
}

async fn register(context: &ConnectionContext, filter: Filter) -> Result<Registered, Problem> {
    let state = &context.state;
    let guard = state.sessions.subscribe(&context.session).await?;
    let subscriber = state.pubsub.subscribe_as(&context.consumer, filter).await.map_err(|error| {
        let code = match error {
            SubscribeError::NotRunning => Code::ShuttingDown,
            SubscribeError::Full(_) | SubscribeError::Overloaded => Code::Overloaded,
        };
        Problem::new(code, error.to_string())
    })?;
    Ok(Registered { subscriber, guard })
}

/// Serves a subscription until its client leaves, its backlog is over the limit, or the connection is drained.
///
/// Not cancel safe: dropping the future resets the stream.
async fn serve(
    context: &ConnectionContext,
    subscription: Registered,
    mut send: SendStream,
    mut stream_end: BoxFuture<'static, StreamEnd>,
) -> Served {
    let Registered { mut subscriber, guard } = subscription;
    if send.send_head(StatusCode::OK, "text/event-stream").await.is_err() {
        return Served::Cancelled;
    }
    loop {
        let event = tokio::select! {
            biased;
            _ = &mut stream_end => return Served::Cancelled,
            () = context.draining.cancelled() => Err(Disconnected::Closed),
            () = guard.ended() => return Served::Cancelled,
            next = subscriber.next() => next.unwrap_or(Err(Disconnected::Closed)),
            () = tokio::time::sleep(context.state.limits.heartbeat) => Ok(HEARTBEAT),
        };
        let written = match event {
            Ok(event) => write(context, &subscriber, &mut send, event).await,
            Err(reason) => Written::Last(reason),
        };
        let reason = match written {
            Written::Whole => continue,
            Written::Last(reason) => reason,
            Written::Cancelled => return Served::Cancelled,
            Written::Blocked(reason) => {
                record(context, reason);
                send.reset_with(H3Code::H3_EXCESSIVE_LOAD);
                return Served::Streamed;
            }
        };
        record(context, reason);
        // Its slot is free before its client reads the reason.
        drop((subscriber, guard));
        match lazy_timeout(CLOSE_TIMEOUT, send.send_data_frame(cut_off_event(reason))).await {
            Ok(Ok(())) => send.finish(),
            Ok(Err(_)) => return Served::Cancelled,
            Err(_) => send.reset_with(H3Code::H3_EXCESSIVE_LOAD),
        }
        if context.is_draining() {
            // Closing the connection discards what the client has not acknowledged.
            let _ = lazy_timeout(CLOSE_TIMEOUT, stream_end).await;
        }
        return Served::Streamed;
    }
}

/// Records why a subscriber was cut off, unless the subscription was closed in order.
fn record(context: &ConnectionContext, reason: Disconnected) {
    if reason != Disconnected::Closed {
        context.state.backends.events.record(EventKind::SubscriberCutOff, None, &reason.to_string());
    }
}

/// The result of writing one event.
enum Written {
    /// It is written.
    Whole,
    /// It is written, but the subscription is over.
    Last(Disconnected),
    /// The client left.
    Cancelled,
    /// The subscription is over, and the client does not read: part of the event is written.
    Blocked(Disconnected),
}

/// Writes an event for as long as the client takes, but no longer than its subscription lasts. The write itself ends when
/// the client leaves.
async fn write(context: &ConnectionContext, subscriber: &Subscriber, send: &mut SendStream, event: Bytes) -> Written {
    let mut writing = std::pin::pin!(send.send_data_frame(event));
    let reason = tokio::select! {
        biased;
        written = &mut writing => return if written.is_ok() { Written::Whole } else { Written::Cancelled },
        reason = subscriber.disconnected() => reason,
        () = context.draining.cancelled() => Disconnected::Closed,
    };
    match lazy_timeout(CLOSE_TIMEOUT, writing).await {
        Ok(Ok(())) => Written::Last(reason),
        Ok(Err(_)) => Written::Cancelled,
        Err(_) => Written::Blocked(reason),
    }
}

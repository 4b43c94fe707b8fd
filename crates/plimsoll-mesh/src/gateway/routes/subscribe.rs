//! `GET /v1/subscribe/{filter}`: the events of a subscription, written to its stream as they come.
//!
//! A subscriber that reads too slowly is cut off by its own backlog while this waits in a write. The last event says why if
//! the client reads on within a moment, and the code of the reset otherwise.

use bytes::Bytes;
use futures::future::BoxFuture;
use h3::error::Code as H3Code;
use http::StatusCode;
use plimsoll::bounded::Disconnected;

use crate::events::EventKind;
use crate::gateway::connection_context::ConnectionContext;
use crate::gateway::lazy_timeout::lazy_timeout;
use crate::gateway::limits::CLOSE_TIMEOUT;
use crate::gateway::sessions::SubscriptionGuard;
use crate::http3::{SendStream, StreamEnd};
use crate::problem::{Code, Problem};
use crate::pubsub::{Filter, HEARTBEAT, Subscriber, cut_off_event};

/// How a subscription ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The client got the reason, by an event or by the code of a reset.
    Completed,
    /// The client left.
    Cancelled,
}

/// A subscription that is registered with its client's session and with the topics.
pub(crate) struct Subscription {
    subscriber: Subscriber,
    guard: SubscriptionGuard,
}

/// Registers a subscription. Dropping it removes it everywhere.
///
/// Cancel safe.
pub(crate) async fn begin(context: &ConnectionContext, filter: Filter) -> Result<Subscription, Problem> {
    let state = &context.state;
    let guard = state.sessions.subscribe(&context.session).await?;
    let subscriber = state.pubsub.subscribe(filter);
    let subscriber = subscriber.map_err(|full| Problem::new(Code::Overloaded, full.to_string()))?;
    Ok(Subscription { subscriber, guard })
}

/// Serves a subscription until its client leaves, its backlog is over the limit, or the connection is drained.
///
/// Not cancel safe: dropping the future resets the stream.
pub(crate) async fn serve(
    context: &ConnectionContext,
    subscription: Subscription,
    send: &mut SendStream,
    mut stream_end: BoxFuture<'static, StreamEnd>,
) -> Ended {
    let Subscription { mut subscriber, guard } = subscription;
    if send.send_head(StatusCode::OK, "text/event-stream").await.is_err() {
        return Ended::Cancelled;
    }
    loop {
        let event = tokio::select! {
            biased;
            _ = &mut stream_end => return Ended::Cancelled,
            () = context.draining.cancelled() => Err(Disconnected::Closed),
            () = guard.ended() => return Ended::Cancelled,
            next = subscriber.next() => next.unwrap_or(Err(Disconnected::Closed)),
            () = tokio::time::sleep(context.state.limits.heartbeat) => Ok(HEARTBEAT),
        };
        let written = match event {
            Ok(event) => write(context, &subscriber, send, event).await,
            Err(reason) => Written::Last(reason),
        };
        let reason = match written {
            Written::Whole => continue,
            Written::Last(reason) => reason,
            Written::Cancelled => return Ended::Cancelled,
            Written::Blocked(reason) => {
                record(context, reason);
                send.reset_with(H3Code::H3_EXCESSIVE_LOAD);
                return Ended::Completed;
            }
        };
        record(context, reason);
        // Its slot is free before its client reads the reason.
        drop((subscriber, guard));
        match lazy_timeout(CLOSE_TIMEOUT, send.send_data_frame(cut_off_event(reason))).await {
            Ok(Ok(())) => send.finish(),
            Ok(Err(_)) => return Ended::Cancelled,
            Err(_) => send.reset_with(H3Code::H3_EXCESSIVE_LOAD),
        }
        if context.is_draining() {
            // Closing the connection discards what the client has not acknowledged.
            let _ = lazy_timeout(CLOSE_TIMEOUT, stream_end).await;
        }
        return Ended::Completed;
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

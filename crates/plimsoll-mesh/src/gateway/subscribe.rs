//! One subscription: the events of a subscriber, written to its stream as they come.
//!
//! Whoever reads too slowly is cut off by its own queue while this is stuck in a write. It is told why by the last event
//! if it reads on within a moment, and by the code of the reset otherwise.

use bytes::Bytes;
use futures::future::BoxFuture;
use h3::error::Code as H3Code;
use http::StatusCode;
use plimsoll::bounded::Disconnected;

use super::pump::{FAREWELL, Session};
use super::sessions::Subscribed;
use super::within::within;
use crate::events::EventKind;
use crate::http3::{Left, SendStream};
use crate::problem::{Code, Problem};
use crate::pubsub::{Filter, HEARTBEAT, Subscriber, cut_off_event};

/// How a subscription ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The client was told, by an event or by the code of a reset.
    Told,
    /// The client left.
    Left,
}

/// A subscription in the books of its client and in the topics.
pub(super) struct Begun {
    subscriber: Subscriber,
    subscribed: Subscribed,
}

/// Enters a subscription; what is entered is taken out again when its guard is dropped.
///
/// Cancel safe.
pub(super) async fn begin(session: &Session, filter: Filter) -> Result<Begun, Problem> {
    let shared = &session.shared;
    let subscribed = shared.clients.subscribe(&session.client).await?;
    let subscriber = shared.pubsub.subscribe(filter);
    let subscriber = subscriber.map_err(|full| Problem::new(Code::Overloaded, full.to_string()))?;
    Ok(Begun { subscriber, subscribed })
}

/// Serves a subscription until its client leaves, its queue is over its limit, or the connection is being closed.
///
/// Not cancel safe: dropped, it resets the stream.
pub(super) async fn serve(
    session: &Session,
    begun: Begun,
    send: &mut SendStream,
    mut left: BoxFuture<'static, Left>,
) -> Ended {
    let Begun { mut subscriber, subscribed } = begun;
    if send.begin(StatusCode::OK, "text/event-stream").await.is_err() {
        return Ended::Left;
    }
    loop {
        let event = tokio::select! {
            biased;
            _ = &mut left => return Ended::Left,
            () = session.draining.cancelled() => Err(Disconnected::Closed),
            () = subscribed.ended() => return Ended::Left,
            next = subscriber.next() => next.unwrap_or(Err(Disconnected::Closed)),
            () = tokio::time::sleep(session.shared.limits.heartbeat) => Ok(HEARTBEAT),
        };
        let written = match event {
            Ok(event) => write(session, &subscriber, send, event).await,
            Err(why) => Written::Over(why),
        };
        let why = match written {
            Written::Whole => continue,
            Written::Over(why) => why,
            Written::Left => return Ended::Left,
            Written::Stuck(why) => {
                if why != Disconnected::Closed {
                    session.shared.events.record(EventKind::SubscriberCutOff, None, &why.to_string());
                }
                send.abandon(H3Code::H3_EXCESSIVE_LOAD);
                return Ended::Told;
            }
        };
        if why != Disconnected::Closed {
            session.shared.events.record(EventKind::SubscriberCutOff, None, &why.to_string());
        }
        // Its place in the table is free before its client knows.
        drop((subscriber, subscribed));
        match within(FAREWELL, send.piece(cut_off_event(why))).await {
            Ok(Ok(())) => send.end(),
            Ok(Err(_)) => return Ended::Left,
            Err(_) => send.abandon(H3Code::H3_EXCESSIVE_LOAD),
        }
        if session.is_draining() {
            // Closing the connection would take back what the client has not acknowledged.
            let _ = within(FAREWELL, left).await;
        }
        return Ended::Told;
    }
}

/// What became of an event.
enum Written {
    /// It is out.
    Whole,
    /// It is out, but the subscription is over.
    Over(Disconnected),
    /// The client left.
    Left,
    /// The subscription is over, and the client does not read: half of the event is out.
    Stuck(Disconnected),
}

/// Writes an event, for as long as the client takes, but no longer than its subscription lasts. The write itself ends
/// when the client leaves.
async fn write(session: &Session, subscriber: &Subscriber, send: &mut SendStream, event: Bytes) -> Written {
    let mut writing = std::pin::pin!(send.piece(event));
    let why = tokio::select! {
        biased;
        written = &mut writing => return if written.is_ok() { Written::Whole } else { Written::Left },
        why = subscriber.disconnected() => why,
        () = session.draining.cancelled() => Disconnected::Closed,
    };
    match within(FAREWELL, writing).await {
        Ok(Ok(())) => Written::Over(why),
        Ok(Err(_)) => Written::Left,
        Err(_) => Written::Stuck(why),
    }
}

//! Replies that come in parts, no faster than the caller takes them.
//!
//! A streaming reply is one call: the request carries the [`Sink`] into which the service puts items while it works, and
//! what the service returns ends the stream. So a stream has all that a call has: one deadline, a linked worker, exactly
//! one outcome. Demand is a bounded channel: when the caller does not take, the worker waits.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use tokio::sync::mpsc;

use super::shared::Settled;
use super::{CallClient, CallError, Calling, Protocol};

/// Where a service puts the items of a streaming reply.
#[derive(Debug)]
pub struct Sink<T>(mpsc::Sender<T>);

/// The caller takes no more items; the item comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the caller takes no more items")]
pub struct NotTaken<T>(pub T);

impl<T> Sink<T> {
    /// Hands an item over; waits while as many as were asked for are on their way.
    ///
    /// # Errors
    /// [`NotTaken`] when the caller has left.
    ///
    /// Cancel safe: an item whose future is dropped was not handed over.
    pub async fn send(&self, item: T) -> Result<(), NotTaken<T>> {
        self.0.send(item).await.map_err(|mpsc::error::SendError(item)| NotTaken(item))
    }

    /// How many items could be handed over now without waiting.
    pub fn demand(&self) -> usize {
        self.0.capacity()
    }
}

/// What a streaming reply brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part<T, R> {
    /// One item.
    Item(T),
    /// The service's own return: the last part.
    End(R),
}

/// The caller's end of a streaming reply. Dropping it gives the call up and stops its worker.
#[must_use = "a stream that is not polled is never asked for"]
pub struct ReplyStream<T, P: Protocol> {
    items: mpsc::Receiver<T>,
    call: Option<Calling<P>>,
    ended: Option<Settled<P>>,
}

impl<P: Protocol> CallClient<P> {
    /// Calls for a streaming reply. The deadline, the server's default or that of [`with_deadline`](Self::with_deadline), holds for the
    /// whole stream.
    ///
    /// At most `demand` items (at least one) are on their way at a time. `request` makes the request from the sink.
    pub fn stream<T: Send + 'static>(
        &self,
        demand: usize,
        request: impl FnOnce(Sink<T>) -> P::Request,
    ) -> ReplyStream<T, P> {
        let (sink, items) = mpsc::channel(demand.max(1));
        ReplyStream { items, call: Some(self.call(request(Sink(sink)))), ended: None }
    }
}

impl<T, P: Protocol> Stream for ReplyStream<T, P> {
    type Item = Result<Part<T, P::Reply>, CallError<P::Error>>;

    /// The items in order, then exactly one end: [`Part::End`] or an error. Items that were handed over before the end
    /// are never lost.
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(call) = &mut this.call
            && let Poll::Ready(settled) = Pin::new(call).poll(cx)
        {
            this.call = None;
            // The worker may hold its sink a moment longer; what it puts there after the end is not wanted.
            this.items.close();
            this.ended = Some(settled);
        }
        match this.items.poll_recv(cx) {
            Poll::Ready(Some(item)) => Poll::Ready(Some(Ok(Part::Item(item)))),
            _ if this.call.is_some() => Poll::Pending,
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => Poll::Ready(this.ended.take().map(|settled| settled.map(Part::End))),
        }
    }
}

impl<T, P: Protocol> Unpin for ReplyStream<T, P> {}

impl<T, P: Protocol> fmt::Debug for ReplyStream<T, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyStream").field("ended", &self.call.is_none()).finish_non_exhaustive()
    }
}

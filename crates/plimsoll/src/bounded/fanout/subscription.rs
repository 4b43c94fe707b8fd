//! The subscriber's side.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use plimsoll_sync::slots::SlotKey;

use super::subscriber::{Next, Subscriber};
use super::{Disconnected, FanoutInner};

/// One subscription. Dropping it removes the subscriber from the table at once.
#[derive(Debug)]
#[must_use = "a dropped subscription is over"]
pub struct Subscription {
    subscriber: Arc<Subscriber>,
    key: SlotKey,
    /// Its key in the budget.
    registered: SlotKey,
    fanout: Arc<FanoutInner>,
    ended: bool,
}

impl Subscription {
    pub(super) fn new(
        subscriber: Arc<Subscriber>,
        key: SlotKey,
        registered: SlotKey,
        fanout: Arc<FanoutInner>,
    ) -> Self {
        Self { subscriber, key, registered, fanout, ended: false }
    }

    /// The next message; then, once, why the subscription ended; then `None`.
    ///
    /// Asking for the next message says that the one before has been dealt with.
    ///
    /// Cancel safe: a message that was not returned is still there.
    pub async fn next(&mut self) -> Option<Result<Bytes, Disconnected>> {
        std::future::poll_fn(|context| self.poll_message(context)).await
    }

    /// What [`next`](Self::next) would return without waiting; `None` when there is nothing to return yet.
    pub fn try_next(&mut self) -> Option<Result<Bytes, Disconnected>> {
        match self.subscriber.take(None) {
            Next::Message(message) => Some(Ok(message)),
            Next::End(reason) if !std::mem::replace(&mut self.ended, true) => Some(Err(reason)),
            Next::End(_) | Next::Nothing => None,
        }
    }

    /// Waits until the subscriber is disconnected, whether or not it reads.
    ///
    /// For a reader that is blocked while it passes on an earlier message: it races that write against this future, and ends
    /// its connection at once.
    ///
    /// Cancel safe.
    pub async fn disconnected(&self) -> Disconnected {
        std::future::poll_fn(|context| match self.subscriber.end(Some(context.waker())) {
            Some(reason) => Poll::Ready(reason),
            None => Poll::Pending,
        })
        .await
    }

    fn poll_message(&mut self, context: &Context<'_>) -> Poll<Option<Result<Bytes, Disconnected>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        match self.subscriber.take(Some(context.waker())) {
            Next::Message(message) => Poll::Ready(Some(Ok(message))),
            Next::End(reason) => {
                self.ended = true;
                Poll::Ready(Some(Err(reason)))
            }
            Next::Nothing => Poll::Pending,
        }
    }
}

impl Stream for Subscription {
    type Item = Result<Bytes, Disconnected>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_message(context)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.fanout.leave(self.key);
        self.fanout.budget.deregister(self.registered);
        self.subscriber.left();
    }
}

//! The subscriber's side.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use plimsoll_sync::slots::SlotKey;

use super::slot::{Found, Slot};
use super::{CutOff, Shared};

/// One subscriber. Dropping it takes it out of the table at once.
#[derive(Debug)]
#[must_use = "a dropped subscription is over"]
pub struct Subscription {
    slot: Arc<Slot>,
    key: SlotKey,
    shared: Arc<Shared>,
    told: bool,
}

impl Subscription {
    pub(super) fn new(slot: Arc<Slot>, key: SlotKey, shared: Arc<Shared>) -> Self {
        Self { slot, key, shared, told: false }
    }

    /// The next message; then, once, why it ended; then `None`.
    ///
    /// Cancel safe: a message that was not returned is still there.
    pub async fn next(&mut self) -> Option<Result<Bytes, CutOff>> {
        std::future::poll_fn(|context| self.poll_message(context)).await
    }

    /// What [`next`](Self::next) would return without waiting; `None` when there is nothing to return yet.
    pub fn try_next(&mut self) -> Option<Result<Bytes, CutOff>> {
        match self.slot.take(None) {
            Found::Message(message) => Some(Ok(message)),
            Found::End(reason) if !std::mem::replace(&mut self.told, true) => Some(Err(reason)),
            Found::End(_) | Found::Nothing => None,
        }
    }

    /// Waits until the subscriber is cut off, whether or not it reads.
    ///
    /// For whoever is stuck in passing on an earlier message: raced against that, it ends the connection at once.
    ///
    /// Cancel safe.
    pub async fn cut_off(&self) -> CutOff {
        std::future::poll_fn(|context| match self.slot.end(Some(context.waker())) {
            Some(reason) => Poll::Ready(reason),
            None => Poll::Pending,
        })
        .await
    }

    fn poll_message(&mut self, context: &Context<'_>) -> Poll<Option<Result<Bytes, CutOff>>> {
        if self.told {
            return Poll::Ready(None);
        }
        match self.slot.take(Some(context.waker())) {
            Found::Message(message) => Poll::Ready(Some(Ok(message))),
            Found::End(reason) => {
                self.told = true;
                Poll::Ready(Some(Err(reason)))
            }
            Found::Nothing => Poll::Pending,
        }
    }
}

impl Stream for Subscription {
    type Item = Result<Bytes, CutOff>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_message(context)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shared.leave(self.key);
    }
}

//! The bytes of a budget: what is reserved for payloads and queues, and what disconnected readers have yet to release.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;

use crate::bounded::{ByteCap, Cap, Counters, Gauge, events};

events! {
    /// What a `BacklogBudget` counts.
    pub enum BacklogEvent {
        /// A consumer was disconnected because it held the most when the budget was exceeded.
        ConsumersDisconnected = "consumers_disconnected",
        /// A message was refused: the payloads of disconnected consumers are not released yet.
        RefusedFull = "refused_full",
        /// A message was refused: it alone is over the budget.
        RefusedTooLarge = "refused_too_large",
        /// A subscription was refused: there are as many as may be.
        RefusedSubscription = "refused_subscription",
    }
}

/// The bytes of one budget, with its counters.
#[derive(Debug)]
pub(super) struct BudgetBytes {
    counters: Counters<BacklogEvent>,
    /// Bytes in the hands of readers that were disconnected and have not dropped them yet.
    releasing: AtomicU64,
}

impl BudgetBytes {
    pub(super) fn new(name: &str, subscriptions: Cap, bytes: ByteCap) -> Self {
        Self { counters: Counters::with_bytes(name, subscriptions, bytes), releasing: AtomicU64::new(0) }
    }

    pub(super) fn counters(&self) -> &Counters<BacklogEvent> {
        &self.counters
    }

    pub(super) fn gauge(&self) -> &Gauge {
        // INVARIANT: made with a cap in bytes.
        self.counters.bytes().unwrap_or_else(|| self.counters.entries())
    }

    /// Whether `more` bytes fit now.
    pub(super) fn fits(&self, more: u64) -> bool {
        let reading = self.gauge().read();
        reading.used + more <= reading.cap
    }

    /// Whether `more` bytes fit once disconnected readers have dropped what they hold.
    pub(super) fn fits_after_release(&self, more: u64) -> bool {
        let reading = self.gauge().read();
        (reading.used + more).saturating_sub(self.releasing.load(Relaxed)) <= reading.cap
    }

    /// A reader was disconnected while it holds a message of this weight.
    pub(super) fn expect_release(&self, bytes: usize) {
        self.releasing.fetch_add(bytes as u64, Relaxed);
    }

    /// It has dropped that message.
    pub(super) fn released(&self, bytes: usize) {
        self.releasing.fetch_sub(bytes as u64, Relaxed);
    }
}

/// A payload whose bytes, which were reserved before, are released with its last reference.
pub(super) struct ReservedPayload {
    payload: Bytes,
    budget: Arc<BudgetBytes>,
}

impl ReservedPayload {
    /// The payload as a reference to the same bytes.
    pub(super) fn reference(payload: Bytes, budget: Arc<BudgetBytes>) -> Bytes {
        Bytes::from_owner(Self { payload, budget })
    }
}

impl AsRef<[u8]> for ReservedPayload {
    fn as_ref(&self) -> &[u8] {
        &self.payload
    }
}

impl Drop for ReservedPayload {
    fn drop(&mut self) {
        self.budget.gauge().sub(self.payload.len() as u64);
    }
}

/// The bytes that are reserved for the storage of one queue.
#[derive(Debug)]
pub(super) struct StorageReservation {
    budget: Arc<BudgetBytes>,
    bytes: usize,
}

impl StorageReservation {
    pub(super) fn new(budget: Arc<BudgetBytes>) -> Self {
        Self { budget, bytes: 0 }
    }

    /// Reserves `bytes` in place of what was reserved. Touches the shared gauge only when that differs.
    pub(super) fn set(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.budget.gauge().add((bytes - self.bytes) as u64);
        } else if bytes < self.bytes {
            self.budget.gauge().sub((self.bytes - bytes) as u64);
        }
        self.bytes = bytes;
    }
}

impl Drop for StorageReservation {
    fn drop(&mut self) {
        self.set(0);
    }
}

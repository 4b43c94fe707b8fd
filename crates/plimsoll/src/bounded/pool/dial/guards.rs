//! What must be given back, also by a caller that gives up or a task that panics.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::shared::{Shared, now};
use super::{Connect, Key, LeaseError};
use crate::bounded::pool::{CloseOutcome, Closing, Creation, Lease, WaitKey};

/// A handle that is leased from a [`DialPool`](super::DialPool) and goes back when this is dropped.
#[must_use = "the handle goes back when this is dropped"]
pub struct DialLease<K: Key, C: Connect<K>> {
    shared: Arc<Shared<K, C>>,
    lease: Option<Lease>,
    handle: C::Handle,
}

impl<K: Key, C: Connect<K>> DialLease<K, C> {
    pub(super) fn new(shared: Arc<Shared<K, C>>, lease: Lease, handle: C::Handle) -> Self {
        Self { shared, lease: Some(lease), handle }
    }

    pub(super) fn take(&mut self) -> Option<Lease> {
        self.lease.take()
    }

    /// Gives the handle back as broken: nobody new gets it, and it is closed after its last lease.
    pub fn discard(mut self) {
        if let Some(lease) = self.lease.take() {
            self.shared.act(|state| state.pool.discard(lease, now()));
        }
    }
}

impl<K: Key, C: Connect<K>> Deref for DialLease<K, C> {
    type Target = C::Handle;

    fn deref(&self) -> &C::Handle {
        &self.handle
    }
}

impl<K: Key, C: Connect<K>> Drop for DialLease<K, C> {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.shared.act(|state| state.pool.release(lease, now()));
        }
    }
}

impl<K: Key, C: Connect<K>> fmt::Debug for DialLease<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DialLease").field("lease", &self.lease).finish_non_exhaustive()
    }
}

/// Ends a creation whose future panicked or was dropped.
pub(super) struct Dialling<K: Key, C: Connect<K>> {
    shared: Arc<Shared<K, C>>,
    creation: Option<Creation>,
}

impl<K: Key, C: Connect<K>> Dialling<K, C> {
    pub(super) fn new(shared: Arc<Shared<K, C>>, creation: Creation) -> Self {
        Self { shared, creation: Some(creation) }
    }

    pub(super) fn take(&mut self) -> Option<Creation> {
        let creation = self.creation.take()?;
        self.shared.lock().dials.remove(&creation.entry());
        Some(creation)
    }
}

impl<K: Key, C: Connect<K>> Drop for Dialling<K, C> {
    fn drop(&mut self) {
        if let Some(creation) = self.take() {
            self.shared.tell(creation, &LeaseError::Panicked);
        }
    }
}

/// Ends a closing, also one whose future panicked or was dropped.
pub(super) struct ClosingGuard<K: Key, C: Connect<K>> {
    shared: Arc<Shared<K, C>>,
    closing: Option<Closing>,
    outcome: CloseOutcome,
}

impl<K: Key, C: Connect<K>> ClosingGuard<K, C> {
    pub(super) fn new(shared: Arc<Shared<K, C>>, closing: Closing) -> Self {
        Self { shared, closing: Some(closing), outcome: CloseOutcome::Failed }
    }

    pub(super) fn ended(&mut self, outcome: CloseOutcome) {
        self.outcome = outcome;
    }
}

impl<K: Key, C: Connect<K>> Drop for ClosingGuard<K, C> {
    fn drop(&mut self) {
        if let Some(closing) = self.closing.take() {
            self.shared.act(|state| state.pool.closed(closing, self.outcome));
        }
    }
}

/// Takes a caller that gives up out of its queue.
pub(super) struct Waiting<'a, K: Key, C: Connect<K>> {
    shared: &'a Arc<Shared<K, C>>,
    wait: Option<WaitKey>,
}

impl<'a, K: Key, C: Connect<K>> Waiting<'a, K, C> {
    pub(super) fn new(shared: &'a Arc<Shared<K, C>>, wait: WaitKey) -> Self {
        Self { shared, wait: Some(wait) }
    }

    /// The answer is there.
    pub(super) fn over(&mut self) {
        self.wait = None;
    }
}

impl<K: Key, C: Connect<K>> Drop for Waiting<'_, K, C> {
    fn drop(&mut self) {
        if let Some(wait) = self.wait.take() {
            self.shared.act(|state| state.pool.cancel(wait));
        }
    }
}

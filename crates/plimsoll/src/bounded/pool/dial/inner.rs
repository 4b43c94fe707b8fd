//! The pool behind its lock, the tasks that make and close handles, and the guards of both.
//!
//! A guard returns what must be returned also when a caller gives up, or a task panics or is dropped before its first poll:
//! a task's guards are made before it is spawned and moved into it.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Connect, Exclusive, Key, LeaseError, LeaseMode, Shared};
use crate::bounded::Counters;
use crate::bounded::pool::{CloseOutcome, Closing, Creation, EntryKey, Lease, LruPool, PoolAction, PoolEvent, WaitKey};
use crate::bounded::time::now;

pub(super) type LeaseResult<K, C, M> = Result<DialLease<K, C, M>, LeaseError<<C as Connect<K>>::Error>>;
pub(super) type Waiter<K, C, M> = oneshot::Sender<LeaseResult<K, C, M>>;
type Stored<K, C, M> = <M as LeaseMode<<C as Connect<K>>::Handle>>::Stored;
pub(super) type Table<K, C, M> = LruPool<K, Stored<K, C, M>, Waiter<K, C, M>>;
type Action<K, C, M> = PoolAction<K, Stored<K, C, M>, Waiter<K, C, M>>;

pub(super) struct DialInner<K: Key, C: Connect<K>, M: LeaseMode<C::Handle>> {
    connect: C,
    connect_time: Duration,
    close_time: Duration,
    idle_time: Duration,
    state: Mutex<State<K, C, M>>,
    counters: Counters<PoolEvent>,
    runtime: Handle,
    tasks: TaskTracker,
    drained: Notify,
}

pub(super) struct State<K: Key, C: Connect<K>, M: LeaseMode<C::Handle>> {
    pub(super) pool: Table<K, C, M>,
    /// Cancels a creation for which no caller waits any more. As many as there are creations.
    pub(super) dials: HashMap<EntryKey, CancellationToken>,
    /// Actions that are decided and not yet performed, with the token of those that create.
    actions: VecDeque<(Action<K, C, M>, CancellationToken)>,
    /// Whether a thread performs them: it performs those that come meanwhile, too.
    performing: bool,
}

impl<K: Key, C: Connect<K>, M: LeaseMode<C::Handle>> DialInner<K, C, M> {
    pub(super) fn new(pool: Table<K, C, M>, connect: C) -> Self {
        let settings = pool.settings();
        Self {
            connect,
            connect_time: settings.connect_time,
            close_time: settings.close_time,
            idle_time: settings.idle_time,
            counters: pool.counters().clone(),
            state: Mutex::new(State { pool, dials: HashMap::new(), actions: VecDeque::new(), performing: false }),
            runtime: Handle::current(),
            tasks: TaskTracker::new(),
            drained: Notify::new(),
        }
    }

    pub(super) fn idle_time(&self) -> Duration {
        self.idle_time
    }

    pub(super) fn counters(&self) -> &Counters<PoolEvent> {
        &self.counters
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State<K, C, M>> {
        self.state.lock()
    }

    /// Applies `operation` to the pool and then performs the actions that it decided, outside of the lock.
    ///
    /// Performing one may apply further operations: on a runtime that has shut down a task is dropped as it is spawned, and
    /// its guards end what it was to do. Their actions go to the loop that is running, and not one call deeper each.
    pub(super) fn apply<R>(self: &Arc<Self>, operation: impl FnOnce(&mut Table<K, C, M>) -> R) -> R {
        let (result, perform) = {
            let mut state = self.state.lock();
            let result = operation(&mut state.pool);
            state.collect_actions();
            if state.pool.is_drained() {
                self.drained.notify_waiters();
            }
            let perform = !state.actions.is_empty() && !state.performing;
            state.performing |= perform;
            (result, perform)
        };
        if perform {
            let mut performing = Performing { inner: self, done: false };
            while let Some((action, abandoned)) = performing.next_action() {
                self.perform(action, abandoned);
            }
        }
        result
    }

    fn perform(self: &Arc<Self>, action: Action<K, C, M>, abandoned: CancellationToken) {
        match action {
            PoolAction::Create { creation, key, evicted } => {
                let creation = CreationGuard::new(self.clone(), creation);
                let evicted = evicted.map(|(closing, key, stored)| {
                    (ClosingGuard::new(self.clone(), closing), key, M::into_handle(stored))
                });
                self.tasks.spawn_on(create_handle(creation, key, evicted, abandoned), &self.runtime);
            }
            PoolAction::Close { closing, key, value } => {
                let closing = ClosingGuard::new(self.clone(), closing);
                self.tasks.spawn_on(close_handle(closing, key, M::into_handle(value)), &self.runtime);
            }
            PoolAction::Grant { waiter, lease } => {
                // A caller that has just given up drops the lease, which releases it.
                if let Some(lease) = self.leased(lease) {
                    let _ = waiter.send(Ok(lease));
                }
            }
            PoolAction::Refuse { waiter, refusal } => {
                let _ = waiter.send(Err(refusal.into()));
            }
            PoolAction::Abandon { .. } => {}
        }
    }

    /// The lease with what is lent of its handle.
    pub(super) fn leased(self: &Arc<Self>, lease: Lease) -> Option<DialLease<K, C, M>> {
        let entry = lease.entry();
        // Made first: it releases the lease if cloning the handle panics.
        let lease = DialLease::new(self.clone(), lease);
        let lent = self.state.lock().pool.value_mut(entry).and_then(M::lend);
        lease.with_handle(lent)
    }

    pub(super) fn hit(self: &Arc<Self>, key: &K) -> Option<DialLease<K, C, M>> {
        // Declared before the lock, so that it is dropped after it.
        let lease;
        let mut state = self.state.lock();
        lease = DialLease::new(self.clone(), state.pool.hit(key)?);
        let lent = lease.entry().and_then(|entry| state.pool.value_mut(entry)).and_then(M::lend);
        drop(state);
        lease.with_handle(lent)
    }

    /// Ends a creation and fails the callers that waited for it.
    pub(super) fn fail_creation(self: &Arc<Self>, creation: Creation, error: &LeaseError<C::Error>) {
        for waiter in self.apply(|pool| pool.failed(creation, now())) {
            let _ = waiter.send(Err(error.clone()));
        }
    }

    /// Closes the pool and waits for the last handle and the last task.
    pub(super) async fn close(self: &Arc<Self>) {
        let drained = self.drained.notified();
        tokio::pin!(drained);
        drained.as_mut().enable();
        let done = self.apply(|pool| {
            pool.close();
            pool.is_drained()
        });
        if !done {
            drained.await;
        }
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl<K: Key, C: Connect<K>, M: LeaseMode<C::Handle>> State<K, C, M> {
    /// Takes the pool's actions. Creations are registered, and cancelled, in the order of the decisions and not of the
    /// threads.
    fn collect_actions(&mut self) {
        while let Some(action) = self.pool.next_action() {
            let mut token = CancellationToken::new();
            match &action {
                PoolAction::Create { creation, .. } => drop(self.dials.insert(creation.entry(), token.clone())),
                PoolAction::Abandon { entry } => {
                    token = self.dials.remove(entry).unwrap_or(token);
                    token.cancel();
                }
                _ => {}
            }
            self.actions.push_back((action, token));
        }
    }
}

/// The thread that performs actions. When one panics, the rest is left to the next operation.
struct Performing<'a, K: Key, C: Connect<K>, M: LeaseMode<C::Handle>> {
    inner: &'a Arc<DialInner<K, C, M>>,
    done: bool,
}

impl<K: Key, C: Connect<K>, M: LeaseMode<C::Handle>> Performing<'_, K, C, M> {
    fn next_action(&mut self) -> Option<(Action<K, C, M>, CancellationToken)> {
        let mut state = self.inner.state.lock();
        let next = state.actions.pop_front();
        if next.is_none() {
            (state.performing, self.done) = (false, true);
        }
        next
    }
}

impl<K: Key, C: Connect<K>, M: LeaseMode<C::Handle>> Drop for Performing<'_, K, C, M> {
    fn drop(&mut self) {
        if !self.done {
            self.inner.state.lock().performing = false;
        }
    }
}

type Evicted<K, C, M> = (ClosingGuard<K, C, M>, K, Option<<C as Connect<K>>::Handle>);

async fn create_handle<K: Key, C: Connect<K>, M: LeaseMode<C::Handle>>(
    mut creating: CreationGuard<K, C, M>,
    key: K,
    evicted: Option<Evicted<K, C, M>>,
    abandoned: CancellationToken,
) {
    let inner = creating.inner().clone();
    if let Some((closing, key, handle)) = evicted {
        close_handle(closing, key, handle).await;
    }
    let connect = timeout(inner.connect_time, inner.connect.connect(&key));
    let made = abandoned.run_until_cancelled(connect).await;
    let Some(creation) = creating.take() else { return };
    match made {
        None => inner.apply(|pool| pool.creation_abandoned(creation)),
        Some(Ok(Ok(handle))) => {
            let surplus = inner.apply(|pool| pool.created(creation, M::store(handle), now()));
            if let Err((closing, stored)) = surplus {
                let closing = ClosingGuard::new(inner.clone(), closing);
                close_handle(closing, key, M::into_handle(stored)).await;
            }
        }
        Some(Ok(Err(error))) => inner.fail_creation(creation, &LeaseError::Connect(Arc::new(error))),
        Some(Err(_)) => inner.fail_creation(creation, &LeaseError::ConnectTimedOut(inner.connect_time)),
    }
}

async fn close_handle<K: Key, C: Connect<K>, M: LeaseMode<C::Handle>>(
    mut closing: ClosingGuard<K, C, M>,
    key: K,
    handle: Option<C::Handle>,
) {
    let inner = closing.inner().clone();
    // INVARIANT: a handle that is closed is not lent, so it is here.
    let Some(handle) = handle else { return };
    let outcome = match timeout(inner.close_time, inner.connect.close(&key, handle)).await {
        Ok(Ok(())) => CloseOutcome::Closed,
        Ok(Err(error)) => {
            tracing::warn!(target: "plimsoll::pool", pool = inner.counters.name(), %error, "closing a handle failed");
            CloseOutcome::Failed
        }
        Err(_) => CloseOutcome::TimedOut,
    };
    closing.set_outcome(outcome);
}

/// A handle that is leased from a [`DialPool`](super::DialPool) and released when this is dropped.
#[must_use = "the handle is released when this is dropped"]
pub struct DialLease<K: Key, C: Connect<K>, M: LeaseMode<C::Handle> = Shared> {
    inner: Arc<DialInner<K, C, M>>,
    /// Both are there until this is dropped.
    lease: Option<Lease>,
    handle: Option<C::Handle>,
}

impl<K: Key, C: Connect<K>, M: LeaseMode<C::Handle>> DialLease<K, C, M> {
    pub(super) fn new(inner: Arc<DialInner<K, C, M>>, lease: Lease) -> Self {
        Self { inner, lease: Some(lease), handle: None }
    }

    /// Completes the lease with what is lent of the handle; `None`, and the lease is released, if there is nothing.
    pub(super) fn with_handle(mut self, handle: Option<C::Handle>) -> Option<Self> {
        self.handle = handle;
        self.handle.is_some().then_some(self)
    }

    pub(super) fn entry(&self) -> Option<EntryKey> {
        self.lease.as_ref().map(Lease::entry)
    }

    /// Releases the handle as broken: no further caller gets it, and it is closed after its last lease.
    pub fn discard(mut self) {
        self.end(true);
    }

    fn end(&mut self, discard: bool) {
        let Some(lease) = self.lease.take() else { return };
        // A clone is dropped before the pool may close the handle.
        let returned = self.handle.take().and_then(M::returned);
        self.inner.apply(|pool| {
            if let Some(handle) = returned
                && let Some(stored) = pool.value_mut(lease.entry())
            {
                M::restore(stored, handle);
            }
            if discard { pool.discard(lease, now()) } else { pool.release(lease, now()) }
        });
    }
}

impl<K: Key, C: Connect<K>, M: LeaseMode<C::Handle>> Deref for DialLease<K, C, M> {
    type Target = C::Handle;

    fn deref(&self) -> &C::Handle {
        match &self.handle {
            Some(handle) => handle,
            None => unreachable!("the handle is taken out only when the lease is dropped"),
        }
    }
}

impl<K: Key, C: Connect<K>> DerefMut for DialLease<K, C, Exclusive> {
    fn deref_mut(&mut self) -> &mut C::Handle {
        match &mut self.handle {
            Some(handle) => handle,
            None => unreachable!("the handle is taken out only when the lease is dropped"),
        }
    }
}

impl<K: Key, C: Connect<K>, M: LeaseMode<C::Handle>> Drop for DialLease<K, C, M> {
    fn drop(&mut self) {
        self.end(false);
    }
}

impl<K: Key, C: Connect<K>, M: LeaseMode<C::Handle>> fmt::Debug for DialLease<K, C, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DialLease").field("lease", &self.lease).finish_non_exhaustive()
    }
}

/// Ends a creation whose task panicked or was dropped.
pub(super) struct CreationGuard<K: Key, C: Connect<K>, M: LeaseMode<C::Handle>> {
    inner: Arc<DialInner<K, C, M>>,
    creation: Option<Creation>,
}

impl<K: Key, C: Connect<K>, M: LeaseMode<C::Handle>> CreationGuard<K, C, M> {
    pub(super) fn new(inner: Arc<DialInner<K, C, M>>, creation: Creation) -> Self {
        Self { inner, creation: Some(creation) }
    }

    pub(super) fn inner(&self) -> &Arc<DialInner<K, C, M>> {
        &self.inner
    }

    pub(super) fn take(&mut self) -> Option<Creation> {
        let creation = self.creation.take()?;
        self.inner.lock().dials.remove(&creation.entry());
        Some(creation)
    }
}

impl<K: Key, C: Connect<K>, M: LeaseMode<C::Handle>> Drop for CreationGuard<K, C, M> {
    fn drop(&mut self) {
        if let Some(creation) = self.take() {
            let error = if std::thread::panicking() { LeaseError::Panicked } else { LeaseError::Aborted };
            self.inner.fail_creation(creation, &error);
        }
    }
}

/// Ends a closing, also one whose task panicked or was dropped.
pub(super) struct ClosingGuard<K: Key, C: Connect<K>, M: LeaseMode<C::Handle>> {
    inner: Arc<DialInner<K, C, M>>,
    closing: Option<Closing>,
    outcome: CloseOutcome,
}

impl<K: Key, C: Connect<K>, M: LeaseMode<C::Handle>> ClosingGuard<K, C, M> {
    pub(super) fn new(inner: Arc<DialInner<K, C, M>>, closing: Closing) -> Self {
        Self { inner, closing: Some(closing), outcome: CloseOutcome::Failed }
    }

    pub(super) fn inner(&self) -> &Arc<DialInner<K, C, M>> {
        &self.inner
    }

    pub(super) fn set_outcome(&mut self, outcome: CloseOutcome) {
        self.outcome = outcome;
    }
}

impl<K: Key, C: Connect<K>, M: LeaseMode<C::Handle>> Drop for ClosingGuard<K, C, M> {
    fn drop(&mut self) {
        if let Some(closing) = self.closing.take() {
            self.inner.apply(|pool| pool.closed(closing, self.outcome));
        }
    }
}

/// Takes a caller that gives up out of its queue.
pub(super) struct WaitGuard<'a, K: Key, C: Connect<K>, M: LeaseMode<C::Handle>> {
    inner: &'a Arc<DialInner<K, C, M>>,
    wait: Option<WaitKey>,
}

impl<'a, K: Key, C: Connect<K>, M: LeaseMode<C::Handle>> WaitGuard<'a, K, C, M> {
    pub(super) fn new(inner: &'a Arc<DialInner<K, C, M>>, wait: WaitKey) -> Self {
        Self { inner, wait: Some(wait) }
    }

    /// The caller has its result.
    pub(super) fn disarm(&mut self) {
        self.wait = None;
    }
}

impl<K: Key, C: Connect<K>, M: LeaseMode<C::Handle>> Drop for WaitGuard<'_, K, C, M> {
    fn drop(&mut self) {
        if let Some(wait) = self.wait.take() {
            self.inner.apply(|pool| pool.cancel(wait));
        }
    }
}

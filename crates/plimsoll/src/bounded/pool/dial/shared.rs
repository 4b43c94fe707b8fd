//! The pool behind its lock, and the tasks that make and close handles.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::guards::{ClosingGuard, DialLease, Dialling};
use super::{Connect, Key, LeaseError};
use crate::bounded::Counters;
use crate::bounded::pool::{CloseOutcome, Closing, Creation, EntryKey, Lease, LruPool, PoolAction, PoolEvent};

pub(super) type Answer<K, C> = Result<DialLease<K, C>, LeaseError<<C as Connect<K>>::Error>>;
pub(super) type Waiter<K, C> = oneshot::Sender<Answer<K, C>>;
pub(super) type Table<K, C> = LruPool<K, <C as Connect<K>>::Handle, Waiter<K, C>>;
type Action<K, C> = PoolAction<K, <C as Connect<K>>::Handle, Waiter<K, C>>;

pub(super) struct Shared<K: Key, C: Connect<K>> {
    connect: C,
    connect_time: Duration,
    close_time: Duration,
    idle_time: Duration,
    state: Mutex<State<K, C>>,
    counters: Counters<PoolEvent>,
    runtime: Handle,
    tasks: TaskTracker,
    drained: Notify,
}

pub(super) struct State<K: Key, C: Connect<K>> {
    pub(super) pool: Table<K, C>,
    /// By which a creation is told that nobody waits for it any more. As many as there are creations.
    pub(super) dials: HashMap<EntryKey, CancellationToken>,
}

impl<K: Key, C: Connect<K>> Shared<K, C> {
    pub(super) fn new(pool: Table<K, C>, connect: C) -> Self {
        let settings = pool.settings();
        Self {
            connect,
            connect_time: settings.connect_time,
            close_time: settings.close_time,
            idle_time: settings.idle_time,
            counters: pool.counters().clone(),
            state: Mutex::new(State { pool, dials: HashMap::new() }),
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

    pub(super) fn lock(&self) -> MutexGuard<'_, State<K, C>> {
        self.state.lock()
    }

    /// Runs `operation` on the pool and then does what it left to be done, outside of the lock.
    pub(super) fn act<R>(self: &Arc<Self>, operation: impl FnOnce(&mut State<K, C>) -> R) -> R {
        let mut to_do = VecDeque::new();
        let result = self.decide(operation, &mut to_do);
        while let Some((action, abandoned)) = to_do.pop_front() {
            match action {
                PoolAction::Create { creation, key, evicted } => {
                    let dial = self.clone().dial(creation, key, evicted, abandoned.unwrap_or_default());
                    self.tasks.spawn_on(dial, &self.runtime);
                }
                PoolAction::Close { closing, key, value } => {
                    let shared = self.clone();
                    let close = async move { shared.close_handle(closing, key, value).await };
                    self.tasks.spawn_on(close, &self.runtime);
                }
                PoolAction::Grant { waiter, lease } => {
                    let Some(guard) = self.guard(lease) else { continue };
                    // Whoever waited may have gone this moment: its lease goes back here, without a deeper call.
                    if let Err(Ok(mut guard)) = waiter.send(Ok(guard))
                        && let Some(lease) = guard.take()
                    {
                        self.decide(|state| state.pool.release(lease, now()), &mut to_do);
                    }
                }
                PoolAction::Refuse { waiter, refusal } => {
                    let _ = waiter.send(Err(refusal.into()));
                }
                PoolAction::Abandon { .. } => {}
            }
        }
        result
    }

    fn decide<R>(
        &self,
        operation: impl FnOnce(&mut State<K, C>) -> R,
        to_do: &mut VecDeque<(Action<K, C>, Option<CancellationToken>)>,
    ) -> R {
        let mut state = self.state.lock();
        let result = operation(&mut state);
        while let Some(action) = state.pool.next_action() {
            // Creations are known, and abandoned, in the order of the decisions and not in that of the threads.
            let mut abandoned = None;
            match &action {
                PoolAction::Create { creation, .. } => {
                    let token = CancellationToken::new();
                    state.dials.insert(creation.entry(), token.clone());
                    abandoned = Some(token);
                }
                PoolAction::Abandon { entry } => {
                    if let Some(token) = state.dials.remove(entry) {
                        token.cancel();
                    }
                }
                _ => {}
            }
            to_do.push_back((action, abandoned));
        }
        if state.pool.is_drained() {
            self.drained.notify_waiters();
        }
        result
    }

    pub(super) fn guard(self: &Arc<Self>, lease: Lease) -> Option<DialLease<K, C>> {
        let handle = self.state.lock().pool.value(lease.entry()).cloned()?;
        Some(DialLease::new(self.clone(), lease, handle))
    }

    async fn dial(
        self: Arc<Self>,
        creation: Creation,
        key: K,
        evicted: Option<(Closing, K, C::Handle)>,
        abandoned: CancellationToken,
    ) {
        let mut dialling = Dialling::new(self.clone(), creation);
        if let Some((closing, key, handle)) = evicted {
            self.close_handle(closing, key, handle).await;
        }
        let connect = timeout(self.connect_time, self.connect.connect(&key));
        let made = abandoned.run_until_cancelled(connect).await;
        let Some(creation) = dialling.take() else { return };
        match made {
            None => self.act(|state| state.pool.creation_abandoned(creation)),
            Some(Ok(Ok(handle))) => {
                let surplus = self.act(|state| state.pool.created(creation, handle, now()));
                if let Err((closing, handle)) = surplus {
                    self.close_handle(closing, key, handle).await;
                }
            }
            Some(Ok(Err(error))) => self.tell(creation, &LeaseError::Connect(Arc::new(error))),
            Some(Err(_)) => self.tell(creation, &LeaseError::ConnectTimedOut(self.connect_time)),
        }
    }

    /// Ends a creation and tells those that waited for it why.
    pub(super) fn tell(self: &Arc<Self>, creation: Creation, error: &LeaseError<C::Error>) {
        for waiter in self.act(|state| state.pool.failed(creation, now())) {
            let _ = waiter.send(Err(error.clone()));
        }
    }

    /// Closes the pool and waits for the last handle and the last task.
    pub(super) async fn close(self: &Arc<Self>) {
        let drained = self.drained.notified();
        tokio::pin!(drained);
        drained.as_mut().enable();
        let done = self.act(|state| {
            state.pool.close();
            state.pool.is_drained()
        });
        if !done {
            drained.await;
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn close_handle(self: &Arc<Self>, closing: Closing, key: K, handle: C::Handle) {
        let mut guard = ClosingGuard::new(self.clone(), closing);
        let outcome = match timeout(self.close_time, self.connect.close(&key, handle)).await {
            Ok(Ok(())) => CloseOutcome::Closed,
            Ok(Err(error)) => {
                tracing::warn!(target: "plimsoll::pool", pool = self.counters.name(), %error, "a handle could not be closed");
                CloseOutcome::Failed
            }
            Err(_) => CloseOutcome::TimedOut,
        };
        guard.ended(outcome);
    }
}

pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

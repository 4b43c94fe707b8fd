//! A registry whose owners are actors: it monitors them and sweeps itself.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use ractor::{ActorCell, ActorId, ActorStatus};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Advertised, RegistryEvent, RegistryRefusal, RegistrySettings, TtlRegistry};
use crate::bounded::time::now;
use crate::bounded::{Compact, CompactPolicy, Compacted, Counters, Footprint};
use crate::inspect::{Details, Inspect};

/// A [`TtlRegistry`] whose owners are actors. Cloning shares it.
///
/// [`run`](Self::run) is its task child: it removes the entries of an owner when the owner exits, and expired entries at each
/// tick. When it is restarted it monitors all owners again; entries are kept meanwhile, and a look-up never returns an
/// expired one.
///
/// ```
/// use plimsoll::bounded::{ActorRegistry, RegistrySettings};
/// use plimsoll::supervisor::{ChildSpec, Supervisor};
/// use ractor::{Actor, ActorProcessingErr, ActorRef};
///
/// struct Resizer;
///
/// impl Actor for Resizer {
///     type Msg = ();
///     type State = ();
///     type Arguments = ();
///     async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> { Ok(()) }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = ActorRegistry::new(RegistrySettings::default());
/// let child = registry.clone();
/// let tree = Supervisor::builder("app")
///     .child(ChildSpec::task("registry", move |stop| child.clone().run(stop)))
///     .start()
///     .await?;
/// let (resizer, _) = Actor::spawn(None, Resizer, ()).await?;
/// registry.advertise("resize", &resizer, 4433, None)?;
/// assert_eq!(registry.providers(&"resize"), [(resizer.get_id(), 4433)]);
/// resizer.stop_and_wait(None, None).await?;
/// while !registry.is_empty() {
///     tokio::task::yield_now().await;
/// }
/// tree.stop().await;
/// # Ok(())
/// # }
/// ```
pub struct ActorRegistry<N, V> {
    inner: Arc<Inner<N, V>>,
}

struct Inner<N, V> {
    state: Mutex<State<N, V>>,
    /// Owners were added, or the tick became shorter.
    changed: Notify,
    counters: Counters<RegistryEvent>,
}

struct State<N, V> {
    table: TtlRegistry<N, ActorId, V>,
    /// Owners with entries: at most as many as entries.
    owners: HashMap<ActorId, Owner>,
}

struct Owner {
    cell: ActorCell,
    entries: usize,
    /// Ends the monitoring of the owner, when it has no entry any more.
    done: CancellationToken,
    monitored: bool,
}

/// Why an advertisement of an actor is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdvertiseError {
    /// The registry refuses.
    #[error(transparent)]
    Refused(#[from] RegistryRefusal),
    /// The owner is stopping or has exited.
    #[error("the owner has exited")]
    OwnerExited,
}

impl<N: Eq + Hash + Clone, V> ActorRegistry<N, V> {
    /// An empty registry.
    pub fn new(settings: RegistrySettings) -> Self {
        let table = TtlRegistry::new(settings);
        let counters = table.counters().clone();
        let state = Mutex::new(State { table, owners: HashMap::new() });
        Self { inner: Arc::new(Inner { state, changed: Notify::new(), counters }) }
    }

    /// Adds the entry of `owner` at `name`, or renews its lease and replaces its value; see [`TtlRegistry::advertise`].
    ///
    /// # Errors
    /// [`AdvertiseError`]; nothing is changed.
    pub fn advertise(
        &self,
        name: N,
        owner: &ActorCell,
        value: V,
        ttl: Option<Duration>,
    ) -> Result<Advertised, AdvertiseError> {
        let mut state = self.inner.state.lock();
        if owner.get_status() >= ActorStatus::Stopping {
            return Err(AdvertiseError::OwnerExited);
        }
        let State { table, owners } = &mut *state;
        let tick = table.tick();
        let advertised = table.advertise(name, owner.get_id(), value, ttl, now())?;
        if matches!(advertised, Advertised::Added(_)) {
            let owner = owners.entry(owner.get_id()).or_insert_with(|| Owner {
                cell: owner.clone(),
                entries: 0,
                done: CancellationToken::new(),
                monitored: false,
            });
            owner.entries += 1;
            if !owner.monitored || table.tick() < tick {
                self.inner.changed.notify_one();
            }
        }
        Ok(advertised)
    }

    /// Renews the leases of all entries of `owner`; see [`TtlRegistry::renew_all`].
    ///
    /// # Errors
    /// [`RegistryRefusal::RateLimited`].
    pub fn renew_all(&self, owner: ActorId) -> Result<usize, RegistryRefusal> {
        self.inner.state.lock().table.renew_all(&owner, now())
    }

    /// Removes the entry of `owner` at `name`.
    pub fn withdraw(&self, name: &N, owner: ActorId) -> Option<V> {
        let mut state = self.inner.state.lock();
        let value = state.table.withdraw(name, &owner)?;
        state.count_down(owner);
        Some(value)
    }

    /// Removes an owner with all its entries, for instance before it exits. Returns how many there were.
    pub fn remove_owner(&self, owner: ActorId) -> usize {
        self.inner.state.lock().remove_owner(owner)
    }

    /// The providers of `name`, the most recently renewed first.
    pub fn providers(&self, name: &N) -> Vec<(ActorId, V)>
    where
        V: Clone,
    {
        let state = self.inner.state.lock();
        state.table.providers(name, now()).map(|(owner, value)| (*owner, value.clone())).collect()
    }

    /// The number of entries, including those whose lease has expired since the last sweep.
    pub fn len(&self) -> usize {
        self.inner.state.lock().table.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The counters.
    pub fn counters(&self) -> &Counters<RegistryEvent> {
        &self.inner.counters
    }

    /// Monitors the owners and sweeps, until `stop`: a task child of a supervisor. At most one may run at a time.
    ///
    /// Cancel safe: the next one monitors all owners again.
    ///
    /// # Errors
    /// Never.
    pub async fn run(self, stop: CancellationToken) -> Result<(), crate::supervisor::BoxError> {
        let mut exits = FuturesUnordered::new();
        self.inner.state.lock().owners.values_mut().for_each(|owner| owner.monitored = false);
        let mut sweep_at = Instant::now() + self.sweep_after();
        loop {
            exits.extend(self.new_owners().into_iter().map(|(cell, done)| async move {
                done.run_until_cancelled(cell.wait(None)).await.map(|_| cell.get_id())
            }));
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Some(exited) = exits.next() => {
                    if let Some(owner) = exited {
                        self.remove_owner(owner);
                    }
                }
                () = sleep_until(sweep_at) => {
                    self.sweep();
                    sweep_at = Instant::now() + self.sweep_after();
                }
                () = self.inner.changed.notified() => sweep_at = sweep_at.min(Instant::now() + self.sweep_after()),
            }
        }
    }

    fn sweep_after(&self) -> Duration {
        self.inner.state.lock().table.sweep_after(rand::random())
    }

    fn sweep(&self) {
        let mut state = self.inner.state.lock();
        for (_, owner, _) in state.table.sweep(now()) {
            state.count_down(owner);
        }
    }

    fn new_owners(&self) -> Vec<(ActorCell, CancellationToken)> {
        let mut state = self.inner.state.lock();
        let new = state.owners.values_mut().filter(|owner| !owner.monitored);
        new.map(|owner| {
            owner.monitored = true;
            (owner.cell.clone(), owner.done.clone())
        })
        .collect()
    }
}

impl<N: Eq + Hash + Clone, V> State<N, V> {
    /// An entry of `owner` was removed.
    fn count_down(&mut self, owner: ActorId) {
        let Some(known) = self.owners.get_mut(&owner) else { return };
        known.entries -= 1;
        if known.entries == 0 {
            known.done.cancel();
            self.owners.remove(&owner);
        }
    }

    fn remove_owner(&mut self, owner: ActorId) -> usize {
        if let Some(known) = self.owners.remove(&owner) {
            known.done.cancel();
        }
        self.table.remove_owner(&owner).len()
    }
}

impl<N, V> Clone for ActorRegistry<N, V> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<N, V> fmt::Debug for ActorRegistry<N, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActorRegistry").field("counters", &self.inner.counters).finish_non_exhaustive()
    }
}

impl<N: Eq + Hash + Clone + Send + 'static, V: Send + 'static> Inspect for ActorRegistry<N, V> {
    fn inspect(&self) -> Details {
        self.inner.counters.inspect()
    }
}

impl<N: Eq + Hash + Clone, V> Compact for ActorRegistry<N, V> {
    fn footprint(&self) -> Footprint {
        let state = self.inner.state.lock();
        state.table.footprint().plus(state.owners.footprint())
    }

    fn compact(&mut self, policy: &CompactPolicy) -> Compacted {
        let mut state = self.inner.state.lock();
        let table = state.table.compact(policy);
        table.plus(state.owners.compact(policy))
    }
}

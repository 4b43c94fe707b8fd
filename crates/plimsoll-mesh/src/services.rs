//! The table of the services that this node offers.

mod local;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use plimsoll::call::{CallClient, CallServerBuilder, Service};
use plimsoll::inspect::{Details, Inspect};
use plimsoll::ractor::{ActorCell, SpawnErr};
use plimsoll::supervisor::Child;
use tokio::sync::watch;

use crate::names::ServiceName;
use crate::service::{ApplicationError, Request, Response};

use local::{LocalProvider, ServerProvider};

/// ServiceTable that a node offers at most, as many as other nodes take from it.
pub const MAX_SERVICES: usize = 1_000;

/// The table of the services that this node offers. Cloning shares it; reading takes no lock.
#[derive(Clone)]
pub struct ServiceTable(Arc<Table>);

struct Table {
    entries: ArcSwap<BTreeMap<ServiceName, Entry>>,
    changing: Mutex<()>,
    changed: watch::Sender<u64>,
    next: AtomicU64,
}

#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) provider: Arc<dyn LocalProvider>,
    pub(crate) idempotent: bool,
    registration: u64,
}

/// A service of this node, as the table lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LocalService {
    /// Its name.
    pub name: ServiceName,
    /// Whether a call may run twice.
    pub idempotent: bool,
    /// Whether its server takes calls.
    pub callable: bool,
}

/// Why a service is not offered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotOffered {
    /// The table is at its cap.
    #[error("this node offers {MAX_SERVICES} services, as many as it may")]
    Full,
    /// Its call server did not start.
    #[error("the call server of {name} did not start")]
    Start {
        /// The service.
        name: ServiceName,
        /// What ractor said.
        #[source]
        source: Box<SpawnErr>,
    },
}

/// Starts the call server of a service as a child of `parent`, and offers it for as long as that server runs.
///
/// When the supervisor starts it again, the later server takes the entry over; a server that stops is not called any
/// more from the moment its door shuts. `idempotent` says that a call may run twice: then one whose provider died is
/// tried elsewhere.
///
/// # Errors
/// [`NotOffered`].
///
/// Not cancel safe: a start that is given up may leave a server that its parent stops, and that is not offered.
pub async fn provide<S>(
    services: &ServiceTable,
    name: ServiceName,
    idempotent: bool,
    server: CallServerBuilder<S>,
    parent: ActorCell,
) -> Result<Child, NotOffered>
where
    S: Service<Request = Request, Reply = Response, Error = ApplicationError>,
{
    let started = server.start_linked(parent).await;
    let mut started = started.map_err(|source| NotOffered::Start { name: name.clone(), source: Box::new(source) })?;
    let (actor, inspector, client) = (started.actor(), started.inspector(), started.client());
    let registration = match services.register(name, idempotent, client.clone()) {
        Ok(registration) => registration,
        Err(full) => {
            actor.kill();
            return Err(full);
        }
    };
    let ended = tokio::spawn(async move {
        started.ended().await;
        drop(registration);
    });
    Ok(Child::new(actor, ended).inspect(inspector).value(client))
}

impl ServiceTable {
    /// An empty table.
    pub fn new() -> Self {
        Self(Arc::new(Table {
            entries: ArcSwap::default(),
            changing: Mutex::new(()),
            changed: watch::Sender::new(0),
            next: AtomicU64::new(0),
        }))
    }

    /// Offers a service until the registration is dropped. A later one of the same name takes its place.
    ///
    /// # Errors
    /// [`NotOffered::Full`] beyond [`MAX_SERVICES`] names.
    pub fn register<S>(
        &self,
        name: ServiceName,
        idempotent: bool,
        client: CallClient<S>,
    ) -> Result<Registration, NotOffered>
    where
        S: Service<Request = Request, Reply = Response, Error = ApplicationError>,
    {
        self.insert(name, idempotent, Arc::new(ServerProvider(client)))
    }

    pub(crate) fn insert(
        &self,
        name: ServiceName,
        idempotent: bool,
        provider: Arc<dyn LocalProvider>,
    ) -> Result<Registration, NotOffered> {
        let registration = self.0.next.fetch_add(1, Ordering::Relaxed);
        {
            let _changing = self.0.changing.lock();
            let mut entries = BTreeMap::clone(&self.0.entries.load());
            if entries.len() >= MAX_SERVICES && !entries.contains_key(&name) {
                return Err(NotOffered::Full);
            }
            entries.insert(name.clone(), Entry { provider, idempotent, registration });
            self.0.entries.store(Arc::new(entries));
        }
        self.notify_change();
        Ok(Registration { services: self.clone(), name, registration })
    }

    fn withdraw(&self, name: &ServiceName, registration: u64) {
        {
            let _changing = self.0.changing.lock();
            let current = self.0.entries.load();
            if current.get(name).is_none_or(|entry| entry.registration != registration) {
                return;
            }
            let mut entries = BTreeMap::clone(&current);
            entries.remove(name);
            self.0.entries.store(Arc::new(entries));
        }
        self.notify_change();
    }

    /// The provider of `name`, if its server takes calls.
    pub(crate) fn get(&self, name: &ServiceName) -> Option<Entry> {
        self.0.entries.load().get(name).filter(|entry| entry.provider.is_open()).cloned()
    }

    /// What is offered, by name.
    pub fn list(&self) -> Vec<LocalService> {
        let served = |(name, entry): (&ServiceName, &Entry)| LocalService {
            name: name.clone(),
            idempotent: entry.idempotent,
            callable: entry.provider.is_open(),
        };
        self.0.entries.load().iter().map(served).collect()
    }

    /// Changes whenever a service is offered or withdrawn.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    fn notify_change(&self) {
        self.0.changed.send_modify(|version| *version += 1);
    }
}

impl Default for ServiceTable {
    fn default() -> Self {
        Self::new()
    }
}

impl Inspect for ServiceTable {
    fn inspect(&self) -> Details {
        let mut details = Details::default();
        details.counters.insert("services".to_owned(), self.0.entries.load().len() as u64);
        details.counters.insert("limit".to_owned(), MAX_SERVICES as u64);
        details
    }
}

impl fmt::Debug for ServiceTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.entries.load().keys()).finish()
    }
}

/// A service on offer. Dropping this withdraws it, unless a later registration of its name has taken its place.
#[must_use = "a service is withdrawn when its registration is dropped"]
#[derive(Debug)]
pub struct Registration {
    services: ServiceTable,
    name: ServiceName,
    registration: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.services.withdraw(&self.name, self.registration);
    }
}

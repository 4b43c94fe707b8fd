//! The table of the services that this node offers.
//!
//! Its owner is an actor in the supervision tree: every change is a message to it. Readers use a snapshot and take no lock.
//! An entry ends with its registration; an owner that is restarted goes on from the snapshot, without the entries whose
//! registrations have ended in between.

mod provider;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use plimsoll::call::{CallClient, CallServerBuilder, Service};
use plimsoll::inspect::{Details, Inspect, Metric};
use plimsoll::mailbox::{Bounded, BoundedRef, Delivery, MailboxBuilder, Overflow};
use plimsoll::ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use plimsoll::supervisor::{Child, ChildSpec};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::events::Events;
use crate::names::ServiceName;
use crate::service::{ApplicationError, Request, Response};

use provider::{Reporter, ServerProvider};

pub(crate) use provider::LocalProvider;

/// Services that a node offers at most, as many as other nodes take from it.
pub const MAX_SERVICES: usize = 1_000;

/// How long a registration waits for the owner of the table, which may be restarting.
const OWNER_TIMEOUT: Duration = Duration::from_secs(1);

/// The table of the services that this node offers. Cloning shares it; reading takes no lock.
///
/// Services can be registered while its [owner](Self::owner) runs.
#[derive(Clone)]
pub struct ServiceTable(Arc<Inner>);

struct Inner {
    /// Written by the owner only.
    entries: ArcSwap<Entries>,
    owner: watch::Sender<Option<BoundedRef<Change>>>,
    changed: watch::Sender<u64>,
    events: Events,
    /// Calls of peers that the stop of a service ended.
    cut_off: Arc<AtomicU64>,
}

type Entries = BTreeMap<ServiceName, Entry>;

#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) provider: Arc<dyn LocalProvider>,
    pub(crate) idempotent: bool,
    /// Set when its registration has ended.
    withdrawn: Arc<AtomicBool>,
}

impl Entry {
    fn is_withdrawn(&self) -> bool {
        self.withdrawn.load(Ordering::Acquire)
    }
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
    /// The owner of the table does not run.
    #[error("the owner of the service table does not run")]
    NoOwner,
    /// Its call server did not start.
    #[error("the call server of {name} did not start")]
    Start {
        /// The service.
        name: ServiceName,
        /// What ractor reported.
        #[source]
        source: Box<SpawnErr>,
    },
}

/// Starts the call server of a service as a child of `parent`, and offers it for as long as that server runs.
///
/// When the supervisor starts it again, the later server takes the entry over. A server that stops is not called any more
/// as soon as it admits no calls. `idempotent` says that a call may run twice: then one whose provider died is tried
/// elsewhere.
///
/// # Errors
/// [`NotOffered`].
///
/// Not cancel safe: a start that is abandoned may leave a server that its parent stops, and that is not offered.
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
    let registration = match services.register(name, idempotent, client.clone()).await {
        Ok(registration) => registration,
        Err(error) => {
            actor.kill();
            return Err(error);
        }
    };
    let ended = tokio::spawn(async move {
        started.ended().await;
        drop(registration);
    });
    Ok(Child::new(actor, ended).inspect(inspector).value(client))
}

impl ServiceTable {
    /// An empty table with a history of events of its own.
    pub fn new() -> Self {
        Self::with_events(Events::default())
    }

    /// An empty table. Panics and refusals of its services are recorded in `events`.
    pub fn with_events(events: Events) -> Self {
        Self(Arc::new(Inner {
            entries: ArcSwap::default(),
            owner: watch::Sender::new(None),
            changed: watch::Sender::new(0),
            events,
            cut_off: Arc::default(),
        }))
    }

    /// Calls of peers whose worker was ended by a stop of its service. They may have run.
    pub fn calls_cut_off(&self) -> u64 {
        self.0.cut_off.load(Ordering::Relaxed)
    }

    /// The owner of the table, as a child to be started before the servers of the services.
    pub fn owner(&self) -> ChildSpec {
        let table = self.clone();
        let inspect = Arc::new(self.clone());
        ChildSpec::new("service-table", move |parent| start_owner(table.clone(), parent)).inspect(inspect)
    }

    /// Offers a service until the registration is dropped. A later one of the same name takes its place.
    ///
    /// # Errors
    /// [`NotOffered::Full`] beyond [`MAX_SERVICES`] names; [`NotOffered::NoOwner`] when the owner does not run, or does not
    /// take the change within a second.
    ///
    /// Cancel safe: a registration that is given up ends.
    pub async fn register<S>(
        &self,
        name: ServiceName,
        idempotent: bool,
        client: CallClient<S>,
    ) -> Result<Registration, NotOffered>
    where
        S: Service<Request = Request, Reply = Response, Error = ApplicationError>,
    {
        let reporter = Reporter::new(name.clone(), self.0.events.clone(), Arc::clone(&self.0.cut_off));
        self.insert(name, idempotent, Arc::new(ServerProvider::new(client, reporter))).await
    }

    pub(crate) async fn insert(
        &self,
        name: ServiceName,
        idempotent: bool,
        provider: Arc<dyn LocalProvider>,
    ) -> Result<Registration, NotOffered> {
        let withdrawn = Arc::new(AtomicBool::new(false));
        let entry = Entry { provider, idempotent, withdrawn: Arc::clone(&withdrawn) };
        // It exists before the owner has the entry, so that one that is given up in between is withdrawn.
        let registration = Registration { services: self.clone(), withdrawn };
        let adding = async {
            let mut owner = self.0.owner.subscribe();
            loop {
                let running = owner.wait_for(Option::is_some).await.ok().and_then(|owner| owner.clone());
                let Some(running) = running else { return Err(NotOffered::NoOwner) };
                let (reply, added) = oneshot::channel();
                let change = Change::Add { name: name.clone(), entry: entry.clone(), reply };
                if running.send_by(change, Instant::now() + OWNER_TIMEOUT).await.is_ok()
                    && let Ok(added) = added.await
                {
                    return added;
                }
                // It has ended; its successor announces itself.
                if owner.changed().await.is_err() {
                    return Err(NotOffered::NoOwner);
                }
            }
        };
        tokio::time::timeout(OWNER_TIMEOUT, adding).await.unwrap_or(Err(NotOffered::NoOwner))?;
        Ok(registration)
    }

    /// The provider of `name`, if its server takes calls.
    pub(crate) fn get(&self, name: &ServiceName) -> Option<Entry> {
        self.0.entries.load().get(name).filter(|entry| !entry.is_withdrawn() && entry.provider.is_open()).cloned()
    }

    /// What is offered, by name.
    pub fn list(&self) -> Vec<LocalService> {
        let entries = self.0.entries.load();
        let offered = entries.iter().filter(|(_, entry)| !entry.is_withdrawn());
        offered
            .map(|(name, entry)| LocalService {
                name: name.clone(),
                idempotent: entry.idempotent,
                callable: entry.provider.is_open(),
            })
            .collect()
    }

    /// Changes whenever a service is offered or withdrawn.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
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
        details.counters.insert("services", Metric::gauge(self.0.entries.load().len() as u64));
        details.counters.insert("limit", Metric::gauge(MAX_SERVICES as u64));
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
    withdrawn: Arc<AtomicBool>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.withdrawn.store(true, Ordering::Release);
        // Readers pass the entry over from now on. An owner without room removes it with its next message.
        if let Some(owner) = &*self.services.0.owner.borrow() {
            let _ = owner.send(Change::Withdrawn);
        }
    }
}

/// Changes that wait for the owner at most: each is of a server that starts or ends.
const MAX_CHANGES: u32 = 1_024;

enum Change {
    Add {
        name: ServiceName,
        entry: Entry,
        reply: oneshot::Sender<Result<(), NotOffered>>,
    },
    /// A registration has ended.
    Withdrawn,
}

async fn start_owner(table: ServiceTable, parent: ActorCell) -> Result<Child, SpawnErr> {
    let inner = Arc::clone(&table.0);
    let mailbox = MailboxBuilder::messages(MAX_CHANGES).overflow(Overflow::Wait);
    let (owner, ended) = mailbox.spawn_linked(None, Owner(table), (), parent).await?;
    let actor = owner.actor();
    inner.owner.send_replace(Some(owner));
    Ok(Child::new(actor, ended))
}

/// Writes the table.
struct Owner(ServiceTable);

impl Owner {
    /// Publishes the entries that are not withdrawn.
    fn publish(&self, entries: &mut Entries) {
        entries.retain(|_, entry| !entry.is_withdrawn());
        self.0.0.entries.store(Arc::new(entries.clone()));
        self.0.0.changed.send_modify(|version| *version += 1);
    }
}

impl Actor for Owner {
    type Msg = Bounded<Change>;
    type State = Entries;
    type Arguments = ();

    /// Goes on from the snapshot, which is empty at the first start.
    async fn pre_start(&self, _: ActorRef<Self::Msg>, (): ()) -> Result<Entries, ActorProcessingErr> {
        let mut entries = Entries::clone(&self.0.0.entries.load());
        self.publish(&mut entries);
        Ok(entries)
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        message: Self::Msg,
        entries: &mut Entries,
    ) -> Result<(), ActorProcessingErr> {
        match message.take() {
            Some(Delivery::Message(Change::Add { name, entry, reply })) => {
                entries.retain(|_, entry| !entry.is_withdrawn());
                if entries.len() >= MAX_SERVICES && !entries.contains_key(&name) {
                    let _ = reply.send(Err(NotOffered::Full));
                } else {
                    entries.insert(name, entry);
                    self.publish(entries);
                    let _ = reply.send(Ok(()));
                }
            }
            Some(Delivery::Message(Change::Withdrawn)) => self.publish(entries),
            _ => {}
        }
        Ok(())
    }
}

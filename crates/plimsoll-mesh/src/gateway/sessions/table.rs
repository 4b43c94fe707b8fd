//! The table of client sessions, their subscriptions and advertisements: decisions only, with the time as an argument.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use plimsoll::bounded::registry::{Advertised, RegistryEvent};
use plimsoll::bounded::sessions::{ResourceKey, SessionCounters, SessionKey};
use plimsoll::bounded::{
    Cap, Compact, CompactPolicy, Compacted, Counters, Footprint, Rate, RegistryRefusal, RegistrySettings, ResourceCaps,
    ResourceKind, SessionRefusal, SessionSettings, Sessions, TtlRegistry,
};
use plimsoll::inspect::{Details, Inspect as _};
use tokio_util::sync::CancellationToken;

use crate::names::ServiceName;

/// What clients of a gateway may advertise, and for how long.
///
/// ```
/// use plimsoll::bounded::Cap;
/// use plimsoll_mesh::gateway::AdvertisementLimits;
///
/// let limits = AdvertisementLimits { per_client: Cap::of::<10>(), ..AdvertisementLimits::default() };
/// assert_eq!(limits.total.get(), 10_000);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct AdvertisementLimits {
    /// Of all clients. Default 10,000.
    pub total: Cap,
    /// Of one client. Default 1,000.
    pub per_client: Cap,
    /// Advertisements and refreshments of one client. Default 1,000 at once, then 10 a second.
    pub rate: Rate,
    /// The lease of an advertisement that names none. Default 300 s.
    pub ttl: Duration,
    /// The shortest lease; a shorter one is raised to it. Default 1 s.
    pub shortest_ttl: Duration,
    /// The longest lease; a longer one is cut to it. Default 300 s.
    pub longest_ttl: Duration,
    /// The longest time between two sweeps, shortened at random by up to a fifth. Default 60 s.
    pub sweep: Duration,
}

impl Default for AdvertisementLimits {
    fn default() -> Self {
        let RegistrySettings { entries, per_owner, owner_rate, ttl, shortest_ttl, longest_ttl, sweep, .. } =
            RegistrySettings::default();
        Self { total: entries, per_client: per_owner, rate: owner_rate, ttl, shortest_ttl, longest_ttl, sweep }
    }
}

/// Why the table refuses an operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SessionError {
    #[error(transparent)]
    Session(#[from] SessionRefusal),
    #[error(transparent)]
    Registry(#[from] RegistryRefusal),
}

/// A resource of a session beside its streams.
#[derive(Debug)]
pub(super) enum SessionResource {
    /// An advertisement, by its lease in the registry.
    Advertisement,
    /// A subscription, ended by this token.
    Subscription(CancellationToken),
}

/// The leases of advertisements. Only the owner of the table changes them; anyone may read.
pub(super) type Leases = Arc<RwLock<TtlRegistry<ServiceName, SessionKey, ResourceKey>>>;

/// Sessions by the number of their connection, with their subscriptions and advertisements.
///
/// INVARIANT: each advertisement is an entry of the registry, owned by the session, and a resource of the session, named by
/// the entry. Both are added and removed in the same step.
#[derive(Debug)]
pub(super) struct SessionTable {
    /// For each session the token that ends the calls on its streams.
    sessions: Sessions<u64, CancellationToken, SessionResource>,
    advertised: Leases,
    /// Counts changes of the names that are advertised.
    changes: Arc<AtomicU64>,
    shortest: Duration,
    longest: Duration,
}

/// The counters of the table.
#[derive(Debug)]
pub(super) struct SessionTableCounters {
    sessions: SessionCounters,
    advertised: Counters<RegistryEvent>,
}

impl SessionTableCounters {
    pub(super) fn add_to(&self, details: &mut Details) {
        details.counters.extend(self.sessions.inspect().counters);
        self.advertised.add_to(details);
    }
}

impl SessionTable {
    /// A table for `clients` at once, as admission allows them.
    pub(super) fn new(clients: usize, subscriptions: ResourceCaps, limits: &AdvertisementLimits) -> Self {
        // Twice as many, as for their actors: an admission slot may be free a moment before its session is removed.
        let clients = Cap::new(clients.saturating_mul(2)).unwrap_or(Cap::of::<{ Cap::MAX }>());
        let advertisements = ResourceCaps { total: limits.total, per_client: limits.per_client };
        let sessions =
            Sessions::new(SessionSettings { clients, subscriptions, advertisements, ..SessionSettings::default() });
        let advertised = TtlRegistry::new(RegistrySettings {
            name: "advertised".into(),
            entries: limits.total,
            per_name: limits.total,
            per_owner: limits.per_client,
            owner_rate: limits.rate,
            ttl: limits.ttl,
            shortest_ttl: limits.shortest_ttl,
            longest_ttl: limits.longest_ttl,
            sweep: limits.sweep,
            ..RegistrySettings::default()
        });
        let advertised = Arc::new(RwLock::new(advertised));
        Self {
            sessions,
            advertised,
            changes: Arc::default(),
            shortest: limits.shortest_ttl,
            longest: limits.longest_ttl,
        }
    }

    pub(super) fn counters(&self) -> SessionTableCounters {
        let advertised = self.advertised.read().counters().clone();
        SessionTableCounters { sessions: self.sessions.counters().clone(), advertised }
    }

    /// The leases, for reading.
    pub(super) fn leases(&self) -> Leases {
        Arc::clone(&self.advertised)
    }

    /// Counts changes of the names that are advertised.
    pub(super) fn changes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.changes)
    }

    fn changed(&self) {
        self.changes.fetch_add(1, Relaxed);
    }

    /// Adds a session. `calls` is cancelled when it is removed.
    pub(super) fn open(&mut self, number: u64, calls: CancellationToken) -> Result<SessionKey, SessionError> {
        let (session, _) = self.sessions.connect(number, calls)?;
        Ok(session)
    }

    /// Removes a session once, with its calls, subscriptions and leases.
    pub(super) fn close(&mut self, session: SessionKey) {
        let Some(removed) = self.sessions.remove(session) else { return };
        removed.client.cancel();
        end_subscriptions(removed.resources);
        self.withdraw_all(session);
    }

    /// [`close`](Self::close) without the steps that are off.
    #[cfg(plimsoll_controls)]
    pub(super) fn close_in_part(&mut self, session: SessionKey) {
        use crate::controls::is_off;
        let Some(removed) = self.sessions.remove(session) else { return };
        if !is_off("caller-death") {
            removed.client.cancel();
        }
        end_subscriptions(removed.resources);
        if !is_off("coordinated-cleanup") {
            self.withdraw_all(session);
        }
    }

    fn withdraw_all(&mut self, session: SessionKey) {
        self.advertised.write().remove_owner(&session);
        self.changed();
    }

    /// Adds a subscription. `end` is cancelled when its session is removed.
    pub(super) fn subscribe(
        &mut self,
        session: SessionKey,
        end: CancellationToken,
    ) -> Result<ResourceKey, SessionError> {
        let resource = SessionResource::Subscription(end);
        self.sessions.attach(session, ResourceKind::Subscription, resource).map_err(|(refusal, _)| refusal.into())
    }

    /// Removes a subscription that has ended by itself, once.
    pub(super) fn unsubscribe(&mut self, subscription: ResourceKey) {
        self.sessions.detach(subscription);
    }

    /// Adds or refreshes an advertisement. Returns whether it is new.
    pub(super) fn advertise(
        &mut self,
        session: SessionKey,
        name: ServiceName,
        ttl: Option<Duration>,
        now: Instant,
    ) -> Result<bool, SessionError> {
        // After this no entry has an expired lease.
        self.sweep(now);
        let ttl = ttl.map(|ttl| ttl.clamp(self.shortest, self.longest));
        let mut advertised = self.advertised.write();
        let known = advertised.get(&name, &session, now).copied();
        let resource = match known {
            Some(resource) => resource,
            None => self
                .sessions
                .attach(session, ResourceKind::Advertisement, SessionResource::Advertisement)
                .map_err(|(refusal, _)| refusal)?,
        };
        match advertised.advertise(name, session, resource, ttl, now) {
            Ok(advertised) => {
                let new = matches!(advertised, Advertised::Added(_));
                if new {
                    self.changes.fetch_add(1, Relaxed);
                }
                Ok(new)
            }
            Err(refusal) => {
                if known.is_none() {
                    self.sessions.detach(resource);
                }
                Err(refusal.into())
            }
        }
    }

    /// Removes an advertisement. Returns whether it existed.
    pub(super) fn withdraw(&mut self, session: SessionKey, name: &ServiceName) -> bool {
        let resource = self.advertised.write().withdraw(name, &session);
        self.changed();
        resource.is_some_and(|resource| self.sessions.detach(resource).is_some())
    }

    /// Removes expired advertisements.
    pub(super) fn sweep(&mut self, now: Instant) {
        let swept = self.advertised.write().sweep(now);
        for (_, _, resource) in swept {
            self.sessions.detach(resource);
            self.changed();
        }
    }

    pub(super) fn sweep_after(&self, random: f64) -> Duration {
        self.advertised.read().sweep_after(random)
    }

    #[cfg(test)]
    pub(super) fn check_law(&self) {
        let advertised = self.advertised.read();
        assert_eq!(advertised.len(), self.sessions.count(ResourceKind::Advertisement));
        // Before every lease, so that expired ones are checked too.
        let beginning = Instant::now() - Duration::from_secs(3_600);
        for (_, owner, resource) in advertised.iter(beginning) {
            assert!(matches!(self.sessions.resource(*resource), Some(SessionResource::Advertisement)));
            assert!(self.sessions.resources(*owner).any(|(key, ..)| key == *resource));
        }
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.sessions.len(), self.sessions.count(ResourceKind::Subscription))
    }
}

fn end_subscriptions(resources: impl IntoIterator<Item = (ResourceKind, SessionResource)>) {
    for (_, resource) in resources {
        if let SessionResource::Subscription(end) = resource {
            end.cancel();
        }
    }
}

/// Names advertised now, each once, sorted. O(advertisements), without a message to the owner.
pub(super) fn names(leases: &Leases, now: Instant) -> Vec<ServiceName> {
    let mut names: Vec<_> = leases.read().iter(now).map(|(name, ..)| name.clone()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

impl Compact for SessionTable {
    fn footprint(&self) -> Footprint {
        self.sessions.footprint().plus(self.advertised.read().footprint())
    }

    fn compact(&mut self, policy: &CompactPolicy) -> Compacted {
        self.sessions.compact(policy).plus(self.advertised.write().compact(policy))
    }
}

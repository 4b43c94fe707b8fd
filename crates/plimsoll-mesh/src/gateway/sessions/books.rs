//! The books of a gateway's clients: who is there, what they subscribe to and what they advertise. Decisions only, with the
//! time as an argument.

use std::sync::Arc;
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

use crate::controls::switched_off;
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
    /// The lease of an advertisement that asks for none of its own. Default 300 s.
    pub ttl: Duration,
    /// The shortest lease; a shorter one is taken for this. Default 1 s.
    pub shortest_ttl: Duration,
    /// The longest lease; a longer one is taken for this. Default 300 s.
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

/// What the books refuse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error(transparent)]
    Session(#[from] SessionRefusal),
    #[error(transparent)]
    Registry(#[from] RegistryRefusal),
}

/// What belongs to a client beside its streams.
#[derive(Debug)]
pub(super) enum Held {
    /// A lease.
    Advertisement,
    /// Its end.
    Subscription(CancellationToken),
}

/// The leases of what is advertised. Only the books change them; anybody reads.
pub(super) type Leases = Arc<RwLock<TtlRegistry<ServiceName, SessionKey, ResourceKey>>>;

/// Clients by the number of their connection, with their subscriptions and what they advertise.
///
/// INVARIANT: each advertisement is an entry of the registry, owned by the session, and a resource of the session, named by
/// the entry. Both come and go in the same step.
#[derive(Debug)]
pub(super) struct Books {
    /// Of each client the token that ends the calls on its streams.
    sessions: Sessions<u64, CancellationToken, Held>,
    advertised: Leases,
    shortest: Duration,
    longest: Duration,
}

/// What the books count.
#[derive(Debug)]
pub(super) struct BooksCounters {
    sessions: SessionCounters,
    advertised: Counters<RegistryEvent>,
}

impl BooksCounters {
    pub(super) fn add_to(&self, details: &mut Details) {
        details.counters.extend(self.sessions.inspect().counters);
        self.advertised.add_to(details);
    }
}

impl Books {
    /// For `clients` at once, as the door admits them.
    pub(super) fn new(clients: usize, subscriptions: ResourceCaps, limits: &AdvertisementLimits) -> Self {
        // Twice as many, as for their actors: a place at the door may be free a moment before its client is taken out.
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
        Self { sessions, advertised, shortest: limits.shortest_ttl, longest: limits.longest_ttl }
    }

    pub(super) fn counters(&self) -> BooksCounters {
        let advertised = self.advertised.read().counters().clone();
        BooksCounters { sessions: self.sessions.counters().clone(), advertised }
    }

    /// The leases, for those who look.
    pub(super) fn leases(&self) -> Leases {
        Arc::clone(&self.advertised)
    }

    /// `streams` ends the calls on its streams when it is taken out.
    pub(super) fn enter(&mut self, nth: u64, streams: CancellationToken) -> Result<SessionKey, Refused> {
        let (session, _) = self.sessions.connect(nth, streams)?;
        Ok(session)
    }

    /// Takes a client out with all that it has, once: its calls and subscriptions end, its leases too.
    pub(super) fn leave(&mut self, session: SessionKey) {
        let Some(removed) = self.sessions.remove(session) else { return };
        if !switched_off("caller-death") {
            removed.client.cancel();
        }
        for (_, held) in removed.resources {
            if let Held::Subscription(end) = held {
                end.cancel();
            }
        }
        if !switched_off("coordinated-cleanup") {
            self.advertised.write().remove_owner(&session);
        }
    }

    /// Enters a subscription, which `end` ends when its client is taken out.
    pub(super) fn subscribe(&mut self, session: SessionKey, end: CancellationToken) -> Result<ResourceKey, Refused> {
        let held = Held::Subscription(end);
        self.sessions.attach(session, ResourceKind::Subscription, held).map_err(|(refusal, _)| refusal.into())
    }

    /// Takes a subscription out that has ended by itself; once, and not again with its client.
    pub(super) fn unsubscribe(&mut self, subscription: ResourceKey) {
        self.sessions.detach(subscription);
    }

    /// Whether the advertisement is new.
    pub(super) fn advertise(
        &mut self,
        session: SessionKey,
        name: ServiceName,
        ttl: Option<Duration>,
        now: Instant,
    ) -> Result<bool, Refused> {
        // From here on every entry is one whose lease has not run out.
        self.sweep(now);
        let ttl = ttl.map(|ttl| ttl.clamp(self.shortest, self.longest));
        let mut advertised = self.advertised.write();
        let known = advertised.get(&name, &session, now).copied();
        let resource = match known {
            Some(resource) => resource,
            None => self
                .sessions
                .attach(session, ResourceKind::Advertisement, Held::Advertisement)
                .map_err(|(refusal, _)| refusal)?,
        };
        match advertised.advertise(name, session, resource, ttl, now) {
            Ok(advertised) => Ok(matches!(advertised, Advertised::Added(_))),
            Err(refusal) => {
                if known.is_none() {
                    self.sessions.detach(resource);
                }
                Err(refusal.into())
            }
        }
    }

    /// Whether it was there.
    pub(super) fn withdraw(&mut self, session: SessionKey, name: &ServiceName) -> bool {
        let resource = self.advertised.write().withdraw(name, &session);
        resource.is_some_and(|resource| self.sessions.detach(resource).is_some())
    }

    /// Takes out what has run out.
    pub(super) fn sweep(&mut self, now: Instant) {
        if switched_off("sweep") {
            return;
        }
        let swept = self.advertised.write().sweep(now);
        for (_, _, resource) in swept {
            self.sessions.detach(resource);
        }
    }

    pub(super) fn sweep_after(&self, random: f64) -> Duration {
        self.advertised.read().sweep_after(random)
    }

    #[cfg(test)]
    pub(super) fn check_law(&self) {
        let advertised = self.advertised.read();
        assert_eq!(advertised.len(), self.sessions.count(ResourceKind::Advertisement));
        // Looked up at the beginning of time: whether it is still valid does not matter here.
        let beginning = Instant::now() - Duration::from_secs(3_600);
        for (_, owner, resource) in advertised.iter(beginning) {
            assert!(matches!(self.sessions.resource(*resource), Some(Held::Advertisement)));
            assert!(self.sessions.resources(*owner).any(|(key, ..)| key == *resource));
        }
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.sessions.len(), self.sessions.count(ResourceKind::Subscription))
    }
}

/// Names advertised now, each once, sorted. O(all), and takes no turn of whoever owns the leases.
pub(super) fn names(leases: &Leases, now: Instant) -> Vec<ServiceName> {
    let mut names: Vec<_> = leases.read().iter(now).map(|(name, ..)| name.clone()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

impl Compact for Books {
    fn footprint(&self) -> Footprint {
        self.sessions.footprint().plus(self.advertised.read().footprint())
    }

    fn compact(&mut self, policy: &CompactPolicy) -> Compacted {
        self.sessions.compact(policy).plus(self.advertised.write().compact(policy))
    }
}

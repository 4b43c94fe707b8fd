//! The books of a gateway's clients: who is there, and what they advertise. Decisions only, with the time as an argument.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use plimsoll::bounded::registry::{Advertised, RegistryEvent};
use plimsoll::bounded::sessions::{ResourceKey, SessionCounters, SessionKey};
use plimsoll::bounded::{
    Cap, Compact, CompactPolicy, Compacted, Counters, Footprint, Rate, RegistryRefusal, RegistrySettings, ResourceCaps,
    ResourceKind, SessionRefusal, SessionSettings, Sessions, TtlRegistry,
};
use plimsoll::inspect::{Details, Inspect as _};

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

/// Clients by the number of their connection, with what they advertise.
///
/// INVARIANT: each advertisement is an entry of the registry, owned by the session, and a resource of the session, named by
/// the entry. Both come and go in the same step.
#[derive(Debug)]
pub(super) struct Books {
    sessions: Sessions<u64, SocketAddr, ServiceName>,
    advertised: TtlRegistry<ServiceName, SessionKey, ResourceKey>,
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
    pub(super) fn new(clients: usize, limits: &AdvertisementLimits) -> Self {
        // Twice as many, as for their actors: a place at the door may be free a moment before its client is taken out.
        let clients = Cap::new(clients.saturating_mul(2)).unwrap_or(Cap::of::<{ Cap::MAX }>());
        let advertisements = ResourceCaps { total: limits.total, per_client: limits.per_client };
        let sessions = Sessions::new(SessionSettings { clients, advertisements, ..SessionSettings::default() });
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
        Self { sessions, advertised, shortest: limits.shortest_ttl, longest: limits.longest_ttl }
    }

    pub(super) fn counters(&self) -> BooksCounters {
        BooksCounters { sessions: self.sessions.counters().clone(), advertised: self.advertised.counters().clone() }
    }

    pub(super) fn enter(&mut self, nth: u64, address: SocketAddr) -> Result<SessionKey, Refused> {
        let (session, _) = self.sessions.connect(nth, address)?;
        Ok(session)
    }

    /// Takes a client out with all that it advertises, once.
    pub(super) fn leave(&mut self, session: SessionKey) {
        if self.sessions.remove(session).is_some() {
            self.advertised.owner_gone(&session);
        }
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
        let known = self.advertised.get(&name, &session, now).copied();
        let resource = match known {
            Some(resource) => resource,
            None => self
                .sessions
                .attach(session, ResourceKind::Advertisement, name.clone())
                .map_err(|(refusal, _)| refusal)?,
        };
        match self.advertised.advertise(name, session, resource, ttl, now) {
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
        let resource = self.advertised.withdraw(name, &session);
        resource.is_some_and(|resource| self.sessions.detach(resource).is_some())
    }

    /// Takes out what has run out.
    pub(super) fn sweep(&mut self, now: Instant) {
        for (_, _, resource) in self.advertised.sweep(now) {
            self.sessions.detach(resource);
        }
    }

    pub(super) fn sweep_after(&self, random: f64) -> Duration {
        self.advertised.sweep_after(random)
    }

    /// Names advertised now, each once, sorted. O(all).
    pub(super) fn names(&self, now: Instant) -> Vec<ServiceName> {
        let mut names: Vec<_> = self.advertised.iter(now).map(|(name, ..)| name.clone()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    #[cfg(test)]
    pub(super) fn check_law(&self) {
        assert_eq!(self.advertised.len(), self.sessions.count(ResourceKind::Advertisement));
        for (session, ..) in self.sessions.iter() {
            for (resource, _, name) in self.sessions.resources(session) {
                // Looked up at the beginning of time: whether it is still valid does not matter here.
                assert!(
                    self.advertised
                        .iter(Instant::now() - Duration::from_secs(3_600))
                        .any(|(n, owner, key)| { (n, *owner, *key) == (name, session, resource) })
                );
            }
        }
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.sessions.len(), self.advertised.len())
    }
}

impl Compact for Books {
    fn footprint(&self) -> Footprint {
        self.sessions.footprint().plus(self.advertised.footprint())
    }

    fn compact(&mut self, policy: &CompactPolicy) -> Compacted {
        self.sessions.compact(policy).plus(self.advertised.compact(policy))
    }
}

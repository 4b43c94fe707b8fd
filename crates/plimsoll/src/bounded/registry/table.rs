//! The decisions of a registry: what may be advertised, and what is found.

mod expiry;
#[cfg(test)]
mod invariants;
mod rows;

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use plimsoll_sync::slots::{SlotKey, Slots};

use self::expiry::ExpiryWheel;
use super::{RegistryEvent, RegistryRefusal, RegistrySettings};
use crate::bounded::linked_list::{Links, List, linked, visits};
use crate::bounded::time::NEVER;
use crate::bounded::{Cap, Compact, CompactPolicy, Compacted, Counters, Footprint, TokenBucket};

/// At most [`RegistrySettings::entries`] providers by name. See the [module](super) for how it works.
///
/// `N` is the name, `O` the owner, `V` the value of an entry. One owner has at most one entry of a name. A clock is an
/// argument of each operation; [`ActorRegistry`](super::ActorRegistry) has one, and monitors its owners.
///
/// ```
/// use std::time::{Duration, Instant};
/// use plimsoll::bounded::{RegistrySettings, TtlRegistry};
///
/// let mut registry = TtlRegistry::new(RegistrySettings::default());
/// let now = Instant::now();
/// registry.advertise("resize", "node 1", 4433, Some(Duration::from_secs(5)), now).unwrap();
/// assert_eq!(registry.providers(&"resize", now).next(), Some((&"node 1", &4433)));
/// let later = now + Duration::from_secs(5);
/// assert_eq!(registry.providers(&"resize", later).next(), None);
/// assert_eq!(registry.sweep(later).len(), 1);
/// ```
#[derive(Debug)]
pub struct TtlRegistry<N, O, V> {
    settings: RegistrySettings,
    rows: Slots<Row<V>>,
    names: Slots<Name<N>>,
    owners: Slots<Owner<O>>,
    by_name: HashMap<N, SlotKey>,
    by_owner: HashMap<O, SlotKey>,
    /// Rows by name and owner.
    pairs: HashMap<(SlotKey, SlotKey), SlotKey>,
    /// Owners without an entry, whose rate is remembered; least recently used first.
    idle_owners: List<0>,
    /// When the lease of each row expires.
    expiry: ExpiryWheel,
    counters: Counters<RegistryEvent>,
}

/// Identifies one entry of one registry; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseKey(SlotKey);

/// The result of an advertisement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advertised {
    /// There was none: it was added.
    Added(LeaseKey),
    /// There was one of this name and owner: its lease is renewed and its value is replaced.
    Refreshed(LeaseKey),
}

#[derive(Debug)]
struct Row<V> {
    name: SlotKey,
    owner: SlotKey,
    value: V,
    ttl: Duration,
    ends: Instant,
    of_name: Links,
    of_owner: Links,
    of_lease: Links,
}

linked!([V] Row<V>, 0, of_name);
linked!([V] Row<V>, 1, of_owner);
linked!([V] Row<V>, 2, of_lease);

#[derive(Debug)]
struct Name<N> {
    name: N,
    /// The most recently renewed is last.
    rows: List<0>,
}

#[derive(Debug)]
struct Owner<O> {
    owner: O,
    rows: List<1>,
    bucket: TokenBucket,
    links: Links,
}

linked!([O] Owner<O>, 0, links);

impl<N: Eq + Hash + Clone, O: Eq + Hash + Clone, V> TtlRegistry<N, O, V> {
    /// An empty registry. Allocates nothing yet.
    pub fn new(settings: RegistrySettings) -> Self {
        let entries = settings.entries.slots();
        Self {
            rows: Slots::with_limit(entries),
            names: Slots::with_limit(entries),
            // Owners with entries, and as many without.
            owners: Slots::with_limit(entries * 2),
            by_name: HashMap::new(),
            by_owner: HashMap::new(),
            pairs: HashMap::new(),
            idle_owners: List::default(),
            expiry: ExpiryWheel::new(settings.longest_ttl),
            counters: Counters::new(&settings.name, settings.entries),
            settings,
        }
    }

    /// Adds the entry of `owner` at `name`, or renews its lease and replaces its value.
    ///
    /// # Errors
    /// [`RegistryRefusal`]; nothing is changed.
    pub fn advertise(
        &mut self,
        name: N,
        owner: O,
        value: V,
        ttl: Option<Duration>,
        now: Instant,
    ) -> Result<Advertised, RegistryRefusal> {
        let ttl = ttl.unwrap_or(self.settings.ttl);
        match self.decide(&name, &owner, ttl, now) {
            Ok(Some(row_key)) => {
                self.take_token(&owner, now);
                self.counters.count_by_owner(RegistryEvent::Refreshed);
                self.renew(row_key, ttl, now);
                if let Some(row) = self.rows.get_mut(row_key) {
                    row.value = value;
                }
                Ok(Advertised::Refreshed(LeaseKey(row_key)))
            }
            Ok(None) => {
                let owner_key = self.take_token(&owner, now);
                self.counters.count_by_owner(RegistryEvent::Added);
                let row_key = self.insert(name, owner_key, value, ttl, now);
                Ok(Advertised::Added(LeaseKey(row_key)))
            }
            Err(refusal) => {
                self.counters.count_by_owner(refusal.event());
                Err(refusal)
            }
        }
    }

    /// The row to be renewed, if there is one; otherwise there is room for another.
    fn decide(&mut self, name: &N, owner: &O, ttl: Duration, now: Instant) -> Result<Option<SlotKey>, RegistryRefusal> {
        let RegistrySettings { shortest_ttl: shortest, longest_ttl: longest, .. } = self.settings;
        if ttl < shortest || ttl > longest {
            return Err(RegistryRefusal::InvalidTtl { asked: ttl, shortest, longest });
        }
        self.check_rate(owner, now)?;
        let row = self.row_of(name, owner);
        if row.is_none() {
            if self.rows.len() >= self.settings.entries.get() {
                // Expired entries are no reason to refuse.
                self.expire(now, |_| ());
            }
            let RegistrySettings { entries, per_name, per_owner, .. } = self.settings;
            if self.rows.len() >= entries.get() {
                return Err(RegistryRefusal::Full { cap: entries.get() });
            }
            if self
                .by_name
                .get(name)
                .and_then(|key| self.names.get(*key))
                .is_some_and(|n| n.rows.len() >= per_name.get())
            {
                return Err(RegistryRefusal::NameFull { cap: per_name.get() });
            }
            if self.owner_row(owner).is_some_and(|owner| owner.rows.len() >= per_owner.get()) {
                return Err(RegistryRefusal::OwnerFull { cap: per_owner.get() });
            }
        }
        Ok(row)
    }

    fn check_rate(&self, owner: &O, now: Instant) -> Result<(), RegistryRefusal> {
        let bucket = self.owner_row(owner).map(|owner| owner.bucket).unwrap_or_default();
        bucket.check(self.settings.owner_rate, now).map_err(|retry_after| RegistryRefusal::RateLimited { retry_after })
    }

    /// Renews the leases of all entries of `owner`, each for its own length; that counts as one renewal. Returns how many there
    /// are; without any, no token is taken. O(its entries).
    ///
    /// # Errors
    /// [`RegistryRefusal::RateLimited`].
    pub fn renew_all(&mut self, owner: &O, now: Instant) -> Result<usize, RegistryRefusal> {
        let rows = self.owner_row(owner).map(|owner| (owner.rows.front(), owner.rows.len()));
        let Some((mut next @ Some(_), entries)) = rows else { return Ok(0) };
        if let Err(refusal) = self.check_rate(owner, now) {
            self.counters.count_by_owner(refusal.event());
            return Err(refusal);
        }
        self.take_token(owner, now);
        self.counters.count_by_owner(RegistryEvent::Refreshed);
        while let Some(index) = next {
            next = List::<1>::next(&self.rows, index);
            if let Some((row_key, row)) = self.rows.at(index) {
                let ttl = row.ttl;
                self.renew(row_key, ttl, now);
            }
        }
        Ok(entries)
    }

    /// Removes the entry of `owner` at `name`.
    pub fn withdraw(&mut self, name: &N, owner: &O) -> Option<V> {
        let row_key = self.row_of(name, owner)?;
        let (_, _, value) = self.remove_row(row_key)?;
        self.counters.count_by_owner(RegistryEvent::Withdrawn);
        Some(value)
    }

    /// Removes this entry; a later one of the same name and owner is never meant.
    pub fn remove(&mut self, entry: LeaseKey) -> Option<(N, O, V)> {
        let removed = self.remove_row(entry.0)?;
        self.counters.count_by_owner(RegistryEvent::Withdrawn);
        Some(removed)
    }

    /// Removes an owner with all its entries and its rate. O(its entries).
    pub fn remove_owner(&mut self, owner: &O) -> Vec<(N, V)> {
        let Some(owner_key) = self.by_owner.get(owner).copied() else { return Vec::new() };
        let mut removed = Vec::new();
        while let Some(index) = self.owners.get(owner_key).and_then(|owner| owner.rows.front()) {
            let Some((row_key, _)) = self.rows.at(index) else { break };
            let Some((name, _, value)) = self.remove_row(row_key) else { break };
            self.counters.count_by_owner(RegistryEvent::OwnerRemoved);
            removed.push((name, value));
        }
        self.idle_owners.unlink(&mut self.owners, owner_key.index());
        self.owners.remove(owner_key);
        self.by_owner.remove(owner);
        removed
    }

    /// The providers of `name` at `now`, the most recently renewed first. The first is found in O(1) where all leases of a
    /// name have one length.
    pub fn providers(&self, name: &N, now: Instant) -> impl Iterator<Item = (&O, &V)> {
        visits::count();
        let rows = self.by_name.get(name).and_then(|key| self.names.get(*key)).map(|name| &name.rows);
        let last = rows.and_then(List::back);
        let indexes = std::iter::successors(last, |index| List::<0>::previous(&self.rows, *index));
        indexes.filter_map(move |index| {
            let (_, row) = self.rows.at(index)?;
            let owner = self.owners.get(row.owner)?;
            (row.ends > now).then_some((&owner.owner, &row.value))
        })
    }

    /// The entry of `owner` at `name`, if its lease has not expired at `now`.
    pub fn get(&self, name: &N, owner: &O, now: Instant) -> Option<&V> {
        self.rows.get(self.row_of(name, owner)?).filter(|row| row.ends > now).map(|row| &row.value)
    }

    /// All entries whose lease has not expired at `now`. O(entries).
    pub fn iter(&self, now: Instant) -> impl Iterator<Item = (&N, &O, &V)> {
        self.rows.iter().filter(move |(_, row)| row.ends > now).filter_map(|(_, row)| {
            let name = self.names.get(row.name)?;
            let owner = self.owners.get(row.owner)?;
            Some((&name.name, &owner.owner, &row.value))
        })
    }

    /// Removes all entries whose lease has expired at `now`. O(those): only leases that expire within the same thousandth of the
    /// longest one are sorted.
    pub fn sweep(&mut self, now: Instant) -> Vec<(N, O, V)> {
        self.counters.count_by_owner(RegistryEvent::Swept);
        let mut expired = Vec::new();
        self.expire(now, |row| expired.push(row));
        expired
    }

    fn expire(&mut self, now: Instant, mut each: impl FnMut((N, O, V))) {
        while let Some(row_key) = self.expiry.due(&mut self.rows, now) {
            let Some(row) = self.remove_row(row_key) else { break };
            self.counters.count_by_owner(RegistryEvent::Expired);
            each(row);
        }
    }

    /// The longest time between two sweeps: the smaller of [`RegistrySettings::sweep`] and a fifth of the shortest lease held.
    pub fn tick(&self) -> Duration {
        let shortest = self.expiry.shortest().map(|ttl| ttl / 5);
        shortest.map_or(self.settings.sweep, |tick| tick.min(self.settings.sweep))
    }

    /// The time until the next sweep, with `random` from 0 to 1: a tick, less up to the jitter. To be called again after each
    /// sweep and whenever [`TtlRegistry::tick`] has become shorter; sweeps that were missed are not made up for.
    pub fn sweep_after(&self, random: f64) -> Duration {
        let shortened = self.settings.jitter.clamp(0.0, 0.9) * random.clamp(0.0, 1.0);
        self.tick().min(NEVER).mul_f64(1.0 - shortened)
    }

    /// Entries, including those whose lease has expired since the last sweep.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Changes the cap on all entries, up to the one that the registry was built with. Entries over a lowered one stay until
    /// they end; none is added meanwhile.
    pub fn set_entries(&mut self, cap: Cap) {
        self.settings.entries = cap.min(Cap::new(self.rows.limit() as usize).unwrap_or(cap));
        self.counters.entries().set_cap(self.settings.entries.get() as u64);
    }

    /// The counters.
    pub fn counters(&self) -> &Counters<RegistryEvent> {
        &self.counters
    }

    /// The settings, with the cap in force.
    pub fn settings(&self) -> &RegistrySettings {
        &self.settings
    }

    fn row_of(&self, name: &N, owner: &O) -> Option<SlotKey> {
        visits::count();
        self.pairs.get(&(*self.by_name.get(name)?, *self.by_owner.get(owner)?)).copied()
    }

    fn owner_row(&self, owner: &O) -> Option<&Owner<O>> {
        visits::count();
        self.owners.get(*self.by_owner.get(owner)?)
    }
}

impl<N: Eq + Hash, O: Eq + Hash, V> Compact for TtlRegistry<N, O, V> {
    fn footprint(&self) -> Footprint {
        let tables = self.rows.footprint().plus(self.names.footprint()).plus(self.owners.footprint());
        let indexes = self.by_name.footprint().plus(self.by_owner.footprint()).plus(self.pairs.footprint());
        tables.plus(indexes).plus(self.expiry.footprint())
    }

    fn compact(&mut self, policy: &CompactPolicy) -> Compacted {
        let tables = Compact::compact(&mut self.rows, policy)
            .plus(Compact::compact(&mut self.names, policy))
            .plus(Compact::compact(&mut self.owners, policy));
        let indexes = self.by_name.compact(policy).plus(self.by_owner.compact(policy)).plus(self.pairs.compact(policy));
        tables.plus(indexes).plus(self.expiry.compact())
    }
}

//! The decisions of a registry.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::time::{Duration, Instant};

use plimsoll_sync::slots::{SlotKey, Slots};

use super::{RegistryEvent, RegistryRefusal, RegistrySettings};
use crate::bounded::admission::Bucket;
use crate::bounded::list::{Links, List, linked, visits};
use crate::bounded::{Cap, Compact, CompactPolicy, Compacted, Counters, Footprint};

/// At most [`RegistrySettings::entries`] providers by name. See the [module](super) for how it works.
///
/// `N` names what is provided, `O` who provides it, `V` is what there is to know about it. One owner has at most one entry
/// of a name.
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
    /// Owners without an entry, whose rate is remembered; those longest so first.
    quiet: List<0>,
    /// Every row, in the order in which leases run out.
    leases: BTreeSet<(Instant, SlotKey)>,
    /// How many rows have a lease of this length.
    ttls: BTreeMap<Duration, usize>,
    counters: Counters<RegistryEvent>,
}

/// Names one entry of one registry, for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseKey(SlotKey);

/// What an advertisement did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advertised {
    /// There was none: it was added.
    Added(LeaseKey),
    /// There was one of this name and owner: its lease begins anew and its value is replaced.
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
}

linked!([V] Row<V>, 0, of_name);
linked!([V] Row<V>, 1, of_owner);

#[derive(Debug)]
struct Name<N> {
    name: N,
    /// Those refreshed last are last.
    rows: List<0>,
}

#[derive(Debug)]
struct Owner<O> {
    owner: O,
    rows: List<1>,
    bucket: Bucket,
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
            // Those with entries, and as many without.
            owners: Slots::with_limit(entries * 2),
            by_name: HashMap::new(),
            by_owner: HashMap::new(),
            pairs: HashMap::new(),
            quiet: List::default(),
            leases: BTreeSet::new(),
            ttls: BTreeMap::new(),
            counters: Counters::new(&settings.name, settings.entries),
            settings,
        }
    }

    /// Adds the entry of `owner` at `name`, or begins its lease anew and replaces its value.
    ///
    /// # Errors
    /// [`RegistryRefusal`]; nothing is changed then.
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
                self.counters.tally(RegistryEvent::Refreshed);
                self.renew(row_key, ttl, now);
                if let Some(row) = self.rows.get_mut(row_key) {
                    row.value = value;
                }
                Ok(Advertised::Refreshed(LeaseKey(row_key)))
            }
            Ok(None) => {
                let owner_key = self.take_token(&owner, now);
                self.counters.tally(RegistryEvent::Added);
                let row_key = self.insert(name, owner_key, value, ttl, now);
                Ok(Advertised::Added(LeaseKey(row_key)))
            }
            Err(refusal) => {
                self.counters.tally(refusal.event());
                Err(refusal)
            }
        }
    }

    /// The row to be refreshed, if there is one; otherwise there is room for another.
    fn decide(&mut self, name: &N, owner: &O, ttl: Duration, now: Instant) -> Result<Option<SlotKey>, RegistryRefusal> {
        let RegistrySettings { shortest_ttl: shortest, longest_ttl: longest, .. } = self.settings;
        if ttl < shortest || ttl > longest {
            return Err(RegistryRefusal::InvalidTtl { asked: ttl, shortest, longest });
        }
        self.check_rate(owner, now)?;
        let row = self.row_of(name, owner);
        if row.is_none() {
            if self.rows.len() >= self.settings.entries.get() {
                // What has run out is no reason to refuse.
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

    /// Begins the leases of all entries of `owner` anew, each with its own length; that counts as one refreshment. Returns
    /// how many there are. Without any it costs nothing. O(its entries).
    ///
    /// # Errors
    /// [`RegistryRefusal::RateLimited`].
    pub fn renew_all(&mut self, owner: &O, now: Instant) -> Result<usize, RegistryRefusal> {
        let rows = self.owner_row(owner).map(|owner| (owner.rows.front(), owner.rows.len()));
        let Some((mut next @ Some(_), entries)) = rows else { return Ok(0) };
        if let Err(refusal) = self.check_rate(owner, now) {
            self.counters.tally(refusal.event());
            return Err(refusal);
        }
        self.take_token(owner, now);
        self.counters.tally(RegistryEvent::Refreshed);
        while let Some(index) = next {
            next = List::<1>::next(&self.rows, index);
            if let Some((row_key, row)) = self.rows.at(index) {
                let ttl = row.ttl;
                self.renew(row_key, ttl, now);
            }
        }
        Ok(entries)
    }

    /// Takes out the entry of `owner` at `name`.
    pub fn withdraw(&mut self, name: &N, owner: &O) -> Option<V> {
        let row_key = self.row_of(name, owner)?;
        let (_, _, value) = self.remove_row(row_key)?;
        self.counters.tally(RegistryEvent::Withdrawn);
        Some(value)
    }

    /// Takes out this very entry; one that came later is never meant.
    pub fn remove(&mut self, entry: LeaseKey) -> Option<(N, O, V)> {
        let removed = self.remove_row(entry.0)?;
        self.counters.tally(RegistryEvent::Withdrawn);
        Some(removed)
    }

    /// Takes out everything of an owner that is gone, its rate included. O(its entries).
    pub fn owner_gone(&mut self, owner: &O) -> Vec<(N, V)> {
        let Some(owner_key) = self.by_owner.get(owner).copied() else { return Vec::new() };
        let mut gone = Vec::new();
        while let Some(index) = self.owners.get(owner_key).and_then(|owner| owner.rows.front()) {
            let Some((row_key, _)) = self.rows.at(index) else { break };
            let Some((name, _, value)) = self.remove_row(row_key) else { break };
            self.counters.tally(RegistryEvent::OwnerGone);
            gone.push((name, value));
        }
        self.quiet.unlink(&mut self.owners, owner_key.index());
        self.owners.remove(owner_key);
        self.by_owner.remove(owner);
        gone
    }

    /// Everybody who provides `name` at `now`, those refreshed last first. The first is found in O(1) where all leases of a
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

    /// The entry of `owner` at `name`, if its lease has not run out at `now`.
    pub fn get(&self, name: &N, owner: &O, now: Instant) -> Option<&V> {
        self.rows.get(self.row_of(name, owner)?).filter(|row| row.ends > now).map(|row| &row.value)
    }

    /// All entries whose lease has not run out at `now`. O(entries).
    pub fn iter(&self, now: Instant) -> impl Iterator<Item = (&N, &O, &V)> {
        self.rows.iter().filter(move |(_, row)| row.ends > now).filter_map(|(_, row)| {
            let name = self.names.get(row.name)?;
            let owner = self.owners.get(row.owner)?;
            Some((&name.name, &owner.owner, &row.value))
        })
    }

    /// Takes out everything whose lease has run out at `now`. O(those).
    pub fn sweep(&mut self, now: Instant) -> Vec<(N, O, V)> {
        self.counters.tally(RegistryEvent::Swept);
        let mut expired = Vec::new();
        self.expire(now, |row| expired.push(row));
        expired
    }

    fn expire(&mut self, now: Instant, mut each: impl FnMut((N, O, V))) {
        while let Some((ends, row_key)) = self.leases.first().copied() {
            visits::count();
            if ends > now {
                break;
            }
            let Some(row) = self.remove_row(row_key) else { break };
            self.counters.tally(RegistryEvent::Expired);
            each(row);
        }
    }

    /// How long nothing may go unswept: the smaller of [`RegistrySettings::sweep`] and a fifth of the shortest lease held.
    pub fn tick(&self) -> Duration {
        let shortest = self.ttls.first_key_value().map(|(ttl, _)| *ttl / 5);
        shortest.map_or(self.settings.sweep, |tick| tick.min(self.settings.sweep))
    }

    /// How long to wait for the next sweep, with `random` from 0 to 1: a tick, less up to the jitter. To be asked again after
    /// each sweep and whenever [`TtlRegistry::tick`] has become shorter; sweeps that were missed are not made up for.
    pub fn sweep_after(&self, random: f64) -> Duration {
        let shortened = self.settings.jitter.clamp(0.0, 0.9) * random.clamp(0.0, 1.0);
        self.tick().mul_f64(1.0 - shortened)
    }

    /// Entries, those included whose lease has run out since the last sweep.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Changes the cap on all entries, up to the one that the registry was built with. Those over a lowered one stay until
    /// they end; nothing is added meanwhile.
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

    /// Takes a token of the owner's rate; the owner is known from now on.
    fn take_token(&mut self, owner: &O, now: Instant) -> SlotKey {
        let key = match self.by_owner.get(owner) {
            Some(key) => *key,
            None => {
                if self.quiet.len() >= self.settings.entries.get()
                    && let Some(index) = self.quiet.pop_front(&mut self.owners)
                    && let Some((key, _)) = self.owners.at(index)
                    && let Some(forgotten) = self.owners.remove(key)
                {
                    self.by_owner.remove(&forgotten.owner);
                }
                let row = Owner {
                    owner: owner.clone(),
                    rows: List::default(),
                    bucket: Bucket::default(),
                    links: Links::default(),
                };
                // INVARIANT: owners with entries are at most as many as entries, and those without as well.
                let Ok(key) = self.owners.insert(row) else {
                    unreachable!("owners are bounded by entries and quiet ones")
                };
                self.by_owner.insert(owner.clone(), key);
                self.quiet.push_back(&mut self.owners, key.index());
                key
            }
        };
        if let Some(row) = self.owners.get_mut(key) {
            row.bucket.take(self.settings.owner_rate, now);
        }
        key
    }

    fn insert(&mut self, name: N, owner: SlotKey, value: V, ttl: Duration, now: Instant) -> SlotKey {
        let name = match self.by_name.get(&name) {
            Some(key) => *key,
            None => {
                let row = Name { name: name.clone(), rows: List::default() };
                let Ok(key) = self.names.insert(row) else { unreachable!("each name has an entry") };
                self.by_name.insert(name, key);
                key
            }
        };
        let ends = now + ttl;
        let row = Row { name, owner, value, ttl, ends, of_name: Links::default(), of_owner: Links::default() };
        let Ok(row_key) = self.rows.insert(row) else { unreachable!("room was made sure of") };
        if let Some(name) = self.names.get_mut(name) {
            name.rows.push_back(&mut self.rows, row_key.index());
        }
        if let Some(row) = self.owners.get_mut(owner) {
            row.rows.push_back(&mut self.rows, row_key.index());
            if row.rows.len() == 1 {
                self.quiet.unlink(&mut self.owners, owner.index());
            }
        }
        self.pairs.insert((name, owner), row_key);
        self.leases.insert((ends, row_key));
        *self.ttls.entry(ttl).or_default() += 1;
        self.counters.entries().set(self.rows.len() as u64);
        row_key
    }

    /// Begins a lease anew.
    fn renew(&mut self, row_key: SlotKey, ttl: Duration, now: Instant) {
        visits::count();
        let Some(row) = self.rows.get_mut(row_key) else { return };
        let (old_ends, old_ttl) = (row.ends, row.ttl);
        (row.ends, row.ttl) = (now + ttl, ttl);
        self.leases.remove(&(old_ends, row_key));
        self.leases.insert((now + ttl, row_key));
        if old_ttl != ttl {
            self.drop_ttl(old_ttl);
            *self.ttls.entry(ttl).or_default() += 1;
        }
        let name = self.rows.get(row_key).map(|row| row.name);
        if let Some(name) = name.and_then(|name| self.names.get_mut(name)) {
            name.rows.move_to_back(&mut self.rows, row_key.index());
        }
    }

    fn drop_ttl(&mut self, ttl: Duration) {
        if let Some(count) = self.ttls.get_mut(&ttl) {
            *count -= 1;
            if *count == 0 {
                self.ttls.remove(&ttl);
            }
        }
    }

    /// Takes a row out of the table and of everything that names it: the only way out for a row.
    fn remove_row(&mut self, row_key: SlotKey) -> Option<(N, O, V)> {
        visits::count();
        let row = self.rows.get(row_key)?;
        let (name_key, owner_key) = (row.name, row.owner);
        let name = self.names.get_mut(name_key)?;
        name.rows.unlink(&mut self.rows, row_key.index());
        let text = name.name.clone();
        if name.rows.is_empty() {
            self.names.remove(name_key);
            self.by_name.remove(&text);
        }
        let owner_row = self.owners.get_mut(owner_key)?;
        owner_row.rows.unlink(&mut self.rows, row_key.index());
        let owner = owner_row.owner.clone();
        if owner_row.rows.is_empty() {
            self.quiet.push_back(&mut self.owners, owner_key.index());
        }
        let row = self.rows.remove(row_key)?;
        self.pairs.remove(&(name_key, owner_key));
        self.leases.remove(&(row.ends, row_key));
        self.drop_ttl(row.ttl);
        self.counters.entries().set(self.rows.len() as u64);
        Some((text, owner, row.value))
    }

    /// Indexes = rows, leases = rows, lists = rows, names without a row do not exist, and the counters add up.
    #[cfg(test)]
    pub(super) fn check_law(&self) {
        let rows = self.rows.len();
        assert_eq!(self.pairs.len(), rows);
        assert_eq!(self.leases.len(), rows, "live timers = live entries");
        assert_eq!(self.ttls.values().sum::<usize>(), rows);
        for (row_key, row) in self.rows.iter() {
            assert!(self.leases.contains(&(row.ends, row_key)));
            assert_eq!(self.pairs.get(&(row.name, row.owner)), Some(&row_key));
        }
        assert_eq!(self.by_name.len(), self.names.len());
        assert!(self.by_name.iter().all(|(name, key)| self.names.get(*key).is_some_and(|row| row.name == *name)));
        assert!(self.names.iter().all(|(_, name)| !name.rows.is_empty()));
        assert_eq!(self.names.iter().map(|(_, name)| name.rows.iter(&self.rows).count()).sum::<usize>(), rows);
        assert_eq!(self.by_owner.len(), self.owners.len());
        assert!(self.by_owner.iter().all(|(owner, key)| self.owners.get(*key).is_some_and(|row| row.owner == *owner)));
        assert_eq!(self.owners.iter().map(|(_, owner)| owner.rows.iter(&self.rows).count()).sum::<usize>(), rows);
        assert_eq!(self.quiet.len(), self.owners.iter().filter(|(_, owner)| owner.rows.is_empty()).count());
        let counted = |event| self.counters.counted(event);
        let gone =
            counted(RegistryEvent::Withdrawn) + counted(RegistryEvent::OwnerGone) + counted(RegistryEvent::Expired);
        assert_eq!(counted(RegistryEvent::Added), rows as u64 + gone);
        assert_eq!(self.counters.entries().level().used, rows as u64);
    }
}

impl<N: Eq + Hash, O: Eq + Hash, V> Compact for TtlRegistry<N, O, V> {
    fn footprint(&self) -> Footprint {
        let tables = self.rows.footprint().plus(self.names.footprint()).plus(self.owners.footprint());
        let indexes = self.by_name.footprint().plus(self.by_owner.footprint()).plus(self.pairs.footprint());
        tables.plus(indexes)
    }

    fn compact(&mut self, policy: &CompactPolicy) -> Compacted {
        // The ordered sets give their nodes back by themselves.
        let tables = Compact::compact(&mut self.rows, policy)
            .plus(Compact::compact(&mut self.names, policy))
            .plus(Compact::compact(&mut self.owners, policy));
        let indexes = self.by_name.compact(policy).plus(self.by_owner.compact(policy)).plus(self.pairs.compact(policy));
        tables.plus(indexes)
    }
}

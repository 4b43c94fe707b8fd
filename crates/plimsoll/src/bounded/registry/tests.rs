use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::bounded::linked_list::visits;
use crate::bounded::{Cap, Compact, CompactPolicy, Rate};

fn settings() -> RegistrySettings {
    RegistrySettings {
        entries: Cap::of::<6>(),
        per_name: Cap::of::<3>(),
        per_owner: Cap::of::<4>(),
        owner_rate: Rate { per_second: Cap::of::<10>(), burst: Cap::of::<4>() },
        ttl: Duration::from_secs(2),
        longest_ttl: Duration::from_secs(4),
        sweep: Duration::from_millis(700),
        ..RegistrySettings::default()
    }
}

#[derive(Debug, Clone)]
enum Op {
    Advertise { name: u8, owner: u8, ttl_ms: Option<u64> },
    RenewAll(u8),
    Withdraw { name: u8, owner: u8 },
    Remove(usize),
    OwnerGone(u8),
    Sweep,
    Advance(u64),
    Compact,
}

fn op() -> impl Strategy<Value = Op> {
    let (name, owner) = (0_u8..4, 0_u8..4);
    let ttl_ms = prop_oneof![Just(None), (900_u64..4_100).prop_map(Some)];
    prop_oneof![
        10 => (name.clone(), owner.clone(), ttl_ms)
            .prop_map(|(name, owner, ttl_ms)| Op::Advertise { name, owner, ttl_ms }),
        2 => owner.clone().prop_map(Op::RenewAll),
        2 => (name, owner.clone()).prop_map(|(name, owner)| Op::Withdraw { name, owner }),
        2 => (0_usize..32).prop_map(Op::Remove),
        1 => owner.prop_map(Op::OwnerGone),
        2 => Just(Op::Sweep),
        4 => (1_u64..1_500).prop_map(Op::Advance),
        1 => Just(Op::Compact),
    ]
}

/// Rows in a plain list, those refreshed last at the end; a rate is a count of tokens.
#[derive(Default)]
struct Model {
    rows: Vec<Entry>,
    tokens: Vec<(u8, u64, Instant)>,
}

#[derive(Clone, Debug)]
struct Entry {
    name: u8,
    owner: u8,
    value: u32,
    ttl: Duration,
    ends: Instant,
}

const TOKEN: u64 = 100_000_000;

impl Model {
    fn tokens(&mut self, owner: u8, now: Instant) -> &mut u64 {
        let at = self.tokens.iter().position(|(o, ..)| *o == owner).unwrap_or_else(|| {
            self.tokens.push((owner, 4 * TOKEN, now));
            self.tokens.len() - 1
        });
        let (_, filled, since) = &mut self.tokens[at];
        *filled = (*filled + (now - *since).as_nanos() as u64).min(4 * TOKEN);
        *since = now;
        filled
    }

    fn expire(&mut self, now: Instant) -> usize {
        let before = self.rows.len();
        self.rows.retain(|row| row.ends > now);
        before - self.rows.len()
    }

    fn advertise(&mut self, entry: Entry, now: Instant) -> &'static str {
        if entry.ttl < Duration::from_secs(1) || entry.ttl > Duration::from_secs(4) {
            return "ttl";
        }
        if *self.tokens(entry.owner, now) < TOKEN {
            return "rate";
        }
        let known = self.rows.iter().position(|row| (row.name, row.owner) == (entry.name, entry.owner));
        if let Some(at) = known {
            *self.tokens(entry.owner, now) -= TOKEN;
            self.rows.remove(at);
            self.rows.push(entry);
            return "refreshed";
        }
        if self.rows.len() == 6 {
            self.expire(now);
        }
        if self.rows.len() == 6 {
            return "full";
        }
        if self.rows.iter().filter(|row| row.name == entry.name).count() == 3 {
            return "name";
        }
        if self.rows.iter().filter(|row| row.owner == entry.owner).count() == 4 {
            return "owner";
        }
        *self.tokens(entry.owner, now) -= TOKEN;
        self.rows.push(entry);
        "added"
    }

    fn renew_all(&mut self, owner: u8, now: Instant) -> Option<usize> {
        if self.rows.iter().all(|row| row.owner != owner) {
            return Some(0);
        }
        if *self.tokens(owner, now) < TOKEN {
            return None;
        }
        *self.tokens(owner, now) -= TOKEN;
        let (renewed, rest): (Vec<_>, Vec<_>) = self.rows.drain(..).partition(|row| row.owner == owner);
        let count = renewed.len();
        self.rows = rest;
        self.rows.extend(renewed.into_iter().map(|row| Entry { ends: now + row.ttl, ..row }));
        Some(count)
    }
}

fn word(result: &Result<Advertised, RegistryRefusal>) -> &'static str {
    match result {
        Ok(Advertised::Added(_)) => "added",
        Ok(Advertised::Refreshed(_)) => "refreshed",
        Err(RegistryRefusal::Full { .. }) => "full",
        Err(RegistryRefusal::NameFull { .. }) => "name",
        Err(RegistryRefusal::OwnerFull { .. }) => "owner",
        Err(RegistryRefusal::RateLimited { .. }) => "rate",
        Err(RegistryRefusal::InvalidTtl { .. }) => "ttl",
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// M-9, M-10, M-13, M-17, F-9: whatever happens in whatever order, a registry holds what a plain list would: nothing whose
    /// lease ran out is found, what its owner renews stays, what its owner leaves goes, and indexes, leases and counters agree
    /// with the rows after every step.
    #[test]
    fn a_registry_does_what_the_naive_model_does(ops in prop::collection::vec(op(), 1..60)) {
        let mut registry = TtlRegistry::new(settings());
        let (mut model, mut now, mut next, mut keys) = (Model::default(), Instant::now(), 0, Vec::new());
        for op in ops {
            match op {
                Op::Advertise { name, owner, ttl_ms } => {
                    next += 1;
                    let ttl = ttl_ms.map(Duration::from_millis);
                    let result = registry.advertise(name, owner, next, ttl, now);
                    let ttl = ttl.unwrap_or(Duration::from_secs(2));
                    let entry = Entry { name, owner, value: next, ttl, ends: now + ttl };
                    prop_assert_eq!(word(&result), model.advertise(entry, now));
                    if let Ok(Advertised::Added(key)) = result {
                        keys.push((key, next));
                    } else if let Ok(Advertised::Refreshed(key)) = result {
                        keys.iter_mut().filter(|(k, _)| *k == key).for_each(|(_, value)| *value = next);
                    }
                }
                Op::RenewAll(owner) => {
                    prop_assert_eq!(registry.renew_all(&owner, now).ok(), model.renew_all(owner, now));
                }
                Op::Withdraw { name, owner } => {
                    let at = model.rows.iter().position(|row| (row.name, row.owner) == (name, owner));
                    prop_assert_eq!(registry.withdraw(&name, &owner), at.map(|at| model.rows.remove(at).value));
                }
                Op::Remove(n) if !keys.is_empty() => {
                    let (key, value) = keys[n % keys.len()];
                    let at = model.rows.iter().position(|row| row.value == value);
                    let removed = registry.remove(key);
                    prop_assert_eq!(removed, at.map(|at| model.rows.remove(at)).map(|row| (row.name, row.owner, value)));
                }
                Op::OwnerGone(owner) => {
                    let mut removed: Vec<_> = registry.remove_owner(&owner).into_iter().map(|(_, value)| value).collect();
                    let owned = model.rows.iter().filter(|row| row.owner == owner);
                    let mut expected: Vec<_> = owned.map(|row| row.value).collect();
                    removed.sort_unstable();
                    expected.sort_unstable();
                    prop_assert_eq!(removed, expected);
                    model.rows.retain(|row| row.owner != owner);
                    model.tokens.retain(|(o, ..)| *o != owner);
                }
                Op::Sweep => prop_assert_eq!(registry.sweep(now).len(), model.expire(now)),
                Op::Advance(millis) => now += Duration::from_millis(millis),
                Op::Compact => {
                    registry.compact(&CompactPolicy::new(1, 0));
                }
                Op::Remove(_) => {}
            }
            registry.check_invariants();
            prop_assert_eq!(registry.len(), model.rows.len());
            for name in 0..4 {
                let found: Vec<_> = registry.providers(&name, now).map(|(owner, value)| (*owner, *value)).collect();
                let rows = model.rows.iter().rev().filter(|row| row.name == name && row.ends > now);
                let expected: Vec<_> = rows.map(|row| (row.owner, row.value)).collect();
                prop_assert_eq!(&found, &expected);
            }
            let shortest = model.rows.iter().map(|row| row.ttl / 5).min().unwrap_or(Duration::MAX);
            prop_assert_eq!(registry.tick(), shortest.min(Duration::from_millis(700)));
        }
    }
}

/// M-9: ten thousand entries whose leases expire are removed after their lease and one tick, those renewed stay.
#[test]
fn expired_entries_are_freed_within_a_tick() {
    let mut registry = TtlRegistry::new(RegistrySettings::default());
    let (start, ttl) = (Instant::now(), Duration::from_secs(5));
    for name in 0..10_000_u32 {
        registry.advertise(name, name / 1_000, (), Some(ttl), start).unwrap();
    }
    assert_eq!(registry.tick(), Duration::from_secs(1));
    assert_eq!(registry.renew_all(&3, start + Duration::from_secs(4)), Ok(1_000));
    // A sweep just before the leases run out finds nothing; the next one, a tick later, finds all.
    let before = start + ttl - Duration::from_millis(1);
    assert_eq!(registry.sweep(before).len(), 0);
    assert_eq!(registry.iter(start + ttl).count(), 1_000, "expired ones are not found even before they are swept");
    assert_eq!(registry.sweep(before + registry.tick()).len(), 9_000);
    assert_eq!(registry.len(), 1_000);
}

/// F-6, F-7: records of several kinds stand in one table, each with the lease of its kind, and go when that is over whatever
/// the others' are: workers that are silent for an hour, collisions after five minutes, start times after a day.
#[test]
fn each_kind_has_a_lease_of_its_own_length() {
    const DAY: Duration = Duration::from_secs(86_400);
    let mut registry = TtlRegistry::new(RegistrySettings { longest_ttl: DAY, ..RegistrySettings::default() });
    let start = Instant::now();
    let kinds = [("start", DAY), ("collision", Duration::from_secs(300)), ("worker", Duration::from_secs(3_600))];
    for nth in 0..30_u32 {
        let (kind, ttl) = kinds[nth as usize % 3];
        registry.advertise((kind, nth), nth, (), Some(ttl), start).unwrap();
    }
    // One worker reports once more.
    registry.renew_all(&2, start + Duration::from_secs(1_800)).unwrap();
    let mut expired = |after: u64| {
        let mut kinds: Vec<_> =
            registry.sweep(start + Duration::from_secs(after)).into_iter().map(|((kind, _), ..)| kind).collect();
        kinds.sort_unstable();
        kinds
    };
    assert_eq!(expired(299), [""; 0]);
    assert_eq!(expired(300), ["collision"; 10]);
    assert_eq!(expired(3_599), [""; 0]);
    assert_eq!(expired(3_600), ["worker"; 9]);
    assert_eq!(expired(5_400), ["worker"]);
    assert_eq!(expired(86_399), [""; 0]);
    assert_eq!(expired(86_400), ["start"; 10]);
}

/// M-9, M-4: a sweep looks at what has expired and at one more, a look-up at as many rows among 10,000 as among 10.
#[test]
fn cost_does_not_depend_on_the_number_of_entries() {
    let visited = |entries: u32| {
        let mut registry = TtlRegistry::new(RegistrySettings { per_owner: Cap::of::<10_000>(), ..settings_large() });
        let now = Instant::now();
        for name in 0..entries {
            let ttl = if name < 3 { 1 } else { 300 };
            registry.advertise(name, name % 7, (), Some(Duration::from_secs(ttl)), now).unwrap();
        }
        let look_up = visits::during(|| assert!(registry.providers(&(entries / 2), now).next().is_some()));
        let sweep = visits::during(|| assert_eq!(registry.sweep(now + Duration::from_secs(1)).len(), 3));
        [look_up, sweep]
    };
    assert_eq!(visited(10)[0], visited(10_000)[0]);
    assert!(visited(10_000)[0] <= 3);
    // Neighbours in the lists differ with the size, by less than a handful a row.
    assert!(visited(10_000)[1] <= 3 * 8 + 1, "{:?}", visited(10_000));
}

fn settings_large() -> RegistrySettings {
    let owner_rate = Rate::per_second(Cap::of::<100_000>());
    RegistrySettings { owner_rate, ..RegistrySettings::default() }
}

/// M-10: an owner that renews is never removed over many leases, and one that is removed is removed at once.
#[test]
fn a_renewing_owner_never_expires() {
    let mut registry = TtlRegistry::new(RegistrySettings::default());
    let mut now = Instant::now();
    registry.advertise("echo", "live", 1, None, now).unwrap();
    registry.advertise("echo", "dead", 2, None, now).unwrap();
    for _ in 0..1_000 {
        now += Duration::from_secs(100);
        assert_eq!(registry.renew_all(&"live", now), Ok(1));
        registry.sweep(now);
    }
    assert_eq!(registry.providers(&"echo", now).collect::<Vec<_>>(), [(&"live", &1)]);
    assert_eq!(registry.remove_owner(&"live"), [("echo", 1)]);
    assert!(registry.is_empty());
}

/// M-11, M-12: the time between sweeps is a setting, is shortened at random and never longer than a tick, and a sweep that
/// comes late makes up for all that were missed at once.
#[test]
fn sweeps_are_spread_and_do_not_pile_up() {
    let mut registry = TtlRegistry::new(RegistrySettings { sweep: Duration::from_secs(10), ..Default::default() });
    assert_eq!(registry.sweep_after(0.0), Duration::from_secs(10));
    assert_eq!(registry.sweep_after(1.0), Duration::from_secs(8));
    let now = Instant::now();
    registry.advertise("echo", "owner", (), Some(Duration::from_secs(5)), now).unwrap();
    assert_eq!(registry.sweep_after(0.0), Duration::from_secs(1));
    let late = now + Duration::from_secs(100);
    assert_eq!(registry.sweep(late).len(), 1);
    assert_eq!(registry.sweep_after(0.0), Duration::from_secs(10), "one sweep, then the ordinary interval");
}

/// M-7: leases and sweeps without end are "never", and no overflow of the clock; others beside them end in time.
#[test]
fn a_time_without_end_is_never() {
    let (ttl, sweep) = (Duration::MAX, Duration::MAX);
    let mut registry = TtlRegistry::new(RegistrySettings { ttl, longest_ttl: ttl, sweep, ..Default::default() });
    let now = Instant::now();
    let next_sweep = now + registry.sweep_after(0.0);
    assert!(next_sweep > now + Duration::from_secs(1 << 30));
    registry.advertise("echo", "for ever", (), None, now).unwrap();
    registry.advertise("echo", "a while", (), Some(Duration::from_secs(300)), now).unwrap();
    assert_eq!(registry.renew_all(&"for ever", now), Ok(1));
    assert_eq!(registry.sweep_after(0.0), Duration::from_secs(60));
    let late = now + Duration::from_secs(1 << 30);
    assert_eq!(registry.sweep(late), [("echo", "a while", ())]);
    assert_eq!(registry.providers(&"echo", late).collect::<Vec<_>>(), [(&"for ever", &())]);
}

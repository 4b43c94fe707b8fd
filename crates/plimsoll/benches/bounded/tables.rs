//! Pool, registry, sessions and admission, from few entries to many.
//!
//! Entries are used in an order without a pattern, so that with many of them the cache misses are part of the figure, in
//! ours and in theirs.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;
use plimsoll::bounded::pool::{CloseOutcome, LruPool, PoolAction, PoolSettings, Requested, WhenFull};
use plimsoll::bounded::{
    Admission, AdmissionSettings, Cap, Rate, RegistrySettings, ResourceKind, SessionSettings, Sessions, TtlRegistry,
};

use crate::report::{Row, median, ns_each};

const ROUNDS: usize = 11;
const CALLS: usize = 200_000;

/// As wide as a node's identity.
type Key = [u8; 32];

fn key(n: usize) -> Key {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&(n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
    key
}

fn cap(entries: usize) -> Cap {
    Cap::new(entries).expect("a cap")
}

/// The `n`th entry to use, of `entries`: a step that is coprime with every size used here.
fn pick(n: usize, entries: usize) -> usize {
    n.wrapping_mul(7_919) % entries
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// Medians of both, measured in turns.
fn in_turns(mut ours: impl FnMut() -> Duration, mut theirs: impl FnMut() -> Duration, calls: usize) -> (f64, f64) {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        a.push(ns_each(ours(), calls));
        b.push(ns_each(theirs(), calls));
    }
    (median(a), median(b))
}

pub fn measure(rows: &mut Vec<Row>) {
    for entries in [100, 1_000, 10_000, 100_000] {
        pool_hit(entries, rows);
        pool_eviction(entries, rows);
    }
    pool_hit_hot(rows);
    for names in [100, 10_000, 100_000] {
        registry_lookup(names, rows);
    }
    registry_expiry(rows);
    for clients in [100, 10_000] {
        session_remove(clients, rows);
        admission(clients, rows);
    }
}

/// A lease and its return, against what an LRU map offers for it: taking the entry out and putting it back.
fn pool_hit(entries: usize, rows: &mut Vec<Row>) {
    let now = Instant::now();
    let keys: Vec<Key> = (0..entries).map(key).collect();
    let mut pool = LruPool::<Key, u64>::new(PoolSettings { cap: cap(entries), ..PoolSettings::default() });
    let mut map = LruCache::new(NonZeroUsize::new(entries).expect("some"));
    for key in &keys {
        pool.insert(*key, 1, now).expect("room");
        map.put(*key, 1_u64);
    }
    let ours = || {
        timed(|| {
            for n in 0..CALLS {
                let lease = pool.hit(black_box(&keys[pick(n, entries)])).expect("there");
                pool.release(lease, now);
            }
        })
    };
    let theirs = || {
        timed(|| {
            for n in 0..CALLS {
                let key = black_box(&keys[pick(n, entries)]);
                let value = map.pop(key).expect("there");
                map.put(*key, value);
            }
        })
    };
    let (ours, theirs) = in_turns(ours, theirs, CALLS);
    // What the memory alone costs: the same keys in the same order, in a map that is looked into and nothing more.
    let mut bare: std::collections::HashMap<Key, u64, foldhash::fast::RandomState> =
        keys.iter().map(|key| (*key, 1)).collect();
    let look = || {
        timed(|| {
            for n in 0..CALLS {
                *black_box(bare.get_mut(black_box(&keys[pick(n, entries)])).expect("there")) += 1;
            }
        })
    };
    let look = median(std::iter::repeat_with(look).take(ROUNDS).map(|time| ns_each(time, CALLS)).collect());
    rows.push(Row::absolute(format!("pool: hit and return, {entries} entries"), ours, "ns", Some(60.0)));
    let bench = format!("pool: hit and return, {entries} entries");
    rows.push(Row::against(bench, ours, "ns", "bare map look-up, same hash", look, None));
    rows.push(Row::against(
        format!("pool: hit and return, {entries} entries"),
        ours,
        "ns",
        "lru pop + put",
        theirs,
        None,
    ));
}

/// A hit on one of a thousand that are used over and over, among a hundred times as many: what the structure costs where the
/// caches do not.
fn pool_hit_hot(rows: &mut Vec<Row>) {
    const ENTRIES: usize = 100_000;
    let now = Instant::now();
    let mut pool = LruPool::<Key, u64>::new(PoolSettings { cap: cap(ENTRIES), ..PoolSettings::default() });
    for n in 0..ENTRIES {
        pool.insert(key(n), 1, now).expect("room");
    }
    let hot: Vec<Key> = (0..1_000).map(|n| key(n * 97)).collect();
    let mut round = || {
        timed(|| {
            for n in 0..CALLS {
                let lease = pool.hit(black_box(&hot[pick(n, hot.len())])).expect("there");
                pool.release(lease, now);
            }
        })
    };
    let ours = median((0..ROUNDS).map(|_| ns_each(round(), CALLS)).collect());
    rows.push(Row::absolute("pool: hit and return, 1000 in use of 100000 entries", ours, "ns", Some(60.0)));
}

/// A new key on a full pool: the least recently used idle handle is evicted, the new one is made, leased and given back; the closing
/// itself is left out.
fn pool_eviction(entries: usize, rows: &mut Vec<Row>) {
    let now = Instant::now();
    let mut pool = LruPool::<Key, u64>::new(PoolSettings { cap: cap(entries), ..PoolSettings::default() });
    for n in 0..entries {
        pool.insert(key(n), 1, now).expect("room");
    }
    let mut map = LruCache::new(NonZeroUsize::new(entries).expect("some"));
    for n in 0..entries {
        map.put(key(n), 1_u64);
    }
    let (mut next, mut other) = (entries, entries);
    let ours = || {
        timed(|| {
            for _ in 0..CALLS {
                pool.insert(key(next), 1, now).expect("an idle one gives way");
                let Some(PoolAction::Close { closing, .. }) = pool.next_action() else { panic!("one is closed") };
                pool.closed(closing, CloseOutcome::Closed);
                next += 1;
            }
        })
    };
    let theirs = || {
        timed(|| {
            for _ in 0..CALLS {
                black_box(map.push(key(other), 1));
                other += 1;
            }
        })
    };
    let (ours, theirs) = in_turns(ours, theirs, CALLS);
    rows.push(Row::absolute(format!("pool: insert with eviction, {entries} entries"), ours, "ns", Some(100.0)));
    let bench = format!("pool: insert with eviction, {entries} entries");
    rows.push(Row::against(bench, ours, "ns", "lru push", theirs, None));
    rows.push(Row::absolute(
        format!("pool: miss to lease and return, {entries} entries"),
        median((0..ROUNDS).map(|_| ns_each(misses(&mut pool, &mut next, now), CALLS / 10)).collect()),
        "ns",
        None,
    ));
}

fn misses(pool: &mut LruPool<Key, u64>, next: &mut usize, now: Instant) -> Duration {
    timed(|| {
        for _ in 0..CALLS / 10 {
            *next += 1;
            assert!(matches!(pool.request(&key(*next), WhenFull::Refuse, (), now), Requested::Waiting(_)));
            let Some(PoolAction::Create { creation, evicted, .. }) = pool.next_action() else { panic!("it is made") };
            if let Some((closing, ..)) = evicted {
                pool.closed(closing, CloseOutcome::Closed);
            }
            pool.created(creation, 1, now).expect("wanted");
            let Some(PoolAction::Grant { lease, .. }) = pool.next_action() else { panic!("it is granted") };
            pool.release(lease, now);
        }
    })
}

fn registry_lookup(names: usize, rows: &mut Vec<Row>) {
    let now = Instant::now();
    let owner_rate = Rate::per_second(Cap::of::<1_000_000>());
    let settings =
        RegistrySettings { entries: cap(names), per_owner: cap(names), owner_rate, ..RegistrySettings::default() };
    let mut registry = TtlRegistry::new(settings);
    let texts: Vec<Arc<str>> = (0..names).map(|n| format!("service-{n}").into()).collect();
    for (n, text) in texts.iter().enumerate() {
        registry.advertise(text.clone(), n % 10, n, None, now).expect("room");
    }
    let plain: std::collections::HashMap<_, _> = texts.iter().cloned().enumerate().map(|(n, text)| (text, n)).collect();
    let ours = || {
        timed(|| {
            for n in 0..CALLS {
                black_box(registry.providers(black_box(&texts[pick(n, names)]), now).next());
            }
        })
    };
    let theirs = || {
        timed(|| {
            for n in 0..CALLS {
                black_box(plain.get(black_box(&texts[pick(n, names)])));
            }
        })
    };
    let (ours, theirs) = in_turns(ours, theirs, CALLS);
    // The goal is for what the registry holds by default.
    let goal = (names <= 10_000).then_some(60.0);
    rows.push(Row::absolute(format!("registry: look-up, {names} names"), ours, "ns", goal));
    rows.push(Row::against(format!("registry: look-up, {names} names"), ours, "ns", "std HashMap get", theirs, None));
}

/// A sweep that finds every entry expired, an entry.
fn registry_expiry(rows: &mut Vec<Row>) {
    const ENTRIES: usize = 10_000;
    let round = || {
        let now = Instant::now();
        let mut registry = TtlRegistry::new(RegistrySettings::default());
        for n in 0..ENTRIES {
            registry.advertise(n, n / 1_000, n, None, now).expect("room");
        }
        timed(|| assert_eq!(registry.sweep(now + Duration::from_secs(300)).len(), ENTRIES))
    };
    let ours = median((0..ROUNDS).map(|_| ns_each(round(), ENTRIES)).collect());
    rows.push(Row::absolute("registry: an expired entry, of 10000", ours, "ns", None));
}

/// Taking out a client with eight streams, an entry.
fn session_remove(clients: usize, rows: &mut Vec<Row>) {
    const STREAMS: usize = 8;
    let removed = 100;
    let round = || {
        let mut sessions = Sessions::new(SessionSettings::default());
        let keys: Vec<_> = (0..clients).map(|id| sessions.connect(id, ()).expect("room").0).collect();
        for key in keys.iter().cycle().take(clients * STREAMS) {
            sessions.attach(*key, ResourceKind::Stream, ()).expect("room");
        }
        timed(|| {
            for n in 0..removed {
                assert_eq!(
                    black_box(sessions.remove(keys[pick(n, clients)])).map(|r| r.resources.len()),
                    Some(STREAMS)
                );
            }
        })
    };
    let ours = median((0..ROUNDS).map(|_| ns_each(round(), removed * (STREAMS + 1))).collect());
    rows.push(Row::absolute(format!("sessions: remove, an own entry, {clients} clients"), ours, "ns", None));
}

/// Admitting a client and letting it go.
fn admission(clients: usize, rows: &mut Vec<Row>) {
    let rate = Rate::per_second(Cap::of::<1_000_000_000>());
    let settings = AdmissionSettings {
        clients: cap(clients + 1),
        half_open: cap(clients + 1),
        rate,
        origin_rate: rate,
        ..AdmissionSettings::default()
    };
    let admission = Admission::<u64>::new(settings);
    let now = Instant::now();
    let address = |n: usize| std::net::Ipv4Addr::from_bits(0x0A00_0000 + ((n as u32) << 8)).into();
    let permits: Vec<_> = (0..clients).map(|n| admission.admit(address(n), None, now).expect("room")).collect();
    let round = || {
        timed(|| {
            for n in 0..CALLS {
                drop(black_box(admission.admit(address(pick(n, clients)), Some(n as u64), now)));
            }
        })
    };
    let ours = median((0..ROUNDS).map(|_| ns_each(round(), CALLS)).collect());
    drop(permits);
    rows.push(Row::absolute(format!("admission: admit and release, {clients} clients"), ours, "ns", None));
}

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use plimsoll::bounded::{
    ByteCache, ByteCacheCaps, ByteCap, CacheEvent, Cap, Compact, CompactPolicy, FillError, Lookup,
};
use plimsoll::inspect::Inspect;
use plimsoll_testkit::gate::Gate;
use plimsoll_testkit::law::Law;
use proptest::prelude::*;

/// What an entry weighs beyond its payload.
const OVERHEAD: u64 = 128;
const TTL: Duration = Duration::from_secs(10);
const INSERTED: Law = Law {
    name: "payloads inserted",
    whole: "images_inserted",
    parts: &["images_used", "images_evicted", "images_expired", "images_replaced", "images_removed"],
};

fn cache(bytes: u64, entry: u64) -> ByteCache<u8> {
    let (bytes, entry) = (ByteCap::new(bytes).unwrap(), ByteCap::new(entry).unwrap());
    ByteCache::new(
        "images",
        ByteCacheCaps { bytes, entry, ttl: TTL, fills: Cap::of::<2>(), ..ByteCacheCaps::default() },
    )
}

#[derive(Debug, Clone)]
enum Op {
    Insert { key: u8, length: usize },
    Slice { key: u8, length: usize, whole: usize },
    Get { key: u8 },
    Remove { key: u8 },
    Wait(u64),
    Sweep,
    Cap(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..12_u8, 0..1_200_usize).prop_map(|(key, length)| Op::Insert { key, length }),
        1 => (0..12_u8, 0..1_000_usize, 4_000..5_000_usize).prop_map(|(key, length, whole)| Op::Slice { key, length, whole }),
        8 => (0..12_u8).prop_map(|key| Op::Get { key }),
        1 => (0..12_u8).prop_map(|key| Op::Remove { key }),
        3 => (0..4_000_u64).prop_map(Op::Wait),
        1 => Just(Op::Sweep),
        1 => (2_000..6_000_u64).prop_map(Op::Cap),
    ]
}

proptest! {
    #![proptest_config(crate::config())]

    /// F-8: whatever is returned is what was last put there, the very same bytes, and within its time; what is kept
    /// weighs what it weighed when it came in and never more than the cap.
    #[test]
    fn byte_cache_returns_what_the_model_holds(ops in prop::collection::vec(op(), 1..60)) {
        const ENTRY: usize = 1_000;
        let mut cap = 5_000;
        let cache = cache(cap, ENTRY as u64);
        let start = Instant::now();
        let mut now = start;
        // Everything ever put and neither replaced nor removed: the cache may have evicted any of it.
        let mut put: BTreeMap<u8, (Bytes, Instant)> = BTreeMap::new();
        let (mut refused, mut lookups, mut inserted, mut taken_out) = (0, 0, 0, 0);
        for op in ops {
            match op {
                Op::Insert { key, length } => {
                    let payload = Bytes::from(vec![key; length]);
                    match cache.insert(key, payload.clone(), now) {
                        Ok(()) => {
                            inserted += 1;
                            put.insert(key, (payload, now + TTL));
                        }
                        Err(error) => {
                            prop_assert!(length > ENTRY && error.bytes == length as u64);
                            refused += 1;
                        }
                    }
                }
                Op::Slice { key, length, whole } => {
                    let whole = Bytes::from(vec![key; whole]);
                    let short = whole.len() > 4_096 && length < whole.len() / 4;
                    // A reference to all of it would be over the cap of an entry.
                    let kept = cache.insert_slice(key, &whole, 10..10 + length, now);
                    prop_assert_eq!(kept.is_ok(), short);
                    if kept.is_ok() {
                        (lookups, inserted) = (lookups + 1, inserted + 1);
                        put.remove(&key);
                        // The entry evicted to make room may be the inserted one, which was not looked up yet.
                        if let Some(copy) = cache.get(&key, now) {
                            prop_assert!(copy.is_empty() || !whole.as_ptr_range().contains(&copy.as_ptr()));
                            put.insert(key, (copy, now + TTL));
                        }
                    } else {
                        refused += 1;
                    }
                }
                Op::Get { key } => {
                    lookups += 1;
                    if let Some(payload) = cache.get(&key, now) {
                        let (expected, expires) = &put[&key];
                        prop_assert!(now < *expires);
                        prop_assert_eq!(&payload, expected);
                        prop_assert!(payload.is_empty() || payload.as_ptr() == expected.as_ptr(), "no copy");
                    }
                }
                Op::Remove { key } => {
                    let removed = cache.remove(&key);
                    taken_out += u64::from(removed.is_some());
                    let known = put.remove(&key);
                    prop_assert!(removed.is_none() || known.is_some());
                    lookups += 1;
                    prop_assert_eq!(cache.get(&key, now), None);
                }
                Op::Wait(ms) => now += Duration::from_millis(ms),
                Op::Sweep => {
                    cache.sweep(now);
                    put.retain(|_, (_, expires)| now < *expires);
                    prop_assert!(cache.len() <= put.len());
                }
                Op::Cap(bytes) => {
                    cap = bytes;
                    cache.set_cap(ByteCap::new(bytes).unwrap());
                }
            }
            prop_assert!(cache.weight() <= cap, "{} over {cap}", cache.weight());
            let counters = cache.counters();
            prop_assert_eq!(counters.entries().read().used, cache.len() as u64);
            prop_assert_eq!(counters.bytes().unwrap().read().used, cache.weight());
            prop_assert_eq!(counters.refused(), refused);
            prop_assert_eq!(counters.counted(CacheEvent::Inserted), inserted);
            prop_assert_eq!(counters.counted(CacheEvent::Removed), taken_out);
            INSERTED.assert(&cache.inspect().counters);
            prop_assert_eq!(counters.counted(CacheEvent::Hit) + counters.counted(CacheEvent::Miss), lookups);
        }
        // Nothing but what the model knows is left, and it weighs what it weighed.
        cache.sweep(now);
        let kept: Vec<_> = put.values().zip(put.keys()).filter(|(_, key)| cache.get(*key, now).is_some()).collect();
        prop_assert_eq!(kept.len(), cache.len());
        prop_assert_eq!(kept.iter().map(|((payload, _), _)| payload.len() as u64 + OVERHEAD).sum::<u64>(), cache.weight());
    }
}

/// in and out go references to the same bytes, however often.
#[test]
fn neither_get_nor_put_copies() {
    let cache = cache(1 << 20, 1 << 18);
    let image = Bytes::from(vec![1; 100_000]);
    let now = Instant::now();
    cache.insert(1, image.clone(), now).unwrap();
    for _ in 0..1_000 {
        assert_eq!(cache.get(&1, now).unwrap().as_ptr(), image.as_ptr());
    }
}

/// the only reference to a large buffer is copied when it is short, so that it does not pin what the weight does not
/// count; one that fills its buffer is not.
#[test]
fn a_short_piece_of_a_large_buffer_is_copied_out() {
    let now = Instant::now();
    let pieces =
        [(0..10, true), (99_980..99_990, true), (0..20_000, true), (0..50_000, false), (40_000..100_000, false)];
    for (range, copied) in pieces {
        for shared in [false, true] {
            let cache = cache(1 << 20, 1 << 18);
            let mut buffer = BytesMut::zeroed(100_000);
            let rest = if shared { buffer.split_off(100_000).freeze() } else { Bytes::new() };
            let mut whole = buffer.freeze();
            drop(rest);
            let piece = whole.split_off(range.start).split_to(range.len());
            drop(whole);
            let from = piece.as_ptr();
            cache.insert(1, piece, now).unwrap();
            let kept = cache.get(&1, now).unwrap();
            assert_eq!(kept.as_ptr() != from, copied, "{range:?}");
            assert_eq!(cache.counters().counted(CacheEvent::CopiedOut), u64::from(copied), "{range:?}");
            assert!(cache.weight() >= kept.len() as u64 + OVERHEAD);
        }
    }
}

/// a fill copies a short piece of a large buffer out, too: those who waited and the cache share the copy, and the buffer
/// goes.
#[tokio::test(start_paused = true)]
async fn a_fill_lets_a_large_buffer_go() {
    let cache = cache(1 << 20, 1 << 18);
    let now = Instant::now();
    let Ok(Lookup::Fill(fill)) = cache.lookup(&1, now) else { panic!("no caller fills it") };
    let Ok(Lookup::Wait(wait)) = cache.lookup(&1, now) else { panic!("it is being filled") };
    let mut buffer = BytesMut::zeroed(100_000);
    let piece = buffer.split_to(100).freeze();
    drop(buffer);
    let from = piece.as_ptr();
    let published = fill.publish(piece, now);
    assert_ne!(published.as_ptr(), from);
    assert_eq!(wait.result().await.unwrap().unwrap().as_ptr(), published.as_ptr());
    assert_eq!(cache.get(&1, now).unwrap().as_ptr(), published.as_ptr());
    assert_eq!((cache.weight(), cache.counters().counted(CacheEvent::CopiedOut)), (100 + OVERHEAD, 1));
}

/// R-8, F-8: what an entry holds on to is within the cap of an entry, and not its payload alone.
#[test]
fn a_buffer_over_the_cap_of_an_entry_is_not_held_on_to() {
    let cache = cache(1 << 20, 1_000);
    let mut roomy = BytesMut::with_capacity(4_000);
    roomy.extend_from_slice(&[0; 1_000]);
    cache.insert(1, roomy.freeze(), Instant::now()).unwrap();
    assert_eq!(cache.weight(), 1_000 + OVERHEAD);
}

/// what is not copied weighs all that it holds on to.
#[test]
fn a_referenced_piece_weighs_its_whole_buffer() {
    let cache = cache(1 << 20, 1 << 18);
    let whole = Bytes::from(vec![0; 10_000]);
    cache.insert_slice(1, &whole, 0..5_000, Instant::now()).unwrap();
    assert_eq!(cache.weight(), 10_000 + OVERHEAD);
    let mut roomy = BytesMut::with_capacity(10_000);
    roomy.extend_from_slice(&[0; 6_000]);
    cache.insert(1, roomy.freeze(), Instant::now()).unwrap();
    assert_eq!(cache.weight(), 10_000 + OVERHEAD);
}

/// F-8: many small entries and few large ones fill the same cap.
#[test]
fn the_cap_is_in_bytes_and_not_in_entries() {
    let cache: ByteCache<u32> = ByteCache::new("images", ByteCacheCaps::default());
    let now = Instant::now();
    for key in 0..1_000 {
        cache.insert(key, vec![0; 1 << 20].into(), now).unwrap();
        assert!(cache.weight() <= 64 << 20);
    }
    assert!(cache.len() >= 56, "{} of at most 63 are kept", cache.len());
    let large = cache.counters().counted(CacheEvent::Evicted);
    assert_eq!(large, 1_000 - cache.len() as u64);
    assert!(cache.insert(0, vec![0; (1 << 20) + 1].into(), now).is_err());
}

/// an entry whose time is up goes when it is asked for, at the latest with the sweep.
#[test]
fn what_has_expired_is_not_kept() {
    let cache = cache(1 << 20, 1 << 18);
    let start = Instant::now();
    (0..3).for_each(|key| cache.insert(key, vec![0; 100].into(), start).unwrap());
    cache.insert(3, vec![0; 100].into(), start + Duration::from_secs(1)).unwrap();
    assert_eq!(cache.get(&0, start + TTL), None);
    assert_eq!(cache.len(), 3);
    assert_eq!((cache.sweep(start + TTL), cache.len()), (2, 1));
    assert_eq!(cache.counters().counted(CacheEvent::Expired), 3);
}

/// a time to live without end is "never", and no overflow of the clock.
#[test]
fn a_time_to_live_without_end_is_never() {
    let cache = ByteCache::new("images", ByteCacheCaps { ttl: Duration::MAX, ..ByteCacheCaps::default() });
    let now = Instant::now();
    cache.insert(1, Bytes::from("for ever"), now).unwrap();
    assert_eq!(cache.sweep(now + Duration::from_secs(1 << 30)), 0);
    assert!(cache.get(&1, now + Duration::from_secs(1 << 30)).is_some());
}

/// M-19: each way out of the cache has a count of its own.
#[test]
fn every_way_out_is_counted() {
    let cache = cache(10_000, 2_000);
    let start = Instant::now();
    let put = |key, now| cache.insert(key, vec![key; 1_000].into(), now).unwrap();
    (0..2).for_each(|_| put(1, start));
    (0..2).for_each(|_| drop(cache.remove(&1)));
    put(2, start);
    assert_eq!(cache.get(&2, start + TTL), None);
    (3..20).for_each(|key| put(key, start));
    let kept = cache.len() as u64;
    cache.sweep(start + TTL);
    let counted = |event| cache.counters().counted(event);
    let ways = [CacheEvent::Replaced, CacheEvent::Removed, CacheEvent::Expired].map(counted);
    assert_eq!(ways, [1, 1, 1 + kept]);
    assert_eq!(counted(CacheEvent::Evicted), 20 - ways.iter().sum::<u64>());
    INSERTED.assert(&cache.inspect().counters);
}

/// M-19: the sum holds as well after many threads have put, taken out and evicted the same keys.
#[test]
fn the_counts_add_up_after_a_crowd() {
    let cache = cache(10_000, 2_000);
    let now = Instant::now();
    std::thread::scope(|scope| {
        for nth in 0..4_usize {
            let cache = &cache;
            scope.spawn(move || {
                for round in 0..5_000 {
                    let key = ((round * 7 + nth) % 20) as u8;
                    cache.insert(key, vec![key; round % 1_000].into(), now).unwrap();
                    if round % 5 == 0 {
                        cache.remove(&key);
                    }
                }
            });
        }
    });
    assert_eq!(cache.counters().counted(CacheEvent::Inserted), 20_000);
    INSERTED.assert(&cache.inspect().counters);
}

/// of a hundred callers of one key at the same time, one fills and all get the same bytes.
#[tokio::test(start_paused = true)]
async fn one_fill_serves_all_who_ask() {
    let cache = cache(1 << 20, 1 << 18);
    let (gate, fills) = (Gate::closed(), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..100)
        .map(|_| {
            let (cache, gate, fills) = (cache.clone(), gate.clone(), fills.clone());
            tokio::spawn(async move {
                let fill = || async {
                    fills.fetch_add(1, SeqCst);
                    gate.pass().await;
                    Ok::<_, std::io::Error>(Bytes::from(vec![0; 5_000]))
                };
                cache.get_or_fill(&1, fill).await.unwrap().as_ptr() as usize
            })
        })
        .collect();
    gate.until_waiting(1).await;
    gate.open();
    let buffers: std::collections::HashSet<_> =
        futures::future::join_all(callers).await.into_iter().map(Result::unwrap).collect();
    assert_eq!((fills.load(SeqCst), buffers.len(), cache.filling()), (1, 1, 0));
    assert_eq!(cache.counters().counted(CacheEvent::Joined), 99);
}

/// a caller whose look-up missed before another's fill ended, and that joins after it, finds the payload: each key is
/// filled once, also where the fill is shorter than a look-up.
#[test]
fn a_fill_that_ends_before_another_caller_joins_is_found() {
    const KEYS: u64 = 3_000;
    let caps = ByteCacheCaps { bytes: ByteCap::of::<{ 256 << 20 }>(), ..ByteCacheCaps::default() };
    let (cache, now) = (ByteCache::<u64>::new("images", caps), Instant::now());
    let arrived = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for key in 0..KEYS {
                    arrived.fetch_add(1, SeqCst);
                    while arrived.load(SeqCst) < 2 * (key + 1) {
                        std::thread::yield_now();
                    }
                    if let Ok(Lookup::Fill(fill)) = cache.lookup(&key, now) {
                        fill.publish("payload".into(), now);
                    }
                }
            });
        }
    });
    assert_eq!(cache.counters().counted(CacheEvent::Filled), KEYS);
}

/// a failed fill is returned to all callers that waited for it, and the next caller tries again.
#[tokio::test(start_paused = true)]
async fn a_failed_fill_is_told_to_all() {
    let cache = cache(1 << 20, 1 << 18);
    let gate = Gate::closed();
    let callers: Vec<_> = (0..10)
        .map(|_| {
            let (cache, gate) = (cache.clone(), gate.clone());
            tokio::spawn(async move {
                let fill = || async {
                    gate.pass().await;
                    Err::<Bytes, _>("the origin is down")
                };
                cache.get_or_fill(&1, fill).await.unwrap_err()
            })
        })
        .collect();
    gate.until_waiting(1).await;
    gate.open();
    for caller in callers {
        assert_eq!(caller.await.unwrap().source().unwrap().to_string(), "the origin is down");
    }
    assert_eq!(cache.counters().counted(CacheEvent::Filled), 1);
    let retried = cache.get_or_fill(&1, || async { Ok::<_, &str>(Bytes::from("up")) }).await.unwrap();
    assert_eq!(retried, "up");
}

/// a fill that panics is returned to the callers that waited, and is removed from the table.
#[tokio::test(start_paused = true)]
async fn a_panicking_fill_is_told_to_all() {
    let cache = cache(1 << 20, 1 << 18);
    let gate = Gate::closed();
    let (filling, passing) = (cache.clone(), gate.clone());
    let filler = tokio::spawn(async move {
        let fill = || async {
            passing.pass().await;
            std::panic::resume_unwind(Box::new("in the fill"));
            #[allow(unreachable_code)]
            Ok::<Bytes, std::io::Error>(Bytes::new())
        };
        filling.get_or_fill(&1, fill).await
    });
    gate.until_waiting(1).await;
    let Ok(Lookup::Wait(wait)) = cache.lookup(&1, Instant::now()) else { panic!("it is being filled") };
    gate.open();
    assert!(matches!(wait.result().await, Some(Err(FillError::Panicked))));
    assert!(filler.await.unwrap_err().is_panic());
    assert_eq!(cache.filling(), 0);
}

/// a filler that leaves ends its fill, and one of those who wait takes over.
#[tokio::test(start_paused = true)]
async fn an_abandoned_fill_is_taken_over() {
    let cache = cache(1 << 20, 1 << 18);
    let gate = Gate::closed();
    let (filling, passing) = (cache.clone(), gate.clone());
    let leaves = tokio::spawn(async move {
        let fill = || async {
            Ok::<_, std::io::Error>({
                passing.pass().await;
                Bytes::from("first")
            })
        };
        filling.get_or_fill(&1, fill).await
    });
    gate.until_waiting(1).await;
    let waiting = cache.clone();
    let waits = tokio::spawn(async move {
        waiting.get_or_fill(&1, || async { Ok::<_, std::io::Error>(Bytes::from("second")) }).await
    });
    tokio::task::yield_now().await;
    assert!(!waits.is_finished());
    leaves.abort();
    assert_eq!(waits.await.unwrap().unwrap(), "second");
    assert_eq!((gate.waiting(), cache.filling()), (0, 0));
    assert_eq!(cache.counters().counted(CacheEvent::Abandoned), 1);
}

/// keys being filled have a cap, too; a payload too large to be kept is still given to all who waited.
#[tokio::test(start_paused = true)]
async fn fills_are_capped_and_large_results_are_shared_once() {
    let mut cache = cache(4_096, 1_024);
    let now = Instant::now();
    let fill = |key| match cache.lookup(&key, now) {
        Ok(Lookup::Fill(fill)) => Ok(fill),
        Err(error) => Err(error),
        other => panic!("{other:?}"),
    };
    let (first, _second) = (fill(1).unwrap(), fill(2).unwrap());
    assert!(matches!(fill(3), Err(FillError::Busy { cap: 2 })));
    let Ok(Lookup::Wait(wait)) = cache.lookup(&1, now) else { panic!("it is being filled") };
    assert_eq!(first.waiting(), 1);
    let large = first.publish(vec![0; 2_000].into(), now);
    assert_eq!(wait.result().await.unwrap().unwrap().as_ptr(), large.as_ptr());
    assert_eq!((cache.len(), cache.filling()), (0, 1));
    assert_eq!(cache.counters().counted(CacheEvent::RefusedBusy), 1);
    cache.compact(&CompactPolicy::default());
    drop(_second);
    assert_eq!(cache.filling(), 0);
}

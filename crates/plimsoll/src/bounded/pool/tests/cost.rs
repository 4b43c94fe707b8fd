use std::time::{Duration, Instant};

use crate::bounded::Cap;
use crate::bounded::linked_list::visits;
use crate::bounded::pool::{CloseOutcome, LruPool, PoolAction, PoolSettings, Requested, WhenFull};

fn filled(entries: u32) -> (LruPool<u32, u32, ()>, Instant) {
    let cap = Cap::new(entries as usize).unwrap();
    let mut pool = LruPool::new(PoolSettings { cap, ..PoolSettings::default() });
    let now = Instant::now();
    for key in 0..entries {
        pool.insert(key, key, now).unwrap();
    }
    (pool, now)
}

/// Rows visited by a hit with its return, by an eviction, and by an expiry.
fn visited(entries: u32) -> [u64; 3] {
    let (mut pool, now) = filled(entries);
    let hit = visits::during(|| {
        let lease = pool.hit(&(entries / 2)).unwrap();
        pool.release(lease, now);
    });
    let evict = visits::during(|| {
        assert!(matches!(pool.request(&entries, WhenFull::Refuse, (), now), Requested::Waiting(_)));
        let Some(PoolAction::Create { creation, evicted: Some((closing, 0, 0)), .. }) = pool.next_action() else {
            panic!("the least recently used handle is evicted")
        };
        pool.closed(closing, CloseOutcome::Closed);
        pool.created(creation, entries, now).unwrap();
    });
    let expire = visits::during(|| pool.expire(now + Duration::from_secs(1)));
    [hit, evict, expire]
}

/// M-3, M-4: a use, an eviction and an expiry with nothing due visit as many rows among 100,000 as among 10.
#[test]
fn cost_does_not_depend_on_the_number_of_entries() {
    let few = visited(10);
    assert_eq!(few, visited(1_000));
    assert_eq!(few, visited(100_000));
    assert!(few.iter().all(|visits| *visits <= 16), "{few:?}");
}

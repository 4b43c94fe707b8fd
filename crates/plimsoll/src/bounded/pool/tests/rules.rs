use std::time::{Duration, Instant};

use crate::bounded::Cap;
use crate::bounded::pool::{
    CloseOutcome, LruPool, PoolAction, PoolEvent, PoolRefusal, PoolSettings, Requested, WhenFull,
};

fn pool(cap: usize) -> (LruPool<&'static str, u32, &'static str>, Instant) {
    (LruPool::new(PoolSettings { cap: Cap::new(cap).unwrap(), ..PoolSettings::default() }), Instant::now())
}

/// M-2: when every handle is leased the answer is `AtCapacity` at once, or the caller waits if it asked to.
#[test]
fn everything_leased_is_at_capacity_or_a_wait() {
    let (mut pool, now) = pool(1);
    pool.insert("a", 1, now).unwrap();
    let lease = pool.hit(&"a").unwrap();
    let asked = pool.request(&"b", WhenFull::Refuse, "me", now);
    assert_eq!(asked, Requested::Refused(PoolRefusal::AtCapacity { cap: 1 }, "me"));
    assert!(matches!(pool.request(&"b", WhenFull::Wait, "me", now), Requested::Waiting(_)));
    assert_eq!(pool.next_action(), None);
    pool.release(lease, now);
    let Some(PoolAction::Create { key: "b", evicted: Some((_, "a", 1)), .. }) = pool.next_action() else {
        panic!("the released handle makes room for the caller that waits")
    };
}

/// M-14: the late end of an old connection does not take out its successor.
#[test]
fn the_end_of_an_old_handle_leaves_the_new_one() {
    let (mut pool, now) = pool(2);
    let old = pool.insert("a", 1, now).unwrap();
    assert!(pool.retire(old));
    let new = pool.insert("a", 2, now).unwrap();
    assert!(!pool.retire(old));
    assert_eq!(pool.find(&"a"), Some((new, &2)));
}

/// a handle that is retired while it is used is closed after its last lease and not before.
#[test]
fn a_retired_handle_is_closed_after_its_last_lease() {
    let (mut pool, now) = pool(2);
    let entry = pool.insert("a", 1, now).unwrap();
    let (one, two) = (pool.hit(&"a").unwrap(), pool.hit(&"a").unwrap());
    pool.retire(entry);
    assert_eq!(pool.hit(&"a"), None);
    pool.release(one, now);
    assert_eq!(pool.next_action(), None);
    pool.release(two, now);
    assert!(matches!(pool.next_action(), Some(PoolAction::Close { value: 1, .. })));
}

/// M-5: the place of a handle that is being closed is free when that is done, and failures are counted.
#[test]
fn a_place_is_free_when_its_handle_is_closed() {
    let (mut pool, now) = pool(1);
    let entry = pool.insert("a", 1, now).unwrap();
    pool.retire(entry);
    let Some(PoolAction::Close { closing, .. }) = pool.next_action() else { panic!() };
    let refused = pool.request(&"b", WhenFull::Refuse, "me", now);
    assert_eq!(refused, Requested::Refused(PoolRefusal::AtCapacity { cap: 1 }, "me"));
    pool.closed(closing, CloseOutcome::TimedOut);
    assert_eq!(pool.counters().counted(PoolEvent::CloseTimedOut), 1);
    assert!(matches!(pool.request(&"b", WhenFull::Refuse, "me", now), Requested::Waiting(_)));
}

/// a failed attempt fails all callers that waited for it, and no attempt is made for longer each time.
#[test]
fn a_failing_key_is_backed_off() {
    let (mut pool, mut now) = pool(2);
    for pause in [50, 100, 200] {
        for waiter in ["one", "two"] {
            assert!(matches!(pool.request(&"a", WhenFull::Refuse, waiter, now), Requested::Waiting(_)));
        }
        let Some(PoolAction::Create { creation, .. }) = pool.next_action() else { panic!() };
        assert_eq!(pool.next_action(), None, "one attempt for both");
        assert_eq!(pool.failed(creation, now), ["one", "two"]);
        let retry_after = Duration::from_millis(pause);
        let asked = pool.request(&"a", WhenFull::Refuse, "me", now);
        assert_eq!(asked, Requested::Refused(PoolRefusal::BackingOff { retry_after }, "me"));
        now += retry_after;
    }
}

/// M-2: a handle that was not used for the idle time is closed, one that was used meanwhile is not.
#[test]
fn idle_handles_are_closed() {
    let (mut pool, start) = pool(2);
    pool.insert("a", 1, start).unwrap();
    pool.insert("b", 2, start).unwrap();
    let later = start + Duration::from_secs(1800);
    let lease = pool.hit(&"a").unwrap();
    pool.release(lease, later);
    pool.expire(start + Duration::from_secs(3600));
    assert!(matches!(pool.next_action(), Some(PoolAction::Close { value: 2, .. })));
    assert_eq!(pool.next_action(), None);
    assert_eq!(pool.next_expiry(), Some(later + Duration::from_secs(3600)));
}

/// a success ends the backing off.
#[test]
fn a_success_ends_the_backing_off() {
    let (mut pool, now) = pool(2);
    let fail = |pool: &mut LruPool<_, _, _>, now| {
        assert!(matches!(pool.request(&"a", WhenFull::Refuse, "me", now), Requested::Waiting(_)));
        let Some(PoolAction::Create { creation, .. }) = pool.next_action() else { panic!() };
        let _failed: Vec<&str> = pool.failed(creation, now);
    };
    fail(&mut pool, now);
    let entry = pool.insert("a", 1, now).unwrap();
    pool.retire(entry);
    assert!(matches!(pool.next_action(), Some(PoolAction::Close { .. })));
    fail(&mut pool, now);
    let retry_after = Duration::from_millis(50);
    let asked = pool.request(&"a", WhenFull::Refuse, "me", now);
    assert_eq!(asked, Requested::Refused(PoolRefusal::BackingOff { retry_after }, "me"));
}

/// M-2: an idle time and a pause without end are "never", and no overflow of the clock.
#[test]
fn a_time_without_end_is_never() {
    let forever = Duration::MAX;
    let settings =
        PoolSettings { idle_time: forever, retry_first: forever, retry_longest: forever, ..Default::default() };
    let (mut pool, now) = (LruPool::new(settings), Instant::now());
    pool.insert("a", 1, now).unwrap();
    assert!(pool.next_expiry() > Some(now + Duration::from_secs(1 << 30)));
    pool.expire(now + Duration::from_secs(1 << 30));
    assert_eq!(pool.next_action(), None);
    assert!(matches!(pool.request(&"b", WhenFull::Refuse, "me", now), Requested::Waiting(_)));
    let Some(PoolAction::Create { creation, .. }) = pool.next_action() else { panic!() };
    pool.failed(creation, now);
    let Requested::Refused(PoolRefusal::BackingOff { retry_after }, _) =
        pool.request(&"b", WhenFull::Refuse, "me", now)
    else {
        panic!("the key is left alone")
    };
    assert!(retry_after > Duration::from_secs(1 << 30));
}

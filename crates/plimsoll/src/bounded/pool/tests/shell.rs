use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::bounded::Cap;
use crate::bounded::pool::{Connect, DialPool, Exclusive, LeaseError, PoolEvent, PoolRefusal, PoolSettings, WhenFull};

/// Counts open handles; key 13 cannot be reached, 14 panics, 15 never connects, 16 never closes.
#[derive(Default)]
struct Dialler {
    dials: AtomicUsize,
    most_open: AtomicUsize,
    open: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Handle(Arc<AtomicUsize>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[derive(Debug, thiserror::Error)]
#[error("unreachable")]
struct Unreachable;

impl Connect<u32> for Arc<Dialler> {
    type Handle = Arc<Handle>;
    type Error = Unreachable;

    async fn connect(&self, key: &u32) -> Result<Arc<Handle>, Unreachable> {
        self.dials.fetch_add(1, SeqCst);
        tokio::time::sleep(Duration::from_millis(10)).await;
        match key {
            13 => return Err(Unreachable),
            14 => panic!("connecting panics"),
            15 => std::future::pending().await,
            _ => {}
        }
        let open = self.open.fetch_add(1, SeqCst) + 1;
        self.most_open.fetch_max(open, SeqCst);
        Ok(Arc::new(Handle(self.open.clone())))
    }

    async fn close(&self, key: &u32, handle: Arc<Handle>) -> Result<(), Unreachable> {
        assert_eq!(Arc::strong_count(&handle), 1, "closed under a user");
        tokio::time::sleep(Duration::from_millis(5)).await;
        if *key == 16 { std::future::pending().await } else { Ok(()) }
    }
}

fn pool(cap: usize) -> (DialPool<u32, Arc<Dialler>>, Arc<Dialler>) {
    let dialler = Arc::new(Dialler::default());
    let settings = PoolSettings { cap: Cap::new(cap).unwrap(), ..PoolSettings::default() };
    (DialPool::new(settings, dialler.clone()), dialler)
}

fn soon() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(60)
}

/// a hundred callers for one key share one connection, made once.
#[tokio::test(start_paused = true)]
async fn concurrent_callers_share_one_dial() {
    let (pool, dialler) = pool(10);
    let leases = join_all((0..100).map(|_| pool.lease(&1, WhenFull::Refuse, soon()))).await;
    assert!(leases.iter().all(Result::is_ok));
    assert_eq!(dialler.dials.load(SeqCst), 1);
    drop(leases);
    pool.close().await;
    assert_eq!(dialler.open.load(SeqCst), 0);
}

/// M-2, M-5: a thousand callers over a hundred keys on ten places: never more than ten open, each closed once, at the end
/// none open and no task left.
#[tokio::test(start_paused = true)]
async fn handles_never_outnumber_places() {
    let (pool, dialler) = pool(10);
    let served = join_all((0..1_000_u32).map(|n| {
        let pool = pool.clone();
        async move {
            let lease = pool.lease(&(100 + n * 7 % 100), WhenFull::Wait, soon()).await?;
            tokio::time::sleep(Duration::from_millis(u64::from(n % 5))).await;
            drop(lease);
            Ok::<_, LeaseError<Unreachable>>(())
        }
    }))
    .await;
    assert!(served.iter().all(Result::is_ok), "{served:?}");
    assert_eq!(dialler.most_open.load(SeqCst), 10);
    pool.close().await;
    assert_eq!(dialler.open.load(SeqCst), 0);
    let counters = pool.counters();
    assert_eq!(counters.counted(PoolEvent::Opened), counters.counted(PoolEvent::Closed));
}

/// a failed attempt fails all callers that waited for it, a panic as such, and neither leaks a place.
#[tokio::test(start_paused = true)]
async fn failures_are_returned_to_all_callers() {
    let (pool, dialler) = pool(10);
    for answer in join_all((0..5).map(|_| pool.lease(&13, WhenFull::Refuse, soon()))).await {
        assert!(matches!(answer, Err(LeaseError::Connect(_))), "{answer:?}");
    }
    for answer in join_all((0..5).map(|_| pool.lease(&14, WhenFull::Refuse, soon()))).await {
        assert!(matches!(answer, Err(LeaseError::Panicked)), "{answer:?}");
    }
    assert_eq!(dialler.dials.load(SeqCst), 2);
    let again = pool.lease(&13, WhenFull::Refuse, soon()).await;
    assert!(matches!(again, Err(LeaseError::Refused(PoolRefusal::BackingOff { .. }))), "{again:?}");
    let stuck = pool.lease(&15, WhenFull::Refuse, soon()).await;
    assert!(matches!(stuck, Err(LeaseError::ConnectTimedOut(_))), "{stuck:?}");
    assert_eq!(pool.counters().entries().read().used, 0);
}

/// M-16: a caller that gives up leaves the attempt to the others, and ends it when it was the last.
#[tokio::test(start_paused = true)]
async fn the_last_caller_to_give_up_ends_the_dial() {
    let (pool, dialler) = pool(10);
    let brief = tokio::time::Instant::now() + Duration::from_millis(5);
    let (gave_up, served) =
        tokio::join!(pool.lease(&1, WhenFull::Refuse, brief), pool.lease(&1, WhenFull::Refuse, soon()),);
    assert!(matches!(gave_up, Err(LeaseError::TimedOut)));
    drop(served.unwrap());
    let brief = tokio::time::Instant::now() + Duration::from_millis(5);
    assert!(pool.lease(&2, WhenFull::Refuse, brief).await.is_err());
    pool.close().await;
    assert_eq!(pool.counters().counted(PoolEvent::CreateAbandoned), 1);
    assert_eq!((dialler.dials.load(SeqCst), dialler.most_open.load(SeqCst)), (2, 1));
}

/// M-5, M-12: the child closes idle handles in time, a closing that hangs ends at its deadline and is counted, and after the
/// stop nothing is open.
#[tokio::test(start_paused = true)]
async fn the_sweeper_closes_what_is_idle() {
    let (pool, dialler) = pool(10);
    let stop = CancellationToken::new();
    let sweeper = tokio::spawn({
        let (pool, stop) = (pool.clone(), stop.clone());
        async move { pool.run(stop).await }
    });
    for key in [1, 16] {
        drop(pool.lease(&key, WhenFull::Refuse, soon()).await.unwrap());
    }
    tokio::time::sleep(Duration::from_secs(3600 * 11 / 10) + Duration::from_secs(6)).await;
    assert_eq!(dialler.open.load(SeqCst), 0);
    assert_eq!(pool.counters().counted(PoolEvent::IdleClosed), 2);
    assert_eq!(pool.counters().counted(PoolEvent::CloseTimedOut), 1);
    stop.cancel();
    sweeper.await.unwrap();
    let refused = pool.lease(&1, WhenFull::Wait, soon()).await;
    assert!(matches!(refused, Err(LeaseError::Refused(PoolRefusal::Closed))));
}

/// A connection that several callers must not use at once, and that is neither `Clone` nor `Sync`.
struct Counting {
    opened: Arc<AtomicUsize>,
    hang: bool,
}

#[derive(Debug)]
struct Wire {
    uses: std::cell::Cell<u32>,
}

impl Connect<u32> for Counting {
    type Handle = Wire;
    type Error = Unreachable;

    async fn connect(&self, _: &u32) -> Result<Wire, Unreachable> {
        if self.hang {
            std::future::pending::<()>().await;
        }
        self.opened.fetch_add(1, SeqCst);
        Ok(Wire { uses: std::cell::Cell::new(0) })
    }

    async fn close(&self, _: &u32, _: Wire) -> Result<(), Unreachable> {
        Ok(())
    }
}

fn wires(cap: usize, per_key: usize, hang: bool) -> (DialPool<u32, Counting, Exclusive>, Arc<AtomicUsize>) {
    let opened = Arc::new(AtomicUsize::new(0));
    let settings = PoolSettings {
        cap: Cap::new(cap).unwrap(),
        per_key: Cap::new(per_key).unwrap(),
        connect_time: Duration::from_secs(3600),
        ..PoolSettings::default()
    };
    (DialPool::exclusive(settings, Counting { opened: opened.clone(), hang }), opened)
}

/// exclusive handles are lent whole; a key has as many as it may, and a further caller gets the first one released.
#[tokio::test(start_paused = true)]
async fn a_key_has_several_exclusive_handles() {
    let (pool, opened) = wires(10, 3, false);
    let mut leases = Vec::new();
    for _ in 0..3 {
        let mut lease = pool.lease_within(&1, WhenFull::Refuse, Duration::from_secs(1)).await.unwrap();
        *lease.uses.get_mut() += 1;
        leases.push(lease);
    }
    let refused = pool.lease_within(&1, WhenFull::Refuse, Duration::from_secs(1)).await;
    assert!(matches!(refused, Err(LeaseError::Refused(PoolRefusal::Busy))), "{refused:?}");
    let late = pool.lease_within(&1, WhenFull::Wait, Duration::from_millis(100)).await;
    assert!(matches!(late, Err(LeaseError::TimedOut)), "{late:?}");
    let waiting = pool.lease_within(&1, WhenFull::Wait, Duration::from_secs(1));
    let (lease, ()) = tokio::join!(waiting, async { drop(leases.remove(1)) });
    assert_eq!(lease.unwrap().uses.get(), 1, "the same handle");
    assert_eq!(opened.load(SeqCst), 3);
    leases.pop().unwrap().discard();
    drop(leases);
    assert!(pool.close_within(Duration::from_secs(1)).await);
    assert_eq!(pool.counters().counted(PoolEvent::Closed), 3);
}

/// M-5, M-12: on a runtime that has shut down, a lease ends at once with an error, no place is kept and a close returns.
#[test]
fn a_pool_outlives_its_runtime() {
    let own = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let ((pool, _), (shared, dialler)) = own.block_on(async { (wires(2, 1, false), pool(2)) });
    let kept = own.block_on(async {
        (
            pool.lease_within(&9, WhenFull::Wait, MINUTE).await.unwrap(),
            shared.lease(&9, WhenFull::Wait, soon()).await.unwrap(),
        )
    });
    drop(own);
    let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    other.block_on(async {
        let within = |time| Duration::from_secs(time);
        for key in 0..3 {
            let lease = tokio::time::timeout(within(20), pool.lease_within(&key, WhenFull::Wait, MINUTE)).await;
            assert!(matches!(lease.expect("at once"), Err(LeaseError::Aborted)));
            let lease = tokio::time::timeout(within(20), shared.lease(&key, WhenFull::Wait, soon())).await;
            assert!(matches!(lease.expect("at once"), Err(LeaseError::Aborted)));
        }
        assert_eq!(pool.counters().entries().read().used, 1, "the leased one");
        drop(kept);
        assert!(pool.close_within(within(20)).await && shared.close_within(within(20)).await);
    });
    let used = [pool.counters(), shared.counters()].map(|counters| counters.entries().read().used);
    assert_eq!((used, dialler.open.load(SeqCst)), ([0, 0], 0));
}

const MINUTE: Duration = Duration::from_secs(60);

/// M-5, M-12, M-16: the runtime shuts down in the middle: attempts under way and a thousand callers that wait for places all
/// end with an error, however many they are.
#[test]
fn callers_get_an_error_when_the_runtime_shuts_down() {
    for threads in [2, 4] {
        let own = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap();
        let (pool, _) = own.block_on(async { wires(1, 1, true) });
        let other = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap();
        let callers: Vec<_> = (0..1_000)
            .map(|key| {
                let pool = pool.clone();
                other.spawn(async move { pool.lease_within(&key, WhenFull::Wait, MINUTE).await.map(drop) })
            })
            .collect();
        while pool.counters().counted(PoolEvent::Requested) < 1_000 {
            std::thread::yield_now();
        }
        own.shutdown_background();
        other.block_on(async {
            for result in tokio::time::timeout(MINUTE / 2, futures::future::join_all(callers)).await.expect("at once") {
                assert!(matches!(result.unwrap(), Err(LeaseError::Aborted)));
            }
            assert!(pool.close_within(MINUTE / 2).await);
        });
        assert_eq!(pool.counters().entries().read().used, 0);
    }
}

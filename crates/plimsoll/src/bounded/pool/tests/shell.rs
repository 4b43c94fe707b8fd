use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::bounded::Cap;
use crate::bounded::pool::{Connect, DialPool, LeaseError, PoolEvent, PoolRefusal, PoolSettings, WhenFull};

/// Counts open handles; key 13 cannot be reached, 14 panics, 15 never answers, 16 never closes.
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
            14 => panic!("a bad day"),
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

fn soon() -> Instant {
    (tokio::time::Instant::now() + Duration::from_secs(60)).into_std()
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

/// a failed attempt is told to all that waited for it, a panic as such, and neither leaves anything behind.
#[tokio::test(start_paused = true)]
async fn failures_are_told_to_all() {
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
        tokio::join!(pool.lease(&1, WhenFull::Refuse, brief.into_std()), pool.lease(&1, WhenFull::Refuse, soon()),);
    assert!(matches!(gave_up, Err(LeaseError::TimedOut)));
    drop(served.unwrap());
    let brief = tokio::time::Instant::now() + Duration::from_millis(5);
    assert!(pool.lease(&2, WhenFull::Refuse, brief.into_std()).await.is_err());
    pool.close().await;
    assert_eq!(pool.counters().counted(PoolEvent::GaveUp), 1);
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

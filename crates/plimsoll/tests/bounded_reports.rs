//! Public bug reports of pools, caches and fan-out in other projects, each reproduced in kind against the bounded parts.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;
use plimsoll::bounded::pool::{
    Connect, DialPool, Exclusive, LeaseError, PoolEvent, PoolRefusal, PoolSettings, WhenFull,
};
use plimsoll::bounded::{
    ByteCache, ByteCacheCaps, ByteCap, CacheEvent, Cap, Delivery, Disconnected, Fanout, FanoutCaps, FillError, Lookup,
    TaskPool, TaskPoolCaps,
};

const MINUTE: Duration = Duration::from_secs(60);

/// Makes connections that can fail, panic or hang, and counts those that are open.
#[derive(Default)]
struct Database {
    attempts: AtomicUsize,
    open: Arc<AtomicUsize>,
    fails: AtomicBool,
    panics: AtomicBool,
    close_panics: AtomicBool,
    close_hangs: AtomicBool,
}

#[derive(Debug)]
struct Connection {
    number: usize,
    open: Arc<AtomicUsize>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.open.fetch_sub(1, SeqCst);
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the database is down")]
struct Down;

/// What the pool connects with.
struct Client(Arc<Database>);

impl Connect<u32> for Client {
    type Handle = Connection;
    type Error = Down;

    async fn connect(&self, _: &u32) -> Result<Connection, Down> {
        let number = self.0.attempts.fetch_add(1, SeqCst);
        tokio::task::yield_now().await;
        assert!(!self.0.panics.load(SeqCst), "connecting panics");
        if self.0.fails.load(SeqCst) {
            return Err(Down);
        }
        self.0.open.fetch_add(1, SeqCst);
        Ok(Connection { number, open: self.0.open.clone() })
    }

    async fn close(&self, _: &u32, connection: Connection) -> Result<(), Down> {
        assert!(!self.0.close_panics.load(SeqCst), "closing panics");
        if self.0.close_hangs.load(SeqCst) {
            std::future::pending::<()>().await;
        }
        drop(connection);
        Ok(())
    }
}

type Pool = DialPool<u32, Client, Exclusive>;

fn pool(per_key: usize) -> (Pool, Arc<Database>) {
    let database = Arc::new(Database::default());
    let cap = Cap::new(per_key).unwrap();
    let settings = PoolSettings { cap, per_key: cap, ..PoolSettings::default() };
    (DialPool::exclusive(settings, Client(database.clone())), database)
}

async fn lease(pool: &Pool) -> Result<plimsoll::bounded::pool::DialLease<u32, Client, Exclusive>, LeaseError<Down>> {
    pool.lease_within(&0, WhenFull::Wait, MINUTE).await
}

/// Nothing is leaked: all connections can be leased at once, no caller waits, and a close ends.
async fn is_whole(pool: &Pool, database: &Database, connections: usize) {
    let leases = join_all((0..connections).map(|_| lease(pool))).await;
    assert!(leases.iter().all(Result::is_ok), "{leases:?}");
    drop(leases);
    assert!(pool.close_within(MINUTE).await, "a close ends");
    assert_eq!((database.open.load(SeqCst), pool.counters().entries().read().used), (0, 0));
    let counted = |event| pool.counters().counted(event);
    assert_eq!(counted(PoolEvent::Opened), counted(PoolEvent::Closed));
}

/// <https://github.com/djc/bb8/issues/67>, <https://github.com/djc/bb8/issues/59> and
/// <https://github.com/transact-rs/sqlx/issues/83>: futures of `get` that are dropped, also one that has its connection and
/// was not polled since, keep it for ever; after a while every `get` times out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_acquisitions_leak_no_connection() {
    let (pool, database) = pool(3);
    for round in 0..2_000_usize {
        let mut acquisitions: Vec<_> = (0..8).map(|_| Box::pin(lease(&pool).fuse())).collect();
        // Each is polled some times, with the connection arriving in between or not, and dropped.
        for polls in 0..round % 5 {
            for (nth, acquisition) in acquisitions.iter_mut().enumerate() {
                if (nth + polls) % 3 == round % 3 {
                    let _ = poll_fn(|context| Poll::Ready(acquisition.poll_unpin(context).is_ready())).await;
                }
            }
            tokio::task::yield_now().await;
            acquisitions.truncate(8 - polls);
        }
    }
    is_whole(&pool, &database, 3).await;
}

/// <https://github.com/deadpool-rs/deadpool/issues/18>: a failed creation is counted as an object, and later callers wait for
/// it for ever.
#[tokio::test(start_paused = true)]
async fn failed_creations_take_no_place() {
    let (pool, database) = pool(2);
    database.fails.store(true, SeqCst);
    for _ in 0..20 {
        let failed = lease(&pool).await;
        assert!(matches!(failed, Err(LeaseError::Connect(_))), "{failed:?}");
        assert_eq!(pool.counters().entries().read().used, 0);
        // The key is backing off, and says so at once.
        let refused = lease(&pool).await;
        assert!(matches!(refused, Err(LeaseError::Refused(PoolRefusal::BackingOff { .. }))), "{refused:?}");
        tokio::time::sleep(MINUTE).await;
    }
    database.fails.store(false, SeqCst);
    is_whole(&pool, &database, 2).await;
}

/// <https://github.com/deadpool-rs/deadpool/issues/201>: after a restart of the database the pool tries its closed connections
/// in a loop, at full load, and never makes another.
#[tokio::test(start_paused = true)]
async fn broken_connections_are_replaced_without_a_loop() {
    let (pool, database) = pool(4);
    let leases = join_all((0..4).map(|_| lease(&pool))).await;
    // The database restarts: every user finds its connection broken, while others wait for one.
    let waiting = join_all((0..4).map(|_| lease(&pool)));
    let discard = async { leases.into_iter().for_each(|lease| lease.unwrap().discard()) };
    let (served, ()) = tokio::join!(waiting, discard);
    let numbers: Vec<_> = served.iter().map(|lease| lease.as_ref().unwrap().number).collect();
    assert!(numbers.iter().all(|number| *number >= 4), "{numbers:?}");
    assert_eq!(database.attempts.load(SeqCst), 8, "one attempt for each");
    drop(served);
    is_whole(&pool, &database, 4).await;
}

/// <https://github.com/sfackler/r2d2/issues/7>: a panic in the manager's methods leaves the pool unusable.
#[tokio::test(start_paused = true)]
async fn panics_of_the_manager_leave_the_pool_usable() {
    let (pool, database) = pool(2);
    database.panics.store(true, SeqCst);
    let panicked = join_all((0..2).map(|_| lease(&pool))).await;
    assert!(panicked.iter().any(|lease| matches!(lease, Err(LeaseError::Panicked))), "{panicked:?}");
    database.panics.store(false, SeqCst);
    tokio::time::sleep(MINUTE).await;
    database.close_panics.store(true, SeqCst);
    lease(&pool).await.unwrap().discard();
    tokio::time::sleep(MINUTE).await;
    assert_eq!(pool.counters().counted(PoolEvent::CloseFailed), 1);
    database.close_panics.store(false, SeqCst);
    is_whole(&pool, &database, 2).await;
}

/// <https://github.com/transact-rs/sqlx/pull/4350>: returning a connection whose peer vanished never completes and keeps its
/// permit; after as many as the cap no `acquire` succeeds.
#[tokio::test(start_paused = true)]
async fn closings_that_hang_free_their_places() {
    let (pool, database) = pool(2);
    database.close_hangs.store(true, SeqCst);
    for _ in 0..6 {
        join_all((0..2).map(|_| lease(&pool))).await.into_iter().for_each(|lease| lease.unwrap().discard());
    }
    assert_eq!(database.attempts.load(SeqCst), 12);
    database.close_hangs.store(false, SeqCst);
    is_whole(&pool, &database, 2).await;
    assert!(pool.counters().counted(PoolEvent::CloseTimedOut) >= 10);
}

/// <https://github.com/coopernurse/node-pool/issues/108> and <https://github.com/cloudwego/volo/pull/547>: the list of waiting
/// clients grows with clients that left long ago.
#[tokio::test(start_paused = true)]
async fn callers_that_gave_up_do_not_wait() {
    let (pool, database) = pool(1);
    let busy = lease(&pool).await.unwrap();
    for _ in 0..10 {
        let brief =
            join_all((0..1_000).map(|_| pool.lease_within(&0, WhenFull::Wait, Duration::from_millis(10)))).await;
        assert!(brief.iter().all(|lease| matches!(lease, Err(LeaseError::TimedOut))));
    }
    assert_eq!(pool.counters().counted(PoolEvent::Cancelled), 10_000);
    let many = join_all((0..2_000).map(|_| pool.lease_within(&0, WhenFull::Wait, Duration::from_millis(10)))).await;
    let refused = many.iter().filter(|l| matches!(l, Err(LeaseError::Refused(PoolRefusal::TooManyWaiting { .. }))));
    assert_eq!(refused.count(), 2_000 - 1_024, "those that wait have a cap");
    drop(busy);
    is_whole(&pool, &database, 1).await;
}

/// <https://github.com/sfackler/r2d2/issues/99>: threads of a pool outlive its shutdown by up to 30 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_task_outlives_a_close() {
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let (pool, _) = pool(4);
    drop(join_all((0..4).map(|_| lease(&pool))).await);
    pool.close().await;
    let jobs = TaskPool::new("jobs", TaskPoolCaps::default());
    for _ in 0..10 {
        jobs.spawn(|| async { std::future::pending::<Result<(), Infallible>>().await }).await.unwrap();
    }
    jobs.close().await;
    // A task counts until its worker has dropped it, a moment after its last poll.
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while tokio::runtime::Handle::current().metrics().num_alive_tasks() > before {
        assert!(std::time::Instant::now() < deadline, "a task is left");
        tokio::task::yield_now().await;
    }
}

/// <https://github.com/moka-rs/moka/issues/59>: when the task that fills a key is aborted, the next caller panics.
#[tokio::test(start_paused = true)]
async fn an_aborted_fill_is_taken_over() {
    let cache: ByteCache<u8> = ByteCache::new("cache", ByteCacheCaps::default());
    let filling = cache.clone();
    let task =
        tokio::spawn(
            async move { filling.get_or_fill(&1, std::future::pending::<Result<Bytes, std::io::Error>>).await },
        );
    tokio::task::yield_now().await;
    let waiting = cache.get_or_fill(&1, || async { Ok::<_, std::io::Error>(Bytes::from("second")) });
    let (filled, ()) = tokio::join!(waiting, async { task.abort() });
    assert_eq!(filled.unwrap(), "second");
    assert_eq!((cache.filling(), cache.counters().counted(CacheEvent::Abandoned)), (0, 1));
}

/// <https://github.com/moka-rs/moka/issues/240>: the caller that fills a key holds its future and does not poll it, and all
/// others wait for ever.
#[tokio::test(start_paused = true)]
async fn a_fill_that_is_not_polled_does_not_hold_up_others_for_ever() {
    let cache: ByteCache<u8> = ByteCache::new("cache", ByteCacheCaps { wait: MINUTE, ..ByteCacheCaps::default() });
    let mut held = Box::pin(cache.get_or_fill(&1, || async {
        tokio::task::yield_now().await;
        Ok::<_, std::io::Error>(Bytes::from("first"))
    }));
    assert!(poll_fn(|context| Poll::Ready(held.poll_unpin(context).is_pending())).await);
    let waited = tokio::time::timeout(2 * MINUTE, cache.get_or_fill(&1, || async { Err::<Bytes, _>("unused") })).await;
    assert!(matches!(waited, Ok(Err(FillError::WaitTimedOut(MINUTE)))), "{waited:?}");
    assert_eq!(held.await.unwrap(), "first");
    assert_eq!(cache.filling(), 0);
}

/// <https://github.com/jeromefroe/lru-rs/issues/24> and <https://github.com/jeromefroe/lru-rs/issues/100>: entries that left the
/// map stay in the list, and `clear` and `resize` leak their values.
#[test]
fn entries_that_left_are_dropped() {
    struct Counted(Arc<AtomicUsize>);

    impl AsRef<[u8]> for Counted {
        fn as_ref(&self) -> &[u8] {
            &[7; 1_000]
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_sub(1, SeqCst);
        }
    }

    let caps =
        ByteCacheCaps { bytes: ByteCap::of::<200_000>(), entry: ByteCap::of::<2_000>(), ..ByteCacheCaps::default() };
    let (cache, alive, now) = (ByteCache::<u32>::new("cache", caps), Arc::new(AtomicUsize::new(0)), Instant::now());
    for key in 0..5_000 {
        alive.fetch_add(1, SeqCst);
        cache.insert(key, Bytes::from_owner(Counted(alive.clone())), now).unwrap();
        assert_eq!(alive.load(SeqCst), cache.len());
    }
    assert!(cache.weight() <= 200_000);
    for key in 0..5_000 {
        if key % 3 == 0 {
            cache.remove(&key);
        }
    }
    assert_eq!(alive.load(SeqCst), cache.len());
    cache.set_cap(ByteCap::of::<20_000>());
    assert_eq!(alive.load(SeqCst), cache.len());
    assert!(cache.weight() <= 20_000);
    cache.sweep(now + 2 * Duration::from_secs(3600));
    assert_eq!((alive.load(SeqCst), cache.len()), (0, 0));
}

fn fanout() -> Fanout {
    Fanout::new("topic", FanoutCaps { patience: MINUTE, ..FanoutCaps::default() })
}

/// <https://github.com/redis/redis/issues/3893>: a client that reads all of a large message is disconnected by the next one a
/// minute later, because the time of its first excess was kept.
#[test]
fn the_patience_starts_anew_after_a_drained_backlog() {
    let (fanout, start) = (fanout(), Instant::now());
    let mut subscription = fanout.subscribe(Delivery::Every).unwrap();
    for minutes in [0, 2, 4, 6] {
        let published = fanout.publish_at(vec![0; 800 << 10].into(), start + minutes * MINUTE).unwrap();
        assert_eq!(published.reached, 1, "after {minutes} minutes");
        assert!(matches!(subscription.try_next(), Some(Ok(_))));
        assert_eq!(fanout.sweep_at(start + minutes * MINUTE + MINUTE / 2), 0);
    }
}

/// <https://github.com/redis/redis/issues/1687>: limits of one connection do not bound the sum over an unknown number of
/// connections, and a disconnection does not say why.
#[test]
fn the_sum_of_all_backlogs_is_bounded_and_the_reason_is_given() {
    const TOTAL: u64 = 4 << 20;
    let topics: Vec<_> = (0..100).map(|_| ()).collect();
    let budget = plimsoll::bounded::BacklogBudget::new("backlogs", Cap::of::<1_000>(), ByteCap::of::<TOTAL>());
    let topics: Vec<_> = topics.iter().map(|()| Fanout::sharing("topic", FanoutCaps::default(), &budget)).collect();
    let mut stalled: Vec<_> = topics.iter().map(|topic| topic.subscribe(Delivery::Every).unwrap()).collect();
    for _ in 0..3 {
        for topic in &topics {
            topic.publish(vec![0; 100 << 10].into()).unwrap();
            assert!(budget.used() <= TOTAL);
        }
    }
    let reasons = stalled.iter_mut().filter_map(|subscription| {
        loop {
            match subscription.try_next() {
                Some(Ok(_)) => {}
                Some(Err(reason)) => break Some(reason),
                None => break None,
            }
        }
    });
    let reasons: Vec<_> = reasons.collect();
    assert!(reasons.len() >= 60, "{}", reasons.len());
    assert!(reasons.iter().all(|reason| matches!(reason, Disconnected::OverBudget { .. })));
}

/// <https://github.com/nats-io/nats.c/issues/419>: what is added to the pending bytes of a message is not what is taken off
/// again, so that a subscription that keeps up is a slow consumer in the end.
#[test]
fn pending_bytes_return_to_zero() {
    let (fanout, start) = (fanout(), Instant::now());
    let mut every = fanout.subscribe(Delivery::Every).unwrap();
    let mut latest = fanout.subscribe(Delivery::Latest).unwrap();
    for n in 0..100_000_usize {
        let message = Bytes::from(vec![0; n % 700]);
        assert_eq!(fanout.publish_at(message, start + Duration::from_millis(n as u64)).unwrap().disconnected, 0);
        if n % 9 == 0 {
            while every.try_next().is_some() {}
        }
        if n % 7 == 0 {
            latest.try_next();
        }
    }
    while every.try_next().is_some() || latest.try_next().is_some() {}
    assert_eq!(fanout.backlog(), 0);
    drop((every, latest));
    assert_eq!(fanout.budget().used(), 0);
}

/// <https://github.com/tokio-rs/tokio/pull/2448>: the close of the channel overwrites the last value of a slow receiver.
#[test]
fn a_close_keeps_the_last_message() {
    for delivery in [Delivery::Every, Delivery::Latest] {
        let fanout = fanout();
        let mut slow = fanout.subscribe(delivery).unwrap();
        fanout.publish("last".into()).unwrap();
        drop(fanout);
        assert_eq!(slow.try_next(), Some(Ok("last".into())));
        assert_eq!(slow.try_next(), Some(Err(Disconnected::Closed)));
        assert_eq!(slow.try_next(), None);
    }
}

/// <https://github.com/moka-rs/moka/issues/59> for every part that runs a user's future: what a runtime that shuts down drops,
/// polled or not, keeps no permit, place or fill.
#[test]
fn a_runtime_that_shuts_down_keeps_nothing() {
    for threads in [1, 2, 4] {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap();
        let caps = TaskPoolCaps { limit: 100 * MINUTE, ..TaskPoolCaps::default() };
        let (jobs, cache) = (TaskPool::new("jobs", caps), ByteCache::<u32>::new("cache", ByteCacheCaps::default()));
        runtime.block_on(async {
            for n in 0..10 {
                jobs.try_spawn(|| async { std::future::pending::<Result<(), Infallible>>().await }).unwrap();
                let filling = cache.clone();
                tokio::spawn(async move {
                    filling.get_or_fill(&n, std::future::pending::<Result<Bytes, std::io::Error>>).await
                });
            }
        });
        runtime.shutdown_background();
        let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        other.block_on(async {
            assert!(jobs.idle_within(MINUTE).await, "the jobs are dropped");
            jobs.try_spawn(|| async { Ok::<_, Infallible>(()) }).unwrap();
            assert!(jobs.idle_within(MINUTE).await);
            for n in 0..10 {
                let fill = || async { Ok::<_, std::io::Error>(Bytes::from("filled")) };
                assert_eq!(cache.get_or_fill(&n, fill).await.unwrap(), "filled");
            }
            tokio::time::timeout(MINUTE, jobs.close()).await.expect("a close ends");
        });
        assert_eq!((jobs.counters().entries().read().used, cache.filling()), (0, 0));
        assert!(matches!(cache.lookup(&99, Instant::now()), Ok(Lookup::Fill(_))));
    }
}

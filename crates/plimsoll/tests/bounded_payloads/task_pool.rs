use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use plimsoll::bounded::{Cap, JobEvent, JobRefused, TaskPool, TaskPoolCaps};
use plimsoll::inspect::Inspect;
use plimsoll_testkit::gate::Gate;
use plimsoll_testkit::law::Law;
use proptest::prelude::*;
use tokio::time::Instant;

const OFFERED: Law = Law {
    name: "jobs offered",
    whole: "store_offered",
    parts: &["store_started", "store_refused_full", "store_refused_closed", "store_refused_abandoned"],
};
const STARTED: Law = Law {
    name: "jobs started",
    whole: "store_started",
    parts: &["store_done", "store_failed", "store_panicked", "store_timed_out", "store_stopped", "store_used"],
};

fn check(pool: &TaskPool) {
    let figures = pool.inspect().counters;
    OFFERED.assert(&figures);
    STARTED.assert(&figures);
    assert!(figures["store_high_water"] <= figures["store_cap"]);
}

fn pool(jobs: usize) -> TaskPool {
    TaskPool::new("store", TaskPoolCaps { jobs: Cap::new(jobs).unwrap(), ..TaskPoolCaps::default() })
}

fn alive_tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// A job that ends well after `work`.
async fn well(work: impl Future<Output = ()>) -> Result<(), ()> {
    work.await;
    Ok(())
}

/// R-5, F-15: with every permit taken, nothing is spawned and the job is dropped after 100 ms, with what it holds.
#[tokio::test(start_paused = true)]
async fn without_a_permit_nothing_is_spawned() {
    let pool = pool(10);
    let gate = Gate::closed();
    for _ in 0..10 {
        let gate = gate.clone();
        pool.spawn(|| async move { well(gate.pass()).await }).await.unwrap();
    }
    gate.until_waiting(10).await;
    let (before, from) = (alive_tasks(), Instant::now());
    let image = Arc::new(vec![0; 5 << 20]);
    let held = image.clone();
    let mut called = false;
    let skipped = pool
        .spawn(|| {
            called = true;
            async move {
                drop(held);
                Ok::<_, ()>(())
            }
        })
        .await;
    assert_eq!(skipped, Err(JobRefused::Full { cap: 10 }));
    assert_eq!(from.elapsed(), Duration::from_millis(100));
    assert!(!called, "the job did not even begin to exist");
    assert_eq!((alive_tasks(), Arc::strong_count(&image)), (before, 1));
    gate.open();
    pool.idle().await;
    assert_eq!(pool.counters().counted(JobEvent::Done), 10);
    check(&pool);
}

/// a permit that comes free within the waiting time is used.
#[tokio::test(start_paused = true)]
async fn a_permit_that_comes_in_time_is_used() {
    let pool = pool(1);
    pool.spawn(|| async { well(tokio::time::sleep(Duration::from_millis(60))).await }).await.unwrap();
    assert!(pool.try_spawn(|| async { Ok::<_, ()>(()) }).is_err());
    pool.spawn(|| async { Ok::<_, ()>(()) }).await.unwrap();
    pool.idle().await;
    assert_eq!(pool.counters().counted(JobEvent::Done), 2);
    check(&pool);
}

/// a job is ended after five seconds and its permit comes back, after whatever the job held.
#[tokio::test(start_paused = true)]
async fn a_job_is_ended_at_its_limit() {
    struct Held(TaskPool, Arc<AtomicUsize>);
    impl Drop for Held {
        fn drop(&mut self) {
            self.1.store(self.0.counters().entries().read().used as usize, SeqCst);
        }
    }
    let pool = pool(1);
    let running_at_drop = Arc::new(AtomicUsize::new(99));
    let held = Held(pool.clone(), running_at_drop.clone());
    let from = Instant::now();
    pool.spawn(|| async move {
        let _held = held;
        std::future::pending::<Result<(), ()>>().await
    })
    .await
    .unwrap();
    pool.idle().await;
    assert_eq!(from.elapsed(), Duration::from_secs(5));
    assert_eq!(pool.counters().counted(JobEvent::TimedOut), 1);
    assert_eq!(running_at_drop.load(SeqCst), 1, "what the job held is dropped before its permit is released");
    check(&pool);
}

/// a job that panics, also while it is being made, costs nothing but itself.
#[tokio::test(start_paused = true)]
async fn a_panicking_job_gives_its_permit_back() {
    let pool = pool(1);
    pool.spawn(|| async {
        if true {
            panic!("in the store")
        }
        Ok::<_, ()>(())
    })
    .await
    .unwrap();
    pool.idle().await;
    pool.spawn(|| async { Err("disk full") }).await.unwrap();
    pool.idle().await;
    let counted = |event| pool.counters().counted(event);
    assert_eq!((counted(JobEvent::Panicked), counted(JobEvent::Failed)), (1, 1));
    pool.spawn(|| async { Ok::<_, ()>(()) }).await.unwrap();
    pool.idle().await;
    check(&pool);
}

/// closing ends what runs; tasks before and after are the same.
#[tokio::test(start_paused = true)]
async fn closing_ends_the_jobs_and_takes_no_more() {
    let before = alive_tasks();
    let pool = pool(10);
    for _ in 0..10 {
        pool.spawn(|| async { std::future::pending::<Result<(), ()>>().await }).await.unwrap();
    }
    pool.close().await;
    assert_eq!(pool.counters().counted(JobEvent::Stopped), 10);
    assert_eq!(pool.spawn(|| async { Ok::<_, ()>(()) }).await, Err(JobRefused::Closed));
    assert_eq!(pool.try_spawn(|| async { Ok::<_, ()>(()) }), Err(JobRefused::Closed));
    tokio::task::yield_now().await;
    assert_eq!(alive_tasks(), before);
    check(&pool);
}

/// an offer that is dropped while it waits for a permit is counted, and no task is spawned for it later.
#[tokio::test(start_paused = true)]
async fn leaving_the_wait_spawns_nothing() {
    let pool = pool(1);
    let gate = Gate::closed();
    let passing = gate.clone();
    pool.spawn(|| async move { well(passing.pass()).await }).await.unwrap();
    let left = tokio::time::timeout(Duration::from_millis(50), pool.spawn(|| async { Ok::<_, ()>(()) })).await;
    assert!(left.is_err());
    gate.open();
    pool.idle().await;
    assert_eq!(pool.counters().counted(JobEvent::RefusedAbandoned), 1);
    check(&pool);
}

#[derive(Debug, Clone)]
enum Op {
    Spawn { takes: u64, ends: Ends },
    TrySpawn { takes: u64 },
    Wait(u64),
    Close,
}

#[derive(Debug, Clone, Copy)]
enum Ends {
    Well,
    Badly,
    Panicking,
}

fn op() -> impl Strategy<Value = Op> {
    let ends = prop_oneof![6 => Just(Ends::Well), 2 => Just(Ends::Badly), 1 => Just(Ends::Panicking)];
    prop_oneof![
        8 => (0..8_000_u64, ends).prop_map(|(takes, ends)| Op::Spawn { takes, ends }),
        3 => (0..500_u64).prop_map(|takes| Op::TrySpawn { takes }),
        4 => (0..1_500_u64).prop_map(Op::Wait),
        1 => Just(Op::Close),
    ]
}

/// The pool in the plainest form: when each running job will end. All times in ms.
#[derive(Debug, Default)]
struct Model {
    now: u64,
    ends: Vec<u64>,
    closed: bool,
    refused: u64,
}

impl Model {
    fn wait(&mut self, ms: u64) {
        self.now += ms;
        self.ends.retain(|end| *end > self.now);
    }

    /// Whether a job that may wait for `patience` gets its permit, which passes the time that it takes.
    fn admit(&mut self, cap: usize, patience: u64, takes: u64) -> bool {
        let first = self.ends.iter().min().copied();
        let wait = match first {
            _ if self.closed => return false,
            _ if self.ends.len() < cap => 0,
            Some(end) if end - self.now < patience => end - self.now,
            _ => {
                self.wait(patience);
                return false;
            }
        };
        self.wait(wait);
        // An odd number of milliseconds cannot tie with an even limit or patience.
        self.ends.push(self.now + takes.min(5_000));
        true
    }
}

proptest! {
    #![proptest_config(crate::config())]

    /// R-5, F-15: who gets a permit, who is skipped and when, as the model has it; the counters add up after every step.
    #[test]
    fn task_pool_admits_like_its_model(cap in 1..4_usize, ops in prop::collection::vec(op(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let pool = pool(cap);
            let mut model = Model::default();
            for op in ops {
                match op {
                    Op::Spawn { takes, ends } => {
                        let takes = takes * 2 + 1;
                        let job = || async move {
                            tokio::time::sleep(Duration::from_millis(takes)).await;
                            match ends {
                                Ends::Well => Ok(()),
                                Ends::Badly => Err("failed"),
                                Ends::Panicking => std::panic::resume_unwind(Box::new("panicked")),
                            }
                        };
                        let admitted = model.admit(cap, 100, takes);
                        prop_assert_eq!(pool.spawn(job).await.is_ok(), admitted);
                        model.refused += u64::from(!admitted);
                    }
                    Op::TrySpawn { takes } => {
                        let takes = takes * 2 + 1;
                        let admitted = model.admit(cap, 0, takes);
                        let job = || async move { well(tokio::time::sleep(Duration::from_millis(takes))).await };
                        prop_assert_eq!(pool.try_spawn(job).is_ok(), admitted);
                        model.refused += u64::from(!admitted);
                    }
                    Op::Wait(ms) => {
                        tokio::time::sleep(Duration::from_millis(ms * 2)).await;
                        model.wait(ms * 2);
                    }
                    Op::Close => {
                        pool.close().await;
                        model.ends.clear();
                        model.closed = true;
                    }
                }
                tokio::task::yield_now().await;
                check(&pool);
                prop_assert_eq!(pool.counters().entries().read().used, model.ends.len() as u64);
                prop_assert_eq!(pool.counters().refused(), model.refused);
            }
            Ok(())
        })?;
    }
}

/// waiting times and limits without end are "never", and no overflow of the clock.
#[tokio::test(start_paused = true)]
async fn times_without_end_are_never() {
    let caps = TaskPoolCaps { jobs: Cap::of::<1>(), wait: Duration::MAX, limit: Duration::MAX };
    let pool = TaskPool::new("store", caps);
    for _ in 0..2 {
        pool.spawn(|| async { well(tokio::time::sleep(Duration::from_secs(3600))).await }).await.unwrap();
    }
    pool.idle().await;
    assert_eq!(pool.counters().counted(JobEvent::Done), 2);
    check(&pool);
}

/// waiting until the pool is idle takes no permit from anybody, and ends however busy the pool is afterwards.
#[tokio::test(start_paused = true)]
async fn waiting_for_idle_refuses_nobody() {
    let pool = pool(2);
    let (first, second) = (Gate::closed(), Gate::closed());
    let job = |gate: &Gate| {
        let gate = gate.clone();
        pool.try_spawn(|| async move { well(gate.pass()).await })
    };
    job(&first).unwrap();
    let mut idle = Box::pin(pool.idle());
    assert!(futures::poll!(idle.as_mut()).is_pending());
    job(&second).expect("waiting for idle holds no permit");
    first.open();
    while pool.counters().entries().read().used == 2 {
        tokio::task::yield_now().await;
    }
    assert!(futures::poll!(idle.as_mut()).is_pending());
    second.open();
    while pool.counters().entries().read().used == 1 {
        tokio::task::yield_now().await;
    }
    // A job that came in the meantime does not make it wait for another such moment.
    let third = Gate::closed();
    job(&third).unwrap();
    assert!(futures::poll!(idle.as_mut()).is_ready());
    pool.close().await;
    check(&pool);
}

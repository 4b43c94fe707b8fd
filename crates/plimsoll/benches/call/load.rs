//! Throughput by callers, overload, dead callers, latency under many calls in flight.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use plimsoll::call::{CallContext, CallServer, Service, Worker};
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::report::{Row, median, ns_each};
use crate::{Increment, callers};

/// Takes so long, or for ever.
struct Sleep;

impl Service for Sleep {
    type Request = Option<Duration>;
    type Reply = ();
    type Error = Infallible;

    async fn call(&self, _: CallContext, time: Option<Duration>) -> Result<(), Infallible> {
        match time {
            Some(Duration::ZERO) => {}
            Some(time) => tokio::time::sleep(time).await,
            None => std::future::pending().await,
        }
        Ok(())
    }
}

pub async fn throughput(rows: &mut Vec<Row>) {
    let server =
        CallServer::builder(Increment).worker(Worker::Task).max_in_flight(4_096).start().await.expect("starts");
    let counts = [1, 4, 16, 64, 1_024];
    let mut times = counts.map(|_| Vec::new());
    for _ in 0..7 {
        for (n, times) in counts.iter().zip(&mut times) {
            let client = server.client();
            let call = move || {
                let client = client.clone();
                async move { client.call(1).await.map(|_| ()).expect("a reply") }
            };
            times.push(callers(*n, 51_200, call).await);
        }
    }
    let times = times.map(median);
    let best = times.iter().copied().fold(f64::INFINITY, f64::min);
    for (n, ns) in counts.iter().zip(times) {
        // 1,024 callers at least 0.8 of the best throughput is a ratio of times of at most 1.25.
        let goal = (*n == 1_024).then_some(1.25);
        rows.push(Row::against(
            format!("throughput, task worker, {n} callers"),
            ns,
            "ns",
            "the best of these",
            best,
            goal,
        ));
    }
    server.actor().stop(None);
}

/// Calls served a second by `offering` callers of which each waits a millisecond after a refusal.
async fn goodput(offering: usize) -> f64 {
    let server = CallServer::builder(Sleep).worker(Worker::Task).max_in_flight(64).start().await.expect("starts");
    let (served, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let tasks: Vec<_> = (0..offering)
        .map(|_| {
            let (client, served, stop) = (server.client(), Arc::clone(&served), Arc::clone(&stop));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    match client.call(Some(Duration::from_millis(2))).await {
                        Ok(()) => drop(served.fetch_add(1, Ordering::Relaxed)),
                        Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                    }
                }
            })
        })
        .collect();
    let (start, time) = (Instant::now(), Duration::from_millis(400));
    tokio::time::sleep(time).await;
    let rate = served.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.expect("a caller");
    }
    server.actor().stop(None);
    rate
}

pub async fn overload(rows: &mut Vec<Row>) {
    let (mut alone, mut tenfold) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        alone.push(goodput(64).await);
        tenfold.push(goodput(640).await);
    }
    let (alone, tenfold) = (median(alone), median(tenfold));
    let mut row = Row::against("served a second, at 10 times capacity", tenfold, "calls/s", "at capacity", alone, None);
    // Throughput: theirs to ours, so that smaller is better; 0.8 of it is a ratio of 1.25.
    row.ratio = Some(alone / tenfold);
    row.goal = Some(1.25);
    row.met = Some(alone / tenfold <= 1.25);
    rows.push(row);

    let full = CallServer::builder(Sleep).worker(Worker::Task).max_in_flight(1).deadline(Duration::from_secs(600));
    let server = full.start().await.expect("starts");
    let client = server.client();
    let held = tokio::spawn({
        let client = client.clone();
        async move { client.call(None).await }
    });
    while server.inspector().inspect().counters["workers"] != 1 {
        tokio::task::yield_now().await;
    }
    let mut times = Vec::new();
    for _ in 0..21 {
        let start = Instant::now();
        for _ in 0..10_000 {
            assert!(client.call(None).await.is_err());
        }
        times.push(ns_each(start.elapsed(), 10_000));
    }
    rows.push(Row::absolute("a refusal", median(times), "ns", Some(300.0)));
    held.abort();
    server.actor().stop(None);
}

struct Bystander;

impl Actor for Bystander {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

/// Of one dead caller's 10,000 calls: when the books are free, and when the workers have ended.
pub async fn dead_caller(rows: &mut Vec<Row>) {
    for (worker, name) in [(Worker::Task, "task"), (Worker::Actor, "actor")] {
        let (mut freed, mut ended) = (Vec::new(), Vec::new());
        for _ in 0..5 {
            let server =
                CallServer::builder(Sleep).worker(worker).max_in_flight(20_000).deadline(Duration::from_secs(600));
            let server = server.start().await.expect("starts");
            let (caller, _) = Bystander::spawn(None, Bystander, ()).await.expect("starts");
            let bound = server.client().bind(&caller.get_cell()).unawaited();
            let calls: Vec<_> = (0..10_000)
                .map(|_| {
                    let bound = bound.clone();
                    tokio::spawn(async move { bound.call(None).await })
                })
                .collect();
            let inspect = server.inspector();
            let until = async |counter: &str, value: u64| {
                while inspect.inspect().counters[counter] != value {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            until("workers", 10_000).await;
            let start = Instant::now();
            caller.kill();
            until("in_flight", 0).await;
            freed.push(start.elapsed().as_secs_f64() * 1_000.0);
            until("workers", 0).await;
            ended.push(start.elapsed().as_secs_f64() * 1_000.0);
            for call in calls {
                assert!(call.await.expect("a call").is_err());
            }
            server.actor().stop(None);
        }
        rows.push(Row::absolute(
            format!("10,000 {name} calls of a dead caller: books free"),
            median(freed),
            "ms",
            Some(10.0),
        ));
        rows.push(Row::absolute(
            format!("10,000 {name} calls of a dead caller: workers gone"),
            median(ended),
            "ms",
            Some(100.0),
        ));
    }
}

/// The latency of one call beside 100,000 that wait, against the same without them.
pub async fn in_flight(rows: &mut Vec<Row>) {
    let server =
        CallServer::builder(Sleep).worker(Worker::Task).max_in_flight(200_000).deadline(Duration::from_secs(600));
    let server = server.start().await.expect("starts");
    let client = server.client();
    let probe = async |client: &plimsoll::call::CallClient<Sleep>| {
        let mut times = Vec::new();
        for _ in 0..15 {
            let start = Instant::now();
            for _ in 0..1_000 {
                client.call(Some(Duration::ZERO)).await.expect("a reply");
            }
            times.push(ns_each(start.elapsed(), 1_000));
        }
        median(times)
    };
    let alone = probe(&client).await;
    let calls: Vec<_> = (0..100_000)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.call(None).await })
        })
        .collect();
    let inspect = server.inspector();
    while inspect.inspect().counters["workers"] != 100_000 {
        tokio::task::yield_now().await;
    }
    let beside = probe(&client).await;
    rows.push(Row::against("a call beside 100,000 in flight", beside, "ns", "the same alone", alone, None));
    server.actor().kill();
    for call in calls {
        assert!(call.await.expect("a call").is_err());
    }
}

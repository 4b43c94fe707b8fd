//! Fan-out against tokio's broadcast channel, cache hits against quick_cache.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;
use plimsoll::bounded::{ByteCache, ByteCacheCaps, Cap, Delivery, Fanout, FanoutCaps, Scratch};
use tokio::sync::{Notify, broadcast};

use crate::report::{Row, median, ns_each};

const SUBSCRIBERS: usize = 1_000;
const ROUNDS: usize = 15;

pub fn measure(rows: &mut Vec<Row>) {
    cache_hit(rows);
    copy_buffer(rows);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    // In a task of the runtime: from outside every wake crosses to another thread.
    rows.extend(runtime.block_on(async { tokio::spawn(fan_out()).await.expect("measured") }));
}

/// Counts what all subscribers have received, and wakes who waits for a number.
#[derive(Default)]
struct Received {
    count: AtomicUsize,
    goal: AtomicUsize,
    reached: Notify,
}

impl Received {
    fn one(&self) {
        if self.count.fetch_add(1, SeqCst) + 1 == self.goal.load(SeqCst) {
            self.reached.notify_one();
        }
    }

    /// Publishes `messages` and waits until every subscriber has every one.
    async fn all(&self, messages: usize, publish: impl Fn()) -> Duration {
        self.goal.store(self.count.load(SeqCst) + messages * SUBSCRIBERS, SeqCst);
        let start = Instant::now();
        (0..messages).for_each(|_| publish());
        self.reached.notified().await;
        start.elapsed()
    }
}

async fn fan_out() -> Vec<Row> {
    const MESSAGE: usize = 1_024;
    let fanout = Fanout::new("bench", FanoutCaps { subscribers: Cap::of::<SUBSCRIBERS>(), ..FanoutCaps::default() });
    let (sender, _) = broadcast::channel::<Arc<Vec<u8>>>(512);
    let (ours, theirs) = (Arc::new(Received::default()), Arc::new(Received::default()));
    for _ in 0..SUBSCRIBERS {
        let (mut subscription, received) = (fanout.subscribe(Delivery::Every).expect("room"), ours.clone());
        tokio::spawn(async move {
            while let Some(Ok(message)) = subscription.next().await {
                black_box(message);
                received.one();
            }
        });
        let (mut receiver, received) = (sender.subscribe(), theirs.clone());
        tokio::spawn(async move {
            while let Ok(message) = receiver.recv().await {
                black_box(message);
                received.one();
            }
        });
    }
    let mut rows = Vec::new();
    for (name, burst, times) in [("one at a time", 1, 40), ("bursts of 64", 64, 2)] {
        let (mut our_times, mut their_times) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (mut our_time, mut their_time) = (Duration::ZERO, Duration::ZERO);
            for _ in 0..times {
                our_time += ours.all(burst, || _ = fanout.publish(Bytes::from(vec![1; MESSAGE]))).await;
                their_time += theirs.all(burst, || _ = sender.send(Arc::new(vec![1; MESSAGE]))).await;
            }
            our_times.push(ns_each(our_time, times * burst * SUBSCRIBERS));
            their_times.push(ns_each(their_time, times * burst * SUBSCRIBERS));
        }
        let bench = format!("fan-out to {SUBSCRIBERS} subscribers, {name}, a delivery");
        let peer = "tokio broadcast of Arc";
        rows.push(Row::against(bench, median(our_times), "ns", peer, median(their_times), Some(1.3)));
    }
    rows
}

/// 256 KiB through a buffer of 32 KiB that is kept from copy to copy, against one made for each: what a pool of copy buffers
/// could gain at most.
fn copy_buffer(rows: &mut Vec<Row>) {
    const BUFFER: usize = 32 * 1024;
    const COPIES: usize = 2_000;
    let source = vec![1_u8; 256 * 1024];
    let copy = |buffer: &mut Vec<u8>| {
        for piece in source.chunks(BUFFER) {
            buffer.clear();
            buffer.extend_from_slice(black_box(piece));
            black_box(&buffer);
        }
        buffer.clear();
    };
    let timed = |mut work: Box<dyn FnMut() + '_>| {
        let start = Instant::now();
        (0..COPIES).for_each(|_| work());
        ns_each(start.elapsed(), COPIES)
    };
    let (mut kept, mut fresh) = (Vec::new(), Vec::new());
    let mut scratch: Scratch<Vec<u8>> = Scratch::with_keep_size(BUFFER);
    for _ in 0..ROUNDS {
        kept.push(timed(Box::new(|| scratch.with(|buffer| copy(buffer)))));
        fresh.push(timed(Box::new(|| copy(&mut Vec::with_capacity(BUFFER)))));
    }
    let (kept, fresh) = (median(kept), median(fresh));
    rows.push(Row::against(
        "copy of 256 KiB through a kept buffer of 32 KiB",
        kept,
        "ns",
        "a fresh buffer",
        fresh,
        None,
    ));
}

fn cache_hit(rows: &mut Vec<Row>) {
    const KEYS: u64 = 10_000;
    const LOOKUPS: usize = 1_000_000;
    let cache: ByteCache<u64> = ByteCache::new("bench", ByteCacheCaps::default());
    let bare = quick_cache::sync::Cache::<u64, Bytes>::new(2 * KEYS as usize);
    let now = Instant::now();
    for key in 0..KEYS {
        cache.insert(key, vec![1; 1_024].into(), now).expect("small enough");
        bare.insert(key, vec![1; 1_024].into());
    }
    for threads in [1, 2] {
        let round = |get: &(dyn Fn(u64) -> Option<Bytes> + Sync)| {
            let start = Instant::now();
            std::thread::scope(|scope| {
                for thread in 0..threads {
                    scope.spawn(move || {
                        // A fixed walk over the keys that is no pattern to the processor.
                        let mut key = thread;
                        for _ in 0..LOOKUPS {
                            key = (key * 6_364_136_223 + 1_442_695_041) % KEYS;
                            black_box(get(key)).expect("it is there");
                        }
                    });
                }
            });
            ns_each(start.elapsed(), LOOKUPS)
        };
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(round(&|key| cache.get(&key, now)));
            theirs.push(round(&|key| bare.get(&key)));
        }
        let bench = format!("cache hit, {threads} thread{}", if threads == 1 { "" } else { "s" });
        rows.push(Row::against(bench, median(ours), "ns", "quick_cache", median(theirs), Some(1.5)));
    }
}

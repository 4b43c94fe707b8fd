//! A subscriber that stops reading.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use plimsoll_mesh::client::{Client, Subscription};
use plimsoll_mesh::events::EventKind;
use plimsoll_mesh::pubsub::Topic;
use quinn::Endpoint;
use tokio::task::JoinSet;

use crate::clients::{At, endpoint, p99};
use crate::harness::{Node, Plan, counter, folder, full};
use crate::left::record;

const SUBSCRIPTIONS: [&str; 2] = ["gateway", "topics"];
const READERS: usize = 10;
const MIB: f64 = 1_048_576.0;

/// What one round came to.
#[derive(Default)]
struct Round {
    /// From a message's publication to each reader that reads on.
    times: Vec<Duration>,
    /// MiB published before one who does not read was cut off.
    before_cut_off: Option<f64>,
    /// The most that waited for subscribers, in MiB, by the node's account.
    backlog: f64,
    /// Messages that a reader who reads on should have had and had not.
    missed: usize,
}

struct Stand<'a> {
    node: &'a Node,
    sockets: Endpoint,
    publisher: Client,
    topic: Topic,
}

impl<'a> Stand<'a> {
    async fn new(node: &'a Node) -> Self {
        let sockets = endpoint(0);
        let publisher = At::of(node).connect(&sockets).await.unwrap();
        Self { node, sockets, publisher, topic: "news.all".parse().unwrap() }
    }

    /// Publishes `messages` of `size` bytes, one each `pace`; of ten subscribers `stalled` do not read.
    async fn round(&self, messages: usize, size: usize, pace: Duration, stalled: usize) -> Round {
        let sent = Arc::new(Mutex::new(Vec::with_capacity(messages)));
        let (mut reading, mut not_reading) = (JoinSet::new(), Vec::new());
        for nth in 0..READERS {
            let client = At::of(self.node).connect(&self.sockets).await.unwrap();
            let subscription = client.subscribe(&"news.*".parse().unwrap()).await.unwrap();
            if nth < stalled {
                not_reading.push((client, subscription));
            } else {
                reading.spawn(read(client, subscription, messages, sent.clone()));
            }
        }
        let mut round = Round::default();
        let mut tick = tokio::time::interval(pace);
        for nth in 0..messages {
            tick.tick().await;
            sent.lock().push(Instant::now());
            let answer = self.publisher.publish(&self.topic, "x".repeat(size)).await.unwrap();
            let told: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            if told["cut_off"] != 0 && round.before_cut_off.is_none() {
                round.before_cut_off = Some((nth * size) as f64 / MIB);
            }
            if nth.is_multiple_of(8) {
                let waiting = counter(&self.node.snapshot().await, &SUBSCRIPTIONS, "backlog_bytes");
                round.backlog = round.backlog.max(waiting as f64 / MIB);
            }
        }
        for times in reading.join_all().await {
            round.missed += messages - times.len();
            round.times.extend(times);
        }
        round
    }
}

/// Reads every message and notes how long it was on its way.
async fn read(
    _client: Client,
    mut subscription: Subscription,
    messages: usize,
    sent: Arc<Mutex<Vec<Instant>>>,
) -> Vec<Duration> {
    let mut times = Vec::new();
    while times.len() < messages {
        match subscription.next().await {
            Ok(Some(event)) if event.starts_with(b"event: message") => times.push(sent.lock()[times.len()].elapsed()),
            Ok(Some(event)) if event.starts_with(b":") => {}
            _ => break,
        }
    }
    times
}

/// F-4, F-11, F-12, F-13, R-10: one of ten stops reading: it is cut off at its bound, and the others have every message, as early as before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stops_reading_is_cut_off_at_its_bound_and_delays_nobody() {
    const SIZE: usize = 32 << 10;
    // Beyond the backlog of 1 MiB: what is on its way in the connection, and a message on each side.
    const MOST: f64 = 2.0;
    let (rounds, messages) = if full() { (5, 400) } else { (1, 128) };
    let pace = Duration::from_millis(if full() { 10 } else { 5 });
    let folder = folder();
    let node = Plan::new(&folder, "a").flag("services", "echo").start();
    let stand = Stand::new(&node).await;
    let (mut all_read, mut one_stalls, mut cut, mut backlog, mut missed) =
        (Vec::new(), Vec::new(), Some(0.0_f64), 0.0_f64, 0);
    for _ in 0..rounds {
        let round = stand.round(messages, SIZE, pace, 0).await;
        missed += round.missed;
        all_read.extend(round.times);
        let round = stand.round(messages, SIZE, pace, 1).await;
        missed += round.missed;
        one_stalls.extend(round.times);
        backlog = backlog.max(round.backlog);
        cut = cut.zip(round.before_cut_off).map(|(cut, now)| cut.max(now));
    }
    let snapshot = node.snapshot().await;
    let told = snapshot.events.iter().filter(|event| event.kind == EventKind::SubscriberCutOff).count();
    assert_eq!(told, rounds, "{:?}", snapshot.events);
    assert!(snapshot.history["events_used"] <= snapshot.history["events_cap"]);
    let control = Plan::new(&folder, "b").flag("services", "echo").without("fanout-bound").start();
    let without = Stand::new(&control).await.round(128, SIZE, pace, 1).await;
    let in_words =
        |cut: Option<f64>| cut.map_or("never cut off".to_owned(), |mib| format!("cut off after {mib:.2} MiB"));
    let (before, beside) = (p99(all_read), p99(one_stalls));
    let ratio = beside / before;
    record(
        "6 a subscriber that stops reading",
        &[
            (
                in_words(cut),
                format!("at most {MOST} MiB"),
                cut.is_some_and(|cut| cut <= MOST) && without.before_cut_off.is_none(),
                Some(format!("without the bound {}", in_words(without.before_cut_off))),
            ),
            (
                format!("at most {backlog:.2} MiB waited for all"),
                format!("at most {MOST} MiB"),
                backlog <= MOST && without.backlog > MOST,
                Some(format!("without the bound {:.2} MiB", without.backlog)),
            ),
            (
                format!(
                    "messages that others missed: {missed}; their p99 {beside:.1} ms, {ratio:.2} times that of {before:.1} ms when all read"
                ),
                if full() { "0; 1.5 times" } else { "0; no claim about p99 in short form" }.into(),
                missed == 0 && (!full() || ratio <= 1.5),
                None,
            ),
        ],
    );
}

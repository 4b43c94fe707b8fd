//! Callers that die while they wait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll_testkit::law;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::clients::{At, endpoint};
use crate::harness::{Node, Plan, call, counter, folder, full, place, vanish};
use crate::left::{held, record, sum};

const SLEEP: [&str; 2] = ["services", "sleep"];

/// Waits for an answer that comes in 25 s, and dies before; whether it got in.
async fn die(at: At, nth: usize) -> bool {
    let socket = endpoint((nth % 16) as u8);
    // Who does not get in has nothing to leave; a busy machine can be the reason.
    let Ok(client) = at.connect(&socket).await else { return false };
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { call(&client, "sleep", "25000").await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    match nth % 3 {
        0 => client.close(),
        1 => vanish(&socket),
        // Gives up its call only.
        _ => waiting.abort(),
    }
    let _ = waiting.await;
    true
}

/// What a load left.
struct Left {
    answered: usize,
    died: usize,
    took: Duration,
    /// Calls of callers that had died, at the worst sample.
    most: u64,
    /// What was held when it was given up to wait.
    entries: Vec<(String, u64)>,
}

/// A thousand calls a second for `time`, of whose callers one in a hundred dies.
async fn load(node: &Node, time: Duration, patience: Duration) -> Left {
    let (at, sockets) = (At::of(node), endpoint(0));
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(at.connect(&sockets).await.unwrap());
    }
    let (from, under_way) = (Instant::now(), Arc::new(Semaphore::new(256)));
    let mut tick = interval(Duration::from_millis(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut calls, mut deaths, mut answered, mut most) = (JoinSet::new(), JoinSet::new(), 0, 0);
    let ticks = usize::try_from(time.as_millis()).unwrap();
    for nth in 1..=ticks {
        tick.tick().await;
        if nth.is_multiple_of(100) {
            deaths.spawn(die(at, nth / 100));
        }
        if nth.is_multiple_of(500) {
            most = most.max(counter(&node.snapshot().await, &SLEEP, "in_flight"));
        }
        let place = under_way.clone().acquire_owned().await.unwrap();
        let client = clients[nth % clients.len()].clone();
        calls.spawn(async move {
            let answer = call(&client, "echo", "alive").await;
            drop(place);
            answer.is_ok_and(|answer| answer.status == 200)
        });
        while let Some(answer) = calls.try_join_next() {
            answered += usize::from(answer.unwrap());
        }
    }
    answered += calls.join_all().await.into_iter().filter(|answered| *answered).count();
    let took = from.elapsed();
    let died = deaths.join_all().await.into_iter().filter(|died| *died).count();
    for client in clients {
        client.close();
    }
    let end = Instant::now() + patience;
    let entries = loop {
        let snapshot = node.snapshot().await;
        if sum(&snapshot) == 0 || Instant::now() > end {
            law::CALLS.assert(&place(&snapshot, &SLEEP).unwrap().details.counters);
            break held(&snapshot);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    Left { answered, died, took, most, entries }
}

fn start(plan: Plan) -> Node {
    plan.flag("services", "echo,sleep").flag("gateway-idle", "2s").start()
}

/// M-15, M-23, M-24, R-2: of callers that die in mid-call no entry outlives them: it is gone long before its call's deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dying_callers_leave_no_stale_entry() {
    let time = Duration::from_secs(if full() { 60 } else { 3 });
    let folder = folder();
    let node = start(Plan::new(&folder, "a"));
    // The calls would take 25 s.
    let ours = load(&node, time, Duration::from_secs(20)).await;
    let control = start(Plan::new(&folder, "b").without("caller-death"));
    let without = load(&control, Duration::from_secs(1), Duration::from_secs(4)).await;
    let (calls, rate) = (time.as_millis() as usize, ours.answered as f64 / ours.took.as_secs_f64());
    let deaths = calls / 100;
    let stale = |left: &Left| left.entries.iter().map(|(_, count)| count).sum::<u64>();
    record(
        "5 callers that die in mid-call",
        &[
            (
                format!(
                    "{} of {calls} calls answered, {rate:.0} a second; {} of {deaths} callers got in and died",
                    ours.answered, ours.died
                ),
                if full() { "all, at least 950; all" } else { "half of them, no claim; half of them" }.into(),
                if full() {
                    ours.answered == calls && rate >= 950.0 && ours.died == deaths
                } else {
                    2 * ours.answered >= calls && 2 * ours.died >= deaths
                },
                None,
            ),
            (
                format!(
                    "stale entries: {} {:?}; at most {} calls of the dying at once",
                    stale(&ours),
                    ours.entries,
                    ours.most
                ),
                "0".into(),
                stale(&ours) == 0 && without.entries.iter().any(|(name, _)| name.ends_with("/sleep/in_flight")),
                Some(format!("without noticing death, of {} callers: {:?}", without.died, without.entries)),
            ),
        ],
    );
}

//! Clients that come, take what they can, and are gone in every way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll_mesh::client::Client;
use plimsoll_mesh::node::NodeSnapshot;
use quinn::Endpoint;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::clients::{At, endpoint};
use crate::harness::{Node, Plan, call, folder, full, vanish};
use crate::left::{held, record, sum};

/// The ways to be gone.
const WAYS: usize = 8;

/// Comes, subscribes, advertises, calls, and is gone in the way of its number. An error: it did not get so far.
async fn visit(at: At, nth: usize) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // A socket of its own, which may vanish.
    let socket = endpoint((nth % 16) as u8);
    if nth.is_multiple_of(WAYS) {
        give_up_in_the_handshake(at, &socket);
        return Ok(());
    }
    let client = at.connect(&socket).await?;
    if nth % WAYS == 1 {
        // Without a request.
        client.close();
        return Ok(());
    }
    let filter = format!("churn.{}", nth % 50).parse().unwrap();
    let mut heard = client.subscribe(&filter).await?;
    for name in 0..3 {
        let name = format!("churn-{nth}.{name}").parse().unwrap();
        assert_eq!(client.advertise(&name, None).await?.status, 201);
    }
    let topic = format!("churn.{}", (nth + 1) % 50).parse().unwrap();
    assert_eq!(client.publish(&topic, "here").await?.status, 200);
    match nth % WAYS {
        2 => client.close(),
        3 => vanish(&socket),
        4 => {
            drop(heard);
            let name = format!("churn-{nth}.0").parse().unwrap();
            assert_eq!(client.withdraw(&name).await?.status, 204);
            client.connection().close(0x1234_u32.into(), b"an error");
        }
        5 => waiting(&client, async || client.close()).await,
        6 => waiting(&client, async || vanish(&socket)).await,
        _ => {
            // Its own message, if it hears it; a reset of the call and of the subscription, and the connection stays a while.
            let _ = tokio::time::timeout(Duration::from_millis(20), heard.next()).await;
            waiting(&client, async || {}).await;
            drop(heard);
            client.close();
        }
    }
    Ok(())
}

fn give_up_in_the_handshake(at: At, socket: &Endpoint) {
    let config = plimsoll_mesh::identity::client_config(at.id, Arc::default()).unwrap();
    drop(socket.connect_with(config, at.address, "node").unwrap());
}

/// Makes calls that nobody answers in time, and does `gone` while they are under way.
async fn waiting(client: &Client, gone: impl AsyncFnOnce()) {
    let mut calls = JoinSet::new();
    for _ in 0..3 {
        let client = client.clone();
        calls.spawn(async move { call(&client, "sleep", "25000").await });
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    gone().await;
    calls.shutdown().await;
}

/// Visits that were paid.
#[derive(Default)]
struct Visits {
    all: usize,
    /// Those that did not get so far as they wanted.
    cut_short: usize,
    /// By the way of being gone: those that did.
    whole: [usize; WAYS],
}

impl Visits {
    fn record(&mut self, (nth, whole): (usize, bool)) {
        self.cut_short += usize::from(!whole);
        self.whole[nth % WAYS] += usize::from(whole);
    }
}

/// Visits for `time`, so many at once.
async fn churn(node: &Node, time: Duration, at_once: usize) -> Visits {
    let (at, places, from) = (At::of(node), Arc::new(Semaphore::new(at_once)), Instant::now());
    let (mut visits, mut visiting) = (Visits::default(), JoinSet::new());
    // Each way once at least.
    while from.elapsed() < time || visits.all < 2 * WAYS {
        let place = places.clone().acquire_owned().await.unwrap();
        let nth = visits.all;
        visiting.spawn(async move {
            let visited = visit(at, nth).await;
            drop(place);
            (nth, visited.is_ok())
        });
        visits.all += 1;
        while let Some(visited) = visiting.try_join_next() {
            visits.record(visited.unwrap());
        }
    }
    visiting.join_all().await.into_iter().for_each(|visited| visits.record(visited));
    visits
}

/// Waits until nothing is held and no more tasks and descriptors than these are left, for as long as `patience`, and shows
/// what is.
async fn rest(node: &Node, patience: Duration, tasks: usize, open: usize) -> (NodeSnapshot, usize) {
    let end = Instant::now() + patience;
    loop {
        let snapshot = node.snapshot().await;
        let descriptors = node.process().descriptors().unwrap();
        let rests = sum(&snapshot) == 0 && snapshot.tasks <= tasks && descriptors <= open;
        if rests || Instant::now() > end {
            return (snapshot, descriptors);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn start(plan: Plan) -> Node {
    plan.flag("services", "echo,sleep").flag("gateway-idle", "2s").start()
}

/// M-13, M-14, M-19, M-22, M-23, R-20: whoever comes and is gone in whatever way leaves nothing: no entry in any table, no task, no
/// descriptor.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_are_gone_in_every_way_leave_nothing() {
    let (time, at_once) = if full() { (Duration::from_secs(60), 200) } else { (Duration::from_secs(3), 40) };
    let folder = folder();
    let node = start(Plan::new(&folder, "a"));
    // The first pay for what is started once.
    churn(&node, Duration::ZERO, WAYS).await;
    let (mut before, mut descriptors) = rest(&node, Duration::from_secs(40), usize::MAX, usize::MAX).await;
    assert_eq!(held(&before), []);
    // Tasks that have nothing left to do but to end.
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let (now, open) = rest(&node, Duration::ZERO, usize::MAX, usize::MAX).await;
        if now.tasks < before.tasks {
            (before, descriptors) = (now, open);
        }
    }
    let visits = churn(&node, time, at_once).await;
    // Where nobody got so far, nothing that is left says nothing.
    let each_way = visits.whole.iter().all(|whole| *whole > 0);
    let (after, descriptors_after) = rest(&node, Duration::from_secs(40), before.tasks, descriptors).await;
    let more = |after: usize, before: usize| after.cast_signed() - before.cast_signed();
    let (tasks, handles) = (more(after.tasks, before.tasks), more(descriptors_after, descriptors));

    let control = start(Plan::new(&folder, "b").without("coordinated-cleanup"));
    let some = churn(&control, Duration::ZERO, WAYS).await;
    let (left, _) = rest(&control, Duration::from_secs(4), usize::MAX, usize::MAX).await;
    record(
        "4 clients gone in every way",
        &[
            (
                format!(
                    "{} visits, {} cut short, {at_once} at a time: {} entries left {:?}",
                    visits.all,
                    visits.cut_short,
                    sum(&after),
                    held(&after)
                ),
                if full() { "0 entries, 0 cut short" } else { "0 entries, each way gone at least once" }.into(),
                sum(&after) == 0
                    && each_way
                    && (!full() || visits.cut_short == 0)
                    && held(&left).iter().any(|(name, _)| name.ends_with("/advertised_used")),
                Some(format!("without coordinated cleanup, of {} visits: {:?}", some.all, held(&left))),
            ),
            (format!("tasks left: {tasks:+}, descriptors {handles:+}"), "0".into(), tasks <= 0 && handles <= 0, None),
        ],
    );
}

//! More clients than a gateway takes, and those served while they come.

use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll_mesh::client::{Client, ConnectError};
use plimsoll_mesh::problem::Code;
use plimsoll_testkit::law;
use quinn::{ConnectionError, Endpoint};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clients::{At, endpoint, p99};
use crate::harness::{GATEWAY, Node, Plan, call, counter, folder, full, place};
use crate::left::record;

/// How an attempt ended by the client's own account.
enum Attempt {
    Served(Client),
    Told,
    TurnedAway,
    Failed(String),
}

async fn attempt(at: At, endpoint: &Endpoint) -> Attempt {
    let client = match at.connect(endpoint).await {
        Ok(client) => client,
        Err(ConnectError::Refused) => return Attempt::TurnedAway,
        Err(error) => return Attempt::Failed(format!("{error:?}")),
    };
    match call(&client, "echo", "in").await {
        Ok(answer) if answer.status == 200 => Attempt::Served(client),
        Ok(answer) if answer.problem().is_some_and(|problem| problem.code == Code::MaxClientsReached) => Attempt::Told,
        Ok(answer) => Attempt::Failed(format!("{answer:?}")),
        // The time at the desk was over before its answer: the reason of the close is one too.
        Err(error) => match client.connection().close_reason() {
            Some(ConnectionError::ApplicationClosed(close)) if close.reason == Code::MaxClientsReached.as_str() => {
                Attempt::Told
            }
            reason => Attempt::Failed(format!("{error:?}, {reason:?}")),
        },
    }
}

/// The clients' ledger.
#[derive(Default)]
struct Crowd {
    served: Vec<Client>,
    refused_with_reason: u64,
    refused_without_reason: u64,
    failed: Vec<String>,
}

impl Crowd {
    fn refused(&self) -> u64 {
        self.refused_with_reason + self.refused_without_reason
    }
}

/// So many clients from sixteen addresses, so many of them on their way at a time.
async fn come(node: &Node, clients: usize, at_once: usize) -> Crowd {
    let (at, doors) = (At::of(node), Arc::new(Semaphore::new(at_once)));
    let endpoints: Vec<_> = (0..16).map(endpoint).collect();
    let mut coming = JoinSet::new();
    for nth in 0..clients {
        let (endpoint, doors) = (endpoints[nth % endpoints.len()].clone(), doors.clone());
        coming.spawn(async move {
            let _on_its_way = doors.acquire().await.unwrap();
            attempt(at, &endpoint).await
        });
    }
    let mut crowd = Crowd::default();
    while let Some(attempt) = coming.join_next().await {
        match attempt.unwrap() {
            Attempt::Served(client) => crowd.served.push(client),
            Attempt::Told => crowd.refused_with_reason += 1,
            Attempt::TurnedAway => crowd.refused_without_reason += 1,
            Attempt::Failed(why) => crowd.failed.push(why),
        }
    }
    crowd
}

fn sizes() -> (usize, usize) {
    if full() { (10_000, 11_000) } else { (1_000, 1_100) }
}

fn gateway(folder: &tempfile::TempDir, cap: usize) -> Plan {
    Plan::new(folder, "a")
        .flag("services", "echo")
        .flag("gateway-max-clients", cap)
        .flag("gateway-max-per-prefix", cap)
        .flag("gateway-idle", "10min")
}

/// M-6, M-7, M-23: a tenth more clients than the cap: exactly as many are served as it says, the others refused, by both
/// ledgers, and nobody's handshake fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_clients_than_the_cap_are_refused_exactly_on_both_ledgers() {
    let ((cap, clients), at_once) = (sizes(), if full() { 200 } else { 50 });
    let folder = folder();
    let node = gateway(&folder, cap).start();
    let from = Instant::now();
    let crowd = come(&node, clients, at_once).await;
    let took = from.elapsed();
    let resident = node.process().resident().unwrap() >> 20;
    let refused = |theirs: &dyn Fn(&str) -> u64| theirs("refused_with_reason") + theirs("refused_without_reason");
    let snapshot = node.until("the desk is done", |now| counter(now, &GATEWAY, "pending") == 0).await;
    let ours = |name: &str| counter(&snapshot, &GATEWAY, name);
    law::ADMISSION.assert(&place(&snapshot, &GATEWAY).unwrap().details.counters);
    let (served, over) = (crowd.served.len(), (clients - cap) as u64);
    let most = if full() { "at most 600 MiB" } else { "no claim in short form" };
    record(
        "2 more clients than the cap",
        &[
            (
                format!(
                    "clients: {served} served, {} told, {} turned away, {} failed, in {:.1} s",
                    crowd.refused_with_reason,
                    crowd.refused_without_reason,
                    crowd.failed.len(),
                    took.as_secs_f64()
                ),
                format!("{cap} served, {over} refused, none failed"),
                served == cap && crowd.refused() == over && crowd.failed.is_empty(),
                None,
            ),
            (
                format!(
                    "node: {} served, {} refused, {} failed handshakes",
                    ours("served"),
                    refused(&ours),
                    ours("failed_handshakes")
                ),
                "the same".into(),
                ours("served") == cap as u64 && refused(&ours) == over && ours("failed_handshakes") == 0,
                None,
            ),
            (
                format!("server's memory with {cap} clients: {resident} MiB"),
                most.into(),
                !full() || resident <= 600,
                None,
            ),
        ],
    );
}

/// The times of the calls of twenty clients, until there are enough.
async fn call_on(at: At, enough: CancellationToken) -> Vec<Duration> {
    let (socket, mut calling) = (endpoint(20), JoinSet::new());
    for _ in 0..20 {
        let (client, enough) = (at.connect(&socket).await.unwrap(), enough.clone());
        calling.spawn(async move {
            let mut times = Vec::new();
            while !enough.is_cancelled() {
                let from = Instant::now();
                assert_eq!(call(&client, "echo", "on").await.unwrap().status, 200);
                times.push(from.elapsed());
                // As people do who wait for something: so many calls that all are busy would measure the machine.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            times
        });
    }
    calling.join_all().await.concat()
}

/// M-6, M-8: who is served already is served on while a crowd comes; in full size, and only there is the time judged, as many
/// again are turned away as may come in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_at_the_door_does_not_hold_up_those_inside() {
    let (cap, clients) = sizes();
    let folder = folder();
    let node = gateway(&folder, cap).start();
    let enough = CancellationToken::new();
    // A thread of their own: how long the crowd's own work keeps this program's threads busy is no business of the node's.
    let inside = std::thread::spawn({
        let (at, enough) = (At::of(&node), enough.clone());
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(call_on(at, enough))
        }
    });
    node.until("they are inside", |now| counter(now, &GATEWAY, "served") == 20).await;
    let clients = if full() { 2 * cap } else { clients };
    let crowd = come(&node, clients - 20, if full() { 64 } else { 32 }).await;
    enough.cancel();
    let times = inside.join().unwrap();
    let (calls, p99) = (times.len(), p99(times));
    let served = crowd.served.len() + 20;
    record(
        "2 those inside while a crowd comes",
        &[(
            format!("{served} served, {} refused; p99 of {calls} calls of 20 inside {p99:.1} ms", crowd.refused()),
            format!("{cap} served, {}", if full() { "at most 20 ms" } else { "no claim about p99 in short form" }),
            served == cap && crowd.failed.is_empty() && (!full() || p99 <= 20.0),
            None,
        )],
    );
}

//! Clients that are gone without a word in mid-call, and what is left of them: nothing.

use std::time::Duration;

use plimsoll_mesh::client::{self, Client};
use plimsoll_mesh::node::NodeSnapshot;
use plimsoll_testkit::law;
use tokio::task::JoinSet;

use crate::harness::{GATEWAY, Node, Plan, call, counter, folder, full, place, record, vanish};

const MIB: u64 = 1 << 20;

/// One client: `calls` calls, and if it vanishes, two that nobody will read.
async fn live(node: std::net::SocketAddr, id: plimsoll_mesh::names::NodeId, calls: usize, vanishes: bool) -> usize {
    let endpoint = client::endpoint(node).unwrap();
    let client = Client::connect(&endpoint, node, id).await.unwrap();
    let mut answered = 0;
    for nth in 0..calls {
        let (service, body) = match nth % 4 {
            0 => ("hash", "one node further"),
            1 => ("sleep", "5"),
            _ => ("echo", "here"),
        };
        let answer = call(&client, service, body).await.unwrap();
        assert_eq!(answer.status, 200, "{:?}", answer.problem());
        answered += 1;
    }
    if vanishes {
        let mut lost = JoinSet::new();
        for service in ["sleep", "nap"] {
            let client = client.clone();
            lost.spawn(async move { call(&client, service, "25000").await });
        }
        // The calls are on their way when the socket goes.
        tokio::time::sleep(Duration::from_millis(200)).await;
        vanish(&endpoint);
        lost.abort_all();
    } else {
        client.close();
        endpoint.wait_idle().await;
    }
    answered
}

/// So many clients with ten calls each, 50 clients at a time, every hundredth of them vanishing.
async fn wave(node: &Node, clients: usize) -> usize {
    let (address, id) = (node.address, node.id);
    let mut answered = 0;
    let mut running = JoinSet::new();
    for nth in 0..clients {
        running.spawn(live(address, id, 10, nth % 100 == 50));
        if running.len() >= 50 {
            answered += running.join_next().await.unwrap().unwrap();
        }
    }
    while let Some(one) = running.join_next().await {
        answered += one.unwrap();
    }
    answered
}

/// What there must be none of when nobody is there.
fn left(snapshot: &NodeSnapshot) -> u64 {
    let services = place(snapshot, &["services"]).map(|place| &place.details.children[..]).unwrap_or(&[]);
    let served = services.iter().flat_map(|service| {
        ["in_flight", "workers", "timers", "permits_used"]
            .map(|name| service.details.counters.get(name).copied().unwrap_or(0))
    });
    let gateway = ["clients", "requests_in_flight", "responding", "body_bytes_held", "response_bytes_held"];
    served.sum::<u64>() + gateway.map(|name| counter(snapshot, &GATEWAY, name)).iter().sum::<u64>()
}

/// M-13, M-15, R-20, R-25: calls of clients of which one in a hundred vanishes leave nothing: by the node's own books,
/// and by its descriptors and memory.
#[tokio::test(flavor = "multi_thread")]
async fn ten_calls_of_each_client_and_one_client_in_a_hundred_vanishing_leave_nothing() {
    let folder = folder();
    let clients = if full() { 1_000 } else { 100 };
    let a = Plan::new(&folder, "a").flag("services", "echo,sleep").flag("gateway-idle", "2s").start();
    let b = Plan::new(&folder, "b").flag("services", "hash").meets(&a).start();
    a.until_provided("hash", 1).await;
    // The first wave pays for what is allocated once.
    wave(&a, clients).await;
    a.until("nothing is left of the first wave", |now| left(now) == 0).await;
    let (descriptors, memory) = (a.process().descriptors().unwrap(), a.process().resident().unwrap());

    let answered = wave(&a, clients).await;
    let snapshot = a.until("nothing is left", |now| left(now) == 0).await;
    for service in &place(&snapshot, &["services"]).unwrap().details.children {
        law::CALLS.assert(&service.details.counters);
    }
    law::ADMISSION.assert(&place(&snapshot, &GATEWAY).unwrap().details.counters);
    let other = b.until("nothing is left one node further", |now| left(now) == 0).await;
    assert_eq!(left(&other), 0);
    let more = a.process().resident().unwrap().cast_signed() - memory.cast_signed();
    // The connection that asked for the snapshot may still be closing.
    let settled = tokio::time::Instant::now() + Duration::from_secs(5);
    let more_descriptors = || a.process().descriptors().unwrap().cast_signed() - descriptors.cast_signed();
    while more_descriptors() > 0 && tokio::time::Instant::now() < settled {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let descriptors_more = more_descriptors();
    // What a few calls leave in the allocator differs from machine to machine.
    let most = if full() { 4 } else { 16 };
    record(
        "vanishing-clients",
        &[
            (
                format!("{answered} calls answered of {} clients, {} vanished", clients, clients / 100),
                "all that were awaited",
                answered == 10 * clients,
                None,
            ),
            (
                format!("left by the snapshot: {}", left(&snapshot)),
                "0 workers, slots, timers, permits, clients, requests",
                true,
                None,
            ),
            (format!("descriptors: {descriptors_more:+}"), "0", descriptors_more <= 0, None),
            (
                format!("memory: {:+.1} MiB", more as f64 / MIB as f64),
                &format!("at most {most} MiB"),
                more <= most * MIB.cast_signed(),
                None,
            ),
        ],
    );
}

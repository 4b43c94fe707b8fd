//! Providers that are killed in mid-call, and nodes that come back on their port.

use std::time::{Duration, Instant};

use plimsoll_mesh::events::EventKind;
use plimsoll_mesh::problem::Code;
use plimsoll_testkit::process::until;

use crate::harness::{GATEWAY, Node, PATIENCE, Plan, call, counter, folder, full, record};

const SLEEP: [&str; 2] = ["services", "sleep"];

/// A gateway without the service, and two providers of it.
async fn gateway_and_two(folder: &tempfile::TempDir) -> (Node, Vec<(Plan, Node)>) {
    let gateway = Plan::new(folder, "g").flag("services", "echo").start();
    let provider = |name| {
        let plan = Plan::new(folder, name).flag("services", "sleep").meets(&gateway);
        let node = plan.start();
        (plan.flag("listen", node.address), node)
    };
    let providers = vec![provider("p"), provider("q")];
    gateway.until_provided("sleep", 2).await;
    (gateway, providers)
}

/// Which of the providers has a call in flight.
async fn busy(providers: &[(Plan, Node)]) -> usize {
    until("a provider serves the call", PATIENCE, async || {
        for (index, (_, node)) in providers.iter().enumerate() {
            if counter(&node.snapshot().await, &SLEEP, "in_flight") > 0 {
                return Some(index);
            }
        }
        None
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_caller_of_a_killed_provider_reads_502_within_two_seconds_and_the_next_call_goes_elsewhere() {
    let folder = folder();
    let rounds = if full() { 20 } else { 3 };
    let (gateway, mut providers) = gateway_and_two(&folder).await;
    let client = gateway.client().await;
    let mut worst = Duration::ZERO;
    for _ in 0..rounds {
        gateway.until_provided("sleep", 2).await;
        let waiting = tokio::spawn({
            let client = client.clone();
            async move { call(&client, "sleep", "25000").await }
        });
        let index = busy(&providers).await;
        let (plan, victim) = providers.remove(index);
        let killed = Instant::now();
        victim.kill();
        let answer = waiting.await.unwrap().unwrap();
        worst = worst.max(killed.elapsed());
        assert_eq!(answer.problem().map(|problem| problem.code), Some(Code::ProviderDied), "{answer:?}");
        assert_eq!(answer.status, 502);
        let next = call(&client, "sleep", "1").await.unwrap();
        assert_eq!(next.status, 200, "{:?}", next.problem());
        let node = plan.start();
        providers.push((plan, node));
    }
    // Who came and went is what the node still tells when it is asked.
    let events = gateway.snapshot().await.events;
    let noted = |what| events.iter().filter(|event| event.kind == what && event.peer.is_some()).count();
    assert!(noted(EventKind::PeerDown) >= rounds && noted(EventKind::PeerUp) > rounds, "{events:?}");
    // A busy machine tells nothing about the time; the call's own deadline is far away all the same.
    let limit = Duration::from_secs(if full() { 2 } else { 8 });
    let figure = format!("{rounds} kills, slowest 502 after {} ms", worst.as_millis());
    record(
        "provider-killed-in-mid-call",
        &[(figure, &format!("{} ms, next call answered", limit.as_millis()), worst <= limit, None)],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_comes_back_on_its_port_also_while_its_peers_gateway_is_full() {
    let folder = folder();
    let a = Plan::new(&folder, "a")
        .flag("services", "echo")
        .flag("gateway-max-clients", 4)
        .flag("gateway-max-per-prefix", 4)
        .start();
    let plan = Plan::new(&folder, "b").flag("services", "hash").meets(&a);
    let mut b = plan.start();
    let plan = plan.flag("listen", b.address);
    a.until_provided("hash", 1).await;

    let mut clients = Vec::new();
    let mut rows = Vec::new();
    for (held, words) in [(1, "with room at its peer"), (4, "with its peer's gateway full")] {
        while clients.len() < held {
            let client = a.client().await;
            assert_eq!(call(&client, "echo", "in").await.unwrap().status, 200);
            clients.push(client);
        }
        let before = a.snapshot().await;
        b.kill();
        let began = Instant::now();
        b = plan.start();
        let answered = until("the node that came back answers", PATIENCE, async || {
            let answer = call(&clients[0], "hash", "abc").await.unwrap();
            (answer.status == 200).then_some(began.elapsed())
        })
        .await;
        let after = a.snapshot().await;
        let told = counter(&after, &GATEWAY, "refused_with_reason") - counter(&before, &GATEWAY, "refused_with_reason");
        let peers = counter(&after, &GATEWAY, "peers") + counter(&after, &["peers"], "dialled");
        let limit = Duration::from_secs(if full() { 3 } else { 10 });
        rows.push((
            format!("{words}: called again {} ms after its start", answered.as_millis()),
            if full() {
                "3000 ms, no peer told it is a client too many"
            } else {
                "no peer told it is a client too many"
            },
            answered <= limit && told == 0 && peers > 0,
            None,
        ));
        assert_eq!(counter(&after, &GATEWAY, "clients"), held as u64);
    }
    record("killed-and-back-on-its-port", &rows);
}

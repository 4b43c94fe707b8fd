//! A node in this very process: what a load leaves behind, counted actor by actor and task by task.

use std::time::Duration;

use plimsoll::call::{CallContext, Service};
use plimsoll::inspect::TreeNode;
use plimsoll_mesh::client::{self, Client};
use plimsoll_mesh::node::{Node, NodeConfig, Offer, Trusted};
use plimsoll_mesh::service::{ApplicationError, Request, Response};
use plimsoll_testkit::census::{Census, Kinds};
use plimsoll_testkit::gate::Gate;
use plimsoll_testkit::law;
use plimsoll_testkit::process::until;
use tokio::task::JoinSet;

use crate::harness::{PATIENCE, call, folder, full, record, vanish};

/// Answers at once, or with the body `wait` when the gate opens, which it never does here.
struct Gated(Gate);

impl Service for Gated {
    type Request = Request;
    type Reply = Response;
    type Error = ApplicationError;

    async fn call(&self, _: CallContext, request: Request) -> Result<Response, ApplicationError> {
        if request.body == "wait" {
            self.0.pass().await;
        }
        Ok(Response { content_type: "text/plain".into(), body: request.body })
    }
}

/// Every actor that the tree shows, by its id there.
fn kinds(kinds: Kinds, node: &TreeNode) -> Kinds {
    let named = match &node.actor {
        Some(actor) => kinds.actor(actor, &node.id),
        None => kinds,
    };
    node.details.children.iter().fold(named, self::kinds)
}

/// M-15, R-20, R-27: of clients that leave, properly or without a word, with calls under way, no worker, no slot and no
/// task is left.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_leave_in_mid_call_leave_no_actor_and_no_task() {
    let folder = folder();
    let gate = Gate::closed();
    let mut config = NodeConfig::new(folder.path().join("a"), "127.0.0.1:0".parse().unwrap());
    config.trusted = Trusted::Open;
    config.gateway.idle_timeout = Duration::from_secs(1);
    config.gateway.longest_deadline = Duration::from_secs(60);
    let node =
        Node::builder(config).service(Offer::new("gated".parse().unwrap(), Gated(gate.clone()))).start().await.unwrap();
    let tree = node.view().snapshot().runtime.tree;
    let kinds = kinds(Kinds::default(), &tree);
    let census = || kinds.census(&node.tree().actor());

    // A first client pays for what is started once.
    leave(&node, 0, 5, true).await;
    let before = settled(&census, None).await;

    let clients = if full() { 200 } else { 20 };
    let mut leaving = JoinSet::new();
    for nth in 0..clients {
        let (address, id) = (node.address(), node.id());
        leaving.spawn(async move { leave_from(address, id, 4, 5, nth % 2 == 0).await });
    }
    gate.until_waiting(clients * 4).await;
    let busy = census().since(&before).to_string();
    while let Some(left) = leaving.join_next().await {
        left.unwrap();
    }
    until("every call is given up", PATIENCE, async || (gate.waiting() == 0).then_some(())).await;
    let after = settled(&census, Some(&before)).await;
    let difference = after.since(&before);
    let snapshot = node.view().snapshot();
    let gated = crate::harness::place(&snapshot, &["services", "gated"]).unwrap();
    law::CALLS.assert(&gated.details.counters);
    record(
        "census",
        &[(
            format!("{clients} clients with 4 calls under way each: {busy}; after they left: {difference}"),
            "nothing more than before",
            difference.nothing_more() && busy.contains("under gated"),
            None,
        )],
    );
    node.stop().await.unwrap();
}

/// A client of `node` with `waiting` calls that wait and `answered` ones.
async fn leave(node: &Node, waiting: usize, answered: usize, properly: bool) {
    leave_from(node.address(), node.id(), waiting, answered, properly).await;
}

async fn leave_from(
    address: std::net::SocketAddr,
    id: plimsoll_mesh::names::NodeId,
    waiting: usize,
    answered: usize,
    properly: bool,
) {
    let endpoint = client::endpoint(address).unwrap();
    let client = Client::connect(&endpoint, address, id).await.unwrap();
    for _ in 0..answered {
        assert_eq!(call(&client, "gated", "at once").await.unwrap().status, 200);
    }
    let mut under_way = JoinSet::new();
    for _ in 0..waiting {
        let client = client.clone();
        under_way.spawn(async move { call(&client, "gated", "wait").await });
    }
    // Long enough for the calls to be on their way; the test waits for all of them to have a worker.
    tokio::time::sleep(Duration::from_millis(500)).await;
    if properly {
        client.close();
        endpoint.wait_idle().await;
    } else {
        vanish(&endpoint);
    }
    under_way.shutdown().await;
}

/// The census when it has come to rest: below `wanted` if that is given, else the same twice in a row.
async fn settled(census: &impl Fn() -> Census, wanted: Option<&Census>) -> Census {
    let mut last = census();
    until("the census comes to rest", PATIENCE, async || {
        let now = census();
        let rests = wanted.map_or(now == last, |wanted| now.since(wanted).nothing_more());
        last = now.clone();
        rests.then_some(now)
    })
    .await
}

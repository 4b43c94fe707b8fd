//! Every request but a call ends in a worker of the gateway: an actor below its tree, with admission, deadline, panic
//! isolation and counters.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use plimsoll::inspect::TreeNode;
use plimsoll::supervisor::ChildState;
use plimsoll_mesh::gateway::Limits;
use plimsoll_mesh::problem::Code;

use crate::support::{Answer, Client, Server, Stream, eventually};

async fn request(client: &Client, method: Method, path: &str) -> Answer {
    let request = Request::builder().method(method).uri(format!("https://node{path}")).body(Bytes::new()).unwrap();
    client.request(request).await.unwrap()
}

async fn subscribe(client: &Client) -> Stream {
    let request = Request::get("https://node/v1/subscribe/a").body(()).unwrap();
    let mut stream = client.open(request).await.unwrap();
    stream.finish().await.unwrap();
    assert_eq!(stream.recv_response().await.unwrap().status(), 200);
    stream
}

/// A counter of a child of the gateway, from the snapshot.
fn counter(server: &Server, child: &str, name: &str) -> u64 {
    let tree: TreeNode = server.tree.inspect();
    let child = tree.details.children.iter().find(|node| node.id == child).expect("the child");
    child.details.counters.get(name).copied().unwrap_or(0)
}

#[tokio::test]
async fn every_kind_of_request_has_a_worker() {
    let server = Server::start(Limits::default()).await;
    let client = server.client().await;
    for (method, path, kind) in [
        (Method::GET, "/v1/services", "list_services"),
        (Method::GET, "/v1/nodes", "list_nodes"),
        (Method::POST, "/v1/publish/a", "publish"),
        (Method::PUT, "/v1/services/resize", "advertise"),
        (Method::DELETE, "/v1/services/resize", "withdraw"),
    ] {
        assert!(request(&client, method, path).await.status.is_success(), "{path}");
        assert_eq!(counter(&server, "workers", &format!("method_{kind}_runs")), 1, "{kind}");
    }
    assert_eq!(counter(&server, "workers", "started"), 5);
    let streams = [subscribe(&client).await, subscribe(&client).await];
    assert_eq!(counter(&server, "subscriptions", "workers_subscribe"), 2, "by kind and number");
    drop(streams);
    eventually("their workers end with them", || counter(&server, "subscriptions", "in_flight") == 0).await;
    assert_eq!(counter(&server, "subscriptions", "workers_subscribe"), 0);
    server.stop().await;
}

/// A panic in a worker is a problem for its client, and for nobody else.
#[tokio::test]
async fn a_panic_in_a_worker_is_a_problem_of_its_request() {
    let server = Server::start(Limits::default()).await;
    let client = server.client().await;
    server.stand.panics.store(1, SeqCst);
    let problem = request(&client, Method::GET, "/v1/nodes").await.problem();
    assert_eq!(problem.code, Code::WorkerPanicked);
    assert_eq!(request(&client, Method::GET, "/v1/services").await.status, 200);
    server.stand.panics.store(0, SeqCst);
    assert_eq!(request(&client, Method::GET, "/v1/nodes").await.status, 200);
    assert_eq!(counter(&server, "workers", "worker_failures"), 1);
    server.stop().await;
}

/// The owner of the topics is a child: killed, it is restarted without filters, and all that depends on it with it.
#[tokio::test]
async fn the_owner_of_the_topics_is_supervised() {
    let server = Server::start(Limits::default()).await;
    let client = server.client().await;
    let _stream = subscribe(&client).await;
    assert_eq!(server.gateway.pubsub().subscribers(), 1);
    let children = server.tree.which_children().unwrap();
    let topics = children.iter().find(|child| child.id.as_deref() == Some("topics")).expect("the topics");
    let ChildState::Running(actor) = &topics.state else { panic!("{topics:?}") };
    actor.kill();
    client.quic.closed().await;
    eventually("it is restarted", || {
        server.tree.inspect().details.children.iter().any(|child| child.id == "topics" && child.restarts == 1)
    })
    .await;
    let again = server.client().await;
    assert_eq!((server.gateway.pubsub().subscribers(), server.gateway.pubsub().filters()), (0, 0));
    let _stream = subscribe(&again).await;
    let published = request(&again, Method::POST, "/v1/publish/a").await;
    assert!(String::from_utf8_lossy(&published.body).contains("\"reached\":1"));
    server.stop().await;
}

/// At the cap of workers a request is refused with the reason, and the cap is not passed.
#[tokio::test]
async fn workers_have_a_cap() {
    let server = Server::start(Limits { workers: 1, ..Limits::default() }).await;
    server.stand.listed.store(10_000, SeqCst);
    let clients = [server.client().await, server.client().await];
    let refused = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            server.stand.version.fetch_add(1, SeqCst);
            let [one, two] = &clients;
            let (one, two) =
                tokio::join!(request(one, Method::GET, "/v1/services"), request(two, Method::GET, "/v1/services"),);
            if let Some(refused) = [one, two].into_iter().find(|answer| answer.status != 200) {
                return refused;
            }
        }
    })
    .await
    .expect("two at once are one too many");
    assert_eq!(refused.problem().code, Code::Overloaded);
    server.stop().await;
}

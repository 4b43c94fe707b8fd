//! What clients advertise, over real QUIC: leases by connection, with an end.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use plimsoll::bounded::{Cap, Rate};
use plimsoll::inspect::TreeNode;
use plimsoll::supervisor::ChildState;
use plimsoll_mesh::gateway::{AdvertisementLimits, Limits};
use plimsoll_mesh::problem::Code;

use crate::support::{Answer, Client, Server, eventually};

fn to(method: &str, name: &str, ttl_ms: Option<u64>) -> Request<Bytes> {
    let request = Request::builder().method(method).uri(format!("https://node/v1/services/{name}"));
    let request = match ttl_ms {
        Some(ttl) => request.header("plimsoll-ttl-ms", ttl),
        None => request,
    };
    request.body(Bytes::new()).unwrap()
}

async fn put(client: &Client, name: &str, ttl_ms: Option<u64>) -> Answer {
    client.request(to("PUT", name, ttl_ms)).await.unwrap()
}

async fn delete(client: &Client, name: &str) -> Answer {
    client.request(to("DELETE", name, None)).await.unwrap()
}

/// Names listed as not callable: those that are only advertised.
async fn advertised(client: &Client) -> Vec<String> {
    let request = Request::get("https://node/v1/services").body(Bytes::new()).unwrap();
    let answer = client.request(request).await.unwrap();
    let listing: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let services = listing["services"].as_array().unwrap().iter();
    let only = services.filter(|service| service["callable"] == false);
    only.map(|service| service["name"].as_str().unwrap().to_owned()).collect()
}

/// A counter of the sessions, from the snapshot.
fn counter(server: &Server, name: &str) -> u64 {
    let tree: TreeNode = server.tree.inspect();
    let sessions = tree.details.children.iter().find(|child| child.id == "sessions").expect("the sessions");
    sessions.details.counters[name]
}

/// M-10: an advertisement is new, refreshed, withdrawn by its own client only, and listed as not callable meanwhile.
#[tokio::test]
async fn an_advertisement_is_made_refreshed_and_withdrawn() {
    let server = Server::start(Limits::default()).await;
    let (owner, other) = (server.client().await, server.client().await);
    assert_eq!(put(&owner, "resize", None).await.status, 201);
    assert_eq!(put(&owner, "resize", None).await.status, 204);
    assert_eq!(put(&other, "resize", None).await.status, 201, "each client has a lease of its own");
    assert_eq!(put(&other, "echo", None).await.status, 201);
    assert_eq!(advertised(&owner).await, ["resize"], "one that is provided is listed as such");
    assert_eq!(owner.call("resize", "").await.unwrap().problem().code, Code::NoProvider);
    assert_eq!(delete(&owner, "resize").await.status, 204);
    assert_eq!(delete(&owner, "resize").await.problem().code, Code::NoProvider);
    assert_eq!(advertised(&owner).await, ["resize"], "the other's is still there");
    assert_eq!(delete(&other, "resize").await.status, 204);
    assert_eq!(advertised(&owner).await, [""; 0]);
    server.stop().await;
}

/// M-10, M-13, M-19: a client that vanishes takes its advertisements with it at once, and the counters of the snapshot agree.
#[tokio::test]
async fn a_client_that_is_gone_advertises_nothing() {
    let server = Server::start(Limits::default()).await;
    let (stays, leaves) = (server.client().await, server.client().await);
    for n in 0..50 {
        assert_eq!(put(&leaves, &format!("service-{n}"), None).await.status, 201);
    }
    assert_eq!(put(&stays, "service-7", None).await.status, 201);
    assert_eq!((counter(&server, "sessions_used"), counter(&server, "advertised_used")), (2, 51));
    leaves.quic.close(0_u8.into(), b"");
    eventually("its advertisements are gone", || counter(&server, "advertised_used") == 1).await;
    assert_eq!(counter(&server, "sessions_used"), 1);
    assert_eq!(counter(&server, "sessions_advertisements_used"), 1);
    assert_eq!(counter(&server, "advertised_owner_removed"), 50);
    assert_eq!(advertised(&stays).await, ["service-7"]);
    server.stop().await;
}

/// M-9, M-11: an advertisement that is not refreshed is not listed after its lease and freed a tick later; one that is stays.
#[tokio::test]
async fn an_advertisement_ends_with_its_lease() {
    let server = Server::start(Limits::default()).await;
    let client = server.client().await;
    let (ttl, start) = (Duration::from_secs(3), std::time::Instant::now());
    assert_eq!(put(&client, "brief", Some(3_000)).await.status, 201);
    assert_eq!(put(&client, "renewed", Some(3_000)).await.status, 201);
    assert_eq!(put(&client, "long", Some(400_000)).await.status, 201, "longer than the longest is taken for that");
    while start.elapsed() < ttl * 3 / 4 {
        assert_eq!(put(&client, "renewed", Some(3_000)).await.status, 204);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Freed by the sweep and not by anybody's asking.
    eventually("the one not refreshed is freed", || counter(&server, "advertised_expired") == 1).await;
    assert!(start.elapsed() >= ttl, "not before its time: {:?}", start.elapsed());
    assert_eq!(advertised(&client).await, ["long", "renewed"]);
    eventually("so is the other in the end", || counter(&server, "advertised_expired") == 2).await;
    assert_eq!(counter(&server, "sessions_advertisements_used"), 1);
    server.stop().await;
}

/// M-7, F-9: a client has a cap and a rate of its own, all have one together; each refusal has its word and is counted.
#[tokio::test]
async fn advertisements_are_capped() {
    let rate = Rate { per_second: Cap::of::<1>(), burst: Cap::of::<5>() };
    let advertisements =
        AdvertisementLimits { total: Cap::of::<4>(), per_client: Cap::of::<3>(), rate, ..Default::default() };
    let server = Server::start(Limits { advertisements, ..Limits::default() }).await;
    let (one, two) = (server.client().await, server.client().await);
    for name in ["a", "b", "c"] {
        assert_eq!(put(&one, name, None).await.status, 201);
    }
    let too_many = put(&one, "d", None).await;
    assert_eq!(too_many.problem().code, Code::RateLimited);
    assert!(too_many.header("retry-after").is_some());
    assert_eq!(put(&two, "a", None).await.status, 201);
    assert_eq!(put(&two, "b", None).await.problem().code, Code::Overloaded);
    for _ in 0..2 {
        assert_eq!(put(&one, "a", None).await.status, 204);
    }
    let too_fast = put(&one, "a", None).await;
    assert_eq!(too_fast.problem().code, Code::RateLimited);
    assert_eq!(too_fast.header("retry-after"), Some("1"));
    assert_eq!(counter(&server, "advertised_refused_rate"), 1);
    assert_eq!(counter(&server, "sessions_advertisements_refused_client_full"), 1);
    assert_eq!(counter(&server, "sessions_advertisements_refused_full"), 1);
    server.stop().await;
}

/// M-12: the sweeper is a supervised child: killed, it is restarted with an empty table, and so is all that depends on it.
#[tokio::test]
async fn the_sweeper_is_supervised() {
    let server = Server::start(Limits::default()).await;
    let client = server.client().await;
    assert_eq!(put(&client, "resize", None).await.status, 201);
    let children = server.tree.which_children().unwrap();
    let sessions = children.iter().find(|child| child.id.as_deref() == Some("sessions")).expect("the sessions");
    let ChildState::Running(actor) = &sessions.state else { panic!("{sessions:?}") };
    actor.kill();
    eventually("it is restarted", || {
        server.tree.inspect().details.children.iter().any(|child| child.id == "sessions" && child.restarts == 1)
    })
    .await;
    client.quic.closed().await;
    let again = server.client().await;
    assert_eq!(advertised(&again).await, [""; 0]);
    assert_eq!(put(&again, "resize", None).await.status, 201);
    server.stop().await;
}

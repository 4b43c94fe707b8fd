//! The client of the library: it keeps its own time, whatever the node does.

use std::time::{Duration, Instant};

use plimsoll_mesh::client::{Call, Client, ConnectError, RequestError, Timeouts, endpoint};
use plimsoll_mesh::gateway::Limits;

use crate::support::{Relay, Server};

const SOON: Duration = Duration::from_millis(300);

fn brief() -> Timeouts {
    Timeouts { request: SOON, call: SOON, margin: Duration::from_millis(100), idle: SOON }
}

/// A client of a node that then freezes: no packet of it comes any more, and the connection is not closed.
async fn of_a_frozen_node(server: &Server) -> (Relay, Client) {
    let relay = Relay::start(server.address).await;
    let client = Client::connect(&endpoint(relay.address).unwrap(), relay.address, server.node).await.unwrap();
    let client = client.timeouts(brief());
    assert_eq!(client.call(Call::new("echo".parse().unwrap(), "first")).await.unwrap().status, 200);
    (relay, client)
}

#[track_caller]
fn assert_timeout<T: std::fmt::Debug>(result: Result<T, RequestError>, began: Instant, limit: Duration) {
    assert!(matches!(result, Err(RequestError::Timeout(after)) if after == limit), "{result:?}");
    assert!(began.elapsed() >= limit && began.elapsed() < limit + Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn every_method_of_a_client_ends_in_time_when_the_node_freezes() {
    let server = Server::start(Limits::default()).await;
    let (relay, client) = of_a_frozen_node(&server).await;
    let name = "resize".parse().unwrap();
    let mut subscription = client.subscribe(&"a".parse().unwrap()).await.unwrap();
    relay.cut();
    let began = Instant::now();
    let call = Call::new("echo".parse().unwrap(), "late");
    assert_timeout(client.call(call.clone()).await, began, SOON);
    let began = Instant::now();
    let deadline = Duration::from_millis(500);
    assert_timeout(client.call(call.deadline(deadline)).await, began, deadline + Duration::from_millis(100));
    let began = Instant::now();
    assert_timeout(client.get("/v1/services").await, began, SOON);
    let began = Instant::now();
    assert_timeout(client.advertise(&name, None).await, began, SOON);
    let began = Instant::now();
    assert_timeout(client.withdraw(&name).await, began, SOON);
    let began = Instant::now();
    assert_timeout(client.publish(&"a".parse().unwrap(), "late").await, began, SOON);
    let began = Instant::now();
    assert_timeout(client.subscribe(&"a".parse().unwrap()).await, began, SOON);
    let began = Instant::now();
    assert_timeout(subscription.next().await, began, SOON);
    drop(server.tree.stop().await.unwrap());
}

/// A subscription that is quiet is not frozen: heartbeats come.
#[tokio::test]
async fn heartbeats_keep_a_subscription_alive() {
    let server = Server::start(Limits { heartbeat: SOON / 4, ..Limits::default() }).await;
    let client = Client::connect(&endpoint(server.address).unwrap(), server.address, server.node).await.unwrap();
    let client = client.timeouts(brief());
    let mut subscription = client.subscribe(&"a".parse().unwrap()).await.unwrap();
    let began = Instant::now();
    while began.elapsed() < 3 * SOON {
        assert_eq!(subscription.next().await.unwrap().unwrap(), &b": heartbeat"[..]);
    }
    drop(subscription);
    server.stop().await;
}

/// A node that accepts the connection and then says nothing does not hold the setup of HTTP/3.
#[tokio::test]
async fn connecting_to_a_socket_that_is_silent_ends_in_time() {
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let server = Server::start(Limits::default()).await;
    let began = Instant::now();
    let refused = Client::connect(&endpoint(address).unwrap(), address, server.node).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Timeout { .. }), "{refused:?}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    server.stop().await;
}

/// Issue 10, 4.5: all addresses of a name are tried; one that does not respond delays the next one by a moment only.
#[tokio::test]
async fn every_address_of_a_node_is_tried() {
    let server = Server::start(Limits::default()).await;
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = (silent.local_addr().unwrap(), silent);
    let began = Instant::now();
    let (client, endpoint) = Client::connect_any(&[silent.0, server.address], server.node).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(250) && began.elapsed() < Duration::from_secs(4));
    assert_eq!(client.call(Call::new("echo".parse().unwrap(), "here")).await.unwrap().status, 200);
    client.close();
    endpoint.wait_idle().await;

    let other = Server::start(Limits::default()).await;
    let error = Client::connect_any(&[silent.0, other.address, silent.0], server.node).await.unwrap_err();
    assert!(matches!(error, ConnectError::WrongNode { found, .. } if found == other.node), "{error:?}");
    assert!(matches!(Client::connect_any(&[], server.node).await, Err(ConnectError::NoAddress)));
    other.stop().await;
    server.stop().await;
}

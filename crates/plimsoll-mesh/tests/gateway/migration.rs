//! Clients whose address changes.

use std::time::Duration;

use plimsoll::inspect::Inspect as _;
use plimsoll_mesh::gateway::Limits;

use crate::support::{Client, Relay, Server, closed, eventually};

async fn behind_a_nat(server: &Server) -> (Relay, Client) {
    let relay = Relay::start(server.address).await;
    let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    let quic = endpoint.connect_with(server.client_config(), relay.address, "node").unwrap().await.unwrap();
    (relay, Client::on(quic).await)
}

/// A client behind a NAT that gives it another port keeps its connection and loses no call.
#[tokio::test]
async fn a_client_whose_port_changes_loses_no_call() {
    let server = Server::start(Limits::default()).await;
    let (relay, client) = behind_a_nat(&server).await;
    for round in 0..5 {
        for _ in 0..20 {
            assert_eq!(client.call("echo", "served").await.unwrap().status, 200, "round {round}");
        }
        relay.rebind().await;
    }
    assert_eq!(client.call("echo", "after the last change").await.unwrap().status, 200);
    assert_eq!(server.gateway.attempts().served, 1, "it is one connection");
    server.stop().await;
}

/// Changes of address have a limit.
#[tokio::test]
async fn a_client_whose_address_changes_all_the_time_is_disconnected() {
    let server = Server::start(Limits { path_changes_per_minute: 3, ..Limits::default() }).await;
    let (relay, client) = behind_a_nat(&server).await;
    let neighbour = server.client().await;
    for _ in 0..20 {
        if client.call("echo", "served").await.is_err() {
            break;
        }
        relay.rebind().await;
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    assert_eq!(closed(&client.quic).await.0, 0x107);
    assert_eq!(server.gateway.inspect().counters["disconnected_path_changes"], 1);
    assert_eq!(neighbour.call("echo", "unharmed").await.unwrap().status, 200);
    server.stop().await;
}

/// Both sides send keep-alives, so a quiet connection outlasts the idle timeout, and one that is cut does not.
#[tokio::test]
async fn a_quiet_connection_is_kept_and_a_cut_one_is_not() {
    let idle_timeout = Duration::from_millis(900);
    let server = Server::start(Limits { idle_timeout, ..Limits::default() }).await;
    // This client sends none of its own.
    let (relay, client) = behind_a_nat(&server).await;
    client.call("echo", "first").await.unwrap();
    tokio::time::sleep(3 * idle_timeout).await;
    assert!(client.quic.close_reason().is_none());
    assert_eq!(client.call("echo", "still there").await.unwrap().status, 200);
    relay.cut();
    eventually("it is missed", || server.gateway.attempts().clients == 0).await;
    assert!(client.quic.closed().await.to_string().contains("timed out"));
    server.stop().await;
}

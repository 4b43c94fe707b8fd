//! What an operator reads of a gateway's refusals, panics and restarts.

use std::time::Duration;

use plimsoll::bounded::Cap;
use plimsoll_mesh::events::EventKind;
use plimsoll_mesh::gateway::{AdmissionLimits, Limits};

use crate::support::{Client, Server, dial, eventually, post};

fn reasons(server: &Server, kind: EventKind) -> Vec<String> {
    let events = server.events.latest(1_000).into_iter().filter(|event| event.kind == kind);
    events.filter_map(|event| event.reason).collect()
}

/// Issue 10, 4.10: each refusal, panic and restart is an event with its reason.
#[tokio::test]
async fn refusals_panics_and_restarts_are_events() {
    let server = Server::start(Limits { clients: 1, requests_per_client: 1, ..Limits::default() }).await;
    let client = server.client().await;
    let mut hanging = client.open(post("hang").body(()).unwrap()).await.unwrap();
    hanging.finish().await.unwrap();
    eventually("it hangs", || server.stand.hanging.load(std::sync::atomic::Ordering::SeqCst) == 1).await;
    let code = client.call("echo", "one too many").await.unwrap().problem().code;
    let refused = reasons(&server, EventKind::Refusal);
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].contains(code.as_str()), "{refused:?}");
    hanging.stop_sending(h3::error::Code::H3_REQUEST_CANCELLED);
    eventually("it ends", || server.stand.hanging.load(std::sync::atomic::Ordering::SeqCst) == 0).await;
    eventually("its place is free", || server.gateway.requests().in_flight == 0).await;

    server.stand.panics.store(1, std::sync::atomic::Ordering::SeqCst);
    let nodes = http::Request::get("https://node/v1/nodes").body(bytes::Bytes::new()).unwrap();
    assert_eq!(client.request(nodes).await.unwrap().status, 500);
    let panics = reasons(&server, EventKind::Panic);
    assert!(panics.len() == 1 && panics[0].contains("worker_panicked"), "{panics:?}");

    let full = dial(&server, server.client_config()).await.unwrap();
    let over = Client::on(full).await.call("echo", "").await.unwrap();
    assert_eq!(over.status, 503);
    let full = reasons(&server, EventKind::CapReached);
    assert!(full.len() == 1 && full[0].contains("all 1 places"), "{full:?}");

    server.tree.child("topics").unwrap().actor().kill();
    eventually("the restart is an event", || !reasons(&server, EventKind::Restart).is_empty()).await;
    assert!(reasons(&server, EventKind::Restart)[0].contains("gateway/topics"));
    drop(server.tree.stop().await.unwrap());
}

/// A flood of handshakes that nobody completes is one event a second, with the number of those between.
#[tokio::test]
async fn a_flood_of_handshakes_is_an_event() {
    let admission = AdmissionLimits { half_open: Cap::of::<8>(), ..AdmissionLimits::default() };
    let limits = Limits { admission, handshake_timeout: Duration::from_secs(20), ..Limits::default() };
    let server = Server::start(limits).await;
    let _sockets = crate::attacks::forged(&server, 20).await;
    let floods = reasons(&server, EventKind::HalfOpenFlood);
    assert!(!floods.is_empty() && floods.len() < 10, "{floods:?}");
    drop(server.tree.stop().await.unwrap());
}

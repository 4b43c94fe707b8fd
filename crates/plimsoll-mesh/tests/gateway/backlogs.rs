//! What waits for clients that do not read, over real QUIC.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use plimsoll::bounded::ByteCap;
use plimsoll::inspect::Inspect as _;
use plimsoll_mesh::gateway::Limits;
use plimsoll_mesh::problem::Code;
use plimsoll_mesh::pubsub::PubsubCaps;

use crate::support::{Client, Server, Stream, eventually};

/// A client that subscribes and never reads an event. Its windows are small, so that events wait at the gateway.
async fn stalled(server: &Server, topics: impl Iterator<Item = String>) -> (Client, Vec<Stream>) {
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(1_024_u32.into()).keep_alive_interval(Some(Duration::from_millis(50)));
    let mut config = server.client_config();
    config.transport_config(Arc::new(transport));
    let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    let client = Client::on(endpoint.connect_with(config, server.address, "node").unwrap().await.unwrap()).await;
    let mut streams = Vec::new();
    for topic in topics {
        let request = Request::get(format!("https://node/v1/subscribe/{topic}")).body(()).unwrap();
        let mut stream = client.open(request).await.unwrap();
        stream.finish().await.unwrap();
        assert_eq!(stream.recv_response().await.unwrap().status(), 200);
        streams.push(stream);
    }
    (client, streams)
}

/// Publishes a message; again as long as what readers have taken leaves no room for it. Returns how many were cut off.
async fn publish(writer: &Client, topic: &str, bytes: usize) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let request = Request::post(format!("https://node/v1/publish/{topic}")).header("content-type", "text/plain");
        let answer = writer.request(request.body(Bytes::from(vec![b'x'; bytes])).unwrap()).await.unwrap();
        if answer.status == 503 && Instant::now() < deadline {
            assert_eq!(answer.problem().code, Code::Overloaded);
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        }
        assert_eq!(answer.status, 200, "{answer:?}");
        return serde_json::from_slice::<serde_json::Value>(&answer.body).unwrap()["cut_off"].as_u64().unwrap();
    }
}

fn held(server: &Server) -> u64 {
    let counters = server.gateway.pubsub().inspect().counters;
    counters
        .iter()
        .find(|(name, _)| *name == "backlogs_bytes_used")
        .map(|(_, used)| *used)
        .unwrap_or_else(|| panic!("{counters:?}"))
}

fn limits(all_backlogs: ByteCap, patience: Duration) -> Limits {
    let pubsub = PubsubCaps { all_backlogs, patience, ..PubsubCaps::default() };
    Limits { pubsub, ..Limits::default() }
}

/// Less than half a backlog is not held for ever by a client that pings and does not read.
#[tokio::test]
async fn a_small_backlog_of_a_client_that_pings_ends() {
    let patience = Duration::from_millis(500);
    let server = Server::start(limits(PubsubCaps::default().all_backlogs, patience)).await;
    let (client, _streams) = stalled(&server, std::iter::once("a".to_owned())).await;
    let writer = server.client().await;
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(publish(&writer, "a", 20 << 10).await, 0, "400 KiB of 1 MiB");
    }
    eventually("it is cut off", || server.gateway.pubsub().subscribers() == 0).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    eventually("and holds nothing", || held(&server) == 0).await;
    assert!(client.quic.close_reason().is_none(), "it still pings");
    server.stop().await;
}

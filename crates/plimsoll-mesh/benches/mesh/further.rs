//! A call that is answered one node further: by two nodes, and by a bare relay.

use bytes::{Buf, Bytes, BytesMut};
use http::{Request, Response};
use plimsoll_mesh::node::{Node, NodeConfig, Offer, Trusted};
use plimsoll_mesh::peers::Seed;

use super::bare;
use super::client::{self, Target, limits};
use super::ours::Echo;

async fn start(seeds: Vec<Seed>, offer: Option<Offer<Echo>>) -> Node {
    let folder = tempfile::tempdir().expect("a folder").keep();
    let mut config = NodeConfig::new(folder.join("data"), ([127, 0, 0, 1], 0).into());
    (config.trusted, config.seeds, config.gateway) = (Trusted::Open, seeds, limits());
    config.memory_budget = u64::MAX;
    let mut node = Node::builder(config);
    if let Some(offer) = offer {
        node = node.service(offer);
    }
    node.start().await.expect("the node starts")
}

/// A node that does not offer `echo` beside one that does.
pub async fn node() -> Target {
    let offer = Offer::new("echo".parse().expect("a name"), Echo).limits(|server| server.max_in_flight(4_096));
    let provider = start(Vec::new(), Some(offer)).await;
    let node = start(vec![Seed::new(provider.address()).expecting(provider.id())], None).await;
    while node.view().snapshot().services.is_empty() {
        tokio::task::yield_now().await;
    }
    let target = Target { address: node.address(), pin: node.id() };
    // They run until the process ends.
    std::mem::forget((node, provider));
    target
}

/// A server that asks another server, over one connection.
pub async fn relay() -> Target {
    let line = client::connect(&client::endpoint(), bare::echo()).await;
    let sender = line.sender.clone();
    std::mem::forget(line);
    bare::serve(move |resolver| {
        let mut sender = sender.clone();
        async move {
            let (_, mut stream) = resolver.resolve_request().await.ok()?;
            let mut body = BytesMut::new();
            while let Some(piece) = stream.recv_data().await.ok()? {
                body.extend_from_slice(piece.chunk());
            }
            let request = Request::post("https://node/v1/call/echo").body(()).ok()?;
            let mut further = sender.send_request(request).await.ok()?;
            further.send_data(body.freeze()).await.ok()?;
            further.finish().await.ok()?;
            further.recv_response().await.ok()?;
            let mut answer = BytesMut::new();
            while let Some(piece) = further.recv_data().await.ok()? {
                answer.extend_from_slice(piece.chunk());
            }
            stream.send_response(Response::new(())).await.ok()?;
            stream.send_data(Bytes::from(answer)).await.ok()?;
            stream.finish().await.ok()
        }
    })
}

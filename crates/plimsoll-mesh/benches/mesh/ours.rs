//! A node's way of a call: gateway, router, call server, a worker actor a request.

use std::sync::Arc;

use plimsoll::call::{CallContext, CallServer, Service};
use plimsoll::supervisor::{ChildSpec, Supervisor};
use plimsoll_mesh::events::Events;
use plimsoll_mesh::gateway::{AcceptPeer, Backends, Gateway, bind};
use plimsoll_mesh::identity::{Identity, endpoint_config, server_config};
use plimsoll_mesh::rpc::Router;
use plimsoll_mesh::service::{ApplicationError, Request, Response};
use plimsoll_mesh::services::{ServiceTable, provide};

use super::client::{Target, limits};

pub struct Echo;

impl Service for Echo {
    type Request = Request;
    type Reply = Response;
    type Error = ApplicationError;

    async fn call(&self, _: CallContext, request: Request) -> Result<Response, ApplicationError> {
        Ok(Response { content_type: "application/octet-stream".into(), body: request.body })
    }
}

struct NoPeers;

impl AcceptPeer for NoPeers {
    fn accept_peer(&self, connection: quinn::Connection) {
        connection.close(0u32.into(), b"no peers here");
    }
}

/// A node that offers `echo`.
pub async fn echo() -> Target {
    let identity = Identity::generate().expect("an identity");
    let server = server_config(&identity, Arc::new(limits().transport())).expect("a TLS configuration");
    let endpoint = bind(([127, 0, 0, 1], 0).into(), endpoint_config(&identity)).expect("a UDP port");
    let target = Target { address: endpoint.local_addr().expect("bound"), pin: identity.node_id() };
    let services = ServiceTable::new();
    let router = Arc::new(Router::local(target.pin, Some(target.address), services.clone()));
    let behind =
        Backends { dispatch: router.clone(), overview: router, peers: Arc::new(NoPeers), events: Events::default() };
    let gateway = Gateway::new(target.pin, endpoint, server, limits(), behind);
    let tree = Supervisor::builder("bench")
        .child(services.owner())
        .child(ChildSpec::new("echo", move |parent| {
            let services = services.clone();
            async move {
                let server = CallServer::builder(Echo).max_in_flight(4_096);
                provide(&services, "echo".parse().expect("a name"), true, server, parent).await
            }
        }))
        .child(ChildSpec::supervisor("gateway", move || gateway.supervisor()))
        .start()
        .await
        .expect("the tree starts");
    // It runs until the process ends.
    std::mem::forget(tree);
    target
}

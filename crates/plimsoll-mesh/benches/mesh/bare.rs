//! What one would write without any of this: quinn and h3-quinn, a task a request.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use h3::server::RequestResolver;
use http::Response;
use plimsoll_mesh::identity::{Identity, endpoint_config, server_config};

use super::client::{Target, limits};

pub type Resolver = RequestResolver<h3_quinn::Connection, Bytes>;

/// A server that echoes.
pub fn echo() -> Target {
    serve(|resolver| async move {
        let (_, mut stream) = resolver.resolve_request().await.ok()?;
        let mut body = BytesMut::new();
        while let Some(piece) = stream.recv_data().await.ok()? {
            body.extend_from_slice(piece.chunk());
        }
        stream.send_response(Response::new(())).await.ok()?;
        stream.send_data(body.freeze()).await.ok()?;
        stream.finish().await.ok()
    })
}

pub fn serve<F, Fut>(handle: F) -> Target
where
    F: Fn(Resolver) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Option<()>> + Send + 'static,
{
    let identity = Identity::generate().expect("an identity");
    let mut config = server_config(&identity, Arc::new(limits().transport())).expect("a TLS configuration");
    limits().apply(&mut config);
    // The same socket as the gateway's, so that buffers are no difference.
    let endpoint =
        plimsoll_mesh::gateway::bind(([127, 0, 0, 1], 0).into(), endpoint_config(&identity)).expect("a port");
    endpoint.set_server_config(Some(config));
    let target = Target { address: endpoint.local_addr().expect("bound"), pin: identity.node_id() };
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let handle = handle.clone();
            tokio::spawn(async move {
                let connection = h3_quinn::Connection::new(incoming.await.ok()?);
                let mut h3 = h3::server::Connection::<_, Bytes>::new(connection).await.ok()?;
                while let Some(resolver) = h3.accept().await.ok()? {
                    tokio::spawn(handle(resolver));
                }
                Some(())
            });
        }
    });
    target
}

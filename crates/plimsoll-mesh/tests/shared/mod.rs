//! What nodes in one process need, whichever of their parts a test puts together.

use std::error::Error;
use std::future::Future;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_mesh::identity::{self, Identity, Protocol};
use plimsoll_mesh::peers::Peers;
use tokio::runtime::Runtime;
use tokio_util::task::AbortOnDropHandle;

pub type TestResult<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// How long real sockets may take for what they do at once: a slow machine is no failure.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The endpoint of a node, on a socket that is bound already.
pub fn endpoint(
    identity: &Identity,
    socket: UdpSocket,
    transport: quinn::TransportConfig,
) -> TestResult<quinn::Endpoint> {
    Ok(quinn::Endpoint::new(
        identity::endpoint_config(identity),
        Some(identity::server_config(identity, Arc::new(transport))?),
        socket,
        Arc::new(quinn::TokioRuntime),
    )?)
}

/// Gives `peers` what arrives at `endpoint` for them, as a gateway does.
pub fn accepting(endpoint: quinn::Endpoint, peers: Peers) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let peers = peers.clone();
            tokio::spawn(async move {
                let Ok(connection) = incoming.await else { return };
                if identity::handshake(&connection).is_some_and(|it| it.protocol == Protocol::Peer) {
                    peers.accept(connection);
                }
            });
        }
    }))
}

/// Starts a node on a runtime of its own, with which it can [vanish].
pub async fn apart<T: Send + 'static>(
    start: impl Future<Output = TestResult<T>> + Send + 'static,
) -> TestResult<(T, Runtime)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let started = runtime.spawn(start).await?;
    Ok((started?, runtime))
}

/// Ends a runtime as a killed process does: nothing of it runs any more, nothing is said, and its ports are free.
pub async fn vanish(runtime: Option<Runtime>) -> TestResult {
    let runtime = runtime.ok_or("only a node apart can vanish")?;
    tokio::task::spawn_blocking(move || runtime.shutdown_timeout(PATIENCE)).await?;
    Ok(())
}

//! The accept loop.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::admission::{Arrival, Outcome, Place};
use super::{Gateway, GatewayError, Shared, desk, pump};
use crate::identity::{Protocol, handshake};

/// Whether the handshake agreed on the protocol of peers. TLS has refused all but that and HTTP/3.
pub(super) fn is_peer(connection: &quinn::Connection) -> bool {
    handshake(connection).is_some_and(|done| done.protocol == Protocol::Peer)
}

/// Closes `connection` with a code of HTTP/3 and a reason in words. The first close counts.
pub(super) fn close(connection: &quinn::Connection, code: h3::error::Code, reason: &str) {
    let code = quinn::VarInt::from_u64(code.value()).unwrap_or(quinn::VarInt::MAX);
    connection.close(code, reason.as_bytes());
}

/// Accepts connections until `stop` is cancelled, then refuses newcomers until those that are in are done.
pub(super) async fn run(gateway: Gateway, stop: CancellationToken) -> Result<(), GatewayError> {
    let endpoint = gateway.endpoint.clone();
    endpoint.set_server_config(Some(gateway.server.clone()));
    // INVARIANT: at most one task a place at the door.
    let mut tasks = JoinSet::new();
    let mut stopping = std::pin::pin!(stop.cancelled());
    gateway.shared.door.open();
    let mut shut = false;
    while !(shut && tasks.is_empty()) {
        tokio::select! {
            biased;
            Some(_) = tasks.join_next() => {}
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => consider(&gateway, incoming, &mut tasks, &stop),
                None => return Err(GatewayError::EndpointClosed),
            },
            () = &mut stopping, if !shut => {
                shut = true;
                gateway.shared.door.shut();
            }
        }
    }
    endpoint.set_server_config(None);
    Ok(())
}

fn consider(gateway: &Gateway, incoming: quinn::Incoming, tasks: &mut JoinSet<()>, stop: &CancellationToken) {
    let shared = Arc::clone(&gateway.shared);
    match shared.door.arrive(incoming.remote_address(), &incoming.orig_dst_cid()) {
        Arrival::Client(place) => {
            tasks.spawn(welcome(gateway.clone(), incoming, place, stop.clone()));
        }
        Arrival::Desk(place) => {
            tasks.spawn(desk::attend(shared, incoming, place));
        }
        Arrival::TurnAway | Arrival::Repeated => incoming.refuse(),
    }
}

/// Does the handshake and shows the newcomer to its place.
async fn welcome(gateway: Gateway, incoming: quinn::Incoming, mut place: Place, stop: CancellationToken) {
    let shared: Arc<Shared> = Arc::clone(&gateway.shared);
    let Ok(connecting) = incoming.accept() else { return };
    let Ok(Ok(connection)) = timeout(shared.limits.handshake_time, connecting).await else { return };
    if is_peer(&connection) {
        place.settle(Outcome::Peer);
        drop(place);
        return shared.peers.accept_peer(connection);
    }
    place.settle(Outcome::Served);
    pump::run(shared, connection, stop, gateway.grace).await;
    drop(place);
}

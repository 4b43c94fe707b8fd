//! The accept loop.

use std::sync::Arc;

use plimsoll::supervisor::{BoxError, CancellationToken, StartError};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::admission::{Arrival, Outcome, Place};
use super::connection::Newcomer;
use super::{Gateway, GatewayError, Shared, desk};
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

/// Accepts connections until `stop` is cancelled.
pub(super) async fn run(gateway: Gateway, stop: CancellationToken) -> Result<(), BoxError> {
    let endpoint = gateway.endpoint.clone();
    endpoint.set_server_config(Some(gateway.server.clone()));
    // INVARIANT: at most one task a place at the door.
    let mut newcomers = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = newcomers.join_next() => {}
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => consider(&gateway, incoming, &mut newcomers),
                None => return Err(GatewayError::EndpointClosed.into()),
            },
        }
    }
    endpoint.set_server_config(None);
    Ok(())
}

fn consider(gateway: &Gateway, incoming: quinn::Incoming, newcomers: &mut JoinSet<()>) {
    let shared = Arc::clone(&gateway.shared);
    match shared.door.arrive(incoming.remote_address(), &incoming.orig_dst_cid()) {
        Arrival::Client(place) => {
            newcomers.spawn(welcome(shared, incoming, place));
        }
        Arrival::Desk(place) => {
            newcomers.spawn(desk::attend(shared, incoming, place));
        }
        Arrival::TurnAway | Arrival::Repeated => incoming.refuse(),
    }
}

/// Does the handshake. To take one up is most of its work, done under the endpoint's lock, so a crowd takes turns: between
/// two of them all that is ready runs once, the calls of those inside among it.
///
/// Cancel safe: the attempt ends.
pub(super) async fn shake_hands(
    shared: &Shared,
    incoming: quinn::Incoming,
) -> Result<quinn::Connection, quinn::ConnectionError> {
    let connecting = {
        let _turn = shared.taking_up.lock().await;
        let connecting = incoming.accept()?;
        tokio::task::yield_now().await;
        connecting
    };
    connecting.await
}

/// Does the handshake and shows the newcomer to its place.
async fn welcome(shared: Arc<Shared>, incoming: quinn::Incoming, mut place: Place) {
    let Ok(Ok(connection)) = timeout(shared.limits.handshake_time, shake_hands(&shared, incoming)).await else {
        return;
    };
    if is_peer(&connection) {
        place.settle(Outcome::Peer);
        drop(place);
        return shared.peers.accept_peer(connection);
    }
    place.shook_hands();
    let newcomer = Newcomer { connection: connection.clone(), place };
    let started = match shared.connections() {
        Some(connections) => connections.start_child(newcomer).await.map(drop),
        None => Err(StartError::ShuttingDown),
    };
    match started {
        Ok(()) => {}
        Err(StartError::ShuttingDown) => {
            // Nobody comes in until the connections' supervisor has started again, if it ever does.
            shared.door.shut();
            close(&connection, h3::error::Code::H3_NO_ERROR, "the node is stopping");
        }
        Err(error) => {
            tracing::warn!(target: "plimsoll::mesh", %error, "a client could not be let in");
            close(&connection, h3::error::Code::H3_INTERNAL_ERROR, "the connection could not be kept");
        }
    }
}

//! The accept loop: admission, then the handshake.

use std::sync::Arc;

use h3::error::Code as H3Code;
use plimsoll::supervisor::{BoxError, CancellationToken, StartError};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::admission::{AdmissionSlot, AdmittedConnection, Decision, Outcome};
use super::handshake::{self, close, is_peer};
use super::refusal_responder;
use super::state::GatewayState;

/// The endpoint was closed while its gateway ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the endpoint was closed")]
struct EndpointClosed;

/// Accepts connections until `stop` is cancelled.
pub(super) async fn run(
    state: Arc<GatewayState>,
    endpoint: quinn::Endpoint,
    server: quinn::ServerConfig,
    stop: CancellationToken,
) -> Result<(), BoxError> {
    endpoint.set_server_config(Some(server));
    // INVARIANT: at most one task for each admission slot.
    let mut handshakes = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = handshakes.join_next() => {}
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => decide(&state, incoming, &mut handshakes),
                None => return Err(EndpointClosed.into()),
            },
        }
    }
    endpoint.set_server_config(None);
    Ok(())
}

fn decide(state: &Arc<GatewayState>, incoming: quinn::Incoming, handshakes: &mut JoinSet<()>) {
    let state = Arc::clone(state);
    match state.admission.decide(incoming.remote_address(), &incoming.orig_dst_cid()) {
        Decision::Admit(slot) => {
            handshakes.spawn(admit(state, incoming, slot));
        }
        Decision::Respond(slot) => {
            handshakes.spawn(refusal_responder::respond(state, incoming, slot));
        }
        Decision::Refuse | Decision::Repeated => incoming.refuse(),
    }
}

/// Completes the handshake and starts the connection's actor.
async fn admit(state: Arc<GatewayState>, incoming: quinn::Incoming, mut slot: AdmissionSlot) {
    let handshake = handshake::complete(&state, incoming);
    let Ok(Ok(connection)) = timeout(state.limits.handshake_timeout, handshake).await else { return };
    if is_peer(&connection) {
        slot.settle(Outcome::Peer);
        drop(slot);
        return state.backends.peers.accept_peer(connection);
    }
    slot.handshake_completed();
    let admitted = AdmittedConnection { connection: connection.clone(), slot };
    let started = match state.connections() {
        Some(connections) => connections.start_child(admitted).await.map(drop),
        None => Err(StartError::ShuttingDown),
    };
    match started {
        Ok(()) => {}
        Err(StartError::ShuttingDown) => {
            // Admission opens again when the supervisor of the connections is restarted.
            state.admission.close();
            close(&connection, H3Code::H3_NO_ERROR, "the node is stopping");
        }
        Err(error) => {
            tracing::warn!(target: "plimsoll::mesh", %error, "the actor of a connection did not start");
            close(&connection, H3Code::H3_INTERNAL_ERROR, "the connection could not be served");
        }
    }
}

//! The accept loop: admission, then the handshake.

use std::sync::Arc;
use std::time::{Duration, Instant};

use h3::error::Code as H3Code;
use plimsoll::bounded::AdmissionRefusal;
use plimsoll::supervisor::{BoxError, CancellationToken, StartError};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::events::EventKind;

use super::admission::{AdmissionSlot, AdmittedConnection, Decision, Outcome};
use super::handshake::{self, close, is_peer};
use super::refusal_responder;
use super::state::GatewayState;

/// How long a new client waits for the slot of one that is being disconnected.
const REPLACEMENT_TIMEOUT: Duration = Duration::from_secs(1);

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
    let validated = incoming.remote_address_validated();
    match state.admission.decide(incoming.remote_address(), validated, &incoming.orig_dst_cid()) {
        Decision::Admit(slot) => {
            handshakes.spawn(admit(state, incoming, slot));
        }
        Decision::Respond(slot, refusal) => {
            record(&state, &refusal);
            handshakes.spawn(replace_or_refuse(state, incoming, slot, refusal));
        }
        // Fails only for an address that is validated, and then the decision is another.
        Decision::Retry => {
            let reason = "many handshakes are in progress: clients must prove their address";
            state.backends.events.record(EventKind::HalfOpenFlood, None, reason);
            drop(incoming.retry());
        }
        Decision::Refuse(refusal) => {
            record(&state, &refusal);
            incoming.refuse();
        }
        Decision::Repeated => incoming.refuse(),
    }
}

/// Records a refusal for the operator.
fn record(state: &GatewayState, refusal: &AdmissionRefusal) {
    let kind = match refusal {
        AdmissionRefusal::MaxClientsReached { .. } => EventKind::CapReached,
        AdmissionRefusal::HalfOpen { .. } => EventKind::HalfOpenFlood,
        _ => EventKind::Refusal,
    };
    state.backends.events.record(kind, None, &format!("client refused: {refusal}"));
}

/// Admits a client to a full gateway in place of the one that has been idle for longest; responds with the refusal if there
/// is none.
async fn replace_or_refuse(
    state: Arc<GatewayState>,
    incoming: quinn::Incoming,
    mut slot: AdmissionSlot,
    refusal: AdmissionRefusal,
) {
    let full = matches!(refusal, AdmissionRefusal::MaxClientsReached { .. });
    if full && state.sessions.disconnect_longest_idle(state.limits.idle_timeout, Instant::now()) {
        let address = incoming.remote_address();
        if state.admission.promote(&mut slot, address, REPLACEMENT_TIMEOUT).await {
            return admit(state, incoming, slot).await;
        }
    }
    refusal_responder::respond(state, incoming, slot, &refusal).await;
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

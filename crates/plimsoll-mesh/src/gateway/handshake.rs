//! The TLS handshake of an accepted connection, and closing one with an HTTP/3 code.

use super::state::GatewayState;
use crate::identity::{self, Protocol};

/// Whether the handshake agreed on the protocol of peers. TLS accepts only that and HTTP/3.
pub(super) fn is_peer(connection: &quinn::Connection) -> bool {
    identity::handshake(connection).is_some_and(|done| done.protocol == Protocol::Peer)
}

/// Closes `connection` with an HTTP/3 code and a reason. Only the first close counts.
pub(super) fn close(connection: &quinn::Connection, code: h3::error::Code, reason: &str) {
    let code = quinn::VarInt::from_u64(code.value()).unwrap_or(quinn::VarInt::MAX);
    connection.close(code, reason.as_bytes());
}

/// Completes the handshake. Beginning one is most of its work and is done under the endpoint's lock, so handshakes begin one
/// at a time, and between two of them every ready task runs once.
///
/// Cancel safe: the attempt ends.
pub(super) async fn complete(
    state: &GatewayState,
    incoming: quinn::Incoming,
) -> Result<quinn::Connection, quinn::ConnectionError> {
    let connecting = {
        let _turn = state.handshake_turn.lock().await;
        let connecting = incoming.accept()?;
        tokio::task::yield_now().await;
        connecting
    };
    connecting.await
}

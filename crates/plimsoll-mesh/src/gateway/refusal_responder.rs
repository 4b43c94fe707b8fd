//! The refusal responder: sends the reason to a client over a cap.

use std::future::poll_fn;
use std::sync::Arc;

use h3::error::Code as H3Code;
use h3::frame::FrameStream;
use h3::stream::BufRecvStream;
use plimsoll::bounded::AdmissionRefusal;
use tokio::time::{Instant, timeout_at};

use super::admission::{AdmissionSlot, Outcome};
use super::handshake::{self, close, is_peer};
use super::response::HttpResponse;
use super::state::GatewayState;
use crate::http3::Connection;
use crate::problem::{Code, Problem};

/// Completes the handshake, hands a peer over, and responds to the first request of a client with 503.
pub(super) async fn respond(
    state: Arc<GatewayState>,
    incoming: quinn::Incoming,
    mut slot: AdmissionSlot,
    refusal: &AdmissionRefusal,
) {
    let end = Instant::now() + state.limits.refusal_timeout;
    let Ok(Ok(connection)) = timeout_at(end, handshake::complete(&state, incoming)).await else { return };
    if is_peer(&connection) {
        slot.settle(Outcome::Peer);
        return state.backends.peers.accept_peer(connection);
    }
    // The client reads the reason in the response or, if it sends no request, in the close.
    let _ = timeout_at(end, respond_to_first_request(&state, connection, &problem(refusal))).await;
    slot.settle(Outcome::RefusedWithReason);
}

/// Responds to the first request. `None`: the client left first.
async fn respond_to_first_request(
    state: &GatewayState,
    connection: quinn::Connection,
    problem: &Problem,
) -> Option<()> {
    let mut h3 = state.limits.h3().build(Connection::server(connection.clone())).await.ok()?;
    // Dropped before h3, which would close with a reason of its own.
    let _closing = CloseWithReason(connection, problem.code);
    let mut stream = poll_fn(|cx| h3.poll_accept_request_stream(cx)).await.ok()??;
    let stream_end = stream.stopped();
    let mut send = stream.take_send()?;
    let resolver = h3.create_resolver(FrameStream::new(BufRecvStream::new(stream)));
    let _request = resolver.resolve_request().await.ok()?;
    HttpResponse::problem(problem.clone().into(), state.node).send(&mut send).await.ok()?;
    // Closing discards data that the client has not acknowledged.
    stream_end.await;
    Some(())
}

fn problem(refusal: &AdmissionRefusal) -> Problem {
    let code = match refusal {
        AdmissionRefusal::OriginFull { .. } => Code::OriginFull,
        _ => Code::MaxClientsReached,
    };
    let mut problem = Problem::new(code, refusal.to_string());
    problem.retry_after = refusal.retry_after();
    problem
}

struct CloseWithReason(quinn::Connection, Code);

impl Drop for CloseWithReason {
    fn drop(&mut self) {
        close(&self.0, H3Code::H3_NO_ERROR, self.1.as_str());
    }
}

//! What the tasks of one connection share.

use std::sync::Arc;

use futures::future::BoxFuture;
use h3::error::Code as H3Code;
use plimsoll::bounded::Consumer;
use tokio_util::sync::CancellationToken;

use super::byte_budget::{ConnectionBytes, Reservation};
use super::client_activity::ClientActivity;
use super::handshake::close;
use super::limits::Limits;
use super::response::{HttpProblem, HttpResponse};
use super::sessions::ClientSession;
use super::state::GatewayState;
use crate::events::EventKind;
use crate::http3::{SendStream, StreamEnd};
use crate::problem::Code;

/// What the tasks of one connection share.
#[derive(Debug)]
pub(super) struct ConnectionContext {
    pub(super) state: Arc<GatewayState>,
    pub(super) connection: quinn::Connection,
    pub(super) session: ClientSession,
    pub(super) activity: Arc<ClientActivity>,
    /// The client as a reader of topics: its subscriptions are weighed together.
    pub(super) consumer: Consumer,
    /// Bytes that its requests hold of the two byte budgets.
    pub(super) body_bytes: ConnectionBytes,
    pub(super) response_bytes: ConnectionBytes,
    /// Cancelled when the connection begins to drain.
    pub(super) draining: CancellationToken,
    /// Ends the calls still in flight when the grace has passed.
    pub(super) grace_passed: CancellationToken,
}

/// How a response is tracked until its client has acknowledged it.
pub(super) enum Tracking<'a> {
    /// It is small: it goes on the connection's list of unacknowledged responses.
    Listed,
    /// Its bytes are reserved, and the request waits for the acknowledgement.
    Reserved { _bytes: Reservation<'a> },
    /// It is a refusal for which there were no bytes left: the request waits, without a reservation.
    Unreserved,
}

impl ConnectionContext {
    pub(super) fn new(state: Arc<GatewayState>, connection: quinn::Connection, session: ClientSession) -> Self {
        let (grace_passed, activity) = (session.calls_token().clone(), Arc::clone(session.activity()));
        let consumer = state.pubsub.consumer();
        Self {
            state,
            consumer,
            connection,
            session,
            activity,
            body_bytes: ConnectionBytes::default(),
            response_bytes: ConnectionBytes::default(),
            draining: CancellationToken::new(),
            grace_passed,
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Closes the connection with an error of HTTP/3.
    pub(super) fn fail(&self, code: H3Code, reason: &str) {
        close(&self.connection, code, reason);
    }

    /// The response to a refused request, which is counted.
    pub(super) fn refuse(&self, problem: HttpProblem) -> HttpResponse {
        let code = problem.problem.code;
        self.state.requests.refused(code);
        let kind = match code {
            Code::Overloaded | Code::RateLimited => Some(EventKind::Refusal),
            Code::WorkerPanicked => Some(EventKind::Panic),
            _ => None,
        };
        if let Some(kind) = kind {
            let detail = problem.problem.detail.as_str();
            self.state.backends.events.record(kind, None, &format!("request refused with {}: {detail}", code.as_str()));
        }
        HttpResponse::problem(problem, self.state.node)
    }

    /// Tracks a response until the client has acknowledged it; a refusal takes its place if its bytes do not fit.
    pub(super) fn track(&self, response: HttpResponse) -> (HttpResponse, Tracking<'_>) {
        let bytes = response.len();
        if bytes <= Limits::LISTED_RESPONSE && self.activity.unacknowledged.fits(bytes) {
            return (response, Tracking::Listed);
        }
        let mut reservation = self.state.response_bytes.reservation(&self.response_bytes);
        match reservation.grow(bytes) {
            Ok(()) => (response, Tracking::Reserved { _bytes: reservation }),
            Err(refused) => {
                let detail = format!("the request was served, but its response was dropped: {refused}");
                let problem = refused.problem(Code::WorkerDied, detail);
                (self.refuse(problem.into()).with_call_id_of(response), Tracking::Unreserved)
            }
        }
    }

    /// Lists a response that is sent and finished.
    pub(super) fn list(&self, send: SendStream, stream_end: BoxFuture<'static, StreamEnd>, bytes: usize) {
        self.activity.unacknowledged.add(send, stream_end, bytes);
    }
}

//! What the tasks of one connection share.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::byte_budget::{ConnectionBytes, Reservation};
use super::limits::Limits;
use super::response::{HttpProblem, HttpResponse};
use super::sessions::ClientSession;
use super::state::GatewayState;
use crate::problem::Code;

/// What the tasks of one connection share.
#[derive(Debug)]
pub(super) struct ConnectionContext {
    pub(super) state: Arc<GatewayState>,
    pub(super) session: ClientSession,
    /// Bytes that its requests hold of the two byte budgets.
    pub(super) body_bytes: ConnectionBytes,
    pub(super) response_bytes: ConnectionBytes,
    /// Cancelled when the connection begins to drain.
    pub(super) draining: CancellationToken,
    /// Ends the calls still in flight when the grace has passed.
    pub(super) grace_passed: CancellationToken,
}

impl ConnectionContext {
    pub(super) fn new(state: Arc<GatewayState>, session: ClientSession) -> Self {
        let grace_passed = session.calls_token().clone();
        Self {
            state,
            session,
            body_bytes: ConnectionBytes::default(),
            response_bytes: ConnectionBytes::default(),
            draining: CancellationToken::new(),
            grace_passed,
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// The response to a refused request, which is counted.
    pub(super) fn refuse(&self, problem: HttpProblem) -> HttpResponse {
        self.state.requests.refused(problem.problem.code);
        HttpResponse::problem(problem, self.state.node)
    }

    /// A response with its bytes reserved until the client has acknowledged it; a refusal in its place if they do not fit.
    pub(super) fn reserve(&self, response: HttpResponse) -> (HttpResponse, Reservation<'_>) {
        let mut reservation = self.state.response_bytes.reservation(&self.response_bytes);
        let bytes = response.len();
        if bytes <= Limits::UNCOUNTED_RESPONSE {
            return (response, reservation);
        }
        match reservation.grow(bytes) {
            Ok(()) => (response, reservation),
            Err(refused) => {
                let detail = format!("the request was served, but its response was dropped: {refused}");
                let problem = refused.problem(Code::WorkerDied, detail);
                (self.refuse(problem.into()).with_call_id_of(response), reservation)
            }
        }
    }
}

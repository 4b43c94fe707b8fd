//! The connections of clients, one actor each.

use std::sync::Arc;
use std::time::Duration;

use h3::error::Code as H3Code;
use plimsoll::ractor::{ActorCell, SpawnErr};
use plimsoll::supervisor::{Child, DynamicBuilder, DynamicSupervisor, Shutdown};

use super::admission::{AdmittedConnection, Outcome};
use super::client_activity::ClientActivity;
use super::handshake::close;
use super::limits::CLOSE_TIMEOUT;
use super::state::GatewayState;
use super::{connection_driver, linked_task};

/// The supervisor of all connections. They are temporary: a client that lost its connection connects again.
pub(super) fn supervisor(state: &Arc<GatewayState>, grace: Duration) -> DynamicBuilder<AdmittedConnection> {
    // Admission enforces the cap. Twice that leaves room for actors whose client has just released its slot.
    let max_children = u32::try_from(state.limits.clients.max(1)).unwrap_or(u32::MAX).saturating_mul(2);
    let state = Arc::clone(state);
    DynamicSupervisor::temporary("connections", move |parent, admitted| {
        start(Arc::clone(&state), grace, parent, admitted)
    })
    .max_children(max_children)
    // The driver bounds itself by the grace; the rest covers its close timeouts.
    .shutdown(Shutdown::After(grace + 4 * CLOSE_TIMEOUT))
}

async fn start(
    state: Arc<GatewayState>,
    grace: Duration,
    parent: ActorCell,
    admitted: AdmittedConnection,
) -> Result<Child, SpawnErr> {
    let AdmittedConnection { connection, mut slot } = admitted;
    linked_task::start(parent, move |stop| async move {
        let origin = state.origins.share(connection.remote_address().ip());
        let limits = &state.limits;
        let activity =
            ClientActivity::new(connection.clone(), origin, limits.requests_per_client, limits.path_changes_per_minute);
        match state.sessions.open(Arc::new(activity)).await {
            Ok(session) => {
                slot.settle(Outcome::Served);
                connection_driver::run(state, session, connection, stop, grace).await;
            }
            Err(problem) => {
                slot.settle(Outcome::Refused);
                close(&connection, H3Code::H3_NO_ERROR, problem.code.as_str());
            }
        }
        drop(slot);
        Ok(())
    })
    .await
}

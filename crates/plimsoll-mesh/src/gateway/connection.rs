//! The connections of clients, one actor each.

use plimsoll::ractor::{ActorCell, SpawnErr};
use plimsoll::supervisor::{Child, DynamicBuilder, DynamicSupervisor, DynamicSupervisorRef, Shutdown};

use h3::error::Code as H3Code;

use super::admission::{Outcome, Place};
use super::listener::close;
use super::{Gateway, keeper, pump};

/// A client that is let in.
#[derive(Debug)]
pub(super) struct Newcomer {
    pub(super) connection: quinn::Connection,
    pub(super) place: Place,
}

pub(super) type Connections = DynamicSupervisorRef<Newcomer>;

/// The supervisor of all connections. They are temporary: a client that is gone connects anew.
pub(super) fn supervisor(gateway: &Gateway) -> DynamicBuilder<Newcomer> {
    let grace = gateway.grace;
    // The cap is the door's. Twice that leaves room for actors whose client has just given its place back.
    let most = u32::try_from(gateway.shared.limits.clients.max(1)).unwrap_or(u32::MAX).saturating_mul(2);
    let gateway = gateway.clone();
    DynamicSupervisor::temporary("connections", move |parent, newcomer| start(gateway.clone(), parent, newcomer))
        .max_children(most)
        // The pump itself keeps to the grace; what is added covers its farewells.
        .shutdown(Shutdown::After(grace + 4 * pump::FAREWELL))
}

async fn start(gateway: Gateway, parent: ActorCell, newcomer: Newcomer) -> Result<Child, SpawnErr> {
    let Newcomer { connection, mut place } = newcomer;
    let Gateway { shared, grace, .. } = gateway;
    keeper::keep(parent, move |stop| async move {
        match shared.clients.enter().await {
            Ok(client) => {
                place.settle(Outcome::Served);
                pump::run(shared, client, connection, stop, grace).await;
            }
            Err(problem) => {
                place.settle(Outcome::TurnedAway);
                close(&connection, H3Code::H3_NO_ERROR, problem.code.as_str());
            }
        }
        drop(place);
        Ok(())
    })
    .await
}

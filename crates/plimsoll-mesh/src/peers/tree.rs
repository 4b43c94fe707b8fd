//! The place of the peers in the supervision tree.

use std::sync::Arc;

use futures::FutureExt as _;
use plimsoll::inspect::Kind;
use plimsoll::ractor::ActorCell;
use plimsoll::supervisor::{
    BoxError, Child, ChildSpec, DynamicSupervisor, DynamicSupervisorRef, Shutdown, Strategy, Supervisor,
    SupervisorBuilder,
};
use tokio_util::sync::CancellationToken;

use crate::owned_task;

use super::dial::DIALS;
use super::reason::CloseReason;
use super::shared::{Arriving, Shared, Start};
use super::{Peers, PeersConfig, connection, dial};

impl Peers {
    /// The supervisor of the peers, not started yet: for [`ChildSpec::supervisor`].
    pub fn supervisor(&self) -> SupervisorBuilder {
        let (connections, keeper) = (Arc::clone(&self.0), self.clone());
        Supervisor::builder("peers")
            .strategy(Strategy::RestForOne)
            .child(
                ChildSpec::new("connections", move |parent| start_connections(Arc::clone(&connections), parent))
                    .kind(Kind::Supervisor)
                    .shutdown(Shutdown::Infinity),
            )
            .child(ChildSpec::new("keeper", move |parent| start_keeper(keeper.clone(), parent)))
    }
}

async fn start_connections(shared: Arc<Shared>, parent: ActorCell) -> Result<Child, BoxError> {
    // Weak: the peers outlive their tree, and must not keep themselves alive by it.
    let weak = Arc::downgrade(&shared);
    let child = DynamicSupervisor::temporary("connections", move |parent: ActorCell, arriving: Arriving| {
        let shared = weak.upgrade();
        async move {
            let shared = shared.ok_or("the peers are gone")?;
            Ok::<_, BoxError>(connection::start(parent, shared, arriving).await?)
        }
    })
    .max_children(most_connections(&shared.config))
    .start_linked(parent)
    .await?;
    let supervisor = child.value_ref::<DynamicSupervisorRef<Arriving>>().ok_or("a supervisor without a reference")?;
    let start: Start = Box::new(move |arriving| {
        let supervisor = Arc::clone(&supervisor);
        async move { supervisor.start_child(arriving).await.map(drop).map_err(|error| error.to_string()) }.boxed()
    });
    shared.start.store(Some(Arc::new(start)));
    Ok(child)
}

/// Those that count, those on their way out beside them, and those that have not greeted.
fn most_connections(config: &PeersConfig) -> u32 {
    let most = config.connections.get().saturating_mul(2).saturating_add(config.greeting + DIALS);
    u32::try_from(most).unwrap_or(u32::MAX)
}

async fn start_keeper(peers: Peers, parent: ActorCell) -> Result<Child, BoxError> {
    let shared = Arc::clone(&peers.0);
    let stop = CancellationToken::new();
    let guard = stop.clone().drop_guard();
    let keeping = async move {
        tokio::join!(dial::run(Arc::clone(&shared), stop.clone()), watch_trust(&shared, &stop));
        Ok(())
    };
    Ok(owned_task::start(parent, guard, keeping).await?.inspect(Arc::new(peers)))
}

/// Closes the connections of nodes that lose their trust, and dials again when somebody gains it.
async fn watch_trust(shared: &Shared, stop: &CancellationToken) {
    let mut changes = shared.trust.subscribe();
    loop {
        // What changed before the keeper ran, for instance while it was restarted, counts as well.
        let me = shared.me;
        shared.close_all(|link| {
            let node = link.node;
            (!shared.trust.allows(&node)).then_some(CloseReason::Revoked { node, me })
        });
        shared.book.lock().demand_all(std::time::Instant::now());
        shared.wake_dialler.notify_one();
        tokio::select! {
            () = stop.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

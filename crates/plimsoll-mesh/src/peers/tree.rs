//! The place of the peers in the supervision tree.

use std::sync::Arc;

use futures::FutureExt as _;
use plimsoll::inspect::Kind;
use plimsoll::mailbox::{Bounded, Delivery, MailboxBuilder};
use plimsoll::ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
use plimsoll::supervisor::{
    BoxError, Child, ChildSpec, DynamicSupervisor, DynamicSupervisorRef, Shutdown, Strategy, Supervisor,
    SupervisorBuilder,
};
use tokio_util::sync::CancellationToken;

use crate::owned_task;

use super::close_reason::CloseReason;
use super::dial::DIALS;
use super::state::{PeersState, PendingConnection, Start};
use super::{Peers, PeersConfig, connection, dial};

impl Peers {
    /// The supervisor of the peers, not started yet: for [`ChildSpec::supervisor`].
    pub fn supervisor(&self) -> SupervisorBuilder {
        let (connections, acceptor, dialler, watcher) =
            (Arc::clone(&self.0), Arc::clone(&self.0), self.clone(), Arc::clone(&self.0));
        Supervisor::builder("peers")
            .strategy(Strategy::RestForOne)
            .child(
                ChildSpec::new("connections", move |parent| start_connections(Arc::clone(&connections), parent))
                    .kind(Kind::Supervisor)
                    .shutdown(Shutdown::Infinity),
            )
            .child(ChildSpec::new("acceptor", move |parent| start_acceptor(Arc::clone(&acceptor), parent)))
            .child(ChildSpec::new("dialler", move |parent| start_dialler(dialler.clone(), parent)))
            .child(ChildSpec::task("trust-watcher", move |stop| {
                let shared = Arc::clone(&watcher);
                async move {
                    watch_trust(&shared, &stop).await;
                    Ok::<_, BoxError>(())
                }
            }))
    }
}

async fn start_connections(shared: Arc<PeersState>, parent: ActorCell) -> Result<Child, BoxError> {
    // Weak: the peers outlive their tree, and must not keep themselves alive by it.
    let weak = Arc::downgrade(&shared);
    let child = DynamicSupervisor::temporary("connections", move |parent: ActorCell, pending: PendingConnection| {
        let shared = weak.upgrade();
        async move {
            let shared = shared.ok_or("the peers are gone")?;
            Ok::<_, BoxError>(connection::start(parent, shared, pending).await?)
        }
    })
    .max_children(most_connections(&shared.config))
    .start_linked(parent)
    .await?;
    let supervisor =
        child.value_ref::<DynamicSupervisorRef<PendingConnection>>().ok_or("a supervisor without a reference")?;
    let start: Start = Box::new(move |pending| {
        let supervisor = Arc::clone(&supervisor);
        async move { supervisor.start_child(pending).await.map(drop).map_err(|error| error.to_string()) }.boxed()
    });
    shared.start.store(Some(Arc::new(start)));
    Ok(child)
}

/// The connections in use, as many that are being closed, and those in the handshake.
fn most_connections(config: &PeersConfig) -> u32 {
    let most = config.connections.get().saturating_mul(2).saturating_add(config.max_handshakes + DIALS);
    u32::try_from(most).unwrap_or(u32::MAX)
}

/// Starts the actors of accepted connections.
struct Acceptor(Arc<PeersState>);

impl Actor for Acceptor {
    type Msg = Bounded<PendingConnection>;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Self::Msg>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Self::Msg>, message: Self::Msg, (): &mut ()) -> Result<(), ActorProcessingErr> {
        if let Some(Delivery::Message(pending)) = message.take() {
            // A start that fails is logged there.
            self.0.start(pending).await;
        }
        Ok(())
    }
}

/// Its mailbox holds as many connections as there are places in the handshake.
async fn start_acceptor(shared: Arc<PeersState>, parent: ActorCell) -> Result<Child, BoxError> {
    let places = u32::try_from(shared.config.max_handshakes).unwrap_or(u32::MAX);
    let acceptor = MailboxBuilder::messages(places);
    let (acceptor, ended) = acceptor.spawn_linked(None, Acceptor(Arc::clone(&shared)), (), parent).await?;
    let actor = acceptor.actor();
    shared.acceptor.store(Some(Arc::new(acceptor)));
    Ok(Child::new(actor, ended))
}

async fn start_dialler(peers: Peers, parent: ActorCell) -> Result<Child, BoxError> {
    let shared = Arc::clone(&peers.0);
    let stop = CancellationToken::new();
    let guard = stop.clone().drop_guard();
    let dialling = dial::run(shared, stop).map(Ok);
    Ok(owned_task::start(parent, guard, |_| dialling).await?.inspect(Arc::new(peers)))
}

/// Closes the connections of nodes that are no longer trusted, and dials again when a node becomes trusted.
async fn watch_trust(shared: &PeersState, stop: &CancellationToken) {
    let mut changes = shared.trust.subscribe();
    loop {
        // Changes made while no watcher ran, for instance during its restart, count as well.
        let me = shared.me;
        shared.close_all(|link| {
            let node = link.node;
            (!shared.trust.allows(&node)).then_some(CloseReason::Revoked { node, me })
        });
        shared.table.lock().demand_all(std::time::Instant::now());
        shared.wake_dialler.notify_one();
        tokio::select! {
            () = stop.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

//! The positions of round robin, one for each service: a table whose owner is an actor in the supervision tree.
//!
//! A call reads a snapshot of the table and moves the position of its service by an atomic exchange. A service that is not in
//! the table yet is added by the owner. A restarted owner begins anew, which costs no more than an uneven round.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use plimsoll::mailbox::{Bounded, BoundedRef, Delivery, MailboxBuilder};
use plimsoll::ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use plimsoll::supervisor::Child;
use tokio::sync::oneshot;

use crate::names::ServiceName;

use super::provider_choice::RoundRobin;

/// Services whose positions are kept. There are rarely more; then all begin anew.
pub(super) const MAX_POSITIONS: usize = 10_000;
/// Services that wait to be added; the calls of a further one share a position meanwhile.
const MAX_WAITING: u32 = 64;
/// How long the first call to a service waits for its position.
const ADDED: Duration = Duration::from_millis(100);

type Positions = HashMap<ServiceName, Arc<RoundRobin>>;

/// The positions of all services.
#[derive(Default)]
pub(super) struct PositionTable {
    /// Written by the owner only.
    positions: ArcSwap<Positions>,
    owner: ArcSwapOption<BoundedRef<Add>>,
    /// For services without a position of their own.
    shared: Arc<RoundRobin>,
}

/// Adds a service.
struct Add {
    service: ServiceName,
    reply: oneshot::Sender<Arc<RoundRobin>>,
}

impl PositionTable {
    /// The position of `service`. Without a running owner, services that are not known yet share one.
    ///
    /// Cancel safe.
    pub(super) async fn of(&self, service: &ServiceName) -> Arc<RoundRobin> {
        if let Some(position) = self.positions.load().get(service) {
            return Arc::clone(position);
        }
        let (reply, added) = oneshot::channel();
        let asked = match &*self.owner.load() {
            Some(owner) => owner.send(Add { service: service.clone(), reply }).is_ok(),
            None => false,
        };
        let added = if asked { tokio::time::timeout(ADDED, added).await.ok().and_then(Result::ok) } else { None };
        added.unwrap_or_else(|| Arc::clone(&self.shared))
    }

    /// Services with a position.
    pub(super) fn len(&self) -> usize {
        self.positions.load().len()
    }
}

/// Starts the owner.
pub(super) async fn start_owner(table: Arc<PositionTable>, parent: ActorCell) -> Result<Child, SpawnErr> {
    let owner = Owner(Arc::clone(&table));
    let (owner, ended) = MailboxBuilder::messages(MAX_WAITING).spawn_linked(None, owner, (), parent).await?;
    let actor = owner.actor();
    table.owner.store(Some(Arc::new(owner)));
    Ok(Child::new(actor, ended))
}

struct Owner(Arc<PositionTable>);

impl Actor for Owner {
    type Msg = Bounded<Add>;
    type State = Positions;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Self::Msg>, (): ()) -> Result<Positions, ActorProcessingErr> {
        self.0.positions.store(Arc::default());
        Ok(Positions::new())
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        message: Self::Msg,
        positions: &mut Positions,
    ) -> Result<(), ActorProcessingErr> {
        let Some(Delivery::Message(Add { service, reply })) = message.take() else { return Ok(()) };
        let position = add(positions, service);
        self.0.positions.store(Arc::new(positions.clone()));
        let _ = reply.send(position);
        Ok(())
    }
}

fn add(positions: &mut Positions, service: ServiceName) -> Arc<RoundRobin> {
    if positions.len() >= MAX_POSITIONS && !positions.contains_key(&service) {
        positions.clear();
    }
    Arc::clone(positions.entry(service).or_default())
}

#[cfg(test)]
mod tests {
    use plimsoll::supervisor::{ChildSpec, Supervisor};

    use super::*;

    fn service(n: usize) -> ServiceName {
        format!("s{n}").parse().unwrap()
    }

    /// The owner is a child: its end costs the positions, and calls go on meanwhile and afterwards.
    #[tokio::test]
    async fn each_service_has_a_position_that_an_owner_keeps() {
        let table = Arc::new(PositionTable::default());
        assert!(Arc::ptr_eq(&table.of(&service(1)).await, &table.shared), "there is no owner yet");
        let owned = Arc::clone(&table);
        let tree = Supervisor::builder("test")
            .child(ChildSpec::new("router", move |parent| start_owner(Arc::clone(&owned), parent)))
            .start()
            .await
            .unwrap();
        let (one, two) = (table.of(&service(1)).await, table.of(&service(2)).await);
        assert!(!Arc::ptr_eq(&one, &two) && Arc::ptr_eq(&one, &table.of(&service(1)).await));
        assert_eq!(table.len(), 2);
        tree.stop().await.unwrap();
        assert!(Arc::ptr_eq(&table.of(&service(3)).await, &table.shared), "the owner has ended");
    }

    /// M-20: what is kept of services is bounded.
    #[test]
    fn positions_are_kept_of_so_many_services_and_no_more() {
        let mut positions = Positions::new();
        for n in 0..MAX_POSITIONS {
            add(&mut positions, service(n));
        }
        add(&mut positions, service(0));
        assert_eq!(positions.len(), MAX_POSITIONS, "one that is there needs no room");
        add(&mut positions, service(MAX_POSITIONS));
        assert_eq!(positions.len(), 1);
    }
}

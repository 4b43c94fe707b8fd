//! The supervision tree of a node: its children and the order in which they start.

use std::time::Duration;

use plimsoll::supervisor::{BoxError, ChildSpec, Strategy, Supervisor, SupervisorBuilder};

use crate::directory::GossipDirectory;
use crate::events::Events;
use crate::gateway::Gateway;
use crate::identity::TrustStore;
use crate::peers::Peers;
use crate::rpc::Router;
use crate::services::ServiceTable;

use super::allow_list;
use super::config::Trusted;
use super::offer::AnyOffer;

/// The root's name.
pub(super) const ROOT: &str = "node";

/// The parts of a node, made and not started.
pub(super) struct Parts {
    pub(super) trusted: Trusted,
    pub(super) trust: TrustStore,
    pub(super) directory: GossipDirectory,
    pub(super) peers: Peers,
    pub(super) services: ServiceTable,
    pub(super) offers: Vec<AnyOffer>,
    pub(super) router: Router,
    pub(super) gateway: Gateway,
    pub(super) console: Option<ChildSpec>,
    /// Records restarts and panics of the children.
    pub(super) events: Events,
}

/// The whole tree. What a part needs is started before it: if one is restarted, all after it are too.
pub(super) fn tree(parts: Parts) -> SupervisorBuilder {
    let Parts { trusted, trust, directory, peers, services, offers, router, gateway, console, events } = parts;
    let (offered, transport, table) = (services.clone(), peers.clone(), services.owner());
    let (directory_events, peers_events, services_events) = (events.clone(), events.clone(), events.clone());
    Supervisor::builder(ROOT)
        .strategy(Strategy::RestForOne)
        .intensity(3, Duration::from_secs(10))
        .on_event(events.observer())
        .children(identity(trusted, trust))
        .child(ChildSpec::supervisor("directory", move || {
            directory.supervisor(&transport, &offered).on_event(directory_events.observer())
        }))
        .child(ChildSpec::supervisor("peers", move || peers.supervisor().on_event(peers_events.observer())))
        .child(table)
        .child(ChildSpec::supervisor("services", move || {
            call_servers(&services, &offers).on_event(services_events.observer())
        }))
        .child(router.child())
        .child(ChildSpec::supervisor("gateway", move || gateway.supervisor()))
        .children(console)
}

/// Follows the allow-list; in open mode there is nothing to follow.
fn identity(trusted: Trusted, trust: TrustStore) -> Option<ChildSpec> {
    let Trusted::Listed(path) = trusted else { return None };
    Some(ChildSpec::task("identity", move |stop| {
        let following = allow_list::follow(path.clone(), trust.clone(), stop);
        async move {
            following.await;
            Ok::<_, BoxError>(())
        }
    }))
}

fn call_servers(services: &ServiceTable, offers: &[AnyOffer]) -> SupervisorBuilder {
    let servers = offers.iter().map(|offer| offer.spec(services.clone()));
    Supervisor::builder("services").strategy(Strategy::OneForOne).children(servers)
}

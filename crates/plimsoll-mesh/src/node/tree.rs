//! The tree: which part stands where, and in which order they start.

use std::sync::Arc;
use std::time::Duration;

use plimsoll::supervisor::{BoxError, ChildSpec, Shutdown, Strategy, Supervisor, SupervisorBuilder};

use crate::gateway::Gateway;
use crate::identity::TrustStore;
use crate::rpc::Services;

use super::allow_list;
use super::config::Trusted;
use super::offer::AnyOffer;

/// The root's name.
pub(super) const ROOT: &str = "node";

/// The gateway gives requests in flight five seconds and then answers them itself; this is over that.
const GATEWAY_GRACE: Duration = Duration::from_secs(8);

/// The parts of a node, made and not started.
pub(super) struct Parts {
    pub(super) trusted: Trusted,
    pub(super) trust: TrustStore,
    pub(super) services: Services,
    pub(super) offers: Vec<AnyOffer>,
    pub(super) gateway: Gateway,
    pub(super) console: Option<ChildSpec>,
}

/// The whole tree. Whatever a part needs stands before it: if one is restarted, all after it are too.
pub(super) fn tree(parts: Parts) -> SupervisorBuilder {
    let Parts { trusted, trust, services, offers, gateway, console } = parts;
    Supervisor::builder(ROOT)
        .strategy(Strategy::RestForOne)
        .intensity(3, Duration::from_secs(10))
        .children(identity(trusted, trust))
        .child(ChildSpec::supervisor("services", move || call_servers(&services, &offers)))
        .child(clients(gateway))
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

fn call_servers(services: &Services, offers: &[AnyOffer]) -> SupervisorBuilder {
    let servers = offers.iter().map(|offer| offer.spec(services.clone()));
    Supervisor::builder("services").strategy(Strategy::OneForOne).children(servers)
}

fn clients(gateway: Gateway) -> ChildSpec {
    let inspect = Arc::new(gateway.clone());
    ChildSpec::task("gateway", move |stop| gateway.clone().run(stop))
        .shutdown(Shutdown::After(GATEWAY_GRACE))
        .inspect(inspect)
}

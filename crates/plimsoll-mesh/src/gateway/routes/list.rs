//! `GET /v1/services` and `GET /v1/nodes`.

use crate::gateway::response::HttpResponse;
use crate::gateway::state::GatewayState;
use crate::problem::Problem;
use crate::service::ServiceEntry;

/// The services of the mesh, and those that only clients of this node advertise, which are not callable.
pub(super) fn services(state: &GatewayState) -> Result<HttpResponse, Problem> {
    let mut services = state.backends.overview.services();
    let advertised = state.sessions.advertised()?;
    let listed = services.len();
    for name in advertised {
        if services[..listed].binary_search_by(|entry| entry.name.cmp(&name)).is_err() {
            let providers = vec![state.node];
            services.push(ServiceEntry { name, providers, callable: false, idempotent: false });
        }
    }
    services.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(HttpResponse::services(&services))
}

/// The nodes of the mesh.
pub(super) fn nodes(state: &GatewayState) -> HttpResponse {
    HttpResponse::nodes(&state.backends.overview.nodes())
}

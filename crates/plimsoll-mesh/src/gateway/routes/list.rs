//! `GET /v1/services` and `GET /v1/nodes`.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;

use crate::gateway::connection_context::ConnectionContext;
use crate::gateway::request_workers::{Job, Served, WorkerKind};
use crate::gateway::response::{HttpProblem, HttpResponse};
use crate::gateway::state::GatewayState;
use crate::service::ServiceEntry;

/// The services of the mesh, and those that only clients of this node advertise, which are not callable. 304 when
/// `if_none_match` is the current entity tag.
pub(super) fn services(context: &Arc<ConnectionContext>, if_none_match: Option<Arc<str>>) -> Job {
    let context = Arc::clone(context);
    let work = async move {
        let state = &context.state;
        admit(&context, state.services.len())?;
        let version = || state.backends.overview.version().wrapping_add(state.sessions.advertisement_changes());
        let body = state.services.get(version, || build_services(state)).await;
        Ok(Served::Response(listing(&body.bytes, &body.etag, if_none_match.as_deref())))
    };
    Job { kind: WorkerKind::ListServices, work: Box::pin(work) }
}

/// The nodes of the mesh.
pub(super) fn nodes(context: &Arc<ConnectionContext>, if_none_match: Option<Arc<str>>) -> Job {
    let context = Arc::clone(context);
    let work = async move {
        let state = &context.state;
        admit(&context, state.nodes.len())?;
        let build = || HttpResponse::nodes(&state.backends.overview.nodes());
        let body = state.nodes.get(|| state.backends.overview.version(), build).await;
        Ok(Served::Response(listing(&body.bytes, &body.etag, if_none_match.as_deref())))
    };
    Job { kind: WorkerKind::ListNodes, work: Box::pin(work) }
}

/// Refuses a listing for which the client has no bytes left, before it is built. It is as large as the last one, about.
fn admit(context: &ConnectionContext, bytes: usize) -> Result<(), HttpProblem> {
    let mut reservation = context.state.response_bytes.reservation(&context.response_bytes);
    reservation
        .grow(bytes)
        .map_err(|refused| refused.problem(crate::problem::Code::Overloaded, refused.to_string()).into())
}

fn build_services(state: &GatewayState) -> Bytes {
    let mut services = state.backends.overview.services();
    let listed = services.len();
    for name in state.sessions.advertised() {
        if services[..listed].binary_search_by(|entry| entry.name.cmp(&name)).is_err() {
            let providers = vec![state.node];
            services.push(ServiceEntry { name, providers, callable: false, idempotent: false });
        }
    }
    services.sort_by(|a, b| a.name.cmp(&b.name));
    HttpResponse::services(&services)
}

fn listing(bytes: &Bytes, etag: &str, if_none_match: Option<&str>) -> HttpResponse {
    // A weak comparison, and `*` matches anything (RFC 9110, 13.1.2).
    let matches =
        |tags: &str| tags.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag);
    if if_none_match.is_some_and(matches) {
        return HttpResponse::empty(StatusCode::NOT_MODIFIED).with_etag(etag);
    }
    HttpResponse::listing(bytes.clone()).with_etag(etag)
}

//! What a client advertises: `PUT` and `DELETE /v1/services/{name}`.
//!
//! The lease belongs to the connection: it ends with it, or when its time is up and nobody refreshed it.

use std::time::Duration;

use http::StatusCode;

use super::Shared;
use super::answer::Answer;
use super::sessions::Entered;
use crate::names::ServiceName;
use crate::problem::{Code, Problem};
use crate::service::ServiceEntry;

/// What is to happen to an advertisement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// Begin its lease, or begin it anew.
    Advertise {
        /// What was asked for.
        ttl: Option<Duration>,
    },
    /// End it.
    Withdraw,
}

/// 201 when it is new, 204 when it was refreshed or withdrawn.
pub(super) async fn change(
    shared: &Shared,
    client: &Entered,
    name: ServiceName,
    change: Change,
) -> Result<Answer, Problem> {
    let Some(session) = client.session() else {
        return Err(Problem::new(Code::ShuttingDown, "the connection is closing"));
    };
    match change {
        Change::Advertise { ttl } => {
            let new = shared.clients.advertise(session, name, ttl).await?;
            Ok(Answer::empty(if new { StatusCode::CREATED } else { StatusCode::NO_CONTENT }))
        }
        Change::Withdraw => match shared.clients.withdraw(session, name).await? {
            true => Ok(Answer::empty(StatusCode::NO_CONTENT)),
            false => Err(Problem::new(Code::NoProvider, "this connection does not advertise the service")),
        },
    }
}

/// The services of the mesh, and those that clients advertise here without anybody to call.
pub(super) fn services(shared: &Shared) -> Result<Answer, Problem> {
    let mut services = shared.overview.services();
    let advertised = shared.clients.advertised()?;
    let listed = services.len();
    for name in advertised {
        if services[..listed].binary_search_by(|entry| entry.name.cmp(&name)).is_err() {
            let providers = vec![shared.node];
            services.push(ServiceEntry { name, providers, callable: false, idempotent: false });
        }
    }
    services.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Answer::services(&services))
}

//! `PUT` and `DELETE /v1/services/{name}`.
//!
//! The lease belongs to the connection: it ends with it, or when it expires without a refresh.

use std::sync::Arc;

use http::StatusCode;

use crate::gateway::connection_context::ConnectionContext;
use crate::gateway::request_head::AdvertisementChange;
use crate::gateway::request_workers::{Job, Served, WorkerKind};
use crate::gateway::response::HttpResponse;
use crate::names::ServiceName;
use crate::problem::{Code, Problem};

/// Makes, refreshes or withdraws an advertisement: 201 when it is new, 204 when it was refreshed or withdrawn.
pub(super) fn advertise(context: &Arc<ConnectionContext>, name: ServiceName, change: AdvertisementChange) -> Job {
    let kind = match change {
        AdvertisementChange::Advertise { .. } => WorkerKind::Advertise,
        AdvertisementChange::Withdraw => WorkerKind::Withdraw,
    };
    let context = Arc::clone(context);
    let work = async move {
        let status = apply(&context, name, change).await?;
        Ok(Served::Response(HttpResponse::empty(status)))
    };
    Job { kind, work: Box::pin(work) }
}

async fn apply(
    context: &ConnectionContext,
    name: ServiceName,
    change: AdvertisementChange,
) -> Result<StatusCode, Problem> {
    let sessions = &context.state.sessions;
    let Some(session) = context.session.key() else {
        return Err(Problem::new(Code::ShuttingDown, "the connection is closing"));
    };
    match change {
        AdvertisementChange::Advertise { ttl } => {
            let new = sessions.advertise(session, name, ttl).await?;
            Ok(if new { StatusCode::CREATED } else { StatusCode::NO_CONTENT })
        }
        AdvertisementChange::Withdraw => match sessions.withdraw(session, name).await? {
            true => Ok(StatusCode::NO_CONTENT),
            false => Err(Problem::new(Code::NoProvider, "this connection does not advertise the service")),
        },
    }
}

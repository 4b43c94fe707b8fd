//! `PUT` and `DELETE /v1/services/{name}`.
//!
//! The lease belongs to the connection: it ends with it, or when it expires without a refresh.

use http::StatusCode;

use crate::gateway::connection_context::ConnectionContext;
use crate::gateway::request_head::AdvertisementChange;
use crate::gateway::response::HttpResponse;
use crate::names::ServiceName;
use crate::problem::{Code, Problem};

/// Makes, refreshes or withdraws an advertisement: 201 when it is new, 204 when it was refreshed or withdrawn.
pub(super) async fn advertise(
    context: &ConnectionContext,
    name: ServiceName,
    change: AdvertisementChange,
) -> Result<HttpResponse, Problem> {
    let sessions = &context.state.sessions;
    let Some(session) = context.session.key() else {
        return Err(Problem::new(Code::ShuttingDown, "the connection is closing"));
    };
    match change {
        AdvertisementChange::Advertise { ttl } => {
            let new = sessions.advertise(session, name, ttl).await?;
            Ok(HttpResponse::empty(if new { StatusCode::CREATED } else { StatusCode::NO_CONTENT }))
        }
        AdvertisementChange::Withdraw => match sessions.withdraw(session, name).await? {
            true => Ok(HttpResponse::empty(StatusCode::NO_CONTENT)),
            false => Err(Problem::new(Code::NoProvider, "this connection does not advertise the service")),
        },
    }
}

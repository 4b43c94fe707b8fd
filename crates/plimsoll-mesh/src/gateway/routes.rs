//! What each route does, from its head to its response.

mod advertise;
mod call;
mod list;
mod publish;
pub(super) mod subscribe;

pub(super) use call::call;

use super::connection_context::ConnectionContext;
use super::request_body::RequestStream;
use super::request_failure::RequestFailure;
use super::request_head::Route;
use super::response::HttpResponse;
use crate::problem::{Code, Problem};

/// Serves every route but calls and subscriptions.
pub(super) async fn other(
    context: &ConnectionContext,
    route: Route,
    stream: &mut RequestStream,
) -> Result<HttpResponse, RequestFailure> {
    match route {
        Route::Services => Ok(list::services(&context.state)?),
        Route::Nodes => Ok(list::nodes(&context.state)),
        Route::Advertisement(name, change) => Ok(advertise::advertise(context, name, change).await?),
        Route::Publish(head) => publish::publish(context, head, stream).await,
        Route::Call(_) | Route::Subscribe(_) => {
            Err(Problem::new(Code::WorkerDied, "the route has a handler of its own").into())
        }
    }
}

//! What each route does, from its head to its response.

mod advertise;
mod call;
mod list;
mod publish;
mod subscribe;

use std::sync::Arc;

use bytes::Bytes;

pub(super) use call::call;
pub(super) use subscribe::{StreamSlot, subscribe};

use super::connection_context::ConnectionContext;
use super::request_head::Route;
use super::request_workers::Job;

/// The work of a short request. `None` for a call and a subscription, which have handlers of their own.
pub(super) fn job(context: &Arc<ConnectionContext>, route: Route, body: Bytes) -> Option<Job> {
    Some(match route {
        Route::Services(if_none_match) => list::services(context, if_none_match),
        Route::Nodes(if_none_match) => list::nodes(context, if_none_match),
        Route::Advertisement(name, change) => advertise::advertise(context, name, change),
        Route::Publish(head) => publish::publish(context, head, body),
        Route::Call(_) | Route::Subscribe(_) => return None,
    })
}

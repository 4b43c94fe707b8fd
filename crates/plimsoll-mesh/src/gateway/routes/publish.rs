//! `POST /v1/publish/{topic}`.

use crate::gateway::connection_context::ConnectionContext;
use crate::gateway::lazy_timeout::lazy_timeout;
use crate::gateway::request_body::{RequestBody, RequestStream};
use crate::gateway::request_failure::RequestFailure;
use crate::gateway::request_head::PublishHead;
use crate::gateway::response::HttpResponse;
use crate::problem::{Code, Problem};

/// Publishes one message; the response says how many subscribers it reached.
pub(super) async fn publish(
    context: &ConnectionContext,
    head: PublishHead,
    stream: &mut RequestStream,
) -> Result<HttpResponse, RequestFailure> {
    let state = &context.state;
    let PublishHead { topic, content_type, content_length } = head;
    let read = RequestBody::read(context, stream, content_length);
    let mut body = RequestBody::in_time(lazy_timeout(state.limits.body_timeout, read).await)?;
    let published = state.pubsub.publish(&topic, content_type.as_deref(), &body.bytes());
    published.map(HttpResponse::published).map_err(|error| Problem::new(Code::BodyTooLarge, error.to_string()).into())
}

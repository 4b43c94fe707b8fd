//! `POST /v1/publish/{topic}`.

use std::sync::Arc;

use bytes::Bytes;
use plimsoll::bounded;

use crate::gateway::connection_context::ConnectionContext;
use crate::gateway::request_head::PublishHead;
use crate::gateway::request_workers::{Job, Served, WorkerKind};
use crate::gateway::response::{HttpProblem, HttpResponse};
use crate::problem::{Code, Problem};
use crate::pubsub::PublishError;

/// Publishes one message; the response says how many subscribers it reached.
pub(super) fn publish(context: &Arc<ConnectionContext>, head: PublishHead, body: Bytes) -> Job {
    let context = Arc::clone(context);
    let work = async move {
        let published = context.state.pubsub.publish(&head.topic, head.content_type.as_deref(), &body);
        published.map(|published| Served::Response(HttpResponse::published(published))).map_err(problem)
    };
    Job { kind: WorkerKind::Publish, work: Box::pin(work) }
}

fn problem(error: PublishError) -> HttpProblem {
    let code = match error {
        PublishError::Refused(bounded::PublishError::BudgetFull { .. }) => Code::Overloaded,
        PublishError::Refused(_) => Code::BodyTooLarge,
        PublishError::NotRunning => Code::ShuttingDown,
    };
    Problem::new(code, error.to_string()).into()
}

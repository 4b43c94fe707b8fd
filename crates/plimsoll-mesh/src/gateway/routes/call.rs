//! `POST /v1/call/{service}`.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;

use crate::gateway::connection_context::ConnectionContext;
use crate::gateway::lazy_timeout::{Elapsed, lazy_timeout};
use crate::gateway::request_body::{RequestBody, RequestStream};
use crate::gateway::request_failure::RequestFailure;
use crate::gateway::request_head::CallHead;
use crate::gateway::response::HttpResponse;
use crate::problem::{Code, Problem};
use crate::service::{Caller, Request};

/// Reads the body, dispatches the call and returns its response.
pub(crate) async fn call(
    context: &Arc<ConnectionContext>,
    head: CallHead,
    stream: &mut RequestStream,
) -> Result<HttpResponse, RequestFailure> {
    let state = &context.state;
    let deadline = Instant::now() + head.deadline;
    let body_timeout = state.limits.body_timeout.min(head.deadline);
    let read = lazy_timeout(body_timeout, RequestBody::read(context, stream, head.content_length)).await;
    let mut body = match read {
        Err(Elapsed) if body_timeout == head.deadline => {
            return Err(Problem::new(Code::Deadline, "the deadline passed before the body had arrived").into());
        }
        read => RequestBody::in_time(read)?,
    };
    let named = head.call_id.is_some();
    let call_id = head.call_id.unwrap_or_else(|| state.next_call_id());
    let request = Request {
        service: head.service,
        body: body.bytes(),
        content_type: head.content_type,
        deadline,
        call_id: Arc::clone(&call_id),
        traceparent: head.traceparent,
        caller: Caller::Client(context.session.number()),
    };
    let response = dispatch(context, request).await;
    Ok(if named { response.with_call_id(&call_id) } else { response })
}

fn dispatch(context: &ConnectionContext, request: Request) -> impl Future<Output = HttpResponse> + Send {
    let dispatch = &context.state.backends.dispatch;
    // The backend may panic as its future is made, or as it is polled; both are caught.
    let serving = std::panic::catch_unwind(AssertUnwindSafe(|| dispatch.dispatch(request)));
    async move {
        let Ok(serving) = serving else { return panicked(context) };
        let outcome = tokio::select! {
            biased;
            served = AssertUnwindSafe(serving).catch_unwind() => served,
            () = context.grace_passed.cancelled() => {
                context.state.requests.cut_off();
                Ok(Err(Problem::new(Code::ShuttingDown, "the node stopped before the call ended")))
            }
        };
        match outcome {
            Ok(Ok(response)) => HttpResponse::served(response),
            Ok(Err(problem)) => context.refuse(problem.into()),
            Err(_panic) => panicked(context),
        }
    }
}

fn panicked(context: &ConnectionContext) -> HttpResponse {
    context.state.requests.panicked();
    context.refuse(Problem::new(Code::WorkerPanicked, "the router panicked").into())
}

//! A call to a service of this node, and what its end means to a caller anywhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use plimsoll::bounded::LogThrottle;
use plimsoll::call::{CallClient, CallError, Died, Service};
use plimsoll::exit::{ExitReason, Failure};
use tracing::warn;

use crate::events::{EventKind, Events};
use crate::names::ServiceName;
use crate::problem::{Code, Problem};
use crate::service::{ApplicationError, Caller, Refusal, Request, Response};

/// A running service, whatever its type.
pub(crate) trait LocalProvider: Send + Sync + 'static {
    /// Calls it, by the request's deadline.
    fn call(&self, request: Request) -> BoxFuture<'static, Result<Response, Refusal>>;

    /// Whether it takes calls.
    fn is_open(&self) -> bool;
}

/// A service behind a call server.
pub(super) struct ServerProvider<S: Service> {
    client: CallClient<S>,
    reporter: Arc<Reporter>,
}

impl<S: Service> ServerProvider<S> {
    pub(super) fn new(client: CallClient<S>, reporter: Reporter) -> Self {
        Self { client, reporter: Arc::new(reporter) }
    }
}

impl<S> LocalProvider for ServerProvider<S>
where
    S: Service<Request = Request, Reply = Response, Error = ApplicationError>,
{
    fn call(&self, request: Request) -> BoxFuture<'static, Result<Response, Refusal>> {
        let (deadline, reporter) = (request.deadline, Arc::clone(&self.reporter));
        // A call that comes when the server takes no more is refused, not cut off.
        let of_peer = matches!(request.caller, Caller::Peer(_)) && self.client.is_open();
        let call = self.client.call_by(request, deadline);
        call.map(move |settled| settled.map_err(|error| reporter.refusal(error, of_peer))).boxed()
    }

    fn is_open(&self) -> bool {
        self.client.is_open()
    }
}

/// Logs and records what callers do not get in full: where a worker panicked, and that a limit was reached.
pub(super) struct Reporter {
    service: ServiceName,
    events: Events,
    cut_off: Arc<AtomicU64>,
    logged: Mutex<LogThrottle>,
}

impl Reporter {
    /// `cut_off` counts calls of peers that the stop of the service ends.
    pub(super) fn new(service: ServiceName, events: Events, cut_off: Arc<AtomicU64>) -> Self {
        Self { service, events, cut_off, logged: Mutex::default() }
    }

    fn refusal(&self, error: CallError<ApplicationError>, of_peer: bool) -> Refusal {
        match &error {
            // A client's call is counted where its response is sent.
            CallError::ShuttingDown
            | CallError::Died(Died::Exit(
                ExitReason::Killed | ExitReason::Shutdown | ExitReason::ShutdownWith { .. },
            )) if of_peer => {
                self.cut_off.fetch_add(1, Ordering::Relaxed);
            }
            CallError::Died(Died::Exit(ExitReason::Failed(failure))) => self.panicked(failure),
            CallError::Overloaded(_) => {
                self.events.record(EventKind::CapReached, None, &format!("service {}: {error}", self.service));
            }
            _ => {}
        }
        refusal(error)
    }

    fn panicked(&self, failure: &Failure) {
        let service = &self.service;
        self.events.record(EventKind::Panic, None, &format!("service {service}: {failure}"));
        if let Some(suppressed) = self.logged.lock().record(Instant::now()) {
            warn!(target: "plimsoll::mesh", %service, %failure, suppressed, "a worker failed");
        }
    }
}

/// The end of a call as a caller anywhere reads it. Where in the source a worker panicked stays on this node.
fn refusal(error: CallError<ApplicationError>) -> Refusal {
    let never_ran = error.never_ran();
    let detail = error.to_string();
    let problem = match error {
        CallError::App(refused) => Problem::application(refused),
        CallError::Overloaded(_) => Problem::new(Code::Overloaded, detail),
        CallError::Timeout => Problem::new(Code::Deadline, "the service did not reply by the deadline"),
        CallError::Died(Died::Exit(ExitReason::Failed(failure))) => {
            Problem::new(Code::WorkerPanicked, format!("the worker failed: {}", failure.message))
        }
        CallError::Died(Died::NoProcess) => Problem::new(Code::NoProvider, "the service's server has just ended"),
        CallError::Restarting => Problem::new(Code::NoProvider, "the service is being restarted"),
        CallError::ShuttingDown => Problem::new(Code::ShuttingDown, "the service is stopping"),
        CallError::Died(_) | CallError::Cancelled | CallError::Deadlock(_) => Problem::new(Code::WorkerDied, detail),
        _ => Problem::new(Code::WorkerDied, detail),
    };
    Refusal { problem, never_ran }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_of_a_call_has_its_code() {
        let own = ApplicationError { content_type: "text/plain".into(), body: "no".into() };
        let ends = [
            (CallError::App(own.clone()), Code::ApplicationError, false),
            (CallError::Timeout, Code::Deadline, false),
            (CallError::ShuttingDown, Code::ShuttingDown, false),
            (CallError::Died(Died::NoProcess), Code::NoProvider, true),
            (CallError::Restarting, Code::NoProvider, true),
            (CallError::Died(Died::NoReply), Code::WorkerDied, false),
            (CallError::Died(Died::Exit(ExitReason::Killed)), Code::WorkerDied, false),
            (CallError::Died(Died::Exit(ExitReason::Failed(Failure::new("boom")))), Code::WorkerPanicked, false),
            (CallError::Cancelled, Code::WorkerDied, false),
        ];
        for (end, code, never_ran) in ends {
            let refused = refusal(end.clone());
            assert_eq!((refused.problem.code, refused.never_ran), (code, never_ran), "{end:?}");
            assert_eq!(refused.problem.application.is_some(), matches!(end, CallError::App(_)));
        }
        let panicked = refusal(CallError::Died(Died::Exit(ExitReason::failed("boom"))));
        assert!(panicked.problem.detail.contains("boom"));
    }

    /// Issue 10, 4.9: the place of a panic is for the operator, and not for the caller.
    #[test]
    fn the_place_of_a_panic_is_recorded_and_not_sent_to_the_caller() {
        let events = Events::default();
        let reporter = Reporter::new("echo".parse().unwrap(), events.clone(), Arc::default());
        let failure = Failure::new("boom").at("src/secret.rs:7:1");
        let refused = reporter.refusal(CallError::Died(Died::Exit(ExitReason::Failed(failure))), false);
        assert!(refused.problem.detail.contains("boom") && !refused.problem.detail.contains("secret"));
        let event = events.latest(1).remove(0);
        assert_eq!(event.kind, EventKind::Panic);
        assert_eq!(event.reason.as_deref(), Some("service echo: boom at src/secret.rs:7:1"));
    }
}

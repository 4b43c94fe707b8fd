//! A call to a service of this node, and what its end means to a caller anywhere.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use plimsoll::call::{CallClient, CallError, Died, Service};
use plimsoll::exit::ExitReason;

use crate::problem::{Code, Problem};
use crate::service::{ApplicationError, Refusal, Request, Response};

/// A running service, whatever its type.
pub(crate) trait LocalProvider: Send + Sync + 'static {
    /// Calls it, by the request's deadline.
    fn call(&self, request: Request) -> BoxFuture<'static, Result<Response, Refusal>>;

    /// Whether it takes calls.
    fn is_open(&self) -> bool;
}

/// A service behind a call server.
pub(crate) struct ServerProvider<S: Service>(pub(crate) CallClient<S>);

impl<S> LocalProvider for ServerProvider<S>
where
    S: Service<Request = Request, Reply = Response, Error = ApplicationError>,
{
    fn call(&self, request: Request) -> BoxFuture<'static, Result<Response, Refusal>> {
        let deadline = request.deadline;
        self.0.call_by(request, deadline).map(|settled| settled.map_err(refusal)).boxed()
    }

    fn is_open(&self) -> bool {
        self.0.is_open()
    }
}

/// The end of a call as the mesh tells it.
fn refusal(error: CallError<ApplicationError>) -> Refusal {
    let never_ran = error.never_ran();
    let words = error.to_string();
    let problem = match error {
        CallError::App(refused) => Problem::application(refused),
        CallError::Overloaded(_) => Problem::new(Code::Overloaded, words),
        CallError::Timeout => Problem::new(Code::Deadline, "the service did not answer by the deadline"),
        CallError::Died(Died::Exit(ExitReason::Failed(failure))) => {
            // Where it panicked is for the log of this node.
            Problem::new(Code::WorkerPanicked, format!("the worker failed: {}", failure.message))
        }
        CallError::Died(Died::NoProcess) => Problem::new(Code::NoProvider, "the service's server has just ended"),
        CallError::ShuttingDown => Problem::new(Code::ShuttingDown, "the service is stopping"),
        CallError::Died(_) | CallError::Cancelled | CallError::Deadlock(_) => Problem::new(Code::WorkerDied, words),
        _ => Problem::new(Code::WorkerDied, words),
    };
    Refusal { problem, never_ran }
}

#[cfg(test)]
mod tests {
    use plimsoll::exit::Failure;

    use super::*;

    #[test]
    fn every_end_of_a_call_has_its_code() {
        let own = ApplicationError { content_type: "text/plain".into(), body: "no".into() };
        let ends = [
            (CallError::App(own.clone()), Code::ApplicationError, false),
            (CallError::Timeout, Code::Deadline, false),
            (CallError::ShuttingDown, Code::ShuttingDown, false),
            (CallError::Died(Died::NoProcess), Code::NoProvider, true),
            (CallError::Died(Died::NoReply), Code::WorkerDied, false),
            (CallError::Died(Died::Exit(ExitReason::Killed)), Code::WorkerDied, false),
            (CallError::Died(Died::Exit(ExitReason::Failed(Failure::new("boom")))), Code::WorkerPanicked, false),
            (CallError::Cancelled, Code::WorkerDied, false),
        ];
        for (end, code, never_ran) in ends {
            let told = refusal(end.clone());
            assert_eq!((told.problem.code, told.never_ran), (code, never_ran), "{end:?}");
            assert_eq!(told.problem.application.is_some(), matches!(end, CallError::App(_)));
        }
        let panicked =
            refusal(CallError::Died(Died::Exit(ExitReason::Failed(Failure::new("boom").at("src/x.rs:1:2")))));
        assert!(panicked.problem.detail.contains("boom") && !panicked.problem.detail.contains("src/x.rs"));
    }
}

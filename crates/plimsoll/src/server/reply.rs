//! The duty to answer a call.

use std::fmt;

use tokio::time::Instant;

use super::{Server, Serving};
use crate::call::CallError;
use crate::call::book::Outcome;
use crate::call::work::Work;

/// Answers one call. It can be kept for later or moved to another task; dropped without a reply, the call ends as
/// [`Died::NoReply`](crate::call::Died::NoReply).
///
/// A second reply cannot be expressed: a reply takes the handle.
#[must_use = "a reply handle that is dropped ends the call as `NoReply`"]
pub struct Reply<S: Server>(pub(crate) Work<Serving<S>>);

impl<S: Server> Reply<S> {
    /// Replies. Whether somebody still waited; a late reply is dropped and counted.
    pub fn ok(self, reply: S::Reply) -> bool {
        self.0.settle(Outcome::Reply, Ok(reply))
    }

    /// Answers with an error of the server's own. Whether somebody still waited.
    pub fn err(self, error: S::Error) -> bool {
        self.0.settle(Outcome::AppError, Err(CallError::App(error)))
    }

    /// Answers with either. Whether somebody still waited.
    pub fn send(self, answer: Result<S::Reply, S::Error>) -> bool {
        match answer {
            Ok(reply) => self.ok(reply),
            Err(error) => self.err(error),
        }
    }

    /// Whether somebody still waits for it.
    pub fn is_awaited(&self) -> bool {
        !self.0.call.cell.is_settled()
    }

    /// Until when.
    pub fn deadline(&self) -> Instant {
        self.0.call.deadline
    }
}

impl<S: Server> fmt::Debug for Reply<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("is_awaited", &self.is_awaited()).finish_non_exhaustive()
    }
}

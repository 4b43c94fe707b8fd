//! Replies: what a call handler returns, and the handle for a reply that comes later.

use std::fmt;

use tokio::time::Instant;

use super::GenServer;
use super::protocol::ServerProtocol;
use crate::call::CallError;
use crate::call::call_table::Outcome;
use crate::call::shared::BegunCall;

/// What a call handler returns.
pub enum Response<S: GenServer> {
    /// The reply.
    Reply(S::Reply),
    /// An error of this call; reaches the caller as [`CallError::App`].
    Error(S::Error),
    /// Nothing now: the handle from [`Context::take_reply`](super::Context::take_reply) replies. Without a taken handle the
    /// call ends as [`Died::NoReply`](crate::call::Died::NoReply).
    Later,
}

impl<S: GenServer> From<Result<S::Reply, S::Error>> for Response<S> {
    fn from(result: Result<S::Reply, S::Error>) -> Self {
        match result {
            Ok(reply) => Self::Reply(reply),
            Err(error) => Self::Error(error),
        }
    }
}

impl<S: GenServer> fmt::Debug for Response<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reply(_) => "Reply",
            Self::Error(_) => "Error",
            Self::Later => "Later",
        })
    }
}

/// The handle of a reply that comes later, from [`Context::take_reply`](super::Context::take_reply). It can be kept or moved
/// to another task. Dropped without a reply, the call ends as [`Died::NoReply`](crate::call::Died::NoReply).
///
/// A second reply cannot be expressed: a reply takes the handle.
#[must_use = "a reply handle that is dropped ends the call as `NoReply`"]
pub struct Reply<S: GenServer>(pub(crate) BegunCall<ServerProtocol<S>>);

impl<S: GenServer> Reply<S> {
    /// Replies. Returns whether the call was still open; a late reply is dropped and counted.
    pub fn ok(self, reply: S::Reply) -> bool {
        self.0.settle(Outcome::Reply, Ok(reply))
    }

    /// Ends the call with an error. Returns whether it was still open.
    pub fn err(self, error: S::Error) -> bool {
        self.0.settle(Outcome::AppError, Err(CallError::App(error)))
    }

    /// Ends the call with either. Returns whether it was still open.
    pub fn send(self, result: Result<S::Reply, S::Error>) -> bool {
        match result {
            Ok(reply) => self.ok(reply),
            Err(error) => self.err(error),
        }
    }

    /// Whether the call is still open.
    pub fn is_awaited(&self) -> bool {
        !self.0.call.cell.is_settled()
    }

    /// The deadline of the call.
    pub fn deadline(&self) -> Instant {
        self.0.call.deadline
    }
}

impl<S: GenServer> fmt::Debug for Reply<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("is_awaited", &self.is_awaited()).finish_non_exhaustive()
    }
}

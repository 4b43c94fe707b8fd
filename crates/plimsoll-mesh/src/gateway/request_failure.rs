//! Why a request has no successful response.

use h3::error::{Code as H3Code, StreamError};

use super::response::HttpProblem;

/// Why a request has no successful response.
pub(super) enum RequestFailure {
    /// The client gets this problem.
    Problem(Box<HttpProblem>),
    /// The client cancelled the request or left.
    Cancelled,
    /// The message is malformed, a frame of it was rejected, or the connection is lost: the stream is reset.
    Stream(StreamError),
}

impl<P: Into<HttpProblem>> From<P> for RequestFailure {
    fn from(problem: P) -> Self {
        Self::Problem(Box::new(problem.into()))
    }
}

impl RequestFailure {
    /// A stream that the client has reset is a cancelled request; the frame guard uses a code of its own.
    pub(super) fn of_stream(error: StreamError) -> Self {
        match error {
            StreamError::RemoteTerminate { code } if code != H3Code::H3_EXCESSIVE_LOAD => Self::Cancelled,
            error => Self::Stream(error),
        }
    }
}

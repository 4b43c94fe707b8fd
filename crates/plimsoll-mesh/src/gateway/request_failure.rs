//! Why a request has no successful response.

use h3::error::{Code as H3Code, StreamError};

use super::response::HttpProblem;
use crate::http3::FrameError;
use crate::problem::{Code, Problem};

/// Why a request has no successful response.
pub(super) enum RequestFailure {
    /// The client gets this problem.
    Problem(Box<HttpProblem>),
    /// The client cancelled the request or left.
    Cancelled,
    /// A frame of it was rejected, or the connection is lost: the stream is reset.
    Stream(StreamError),
    /// It is an error of the connection, which is closed.
    Connection(H3Code, String),
}

impl<P: Into<HttpProblem>> From<P> for RequestFailure {
    fn from(problem: P) -> Self {
        Self::Problem(Box::new(problem.into()))
    }
}

impl RequestFailure {
    /// A stream that the client has reset is a cancelled request; the frame guard uses a code and errors of its own.
    pub(super) fn of_stream(error: StreamError) -> Self {
        match error {
            StreamError::RemoteTerminate { code } if code != H3Code::H3_EXCESSIVE_LOAD => Self::Cancelled,
            StreamError::Undefined(error) => match error.downcast_ref::<FrameError>() {
                Some(FrameError::Unexpected { .. }) => Self::Connection(H3Code::H3_FRAME_UNEXPECTED, error.to_string()),
                Some(malformed @ FrameError::MalformedTrailers(_)) => {
                    Problem::new(Code::BadFrame, malformed.to_string()).into()
                }
                _ => Self::Stream(StreamError::Undefined(error)),
            },
            error => Self::Stream(error),
        }
    }
}

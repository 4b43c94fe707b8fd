//! The body of a response.

use std::fmt;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Frame;

use crate::origin::FetchError;

/// The source of the bytes of a response.
pub(crate) enum Body {
    /// No bytes.
    Empty,
    /// All bytes, shared with the cache.
    Bytes(Bytes),
    /// Pieces that arrive from the origin.
    Stream(BoxStream<'static, Result<Bytes, FetchError>>),
}

impl Body {
    /// The body in the type of hyper.
    pub(crate) fn into_http(self) -> UnsyncBoxBody<Bytes, FetchError> {
        match self {
            Self::Empty => Empty::new().map_err(|never| match never {}).boxed_unsync(),
            Self::Bytes(bytes) => Full::new(bytes).map_err(|never| match never {}).boxed_unsync(),
            Self::Stream(stream) => StreamBody::new(stream.map_ok(Frame::data)).boxed_unsync(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// one of three, and whole bytes reach hyper as they are.
    #[tokio::test]
    async fn a_body_is_one_of_three() {
        let image = Bytes::from_static(b"pixels");
        let sent = Body::Bytes(image.clone()).into_http().collect().await.unwrap().to_bytes();
        assert_eq!(sent.as_ptr(), image.as_ptr());
        assert!(Body::Empty.into_http().collect().await.unwrap().to_bytes().is_empty());
        let pieces = futures::stream::iter([Ok(Bytes::from("pix")), Ok(Bytes::from("els"))]);
        assert_eq!(Body::Stream(Box::pin(pieces)).into_http().collect().await.unwrap().to_bytes(), image);
    }
}

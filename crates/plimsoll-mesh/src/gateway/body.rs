//! Reading a request's body, within its cap and within the cap of all bodies together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::{Buf, Bytes, BytesMut};
use h3::error::StreamError;

use super::request::RequestStream;
use super::routes::body_too_large;
use super::{Limits, Shared};
use crate::problem::{Code, Problem};

/// Bytes of bodies held by all requests of a gateway.
#[derive(Debug)]
pub(super) struct Bodies {
    held: AtomicUsize,
    cap: usize,
}

impl Bodies {
    pub(super) const fn new(cap: usize) -> Self {
        Self { held: AtomicUsize::new(0), cap }
    }

    pub(super) fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    fn take(&self, more: usize) -> bool {
        // ORDERING: a count on its own; nothing else is published with it.
        let taken =
            self.held.fetch_update(Relaxed, Relaxed, |held| held.checked_add(more).filter(|&sum| sum <= self.cap));
        taken.is_ok()
    }
}

/// A body and its share of the bytes held, given back on drop.
#[derive(Debug)]
pub(super) struct Body {
    shared: Arc<Shared>,
    bytes: BytesMut,
    held: usize,
}

/// Why there is no body.
#[derive(Debug)]
pub(super) enum BodyError {
    /// The client is to be told.
    Refused(Problem),
    /// The stream is gone.
    Stream(StreamError),
}

impl Body {
    /// Reads to the end of the body. `announced` is its `content-length`, already within the cap.
    ///
    /// Not cancel safe: what was read is lost; the caller ends the request then.
    pub(super) async fn read(
        shared: &Arc<Shared>,
        stream: &mut RequestStream,
        announced: Option<usize>,
    ) -> Result<Self, BodyError> {
        let mut body = Self { shared: Arc::clone(shared), bytes: BytesMut::new(), held: 0 };
        while let Some(piece) = stream.recv_data().await.map_err(BodyError::Stream)? {
            body.push(piece, announced).map_err(BodyError::Refused)?;
        }
        match announced {
            // A message whose body contradicts its content-length is malformed (RFC 9114, 4.1.2).
            Some(announced) if announced != body.bytes.len() => {
                let detail = format!("content-length announces {announced} bytes, {} came", body.bytes.len());
                Err(BodyError::Refused(Problem::new(Code::BadFrame, detail)))
            }
            _ => Ok(body),
        }
    }

    fn push(&mut self, mut piece: impl Buf, announced: Option<usize>) -> Result<(), Problem> {
        let limits: &Limits = &self.shared.limits;
        let more = piece.remaining();
        if self.bytes.len() + more > limits.body_bytes {
            return Err(body_too_large(limits));
        }
        if !self.shared.bodies.take(more) {
            return Err(Problem::new(Code::Overloaded, "the bodies of all requests together are too large"));
        }
        self.held += more;
        if self.bytes.is_empty() {
            // What a client announces is reserved only up to what a window lets it send at once.
            self.bytes.reserve(announced.unwrap_or(more).min(limits.stream_window as usize).max(more));
        }
        // Copied, because a piece keeps the whole received datagram, or a batch of them, in memory.
        while piece.has_remaining() {
            let chunk = piece.chunk();
            self.bytes.extend_from_slice(chunk);
            let taken = chunk.len();
            piece.advance(taken);
        }
        Ok(())
    }

    /// The bytes, for the service. They count as held until this body is dropped.
    pub(super) fn bytes(&mut self) -> Bytes {
        self.bytes.split().freeze()
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.shared.bodies.held.fetch_sub(self.held, Relaxed);
    }
}

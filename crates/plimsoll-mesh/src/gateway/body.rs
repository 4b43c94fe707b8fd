//! Reading a request's body, within its cap and within the account of all bodies together.

use bytes::{Buf, Bytes, BytesMut};
use h3::error::StreamError;

use super::Limits;
use super::account::Charge;
use super::pump::Session;
use super::request::RequestStream;
use super::routes::body_too_large;
use crate::problem::{Code, Problem};

/// A body and its bytes in the account, given back on drop.
#[derive(Debug)]
pub(super) struct Body<'a> {
    limits: &'a Limits,
    charge: Charge<'a>,
    bytes: BytesMut,
}

/// Why there is no body.
#[derive(Debug)]
pub(super) enum BodyError {
    /// The client is to be told.
    Refused(Problem),
    /// The stream is gone.
    Stream(StreamError),
}

impl<'a> Body<'a> {
    /// Reads to the end of the body. `announced` is its `content-length`, already within the cap.
    ///
    /// Not cancel safe: what was read is lost; the caller ends the request then.
    pub(super) async fn read(
        session: &'a Session,
        stream: &mut RequestStream,
        announced: Option<usize>,
    ) -> Result<Self, BodyError> {
        let shared = &session.shared;
        let charge = shared.bodies.charge(&session.bodies);
        let mut body = Self { limits: &shared.limits, charge, bytes: BytesMut::new() };
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
        let more = piece.remaining();
        if self.bytes.len() + more > self.limits.body_bytes {
            return Err(body_too_large(self.limits));
        }
        self.charge.grow(more).map_err(|refused| refused.problem(Code::BodyTooLarge, refused.to_string()))?;
        if self.bytes.is_empty() {
            // What a client announces is reserved only up to what a window lets it send at once.
            self.bytes.reserve(announced.unwrap_or(more).min(self.limits.stream_window as usize).max(more));
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

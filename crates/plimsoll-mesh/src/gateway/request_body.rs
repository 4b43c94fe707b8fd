//! Reading a request's body, within its cap and within the byte budget of all bodies together.

use bytes::{Buf, Bytes, BytesMut};
use h3::server::RequestResolver;

use super::byte_budget::Reservation;
use super::connection_context::ConnectionContext;
use super::lazy_timeout::Elapsed;
use super::limits::Limits;
use super::request_failure::RequestFailure;
use super::request_head::{body_too_large, connection_specific_field};
use crate::http3::{BidiStream, Connection};
use crate::problem::{Code, Problem};

pub(super) type RequestStream = h3::server::RequestStream<BidiStream, Bytes>;
pub(super) type Resolver = RequestResolver<Connection, Bytes>;

/// A body and its reservation, released on drop.
#[derive(Debug)]
pub(super) struct RequestBody<'a> {
    limits: &'a Limits,
    reservation: Reservation<'a>,
    bytes: BytesMut,
}

impl<'a> RequestBody<'a> {
    /// Reads to the end of the body. `announced` is its `content-length`, already within the cap.
    ///
    /// Not cancel safe: what was read is lost; the caller ends the request then.
    pub(super) async fn read(
        context: &'a ConnectionContext,
        stream: &mut RequestStream,
        announced: Option<usize>,
    ) -> Result<Self, RequestFailure> {
        let state = &context.state;
        let reservation = state.body_bytes.reservation(&context.body_bytes);
        let mut body = Self { limits: &state.limits, reservation, bytes: BytesMut::new() };
        while let Some(data) = stream.recv_data().await.map_err(RequestFailure::of_stream)? {
            body.push(data, announced)?;
        }
        // What follows the body decides whether the message is valid (RFC 9114, 4.1).
        if let Some(trailers) = stream.recv_trailers().await.map_err(RequestFailure::of_stream)?
            && let Some(name) = connection_specific_field(&trailers)
        {
            let detail = format!("a trailer section with the field {name} is malformed in HTTP/3 (RFC 9114, 4.2)");
            return Err(Problem::new(Code::BadFrame, detail).into());
        }
        match announced {
            // A message whose body contradicts its content-length is malformed (RFC 9114, 4.1.2).
            Some(announced) if announced != body.bytes.len() => {
                let detail = format!("content-length announces {announced} bytes, {} came", body.bytes.len());
                Err(Problem::new(Code::BadFrame, detail).into())
            }
            _ => Ok(body),
        }
    }

    /// The result of a read within a time limit.
    pub(super) fn in_time(read: Result<Result<Self, RequestFailure>, Elapsed>) -> Result<Self, RequestFailure> {
        match read {
            Ok(read) => read,
            Err(Elapsed) => Err(Problem::new(Code::SlowRequest, "the body did not arrive in time").into()),
        }
    }

    fn push(&mut self, mut data: impl Buf, announced: Option<usize>) -> Result<(), Problem> {
        let more = data.remaining();
        if self.bytes.len() + more > self.limits.body_bytes {
            return Err(body_too_large(self.limits));
        }
        self.reservation.grow(more).map_err(|refused| refused.problem(Code::BodyTooLarge, refused.to_string()))?;
        if self.bytes.is_empty() {
            // An announced length is allocated only up to what a window lets the client send at once.
            self.bytes.reserve(announced.unwrap_or(more).min(self.limits.stream_window as usize).max(more));
        }
        // Copied, because a chunk keeps the whole received datagram, or a batch of them, in memory.
        while data.has_remaining() {
            let chunk = data.chunk();
            self.bytes.extend_from_slice(chunk);
            let taken = chunk.len();
            data.advance(taken);
        }
        Ok(())
    }

    /// The bytes, for the service. They stay reserved until this body is dropped.
    pub(super) fn bytes(&mut self) -> Bytes {
        self.bytes.split().freeze()
    }
}

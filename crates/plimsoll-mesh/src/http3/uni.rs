//! The unidirectional streams of the other side (RFC 9114, 6.2): sorted by their type before h3 sees them.
//!
//! h3 gets the control stream. QPACK streams are read here, because h3 never reads them. A stream of an unknown type is
//! stopped.

use std::future::Future as _;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use h3::error::Code;

use super::frame_guard::varint;
use super::qpack::{CriticalStreamError, QpackStream, QpackStreamKind};
use super::recv::RecvStream;
use super::{Role, quic_code};

const CONTROL: u64 = 0x0;
const PUSH: u64 = 0x1;
const QPACK_ENCODER: u64 = 0x2;
const QPACK_DECODER: u64 = 0x3;

/// The unidirectional streams that the other side has opened.
#[derive(Debug)]
pub(super) struct UniStreams {
    role: Role,
    /// Streams whose type is not complete. INVARIANT: at most as many as the transport allows at once.
    untyped: Vec<Untyped>,
    /// One of each kind at most.
    qpack: Vec<QpackStream>,
}

#[derive(Debug)]
struct Untyped {
    stream: quinn::RecvStream,
    bytes: BytesMut,
}

impl UniStreams {
    pub(super) const fn new(role: Role) -> Self {
        Self { role, untyped: Vec::new(), qpack: Vec::new() }
    }

    pub(super) fn add(&mut self, stream: quinn::RecvStream) {
        self.untyped.push(Untyped { stream, bytes: BytesMut::new() });
    }

    /// The control stream when it has come, or an error of the connection, which is closed with it.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        connection: &quinn::Connection,
    ) -> Poll<Result<RecvStream, CriticalStreamError>> {
        let polled = self.poll_all(cx, connection);
        if let Poll::Ready(Err(error)) = &polled {
            connection.close(quic_code(error.code.value()), error.reason.as_bytes());
        }
        polled
    }

    fn poll_all(
        &mut self,
        cx: &mut Context<'_>,
        connection: &quinn::Connection,
    ) -> Poll<Result<RecvStream, CriticalStreamError>> {
        let mut at = 0;
        while let Some(untyped) = self.untyped.get_mut(at) {
            match untyped.poll_type(cx) {
                Poll::Pending => at += 1,
                Poll::Ready(None) => drop(self.untyped.swap_remove(at)),
                Poll::Ready(Some((kind, size))) => {
                    let Untyped { mut stream, bytes } = self.untyped.swap_remove(at);
                    let mut rest = bytes.freeze();
                    let prefix = rest.split_to(size);
                    match kind {
                        CONTROL => return Poll::Ready(Ok(self.control(stream, connection, prefix, rest))),
                        PUSH if self.role == Role::Server => {
                            // RFC 9114, 6.2.2: only servers push.
                            return Poll::Ready(Err(creation_error("a client must not open a push stream")));
                        }
                        QPACK_ENCODER => self.add_qpack(stream, QpackStreamKind::Encoder, &rest)?,
                        QPACK_DECODER => self.add_qpack(stream, QpackStreamKind::Decoder, &rest)?,
                        // Never an error of the connection (RFC 9114, 6.2). Fails only when the stream has ended.
                        _ => drop(stream.stop(quic_code(Code::H3_STREAM_CREATION_ERROR.value()))),
                    }
                }
            }
        }
        for stream in &mut self.qpack {
            if let Poll::Ready(error) = stream.poll(cx) {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Pending
    }

    fn control(
        &self,
        stream: quinn::RecvStream,
        connection: &quinn::Connection,
        prefix: Bytes,
        rest: Bytes,
    ) -> RecvStream {
        let control = RecvStream::control(stream, connection.clone(), self.role, prefix, rest);
        #[cfg(plimsoll_controls)]
        let control = super::controls::received(control);
        control
    }

    fn add_qpack(
        &mut self,
        stream: quinn::RecvStream,
        kind: QpackStreamKind,
        rest: &[u8],
    ) -> Result<(), CriticalStreamError> {
        if self.qpack.iter().any(|known| known.kind() == kind) {
            return Err(creation_error("a second QPACK stream of a kind"));
        }
        self.qpack.push(QpackStream::new(stream, kind, rest)?);
        Ok(())
    }
}

fn creation_error(reason: &'static str) -> CriticalStreamError {
    CriticalStreamError { code: Code::H3_STREAM_CREATION_ERROR, reason }
}

impl Untyped {
    /// The type and its size. `None`: the stream ended before, which is no error (RFC 9114, 6.2).
    fn poll_type(&mut self, cx: &mut Context<'_>) -> Poll<Option<(u64, usize)>> {
        loop {
            if let Some(found) = varint(&self.bytes) {
                return Poll::Ready(Some(found));
            }
            // A transient future is enough: quinn keeps the waker by stream, not in the future.
            match pin!(self.stream.read_chunk(usize::MAX, true)).poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Some(chunk))) => self.bytes.extend_from_slice(&chunk.bytes),
                Poll::Ready(Ok(None) | Err(_)) => return Poll::Ready(None),
            }
        }
    }
}

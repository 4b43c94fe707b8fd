//! The sending half of a stream.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};

use super::{Role, connection_error, quic_code};

/// Frames up to this size are gathered and handed to quinn in one piece; larger ones go through without a copy here.
const GATHERED: usize = 4 * 1024;

/// A quinn send stream that resets itself when it is dropped without `finish`.
///
/// After `finish` it is left alone: a reset would take back what the other side has not acknowledged yet.
///
/// The head of a response waits for what follows it (body, trailers or the end), so that a whole answer is one write. A
/// response whose body is long in coming sends an empty piece first to let its head go.
pub struct SendStream {
    stream: quinn::SendStream,
    /// Small frames on their way out.
    gathered: BytesMut,
    /// A frame too large to be copied; it comes after what is gathered.
    large: Option<Box<WriteBuf<Bytes>>>,
    /// The next frame waits for the one after it.
    hold_next: bool,
    /// What is gathered waits for more.
    held: bool,
    role: Role,
    /// Finished or reset: nothing is owed to the other side.
    ended: bool,
}

impl SendStream {
    /// A unidirectional stream.
    pub(super) fn uni(stream: quinn::SendStream, role: Role) -> Self {
        Self::new(stream, role, false)
    }

    /// The sending half of a request or response.
    pub(super) fn bidi(stream: quinn::SendStream, role: Role) -> Self {
        Self::new(stream, role, role == Role::Server)
    }

    fn new(stream: quinn::SendStream, role: Role, hold_next: bool) -> Self {
        Self { stream, gathered: BytesMut::new(), large: None, hold_next, held: false, role, ended: false }
    }

    pub(super) fn quinn(&self) -> &quinn::SendStream {
        &self.stream
    }

    /// Hands everything to quinn.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        while !self.gathered.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.gathered)).map_err(write_error)?;
            self.gathered.advance(written);
        }
        if let Some(data) = &mut self.large {
            while data.has_remaining() {
                let written = ready!(Pin::new(&mut self.stream).poll_write(cx, data.chunk())).map_err(write_error)?;
                data.advance(written);
            }
        }
        self.large = None;
        Poll::Ready(Ok(()))
    }
}

impl quic::SendStream<Bytes> for SendStream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        if self.held {
            return Poll::Ready(Ok(()));
        }
        self.poll_flush(cx)
    }

    fn send_data<D: Into<WriteBuf<Bytes>>>(&mut self, data: D) -> Result<(), StreamErrorIncoming> {
        if self.large.is_some() || (!self.held && !self.gathered.is_empty()) {
            let connection_error = ConnectionErrorIncoming::InternalError("send_data before poll_ready".to_owned());
            return Err(StreamErrorIncoming::ConnectionErrorIncoming { connection_error });
        }
        let data = data.into();
        if data.remaining() <= GATHERED {
            // Room for a head and a small body at once.
            self.gathered.reserve(if self.hold_next { 512.max(data.remaining()) } else { data.remaining() });
            self.gathered.put(data);
        } else {
            self.large = Some(Box::new(data));
        }
        self.held = std::mem::take(&mut self.hold_next) && self.large.is_none();
        Ok(())
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.held = false;
        ready!(self.poll_flush(cx))?;
        self.stream.finish().map_err(|error| StreamErrorIncoming::Unknown(Box::new(error)))?;
        self.ended = true;
        Poll::Ready(Ok(()))
    }

    fn reset(&mut self, reset_code: u64) {
        self.ended = true;
        // Fails only when the stream has ended already.
        let _ = self.stream.reset(quic_code(reset_code));
    }

    fn send_id(&self) -> StreamId {
        stream_id(self.stream.id())
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.stream.reset(quic_code(self.role.reset_code().value()));
        }
    }
}

impl fmt::Debug for SendStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendStream").field("id", &self.stream.id()).field("ended", &self.ended).finish_non_exhaustive()
    }
}

/// INVARIANT: both sides hold a 62-bit number, so the conversion cannot fail.
pub(super) fn stream_id(id: quinn::StreamId) -> StreamId {
    StreamId::try_from(u64::from(id)).expect("a QUIC stream id is a valid HTTP/3 stream id")
}

fn write_error(error: quinn::WriteError) -> StreamErrorIncoming {
    match error {
        quinn::WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
        quinn::WriteError::ConnectionLost(error) => {
            StreamErrorIncoming::ConnectionErrorIncoming { connection_error: connection_error(error) }
        }
        other => StreamErrorIncoming::Unknown(Box::new(other)),
    }
}

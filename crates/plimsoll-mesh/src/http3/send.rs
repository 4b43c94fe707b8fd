//! The sending half of a stream.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use http::StatusCode;

use super::head::{put_data_header, put_head};
use super::{Role, connection_error, quic_code};

/// Frames up to this size are gathered and handed to quinn in one piece; larger ones go through without a copy here.
const GATHERED: usize = 4 * 1024;

/// A quinn send stream that resets itself when it is dropped without `finish`.
///
/// After `finish` it is not reset: a reset would discard what the other side has not acknowledged yet.
pub struct SendStream {
    stream: quinn::SendStream,
    /// Small frames not yet written.
    gathered: BytesMut,
    /// A frame too large to be copied, sent after what is gathered.
    large: Option<Box<WriteBuf<Bytes>>>,
    role: Role,
    /// Finished or reset.
    ended: bool,
}

impl SendStream {
    pub(super) fn new(stream: quinn::SendStream, role: Role) -> Self {
        Self { stream, gathered: BytesMut::new(), large: None, role, ended: false }
    }

    /// Sends a whole response, head and body, and finishes the stream. `content_type` and `fields` are plain ASCII.
    ///
    /// # Errors
    /// When the client has stopped reading, or is gone.
    ///
    /// Not cancel safe: what was sent until then is on the wire. Dropping the stream then resets it.
    pub(crate) async fn send_response(
        &mut self,
        status: StatusCode,
        content_type: &str,
        fields: &[(&'static str, String)],
        body: Bytes,
    ) -> Result<(), quinn::WriteError> {
        let mut out = BytesMut::with_capacity(128 + if body.len() <= GATHERED { body.len() } else { 0 });
        put_head(&mut out, status, content_type, fields);
        if !body.is_empty() {
            put_data_header(&mut out, body.len());
        }
        if body.len() <= GATHERED {
            out.put_slice(&body);
            self.stream.write_all(&out).await?;
        } else {
            self.stream.write_all_chunks(&mut [out.freeze(), body]).await?;
        }
        self.stream.finish()?;
        self.ended = true;
        Ok(())
    }

    /// Sends the head of a response whose body follows in DATA frames. `content_type` is plain ASCII.
    ///
    /// # Errors
    /// When the client has stopped reading, or is gone.
    ///
    /// Not cancel safe, like all sends here: reset the stream then.
    pub(crate) async fn send_head(&mut self, status: StatusCode, content_type: &str) -> Result<(), quinn::WriteError> {
        let mut out = BytesMut::with_capacity(128);
        put_head(&mut out, status, content_type, &[("cache-control", "no-store".to_owned())]);
        self.stream.write_all(&out).await
    }

    /// Sends a part of the body in one DATA frame, without copying it.
    ///
    /// # Errors
    /// When the client has stopped reading, or is gone.
    pub(crate) async fn send_data_frame(&mut self, data: Bytes) -> Result<(), quinn::WriteError> {
        let mut header = BytesMut::with_capacity(9);
        put_data_header(&mut header, data.len());
        self.stream.write_all_chunks(&mut [header.freeze(), data]).await
    }

    /// Finishes the body, and with it the response.
    pub(crate) fn finish(&mut self) {
        // Fails only when the stream has ended already.
        let _ = self.stream.finish();
        self.ended = true;
    }

    /// Resets the stream with a code.
    pub(crate) fn reset_with(&mut self, code: Code) {
        quic::SendStream::reset(self, code.value());
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
        self.poll_flush(cx)
    }

    fn send_data<D: Into<WriteBuf<Bytes>>>(&mut self, data: D) -> Result<(), StreamErrorIncoming> {
        if self.large.is_some() || !self.gathered.is_empty() {
            let connection_error = ConnectionErrorIncoming::InternalError("send_data before poll_ready".to_owned());
            return Err(StreamErrorIncoming::ConnectionErrorIncoming { connection_error });
        }
        let data = data.into();
        if data.remaining() <= GATHERED {
            self.gathered.reserve(data.remaining());
            self.gathered.put(data);
        } else {
            self.large = Some(Box::new(data));
        }
        Ok(())
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
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

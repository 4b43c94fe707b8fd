//! The receiving half of a stream.

use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId};

use super::guard::{FrameGuard, Oversized, varint};
use super::{Role, connection_error, quic_code};

/// A quinn receive stream under the frame guard.
///
/// Dropped before its end, it sends STOP_SENDING.
#[derive(Debug)]
pub struct RecvStream {
    stream: quinn::RecvStream,
    /// Read from the stream, not scanned yet.
    unscanned: Bytes,
    watch: Watch,
    role: Role,
    ended: bool,
    refused: bool,
}

/// What is checked in the bytes that pass.
#[derive(Debug)]
enum Watch {
    /// The frames of a request or response.
    Frames(FrameGuard),
    /// A unidirectional stream whose type is not complete.
    UniType { connection: quinn::Connection, seen: [u8; 8], len: u8 },
    /// The frames of the peer's control stream.
    Control { connection: quinn::Connection, guard: FrameGuard },
    /// Nothing: QPACK streams are never read, so flow control bounds them; unknown ones are stopped.
    Nothing,
}

impl RecvStream {
    pub(super) fn request(stream: quinn::RecvStream, role: Role) -> Self {
        let off = crate::controls::switched_off("frame-guard");
        let watch = if off { Watch::Nothing } else { Watch::Frames(FrameGuard::request()) };
        Self { stream, unscanned: Bytes::new(), watch, role, ended: false, refused: false }
    }

    pub(super) fn uni(stream: quinn::RecvStream, connection: quinn::Connection, role: Role) -> Self {
        let off = crate::controls::switched_off("frame-guard");
        let watch = if off { Watch::Nothing } else { Watch::UniType { connection, seen: [0; 8], len: 0 } };
        Self { stream, unscanned: Bytes::new(), watch, role, ended: false, refused: false }
    }

    /// Whether the guard has refused a frame of this stream.
    pub(super) fn was_refused(&self) -> bool {
        self.refused
    }

    fn poll_unscanned(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, StreamErrorIncoming>> {
        if self.unscanned.is_empty() {
            // A transient future is enough: quinn keeps the waker by stream, not in the future.
            match ready!(pin!(self.stream.read_chunk(usize::MAX, true)).poll(cx)) {
                Ok(Some(chunk)) => self.unscanned = chunk.bytes,
                Ok(None) => {
                    self.ended = true;
                    return Poll::Ready(Ok(false));
                }
                Err(error) => {
                    self.ended = true;
                    return Poll::Ready(Err(read_error(error)));
                }
            }
        }
        Poll::Ready(Ok(true))
    }

    /// Ends the stream, or the connection if the frame came on the control stream: that one cannot be stopped
    /// (RFC 9114, 6.2.1), so nothing less keeps its bytes out of memory.
    fn refuse(&mut self, oversized: Oversized) -> StreamErrorIncoming {
        tracing::info!(target: "plimsoll::mesh", %oversized, "frame refused");
        self.unscanned.clear();
        self.refused = true;
        let code = Code::H3_EXCESSIVE_LOAD.value();
        if let Watch::Control { connection, .. } = &self.watch {
            connection.close(quic_code(code), oversized.to_string().as_bytes());
            let connection_error = ConnectionErrorIncoming::Undefined(std::sync::Arc::new(oversized));
            return StreamErrorIncoming::ConnectionErrorIncoming { connection_error };
        }
        quic::RecvStream::stop_sending(self, code);
        StreamErrorIncoming::StreamTerminated { error_code: code }
    }

    /// Follows the type of a unidirectional stream; passes its bytes on as they come.
    fn uni_type(&mut self) -> Bytes {
        let Watch::UniType { connection, seen, len } = &mut self.watch else {
            return std::mem::take(&mut self.unscanned);
        };
        let before = usize::from(*len);
        let fresh = self.unscanned.len().min(seen.len() - before);
        seen[before..before + fresh].copy_from_slice(&self.unscanned[..fresh]);
        let Some((kind, size)) = varint(&seen[..before + fresh]) else {
            *len += fresh as u8;
            return std::mem::take(&mut self.unscanned);
        };
        const CONTROL: u64 = 0x0;
        const PUSH: u64 = 0x1;
        let connection = connection.clone();
        if kind == PUSH && self.role == Role::Server {
            // RFC 9114, 6.2.2: only servers push.
            let code = quic_code(Code::H3_STREAM_CREATION_ERROR.value());
            connection.close(code, b"a client must not open a push stream");
        }
        self.watch = match kind {
            CONTROL => Watch::Control { connection, guard: FrameGuard::control() },
            _ => Watch::Nothing,
        };
        self.unscanned.split_to(size - before)
    }
}

impl quic::RecvStream for RecvStream {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        loop {
            if !ready!(self.poll_unscanned(cx))? {
                let rest = match &mut self.watch {
                    Watch::Frames(guard) | Watch::Control { guard, .. } => guard.unfinished(),
                    Watch::UniType { .. } | Watch::Nothing => None,
                };
                return Poll::Ready(Ok(rest));
            }
            let passed = match &mut self.watch {
                Watch::Frames(guard) | Watch::Control { guard, .. } => guard.scan(&mut self.unscanned),
                Watch::UniType { .. } => Ok(Some(self.uni_type())),
                Watch::Nothing => Ok(Some(std::mem::take(&mut self.unscanned))),
            };
            match passed {
                Ok(None) => {}
                Ok(passed) => return Poll::Ready(Ok(passed)),
                Err(oversized) => return Poll::Ready(Err(self.refuse(oversized))),
            }
        }
    }

    fn stop_sending(&mut self, error_code: u64) {
        self.ended = true;
        // Fails only when the stream has ended.
        let _ = self.stream.stop(quic_code(error_code));
    }

    fn recv_id(&self) -> StreamId {
        super::send::stream_id(self.stream.id())
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        if !self.ended {
            // Without this, quinn stops the stream with code 0, which is not a code of HTTP/3.
            let _ = self.stream.stop(quic_code(self.role.stop_code().value()));
        }
    }
}

fn read_error(error: quinn::ReadError) -> StreamErrorIncoming {
    match error {
        quinn::ReadError::Reset(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
        quinn::ReadError::ConnectionLost(error) => {
            StreamErrorIncoming::ConnectionErrorIncoming { connection_error: connection_error(error) }
        }
        other => StreamErrorIncoming::Unknown(Box::new(other)),
    }
}

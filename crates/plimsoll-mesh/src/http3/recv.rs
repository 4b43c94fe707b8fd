//! The receiving half of a stream.

use std::future::Future as _;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId};

use super::frame_guard::{FrameError, FrameGuard, Oversized};
use super::{Role, connection_error, quic_code};

/// Bytes of incomplete HEADERS frames that the streams of one connection may hold together. h3 buffers such a frame until it
/// is complete.
pub const CONNECTION_HEADERS_CAP: u64 = 128 * 1024;

/// A quinn receive stream under the frame guard.
///
/// Dropped before its end, it sends STOP_SENDING.
#[derive(Debug)]
pub struct RecvStream {
    stream: quinn::RecvStream,
    /// Passed on before anything else, without a check: the type of a unidirectional stream.
    prefix: Bytes,
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
    Message { guard: FrameGuard, headers: HeaderBytes },
    /// The frames of the peer's control stream.
    Control { connection: quinn::Connection, guard: FrameGuard },
    /// Nothing.
    #[cfg(plimsoll_controls)]
    Nothing,
}

/// What this stream holds of [`CONNECTION_HEADERS_CAP`]; released on drop.
#[derive(Debug)]
struct HeaderBytes {
    connection: Arc<AtomicU64>,
    held: u64,
}

impl RecvStream {
    /// The receiving half of a request or response. `headers` counts the bytes of incomplete HEADERS frames of its connection.
    pub(super) fn message(stream: quinn::RecvStream, role: Role, headers: Arc<AtomicU64>) -> Self {
        let guard = match role {
            Role::Server => FrameGuard::request(),
            Role::Client => FrameGuard::response(),
        };
        let watch = Watch::Message { guard, headers: HeaderBytes { connection: headers, held: 0 } };
        Self::new(stream, role, watch, Bytes::new(), Bytes::new())
    }

    /// The peer's control stream. `prefix` is its type, `rest` what came with it.
    pub(super) fn control(
        stream: quinn::RecvStream,
        connection: quinn::Connection,
        role: Role,
        prefix: Bytes,
        rest: Bytes,
    ) -> Self {
        let guard = match role {
            Role::Server => FrameGuard::client_control(),
            Role::Client => FrameGuard::server_control(),
        };
        Self::new(stream, role, Watch::Control { connection, guard }, prefix, rest)
    }

    fn new(stream: quinn::RecvStream, role: Role, watch: Watch, prefix: Bytes, unscanned: Bytes) -> Self {
        Self { stream, prefix, unscanned, watch, role, ended: false, refused: false }
    }

    /// The stream without its guard.
    #[cfg(plimsoll_controls)]
    pub(crate) fn without_guard(mut self) -> Self {
        self.watch = Watch::Nothing;
        self
    }

    /// Whether the guard has refused a frame of this stream for its size.
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

    /// Stops reading after an invalid frame. On the control stream the connection is closed, because that stream cannot be
    /// stopped (RFC 9114, 6.2.1).
    fn refuse(&mut self, error: FrameError) -> StreamErrorIncoming {
        tracing::info!(target: "plimsoll::mesh", %error, "frame refused");
        self.unscanned.clear();
        let code = match &error {
            FrameError::Oversized(_) => Code::H3_EXCESSIVE_LOAD,
            FrameError::PushId(_) => Code::H3_ID_ERROR,
            FrameError::Unexpected { .. } => Code::H3_FRAME_UNEXPECTED,
            FrameError::MalformedTrailers(_) => Code::H3_MESSAGE_ERROR,
        };
        if let Watch::Control { connection, .. } = &self.watch {
            connection.close(quic_code(code.value()), error.to_string().as_bytes());
            let connection_error = ConnectionErrorIncoming::Undefined(Arc::new(error));
            return StreamErrorIncoming::ConnectionErrorIncoming { connection_error };
        }
        quic::RecvStream::stop_sending(self, code.value());
        match error {
            FrameError::Oversized(_) => {
                self.refused = true;
                StreamErrorIncoming::StreamTerminated { error_code: code.value() }
            }
            // The holder of the request decides between an error of the stream and one of the connection.
            error => StreamErrorIncoming::Unknown(Box::new(error)),
        }
    }
}

impl HeaderBytes {
    /// Holds as many bytes as an incomplete HEADERS frame may need.
    fn hold(&mut self, bytes: u64) -> Result<(), FrameError> {
        if bytes == self.held {
            return Ok(());
        }
        self.connection.fetch_sub(self.held, Relaxed);
        self.held = bytes;
        let held = self.connection.fetch_add(bytes, Relaxed) + bytes;
        if bytes > 0 && held > CONNECTION_HEADERS_CAP {
            return Err(Oversized { kind: 0x1, announced: held, cap: CONNECTION_HEADERS_CAP }.into());
        }
        Ok(())
    }
}

impl Drop for HeaderBytes {
    fn drop(&mut self) {
        self.connection.fetch_sub(self.held, Relaxed);
    }
}

impl quic::RecvStream for RecvStream {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        if !self.prefix.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.prefix))));
        }
        loop {
            if !ready!(self.poll_unscanned(cx))? {
                let rest = match &mut self.watch {
                    Watch::Message { guard, .. } | Watch::Control { guard, .. } => guard.unfinished(),
                    #[cfg(plimsoll_controls)]
                    Watch::Nothing => None,
                };
                return Poll::Ready(Ok(rest));
            }
            let passed = match &mut self.watch {
                Watch::Message { guard, headers } => guard
                    .scan(&mut self.unscanned)
                    .and_then(|passed| headers.hold(guard.incomplete_headers()).map(|()| passed)),
                Watch::Control { guard, .. } => guard.scan(&mut self.unscanned),
                #[cfg(plimsoll_controls)]
                Watch::Nothing => Ok(Some(std::mem::take(&mut self.unscanned))),
            };
            match passed {
                Ok(None) => {}
                Ok(passed) => return Poll::Ready(Ok(passed)),
                Err(error) => return Poll::Ready(Err(self.refuse(error))),
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

//! A connection, and how streams are accepted and opened on it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::stream::{self, Stream};
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, SendStream as _, StreamErrorIncoming, StreamId, WriteBuf};

use super::recv::RecvStream;
use super::send::SendStream;
use super::uni::UniStreams;
use super::{Role, connection_error, quic_code};

/// quinn's accept and open futures have a position in a queue, so each lives on in a box between polls.
type Accepting<T> = Pin<Box<dyn Stream<Item = Result<T, quinn::ConnectionError>> + Send + Sync>>;
type Opening<T> = Pin<Box<dyn Future<Output = Result<T, quinn::ConnectionError>> + Send + Sync>>;
type BidiPair = (quinn::SendStream, quinn::RecvStream);

/// A quinn connection with the interface that h3 needs.
pub struct Connection {
    open: OpenStreams,
    accepting_bidi: Accepting<BidiPair>,
    accepting_uni: Accepting<quinn::RecvStream>,
    uni: UniStreams,
}

impl Connection {
    /// The server's side of `connection`.
    pub fn server(connection: quinn::Connection) -> Self {
        Self::new(connection, Role::Server)
    }

    /// The client's side of `connection`.
    pub fn client(connection: quinn::Connection) -> Self {
        Self::new(connection, Role::Client)
    }

    fn new(connection: quinn::Connection, role: Role) -> Self {
        let accepting_bidi = Box::pin(stream::unfold(connection.clone(), |connection| async {
            Some((connection.accept_bi().await, connection))
        }));
        let accepting_uni = Box::pin(stream::unfold(connection.clone(), |connection| async {
            Some((connection.accept_uni().await, connection))
        }));
        let open = OpenStreams::new(connection, role, Arc::default());
        Self { open, accepting_bidi, accepting_uni, uni: UniStreams::new(role) }
    }
}

impl quic::Connection<Bytes> for Connection {
    type RecvStream = RecvStream;
    type OpenStreams = OpenStreams;

    fn poll_accept_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<BidiStream, ConnectionErrorIncoming>> {
        let accepted = ready!(self.accepting_bidi.as_mut().poll_next(cx)).unwrap_or(Err(QUEUE_ENDED));
        Poll::Ready(accepted.map(|pair| self.open.bidi_stream(pair)).map_err(connection_error))
    }

    fn poll_accept_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<RecvStream, ConnectionErrorIncoming>> {
        loop {
            match self.accepting_uni.as_mut().poll_next(cx) {
                Poll::Ready(Some(Ok(stream))) => self.uni.add(stream),
                Poll::Ready(accepted) => {
                    let error = accepted.and_then(Result::err).unwrap_or(QUEUE_ENDED);
                    return Poll::Ready(Err(connection_error(error)));
                }
                Poll::Pending => break,
            }
        }
        let polled = ready!(self.uni.poll(cx, &self.open.connection));
        Poll::Ready(polled.map_err(|_closed| connection_error(quinn::ConnectionError::LocallyClosed)))
    }

    fn opener(&self) -> OpenStreams {
        self.open.clone()
    }
}

/// The error of an accept queue that has ended; quinn's never end.
const QUEUE_ENDED: quinn::ConnectionError = quinn::ConnectionError::LocallyClosed;

impl quic::OpenStreams<Bytes> for Connection {
    type BidiStream = BidiStream;
    type SendStream = SendStream;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<BidiStream, StreamErrorIncoming>> {
        self.open.poll_open_bidi(cx)
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<SendStream, StreamErrorIncoming>> {
        self.open.poll_open_send(cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.open.close(code, reason);
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("open", &self.open).finish_non_exhaustive()
    }
}

/// Opens streams on a connection. Cloning shares the connection.
pub struct OpenStreams {
    connection: quinn::Connection,
    role: Role,
    /// Bytes of incomplete HEADERS frames on all streams of the connection.
    headers: Arc<AtomicU64>,
    opening_bidi: Option<Opening<BidiPair>>,
    opening_uni: Option<Opening<quinn::SendStream>>,
}

impl OpenStreams {
    fn new(connection: quinn::Connection, role: Role, headers: Arc<AtomicU64>) -> Self {
        Self { connection, role, headers, opening_bidi: None, opening_uni: None }
    }

    fn bidi_stream(&self, (send, recv): BidiPair) -> BidiStream {
        let recv = RecvStream::message(recv, self.role, Arc::clone(&self.headers));
        #[cfg(plimsoll_controls)]
        let recv = super::controls::received(recv);
        BidiStream { send: Some(SendStream::new(send, self.role)), recv }
    }
}

impl quic::OpenStreams<Bytes> for OpenStreams {
    type BidiStream = BidiStream;
    type SendStream = SendStream;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<BidiStream, StreamErrorIncoming>> {
        let connection = &self.connection;
        let opening = self.opening_bidi.get_or_insert_with(|| {
            let connection = connection.clone();
            Box::pin(async move { connection.open_bi().await })
        });
        let opened = ready!(opening.as_mut().poll(cx));
        self.opening_bidi = None;
        Poll::Ready(opened.map(|pair| self.bidi_stream(pair)).map_err(open_error))
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<SendStream, StreamErrorIncoming>> {
        let connection = &self.connection;
        let opening = self.opening_uni.get_or_insert_with(|| {
            let connection = connection.clone();
            Box::pin(async move { connection.open_uni().await })
        });
        let opened = ready!(opening.as_mut().poll(cx));
        self.opening_uni = None;
        Poll::Ready(opened.map(|send| SendStream::new(send, self.role)).map_err(open_error))
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.connection.close(quic_code(code.value()), reason);
    }
}

fn open_error(error: quinn::ConnectionError) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming { connection_error: connection_error(error) }
}

impl Clone for OpenStreams {
    fn clone(&self) -> Self {
        Self::new(self.connection.clone(), self.role, Arc::clone(&self.headers))
    }
}

impl fmt::Debug for OpenStreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenStreams").field("role", &self.role).finish_non_exhaustive()
    }
}

/// How a sending half ended on the other side.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamEnd {
    /// The other side stopped reading, with this code.
    Stopped(u64),
    /// The other side has acknowledged everything.
    Acknowledged,
    /// The connection is lost.
    ConnectionLost(quinn::ConnectionError),
}

/// Both halves of a request; or the receiving half alone, once the other was taken.
#[derive(Debug)]
pub struct BidiStream {
    send: Option<SendStream>,
    recv: RecvStream,
}

impl BidiStream {
    /// Takes the sending half. After that, what h3 sends on this stream is discarded, and the holder of the sending half
    /// has to send a response or a reset: h3's errors say which.
    pub fn take_send(&mut self) -> Option<SendStream> {
        self.send.take()
    }

    /// Completes when the other side stops reading, has read everything, or is gone.
    ///
    /// The only sign that a client leaves after it has sent its whole request. The future is independent of the stream and
    /// completes once the stream is reset or acknowledged. Never, if the sending half was taken before.
    ///
    /// Cancel safe: it only watches.
    pub fn stopped(&self) -> impl Future<Output = StreamEnd> + Send + Sync + 'static {
        let stopped = self.send.as_ref().map(|send| send.quinn().stopped());
        async move {
            let Some(stopped) = stopped else { return std::future::pending().await };
            match stopped.await {
                Ok(Some(code)) => StreamEnd::Stopped(code.into_inner()),
                Ok(None) => StreamEnd::Acknowledged,
                Err(quinn::StoppedError::ConnectionLost(error)) => StreamEnd::ConnectionLost(error),
                Err(quinn::StoppedError::ZeroRttRejected) => StreamEnd::ConnectionLost(quinn::ConnectionError::Reset),
            }
        }
    }
}

impl quic::RecvStream for BidiStream {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        let polled = self.recv.poll_data(cx);
        if self.recv.was_refused() {
            self.reset(Code::H3_EXCESSIVE_LOAD.value());
        }
        polled
    }

    fn stop_sending(&mut self, error_code: u64) {
        self.recv.stop_sending(error_code);
    }

    fn recv_id(&self) -> StreamId {
        quic::RecvStream::recv_id(&self.recv)
    }
}

impl quic::SendStream<Bytes> for BidiStream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.as_mut().map_or(Poll::Ready(Ok(())), |send| send.poll_ready(cx))
    }

    fn send_data<D: Into<WriteBuf<Bytes>>>(&mut self, data: D) -> Result<(), StreamErrorIncoming> {
        self.send.as_mut().map_or(Ok(()), |send| send.send_data(data))
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.as_mut().map_or(Poll::Ready(Ok(())), |send| send.poll_finish(cx))
    }

    fn reset(&mut self, reset_code: u64) {
        if let Some(send) = &mut self.send {
            quic::SendStream::reset(send, reset_code);
        }
    }

    fn send_id(&self) -> StreamId {
        quic::RecvStream::recv_id(&self.recv)
    }
}

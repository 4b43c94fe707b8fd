//! The driver of a connection: the one task that drives h3's accept.
//!
//! It accepts streams, starts a task for each, owns these tasks, and drains the connection at its end: GOAWAY, time for
//! requests in flight, `503 shutting_down` for the rest, close.

use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h3::error::{Code as H3Code, ConnectionError};
use h3::frame::FrameStream;
use h3::stream::BufRecvStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client_activity::Disconnect;
use super::connection_context::ConnectionContext;
use super::handle_request::handle_request;
use super::handshake::close;
use super::limits::CLOSE_TIMEOUT;
use super::sessions::ClientSession;
use super::state::GatewayState;
use crate::http3::{BidiStream, Connection};

type H3 = h3::server::Connection<Connection, Bytes>;

/// Serves the requests of `connection` until it ends, or, once `stop` is cancelled, until the requests in flight are served
/// or `grace` has passed.
///
/// Not cancel safe: dropping the future closes the connection and ends its requests.
pub(super) async fn run(
    state: Arc<GatewayState>,
    session: ClientSession,
    connection: quinn::Connection,
    stop: CancellationToken,
    grace: Duration,
) {
    let builder = state.limits.h3();
    let built = builder.build(Connection::server(connection.clone()));
    let built = timeout(state.limits.header_timeout, built).await;
    let Ok(Ok(h3)) = built else {
        return close(&connection, H3Code::H3_CLOSED_CRITICAL_STREAM, "the control stream could not be opened");
    };
    let context = Arc::new(ConnectionContext::new(state, connection.clone(), session));
    let mut driver = ConnectionDriver { h3, context, tasks: TaskTracker::new() };
    let (code, reason) = match driver.serve(&stop).await {
        Ok(End::Stopped) => {
            driver.drain(grace).await;
            (H3Code::H3_NO_ERROR, "the node is stopping")
        }
        Ok(End::Client) => (H3Code::H3_NO_ERROR, "the client sent GOAWAY and has its responses"),
        Ok(End::Disconnect(reason)) => {
            driver.context.state.disconnected(reason);
            (reason.code(), reason.reason())
        }
        Err(error) => {
            tracing::debug!(target: "plimsoll::mesh", %error, "connection ended");
            // Each request notices that its client is gone, and cancels its call.
            driver.tasks.close();
            let _ = timeout(CLOSE_TIMEOUT, driver.tasks.wait()).await;
            return;
        }
    };
    close(&connection, code, reason);
}

/// Why a connection is no longer served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The gateway stops.
    Stopped,
    /// The client is done.
    Client,
    /// The gateway disconnects the client.
    Disconnect(Disconnect),
}

/// Dropping it closes the connection (h3 does), which ends all requests: each waits on its stream or watches it.
struct ConnectionDriver {
    h3: H3,
    context: Arc<ConnectionContext>,
    /// INVARIANT: at most as many as the client may have streams open (`Limits::bidi_streams`).
    tasks: TaskTracker,
}

impl ConnectionDriver {
    /// Serves until the end of the connection; `Err` when it is lost.
    ///
    /// After a client's GOAWAY the connection is not closed at once, as closing discards what the client has not
    /// acknowledged. The client has [`Limits::response_timeout`](super::Limits::response_timeout) to close it.
    async fn serve(&mut self, stop: &CancellationToken) -> Result<End, ConnectionError> {
        let activity = Arc::clone(&self.context.activity);
        let mut stopped = std::pin::pin!(stop.cancelled());
        let mut disconnected = std::pin::pin!(activity.disconnected());
        let mut close_at = None;
        loop {
            tokio::select! {
                biased;
                // Before accept: a client that floods the connection is always ready there.
                reason = &mut disconnected => return Ok(End::Disconnect(reason)),
                accepted = poll_fn(|cx| self.poll_accept(cx, close_at.is_some())) => match accepted? {
                    Some(stream) => {
                        close_at = None;
                        self.spawn_request(stream);
                    }
                    None => close_at = Some(Instant::now() + self.context.state.limits.response_timeout),
                },
                () = &mut stopped => return Ok(End::Stopped),
                () = sleep_until_some(close_at) => {
                    self.h3.shutdown(0).await?;
                    return Ok(End::Client);
                }
            }
        }
    }

    /// The next request; `None` when the client has sent GOAWAY and waits for no response. h3 returns that on every poll; it
    /// is passed on only while it is not `known`.
    fn poll_accept(&mut self, cx: &mut Context<'_>, known: bool) -> Poll<Result<Option<BidiStream>, ConnectionError>> {
        match self.h3.poll_accept_request_stream(cx) {
            // h3 wakes for the next stream all the same.
            Poll::Ready(Ok(None)) if known => Poll::Pending,
            polled => polled,
        }
    }

    fn spawn_request(&mut self, mut stream: BidiStream) {
        let stream_end = Box::pin(stream.stopped());
        #[cfg(plimsoll_controls)]
        let stream_end = super::controls::stream_end(stream_end);
        let Some(send) = stream.take_send() else { return };
        let resolver = self.h3.create_resolver(FrameStream::new(BufRecvStream::new(stream)));
        self.tasks.spawn(handle_request(Arc::clone(&self.context), resolver, send, stream_end));
    }

    /// Sends GOAWAY, responds to requests received until then with 503, and gives requests in flight `grace`.
    async fn drain(&mut self, grace: Duration) {
        let end = Instant::now() + grace;
        self.context.draining.cancel();
        self.context.state.close_admission_if_stopping();
        // As many requests as may be on their way get a response instead of a rejected stream.
        let on_their_way = self.context.state.limits.bidi_streams();
        if !matches!(timeout(CLOSE_TIMEOUT, self.h3.shutdown(on_their_way)).await, Ok(Ok(()))) {
            return;
        }
        let late_requests_end = Instant::now() + CLOSE_TIMEOUT;
        if self.serve_until(late_requests_end.min(end), false).await && self.serve_until(end, true).await {
            self.context.grace_passed.cancel();
            self.serve_until(end + CLOSE_TIMEOUT, true).await;
        }
    }

    /// Serves until `end`, or until nothing is in flight if `until_idle` is set; `false` when the connection is lost.
    async fn serve_until(&mut self, end: Instant, until_idle: bool) -> bool {
        let tasks = self.tasks.clone();
        tasks.close();
        loop {
            tokio::select! {
                biased;
                accepted = poll_fn(|cx| self.poll_accept(cx, true)) => match accepted {
                    Ok(Some(stream)) => self.spawn_request(stream),
                    Ok(None) | Err(_) => return false,
                },
                () = tasks.wait(), if until_idle => return true,
                () = sleep_until(end) => return true,
            }
        }
    }
}

/// Waits until `deadline`; without one, for ever.
async fn sleep_until_some(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

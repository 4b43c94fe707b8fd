//! The pump of a connection: the one task that drives h3's accept.
//!
//! It takes streams as they come, starts a task for each, owns these tasks, and leads the connection through its end:
//! GOAWAY, time for what is in flight, `503 shutting_down` for the rest, close.

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

use super::account::Share;
use super::listener::close;
use super::sessions::Entered;
use super::{Shared, request};
use crate::http3::{BidiStream, Connection};

/// How long the end of a connection waits for the client: to acknowledge the last answers, or to send what it had sent
/// before it heard that the node stops.
pub(super) const FAREWELL: Duration = Duration::from_millis(200);

/// What the tasks of one connection share.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) shared: Arc<Shared>,
    pub(super) client: Entered,
    /// What its requests hold of the two accounts.
    pub(super) bodies: Share,
    pub(super) answers: Share,
    /// Cancelled when the connection begins its end.
    pub(super) draining: CancellationToken,
    /// Ends the calls still in flight when the grace is over.
    pub(super) expire: CancellationToken,
}

impl Session {
    pub(super) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }
}

type H3 = h3::server::Connection<Connection, Bytes>;

/// Serves the requests of `connection` until it ends, or, once `stop` is cancelled, until what is in flight is served
/// or `grace` is over.
///
/// Not cancel safe: dropped, it closes the connection, and the requests end with it.
pub(super) async fn run(
    shared: Arc<Shared>,
    client: Entered,
    connection: quinn::Connection,
    stop: CancellationToken,
    grace: Duration,
) {
    let builder = shared.limits.h3();
    let built = builder.build(Connection::server(connection.clone()));
    let built = timeout(shared.limits.header_time, built).await;
    let Ok(Ok(h3)) = built else {
        return close(&connection, H3Code::H3_CLOSED_CRITICAL_STREAM, "the control stream could not be opened");
    };
    let (draining, expire) = (CancellationToken::new(), client.streams().clone());
    let (bodies, answers) = <(Share, Share)>::default();
    let session = Arc::new(Session { shared, client, bodies, answers, draining, expire });
    let mut pump = Pump { h3, session, tasks: TaskTracker::new() };
    if let Err(error) = pump.serve(&stop).await {
        tracing::debug!(target: "plimsoll::mesh", %error, "connection ended");
        // Each request sees for itself that its client is gone, and gives its call up.
        pump.tasks.close();
        let _ = timeout(FAREWELL, pump.tasks.wait()).await;
        return;
    }
    let reason = if stop.is_cancelled() {
        pump.drain(grace).await;
        "the node is stopping"
    } else {
        "the client said GOAWAY and has its answers"
    };
    close(&connection, H3Code::H3_NO_ERROR, reason);
}

/// Dropped, it closes the connection (h3 does), and with it end all requests: each waits on its stream or watches it.
struct Pump {
    h3: H3,
    session: Arc<Session>,
    /// INVARIANT: at most as many as the client may have streams open (`Limits::bidi_streams`).
    tasks: TaskTracker,
}

impl Pump {
    /// Until the client is done (`Ok`), `stop` is cancelled (`Ok`) or the connection is lost (`Err`).
    ///
    /// A client that says GOAWAY still reads: closing takes back what it has not acknowledged. So it is left to close,
    /// for as long as any client may take to read an answer.
    async fn serve(&mut self, stop: &CancellationToken) -> Result<(), ConnectionError> {
        let mut stopped = std::pin::pin!(stop.cancelled());
        let mut leaves = None;
        loop {
            tokio::select! {
                biased;
                accepted = poll_fn(|cx| self.poll_accept(cx, leaves.is_some())) => match accepted? {
                    Some(stream) => {
                        leaves = None;
                        self.start(stream);
                    }
                    None => leaves = Some(Instant::now() + self.session.shared.limits.answer_time),
                },
                () = &mut stopped => return Ok(()),
                () = at(leaves) => {
                    self.h3.shutdown(0).await?;
                    return Ok(());
                }
            }
        }
    }

    /// The next request; `None` when the client has said GOAWAY and waits for no answer, which h3 says at every look and
    /// is passed on unless it is `known`.
    fn poll_accept(&mut self, cx: &mut Context<'_>, known: bool) -> Poll<Result<Option<BidiStream>, ConnectionError>> {
        match self.h3.poll_accept_request_stream(cx) {
            // h3 wakes for the next stream all the same.
            Poll::Ready(Ok(None)) if known => Poll::Pending,
            polled => polled,
        }
    }

    fn start(&mut self, mut stream: BidiStream) {
        let left = Box::pin(stream.stopped());
        let Some(send) = stream.take_send() else { return };
        let resolver = self.h3.create_resolver(FrameStream::new(BufRecvStream::new(stream)));
        self.tasks.spawn(request::hold(Arc::clone(&self.session), resolver, send, left));
    }

    /// Announces the end, answers what comes until then with 503, and gives what is in flight `grace`.
    async fn drain(&mut self, grace: Duration) {
        let end = Instant::now() + grace;
        self.session.draining.cancel();
        self.session.shared.shut_if_stopping();
        // As many as may be on their way: they are told by name instead of being rejected.
        let on_their_way = self.session.shared.limits.bidi_streams();
        if !matches!(timeout(FAREWELL, self.h3.shutdown(on_their_way)).await, Ok(Ok(()))) {
            return;
        }
        let last_call = Instant::now() + FAREWELL;
        if self.serve_until(last_call.min(end), false).await && self.serve_until(end, true).await {
            self.session.expire.cancel();
            self.serve_until(end + FAREWELL, true).await;
        }
    }

    /// Serves on until `end`, or until nothing is in flight if `all` is set; `false` when the connection is lost.
    async fn serve_until(&mut self, end: Instant, all: bool) -> bool {
        let tasks = self.tasks.clone();
        tasks.close();
        loop {
            tokio::select! {
                biased;
                accepted = poll_fn(|cx| self.poll_accept(cx, true)) => match accepted {
                    Ok(Some(stream)) => self.start(stream),
                    Ok(None) | Err(_) => return false,
                },
                () = tasks.wait(), if all => return true,
                () = sleep_until(end) => return true,
            }
        }
    }
}

/// Waits until `when`; without one, for ever.
async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => pending().await,
    }
}

//! The refusal desk: tells a client over the cap, by name, that there is no place.

use std::future::poll_fn;
use std::sync::Arc;

use h3::error::Code as H3Code;
use h3::frame::FrameStream;
use h3::stream::BufRecvStream;
use tokio::time::{Instant, timeout_at};

use super::Shared;
use super::admission::{Outcome, Place};
use super::answer::Answer;
use super::listener::{close, is_peer, shake_hands};
use crate::http3::Connection;
use crate::problem::{Code, Problem};

/// Does the handshake, moves a peer on, and answers anyone else's first request with 503.
pub(super) async fn attend(shared: Arc<Shared>, incoming: quinn::Incoming, mut place: Place) {
    let end = Instant::now() + shared.limits.desk_time;
    let Ok(Ok(connection)) = timeout_at(end, shake_hands(&shared, incoming)).await else { return };
    if is_peer(&connection) {
        place.settle(Outcome::Peer);
        return shared.peers.accept_peer(connection);
    }
    // Told by the answer or, if no request comes, by the reason of the close.
    let _ = timeout_at(end, tell(&shared, connection)).await;
    place.settle(Outcome::Told);
}

/// Answers the first request. `None`: the client went away first.
async fn tell(shared: &Shared, connection: quinn::Connection) -> Option<()> {
    let mut h3 = shared.limits.h3().build(Connection::server(connection.clone())).await.ok()?;
    // Dropped before h3, which closes with words of its own.
    let _closing = CloseWithReason(connection);
    let mut stream = poll_fn(|cx| h3.poll_accept_request_stream(cx)).await.ok()??;
    let left = stream.stopped();
    let mut send = stream.take_send()?;
    let resolver = h3.create_resolver(FrameStream::new(BufRecvStream::new(stream)));
    let _asked = resolver.resolve_request().await.ok()?;
    let problem = Problem::new(Code::MaxClientsReached, "the gateway has as many clients as it may; try again later");
    Answer::refused(problem.into(), shared.node).send(&mut send).await.ok()?;
    // The close that follows would take back what has not been acknowledged.
    left.await;
    Some(())
}

struct CloseWithReason(quinn::Connection);

impl Drop for CloseWithReason {
    fn drop(&mut self) {
        close(&self.0, H3Code::H3_NO_ERROR, Code::MaxClientsReached.as_str());
    }
}

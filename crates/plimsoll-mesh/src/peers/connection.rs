//! The actor of one connection.
//!
//! It owns a task that performs the handshake, enters the connection and then drives it until it ends. However the actor
//! ends, the connection is closed with it, and so are the workers of the peer's calls, which are linked to it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt as _;
use plimsoll::bounded::{Cap, Rate, TokenBucket};
use plimsoll::ractor::{ActorCell, SpawnErr};
use plimsoll::supervisor::Child;
use quinn::{Connection, ConnectionError};
use tokio::sync::mpsc;
use tracing::debug;

use crate::names::NodeId;
use crate::owned_task;

use super::call_worker;
use super::close_reason::{BAD_FRAME, CloseReason, disconnect_of};
use super::frames;
use super::handshake::{self, HandshakeError};
use super::link::Link;
use super::liveness::{CHECK_INTERVAL, Liveness};
use super::state::{PeersState, PendingConnection, count};
use super::table::{Dialler, NewConnection, Verdict};
use super::wire::{self, Expected, Kind, MAX_GOSSIP};

/// How long a retired connection stays when it has no calls: long enough for packets in flight.
const RETIRED_IDLE: Duration = Duration::from_secs(1);
/// Gossip messages taken from a peer. An honest one sends a few each round; more would displace the others'.
const GOSSIP_RATE: Rate = Rate::per_second(Cap::of::<100>());
/// How long a gossip message may take to arrive or leave.
const GOSSIP_TRANSFER: Duration = Duration::from_secs(5);

/// Starts the actor of a connection, linked to `parent`.
pub(crate) async fn start(
    parent: ActorCell,
    shared: Arc<PeersState>,
    pending: PendingConnection,
) -> Result<Child, SpawnErr> {
    let close = CloseOnDrop { connection: pending.connection.clone(), me: shared.me };
    owned_task::start(parent, close, |actor| drive(shared, pending, actor).map(Ok)).await
}

/// Closes the connection when its actor is gone.
struct CloseOnDrop {
    connection: Connection,
    me: NodeId,
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        // Closing again would overwrite the reason that is there.
        if self.connection.close_reason().is_none() {
            CloseReason::Stopping { me: self.me }.close(&self.connection);
        }
    }
}

/// Performs the handshake, then drives the connection until it ends.
async fn drive(shared: Arc<PeersState>, pending: PendingConnection, actor: ActorCell) {
    let PendingConnection { connection, node, dialler, place, dial } = pending;
    let established = establish(&shared, &connection, node, dialler).await;
    drop(place);
    match established {
        Ok((entered, queue)) => {
            if let Some(dial) = dial {
                dial.connected();
            }
            serve(&shared, &entered.link, queue, &actor).await;
        }
        Err(error) => {
            let disconnect = match error {
                HandshakeError::Rejected(reason) => {
                    shared.refuse(&connection, Some(node), &reason);
                    reason.disconnect()
                }
                HandshakeError::Disconnected(disconnect) => disconnect,
            };
            debug!(target: "plimsoll::mesh", peer = %node, reason = disconnect.reason, "connection not up");
            match dial {
                Some(dial) => dial.failed(Some(node), disconnect),
                None => {
                    shared.log_refusal(&node, &disconnect);
                    shared.table.lock().note(node, None, disconnect, Instant::now());
                    shared.notify_change();
                }
            }
        }
    }
}

type Established = (Entered, mpsc::Receiver<Bytes>);

async fn establish(
    shared: &Arc<PeersState>,
    connection: &Connection,
    node: NodeId,
    dialler: Dialler,
) -> Result<Established, HandshakeError> {
    let config = &shared.config;
    let (hello, stream) = match dialler {
        Dialler::Local => (handshake::initiate(connection, shared.me, config).await?, None),
        Dialler::Remote => {
            let (hello, stream) = handshake::receive(connection, shared.me, config).await?;
            (hello, Some(stream))
        }
    };
    let still_trusted = || shared.refusal_for(node).map_or(Ok(()), |reason| Err(HandshakeError::Rejected(reason)));
    // The trust may have been revoked while the other side took its time.
    still_trusted()?;
    let (link, queue) = Link::new(shared.next_link(), node, connection.clone(), config.calls as usize, config.max_body);
    let link = Arc::new(link);
    let new = NewConnection { link: link.id, node, dialler, incarnation: hello.incarnation };
    if let Some(stream) = stream {
        // The reply goes first, so that calls of this node never overtake it. A connection that is not to stay is closed
        // without one, and so was never up on the other side.
        if let Some(reason) = shared.verdict_against(new) {
            return Err(HandshakeError::Rejected(reason));
        }
        handshake::reply(stream, connection, config).await?;
        still_trusted()?;
    }
    let listens = handshake::reachable(hello.listens, connection.remote_address());
    match shared.enter(&link, new, listens) {
        Verdict::Stale => return Err(HandshakeError::Rejected(CloseReason::Replaced)),
        Verdict::Full => return Err(HandshakeError::Rejected(CloseReason::Full { me: shared.me })),
        Verdict::Up | Verdict::UpRetiring(_) | Verdict::UpReplacing(_) | Verdict::Duplicate => {}
    }
    let entered = Entered { shared: Arc::clone(shared), link };
    // From here on a change of trust finds the connection by itself; one just before may have missed it.
    if let Some(reason) = shared.refusal_for(node) {
        entered.link.close(reason);
    }
    Ok((entered, queue))
}

/// A connection that was entered, for as long as its task runs.
struct Entered {
    shared: Arc<PeersState>,
    link: Arc<Link>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let disconnect = match self.link.connection.close_reason() {
            // The link knows why this node closed it; without a reason its actor was stopped.
            None | Some(ConnectionError::LocallyClosed) => CloseReason::Stopping { me: self.shared.me }.disconnect(),
            Some(error) => disconnect_of(&error),
        };
        self.shared.leave(&self.link, disconnect);
    }
}

async fn serve(shared: &Arc<PeersState>, link: &Arc<Link>, queue: mpsc::Receiver<Bytes>, actor: &ActorCell) {
    tokio::select! {
        () = accept_calls(shared, link, actor) => {}
        () = receive_gossip(shared, link) => {}
        () = send_gossip(link, queue) => {}
        reason = watch_liveness(shared, link) => link.close(reason),
        _ = link.connection.closed() => {}
    }
}

/// Starts a worker for each of the peer's calls; the transport's limit on streams bounds them.
async fn accept_calls(shared: &Arc<PeersState>, link: &Arc<Link>, actor: &ActorCell) {
    while let Ok((send, recv)) = link.connection.accept_bi().await {
        call_worker::start(shared, link, actor, send, recv).await;
    }
}

async fn receive_gossip(shared: &Arc<PeersState>, link: &Arc<Link>) {
    let expected = Expected { kind: Kind::Gossip, max_body: MAX_GOSSIP };
    let mut taken = TokenBucket::default();
    while let Ok(mut stream) = link.connection.accept_uni().await {
        let received = tokio::time::timeout(GOSSIP_TRANSFER, frames::receive(&mut stream, expected)).await;
        match received {
            Ok(Ok(frame)) => {
                count(&shared.counters.gossip_received);
                if !admits_gossip(&mut taken, Instant::now()) {
                    count(&shared.counters.gossip_dropped);
                } else if let Err(poison) = shared.gossip.deliver(link.node, frame.body) {
                    shared.expel(link.node, &poison);
                }
            }
            Ok(Err(_)) | Err(_) => {
                // The stream may have ended by itself.
                let _ = stream.stop(BAD_FRAME);
            }
        }
    }
}

/// Whether one more message is taken at `now`.
fn admits_gossip(taken: &mut TokenBucket, now: Instant) -> bool {
    let admitted = taken.check(GOSSIP_RATE, now).is_ok();
    if admitted {
        taken.take(GOSSIP_RATE, now);
    }
    admitted
}

async fn send_gossip(link: &Link, mut queue: mpsc::Receiver<Bytes>) {
    while let Some(message) = queue.recv().await {
        let sending = async {
            let mut stream = link.connection.open_uni().await.ok()?;
            let head = wire::encode(Kind::Gossip, &(), message.len()).ok()?;
            frames::send(&mut stream, head, message).await.ok()
        };
        // The next round makes up for a message that is lost.
        let _ = tokio::time::timeout(GOSSIP_TRANSFER, sending).await;
    }
    // The queue closes with the connection only.
    std::future::pending().await
}

/// Returns the reason for which this node closes the connection: no packet arrives from its peer, or it is retired and has
/// been idle for a while.
async fn watch_liveness(shared: &PeersState, link: &Link) -> CloseReason {
    let mut liveness = Liveness::new(Instant::now());
    let mut idle_since = None;
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        let (now, limit) = (Instant::now(), shared.config.idle);
        if liveness.is_lost(link.connection.stats().udp_rx.datagrams, now, limit) {
            return CloseReason::Silent { after: limit };
        }
        idle_since = if link.is_retired() && link.is_idle() { idle_since.or(Some(now)) } else { None };
        if idle_since.is_some_and(|since| now.duration_since(since) >= RETIRED_IDLE) {
            return CloseReason::Duplicate;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rate holds in every second, not only in the first.
    #[test]
    fn gossip_is_limited_in_each_second_and_not_for_ever() {
        let (start, mut taken) = (Instant::now(), TokenBucket::default());
        for second in 0..5 {
            let at = |ms| start + Duration::from_millis(second * 1_000 + ms);
            let admitted = (0..1_000_u64).filter(|&ms| admits_gossip(&mut taken, at(ms))).count();
            // The first burst, and then one each 10 ms.
            assert_eq!(admitted, if second == 0 { 199 } else { 100 }, "second {second}");
        }
    }
}

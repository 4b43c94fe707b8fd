//! The actor of one connection.
//!
//! It owns a pump that greets, publishes the connection and then serves it until it ends. However the actor dies, the
//! connection is closed with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt as _;
use plimsoll::ractor::{ActorCell, SpawnErr};
use plimsoll::supervisor::Child;
use quinn::{Connection, ConnectionError};
use tokio::sync::mpsc;
use tracing::debug;

use crate::names::NodeId;
use crate::owned_task;

use super::close_reason::ConnectError;
use super::close_reason::Disconnect;
use super::close_reason::{BAD_FRAME, CloseReason, disconnect_of};
use super::frames;
use super::handshake::{self, HandshakeError};
use super::link::Link;
use super::liveness::{CHECK_INTERVAL, Liveness};
use super::serve::{self, Served};
use super::state::{PeersState, PendingConnection, count};
use super::table::{Dialler, NewConnection, Verdict};
use super::wire::{self, Expected, Hello, Kind, MAX_GOSSIP};

/// How long a retired connection stays when nothing is in flight on it: long enough for what is on its way.
const RETIRED_IDLE: Duration = Duration::from_secs(1);
/// Gossip messages taken from a peer a second. An honest one sends a few each round; more would crowd out the others'.
const GOSSIP_A_SECOND: u32 = 200;
/// How long a gossip message may take to come or go.
const GOSSIP_TRANSFER: Duration = Duration::from_secs(5);

/// Starts the actor of a connection, linked to `parent`.
pub(crate) async fn start(
    parent: ActorCell,
    shared: Arc<PeersState>,
    pending: PendingConnection,
) -> Result<Child, SpawnErr> {
    let close = CloseOnDrop { connection: pending.connection.clone(), me: shared.me };
    owned_task::start(parent, close, pump(shared, pending).map(Ok)).await
}

/// Closes the connection when its actor is gone.
struct CloseOnDrop {
    connection: Connection,
    me: NodeId,
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        // Closing once more would overwrite the reason that is there.
        if self.connection.close_reason().is_none() {
            CloseReason::Stopping { me: self.me }.close(&self.connection);
        }
    }
}

/// Greets, then serves the connection until it ends.
async fn pump(shared: Arc<PeersState>, pending: PendingConnection) {
    let PendingConnection { connection, node, dialler, address, place } = pending;
    let dial = address.map(|address| DialSettled { shared: Arc::clone(&shared), address, ended: None });
    let established = perform_handshake(&shared, &connection, node, dialler).await;
    drop(place);
    match established {
        Ok((link, queue)) => {
            drop(dial);
            let registered = Registered { shared: &shared, link: &link };
            run(&shared, &link, queue).await;
            drop(registered);
        }
        Err(failed) => {
            let ended = match failed {
                HandshakeError::Rejected(reason) => {
                    shared.refuse(&connection, Some(node), &reason);
                    reason.disconnect()
                }
                HandshakeError::Disconnected(ended) => {
                    debug!(target: "plimsoll::mesh", peer = %node, reason = ended.reason, "connection not up");
                    shared.log_refusal(&node, &ended);
                    shared.table.lock().note(node, address, ended.clone(), Instant::now());
                    shared.notify_change();
                    ended
                }
            };
            if let Some(mut dial) = dial {
                dial.ended = Some(ended);
            }
        }
    }
}

type Established = (Arc<Link>, mpsc::Receiver<Bytes>);

async fn perform_handshake(
    shared: &Arc<PeersState>,
    connection: &Connection,
    node: NodeId,
    dialler: Dialler,
) -> Result<Established, HandshakeError> {
    let config = &shared.config;
    let (theirs, reply) = match dialler {
        Dialler::Local => (handshake::initiate(connection, shared.me, config).await?, None),
        Dialler::Remote => {
            let (theirs, reply) = handshake::receive(connection, shared.me, config).await?;
            (theirs, Some(reply))
        }
    };
    // Trust may have gone while the other side took its time.
    if let Some(reason) = shared.refusal_for(node) {
        return Err(HandshakeError::Rejected(reason));
    }
    let (link, queue) = Link::new(shared.next_link(), node, connection.clone(), config.calls as usize, config.max_body);
    let link = Arc::new(link);
    let arrival = NewConnection { link: link.id, node, dialler, incarnation: theirs.incarnation };
    if let Some(reply) = reply {
        // The answer goes first, so that calls of this node never overtake it; a connection that is not to stay is
        // closed without one, and so was never up on the other side.
        if let Some(reason) = shared.would_refuse(arrival) {
            return Err(HandshakeError::Rejected(reason));
        }
        handshake::reply(reply, connection, config).await?;
    }
    publish(shared, &link, arrival, &theirs)?;
    Ok((link, queue))
}

fn publish(
    shared: &Arc<PeersState>,
    link: &Arc<Link>,
    arrival: NewConnection,
    theirs: &Hello,
) -> Result<(), HandshakeError> {
    let listens = handshake::reachable(theirs.listens, link.connection.remote_address());
    match shared.arrive(link, arrival, listens) {
        Verdict::Stale => Err(HandshakeError::Rejected(CloseReason::Replaced)),
        Verdict::Full => Err(HandshakeError::Rejected(CloseReason::Full { me: shared.me })),
        Verdict::Up | Verdict::UpRetiring(_) | Verdict::UpReplacing(_) | Verdict::Duplicate => Ok(()),
    }
}

/// A connection in the books, for as long as its pump runs.
struct Registered<'a> {
    shared: &'a Arc<PeersState>,
    link: &'a Link,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        let ended = match self.link.connection.close_reason() {
            // Why this node closed it is the link's to know; without a reason of its own its actor was stopped.
            None | Some(ConnectionError::LocallyClosed) => CloseReason::Stopping { me: self.shared.me }.disconnect(),
            Some(error) => disconnect_of(&error),
        };
        self.shared.ended(self.link, ended);
    }
}

/// Gives a dialled address back to the dialler.
struct DialSettled {
    shared: Arc<PeersState>,
    address: std::net::SocketAddr,
    ended: Option<Disconnect>,
}

impl Drop for DialSettled {
    fn drop(&mut self) {
        let now = Instant::now();
        let about = self.shared.table.lock().dial_settled(self.address, self.ended.as_ref(), now, rand::random());
        if let (Some(node), Some(ended)) = (about, &self.ended) {
            self.shared.unreachable(&node, &ConnectError::from(ended));
        }
        self.shared.wake_dialler.notify_one();
    }
}

async fn run(shared: &Arc<PeersState>, link: &Arc<Link>, queue: mpsc::Receiver<Bytes>) {
    tokio::select! {
        () = calls(shared, link) => {}
        () = gossip_in(shared, link) => {}
        () = gossip_out(link, queue) => {}
        reason = watch(shared, link) => link.close(reason),
        _ = link.connection.closed() => {}
    }
}

/// Serves the peer's calls, each in a task of its own; the transport's limit on streams bounds them. They end with the
/// connection at the latest: each waits on its stream.
async fn calls(shared: &Arc<PeersState>, link: &Arc<Link>) {
    while let Ok((send, recv)) = link.connection.accept_bi().await {
        let settled = CallSettled { shared: Arc::clone(shared), served: Served::Abandoned };
        let in_use = shared.hold(link);
        let serving = serve::serve(Arc::clone(link), Arc::clone(&shared.serve), send, recv);
        tokio::spawn(async move {
            let (mut settled, _in_use) = (settled, in_use);
            settled.served = serving.await;
        });
    }
}

/// Counts the end of a peer's call, also of one that panics or whose task is dropped. Collecting the tasks' results
/// would wake this connection's actor for each.
struct CallSettled {
    shared: Arc<PeersState>,
    served: Served,
}

impl Drop for CallSettled {
    fn drop(&mut self) {
        let counters = &self.shared.counters;
        count(match self.served {
            Served::Answered => &counters.calls_answered,
            Served::Malformed => &counters.calls_malformed,
            Served::Abandoned => &counters.calls_abandoned,
        });
    }
}

async fn gossip_in(shared: &Arc<PeersState>, link: &Arc<Link>) {
    let expected = Expected { kind: Kind::Gossip, max_body: MAX_GOSSIP };
    let (mut second, mut taken) = (Instant::now(), 0);
    while let Ok(mut stream) = link.connection.accept_uni().await {
        let received = tokio::time::timeout(GOSSIP_TRANSFER, frames::receive(&mut stream, expected)).await;
        match received {
            Ok(Ok(frame)) => {
                count(&shared.counters.gossip_received);
                if second.elapsed() >= Duration::from_secs(1) {
                    (second, taken) = (Instant::now(), 0);
                }
                taken += 1;
                if taken > GOSSIP_A_SECOND {
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

async fn gossip_out(link: &Link, mut queue: mpsc::Receiver<Bytes>) {
    while let Some(message) = queue.recv().await {
        let sending = async {
            let mut stream = link.connection.open_uni().await.ok()?;
            let head = wire::encode(Kind::Gossip, &(), message.len()).ok()?;
            frames::send(&mut stream, head, message).await.ok()
        };
        // A message that is lost is made good by the next round.
        let _ = tokio::time::timeout(GOSSIP_TRANSFER, sending).await;
    }
    // The queue closes with the connection only.
    std::future::pending().await
}

/// Ends with the reason for which this node closes the connection: its peer fell silent, or it is retired and has been
/// idle for a while.
async fn watch(shared: &PeersState, link: &Link) -> CloseReason {
    let mut silence = Liveness::new(Instant::now());
    let mut idle_since = None;
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        let (now, limit) = (Instant::now(), shared.config.idle);
        if silence.observe(link.connection.stats().udp_rx.datagrams, now, limit) {
            return CloseReason::Silent { after: limit };
        }
        idle_since = if link.is_retired() && link.is_idle() { idle_since.or(Some(now)) } else { None };
        if idle_since.is_some_and(|since| now.duration_since(since) >= RETIRED_IDLE) {
            return CloseReason::Duplicate;
        }
    }
}

//! Staying connected: a task that dials whom the book says, and a way to ask for one peer at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::identity::{self, SERVER_NAME};
use crate::names::NodeId;

use super::book::{Dial, Dialler, Ended, How};
use super::pool::Leased;
use super::reason::{CloseReason, ended_by};
use super::shared::{Arriving, Shared, count};

/// Dials under way at once.
pub(crate) const DIALS: usize = 32;
/// How long the dialler sleeps at most.
const LONGEST_NAP: Duration = Duration::from_secs(5);

/// Dials whom the book says until `stop`.
pub(crate) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut dials = JoinSet::new();
    loop {
        let now = Instant::now();
        let trusts = |node: &NodeId| shared.trust.allows(node);
        let free = DIALS.saturating_sub(dials.len());
        shared.tidy();
        let room = shared.connections.lock().has_room();
        let due = shared.book.lock().due(now, free, room, trusts);
        for dial in due {
            dials.spawn(attempt(Arc::clone(&shared), dial));
        }
        let next = if dials.len() < DIALS { shared.book.lock().next_due(room, trusts) } else { None };
        let nap = next.map_or(LONGEST_NAP, |next| next.saturating_duration_since(Instant::now()).min(LONGEST_NAP));
        tokio::select! {
            () = stop.cancelled() => return,
            () = shared.wake_dialler.notified() => {}
            Some(_) = dials.join_next() => {}
            () = tokio::time::sleep(nap.max(Duration::from_millis(1))) => {}
        }
    }
}

/// One attempt. Whatever becomes of it, the book learns: here as long as there is no connection, from its actor later.
async fn attempt(shared: Arc<Shared>, dial: Dial) {
    count(&shared.counters.dialled);
    let mut pending = Pending { shared: &shared, dial, settled: false };
    let (connection, node) = match tokio::time::timeout(shared.config.patience, connect(&shared, dial)).await {
        Ok(Ok(connected)) => connected,
        Ok(Err((node, ended))) => return pending.failed(node, ended),
        Err(_) => return pending.failed(None, lost(format!("nobody answers at {}", dial.address))),
    };
    shared.book.lock().dial_connected(dial.address, node);
    pending.settled = true;
    let arriving = Arriving { connection, node, dialler: Dialler::Us, address: Some(dial.address), place: None };
    if !shared.start(arriving).await {
        pending.failed(Some(node), lost("this node is stopping".to_owned()));
    }
}

/// Dials, and checks who answered: that it is the expected node, and welcome.
async fn connect(shared: &Shared, dial: Dial) -> Result<(quinn::Connection, NodeId), (Option<NodeId>, Ended)> {
    let unmade = |reason: String| (dial.expected, lost(reason));
    let connecting = shared
        .endpoint
        .connect_with(shared.client.clone(), dial.address, SERVER_NAME)
        .map_err(|error| unmade(error.to_string()))?;
    let connection = connecting.await.map_err(|error| (dial.expected, ended_by(&error)))?;
    let node = identity::handshake(&connection).and_then(|handshake| handshake.node);
    // A server always shows its certificate, and quinn has checked its proof.
    let node = node.ok_or_else(|| unmade("the other side showed no certificate".to_owned()))?;
    let me = shared.me;
    let wrong = dial.expected.filter(|&expected| expected != node);
    let reason = match wrong {
        Some(expected) => Some(CloseReason::WrongNode { expected, node, me }),
        None => shared.unwelcome(node),
    };
    match reason {
        None => Ok((connection, node)),
        Some(CloseReason::Myself) => {
            shared.book.lock().dial_connected(dial.address, node);
            CloseReason::Myself.close(&connection);
            Err((Some(node), CloseReason::Myself.ended()))
        }
        Some(reason) => {
            shared.refuse(&connection, Some(node), &reason);
            Err((Some(dial.expected.unwrap_or(node)), reason.ended()))
        }
    }
}

fn lost(reason: String) -> Ended {
    Ended { how: How::Lost, reason }
}

/// An attempt that the book waits for. Dropped in between, it counts as failed.
struct Pending<'a> {
    shared: &'a Arc<Shared>,
    dial: Dial,
    settled: bool,
}

impl Pending<'_> {
    fn failed(&mut self, node: Option<NodeId>, ended: Ended) {
        self.settled = true;
        count(&self.shared.counters.dials_failed);
        let Dial { address, expected } = self.dial;
        debug!(target: "plimsoll::mesh", node = %self.shared.me, %address, reason = ended.reason, "dial failed");
        let (node, now) = (node.or(expected), Instant::now());
        if let Some(node) = node {
            self.shared.say_if_refused(&node, &ended);
        }
        let why = Unconnected::from(&ended);
        let about = self.shared.book.lock().dial_failed(address, node, ended, now, rand::random());
        if let Some(node) = about {
            self.shared.unreachable(&node, &why);
        }
        self.shared.tell_change();
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.failed(None, lost("given up".to_owned()));
        }
    }
}

/// How long a call waits for a node to be connected: far more than a handshake takes, far less than a caller has.
const DEMAND: Duration = Duration::from_secs(1);

/// Why there is no connection to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unconnected {
    /// It cannot be reached.
    Unreached(String),
    /// One of the two does not want the other.
    Refused(String),
}

impl From<&Ended> for Unconnected {
    fn from(ended: &Ended) -> Self {
        match ended.how {
            How::Refused => Self::Refused(ended.reason.clone()),
            How::Lost | How::MadeRoom => Self::Unreached(ended.reason.clone()),
        }
    }
}

/// The connection to `node`, dialled if there is none, as long as the caller can wait.
pub(crate) async fn demand(shared: &Arc<Shared>, node: NodeId, deadline: Instant) -> Result<Leased, Unconnected> {
    if !shared.book.lock().knows(&node) {
        return Err(Unconnected::Unreached("no address of it is known".to_owned()));
    }
    shared.lease(node, deadline.min(Instant::now() + DEMAND)).await
}

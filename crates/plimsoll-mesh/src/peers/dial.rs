//! Staying connected: a task that dials whom the table says, and a way to ask for one peer at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::identity::{self, SERVER_NAME};
use crate::names::NodeId;

use super::close_reason::{CloseReason, ConnectError, Disconnect, disconnect_of};
use super::pool::LeasedConnection;
use super::state::{PeersState, PendingConnection, count};
use super::table::{Dial, Dialler};

/// Dials under way at once.
pub(crate) const DIALS: usize = 32;
/// How long the dialler sleeps at most.
const LONGEST_NAP: Duration = Duration::from_secs(5);

/// Dials whom the table says until `stop`.
pub(crate) async fn run(shared: Arc<PeersState>, stop: CancellationToken) {
    let mut dials = JoinSet::new();
    loop {
        let now = Instant::now();
        let trusts = |node: &NodeId| shared.trust.allows(node);
        let free = DIALS.saturating_sub(dials.len());
        shared.maintain();
        let room = shared.connections.lock().has_room();
        let due = shared.table.lock().due(now, free, room, trusts);
        for dial in due {
            dials.spawn(attempt(Arc::clone(&shared), dial));
        }
        let next = if dials.len() < DIALS { shared.table.lock().next_due(room, trusts) } else { None };
        let nap = next.map_or(LONGEST_NAP, |next| next.saturating_duration_since(Instant::now()).min(LONGEST_NAP));
        tokio::select! {
            () = stop.cancelled() => return,
            () = shared.wake_dialler.notified() => {}
            Some(_) = dials.join_next() => {}
            () = tokio::time::sleep(nap.max(Duration::from_millis(1))) => {}
        }
    }
}

/// One attempt. Whatever becomes of it, the table learns: here as long as there is no connection, from its actor later.
async fn attempt(shared: Arc<PeersState>, dial: Dial) {
    count(&shared.counters.dialled);
    let mut dial_attempt = DialAttempt { shared: &shared, dial, settled: false };
    let (connection, node) = match tokio::time::timeout(shared.config.patience, connect(&shared, dial)).await {
        Ok(Ok(connected)) => connected,
        Ok(Err((node, ended))) => return dial_attempt.failed(node, ended),
        Err(_) => return dial_attempt.failed(None, Disconnect::lost(format!("nobody answers at {}", dial.address))),
    };
    shared.table.lock().dial_connected(dial.address, node);
    dial_attempt.settled = true;
    let pending =
        PendingConnection { connection, node, dialler: Dialler::Local, address: Some(dial.address), place: None };
    if !shared.start(pending).await {
        dial_attempt.failed(Some(node), Disconnect::lost("this node is stopping".to_owned()));
    }
}

/// Dials, and checks who answered: that it is the expected node, and welcome.
async fn connect(shared: &PeersState, dial: Dial) -> Result<(quinn::Connection, NodeId), (Option<NodeId>, Disconnect)> {
    let unmade = |reason: String| (dial.expected, Disconnect::lost(reason));
    let connecting = shared
        .endpoint
        .connect_with(shared.client.clone(), dial.address, SERVER_NAME)
        .map_err(|error| unmade(error.to_string()))?;
    let connection = connecting.await.map_err(|error| (dial.expected, disconnect_of(&error)))?;
    let node = identity::handshake(&connection).and_then(|handshake| handshake.node);
    // A server always shows its certificate, and quinn has checked its proof.
    let node = node.ok_or_else(|| unmade("the other side showed no certificate".to_owned()))?;
    let me = shared.me;
    let wrong = dial.expected.filter(|&expected| expected != node);
    let reason = match wrong {
        Some(expected) => Some(CloseReason::WrongNode { expected, node, me }),
        None => shared.refusal_for(node),
    };
    match reason {
        None => Ok((connection, node)),
        Some(CloseReason::Myself) => {
            shared.table.lock().dial_connected(dial.address, node);
            CloseReason::Myself.close(&connection);
            Err((Some(node), CloseReason::Myself.disconnect()))
        }
        Some(reason) => {
            shared.refuse(&connection, Some(node), &reason);
            Err((Some(dial.expected.unwrap_or(node)), reason.disconnect()))
        }
    }
}

/// An attempt that the table waits for. Dropped in between, it counts as failed.
struct DialAttempt<'a> {
    shared: &'a Arc<PeersState>,
    dial: Dial,
    settled: bool,
}

impl DialAttempt<'_> {
    fn failed(&mut self, node: Option<NodeId>, ended: Disconnect) {
        self.settled = true;
        count(&self.shared.counters.dials_failed);
        let Dial { address, expected } = self.dial;
        debug!(target: "plimsoll::mesh", node = %self.shared.me, %address, reason = ended.reason, "dial failed");
        let (node, now) = (node.or(expected), Instant::now());
        if let Some(node) = node {
            self.shared.log_refusal(&node, &ended);
        }
        let why = ConnectError::from(&ended);
        let about = self.shared.table.lock().dial_failed(address, node, ended, now, rand::random());
        if let Some(node) = about {
            self.shared.unreachable(&node, &why);
        }
        self.shared.notify_change();
    }
}

impl Drop for DialAttempt<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.failed(None, Disconnect::lost("given up".to_owned()));
        }
    }
}

/// How long a call waits for a node to be connected: far more than a handshake takes, far less than a caller has.
const DEMAND: Duration = Duration::from_secs(1);

/// The connection to `node`, dialled if there is none, as long as the caller can wait.
pub(crate) async fn demand(
    shared: &Arc<PeersState>,
    node: NodeId,
    deadline: Instant,
) -> Result<LeasedConnection, ConnectError> {
    if !shared.table.lock().knows(&node) {
        return Err(ConnectError::Unreachable("no address of it is known".to_owned()));
    }
    shared.lease(node, deadline.min(Instant::now() + DEMAND)).await
}

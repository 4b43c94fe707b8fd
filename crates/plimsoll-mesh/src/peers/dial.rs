//! Keeping connections to the seeds and members: the dialler task, and one attempt.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::events::EventKind;
use crate::identity::{self, SERVER_NAME};
use crate::names::NodeId;

use super::close_reason::{CloseReason, Disconnect, disconnect_of};
use super::seed_names::{Lookup, LookupOutcome};
use super::state::{DialGuard, PeersState, PendingConnection, count};
use super::table::{Dial, Dialler};

/// Attempts in progress at once.
pub(crate) const DIALS: usize = 32;
/// The longest time between two looks at the table.
const MAX_SLEEP: Duration = Duration::from_secs(5);

/// Dials the targets that the table has due, and looks host names up, until `stop`.
pub(crate) async fn run(shared: Arc<PeersState>, stop: CancellationToken) {
    let (mut dials, mut lookups) = (JoinSet::new(), JoinSet::new());
    loop {
        let now = Instant::now();
        let trusts = |node: &NodeId| shared.trust.allows(node);
        let free = DIALS.saturating_sub(dials.len());
        shared.maintain();
        let room = shared.connections.lock().has_room();
        let (names, due) = {
            let mut table = shared.table.lock();
            (table.due_lookups(now), table.due(now, free, room, trusts))
        };
        for name in names {
            lookups.spawn(look_up(Arc::clone(&shared), name));
        }
        for dial in due {
            dials.spawn(attempt(Arc::clone(&shared), dial));
        }
        let next = if dials.len() < DIALS { shared.table.lock().next_due(room, trusts) } else { None };
        let sleep = next.map_or(MAX_SLEEP, |next| next.saturating_duration_since(Instant::now()).min(MAX_SLEEP));
        tokio::select! {
            () = stop.cancelled() => return,
            () = shared.wake_dialler.notified() => {}
            Some(_) = dials.join_next() => {}
            Some(_) = lookups.join_next() => {}
            () = tokio::time::sleep(sleep.max(Duration::from_millis(1))) => {}
        }
    }
}

/// Looks one host name up and enters its addresses. One lookup a name is in progress, so that a resolver that does not return
/// holds one thread for it and no more.
async fn look_up(shared: Arc<PeersState>, name: Lookup) {
    count(&shared.counters.lookups);
    let mut pending = PendingLookup { shared: &shared, index: name.index, settled: false };
    let resolved = shared.config.resolver.resolve(&name.host, name.port).await;
    pending.settle(resolved.map_err(|error| error.to_string()));
}

/// A lookup that the table waits for. Dropped before its end, it counts as failed.
struct PendingLookup<'a> {
    shared: &'a PeersState,
    index: usize,
    settled: bool,
}

impl PendingLookup<'_> {
    fn settle(&mut self, result: Result<Vec<std::net::SocketAddr>, String>) {
        self.settled = true;
        let Self { shared, index, .. } = *self;
        if result.is_err() {
            count(&shared.counters.lookups_failed);
        }
        let found = result.as_ref().map_or(0, Vec::len);
        let outcome = shared.table.lock().resolved(index, result, Instant::now(), rand::random());
        match outcome {
            LookupOutcome::Unchanged => {}
            LookupOutcome::Changed => info!(target: "plimsoll::mesh", node = %shared.me, found, "seed name resolved"),
            LookupOutcome::Unresolved { host, error } => {
                warn!(target: "plimsoll::mesh", node = %shared.me, host, error, "seed name does not resolve; it is looked up again");
                shared.config.events.record(EventKind::SeedUnresolved, None, &format!("{host}: {error}"));
            }
        }
    }
}

impl Drop for PendingLookup<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.settle(Err("abandoned".to_owned()));
        }
    }
}

/// One attempt. The guard informs the table of its end: here as long as there is no connection, later from its actor.
async fn attempt(shared: Arc<PeersState>, dial: Dial) {
    count(&shared.counters.dialled);
    let guard = DialGuard::new(&shared, dial);
    match tokio::time::timeout(shared.config.patience, connect(&shared, dial)).await {
        Ok(Ok((connection, node))) => {
            shared.table.lock().dial_connected(dial.address, node);
            let dialler = Dialler::Local;
            shared.start(PendingConnection { connection, node, dialler, place: None, dial: Some(guard) }).await;
        }
        Ok(Err((node, disconnect))) => {
            debug!(target: "plimsoll::mesh", node = %shared.me, address = %dial.address, reason = disconnect.reason, "dial failed");
            guard.failed(node, disconnect);
        }
        Err(_) => guard.failed(None, Disconnect::lost(format!("nobody answers at {}", dial.address))),
    }
}

/// Dials, and checks that the node found is the expected one, and not refused.
async fn connect(shared: &PeersState, dial: Dial) -> Result<(quinn::Connection, NodeId), (Option<NodeId>, Disconnect)> {
    let not_made = |reason: String| (dial.expected, Disconnect::lost(reason));
    let connecting = shared
        .endpoint
        .connect_with(shared.client.clone(), dial.address, SERVER_NAME)
        .map_err(|error| not_made(error.to_string()))?;
    let connection = connecting.await.map_err(|error| (dial.expected, disconnect_of(&error)))?;
    let node = identity::handshake(&connection).and_then(|handshake| handshake.node);
    // A server always presents its certificate, and quinn has checked its proof.
    let node = node.ok_or_else(|| not_made("the peer presented no certificate".to_owned()))?;
    let me = shared.me;
    let reason = match dial.expected.filter(|&expected| expected != node) {
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

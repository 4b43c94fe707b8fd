//! EventKind happened on a node lately, for its operator.
//!
//! The log tells the same and is stored elsewhere, or nowhere; this is what a node can still say when it is asked. One that
//! comes and goes all the time does not push out what else happened: each node has a share of its own.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use plimsoll::bounded::{ByteCap, Cap, Compact, CompactPolicy, History, HistoryCaps};
use plimsoll::inspect::{Details, Inspect};
use serde::{Deserialize, Serialize};

use crate::names::NodeId;

/// Bytes of a reason that are stored.
const LONGEST_REASON: usize = 256;
/// EventKind one event may weigh: itself, its place in the history, and its reason.
const HEAVIEST: u64 = 512;

/// EventKind happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// A connection to a node is up.
    PeerUp,
    /// The connection to a node is gone.
    PeerDown,
    /// This node or the other does not want the other.
    PeerRefused,
    /// A subscriber read too slowly and was cut off.
    SubscriberCutOff,
}

impl EventKind {
    /// The word for it in the snapshot.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PeerUp => "peer_up",
            Self::PeerDown => "peer_down",
            Self::PeerRefused => "peer_refused",
            Self::SubscriberCutOff => "subscriber_cut_off",
        }
    }
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Event {
    /// Its number, counted up from 0 since the node started.
    pub number: u64,
    /// When, in milliseconds since the epoch.
    pub at_ms: u64,
    /// EventKind happened.
    pub kind: EventKind,
    /// The node that it is about, if it is about one.
    pub peer: Option<NodeId>,
    /// Why, in words, if there is more to say.
    pub reason: Option<String>,
}

/// The latest events of one node. Cloning shares them.
///
/// ```
/// use plimsoll_mesh::events::{Events, EventKind};
///
/// let events = Events::default();
/// events.record(EventKind::SubscriberCutOff, None, "backlog of 1048600 bytes is over the limit of 1048576");
/// assert_eq!(events.latest(10)[0].kind, EventKind::SubscriberCutOff);
/// ```
#[derive(Debug, Clone)]
pub struct Events(Arc<Mutex<History<Option<NodeId>, StoredEvent>>>);

#[derive(Debug)]
struct StoredEvent {
    at_ms: u64,
    kind: EventKind,
    reason: Box<str>,
}

impl Events {
    /// Keeps at max `max` events, and a tenth of them for each node.
    pub fn with_capacity(max: Cap) -> Self {
        let caps = HistoryCaps {
            events: max,
            batch: Cap::new(max.get().div_ceil(100)).unwrap_or(max),
            per_key: Cap::new(max.get().div_ceil(10)).unwrap_or(max),
            bytes: ByteCap::new(max.get() as u64 * HEAVIEST).unwrap_or(ByteCap::of::<{ ByteCap::MAX }>()),
        };
        Self(Arc::new(Mutex::new(History::new("events", caps))))
    }

    /// Keeps an event that happened now.
    pub fn record(&self, kind: EventKind, peer: Option<NodeId>, reason: &str) {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let reason = &reason[..reason.floor_char_boundary(LONGEST_REASON)];
        let stored =
            StoredEvent { at_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX), kind, reason: reason.into() };
        let weight = HEAVIEST - (LONGEST_REASON - reason.len()) as u64;
        let mut history = self.0.lock();
        // INVARIANT: one event weighs less than all of them may.
        let _ = history.push(peer, stored, weight);
        // Only what comes in pushes nodes out, so that this is when their room can go. O(1) when there is none to give back.
        history.compact(&CompactPolicy::default());
    }

    /// The latest events, at max so many, oldest first. O(those).
    pub fn latest(&self, max: usize) -> Vec<Event> {
        let history = self.0.lock();
        let mut latest: Vec<_> = history.iter().rev().take(max).map(shown).collect();
        latest.reverse();
        latest
    }

    /// How many are stored.
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn shown((number, peer, stored): (u64, &Option<NodeId>, &StoredEvent)) -> Event {
    let reason = (!stored.reason.is_empty()).then(|| stored.reason.to_string());
    Event { number, at_ms: stored.at_ms, kind: stored.kind, peer: *peer, reason }
}

impl Default for Events {
    /// Keeps 10,000.
    fn default() -> Self {
        Self::with_capacity(HistoryCaps::default().events)
    }
}

impl Inspect for Events {
    fn inspect(&self) -> Details {
        self.0.lock().counters().inspect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trimmed(events: &Events) -> u64 {
        events.inspect().counters["events_trimmed_for_events"]
    }

    fn node(n: u8) -> NodeId {
        NodeId::from_digest([n; 32])
    }

    /// F-4: at its cap the history lets a hundredth go at once, the oldest, and is never over it; numbers go on.
    #[test]
    fn the_oldest_hundred_of_ten_thousand_go_first() {
        let events = Events::default();
        for n in 0..10_000 {
            events.record(EventKind::PeerUp, Some(node((n % 200) as u8)), "");
        }
        assert_eq!((events.len(), trimmed(&events)), (10_000, 0));
        events.record(EventKind::PeerDown, None, "timed out");
        assert_eq!((events.len(), trimmed(&events)), (9_901, 100));
        let latest = events.latest(2);
        assert_eq!(latest.iter().map(|event| event.number).collect::<Vec<_>>(), [9_999, 10_000]);
        assert_eq!((latest[1].kind, latest[1].reason.as_deref()), (EventKind::PeerDown, Some("timed out")));
    }

    /// F-9: a node that comes and goes all the time takes a tenth of the history and no more.
    #[test]
    fn one_node_cannot_push_out_the_others() {
        let events = Events::with_capacity(Cap::of::<1_000>());
        events.record(EventKind::PeerRefused, Some(node(1)), "not on the list");
        for _ in 0..5_000 {
            events.record(EventKind::PeerUp, Some(node(2)), "");
        }
        assert_eq!(events.len(), 101);
        assert_eq!(events.latest(1_000)[0].kind, EventKind::PeerRefused);
    }

    /// L-2: the room for ten thousand nodes goes back when the events are of ten.
    #[test]
    fn the_room_of_nodes_that_are_forgotten_goes_back() {
        let events = Events::default();
        let note = |n: u16| {
            let mut digest = [0; 32];
            digest[..2].copy_from_slice(&n.to_le_bytes());
            events.record(EventKind::PeerUp, Some(NodeId::from_digest(digest)), "");
        };
        (0..10_000).for_each(note);
        let crowded = events.0.lock().footprint();
        (0..20_000).for_each(|n| note(n % 10));
        let left = events.0.lock().footprint();
        assert!((crowded.len, left.len) == (10_000, 10) && left.bytes < crowded.bytes / 100, "{crowded:?} {left:?}");
    }

    /// F-4: long reasons are cut, at a whole character.
    #[test]
    fn a_reason_has_a_longest_length() {
        let events = Events::with_capacity(Cap::of::<1>());
        events.record(EventKind::PeerDown, None, &"\u{20ac}".repeat(1_000));
        let reason = events.latest(1).remove(0).reason.unwrap();
        assert_eq!(reason.len(), 255);
    }
}

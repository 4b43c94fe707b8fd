//! What happened on a node lately, for its operator.
//!
//! The log has the same content and is kept elsewhere, or nowhere; this history is what a node can still
//! show to its operator. A node that connects and disconnects all the time does not displace other events: each has a share of its own.
//! Kinds that a client or peer can cause at will are throttled, and what was suppressed is counted.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use plimsoll::bounded::{ByteCap, Cap, Compact, CompactPolicy, History, HistoryCaps, LogThrottle};
use plimsoll::exit::ExitReason;
use plimsoll::inspect::{Details, Inspect, Metric};
use plimsoll::supervisor::SupervisorEvent;
use serde::{Deserialize, Serialize};

use crate::names::NodeId;

/// Bytes of a reason that are stored.
const MAX_REASON: usize = 256;
/// The most bytes that one event accounts for: itself, its place in the history, and its reason.
const MAX_WEIGHT: u64 = 512;
/// Of a throttled kind, one event about each peer is stored in this time.
const THROTTLE: Duration = Duration::from_secs(1);
/// Kinds and peers whose last event is remembered for that; beyond it all are forgotten.
const MAX_THROTTLED: usize = 1_024;

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, throttled: $throttled:literal;)*) => {
        /// What happened.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum EventKind {
            $($(#[$doc])* $variant,)*
        }

        impl EventKind {
            /// Its name in the snapshot.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Whether only one event of this kind about each peer is stored in a second.
            pub const fn is_throttled(self) -> bool {
                match self { $(Self::$variant => $throttled,)* }
            }

            /// All kinds.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
        }
    };
}

kinds! {
    /// A connection to a node is up.
    PeerUp = "peer_up", throttled: false;
    /// The connection to a node is gone.
    PeerDown = "peer_down", throttled: false;
    /// This node or the other refuses the other.
    PeerRefused = "peer_refused", throttled: false;
    /// A subscriber read too slowly and was disconnected.
    SubscriberCutOff = "subscriber_cut_off", throttled: false;
    /// A worker panicked.
    Panic = "panic", throttled: true;
    /// A call or a client was refused.
    Refusal = "refusal", throttled: true;
    /// A limit was reached.
    CapReached = "cap_reached", throttled: true;
    /// Many clients began a handshake and did not complete it.
    HalfOpenFlood = "half_open_flood", throttled: true;
    /// A child of the supervision tree was restarted.
    Restart = "restart", throttled: true;
    /// A host name of a seed does not resolve.
    SeedUnresolved = "seed_unresolved", throttled: true;
    /// The program logged another warning or error.
    Warning = "warning", throttled: true;
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Event {
    /// Its number, counted up from 0 since the node started.
    pub number: u64,
    /// When, in milliseconds since the epoch.
    pub at_ms: u64,
    /// What happened.
    pub kind: EventKind,
    /// The node that it is about, if it is about one.
    pub peer: Option<NodeId>,
    /// Why, if there is more to say.
    pub reason: Option<String>,
    /// Events of this kind about this peer since the last stored one that were not stored.
    #[serde(default)]
    pub suppressed: u64,
}

/// The latest events of one node. Cloning shares them.
///
/// ```
/// use plimsoll_mesh::events::{EventKind, Events};
///
/// let events = Events::default();
/// events.record(EventKind::SubscriberCutOff, None, "backlog of 1048600 bytes is over the limit of 1048576");
/// assert_eq!(events.latest(10)[0].kind, EventKind::SubscriberCutOff);
/// ```
#[derive(Debug, Clone)]
pub struct Events(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    history: History<Option<NodeId>, StoredEvent>,
    throttled: HashMap<(EventKind, Option<NodeId>), LogThrottle>,
    suppressed: u64,
}

#[derive(Debug)]
struct StoredEvent {
    at_ms: u64,
    kind: EventKind,
    reason: Box<str>,
    suppressed: u64,
}

impl Events {
    /// Stores at most `max` events, and a tenth of them for each node.
    pub fn with_capacity(max: Cap) -> Self {
        let caps = HistoryCaps {
            events: max,
            batch: Cap::new(max.get().div_ceil(100)).unwrap_or(max),
            per_key: Cap::new(max.get().div_ceil(10)).unwrap_or(max),
            bytes: ByteCap::new(max.get() as u64 * MAX_WEIGHT).unwrap_or(ByteCap::of::<{ ByteCap::MAX }>()),
        };
        let inner = Inner { history: History::new("events", caps), throttled: HashMap::new(), suppressed: 0 };
        Self(Arc::new(Mutex::new(inner)))
    }

    /// Stores an event that happened now. Of a [throttled](EventKind::is_throttled) kind one event about each peer is stored
    /// in a second; the others are counted. Returns whether it was stored. O(1) amortised.
    pub fn record(&self, kind: EventKind, peer: Option<NodeId>, reason: &str) -> bool {
        self.record_at(kind, peer, reason, Instant::now())
    }

    fn record_at(&self, kind: EventKind, peer: Option<NodeId>, reason: &str, now: Instant) -> bool {
        let mut inner = self.0.lock();
        let Some(suppressed) = inner.admit(kind, peer, now) else { return false };
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at_ms = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        let reason = &reason[..reason.floor_char_boundary(MAX_REASON)];
        let weight = MAX_WEIGHT - (MAX_REASON - reason.len()) as u64;
        let stored = StoredEvent { at_ms, kind, reason: reason.into(), suppressed };
        // INVARIANT: one event weighs less than all of them may.
        let _ = inner.history.push(peer, stored, weight);
        // Only new events displace nodes, so that this is when their memory can be given back. O(1) when there is none.
        inner.history.compact(&CompactPolicy::default());
        true
    }

    /// An observer of supervisors: records their restarts, the panics of their children and that one gave up. For
    /// [`on_event`](plimsoll::supervisor::SupervisorBuilder::on_event).
    ///
    /// ```
    /// use plimsoll::supervisor::Supervisor;
    /// use plimsoll_mesh::events::Events;
    ///
    /// let events = Events::default();
    /// let builder = Supervisor::builder("edge").on_event(events.observer());
    /// # drop(builder);
    /// ```
    pub fn observer(&self) -> impl Fn(&str, &SupervisorEvent) + Send + Sync + 'static {
        let events = self.clone();
        move |supervisor, event| {
            let (kind, reason) = match event {
                SupervisorEvent::ChildRestarting { child, delay } => {
                    (EventKind::Restart, format!("{supervisor}/{child} is restarted in {delay:?}"))
                }
                SupervisorEvent::GaveUp { child, reason } => {
                    (EventKind::Restart, format!("{supervisor} gives up on {child}: {reason}"))
                }
                SupervisorEvent::ChildExited { child, reason: ExitReason::Failed(failure), .. } => {
                    (EventKind::Panic, format!("{supervisor}/{child} failed: {}", failure.message))
                }
                _ => return,
            };
            events.record(kind, None, &reason);
        }
    }

    /// The latest events, at most `max`, oldest first. O(`max`).
    pub fn latest(&self, max: usize) -> Vec<Event> {
        let inner = self.0.lock();
        let mut latest: Vec<_> = inner.history.iter().rev().take(max).map(event).collect();
        latest.reverse();
        latest
    }

    /// How many events are stored.
    pub fn len(&self) -> usize {
        self.0.lock().history.len()
    }

    /// Whether no event is stored.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Inner {
    /// Whether to store an event: the number of those before it that were not stored.
    fn admit(&mut self, kind: EventKind, peer: Option<NodeId>, now: Instant) -> Option<u64> {
        if !kind.is_throttled() {
            return Some(0);
        }
        if self.throttled.len() >= MAX_THROTTLED && !self.throttled.contains_key(&(kind, peer)) {
            self.throttled.clear();
        }
        let admitted = self.throttled.entry((kind, peer)).or_default().record_every(THROTTLE, now);
        self.suppressed += u64::from(admitted.is_none());
        admitted
    }
}

fn event((number, peer, stored): (u64, &Option<NodeId>, &StoredEvent)) -> Event {
    let reason = (!stored.reason.is_empty()).then(|| stored.reason.to_string());
    let StoredEvent { at_ms, kind, suppressed, .. } = *stored;
    Event { number, at_ms, kind, peer: *peer, reason, suppressed }
}

impl Default for Events {
    /// Stores 10,000.
    fn default() -> Self {
        Self::with_capacity(HistoryCaps::default().events)
    }
}

impl Inspect for Events {
    fn inspect(&self) -> Details {
        let inner = self.0.lock();
        let mut details = inner.history.counters().inspect();
        details.counters.insert("events_suppressed", Metric::counter(inner.suppressed));
        details
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

    /// F-4: at its cap the history drops a hundredth at once, the oldest, and is never over it; numbers go on.
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

    /// F-9: a node that connects and disconnects all the time takes a tenth of the history and no more.
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

    /// L-2: the memory of ten thousand nodes is given back when the events are of ten.
    #[test]
    fn the_room_of_nodes_that_are_forgotten_goes_back() {
        let events = Events::default();
        let record = |n: u16| {
            let mut digest = [0; 32];
            digest[..2].copy_from_slice(&n.to_le_bytes());
            events.record(EventKind::PeerUp, Some(NodeId::from_digest(digest)), "");
        };
        (0..10_000).for_each(record);
        let crowded = events.0.lock().history.footprint();
        (0..20_000).for_each(|n| record(n % 10));
        let left = events.0.lock().history.footprint();
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

    /// A flood of one kind is one event a second, with the number of those that are not stored; other kinds and peers have
    /// their own.
    #[test]
    fn throttled_kinds_are_counted_and_do_not_displace_others() {
        let (events, start) = (Events::default(), Instant::now());
        for ms in 0..3_500 {
            events.record_at(EventKind::Panic, None, "told to", start + Duration::from_millis(ms));
        }
        events.record_at(EventKind::Panic, Some(node(1)), "told to", start);
        events.record_at(EventKind::Restart, None, "echo", start);
        let stored = events.latest(100);
        let suppressed: Vec<_> = stored.iter().map(|event| (event.kind, event.suppressed)).collect();
        let panic = |suppressed| (EventKind::Panic, suppressed);
        assert_eq!(suppressed, [panic(0), panic(999), panic(999), panic(999), panic(0), (EventKind::Restart, 0)]);
        assert_eq!(events.inspect().counters["events_suppressed"], 3_496);
    }

    /// However many peers cause events, what is remembered of the last ones is bounded.
    #[test]
    fn what_throttling_remembers_is_bounded() {
        let events = Events::default();
        for n in 0..3 * MAX_THROTTLED as u32 {
            let mut digest = [0; 32];
            digest[..4].copy_from_slice(&n.to_le_bytes());
            events.record(EventKind::Refusal, Some(NodeId::from_digest(digest)), "");
        }
        assert!(events.0.lock().throttled.len() <= MAX_THROTTLED);
    }

    #[test]
    fn names_of_kinds_are_those_of_the_snapshot() {
        for kind in EventKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }
}

//! The most recent events, within caps by number, by key and by bytes.
//!
//! Events are stored by sequence number, oldest first, and each key has the list of its numbers. When an event is removed
//! (for the total cap, the cap of its key, or the cap in bytes) it is removed from both in the same step, and from the
//! [`HistoryIndex`] that the owner adds: none of the three can outlive the others.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;

use super::{ByteCap, Cap, Compact, CompactPolicy, Compacted, Counters, Footprint, events};

/// A key's list with capacity for no more numbers than this is not shrunk.
const KEPT_NUMBERS: usize = 32;

/// How much a [`History`] keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryCaps {
    /// Events in total; default 10,000.
    pub events: Cap,
    /// How many of the oldest are removed at once when the total cap is reached; default 100. Removing batches needs a
    /// hundredth of the trims, and because it is done before the push, the peak is the cap and never more.
    pub batch: Cap,
    /// Events of one key; default 10,000, that is, no tighter than the total cap. The key's own oldest is removed first.
    pub per_key: Cap,
    /// Bytes of all events together; default 16 MiB.
    pub bytes: ByteCap,
}

impl Default for HistoryCaps {
    fn default() -> Self {
        Self {
            events: Cap::of::<10_000>(),
            batch: Cap::of::<100>(),
            per_key: Cap::of::<10_000>(),
            bytes: ByteCap::of::<{ 16 << 20 }>(),
        }
    }
}

events! {
    /// What a [`History`] counts.
    pub enum HistoryEvent {
        /// An event was added.
        Pushed = "pushed",
        /// An old event was removed for the total cap.
        TrimmedForEvents = "trimmed_for_events",
        /// An old event was removed for the cap of its key.
        TrimmedForKey = "trimmed_for_key",
        /// An old event was removed for the cap in bytes.
        TrimmedForBytes = "trimmed_for_bytes",
        /// An event was refused: it alone is over the cap in bytes.
        RefusedTooLarge = "refused_too_large",
    }
}

/// An event that alone is over the history's cap in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of {weight} bytes is over the history's cap of {cap}")]
pub struct EventTooLarge {
    /// Its weight in bytes.
    pub weight: u64,
    /// The history's cap in bytes.
    pub cap: u64,
}

/// Something computed from the events of a [`History`]: counts by kind, the last event of each worker.
///
/// It is called for every event that is added and for every event that is removed, in the step in which that happens. `()`
/// computes nothing.
pub trait HistoryIndex<K, E> {
    /// An event was added.
    fn added(&mut self, key: &K, event: &E);

    /// The same event is being removed.
    fn removed(&mut self, key: &K, event: &E);
}

impl<K, E> HistoryIndex<K, E> for () {
    fn added(&mut self, _key: &K, _event: &E) {}

    fn removed(&mut self, _key: &K, _event: &E) {}
}

/// A history of events by key, oldest first.
///
/// A push costs O(log n) and trims a batch every so often; reading the latest, or those after a known number, costs
/// O(log n + what is read).
///
/// ```
/// use plimsoll::bounded::{Cap, History, HistoryCaps};
///
/// let caps = HistoryCaps { events: Cap::of::<3>(), batch: Cap::of::<2>(), ..HistoryCaps::default() };
/// let mut history = History::new("events", caps);
/// for (worker, event) in [("a", "started"), ("b", "started"), ("a", "failed"), ("a", "restarted")] {
///     history.push(worker, event, event.len() as u64)?;
/// }
/// let kept: Vec<_> = history.iter().map(|(_, worker, event)| (*worker, *event)).collect();
/// assert_eq!(kept, [("a", "failed"), ("a", "restarted")]);
/// assert_eq!(history.events_of(&"b").count(), 0);
/// # Ok::<(), plimsoll::bounded::EventTooLarge>(())
/// ```
#[derive(Debug)]
pub struct History<K, E, I = ()> {
    caps: HistoryCaps,
    next: u64,
    events: BTreeMap<u64, StoredEvent<K, E>>,
    keys: HashMap<K, VecDeque<u64>>,
    weight: u64,
    index: I,
    counters: Counters<HistoryEvent>,
}

#[derive(Debug)]
struct StoredEvent<K, E> {
    key: K,
    event: E,
    weight: u64,
}

impl<K: Eq + Hash + Clone, E> History<K, E> {
    /// An empty history called `name`.
    pub fn new(name: &str, caps: HistoryCaps) -> Self {
        Self::with_index(name, caps, ())
    }
}

impl<K: Eq + Hash + Clone, E, I: HistoryIndex<K, E>> History<K, E, I> {
    /// An empty history that updates `index` with each event that is added or removed.
    pub fn with_index(name: &str, caps: HistoryCaps, index: I) -> Self {
        let counters = Counters::with_bytes(name, caps.events, caps.bytes);
        Self { caps, next: 0, events: BTreeMap::new(), keys: HashMap::new(), weight: 0, index, counters }
    }

    /// Adds an event of `weight` bytes and returns its number, which counts up from 0 and is never used again.
    ///
    /// Makes room first: at the total cap the oldest batch is removed, at the cap of the key its oldest event, for the bytes
    /// as many of the oldest as necessary.
    ///
    /// # Errors
    /// [`EventTooLarge`] when the event alone is over the cap in bytes; nothing is removed for it.
    pub fn push(&mut self, key: K, event: E, weight: u64) -> Result<u64, EventTooLarge> {
        let cap = self.caps.bytes.get();
        if weight > cap {
            self.counters.count(HistoryEvent::RefusedTooLarge);
            return Err(EventTooLarge { weight, cap });
        }
        if self.events.len() >= self.caps.events.get() {
            let trimmed = self.trim(self.caps.batch.get());
            self.counters.count_many(HistoryEvent::TrimmedForEvents, trimmed);
        }
        if let Some(oldest) = self.keys.get(&key).filter(|own| own.len() >= self.caps.per_key.get()).map(|own| own[0]) {
            self.remove(oldest);
            self.counters.count(HistoryEvent::TrimmedForKey);
        }
        while self.weight + weight > cap {
            let trimmed = self.trim(1);
            self.counters.count_many(HistoryEvent::TrimmedForBytes, trimmed);
        }
        let number = self.next;
        self.next += 1;
        self.index.added(&key, &event);
        self.keys.entry(key.clone()).or_default().push_back(number);
        self.events.insert(number, StoredEvent { key, event, weight });
        self.weight += weight;
        self.counters.count(HistoryEvent::Pushed);
        self.update_gauges();
        Ok(number)
    }

    /// All events with their numbers, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, &K, &E)> {
        self.events.iter().map(|(number, kept)| (*number, &kept.key, &kept.event))
    }

    /// The events after the one with `number`, oldest first: those that a reader of that one has missed.
    ///
    /// Numbers that are missing at the beginning were removed; the first number shows how many.
    pub fn after(&self, number: u64) -> impl DoubleEndedIterator<Item = (u64, &K, &E)> {
        let newer = self.events.range(number.saturating_add(1)..);
        newer.map(|(number, kept)| (*number, &kept.key, &kept.event))
    }

    /// The events of one key, oldest first.
    pub fn events_of(&self, key: &K) -> impl DoubleEndedIterator<Item = (u64, &E)> {
        let numbers = self.keys.get(key).into_iter().flatten();
        numbers.filter_map(|number| Some((*number, &self.events.get(number)?.event)))
    }

    /// Removes all events of one key and returns how many there were.
    pub fn remove_key(&mut self, key: &K) -> usize {
        let numbers = self.keys.get(key).cloned().unwrap_or_default();
        numbers.iter().for_each(|number| self.remove(*number));
        self.update_gauges();
        numbers.len()
    }

    /// The index.
    pub fn index(&self) -> &I {
        &self.index
    }

    /// The index, for its owner to change: one may collect removed events for the owner to process.
    pub fn index_mut(&mut self) -> &mut I {
        &mut self.index
    }

    /// The number of events.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The number of keys that have events.
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// Bytes of all events together.
    pub fn weight(&self) -> u64 {
        self.weight
    }

    /// The counters, for the snapshot.
    pub fn counters(&self) -> &Counters<HistoryEvent> {
        &self.counters
    }

    /// Removes up to `n` of the oldest.
    fn trim(&mut self, n: usize) -> u64 {
        let mut trimmed = 0;
        while trimmed < n as u64
            && let Some(oldest) = self.events.keys().next().copied()
        {
            self.remove(oldest);
            trimmed += 1;
        }
        trimmed
    }

    /// Removes an event from the history, its key and the index: the only place where that is done.
    fn remove(&mut self, number: u64) {
        let Some(kept) = self.events.remove(&number) else { return };
        self.weight -= kept.weight;
        self.index.removed(&kept.key, &kept.event);
        if let Some(own) = self.keys.get_mut(&kept.key) {
            // INVARIANT: the oldest event of its key is removed first, so this is the front and costs O(1).
            debug_assert_eq!(own.front(), Some(&number));
            own.pop_front();
            if own.is_empty() {
                self.keys.remove(&kept.key);
            } else if own.capacity() > KEPT_NUMBERS && own.len() < own.capacity() / 4 {
                own.shrink_to(own.len() * 2);
            }
        }
    }

    fn update_gauges(&self) {
        self.counters.entries().set(self.events.len() as u64);
        if let Some(bytes) = self.counters.bytes() {
            bytes.set(self.weight);
        }
    }
}

/// The tree of events and the lists of the keys shrink by themselves; this shrinks the table of keys.
impl<K: Eq + Hash + Clone, E, I> Compact for History<K, E, I> {
    fn footprint(&self) -> Footprint {
        self.keys.footprint()
    }

    fn compact(&mut self, policy: &CompactPolicy) -> Compacted {
        self.keys.compact(policy)
    }
}

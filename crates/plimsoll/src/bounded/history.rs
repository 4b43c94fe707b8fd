//! The most recent events, within caps by number, by key and by bytes.
//!
//! Events are kept by sequence number, oldest first, and each key keeps the numbers of its own. Whatever takes an event
//! out (the cap in all, the cap of its key, the cap in bytes) takes it out of both in the same step, and out of the
//! [`Derived`] index that the owner keeps beside them: none of the three can outlive the others.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;

use super::{ByteCap, Cap, Compact, CompactPolicy, Compacted, Counters, Footprint, events};

mod derived;

pub use derived::Derived;

/// A key's list with room for no more numbers than this is not worth shrinking.
const KEPT_NUMBERS: usize = 32;

/// How much a [`History`] keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryCaps {
    /// Events in all; default 10,000.
    pub events: Cap,
    /// How many of the oldest go at once when the cap in all is reached; default 100. Trimming in batches costs a
    /// hundredth of the trims, and because it comes before the push, the peak is the cap and never more.
    pub batch: Cap,
    /// Events of one key; default 10,000, that is, no tighter than the cap in all. The key's own oldest goes first.
    pub per_key: Cap,
    /// What all events may weigh; default 16 MiB.
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
        /// An event came in.
        Pushed = "pushed",
        /// An old event went for the cap in all.
        TrimmedForEvents = "trimmed_for_events",
        /// An old event went for the cap of its key.
        TrimmedForKey = "trimmed_for_key",
        /// An old event went for the cap in bytes.
        TrimmedForBytes = "trimmed_for_bytes",
        /// An event that weighs more than all of them may was refused.
        RefusedTooLarge = "refused_too_large",
    }
}

/// An event that weighs more than the whole history may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of {weight} bytes is over the history's cap of {cap}")]
pub struct EventTooLarge {
    /// What it weighs.
    pub weight: u64,
    /// The history's cap in bytes.
    pub cap: u64,
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
/// assert_eq!(history.of(&"b").count(), 0);
/// # Ok::<(), plimsoll::bounded::EventTooLarge>(())
/// ```
#[derive(Debug)]
pub struct History<K, E, D = ()> {
    caps: HistoryCaps,
    next: u64,
    events: BTreeMap<u64, Kept<K, E>>,
    keys: HashMap<K, VecDeque<u64>>,
    weight: u64,
    derived: D,
    counters: Counters<HistoryEvent>,
}

#[derive(Debug)]
struct Kept<K, E> {
    key: K,
    event: E,
    weight: u64,
}

impl<K: Eq + Hash + Clone, E> History<K, E> {
    /// An empty history called `name`.
    pub fn new(name: &str, caps: HistoryCaps) -> Self {
        Self::deriving(name, caps, ())
    }
}

impl<K: Eq + Hash + Clone, E, D: Derived<K, E>> History<K, E, D> {
    /// An empty history that keeps `derived` in step with its events.
    pub fn deriving(name: &str, caps: HistoryCaps, derived: D) -> Self {
        let counters = Counters::with_bytes(name, caps.events, caps.bytes);
        Self { caps, next: 0, events: BTreeMap::new(), keys: HashMap::new(), weight: 0, derived, counters }
    }

    /// Adds an event that weighs `weight` bytes and returns its number, which counts up from 0 and is never used again.
    ///
    /// Makes room first: at the cap in all the oldest batch goes, at the cap of the key its oldest, for the bytes as many
    /// of the oldest as it takes.
    ///
    /// # Errors
    /// [`EventTooLarge`] when no room could ever be enough; nothing was trimmed for it.
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
        self.derived.added(&key, &event);
        self.keys.entry(key.clone()).or_default().push_back(number);
        self.events.insert(number, Kept { key, event, weight });
        self.weight += weight;
        self.counters.count(HistoryEvent::Pushed);
        self.show();
        Ok(number)
    }

    /// All events with their numbers, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, &K, &E)> {
        self.events.iter().map(|(number, kept)| (*number, &kept.key, &kept.event))
    }

    /// The events after the one with `number`, oldest first: what a reader who has seen that one has missed.
    ///
    /// Numbers that are missing at the beginning were trimmed; the first number tells how many.
    pub fn after(&self, number: u64) -> impl DoubleEndedIterator<Item = (u64, &K, &E)> {
        let newer = self.events.range(number.saturating_add(1)..);
        newer.map(|(number, kept)| (*number, &kept.key, &kept.event))
    }

    /// The events of one key, oldest first.
    pub fn of(&self, key: &K) -> impl DoubleEndedIterator<Item = (u64, &E)> {
        let numbers = self.keys.get(key).into_iter().flatten();
        numbers.filter_map(|number| Some((*number, &self.events.get(number)?.event)))
    }

    /// Drops all events of one key and returns how many there were.
    pub fn forget(&mut self, key: &K) -> usize {
        let numbers = self.keys.get(key).cloned().unwrap_or_default();
        numbers.iter().for_each(|number| self.remove(*number));
        self.show();
        numbers.len()
    }

    /// What is derived from the events.
    pub fn derived(&self) -> &D {
        &self.derived
    }

    /// What is derived from the events, for its owner to change: an index may collect what went, to be worked off.
    pub fn derived_mut(&mut self) -> &mut D {
        &mut self.derived
    }

    /// Events kept.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Keys that have events.
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// What the events weigh.
    pub fn weight(&self) -> u64 {
        self.weight
    }

    /// The counters, for the snapshot.
    pub fn counters(&self) -> &Counters<HistoryEvent> {
        &self.counters
    }

    /// Drops up to `n` of the oldest.
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

    /// The one place where an event goes, from everything that knows it.
    fn remove(&mut self, number: u64) {
        let Some(kept) = self.events.remove(&number) else { return };
        self.weight -= kept.weight;
        self.derived.removed(&kept.key, &kept.event);
        if let Some(own) = self.keys.get_mut(&kept.key) {
            // INVARIANT: whatever trims takes the oldest of its key, so that this is the front and costs O(1).
            debug_assert_eq!(own.front(), Some(&number));
            own.pop_front();
            if own.is_empty() {
                self.keys.remove(&kept.key);
            } else if own.capacity() > KEPT_NUMBERS && own.len() < own.capacity() / 4 {
                own.shrink_to(own.len() * 2);
            }
        }
    }

    fn show(&self) {
        self.counters.entries().set(self.events.len() as u64);
        if let Some(bytes) = self.counters.bytes() {
            bytes.set(self.weight);
        }
    }
}

/// The tree of events and the keys' lists give their room back as they shrink; the table of keys is left for this.
impl<K: Eq + Hash + Clone, E, D> Compact for History<K, E, D> {
    fn footprint(&self) -> Footprint {
        self.keys.footprint()
    }

    fn compact(&mut self, policy: &CompactPolicy) -> Compacted {
        self.keys.compact(policy)
    }
}

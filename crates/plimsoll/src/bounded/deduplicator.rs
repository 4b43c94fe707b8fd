//! Recognises repeated keys, such as request ids, within a time and a number of keys.

use std::hash::Hash;
use std::time::{Duration, Instant};

use super::lru_map::LruMap;
use super::time::after;
use super::{Cap, Compact, CompactPolicy, Compacted, Counters, Footprint, events};

/// The limits of a [`Deduplicator`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeduplicatorCaps {
    /// Keys remembered; default 10,000. At the cap the least recently seen is forgotten, and that is counted.
    pub keys: Cap,
    /// How long a key is remembered after it was last seen; default 5 min.
    pub window: Duration,
}

impl Default for DeduplicatorCaps {
    fn default() -> Self {
        Self { keys: Cap::of::<10_000>(), window: Duration::from_secs(300) }
    }
}

events! {
    /// What a [`Deduplicator`] counts: `first = in use + forgotten + expired`.
    pub enum DeduplicatorEvent {
        /// A key was seen that is not remembered.
        First = "first",
        /// A key was seen again within its window.
        Repeated = "repeated",
        /// A key was forgotten at the cap, before its window had passed: it may be repeated unnoticed.
        Forgotten = "forgotten",
        /// A key was removed after its window.
        Expired = "expired",
    }
}

/// Remembers the keys seen within [`DeduplicatorCaps::window`]. Seeing a key is O(1) and removes at most two expired ones.
///
/// ```
/// use std::time::{Duration, Instant};
/// use plimsoll::bounded::{Deduplicator, DeduplicatorCaps};
///
/// let mut requests = Deduplicator::new("requests", DeduplicatorCaps::default());
/// let now = Instant::now();
/// assert!(requests.is_first("request 1", now));
/// assert!(!requests.is_first("request 1", now));
/// assert!(requests.is_first("request 1", now + Duration::from_secs(301)));
/// ```
#[derive(Debug)]
pub struct Deduplicator<K> {
    window: Duration,
    /// When each key expires: the least recently seen first, so in the order of their expiry.
    keys: LruMap<K, Instant>,
    counters: Counters<DeduplicatorEvent>,
}

impl<K: Eq + Hash + Clone> Deduplicator<K> {
    /// An empty deduplicator called `name`.
    pub fn new(name: &str, caps: DeduplicatorCaps) -> Self {
        Self { window: caps.window, keys: LruMap::new(caps.keys), counters: Counters::new(name, caps.keys) }
    }

    /// Records that `key` was seen at `now`. Returns whether it is the first time within the window.
    pub fn is_first(&mut self, key: K, now: Instant) -> bool {
        for _ in 0..2 {
            self.remove_expired(now);
        }
        let expires = after(now, self.window);
        let known = self.keys.peek(&key).map(|expires| *expires > now);
        if known == Some(false) {
            self.counters.count_by_owner(DeduplicatorEvent::Expired);
        }
        let (at, forgotten) = self.keys.entry(&key, || expires);
        *at = expires;
        if forgotten.is_some() {
            self.counters.count_by_owner(DeduplicatorEvent::Forgotten);
        }
        let first = known != Some(true);
        self.counters.count_by_owner(if first { DeduplicatorEvent::First } else { DeduplicatorEvent::Repeated });
        self.counters.entries().set(self.keys.len() as u64);
        first
    }

    /// Removes all keys whose window has passed and returns how many. O(those): for the owner's slow tick.
    pub fn sweep(&mut self, now: Instant) -> usize {
        let before = self.keys.len();
        while self.remove_expired(now) {}
        self.counters.entries().set(self.keys.len() as u64);
        before - self.keys.len()
    }

    /// The number of keys remembered.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no key is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The counters.
    pub fn counters(&self) -> &Counters<DeduplicatorEvent> {
        &self.counters
    }

    fn remove_expired(&mut self, now: Instant) -> bool {
        let expired = self.keys.least_recent().is_some_and(|(_, expires)| *expires <= now);
        if expired {
            self.keys.pop_least_recent();
            self.counters.count_by_owner(DeduplicatorEvent::Expired);
        }
        expired
    }
}

impl<K: Eq + Hash> Compact for Deduplicator<K> {
    fn footprint(&self) -> Footprint {
        self.keys.footprint()
    }

    fn compact(&mut self, policy: &CompactPolicy) -> Compacted {
        self.keys.compact(policy)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        /// F-40: a key is repeated exactly if it is among the last ones seen, as many as the cap, and was seen within the window.
        #[test]
        fn repeated_keys_are_those_of_a_naive_list(
            steps in prop::collection::vec((0_u8..8, 0_u64..400, any::<bool>()), 1..80),
            keys in 1_usize..6,
        ) {
            let window = Duration::from_millis(1_000);
            let caps = DeduplicatorCaps { keys: Cap::new(keys).unwrap(), window };
            let (mut deduplicator, mut now) = (Deduplicator::new("ids", caps), Instant::now());
            // Keys with the time of their last sight, least recent first.
            let mut model: Vec<(u8, Instant)> = Vec::new();
            for (key, pause, sweep) in steps {
                now += Duration::from_millis(pause);
                if sweep {
                    deduplicator.sweep(now);
                    model.retain(|(_, seen)| now - *seen < window);
                    prop_assert_eq!(deduplicator.len(), model.len());
                }
                let repeated = model.iter().any(|(known, seen)| *known == key && now - *seen < window);
                prop_assert_eq!(deduplicator.is_first(key, now), !repeated);
                model.retain(|(known, seen)| *known != key && now - *seen < window);
                model.push((key, now));
                if model.len() > keys {
                    model.remove(0);
                }
                prop_assert!(deduplicator.len() <= keys);
                let counted = |event| deduplicator.counters().counted(event);
                let removed = counted(DeduplicatorEvent::Forgotten) + counted(DeduplicatorEvent::Expired);
                prop_assert_eq!(counted(DeduplicatorEvent::First), deduplicator.len() as u64 + removed);
                prop_assert_eq!(deduplicator.counters().entries().read().used, deduplicator.len() as u64);
            }
        }
    }
}

//! Working space that is used again for every message.
//!
//! Space that is reused keeps the capacity of the largest message it ever saw: 300 actors with reused buffers have been
//! seen to hold 600 MiB where the messages needed 5. A [`Scratch`] is emptied after each use, and gives its room back when
//! that is above its keep size.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, Hash};

use bytes::BytesMut;

use super::{Compact, CompactPolicy, Compacted, Footprint};
use crate::inspect::Details;

/// A collection that can be emptied and used again.
pub trait Reusable: Default {
    /// Drops the contents, keeps the room.
    fn clear(&mut self);

    /// Whether there are no contents.
    fn is_empty(&self) -> bool;

    /// Bytes of room.
    fn room(&self) -> usize;
}

/// Working space of one actor or task, which owns it and shows it with its own figures ([`Scratch::add_to`]). It refuses
/// nothing: what is above the keep size goes back after each use, and is counted.
///
/// ```
/// use plimsoll::bounded::Scratch;
///
/// let mut scratch: Scratch<Vec<u8>> = Scratch::keeping(4096);
/// let sum = scratch.with(|bytes| {
///     bytes.resize(1 << 20, 1);
///     bytes.drain(..).map(u64::from).sum::<u64>()
/// });
/// assert_eq!(sum, 1 << 20);
/// assert_eq!(scratch.room(), 0, "above the keep size it goes back");
/// ```
#[derive(Debug)]
pub struct Scratch<C> {
    space: C,
    keep: usize,
    largest: usize,
    given_back: u64,
}

impl<C: Reusable> Scratch<C> {
    /// Space that keeps up to `keep` bytes of room from one use to the next.
    pub fn keeping(keep: usize) -> Self {
        Self { space: C::default(), keep, largest: 0, given_back: 0 }
    }

    /// Lends the space to `work`, which finds it empty and leaves it empty.
    ///
    /// # Panics
    /// In debug builds, when `work` leaves something behind: the next message must not see it. Release builds drop it.
    pub fn with<R>(&mut self, work: impl FnOnce(&mut C) -> R) -> R {
        // What a panic left behind is dropped here; the space is empty on every way in.
        self.space.clear();
        let result = work(&mut self.space);
        debug_assert!(self.space.is_empty(), "scratch must be empty between messages");
        self.settle();
        result
    }

    /// Bytes of room held between two uses.
    pub fn room(&self) -> usize {
        self.space.room()
    }

    /// How often the room was above the keep size and went back.
    pub fn given_back(&self) -> u64 {
        self.given_back
    }

    /// The most bytes of room that a use ended with.
    pub fn largest(&self) -> usize {
        self.largest
    }

    /// Adds its figures to those of whoever owns it, as `<name>_bytes_used`, `_bytes_cap`, `_bytes_high_water` and
    /// `<name>_given_back`. In use is the room held between two messages, the cap is the keep size.
    pub fn add_to(&self, name: &str, details: &mut Details) {
        let figures = [
            ("bytes_used", self.room() as u64),
            ("bytes_cap", self.keep as u64),
            ("bytes_high_water", self.largest as u64),
            ("given_back", self.given_back),
        ];
        details.counters.extend(figures.map(|(what, value)| (format!("{name}_{what}"), value)));
    }

    fn settle(&mut self) {
        self.largest = self.largest.max(self.space.room());
        if self.space.room() > self.keep {
            self.space = C::default();
            self.given_back += 1;
        } else {
            self.space.clear();
        }
    }
}

/// Scratch is empty between messages, so that under pressure all its room can go.
impl<C: Reusable> Compact for Scratch<C> {
    fn footprint(&self) -> Footprint {
        let bytes = self.space.room();
        Footprint { len: 0, capacity: bytes, bytes }
    }

    fn compact(&mut self, policy: &CompactPolicy) -> Compacted {
        let before = self.footprint();
        if policy.wants(before) {
            self.space = C::default();
        }
        Compacted { before, after: self.footprint(), failed: 0 }
    }
}

macro_rules! reusable {
    ($([$($generics:tt)*] $collection:ty, $room:expr;)+) => {
        $(impl<$($generics)*> Reusable for $collection {
            fn clear(&mut self) {
                self.clear();
            }

            fn is_empty(&self) -> bool {
                self.is_empty()
            }

            fn room(&self) -> usize {
                let room: fn(&Self) -> usize = $room;
                room(self)
            }
        })+
    };
}

reusable! {
    [] String, |text| text.capacity();
    [] BytesMut, |bytes| bytes.capacity();
    [T] Vec<T>, |list| Compact::footprint(list).bytes;
    [T] VecDeque<T>, |deque| Compact::footprint(deque).bytes;
    [K: Eq + Hash, V, S: BuildHasher + Clone + Default] HashMap<K, V, S>, |map| Compact::footprint(map).bytes;
    [T: Eq + Hash, S: BuildHasher + Clone + Default] HashSet<T, S>, |set| Compact::footprint(set).bytes;
    // A tree holds no room beyond its contents.
    [K: Ord, V] BTreeMap<K, V>, |_| 0;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// L-6, R-16: room within the keep size is used again, room above it goes back.
    #[test]
    fn small_room_stays_and_large_room_goes_back() {
        let mut scratch: Scratch<Vec<u8>> = Scratch::keeping(1000);
        let grow = |scratch: &mut Scratch<Vec<u8>>, n| {
            scratch.with(|list| {
                list.resize(n, 0);
                let at = list.as_ptr();
                list.clear();
                at
            })
        };
        let first = grow(&mut scratch, 1000);
        assert_eq!(grow(&mut scratch, 500), first, "the same room again");
        assert_eq!((scratch.room(), scratch.given_back()), (1000, 0));
        grow(&mut scratch, 1001);
        assert_eq!((scratch.room(), scratch.given_back()), (0, 1));
        let mut details = Details::default();
        scratch.add_to("text", &mut details);
        let shown = ["bytes_used", "bytes_cap", "bytes_high_water", "given_back"]
            .map(|figure| details.counters[&format!("text_{figure}")]);
        assert_eq!(shown, [0, 1000, scratch.largest() as u64, 1]);
        assert!(scratch.largest() >= 1001);
    }

    /// L-7: whoever leaves something behind for the next message is told in debug builds.
    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "empty between messages")]
    fn leaving_something_behind_is_told() {
        Scratch::<String>::keeping(100).with(|text| text.push('x'));
    }

    /// L-7: a message that panicked leaves nothing for the next one.
    #[test]
    fn a_panic_leaves_nothing_behind() {
        let mut scratch: Scratch<HashMap<u8, u8>> = Scratch::keeping(1 << 20);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            scratch.with(|map| {
                map.insert(1, 1);
                panic!("in the middle of a message");
            })
        }));
        assert!(panicked.is_err());
        assert!(scratch.with(|map| map.is_empty()));
    }

    /// L-6: under pressure even room within the keep size goes.
    #[test]
    fn compaction_takes_all_the_room() {
        let mut scratch: Scratch<VecDeque<u64>> = Scratch::keeping(1 << 20);
        scratch.with(|deque| {
            deque.extend(0..10_000);
            deque.clear();
        });
        assert!(scratch.room() >= 80_000);
        assert!(scratch.compact(&CompactPolicy::default()).freed() >= 80_000);
        assert_eq!(scratch.room(), 0);
    }
}

//! Intrusive doubly linked lists through the slots of a table. Every operation is O(1).
//!
//! The links are part of the rows, so a row that is found by its key is found in its lists too, and a move to the end
//! allocates nothing. A row has one pair of links for each list that it can be in.

use plimsoll_sync::slots::Slots;

use super::{Compact, CompactPolicy, Compacted, Footprint};

const NONE: u32 = u32::MAX;

/// The links of a row in one list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Links {
    previous: u32,
    next: u32,
}

impl Default for Links {
    fn default() -> Self {
        Self { previous: NONE, next: NONE }
    }
}

/// A row that can be in the list number `LIST`.
pub(crate) trait Linked<const LIST: usize> {
    fn links(&mut self) -> &mut Links;
    fn place(&self) -> Links;
}

/// Implements [`Linked`]: `linked!(Row<T>, 0, links)`.
macro_rules! linked {
    ([$($generics:tt)*] $row:ty, $list:literal, $field:ident) => {
        impl<$($generics)*> $crate::bounded::linked_list::Linked<$list> for $row {
            fn links(&mut self) -> &mut $crate::bounded::linked_list::Links {
                &mut self.$field
            }

            fn place(&self) -> $crate::bounded::linked_list::Links {
                self.$field
            }
        }
    };
}
pub(crate) use linked;

/// Where the links of a list's rows are.
pub(crate) trait Chain<const LIST: usize> {
    fn links(&mut self, index: u32) -> Option<&mut Links>;
    fn place(&self, index: u32) -> Option<Links>;
}

impl<T: Linked<LIST>, const LIST: usize> Chain<LIST> for Slots<T> {
    fn links(&mut self, index: u32) -> Option<&mut Links> {
        self.at_mut(index).map(|(_, row)| row.links())
    }

    fn place(&self, index: u32) -> Option<Links> {
        self.at(index).map(|(_, row)| row.place())
    }
}

/// Links by slot, apart from the rows: at eight bytes each they stay in the processor's cache where the rows do not, and
/// moving a row touches the links of its neighbours and not their rows.
#[derive(Debug, Default)]
pub(crate) struct Places(Vec<Links>);

impl Places {
    /// Makes a place for the row in slot `index`, which is in no list.
    pub(crate) fn make(&mut self, index: u32) {
        if self.0.len() <= index as usize {
            self.0.resize_with(index as usize + 1, Links::default);
        }
    }

    pub(crate) fn footprint(&self) -> Footprint {
        self.0.footprint()
    }

    /// Keeps the places of the first `slots` slots, and shrinks where the policy says so.
    pub(crate) fn compact(&mut self, slots: usize, policy: &CompactPolicy) -> Compacted {
        self.0.truncate(slots);
        self.0.compact(policy)
    }
}

impl<const LIST: usize> Chain<LIST> for Places {
    fn links(&mut self, index: u32) -> Option<&mut Links> {
        self.0.get_mut(index as usize)
    }

    fn place(&self, index: u32) -> Option<Links> {
        self.0.get(index as usize).copied()
    }
}

/// First, last and number of the rows in a list; the rows themselves are in the table given to each operation.
#[derive(Debug)]
pub(crate) struct List<const LIST: usize> {
    head: u32,
    tail: u32,
    len: u32,
}

impl<const LIST: usize> Default for List<LIST> {
    fn default() -> Self {
        Self { head: NONE, tail: NONE, len: 0 }
    }
}

impl<const LIST: usize> List<LIST> {
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The slot of the row that has been in the list for longest.
    pub(crate) fn front(&self) -> Option<u32> {
        (self.head != NONE).then_some(self.head)
    }

    /// The slot of the row that came last.
    pub(crate) fn back(&self) -> Option<u32> {
        (self.tail != NONE).then_some(self.tail)
    }

    /// Adds the row in slot `index`, which must not be in the list.
    pub(crate) fn push_back(&mut self, rows: &mut impl Chain<LIST>, index: u32) {
        let Some(links) = links(rows, index) else { return };
        *links = Links { previous: self.tail, next: NONE };
        match links_at(rows, self.tail) {
            Some(last) => last.next = index,
            None => self.head = index,
        }
        self.tail = index;
        self.len += 1;
    }

    /// Takes the row in slot `index`, which must be in the list, out of it.
    pub(crate) fn unlink(&mut self, rows: &mut impl Chain<LIST>, index: u32) {
        let Some(links) = links(rows, index) else { return };
        let Links { previous, next } = std::mem::take(links);
        match links_at(rows, previous) {
            Some(row) => row.next = next,
            None => self.head = next,
        }
        match links_at(rows, next) {
            Some(row) => row.previous = previous,
            None => self.tail = previous,
        }
        self.len -= 1;
    }

    /// Moves the row in slot `index`, which must be in the list, to its end.
    pub(crate) fn move_to_back(&mut self, rows: &mut impl Chain<LIST>, index: u32) {
        if self.tail != index {
            self.unlink(rows, index);
            self.push_back(rows, index);
        }
    }

    /// Takes the first row out of the list.
    pub(crate) fn pop_front(&mut self, rows: &mut impl Chain<LIST>) -> Option<u32> {
        let index = self.front()?;
        self.unlink(rows, index);
        Some(index)
    }

    /// The slots of all rows, first to last.
    #[cfg(test)]
    pub(crate) fn iter<'a, C: Chain<LIST>>(&self, rows: &'a C) -> impl Iterator<Item = u32> + use<'a, C, LIST> {
        std::iter::successors(self.front(), move |index| Self::next(rows, *index))
    }

    /// The slot of the row before the one in slot `index`.
    pub(crate) fn previous(rows: &impl Chain<LIST>, index: u32) -> Option<u32> {
        visits::count();
        let previous = rows.place(index)?.previous;
        (previous != NONE).then_some(previous)
    }

    /// The slot of the row after the one in slot `index`.
    pub(crate) fn next(rows: &impl Chain<LIST>, index: u32) -> Option<u32> {
        visits::count();
        let next = rows.place(index)?.next;
        (next != NONE).then_some(next)
    }
}

fn links<const LIST: usize>(rows: &mut impl Chain<LIST>, index: u32) -> Option<&mut Links> {
    visits::count();
    rows.links(index)
}

/// Like [`links`], for an index that may stand for "none", which is no visit.
fn links_at<const LIST: usize>(rows: &mut impl Chain<LIST>, index: u32) -> Option<&mut Links> {
    if index == NONE { None } else { links(rows, index) }
}

/// Counts in tests how many rows are visited, to show without a clock that a cost does not depend on the size.
pub(crate) mod visits {
    #[cfg(test)]
    thread_local! {
        static VISITS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
    }

    /// Counts one visit.
    #[inline]
    pub(crate) fn count() {
        #[cfg(test)]
        VISITS.with(|visits| visits.set(visits.get() + 1));
    }

    /// Visits during `work`.
    #[cfg(test)]
    pub(crate) fn during(work: impl FnOnce()) -> u64 {
        let before = VISITS.with(std::cell::Cell::get);
        work();
        VISITS.with(std::cell::Cell::get) - before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Row(char, Links);

    impl Linked<0> for Row {
        fn links(&mut self) -> &mut Links {
            &mut self.1
        }

        fn place(&self) -> Links {
            self.1
        }
    }

    #[test]
    fn rows_keep_the_order_in_which_they_came() {
        let mut rows = Slots::with_limit(4);
        let mut list = List::<0>::default();
        let keys: Vec<_> = "abcd".chars().map(|c| rows.insert(Row(c, Links::default())).unwrap().index()).collect();
        for key in &keys {
            list.push_back(&mut rows, *key);
        }
        let order = |list: &List<0>, rows: &Slots<Row>| -> String {
            list.iter(rows).filter_map(|index| Some(rows.at(index)?.1.0)).collect()
        };
        list.move_to_back(&mut rows, keys[1]);
        assert_eq!(order(&list, &rows), "acdb");
        list.move_to_back(&mut rows, keys[1]);
        list.unlink(&mut rows, keys[0]);
        assert_eq!(order(&list, &rows), "cdb");
        assert_eq!(list.pop_front(&mut rows), Some(keys[2]));
        list.unlink(&mut rows, keys[1]);
        assert_eq!(order(&list, &rows), "d");
        list.unlink(&mut rows, keys[3]);
        assert_eq!((list.front(), list.len()), (None, 0));
    }
}

//! What holds between the parts of a pool after every operation.

use std::hash::Hash;

use super::{LruPool, Row, Standing, State};
use crate::bounded::pool::actions::PoolEvent;

impl<K: Eq + Hash + Clone + std::fmt::Debug, V, W> LruPool<K, V, W> {
    /// Index = rows, lists = rows in the state they stand for, places = rows that have one; nobody waits for a place while
    /// there is one.
    pub(in crate::bounded::pool) fn check_law(&self) {
        let is = |wanted: fn(&State<V>) -> bool| self.rows.iter().filter(|(_, row)| wanted(&row.state)).count();
        let found = is(|state| !matches!(state, State::Live { standing: Standing::Retired | Standing::Replaced, .. }));
        assert_eq!(self.index.iter().len(), found);
        for slot in self.index.iter() {
            let (_, row) = self.rows.at(slot).expect("the index names rows");
            assert_eq!(row.hash, self.index.hash(&row.key));
            assert_eq!(self.index.get(&self.rows, row.hash, &row.key), Some(slot));
        }
        assert_eq!(self.idle.len(), is(|state| matches!(state, State::Live { leases: 0, .. })));
        assert_eq!(self.idle.iter(&self.places).count(), self.idle.len());
        assert_eq!(self.wanted.len(), is(|state| matches!(state, State::Wanted)));
        assert_eq!(self.wanted.iter(&self.places).count(), self.wanted.len());
        assert_eq!(self.replaced, is(|state| matches!(state, State::Live { standing: Standing::Replaced, .. })));
        assert_eq!(self.occupied, self.rows.len() - self.wanted.len() - self.replaced);
        let queued: usize = self.rows.iter().map(|(_, row)| row.queue.len()).sum();
        assert_eq!(queued, self.waiting.len());
        assert!(self.rows.iter().all(|(_, row)| !matches!(row.state, State::Wanted) || !row.queue.is_empty()));
        assert!(self.wanted.is_empty() || !self.has_room());
        assert!(self.failing.len() <= self.failing_cap());
    }

    /// Each lease that was asked for is granted, refused, told of a failure, forgotten, or still waits; each handle that
    /// was opened is open or closed.
    pub(in crate::bounded::pool) fn check_counters(&self, leased: usize) {
        let counted = |event| self.counters.counted(event);
        let ended = counted(PoolEvent::Hit)
            + counted(PoolEvent::Granted)
            + counted(PoolEvent::ToldFailed)
            + counted(PoolEvent::Forgotten)
            + self.counters.refused();
        assert_eq!(counted(PoolEvent::Requested), ended + self.waiting.len() as u64);
        let leases: u32 = self.rows.iter().map(|(_, row)| row.leases()).sum();
        assert_eq!(leases as usize, leased, "leases = users");
        let live = self.rows.iter().filter(|(_, row)| matches!(row.state, State::Live { .. })).count();
        assert_eq!(counted(PoolEvent::Opened), (live + self.closing) as u64 + counted(PoolEvent::Closed));
        assert_eq!(self.counters.entries().read().used, self.len() as u64);
    }

    fn failing_cap(&self) -> usize {
        self.rows.limit() as usize
    }
}

impl<K, V> Row<K, V> {
    fn leases(&self) -> u32 {
        match &self.state {
            State::Live { leases, .. } => *leases,
            _ => 0,
        }
    }
}

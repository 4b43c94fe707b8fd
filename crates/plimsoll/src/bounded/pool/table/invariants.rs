//! What holds between the parts of a pool after every operation.

use std::hash::Hash;

use super::{LruPool, Row, Standing, State};
use crate::bounded::pool::action::PoolEvent;

impl<K: Eq + Hash + Clone + std::fmt::Debug, V, W> LruPool<K, V, W> {
    /// Index = rows, lists = rows in the state they stand for, places = rows that have one; no row waits for a place while
    /// there is one.
    pub(in crate::bounded::pool) fn check_invariants(&self) {
        let is = |wanted: fn(&State<V>) -> bool| self.rows.iter().filter(|(_, row)| wanted(&row.state)).count();
        let retired =
            |state: &State<V>| matches!(state, State::Live { standing: Standing::Retired | Standing::Replaced, .. });
        let mut indexed = 0;
        for slot in self.index.iter() {
            let (first, row) = self.rows.at(slot).expect("the index names rows");
            assert_eq!(row.hash, self.index.hash(&row.key));
            assert_eq!(self.index.get(&self.rows, row.hash, &row.key), Some(slot));
            let of_key: Vec<_> = self.rows_of_key(first).collect();
            assert!((1..=self.settings.handles_per_key()).contains(&of_key.len()));
            assert!(of_key.iter().all(|(_, other)| other.key == row.key && !retired(&other.state)));
            assert!(of_key[1..].iter().all(|(_, other)| other.queue.is_empty()), "the first row has the queue");
            let idle = of_key.iter().any(|(_, other)| other.state.is_idle());
            assert!(!idle || row.queue.is_empty(), "no caller waits beside an idle handle");
            let waits = |index| self.waiters.slots_row(index) == Some(first);
            assert!(self.waiters.indexes(&row.queue).into_iter().all(waits), "waiters name the row with their queue");
            indexed += of_key.len();
        }
        assert_eq!(indexed, self.rows.iter().filter(|(_, row)| !retired(&row.state)).count());
        assert_eq!(self.idle.len(), is(State::is_idle));
        assert_eq!(self.idle.iter(&self.places).count(), self.idle.len());
        assert_eq!(self.queued.len(), is(|state| matches!(state, State::Queued)));
        assert_eq!(self.queued.iter(&self.places).count(), self.queued.len());
        assert_eq!(self.replaced, is(|state| matches!(state, State::Live { standing: Standing::Replaced, .. })));
        assert_eq!(self.occupied, self.rows.len() - self.queued.len() - self.replaced);
        let queued: usize = self.rows.iter().map(|(_, row)| row.queue.len()).sum();
        assert_eq!(queued, self.waiters.len());
        assert!(self.queued.len() <= self.waiters.len(), "each queued row has a waiter");
        assert!(self.queued.is_empty() || !self.has_room());
        assert!(self.failing.len() <= self.rows.limit() as usize);
    }

    /// Each lease requested is granted, refused, failed, cancelled, or still waits; each handle opened is open or closed.
    pub(in crate::bounded::pool) fn check_counters(&self, leased: usize) {
        let counted = |event| self.counters.counted(event);
        let ended = counted(PoolEvent::Hit)
            + counted(PoolEvent::Granted)
            + counted(PoolEvent::WaiterFailed)
            + counted(PoolEvent::Cancelled)
            + self.counters.refused();
        assert_eq!(counted(PoolEvent::Requested), ended + self.waiters.len() as u64);
        let leases: u32 = self.rows.iter().map(|(_, row)| row.leases()).sum();
        assert_eq!(leases as usize, leased, "leases = users");
        let live = self.rows.iter().filter(|(_, row)| matches!(row.state, State::Live { .. })).count();
        assert_eq!(counted(PoolEvent::Opened), (live + self.closing) as u64 + counted(PoolEvent::Closed));
        assert_eq!(self.counters.entries().read().used, self.len() as u64);
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

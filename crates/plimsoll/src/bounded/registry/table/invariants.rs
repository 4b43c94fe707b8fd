//! The invariants of a registry after every operation.

use std::hash::Hash;

use super::TtlRegistry;
use crate::bounded::registry::RegistryEvent;

impl<N: Eq + Hash + Clone, O: Eq + Hash + Clone, V> TtlRegistry<N, O, V> {
    /// Indexes = rows, leases = rows, lists = rows, names without a row do not exist, and the counters add up.
    pub(in crate::bounded::registry) fn check_invariants(&self) {
        let rows = self.rows.len();
        assert_eq!(self.pairs.len(), rows);
        self.expiry.check_invariants(&self.rows);
        for (row_key, row) in self.rows.iter() {
            assert_eq!(self.pairs.get(&(row.name, row.owner)), Some(&row_key));
        }
        assert_eq!(self.by_name.len(), self.names.len());
        assert!(self.by_name.iter().all(|(name, key)| self.names.get(*key).is_some_and(|row| row.name == *name)));
        assert!(self.names.iter().all(|(_, name)| !name.rows.is_empty()));
        assert_eq!(self.names.iter().map(|(_, name)| name.rows.iter(&self.rows).count()).sum::<usize>(), rows);
        assert_eq!(self.by_owner.len(), self.owners.len());
        assert!(self.by_owner.iter().all(|(owner, key)| self.owners.get(*key).is_some_and(|row| row.owner == *owner)));
        assert_eq!(self.owners.iter().map(|(_, owner)| owner.rows.iter(&self.rows).count()).sum::<usize>(), rows);
        assert_eq!(self.idle_owners.len(), self.owners.iter().filter(|(_, owner)| owner.rows.is_empty()).count());
        let counted = |event| self.counters.counted(event);
        let removed =
            counted(RegistryEvent::Withdrawn) + counted(RegistryEvent::OwnerRemoved) + counted(RegistryEvent::Expired);
        assert_eq!(counted(RegistryEvent::Added), rows as u64 + removed);
        assert_eq!(self.counters.entries().read().used, rows as u64);
    }
}

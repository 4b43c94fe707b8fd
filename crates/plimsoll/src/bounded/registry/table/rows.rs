//! Adds, renews and removes a row together with everything that references it.

use std::hash::Hash;
use std::time::{Duration, Instant};

use plimsoll_sync::slots::SlotKey;

use super::{Name, Owner, Row, TtlRegistry};
use crate::bounded::TokenBucket;
use crate::bounded::linked_list::{Links, List, visits};
use crate::bounded::time::after;

impl<N: Eq + Hash + Clone, O: Eq + Hash + Clone, V> TtlRegistry<N, O, V> {
    /// Takes a token of the owner's rate, and adds the owner if it is unknown.
    pub(super) fn take_token(&mut self, owner: &O, now: Instant) -> SlotKey {
        let key = match self.by_owner.get(owner) {
            Some(key) => *key,
            None => {
                if self.idle_owners.len() >= self.settings.entries.get()
                    && let Some(index) = self.idle_owners.pop_front(&mut self.owners)
                    && let Some((key, _)) = self.owners.at(index)
                    && let Some(removed) = self.owners.remove(key)
                {
                    self.by_owner.remove(&removed.owner);
                }
                let row = Owner {
                    owner: owner.clone(),
                    rows: List::default(),
                    bucket: TokenBucket::default(),
                    links: Links::default(),
                };
                // INVARIANT: owners with entries are at most as many as entries, and those without as well.
                let Ok(key) = self.owners.insert(row) else {
                    unreachable!("owners are bounded by entries and idle ones")
                };
                self.by_owner.insert(owner.clone(), key);
                self.idle_owners.push_back(&mut self.owners, key.index());
                key
            }
        };
        if let Some(row) = self.owners.get_mut(key) {
            row.bucket.take(self.settings.owner_rate, now);
        }
        key
    }

    pub(super) fn insert(&mut self, name: N, owner: SlotKey, value: V, ttl: Duration, now: Instant) -> SlotKey {
        let name = match self.by_name.get(&name) {
            Some(key) => *key,
            None => {
                let row = Name { name: name.clone(), rows: List::default() };
                let Ok(key) = self.names.insert(row) else { unreachable!("each name has an entry") };
                self.by_name.insert(name, key);
                key
            }
        };
        let ends = after(now, ttl);
        let row = Row {
            name,
            owner,
            value,
            ttl,
            ends,
            of_name: Links::default(),
            of_owner: Links::default(),
            of_lease: Links::default(),
        };
        let Ok(row_key) = self.rows.insert(row) else { unreachable!("there is room") };
        if let Some(name) = self.names.get_mut(name) {
            name.rows.push_back(&mut self.rows, row_key.index());
        }
        if let Some(row) = self.owners.get_mut(owner) {
            row.rows.push_back(&mut self.rows, row_key.index());
            if row.rows.len() == 1 {
                self.idle_owners.unlink(&mut self.owners, owner.index());
            }
        }
        self.pairs.insert((name, owner), row_key);
        self.expiry.add(&mut self.rows, row_key, now);
        self.counters.entries().set(self.rows.len() as u64);
        row_key
    }

    /// Renews a lease.
    pub(super) fn renew(&mut self, row_key: SlotKey, ttl: Duration, now: Instant) {
        visits::count();
        self.expiry.remove(&mut self.rows, row_key);
        let Some(row) = self.rows.get_mut(row_key) else { return };
        (row.ends, row.ttl) = (after(now, ttl), ttl);
        self.expiry.add(&mut self.rows, row_key, now);
        let name = self.rows.get(row_key).map(|row| row.name);
        if let Some(name) = name.and_then(|name| self.names.get_mut(name)) {
            name.rows.move_to_back(&mut self.rows, row_key.index());
        }
    }

    /// Removes a row from the table and from everything that references it: the only place where that is done.
    pub(super) fn remove_row(&mut self, row_key: SlotKey) -> Option<(N, O, V)> {
        visits::count();
        let row = self.rows.get(row_key)?;
        let (name_key, owner_key) = (row.name, row.owner);
        let name = self.names.get_mut(name_key)?;
        name.rows.unlink(&mut self.rows, row_key.index());
        let text = name.name.clone();
        if name.rows.is_empty() {
            self.names.remove(name_key);
            self.by_name.remove(&text);
        }
        let owner_row = self.owners.get_mut(owner_key)?;
        owner_row.rows.unlink(&mut self.rows, row_key.index());
        let owner = owner_row.owner.clone();
        if owner_row.rows.is_empty() {
            self.idle_owners.push_back(&mut self.owners, owner_key.index());
        }
        self.expiry.remove(&mut self.rows, row_key);
        let row = self.rows.remove(row_key)?;
        self.pairs.remove(&(name_key, owner_key));
        self.counters.entries().set(self.rows.len() as u64);
        Some((text, owner, row.value))
    }
}

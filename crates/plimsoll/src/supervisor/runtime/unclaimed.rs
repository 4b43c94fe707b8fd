//! Actors that are linked to the monitor and in no table, and the starts that may still return them.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ractor::ActorCell;

use super::child::ChildTable;
use super::{Inner, Runtime, RuntimeOf};
use crate::supervisor::state::Numbered;

/// Counts starts: a later one has a larger number.
pub(super) type StartNumber = u64;

/// The starts in progress, and the actors that one of them may return. Only a start that began before an actor was linked
/// can return it, so an actor needs no list of starts: it is an orphan when every start with a smaller number is over.
#[derive(Default)]
pub(super) struct Unclaimed {
    next: StartNumber,
    in_progress: BTreeSet<StartNumber>,
    /// By the number of the next start when the actor was seen, and the actor's number.
    actors: BTreeMap<(StartNumber, u64), ActorCell>,
    seen_at: Numbered<u64, StartNumber>,
}

impl Unclaimed {
    /// A start begins.
    pub(super) fn begin(&mut self) -> StartNumber {
        let number = self.next;
        self.next += 1;
        self.in_progress.insert(number);
        number
    }

    /// The start is over, or will return no actor. Returns the actors that no start can return any more.
    pub(super) fn end(&mut self, start: StartNumber) -> Vec<ActorCell> {
        self.in_progress.remove(&start);
        let mut orphans = Vec::new();
        if self.actors.is_empty() {
            return orphans;
        }
        let oldest = self.in_progress.first().copied().unwrap_or(StartNumber::MAX);
        while let Some(entry) = self.actors.first_entry()
            && entry.key().0 <= oldest
        {
            self.seen_at.remove(&entry.key().1);
            orphans.push(entry.remove());
        }
        orphans
    }

    /// Whether no actor waits to be claimed.
    pub(super) fn is_empty(&self) -> bool {
        self.actors.is_empty()
    }

    /// An actor is linked and in no table.
    fn add(&mut self, actor: ActorCell) {
        let pid = actor.get_id().pid();
        if let Entry::Vacant(entry) = self.seen_at.entry(pid) {
            entry.insert(self.next);
            self.actors.insert((self.next, pid), actor);
        }
    }

    /// A start has returned the actor.
    pub(super) fn claim(&mut self, actor: &ActorCell) {
        let pid = actor.get_id().pid();
        if let Some(seen_at) = self.seen_at.remove(&pid) {
            self.actors.remove(&(seen_at, pid));
        }
    }
}

impl<T: ChildTable> Inner<T::State, T> {
    /// A start is over without a child. Returns the actors that it linked, as far as no other start may return them. O(n)
    /// in the children, for starts that may have linked any.
    pub(super) fn orphans(&mut self, runtime: &RuntimeOf<T>, start: StartNumber, loose: bool) -> Vec<ActorCell> {
        if loose {
            // Set before the look: what is linked after it is reported, and then found.
            runtime.late_links.store(true, Ordering::SeqCst);
            for actor in runtime.monitors().iter().flat_map(ActorCell::get_children) {
                self.add_unclaimed(actor);
            }
        }
        self.unclaimed.end(start)
    }

    fn add_unclaimed(&mut self, actor: ActorCell) {
        if self.table.find(actor.get_id()).is_none() {
            self.unclaimed.add(actor);
        }
    }
}

impl<T: ChildTable> Runtime<T::State, T> {
    /// An actor was linked to the monitor. Where starts have been given up it may be what one of them started too late:
    /// it is killed, unless a start in progress may still return it.
    pub(super) fn linked(self: &Arc<Self>, actor: ActorCell) {
        if !self.late_links.load(Ordering::SeqCst) {
            return;
        }
        let orphan = self.update(|inner, _| {
            let starting = !inner.unclaimed.in_progress.is_empty();
            if starting {
                inner.add_unclaimed(actor.clone());
            }
            !starting && inner.table.find(actor.get_id()).is_none()
        });
        if orphan {
            actor.kill();
        }
    }
}

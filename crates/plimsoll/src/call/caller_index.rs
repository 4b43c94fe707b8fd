//! The bound callers of a server and their open calls, each findable from the other.
//!
//! A caller's calls form a list through the slots of the calls themselves, so that adding, removing and finding them
//! are O(1) and cost no allocation. An entry lives as long as a client is bound to the caller.

use std::collections::HashMap;

use plimsoll_sync::slots::{SlotKey, Slots};
use ractor::{ActorCell, ActorId};

/// What the table keeps for one open call.
#[derive(Debug)]
pub(crate) struct Entry<C, R> {
    pub(crate) call: C,
    /// Until the call begins; dropped as soon as it settles.
    pub(crate) request: Option<R>,
    /// Its place among the calls of its caller, if that is bound.
    pub(crate) link: Link,
}

/// A call's place among the calls of its caller: slots of the caller and of the neighbours. Whatever a link names is
/// there, because leaving the list mends both sides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    caller: u32,
    prev: u32,
    next: u32,
}

/// Stands for no slot, in four bytes instead of eight.
const NONE: u32 = u32::MAX;

impl Link {
    /// Of a call whose caller is not bound.
    pub(crate) const OFF: Self = Self { caller: NONE, prev: NONE, next: NONE };
}

#[derive(Debug)]
struct Caller {
    actor: ActorCell,
    first: Option<u32>,
    clients: u32,
    alive: bool,
}

#[derive(Debug)]
pub(crate) struct CallerIndex {
    bound: Slots<Caller>,
    by_id: HashMap<ActorId, SlotKey>,
}

impl CallerIndex {
    pub(crate) fn new() -> Self {
        // Each entry belongs to a live client; that is its bound.
        Self { bound: Slots::with_limit(u32::MAX), by_id: HashMap::new() }
    }

    /// Binds one more client to `actor`. The flag says whether it is the first: then the actor must be monitored.
    pub(crate) fn bind(&mut self, actor: &ActorCell) -> (SlotKey, bool) {
        let id = actor.get_id();
        if let Some(&key) = self.by_id.get(&id)
            && let Some(caller) = self.bound.get_mut(key)
        {
            caller.clients += 1;
            return (key, false);
        }
        match self.bound.insert(Caller { actor: actor.clone(), first: None, clients: 1, alive: true }) {
            Ok(key) => {
                self.by_id.insert(id, key);
                (key, true)
            }
            Err(_) => unreachable!("4 billion bound clients do not fit into memory"),
        }
    }

    /// Removes one client. Returns whether it was the last: then the actor is no longer monitored.
    pub(crate) fn unbind(&mut self, key: SlotKey) -> bool {
        let Some(caller) = self.bound.get_mut(key) else { return false };
        caller.clients -= 1;
        let last = caller.clients == 0;
        if last && caller.first.is_none() {
            self.forget(key);
        }
        last
    }

    /// All monitored actors.
    pub(crate) fn monitored(&self) -> Vec<ActorCell> {
        self.bound.iter().map(|(_, caller)| caller.actor.clone()).collect()
    }

    /// Marks the caller as exited and returns its key, if it is bound.
    pub(crate) fn exited(&mut self, id: ActorId) -> Option<SlotKey> {
        let key = *self.by_id.get(&id)?;
        self.bound.get_mut(key)?.alive = false;
        Some(key)
    }

    /// Whether the caller has not exited.
    pub(crate) fn is_alive(&self, key: SlotKey) -> bool {
        self.bound.get(key).is_some_and(|caller| caller.alive)
    }

    /// One open call of the caller.
    pub(crate) fn first<C, R>(&self, open: &Slots<Entry<C, R>>, key: SlotKey) -> Option<SlotKey> {
        open.at(self.bound.get(key)?.first?).map(|(call, _)| call)
    }

    pub(crate) fn add<C, R>(&mut self, open: &mut Slots<Entry<C, R>>, key: SlotKey, call: SlotKey) {
        let Some(caller) = self.bound.get_mut(key) else { return };
        let next = caller.first.replace(call.index()).unwrap_or(NONE);
        if let Some(link) = link(open, next) {
            link.prev = call.index();
        }
        if let Some(entry) = open.get_mut(call) {
            entry.link = Link { caller: key.index(), prev: NONE, next };
        }
    }

    pub(crate) fn remove<C, R>(&mut self, open: &mut Slots<Entry<C, R>>, call: SlotKey) {
        let Some(entry) = open.get_mut(call) else { return };
        let Link { caller, prev, next } = std::mem::replace(&mut entry.link, Link::OFF);
        if caller == NONE {
            return;
        }
        if let Some(link) = link(open, next) {
            link.prev = prev;
        }
        if prev != NONE {
            if let Some(link) = link(open, prev) {
                link.next = next;
            }
        } else if let Some((key, caller)) = self.bound.at_mut(caller) {
            caller.first = (next != NONE).then_some(next);
            if next == NONE && caller.clients == 0 {
                self.forget(key);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.bound.len()
    }

    fn forget(&mut self, key: SlotKey) {
        if let Some(caller) = self.bound.remove(key) {
            self.by_id.remove(&caller.actor.get_id());
        }
    }
}

fn link<C, R>(open: &mut Slots<Entry<C, R>>, index: u32) -> Option<&mut Link> {
    open.at_mut(index).map(|(_, entry)| &mut entry.link)
}

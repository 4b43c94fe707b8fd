//! Who called: the bound callers of a server and their open calls, findable both ways.
//!
//! A caller's calls form a list through the slots of the calls themselves, so that adding, taking off and finding them
//! are O(1) and cost no allocation. An entry lives as long as a client is bound to the caller.

use std::collections::HashMap;

use plimsoll_sync::slots::{SlotKey, Slots};
use ractor::{ActorCell, ActorId};

use super::book::Entry;

/// A call's place among the calls of its caller: slots of the caller and of the neighbours. Whatever a link names is
/// there, because leaving the list mends both sides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    caller: u32,
    before: u32,
    after: u32,
}

/// Stands for no slot, in four bytes instead of eight.
const NONE: u32 = u32::MAX;

impl Link {
    /// Of a call whose caller is not bound.
    pub(crate) const OFF: Self = Self { caller: NONE, before: NONE, after: NONE };
}

#[derive(Debug)]
struct Caller {
    actor: ActorCell,
    first: Option<u32>,
    clients: u32,
    lives: bool,
}

#[derive(Debug)]
pub(crate) struct Callers {
    bound: Slots<Caller>,
    by_id: HashMap<ActorId, SlotKey>,
}

impl Callers {
    pub(crate) fn new() -> Self {
        // Each entry belongs to a client in somebody's hands; that is its bound.
        Self { bound: Slots::with_limit(u32::MAX), by_id: HashMap::new() }
    }

    /// Binds one more client to `actor`; whether it is the first, and the actor is to be watched.
    pub(crate) fn bind(&mut self, actor: &ActorCell) -> (SlotKey, bool) {
        let id = actor.get_id();
        if let Some(&key) = self.by_id.get(&id)
            && let Some(caller) = self.bound.get_mut(key)
        {
            caller.clients += 1;
            return (key, false);
        }
        match self.bound.insert(Caller { actor: actor.clone(), first: None, clients: 1, lives: true }) {
            Ok(key) => {
                self.by_id.insert(id, key);
                (key, true)
            }
            Err(_) => unreachable!("4 billion bound clients do not fit into memory"),
        }
    }

    /// One client fewer; whether it was the last, and the actor is to be watched no longer.
    pub(crate) fn unbind(&mut self, key: SlotKey) -> bool {
        let Some(caller) = self.bound.get_mut(key) else { return false };
        caller.clients -= 1;
        let last = caller.clients == 0;
        if last && caller.first.is_none() {
            self.forget(key);
        }
        last
    }

    /// All actors that are watched.
    pub(crate) fn watched(&self) -> Vec<ActorCell> {
        self.bound.iter().map(|(_, caller)| caller.actor.clone()).collect()
    }

    /// The caller has ended.
    pub(crate) fn gone(&mut self, id: ActorId) -> Option<SlotKey> {
        let key = *self.by_id.get(&id)?;
        self.bound.get_mut(key)?.lives = false;
        Some(key)
    }

    pub(crate) fn lives(&self, key: SlotKey) -> bool {
        self.bound.get(key).is_some_and(|caller| caller.lives)
    }

    /// One open call of the caller.
    pub(crate) fn first<C, R>(&self, open: &Slots<Entry<C, R>>, key: SlotKey) -> Option<SlotKey> {
        open.at(self.bound.get(key)?.first?).map(|(call, _)| call)
    }

    pub(crate) fn add<C, R>(&mut self, open: &mut Slots<Entry<C, R>>, key: SlotKey, call: SlotKey) {
        let Some(caller) = self.bound.get_mut(key) else { return };
        let after = caller.first.replace(call.index()).unwrap_or(NONE);
        if let Some(link) = link(open, after) {
            link.before = call.index();
        }
        if let Some(entry) = open.get_mut(call) {
            entry.link = Link { caller: key.index(), before: NONE, after };
        }
    }

    pub(crate) fn take_off<C, R>(&mut self, open: &mut Slots<Entry<C, R>>, call: SlotKey) {
        let Some(entry) = open.get_mut(call) else { return };
        let Link { caller, before, after } = std::mem::replace(&mut entry.link, Link::OFF);
        if caller == NONE {
            return;
        }
        if let Some(link) = link(open, after) {
            link.before = before;
        }
        if before != NONE {
            if let Some(link) = link(open, before) {
                link.after = after;
            }
        } else if let Some((key, caller)) = self.bound.at_mut(caller) {
            caller.first = (after != NONE).then_some(after);
            if after == NONE && caller.clients == 0 {
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

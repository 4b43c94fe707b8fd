//! Children that run: taken in, kept linked, asked to stop, killed, let go.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_sync::slots::SlotKey;
use ractor::{ActorCell, ActorId};

use super::slot::Slot;
use super::{Core, Dynamic};
use crate::supervisor::child::Child;
use crate::supervisor::current_message::CurrentMessage;
use crate::supervisor::dynamic::errands::Errand;
use crate::supervisor::frame::{Heard, watch, watch_patiently};
use crate::supervisor::options::{Shutdown, StopMode};

impl<A: Send + 'static> Core<A> {
    pub(super) fn adopt(
        &mut self,
        crew: &Arc<Dynamic<A>>,
        key: SlotKey,
        child: Child,
        now: Duration,
    ) -> Option<(ActorId, Heard)> {
        let slot = self.slots.get_mut(key)?;
        let Child { actor, ended, inspect, value, token, nested, current_message, stop_deadline } = child;
        if crew.frame.was_stuck() {
            crew.frame.relink(&actor);
        }
        crew.frame.look_out();
        let id = actor.get_id();
        if let Some(previous) = slot.actor.take() {
            self.actors.remove(&previous.get_id().pid());
        }
        if let Some(more) = &mut slot.more {
            let old = std::mem::take(&mut **more);
            more.restarts = old.restarts;
            self.garbage.push(Box::new(old));
        }
        // Ending already: its last words may have been heard, are on their way, or will never come.
        if nested.is_some() || actor.get_status() >= ractor::ActorStatus::Stopping {
            watch(crew, key, ended, nested.clone());
        } else {
            slot.join = Some(ended);
        }
        let more = inspect.is_some() || value.is_some() || token.is_some() || nested.is_some();
        if more || current_message.is_some() || stop_deadline.is_some() {
            let more = slot.more();
            (more.inspect, more.value, more.token, more.nested) = (inspect, value, token, nested);
            more.current_message = current_message;
            more.stop_deadline = stop_deadline;
        }
        slot.actor = Some(actor);
        slot.since = now;
        self.newest = self.newest.max(id.pid());
        self.actors.insert(id.pid(), key);
        self.early.take(id).map(|heard| (id, heard))
    }

    /// Children that simply run. One that waits for its restart still has its last actor, and runs no more.
    pub(super) fn running(&self) -> Vec<(SlotKey, bool)> {
        let running = |(key, slot): (SlotKey, &Slot<A>)| {
            (slot.actor.is_some() && self.rules.phase(key).is_none()).then(|| (key, slot.is_nested()))
        };
        self.slots.iter().filter_map(running).collect()
    }

    pub(super) fn ask_to_stop(&mut self, crew: &Arc<Dynamic<A>>, key: SlotKey) {
        self.make_sure(crew, key);
        let Some(slot) = self.slots.get_mut(key) else { return };
        // No kill will find out that it unlinked itself in its stop hook: its task is waited for.
        let shutdown = crew.settings.shutdown;
        if shutdown == Shutdown::Infinity
            && let Some(join) = slot.join.take()
        {
            watch_patiently(crew, key, join);
        }
        let Some(actor) = &slot.actor else { return };
        let stop_deadline = slot.more.as_ref().and_then(|more| more.stop_deadline.as_ref());
        if let (Some(stop_deadline), Shutdown::After(grace)) = (stop_deadline, shutdown) {
            stop_deadline.set_after(grace);
        }
        let token = slot.more.as_ref().and_then(|more| more.token.as_ref());
        self.errands.push(match (token, crew.settings.stop_mode) {
            (Some(token), _) => Errand::Cancel(token.clone()),
            (None, StopMode::Stop) => Errand::Stop(actor.clone()),
            (None, StopMode::Drain) => Errand::Drain(actor.clone()),
        });
    }

    pub(super) fn kill_child(&mut self, crew: &Arc<Dynamic<A>>, key: SlotKey) {
        self.make_sure(crew, key);
        if let Some(slot) = self.slots.get_mut(key) {
            // A kill takes it from its hands.
            if let Some(more) = &mut slot.more {
                more.killed_with = more.current_message.as_ref().and_then(CurrentMessage::get);
            }
            slot.actor.iter().for_each(ActorCell::kill);
        }
    }

    /// The child is gone for good.
    pub(super) fn free(&mut self, key: SlotKey) {
        if let Some(slot) = self.slots.remove(key) {
            if let Some(actor) = &slot.actor {
                self.actors.remove(&actor.get_id().pid());
            }
            if slot.args.is_some() || slot.more.is_some() {
                self.garbage.push(Box::new(slot));
            }
        }
    }
    /// One that is linked no more would die without a word: it is monitored from now on, and its task waited for.
    fn make_sure(&mut self, crew: &Arc<Dynamic<A>>, key: SlotKey) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let Some(actor) = &slot.actor else { return };
        if !crew.frame.is_linked(actor)
            && let Some(join) = slot.join.take()
        {
            crew.frame.anchor().monitor(actor.clone());
            watch(crew, key, join, None);
        }
    }

    /// Another anchor is in use. What ended by now may have said so to one that gets no turn: its task is waited for.
    pub(in crate::supervisor::dynamic) fn relink(&mut self, crew: &Arc<Dynamic<A>>) {
        let keys: Vec<SlotKey> = self.slots.iter().map(|(key, _)| key).collect();
        for key in keys {
            let Some(slot) = self.slots.get_mut(key) else { continue };
            let Some(actor) = &slot.actor else { continue };
            crew.frame.relink(actor);
            if (!crew.frame.is_linked(actor) || actor.get_status() >= ractor::ActorStatus::Stopping)
                && let Some(join) = slot.join.take()
            {
                watch(crew, key, join, None);
            }
        }
    }

    /// The anchor died: nothing will be heard any more.
    pub(in crate::supervisor::dynamic) fn deaf(&mut self, crew: &Arc<Dynamic<A>>, now: Duration) {
        let keys: Vec<SlotKey> = self.slots.iter().map(|(key, _)| key).collect();
        for key in keys {
            if let Some(join) = self.slots.get_mut(key).and_then(|slot| slot.join.take()) {
                watch(crew, key, join, None);
            }
        }
        self.kill(now);
    }
}

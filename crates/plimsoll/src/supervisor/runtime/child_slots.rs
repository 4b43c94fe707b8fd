//! Publishes children to their handles.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use rustc_hash::FxBuildHasher;

use super::Inner;
use super::child::{ChildTable, SpecOf};
use super::effects::Effect;
use crate::supervisor::child::{ChildSlot, Presence};

/// The slots of children that have handles. Dropped with their last handle.
pub(super) struct ChildSlots<K> {
    slots: HashMap<K, Weak<ChildSlot>, FxBuildHasher>,
    /// Children of a dynamic supervisor that may have changed.
    touched: Vec<K>,
    /// When the number of slots reaches this, those without handles are removed.
    sweep_at: usize,
}

impl<K> Default for ChildSlots<K> {
    fn default() -> Self {
        Self { slots: HashMap::default(), touched: Vec::new(), sweep_at: 16 }
    }
}

impl<T: ChildTable> Inner<T::State, T> {
    /// The slot in which this child is published.
    pub(crate) fn slot(&mut self, spec: SpecOf<T>) -> Arc<ChildSlot> {
        if let Some(slot) = self.slots.slots.get(&spec).and_then(Weak::upgrade) {
            return slot;
        }
        let slots = &mut self.slots;
        if slots.slots.len() >= slots.sweep_at {
            slots.slots.retain(|_, slot| slot.strong_count() > 0);
            slots.sweep_at = 16.max(2 * slots.slots.len());
        }
        let slot = Arc::new(ChildSlot::new(self.presence(spec)));
        self.slots.slots.insert(spec, Arc::downgrade(&slot));
        slot
    }

    fn presence(&self, spec: SpecOf<T>) -> Presence {
        if self.abandoned || self.own_exit.is_over() {
            return Presence::SupervisorEnded;
        }
        self.table.presence(&self.state, spec)
    }

    /// This child may have changed.
    pub(super) fn touch(&mut self, spec: Option<SpecOf<T>>) {
        if T::ONE_KIND && !self.slots.slots.is_empty() {
            self.slots.touched.extend(spec);
        }
    }

    /// Publishes what has changed. A static supervisor has few handles and looks at each; a dynamic one looks at the
    /// children that changed, and at all of them when it ends.
    pub(super) fn publish_slots(&mut self) {
        if self.slots.slots.is_empty() {
            return;
        }
        let touched = std::mem::take(&mut self.slots.touched);
        let specs = match T::ONE_KIND && !self.abandoned && !self.own_exit.has_begun() {
            true => touched,
            false => self.slots.slots.keys().copied().collect(),
        };
        for spec in specs {
            let Some(slot) = self.slots.slots.get(&spec).and_then(Weak::upgrade) else { continue };
            if slot.publish(self.presence(spec)) {
                self.effects.push(Effect::Wake(slot));
            }
        }
    }
}

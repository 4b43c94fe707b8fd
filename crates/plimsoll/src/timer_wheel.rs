//! The timer structure of call servers and servers.
//!
//! A hashed hierarchical wheel, as in Varghese and Lauck: six levels of 64 slots, a tick of one millisecond at the lowest
//! and 64 times coarser at each level above. A timer stands in the level where its time first differs from now, and moves
//! down as that time comes near. Insert and remove are O(1), and a removed timer leaves nothing behind. Timers are named
//! by the index of the table slot that they belong to; links stand in a vector beside that table, so that a timer costs
//! no allocation.

const LEVELS: usize = 6;
const SLOT_BITS: usize = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// One slot less than a full rotation of the top level, so that a timer never falls into the current slot (2.1 years).
const HORIZON: u64 = (1 << (LEVELS * SLOT_BITS)) - (1 << ((LEVELS - 1) * SLOT_BITS)) - 1;
const NONE: u32 = u32::MAX;
const IDLE: u8 = u8::MAX;

#[derive(Debug)]
pub(crate) struct TimerWheel {
    /// The tick up to which everything has been popped.
    elapsed: u64,
    levels: Box<[Level; LEVELS]>,
    links: Vec<Link>,
    armed: usize,
}

#[derive(Debug, Clone, Copy)]
struct Level {
    occupied: u64,
    heads: [u32; SLOTS],
}

#[derive(Debug, Clone, Copy)]
struct Link {
    when: u64,
    before: u32,
    after: u32,
    level: u8,
    slot: u8,
}

impl Link {
    const UNUSED: Self = Self { when: 0, before: NONE, after: NONE, level: IDLE, slot: 0 };
}

impl TimerWheel {
    pub(crate) fn new() -> Self {
        let level = Level { occupied: 0, heads: [NONE; SLOTS] };
        Self { elapsed: 0, levels: Box::new([level; LEVELS]), links: Vec::new(), armed: 0 }
    }

    /// Arms the timer `index` for tick `when`; a time that has passed is due at once.
    pub(crate) fn insert(&mut self, index: u32, when: u64) {
        let at = index as usize;
        if self.links.len() <= at {
            // Beside a table that grows by an eighth.
            if at >= self.links.capacity() && at >= 1_024 {
                self.links.reserve_exact(at - self.links.len() + at / 8);
            }
            self.links.resize(at + 1, Link::UNUSED);
        }
        self.remove(index);
        self.armed += 1;
        self.place(index, when.max(self.elapsed));
    }

    /// Disarms the timer `index`, if it is armed.
    pub(crate) fn remove(&mut self, index: u32) {
        let Some(&Link { before, after, level, slot, .. }) = self.links.get(index as usize) else { return };
        if level == IDLE {
            return;
        }
        let wheel = &mut self.levels[level as usize];
        match before {
            NONE => wheel.heads[slot as usize] = after,
            before => self.links[before as usize].after = after,
        }
        if after != NONE {
            self.links[after as usize].before = before;
        }
        if wheel.heads[slot as usize] == NONE {
            wheel.occupied &= !(1 << slot);
        }
        self.links[index as usize] = Link::UNUSED;
        self.armed -= 1;
    }

    /// Whether the timer `index` is armed.
    pub(crate) fn is_armed(&self, index: u32) -> bool {
        self.links.get(index as usize).is_some_and(|link| link.level != IDLE)
    }

    /// Pops one timer that is due at `now`.
    pub(crate) fn pop(&mut self, now: u64) -> Option<u32> {
        while let Some((level, slot, at)) = self.earliest().filter(|&(_, _, at)| at <= now) {
            self.elapsed = at;
            let head = self.levels[level].heads[slot];
            if level == 0 {
                self.remove(head);
                return Some(head);
            }
            self.move_down(level, slot);
        }
        self.elapsed = self.elapsed.max(now);
        None
    }

    /// The earliest tick at which a pop can find something, exact for the lowest level and early for the others.
    pub(crate) fn next(&self) -> Option<u64> {
        self.earliest().map(|(_, _, at)| at)
    }

    /// How many timers are armed.
    pub(crate) fn len(&self) -> usize {
        self.armed
    }

    /// Releases links past the first `slots`; none of those may be armed. Returns the bytes released.
    pub(crate) fn compact(&mut self, slots: usize) -> usize {
        let before = self.links.capacity();
        while self.links.len() > slots && self.links.last().is_some_and(|link| link.level == IDLE) {
            self.links.pop();
        }
        self.links.shrink_to_fit();
        (before - self.links.capacity()) * size_of::<Link>()
    }

    fn earliest(&self) -> Option<(usize, usize, u64)> {
        self.levels.iter().enumerate().find(|(_, level)| level.occupied != 0).map(|(number, level)| {
            let width = 1_u64 << (number * SLOT_BITS);
            let now_slot = (self.elapsed / width) as usize % SLOTS;
            let ahead = level.occupied.rotate_right(now_slot as u32).trailing_zeros() as usize;
            let slot = (now_slot + ahead) % SLOTS;
            let rotation = width << SLOT_BITS;
            let start = self.elapsed / rotation * rotation + slot as u64 * width;
            // Only the top level wraps: there a slot behind the present one belongs to the next rotation.
            let at = if slot < now_slot { start + rotation } else { start };
            (number, slot, at.max(self.elapsed))
        })
    }

    fn place(&mut self, index: u32, when: u64) {
        let near = when.min(self.elapsed + HORIZON);
        let differs = (self.elapsed ^ near) | (SLOTS as u64 - 1);
        let level = ((63 - differs.leading_zeros()) as usize / SLOT_BITS).min(LEVELS - 1);
        let slot = (near >> (level * SLOT_BITS)) as usize % SLOTS;
        let wheel = &mut self.levels[level];
        let after = std::mem::replace(&mut wheel.heads[slot], index);
        wheel.occupied |= 1 << slot;
        if after != NONE {
            self.links[after as usize].before = index;
        }
        self.links[index as usize] = Link { when, before: NONE, after, level: level as u8, slot: slot as u8 };
    }

    fn move_down(&mut self, level: usize, slot: usize) {
        let mut index = std::mem::replace(&mut self.levels[level].heads[slot], NONE);
        self.levels[level].occupied &= !(1 << slot);
        while index != NONE {
            let Link { when, after, .. } = self.links[index as usize];
            self.place(index, when);
            index = after;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn pop_all(wheel: &mut TimerWheel, now: u64) -> Vec<u32> {
        let mut due: Vec<u32> = std::iter::from_fn(|| wheel.pop(now)).collect();
        due.sort_unstable();
        due
    }

    #[test]
    fn a_timer_is_never_early_and_never_late() {
        for when in [1, 63, 64, 65, 4_095, 4_096, 5_000, 262_144, 1 << 36, 1 << 40] {
            let mut wheel = TimerWheel::new();
            wheel.insert(0, when);
            assert_eq!(wheel.pop(when - 1), None, "{when}");
            assert!(wheel.next().is_some_and(|next| next <= when));
            assert_eq!(wheel.pop(when), Some(0), "{when}");
            assert_eq!((wheel.len(), wheel.next()), (0, None));
        }
    }

    proptest! {
        /// M-17: timers in the wheel are those of a sorted map, whatever is armed, disarmed and popped.
        #[test]
        fn the_wheel_is_a_sorted_map(steps in prop::collection::vec((0_u8..3, 0_u32..40, 0_u64..300_000), 1..200)) {
            let mut wheel = TimerWheel::new();
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            let mut now = 0;
            for (kind, index, by) in steps {
                match kind {
                    0 => {
                        wheel.insert(index, now + by);
                        model.insert(index, now + by);
                    }
                    1 => {
                        wheel.remove(index);
                        model.remove(&index);
                    }
                    _ => {
                        now += by / 8;
                        let due: Vec<u32> = model.iter().filter(|&(_, &when)| when <= now).map(|(&i, _)| i).collect();
                        model.retain(|_, when| *when > now);
                        prop_assert_eq!(pop_all(&mut wheel, now), due);
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                if let Some(first) = model.values().min() {
                    prop_assert!(wheel.next().is_some_and(|next| next <= *first));
                }
            }
        }
    }
}

//! Admission by count and by bytes, decided in one step.
//!
//! Count and bytes in use share one atomic word, so that a permit takes both or neither, and a refusal is one load. One
//! bit of the word says that there are waiters: then later callers queue behind them, so that none is overtaken. A release that
//! sees the bit serves the queue under its lock. No wake-up is lost: joining the queue sets the bit and then tries
//! once more, and both that and a release change the same word, so one of the two sees the other.

use std::fmt;

use crate::slots::{SlotKey, Slots};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard, lock};

const BYTES_BITS: u32 = 40;
const BYTES_MASK: u64 = (1 << BYTES_BITS) - 1;
const COUNT_MASK: u64 = (1 << 23) - 1;
const WAITERS: u64 = 1 << 63;

/// The most permits a gate can give out: 2^23 - 1.
pub const MAX_COUNT: u32 = COUNT_MASK as u32;
/// The most bytes a gate can give out: 1 TiB - 1.
pub const MAX_BYTES: u64 = BYTES_MASK;

/// A number of permits, and the bytes that they hold together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Permits.
    pub count: u32,
    /// Bytes.
    pub bytes: u64,
}

impl Load {
    fn pack(self) -> u64 {
        (u64::from(self.count.min(MAX_COUNT)) << BYTES_BITS) | self.bytes.min(MAX_BYTES)
    }

    fn unpack(word: u64) -> Self {
        Self { count: ((word >> BYTES_BITS) & COUNT_MASK) as u32, bytes: word & BYTES_MASK }
    }
}

/// Why a permit was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scarce {
    /// All permits are out.
    Count,
    /// Not enough bytes are left.
    Bytes,
    /// Earlier callers wait for a permit.
    Waiters,
    /// The queue of waiting callers is full.
    Queue,
}

/// A refusal: what was scarce, what was in use and what the limit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub scarce: Scarce,
    /// What was in use at that moment.
    pub used: Load,
    /// The limit of the gate.
    pub limit: Load,
}

/// A place in the queue. It ends with [`PermitGate::claim`] or [`PermitGate::cancel`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a place in the queue that is forgotten keeps others from moving up"]
pub struct Place(SlotKey);

/// Gives out permits up to a limit, first come first served. Waiters are of type `W`.
///
/// ```
/// use plimsoll_sync::permits::{Load, PermitGate, Scarce};
///
/// let gate: PermitGate<()> = PermitGate::new(Load { count: 2, bytes: 100 }, 0);
/// gate.try_acquire(60).unwrap();
/// assert_eq!(gate.try_acquire(60).unwrap_err().scarce, Scarce::Bytes);
/// gate.try_acquire(40).unwrap();
/// assert_eq!(gate.try_acquire(0).unwrap_err().scarce, Scarce::Count);
/// gate.release(60, |_| ());
/// assert_eq!(gate.used(), Load { count: 1, bytes: 40 });
/// ```
pub struct PermitGate<W> {
    used: AtomicU64,
    limit: AtomicU64,
    queue: Mutex<Queue<W>>,
}

struct Queue<W> {
    places: Slots<Waiting<W>>,
    first: u32,
    last: u32,
}

/// Stands for no place, in four bytes instead of eight.
const NONE: u32 = u32::MAX;

struct Waiting<W> {
    bytes: u64,
    /// Gone once the permit has been granted.
    waiter: Option<W>,
    before: u32,
    after: u32,
}

impl<W> PermitGate<W> {
    /// A gate for `limit`, where at most `queue` wait at one time.
    pub fn new(limit: Load, queue: u32) -> Self {
        Self {
            used: AtomicU64::new(0),
            limit: AtomicU64::new(limit.pack()),
            queue: Mutex::new(Queue { places: Slots::with_limit(queue), first: NONE, last: NONE }),
        }
    }

    /// Takes a permit with `bytes`, or returns at once why there is none.
    ///
    /// # Errors
    /// [`Refused`] when count or bytes do not suffice, or when earlier callers wait for them.
    pub fn try_acquire(&self, bytes: u64) -> Result<(), Refused> {
        self.take(bytes, false)
    }

    fn take(&self, bytes: u64, first_in_queue: bool) -> Result<(), Refused> {
        // ORDERING: a permit is a number; what it protects is ordered by the locks of its users. AcqRel makes what a
        // worker did before its release visible to the next holder of the permit.
        let mut word = self.used.load(Ordering::Acquire);
        let limit = Load::unpack(self.limit.load(Ordering::Acquire));
        loop {
            let used = Load::unpack(word);
            let refused = |scarce| Err(Refused { scarce, used, limit });
            if used.count >= limit.count {
                return refused(Scarce::Count);
            }
            if bytes > limit.bytes || used.bytes > limit.bytes - bytes {
                return refused(Scarce::Bytes);
            }
            if word & WAITERS != 0 && !first_in_queue {
                return refused(Scarce::Waiters);
            }
            let next = word + Load { count: 1, bytes }.pack();
            match self.used.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(()),
                Err(seen) => word = seen,
            }
        }
    }

    /// Joins the queue for a permit with `bytes`. The waiter comes back from the call that grants the permit, perhaps
    /// from this one.
    ///
    /// # Errors
    /// [`Refused`] with [`Scarce::Queue`] when the queue is full, with [`Scarce::Bytes`] when `bytes` can never fit.
    pub fn enqueue(&self, bytes: u64, waiter: W, wake: impl FnMut(W)) -> Result<Place, Refused> {
        let limit = self.limit();
        let refused = |scarce| Refused { scarce, used: self.used(), limit };
        if bytes > limit.bytes {
            return Err(refused(Scarce::Bytes));
        }
        let place = {
            let mut queue = lock(&self.queue);
            let before = queue.last;
            let waiting = Waiting { bytes, waiter: Some(waiter), before, after: NONE };
            let Ok(key) = queue.places.insert(waiting) else { return Err(refused(Scarce::Queue)) };
            match before {
                NONE => queue.first = key.index(),
                before => queue.link(before, |waiting| waiting.after = key.index()),
            }
            queue.last = key.index();
            self.used.fetch_or(WAITERS, Ordering::AcqRel);
            Place(key)
        };
        self.grant(wake);
        Ok(place)
    }

    /// Takes the permit if it has been granted, and frees the place. Otherwise stores a waiter there.
    pub fn claim(&self, place: Place, waiter: impl FnOnce(W) -> W) -> bool {
        let mut queue = lock(&self.queue);
        match queue.places.get_mut(place.0) {
            Some(waiting) => {
                if let Some(old) = waiting.waiter.take() {
                    waiting.waiter = Some(waiter(old));
                    return false;
                }
            }
            None => return false,
        }
        queue.places.remove(place.0);
        true
    }

    /// Frees a place, and its permit if that has been granted meanwhile. Waiters that can move up are woken.
    pub fn cancel(&self, place: Place, wake: impl FnMut(W)) {
        let granted = {
            let mut queue = lock(&self.queue);
            let Some(waiting) = queue.places.get(place.0) else { return };
            let granted = waiting.waiter.is_none().then_some(waiting.bytes);
            if granted.is_none() {
                self.unlink(&mut queue, place.0);
            }
            queue.places.remove(place.0);
            granted
        };
        match granted {
            Some(bytes) => self.release(bytes, wake),
            None => self.grant(wake),
        }
    }

    /// Returns a permit with `bytes`. The waiter that gets it next is passed to `wake`, outside every lock.
    pub fn release(&self, bytes: u64, wake: impl FnMut(W)) {
        let before = self.used.fetch_sub(Load { count: 1, bytes }.pack(), Ordering::AcqRel);
        if before & WAITERS != 0 {
            self.grant(wake);
        }
    }

    /// Changes the limit. Permits that are out stay valid; new ones are refused until enough have come back.
    pub fn set_limit(&self, limit: Load, wake: impl FnMut(W)) {
        self.limit.store(limit.pack(), Ordering::Release);
        self.grant(wake);
    }

    /// What is in use now.
    pub fn used(&self) -> Load {
        Load::unpack(self.used.load(Ordering::Acquire))
    }

    /// How much may be out.
    pub fn limit(&self) -> Load {
        Load::unpack(self.limit.load(Ordering::Acquire))
    }

    /// How many wait, those included who have been granted a permit and have not come for it yet.
    pub fn waiting(&self) -> usize {
        lock(&self.queue).places.len()
    }

    /// Grants permits to the first in the queue for as long as they fit.
    fn grant(&self, mut wake: impl FnMut(W)) {
        while let Some(waiter) = self.grant_one() {
            wake(waiter);
        }
    }

    fn grant_one(&self) -> Option<W> {
        let mut queue = lock(&self.queue);
        let (key, waiting) = queue.places.at(queue.first)?;
        self.take(waiting.bytes, true).ok()?;
        self.unlink(&mut queue, key);
        queue.places.get_mut(key)?.waiter.take()
    }

    fn unlink(&self, queue: &mut MutexGuard<'_, Queue<W>>, key: SlotKey) {
        let Some(waiting) = queue.places.get(key) else { return };
        let (before, after) = (waiting.before, waiting.after);
        match before {
            NONE => queue.first = after,
            before => queue.link(before, |waiting| waiting.after = after),
        }
        match after {
            NONE => queue.last = before,
            after => queue.link(after, |waiting| waiting.before = before),
        }
        if queue.first == NONE {
            self.used.fetch_and(!WAITERS, Ordering::AcqRel);
        }
    }
}

impl<W> Queue<W> {
    fn link(&mut self, index: u32, change: impl FnOnce(&mut Waiting<W>)) {
        if let Some((_, waiting)) = self.places.at_mut(index) {
            change(waiting);
        }
    }
}

impl<W> fmt::Debug for PermitGate<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PermitGate").field("used", &self.used()).field("limit", &self.limit()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(plimsoll_loom)))]
mod tests {
    use super::*;

    fn gate(count: u32, bytes: u64, queue: u32) -> PermitGate<u8> {
        PermitGate::new(Load { count, bytes }, queue)
    }

    #[test]
    fn nobody_overtakes_the_queue() {
        let gate = gate(1, 10, 2);
        gate.try_acquire(0).unwrap();
        let first = gate.enqueue(0, 1, |_| panic!("nothing to grant")).unwrap();
        let second = gate.enqueue(0, 2, |_| panic!("nothing to grant")).unwrap();
        assert_eq!(gate.enqueue(0, 3, |_| ()).unwrap_err().scarce, Scarce::Queue);
        let mut woken = Vec::new();
        gate.release(0, |waiter| woken.push(waiter));
        assert_eq!(woken, [1]);
        assert!(gate.claim(first, |waiter| waiter));
        assert!(!gate.claim(second, |waiter| waiter));
        gate.release(0, |waiter| woken.push(waiter));
        assert!(gate.claim(second, |waiter| waiter));
        gate.release(0, |_| ());
        assert_eq!((gate.used(), gate.waiting()), (Load::default(), 0));
        gate.try_acquire(0).unwrap();
    }

    #[test]
    fn a_big_one_at_the_head_holds_small_ones_back_until_it_gives_up() {
        let gate = gate(10, 10, 4);
        gate.try_acquire(5).unwrap();
        let big = gate.enqueue(10, 1, |_| panic!("does not fit")).unwrap();
        let small = gate.enqueue(1, 2, |_| panic!("not its turn")).unwrap();
        assert_eq!(gate.try_acquire(1).unwrap_err().scarce, Scarce::Waiters);
        let mut woken = Vec::new();
        gate.cancel(big, |waiter| woken.push(waiter));
        assert_eq!(woken, [2]);
        assert!(gate.claim(small, |waiter| waiter));
        assert_eq!(gate.used(), Load { count: 2, bytes: 6 });
    }

    #[test]
    fn a_granted_permit_that_nobody_fetches_goes_on_to_the_next() {
        let gate = gate(1, 0, 2);
        gate.try_acquire(0).unwrap();
        let first = gate.enqueue(0, 1, |_| ()).unwrap();
        let second = gate.enqueue(0, 2, |_| ()).unwrap();
        gate.release(0, |_| ());
        let mut woken = Vec::new();
        gate.cancel(first, |waiter| woken.push(waiter));
        assert_eq!(woken, [2]);
        assert!(gate.claim(second, |waiter| waiter));
    }

    #[test]
    fn a_lowered_limit_refuses_and_a_raised_one_grants() {
        let gate = gate(2, 0, 1);
        gate.try_acquire(0).unwrap();
        gate.set_limit(Load { count: 1, bytes: 0 }, |_| ());
        assert_eq!(gate.try_acquire(0).unwrap_err().scarce, Scarce::Count);
        let place = gate.enqueue(0, 1, |_| ()).unwrap();
        let mut woken = Vec::new();
        gate.set_limit(Load { count: 2, bytes: 0 }, |waiter| woken.push(waiter));
        assert_eq!(woken, [1]);
        assert!(gate.claim(place, |waiter| waiter));
    }

    #[test]
    fn more_bytes_than_the_gate_has_can_never_be_waited_for() {
        let gate = gate(1, 10, 1);
        assert_eq!(gate.enqueue(11, 1, |_| ()).unwrap_err().scarce, Scarce::Bytes);
    }
}

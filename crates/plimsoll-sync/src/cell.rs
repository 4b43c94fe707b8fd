//! The cell in which one call settles.
//!
//! A call can end in many ways at once: the worker replies while the deadline passes while the caller goes away. One
//! atomic byte decides: the party that sets `SETTLED` wins, every other party sees that it has lost, and there is no second
//! settlement. The winner first releases everything that the call held and then stores the value, so that a caller that sees
//! an outcome finds everything released.
//!
//! ```text
//!            begin            settle (worker)          end
//!   open ------------> begun ----------------> settled -------> settled, ended
//!     |                  |      settle (any)             end
//!     |                  `--------------------> abandoned -----> abandoned, ended
//!     `-- settle (any) --> settled: begin is refused, there never is a worker
//! ```
//!
//! The value and the two waiters are behind a lock that is held for a few moves. A wake-up cannot be lost: storing a waiter and
//! looking for a value is one critical section.

use crate::sync::atomic::{AtomicU8, Ordering};
use crate::sync::{Mutex, lock};

const SETTLED: u8 = 1;
const BEGUN: u8 = 2;
const ENDED: u8 = 4;
const ABANDONED: u8 = 8;

/// The party that settles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    /// The worker that serves the call.
    Worker,
    /// Anyone else: the clock, the caller, the server.
    Other,
}

/// What the winner of the settlement must know. It must call [`CallCell::fill`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "the caller waits until the cell is filled"]
pub struct Won {
    /// A worker serves the call and does not know yet: it is overrunning until it ends.
    pub abandoned: bool,
}

/// What a worker learns as it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Another party settled the call while this worker served it.
    pub abandoned: bool,
}

/// The waiters to wake when the cell has been filled.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "waiters that are not woken wait for ever"]
pub struct Waiters<W> {
    /// Waits for the outcome.
    pub caller: Option<W>,
    /// Must stop working.
    pub worker: Option<W>,
}

/// The settlement of one call: an outcome `V`, awaited with waiters `W` (a [`std::task::Waker`] as a rule).
#[derive(Debug)]
pub struct CallCell<V, W> {
    state: AtomicU8,
    inner: Mutex<Inner<V, W>>,
}

#[derive(Debug)]
struct Inner<V, W> {
    value: Option<V>,
    caller: Option<W>,
    worker: Option<W>,
}

impl<V, W> CallCell<V, W> {
    /// An open cell.
    pub fn new() -> Self {
        Self { state: AtomicU8::new(0), inner: Mutex::new(Inner { value: None, caller: None, worker: None }) }
    }

    /// An open cell whose caller waits already.
    pub fn awaited_by(caller: W) -> Self {
        let inner = Inner { value: None, caller: Some(caller), worker: None };
        Self { state: AtomicU8::new(0), inner: Mutex::new(inner) }
    }

    /// A worker begins the call; `false` when it has been settled already.
    pub fn begin(&self) -> bool {
        // ORDERING: AcqRel on every transition: a later party sees what the earlier one did before it.
        self.state.fetch_or(BEGUN, Ordering::AcqRel) & SETTLED == 0
    }

    /// Tries to settle the call; `None` when another party has.
    pub fn settle(&self, by: Party) -> Option<Won> {
        let mut state = self.state.load(Ordering::Acquire);
        loop {
            if state & SETTLED != 0 {
                return None;
            }
            let abandoned = by == Party::Other && state & BEGUN != 0 && state & ENDED == 0;
            let next = state | SETTLED | if abandoned { ABANDONED } else { 0 };
            match self.state.compare_exchange_weak(state, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(Won { abandoned }),
                Err(seen) => state = seen,
            }
        }
    }

    /// Tries to settle a call that no worker has begun; `None` when one has, or when the call has settled.
    pub fn settle_unbegun(&self) -> Option<Won> {
        let settled = self.state.compare_exchange(0, SETTLED, Ordering::AcqRel, Ordering::Acquire);
        settled.ok().map(|_| Won { abandoned: false })
    }

    /// Stores the outcome: the second half of a settlement, for its winner alone.
    pub fn fill(&self, value: V) -> Waiters<W> {
        let mut inner = lock(&self.inner);
        inner.value = Some(value);
        Waiters { caller: inner.caller.take(), worker: inner.worker.take() }
    }

    /// The worker has ended, in whatever way.
    pub fn end(&self) -> Ended {
        // A settled state does not change any more, and nothing reads `ENDED` in it.
        let seen = self.state.load(Ordering::Acquire);
        let state = if seen & SETTLED == 0 { self.state.fetch_or(ENDED, Ordering::AcqRel) } else { seen };
        Ended { abandoned: state & ABANDONED != 0 }
    }

    /// Takes the outcome, or stores the caller's waiter.
    pub fn take_or_wait(&self, waiter: impl FnOnce(Option<W>) -> W) -> Option<V> {
        let mut inner = lock(&self.inner);
        let value = inner.value.take();
        if value.is_none() {
            let old = inner.caller.take();
            inner.caller = Some(waiter(old));
        }
        value
    }

    /// Takes the outcome if there is one.
    pub fn take(&self) -> Option<V> {
        lock(&self.inner).value.take()
    }

    /// Stores the worker's waiter, unless the call has been settled: then `true`, and the worker must stop.
    pub fn settled_or_wait(&self, waiter: impl FnOnce(Option<W>) -> W) -> bool {
        if self.is_settled() {
            return true;
        }
        let mut inner = lock(&self.inner);
        let old = inner.worker.take();
        inner.worker = Some(waiter(old));
        drop(inner);
        // A settlement since the first check has not filled the cell yet, or has filled it before the waiter was stored:
        // check again.
        self.is_settled()
    }

    /// Whether it has been settled; the outcome may not be stored yet.
    pub fn is_settled(&self) -> bool {
        self.state.load(Ordering::Acquire) & SETTLED != 0
    }
}

impl<V, W> Default for CallCell<V, W> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(plimsoll_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_first_settlement_wins_and_the_others_know() {
        let cell: CallCell<&str, ()> = CallCell::new();
        assert!(cell.begin());
        assert_eq!(cell.settle(Party::Other), Some(Won { abandoned: true }));
        assert_eq!(cell.settle(Party::Worker), None);
        let _ = cell.fill("timeout");
        assert_eq!(cell.take(), Some("timeout"));
        assert_eq!(cell.take(), None);
        assert_eq!(cell.end(), Ended { abandoned: true });
    }

    #[test]
    fn a_settled_call_is_never_begun() {
        let cell: CallCell<(), ()> = CallCell::new();
        assert_eq!(cell.settle(Party::Other), Some(Won { abandoned: false }));
        assert!(!cell.begin());
        assert_eq!(cell.end(), Ended { abandoned: false });
    }

    #[test]
    fn a_begun_call_is_not_settled_as_unbegun() {
        let cell: CallCell<(), ()> = CallCell::new();
        assert!(cell.begin());
        assert_eq!(cell.settle_unbegun(), None);
        assert!(!cell.is_settled());
        assert_eq!(cell.settle(Party::Worker), Some(Won { abandoned: false }));
        let cell: CallCell<(), ()> = CallCell::new();
        assert_eq!(cell.settle_unbegun(), Some(Won { abandoned: false }));
        assert!(!cell.begin());
        assert_eq!(cell.settle_unbegun(), None);
    }

    #[test]
    fn both_waiters_come_back_with_the_outcome() {
        let cell: CallCell<u8, &str> = CallCell::new();
        cell.begin();
        assert_eq!(cell.take_or_wait(|_| "caller"), None);
        assert!(!cell.settled_or_wait(|_| "worker"));
        let _won = cell.settle(Party::Other).unwrap();
        let waiters = cell.fill(1);
        assert_eq!(waiters, Waiters { caller: Some("caller"), worker: Some("worker") });
    }

    #[test]
    fn a_caller_that_waits_from_the_start_is_woken() {
        let cell: CallCell<u8, &str> = CallCell::awaited_by("caller");
        let _won = cell.settle(Party::Other).unwrap();
        assert_eq!(cell.fill(1), Waiters { caller: Some("caller"), worker: None });
    }
}

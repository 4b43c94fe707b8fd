//! What callers, workers, clock and router of one server share, and how a call settles.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use plimsoll_sync::cell::{CallCell, Party};
use plimsoll_sync::permits::{Load, PermitGate, Refused, Scarce};
use plimsoll_sync::slots::SlotKey;
use ractor::{ActorId, ActorRef};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::book::{Book, Door, NotOpened, Outcome};
use super::client::Opening;
use super::door::Refusals;
use super::{CallError, Died, Overload, Service};
use crate::exit::ExitReason;

/// What a call of `S` ends with.
pub(crate) type Settled<S> = Result<<S as Service>::Reply, CallError<<S as Service>::Error>>;

/// One call: a single allocation that caller, books and worker hold together.
pub(crate) struct Call<S: Service> {
    pub(crate) cell: CallCell<Settled<S>, Waker>,
    /// Until a worker takes it; gone as soon as the call settles.
    pub(crate) request: Mutex<Option<S::Request>>,
    pub(crate) key: SlotKey,
    pub(crate) deadline: Instant,
    pub(crate) bytes: u64,
    pub(crate) caller: Option<ActorId>,
}

/// A message that tells the router to look at the intake.
#[derive(Debug)]
pub(crate) struct Bell;

pub(crate) struct Shared<S: Service> {
    pub(crate) service: S,
    pub(crate) gate: PermitGate<Waker>,
    pub(crate) book: Mutex<Book<Arc<Call<S>>>>,
    /// Calls with a permit that wait for the router's turn; never more than there are permits.
    intake: Mutex<VecDeque<Arc<Call<S>>>>,
    rung: AtomicBool,
    router: OnceLock<ActorRef<Bell>>,
    pub(crate) refusals: Refusals,
    pub(crate) late: AtomicU64,
    pub(crate) overrunning: AtomicU64,
    pub(crate) workers: AtomicU64,
    pub(crate) worker_failures: AtomicU64,
    /// Rung when a deadline is earlier than all others.
    pub(crate) alarm: Notify,
    /// Rung on every step of a drain.
    pub(crate) drained: Notify,
    epoch: Instant,
    pub(crate) limits: Limits<S>,
}

/// How a server was set up.
pub(crate) struct Limits<S: Service> {
    pub(crate) deadline: Duration,
    pub(crate) queue: u32,
    pub(crate) weigh: Option<Weigh<S>>,
}

/// Tells the bytes of a request.
pub(crate) type Weigh<S> = Box<dyn Fn(&<S as Service>::Request) -> u64 + Send + Sync>;

impl<S: Service> Shared<S> {
    pub(crate) fn new(service: S, load: Load, limits: Limits<S>) -> Self {
        Self {
            service,
            gate: PermitGate::new(load, limits.queue),
            book: Mutex::new(Book::new(load.count.saturating_add(limits.queue))),
            intake: Mutex::new(VecDeque::new()),
            rung: AtomicBool::new(false),
            router: OnceLock::new(),
            refusals: Refusals::default(),
            late: AtomicU64::new(0),
            overrunning: AtomicU64::new(0),
            workers: AtomicU64::new(0),
            worker_failures: AtomicU64::new(0),
            alarm: Notify::new(),
            drained: Notify::new(),
            epoch: Instant::now(),
            limits,
        }
    }

    pub(crate) fn set_router(&self, router: ActorRef<Bell>) {
        let _ = self.router.set(router);
    }

    /// Ticks are milliseconds since the server started; a deadline is rounded up, so that it is never early.
    pub(crate) fn due(&self, deadline: Instant) -> u64 {
        let since = deadline.saturating_duration_since(self.epoch);
        u64::try_from(since.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX)
    }

    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn at(&self, tick: u64) -> Instant {
        self.epoch + Duration::from_millis(tick)
    }

    /// Opens a call in the books. The permit, if it has one, stays with the caller when this fails.
    pub(crate) fn open(&self, opening: Opening<S>) -> Result<Arc<Call<S>>, (NotOpened, u64)> {
        let Opening { request, deadline, bytes, caller } = opening;
        let mut opened = None;
        let result = self.book.lock().open(self.due(deadline), |key| {
            let request = Mutex::new(Some(request));
            Arc::clone(opened.insert(Arc::new(Call { cell: CallCell::new(), request, key, deadline, bytes, caller })))
        });
        let result = result.map_err(|why| (why, bytes))?;
        if result.earliest {
            self.alarm.notify_one();
        }
        opened.ok_or((NotOpened::Full, bytes))
    }

    /// Hands a call with a permit to the router.
    pub(crate) fn submit(&self, call: Arc<Call<S>>) {
        self.intake.lock().push_back(call);
        self.ring();
    }

    pub(crate) fn ring(&self) {
        if self.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        let rung = self.router.get().is_some_and(|router| router.send_message(Bell).is_ok());
        if !rung {
            // It is draining, and listens here; or it has ended, and the books are closed.
            self.drained.notify_one();
        }
    }

    /// The router hears the bell: what comes in from now on must ring again.
    pub(crate) fn answer_bell(&self) {
        self.rung.store(false, Ordering::Release);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.book.lock().door() == Door::Open
    }

    /// In which way the door is shut, once it is.
    pub(crate) fn shut_how(&self) -> NotOpened {
        if self.book.lock().door() == Door::Closed { NotOpened::Closed } else { NotOpened::Draining }
    }

    pub(crate) fn next_call(&self) -> Option<Arc<Call<S>>> {
        self.intake.lock().pop_front()
    }

    /// Settles `call`, unless someone else has: books first, then the caller, then the worker.
    pub(crate) fn settle(&self, call: &Call<S>, by: Party, outcome: Outcome, value: Settled<S>) -> bool {
        let Some(won) = call.cell.settle(by) else {
            if by == Party::Worker {
                self.late.fetch_add(1, Ordering::Relaxed);
            }
            return false;
        };
        if won.abandoned {
            self.overrunning.fetch_add(1, Ordering::Relaxed);
        }
        let entry = self.book.lock().close(call.key, outcome);
        drop(entry);
        if by == Party::Other {
            drop(call.request.lock().take());
        }
        let waiters = call.cell.fill(value);
        if let Some(caller) = waiters.caller {
            caller.wake();
        }
        if let Some(worker) = waiters.worker {
            worker.wake();
        }
        self.step_of_drain();
        true
    }

    /// Gives back the permit of a call that is not, or no longer, served.
    pub(crate) fn release(&self, bytes: u64) {
        self.gate.release(bytes, Waker::wake);
        self.step_of_drain();
    }

    fn step_of_drain(&self) {
        if self.refusals.draining() {
            self.drained.notify_one();
        }
    }

    /// Settles up to `slice` calls whose time is up; when the next is due.
    pub(crate) fn expire(&self, slice: usize) -> Expired {
        let now = self.now();
        let (due, next) = {
            let mut book = self.book.lock();
            let due = book.expire(now, slice);
            (due, book.set_alarm())
        };
        for call in &due {
            self.settle(call, Party::Other, Outcome::Timeout, Err(CallError::Timeout));
        }
        Expired { more: due.len() == slice, next: next.map(|tick| self.at(tick)) }
    }

    /// Takes no more calls. Those that are open are served, or those only that have a worker already.
    pub(crate) fn drain(&self, serve_queued: bool) {
        self.book.lock().drain();
        self.refusals.set_draining();
        if !serve_queued {
            let open = self.book.lock().open_calls();
            for call in open {
                if call.request.lock().is_some() {
                    self.settle(&call, Party::Other, Outcome::ShuttingDown, Err(CallError::ShuttingDown));
                }
            }
        }
    }

    /// Whether every call has settled and every worker that could end has ended.
    pub(crate) fn is_drained(&self) -> bool {
        let in_flight = self.book.lock().in_flight();
        in_flight == 0 && self.workers.load(Ordering::Acquire) <= self.overrunning.load(Ordering::Acquire)
    }

    pub(crate) fn compact(&self, factor: usize) -> usize {
        let intake = {
            let mut intake = self.intake.lock();
            let before = intake.capacity();
            if before > factor.saturating_mul(intake.len().max(1)) {
                intake.shrink_to_fit();
            }
            (before - intake.capacity()) * size_of::<Arc<Call<S>>>()
        };
        intake + self.book.lock().compact(factor)
    }

    /// The server has ended: settles everything that is left and gives back what waits for a worker.
    pub(crate) fn shut(&self) {
        let (door, open) = {
            let mut book = self.book.lock();
            (book.door(), book.shut())
        };
        for call in open {
            let (outcome, error) = match door {
                Door::Draining => (Outcome::ShuttingDown, CallError::ShuttingDown),
                _ => (Outcome::Died, CallError::Died(Died::Exit(ExitReason::Killed))),
            };
            self.settle(&call, Party::Other, outcome, Err(error));
        }
        while let Some(call) = self.next_call() {
            self.release(call.bytes);
        }
    }
}

/// What an expiry leaves to do.
pub(crate) struct Expired {
    /// The slice was full: there may be more that are due.
    pub(crate) more: bool,
    pub(crate) next: Option<Instant>,
}

/// A gate's refusal in the words of a caller.
pub(crate) fn overload(refused: Refused, wanted: u64, queue: u32) -> Overload {
    match refused.scarce {
        Scarce::Bytes => Overload::Bytes { held: refused.used.bytes, limit: refused.limit.bytes, wanted },
        Scarce::Queue => Overload::Queue { limit: queue },
        Scarce::Waiters => Overload::Waiting,
        _ => Overload::InFlight { in_flight: refused.used.count, limit: refused.limit.count },
    }
}

//! What callers, workers, clock and actor of one server share, and how a call settles.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use plimsoll_sync::cell::{CallCell, Party};
use plimsoll_sync::permits::{Load, PermitGate};
use plimsoll_sync::slots::SlotKey;
use ractor::{ActorId, ActorRef};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::book::{Book, Door, NotOpened, Outcome};
use super::client::Opening;
use super::counters::Gauges;
use super::door::Refusals;
use super::waits;
use super::watch::Watch;
use super::work::Work;
use super::{CallError, Died, Protocol};
use crate::exit::ExitReason;
use crate::panics::discard;

/// What a call of `P` ends with.
pub(crate) type Settled<P> = Result<<P as Protocol>::Reply, CallError<<P as Protocol>::Error>>;

/// One call: a single allocation that caller, books and worker hold together.
pub(crate) struct Call<P: Protocol> {
    pub(crate) cell: CallCell<Settled<P>, Waker>,
    /// Books and call know each other only while the call is open.
    pub(crate) shared: Arc<Shared<P>>,
    pub(crate) key: SlotKey,
    pub(crate) deadline: Instant,
    pub(crate) bytes: u64,
    /// The bound actor, and whether it waits for the reply in its own turn.
    pub(crate) caller: Option<Arc<waits::Party>>,
    pub(crate) awaited: bool,
}

/// What waits for a turn of the server's actor.
pub(crate) enum Item<P: Protocol> {
    Call(Arc<Call<P>>),
    /// With a permit of its own.
    Post(P::Post),
    /// Of which there are only as many as places for it, counted where it comes from.
    Due(P::Post),
}

/// What has its turn.
pub(crate) enum Next<P: Protocol> {
    Call(Work<P>, P::Request),
    Post(P::Post),
    Due(P::Post),
}

/// What callers and the server's actor change together, under one lock.
pub(crate) struct Desk<P: Protocol> {
    pub(crate) book: Book<Arc<Call<P>>, P::Request>,
    /// What was let in and waits for a turn; never more than there are permits.
    intake: VecDeque<Item<P>>,
    /// The actor has been told that there is something, and will look until there is nothing.
    rung: bool,
    closed: bool,
}

/// A message that tells the server's actor to look at the intake.
#[derive(Debug)]
pub(crate) struct Bell;

pub(crate) struct Shared<P: Protocol> {
    pub(crate) host: P::Host,
    pub(crate) gate: PermitGate<Waker>,
    pub(crate) desk: Mutex<Desk<P>>,
    actor: OnceLock<ActorRef<Bell>>,
    pub(crate) watch: Watch,
    pub(crate) refusals: Refusals,
    pub(crate) gauges: Gauges,
    /// The server's own workers that wait for one of its permits, and each with how many calls.
    pub(crate) own_waiting: Mutex<HashMap<u64, u32>>,
    draining: AtomicBool,
    /// Why the server ended, once something but a kill ended it.
    pub(crate) exit: OnceLock<ExitReason>,
    /// Rung when something is due earlier than all else.
    pub(crate) alarm: Notify,
    /// Rung on every step of a drain.
    pub(crate) drained: Notify,
    epoch: Instant,
    pub(crate) limits: Limits<P>,
}

/// How a server was set up.
pub(crate) struct Limits<P: Protocol> {
    pub(crate) load: Load,
    pub(crate) queue: u32,
    pub(crate) deadline: Duration,
    pub(crate) weigh: Option<Weigh<P>>,
}

/// Tells the bytes of a request.
pub(crate) type Weigh<P> = Box<dyn Fn(&<P as Protocol>::Request) -> u64 + Send + Sync>;

impl<P: Protocol> Shared<P> {
    pub(crate) fn new(host: P::Host, limits: Limits<P>) -> Self {
        Self {
            host,
            gate: PermitGate::new(limits.load, limits.queue),
            desk: Mutex::new(Desk {
                book: Book::new(limits.load.count.saturating_add(limits.queue)),
                intake: VecDeque::new(),
                rung: false,
                closed: false,
            }),
            actor: OnceLock::new(),
            watch: Watch::default(),
            refusals: Refusals::default(),
            gauges: Gauges::default(),
            own_waiting: Mutex::default(),
            draining: AtomicBool::new(false),
            exit: OnceLock::new(),
            alarm: Notify::new(),
            drained: Notify::new(),
            epoch: Instant::now(),
            limits,
        }
    }

    /// Differs between servers that exist at the same time.
    pub(crate) fn identity(self: &Arc<Self>) -> usize {
        Arc::as_ptr(self).addr()
    }

    pub(crate) fn set_actor(&self, actor: ActorRef<Bell>) {
        let _ = self.actor.set(actor);
    }

    pub(crate) fn actor(&self) -> Option<&ActorRef<Bell>> {
        self.actor.get()
    }

    /// Ticks are milliseconds since the server started; a time is rounded up, so that it is never early.
    pub(crate) fn due(&self, time: Instant) -> u64 {
        let since = time.saturating_duration_since(self.epoch);
        since.as_secs().saturating_mul(1_000).saturating_add(u64::from(since.subsec_nanos().div_ceil(1_000_000)))
    }

    /// The tick after `delay`, or the last one there is.
    pub(crate) fn due_in(&self, delay: Duration) -> u64 {
        Instant::now().checked_add(delay).map_or(u64::MAX, |time| self.due(time))
    }

    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Opens a call in the books; with a permit it is handed to the server's actor in the same step. Whoever calls this
    /// keeps a permit when it fails.
    pub(crate) fn open(
        self: &Arc<Self>,
        opening: Opening<P>,
        permitted: bool,
        waker: &Waker,
    ) -> Result<Arc<Call<P>>, (NotOpened, u64)> {
        let Opening { request, deadline, bytes, caller, awaited } = opening;
        let (bound, caller) = caller.unzip();
        let (cell, due, shared) = (CallCell::awaited_by(waker.clone()), self.due(deadline), Arc::clone(self));
        let mut opened = None;
        let mut desk = self.desk.lock();
        let result = desk.book.open(due, bound, request, |key| {
            let call = Call { cell, shared, key, deadline, bytes, caller, awaited };
            Arc::clone(opened.insert(Arc::new(call)))
        });
        let ring = permitted && opened.as_ref().is_some_and(|call| desk.put(Item::Call(Arc::clone(call))));
        // A refused request is dropped outside the lock: whatever it holds may come here again.
        drop(desk);
        let result = result.map_err(|(why, _)| (why, bytes))?;
        let call = opened.ok_or((NotOpened::Full, bytes))?;
        if result.earliest {
            self.alarm.notify_one();
        }
        if ring {
            self.ring();
        }
        Ok(call)
    }

    /// Hands over what has a permit to the server's actor.
    pub(crate) fn submit(&self, item: Item<P>) {
        let mut desk = self.desk.lock();
        let (ring, closed) = (desk.put(item), desk.closed);
        drop(desk);
        if closed {
            self.sweep();
        } else if ring {
            self.ring();
        }
    }

    /// Tells the actor that there is something for it.
    pub(crate) fn ring(&self) {
        let rung = self.actor.get().is_some_and(|actor| actor.send_message(Bell).is_ok());
        if !rung {
            // It is draining, and listens here; or it has ended, and the books are closed.
            self.drained.notify_one();
        }
    }

    /// What has its turn, and whether it was the last: then the next that comes rings again.
    pub(crate) fn next(&self) -> Option<(Next<P>, bool)> {
        loop {
            let mut desk = self.desk.lock();
            let item = desk.intake.pop_front();
            let last = desk.intake.is_empty();
            desk.rung &= !last;
            let call = match item? {
                Item::Call(call) => call,
                Item::Post(post) => return Some((Next::Post(post), last)),
                Item::Due(post) => return Some((Next::Due(post), last)),
            };
            let request = desk.book.take_request(call.key);
            drop(desk);
            let bytes = call.bytes;
            match (request, Work::begin(call)) {
                (Some(request), Some(work)) => return Some((Next::Call(work, request), last)),
                (request, _) => discard(request),
            }
            // It has settled already.
            self.release(bytes);
            if last {
                return None;
            }
        }
    }

    pub(crate) fn door(&self) -> Door {
        self.desk.lock().book.door()
    }

    /// Settles `call`, unless someone else has: books first, then the caller, then the worker.
    pub(crate) fn settle(&self, call: &Call<P>, by: Party, outcome: Outcome, value: Settled<P>) -> bool {
        let Some(won) = call.cell.settle(by) else {
            if by == Party::Worker {
                self.gauges.late.fetch_add(1, Ordering::Relaxed);
            }
            return false;
        };
        if won.abandoned {
            self.gauges.overrunning.fetch_add(1, Ordering::Relaxed);
        }
        let entry = self.desk.lock().book.close(call.key, outcome);
        discard(entry);
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

    /// Gives back the permit of what is not, or no longer, served.
    pub(crate) fn release(&self, bytes: u64) {
        self.gate.release(bytes, Waker::wake);
        self.step_of_drain();
    }

    fn step_of_drain(&self) {
        if self.is_draining() {
            self.drained.notify_one();
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// A bound caller has ended: settles its calls slice by slice, each a short critical section at a time.
    pub(crate) fn caller_ended(&self, id: ActorId) {
        while self.cancel_some_of(id) {}
    }

    /// Settles some calls of a caller that has ended; whether there may be more.
    pub(crate) fn cancel_some_of(&self, id: ActorId) -> bool {
        let calls = {
            let book = &mut self.desk.lock().book;
            let Some(caller) = book.caller_gone(id) else { return false };
            book.calls_of(caller, SLICE)
        };
        for call in &calls {
            self.settle(call, Party::Other, Outcome::Cancelled, Err(CallError::Cancelled));
        }
        calls.len() == SLICE
    }

    /// Settles up to a slice of calls whose time is up; when something is due next.
    pub(crate) fn expire(&self) -> Expired {
        let now = self.now();
        let (due, next) = {
            let book = &mut self.desk.lock().book;
            let due = book.expire(now, SLICE);
            (due, book.set_alarm())
        };
        for call in &due {
            self.settle(call, Party::Other, Outcome::Timeout, Err(CallError::Timeout));
        }
        let mut posts = Vec::new();
        let hosts = P::tick(&self.host, now, &mut posts);
        for post in posts {
            self.submit(Item::Due(post));
        }
        let next = next.into_iter().chain(hosts).min().map(|tick| self.epoch + Duration::from_millis(tick));
        Expired { more: due.len() == SLICE, next }
    }

    /// Takes no more calls. Those that are open are served, or those only that have a worker already.
    pub(crate) fn drain(&self, serve_queued: bool) {
        self.desk.lock().book.drain();
        self.draining.store(true, Ordering::Release);
        if !serve_queued {
            let queued = self.desk.lock().book.queued_calls();
            for call in queued {
                self.settle(&call, Party::Other, Outcome::ShuttingDown, Err(CallError::ShuttingDown));
            }
        }
    }

    /// Whether every call has settled and every worker that could end has ended.
    pub(crate) fn is_drained(&self) -> bool {
        let in_flight = self.desk.lock().book.in_flight();
        in_flight == 0 && self.gauges.all_workers_overrun()
    }

    /// The server has ended: settles everything that is left and gives back what waits for a turn.
    pub(crate) fn shut(&self) {
        let (door, open) = {
            let book = &mut self.desk.lock().book;
            (book.door(), book.shut())
        };
        for call in open {
            let (outcome, error) = match self.exit.get() {
                None if door == Door::Draining => (Outcome::ShuttingDown, CallError::ShuttingDown),
                reason => (Outcome::Died, Died::Exit(reason.cloned().unwrap_or(ExitReason::Killed)).into()),
            };
            self.settle(&call, Party::Other, outcome, Err(error));
        }
        self.desk.lock().closed = true;
        self.sweep();
        let watched = self.desk.lock().book.callers().watched();
        self.watch.end(watched);
    }

    /// Drops what will never have its turn.
    fn sweep(&self) {
        loop {
            let item = self.desk.lock().intake.pop_front();
            let Some(item) = item else { break };
            match item {
                Item::Call(call) => self.release(call.bytes),
                Item::Post(post) => {
                    discard(post);
                    self.gauges.casts_dropped.fetch_add(1, Ordering::Relaxed);
                    self.release(0);
                }
                Item::Due(post) => discard(post),
            }
        }
    }

    pub(crate) fn compact(&self, factor: usize) -> usize {
        let desk = &mut *self.desk.lock();
        let before = desk.intake.capacity();
        if before > factor.saturating_mul(desk.intake.len().max(1)) {
            desk.intake.shrink_to_fit();
        }
        let intake = (before - desk.intake.capacity()) * size_of::<Item<P>>();
        intake + desk.book.compact(factor)
    }
}

impl<P: Protocol> Desk<P> {
    /// Puts something in; whether the actor must be told.
    fn put(&mut self, item: Item<P>) -> bool {
        self.intake.push_back(item);
        !std::mem::replace(&mut self.rung, true)
    }
}

/// Calls settled between two looks at anything else: a few tens of microseconds.
const SLICE: usize = 64;

/// What an expiry leaves to do.
pub(crate) struct Expired {
    /// The slice was full: there may be more that are due.
    pub(crate) more: bool,
    pub(crate) next: Option<Instant>,
}

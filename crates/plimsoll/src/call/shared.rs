//! What callers, workers, the deadline task and the actor of one server share.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use plimsoll_sync::cell::CallCell;
use plimsoll_sync::permits::PermitGate;
use plimsoll_sync::slots::SlotKey;
use ractor::ActorRef;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::call_table::{AdmissionState, CallTable};
use super::counters::{Gauges, Refusals};
use super::limits::Limits;
use super::{CallError, Protocol};
use crate::exit::ExitReason;
use crate::exit_monitor::ExitMonitor;
use crate::panics::discard;
use crate::wait_graph::Node;

/// What waits in a server's queue.
pub(crate) enum Item<P: Protocol> {
    Call(Arc<Call<P>>),
    /// With a permit of its own.
    Cast(P::Message),
    /// Bounded where it comes from: a timer, the reply to a request, the exit of a monitored actor.
    Event(P::Message),
}

/// What a server handles next.
pub(crate) enum Next<P: Protocol> {
    Call(BegunCall<P>, P::Request),
    Cast(P::Message),
    Event(P::Message),
}

/// What callers and the server change together, under one lock.
pub(crate) struct Calls<P: Protocol> {
    pub(crate) table: CallTable<Arc<Call<P>>, P::Request>,
    /// Admitted items in order; never more than there are permits.
    pub(crate) queue: VecDeque<Item<P>>,
    /// The server has been notified of items, and will look until there are none.
    notified: bool,
    pub(crate) closed: bool,
}

/// The message that notifies a server's actor.
#[derive(Debug)]
pub(crate) struct Notified;

pub(crate) struct Shared<P: Protocol> {
    pub(crate) host: P::Host,
    pub(crate) gate: PermitGate<Waker>,
    pub(crate) calls: Mutex<Calls<P>>,
    actor: OnceLock<ActorRef<Notified>>,
    pub(crate) runtime: OnceLock<Handle>,
    pub(crate) caller_monitor: ExitMonitor,
    pub(crate) refusals: Refusals,
    pub(crate) gauges: Gauges,
    /// The server's own workers that wait for one of its permits, and each with how many calls.
    pub(crate) own_waiting: Mutex<HashMap<u64, u32>>,
    pub(crate) draining: AtomicBool,
    /// Why the server ended, once something but a kill ended it.
    pub(crate) exit: OnceLock<ExitReason>,
    /// Notified when a deadline is set that is earlier than all others.
    pub(crate) deadline_changed: Notify,
    /// Notified of items where the server handles them itself, and of every step of a drain.
    pub(crate) progress: Notify,
    epoch: Instant,
    pub(crate) limits: Limits<P>,
}

/// What a call of `P` ends with.
pub(crate) type Settled<P> = Result<<P as Protocol>::Reply, CallError<<P as Protocol>::Error>>;

/// One call: a single allocation that caller, table and worker hold together.
pub(crate) struct Call<P: Protocol> {
    pub(crate) cell: CallCell<Settled<P>, Waker>,
    /// Table and call refer to each other only while the call is open.
    pub(crate) shared: Arc<Shared<P>>,
    pub(crate) key: SlotKey,
    pub(crate) deadline: Instant,
    pub(crate) bytes: u64,
    /// The bound actor, and whether it waits for the reply in its own handler.
    pub(crate) caller: Option<Arc<Node>>,
    pub(crate) awaited: bool,
    /// Once begun it is not cancelled when its caller leaves.
    pub(crate) finishes: bool,
}

/// The permit of a begun call and the duty to settle it. Dropping this releases both.
pub(crate) struct BegunCall<P: Protocol> {
    pub(crate) call: Arc<Call<P>>,
}

impl<P: Protocol> BegunCall<P> {
    /// Begins a call; `None` if it has settled already.
    fn begin(call: Arc<Call<P>>) -> Option<Self> {
        if !call.cell.begin() {
            return None;
        }
        call.shared.gauges.workers.fetch_add(1, Ordering::AcqRel);
        Some(Self { call })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared<P>> {
        &self.call.shared
    }
}

impl<P: Protocol> Shared<P> {
    pub(crate) fn new(host: P::Host, limits: Limits<P>) -> Self {
        Self {
            host,
            gate: PermitGate::new(limits.load, limits.queue),
            calls: Mutex::new(Calls {
                table: CallTable::new(limits.load.count.saturating_add(limits.queue)),
                queue: VecDeque::new(),
                notified: false,
                closed: false,
            }),
            actor: OnceLock::new(),
            runtime: OnceLock::new(),
            caller_monitor: ExitMonitor::default(),
            refusals: Refusals::default(),
            gauges: Gauges::default(),
            own_waiting: Mutex::default(),
            draining: AtomicBool::new(false),
            exit: OnceLock::new(),
            deadline_changed: Notify::new(),
            progress: Notify::new(),
            epoch: Instant::now(),
            limits,
        }
    }

    /// Differs between servers that exist at the same time.
    pub(crate) fn identity(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// The server's actor starts, in the current runtime.
    pub(crate) fn set_actor(&self, actor: ActorRef<Notified>) {
        let _ = self.actor.set(actor);
        let _ = self.runtime.set(Handle::current());
    }

    pub(crate) fn actor(&self) -> Option<&ActorRef<Notified>> {
        self.actor.get()
    }

    /// Ticks are milliseconds since the server started; a time is rounded up, so that no timer fires early.
    pub(crate) fn tick_at(&self, time: Instant) -> u64 {
        let since = time.saturating_duration_since(self.epoch);
        since.as_secs().saturating_mul(1_000).saturating_add(u64::from(since.subsec_nanos().div_ceil(1_000_000)))
    }

    /// The tick after `delay`, or the last one there is.
    pub(crate) fn tick_after(&self, delay: Duration) -> u64 {
        Instant::now().checked_add(delay).map_or(u64::MAX, |time| self.tick_at(time))
    }

    /// The last tick that has passed.
    pub(crate) fn tick_now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The time of a tick.
    pub(crate) fn time_of(&self, tick: u64) -> Instant {
        self.epoch + Duration::from_millis(tick)
    }

    /// Queues an item that has its permit or its place.
    pub(crate) fn submit(&self, item: Item<P>) {
        let mut calls = self.calls.lock();
        let (notify, closed) = (calls.push(item), calls.closed);
        drop(calls);
        if closed {
            self.discard_queue();
        } else if notify {
            self.notify_server();
        }
    }

    /// Wakes the server for new items.
    pub(crate) fn notify_server(&self) {
        let sent = !P::IN_TURN && self.actor.get().is_some_and(|actor| actor.send_message(Notified).is_ok());
        if !sent {
            // A server handles its queue in a task of its own. A router that drains listens here as well; one that has
            // ended has closed its table.
            self.progress.notify_one();
        }
    }

    /// Takes the next item. The flag says whether it was the last: then the next one notifies again.
    pub(crate) fn next(&self) -> Option<(Next<P>, bool)> {
        loop {
            let mut calls = self.calls.lock();
            let item = calls.queue.pop_front();
            let last = calls.queue.is_empty();
            calls.notified &= !last;
            let call = match item? {
                Item::Call(call) => call,
                Item::Cast(cast) => return Some((Next::Cast(cast), last)),
                Item::Event(event) => return Some((Next::Event(event), last)),
            };
            let request = calls.table.take_request(call.key);
            drop(calls);
            let bytes = call.bytes;
            match (request, BegunCall::begin(call)) {
                (Some(request), Some(begun)) => return Some((Next::Call(begun, request), last)),
                (request, _) => discard(request),
            }
            // It has settled already.
            self.release(bytes);
            if last {
                return None;
            }
        }
    }

    pub(crate) fn admission(&self) -> AdmissionState {
        self.calls.lock().table.admission()
    }

    /// Returns the permit of an item that is not, or no longer, handled.
    pub(crate) fn release(&self, bytes: u64) {
        self.gate.release(bytes, Waker::wake);
        self.drain_progressed();
    }

    pub(crate) fn drain_progressed(&self) {
        if self.is_draining() {
            self.progress.notify_one();
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Drops what will never be handled.
    pub(crate) fn discard_queue(&self) {
        loop {
            let item = self.calls.lock().queue.pop_front();
            let Some(item) = item else { break };
            match item {
                Item::Call(call) => self.release(call.bytes),
                Item::Cast(cast) => {
                    discard(cast);
                    self.gauges.casts_dropped.fetch_add(1, Ordering::Relaxed);
                    self.release(0);
                }
                Item::Event(event) => discard(event),
            }
        }
    }

    /// Returns the memory that a spike left, when the tables are more than `factor` times as large as needed.
    pub(crate) fn compact(&self, factor: usize) -> usize {
        let calls = &mut *self.calls.lock();
        let before = calls.queue.capacity();
        if before > factor.saturating_mul(calls.queue.len().max(1)) {
            calls.queue.shrink_to_fit();
        }
        let queue = (before - calls.queue.capacity()) * size_of::<Item<P>>();
        queue + calls.table.compact(factor)
    }
}

impl<P: Protocol> Calls<P> {
    /// Queues an item. Returns whether the server must be notified.
    pub(crate) fn push(&mut self, item: Item<P>) -> bool {
        self.queue.push_back(item);
        !std::mem::replace(&mut self.notified, true)
    }
}

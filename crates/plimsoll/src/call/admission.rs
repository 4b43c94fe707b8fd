//! Admission: a permit, then slot and timer, all in the caller's task; and counters of what was refused.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

use plimsoll_sync::cell::CallCell;
use plimsoll_sync::permits::{Refused, Scarce};
use plimsoll_sync::slots::SlotKey;
use tokio::time::Instant;

use super::call_table::{AdmissionState, NotAdmitted, Outcome};
use super::client::{Calling, New, State};
use super::settlement::Call;
use super::shared::{Item, Shared};
use super::{CallError, Died, Overload, Protocol};
use crate::wait_graph::{Node, WaitEdge};

impl<P: Protocol> Calling<P> {
    /// Admits a request, queues it for a permit, or refuses it.
    pub(crate) fn admit(&mut self, new: New<P>, waker: &Waker) -> Result<State<P>, CallError<P::Error>> {
        if new.late {
            return Err(new.shared.refusals.count(CallError::Timeout));
        }
        let shared = Arc::clone(&new.shared);
        self.admit_to(&shared, new, waker).map_err(|error| shared.refusals.count(error))
    }

    fn admit_to(
        &mut self,
        shared: &Arc<Shared<P>>,
        new: New<P>,
        waker: &Waker,
    ) -> Result<State<P>, CallError<P::Error>> {
        let New { request, deadline, awaited, finishes, inside, .. } = new;
        let mut caller = None;
        if let Some(extras) = &mut self.extras
            && let Some(binding) = &extras.binding
        {
            if let (true, true, Some(server)) = (P::IN_TURN, awaited, shared.actor()) {
                let to = Node::from(&server.get_cell());
                extras.edge = Some(WaitEdge::begin(&binding.node, &to).map_err(CallError::Deadlock)?);
            }
            caller = Some((binding.key, Arc::clone(&binding.node)));
        }
        let bytes = shared.limits.weigh.as_ref().map_or(0, |weigh| weigh(&request));
        let opening = Opening { request, deadline, bytes, caller, awaited, finishes };
        let refused = match shared.gate.try_acquire(bytes) {
            Ok(()) => {
                let opened = shared.open(opening, true, waker).map_err(|(why, bytes)| {
                    shared.release(bytes);
                    shared.not_admitted(why)
                });
                return opened.map(State::Open);
            }
            Err(refused) => refused,
        };
        shared.check_admission()?;
        if shared.limits.queue == 0 {
            return Err(shared.overload(refused, bytes).into());
        }
        if let (Some(worker), true) = (inside, awaited) {
            let own = OwnWait::begin(shared, worker)?;
            self.extras.get_or_insert_default().own = Some(own);
        }
        let place = shared.gate.enqueue(bytes, waker.clone(), Waker::wake);
        let place = place.map_err(|refused| shared.overload(refused, bytes))?;
        match shared.open(opening, false, waker) {
            Ok(call) => Ok(State::Queued(call, place)),
            Err((why, _)) => {
                shared.gate.cancel(place, Waker::wake);
                Err(shared.not_admitted(why))
            }
        }
    }
}

/// A worker waits for a permit of its own server, until this is dropped.
pub(crate) struct OwnWait<P: Protocol> {
    shared: Arc<Shared<P>>,
    worker: u64,
}

impl<P: Protocol> OwnWait<P> {
    /// Refused when every permit is held by a worker that waits like this: none would ever come back.
    fn begin(shared: &Arc<Shared<P>>, worker: u64) -> Result<Self, CallError<P::Error>> {
        let waiting = {
            let mut waiting = shared.own_waiting.lock();
            *waiting.entry(worker).or_default() += 1;
            waiting.len()
        };
        let wait = Self { shared: Arc::clone(shared), worker };
        if waiting < shared.gate.used().count as usize {
            return Ok(wait);
        }
        let server = shared.actor().map(|actor| Node::from(&actor.get_cell()).label.to_string()).unwrap_or_default();
        Err(CallError::Deadlock(vec![server.clone(), server]))
    }
}

impl<P: Protocol> Drop for OwnWait<P> {
    fn drop(&mut self) {
        let mut waiting = self.shared.own_waiting.lock();
        if let Entry::Occupied(mut calls) = waiting.entry(self.worker) {
            *calls.get_mut() -= 1;
            if *calls.get() == 0 {
                calls.remove();
            }
        }
    }
}

/// A request on its way into the table.
pub(crate) struct Opening<P: Protocol> {
    request: P::Request,
    deadline: Instant,
    bytes: u64,
    caller: Option<(SlotKey, Arc<Node>)>,
    awaited: bool,
    finishes: bool,
}

impl<P: Protocol> Shared<P> {
    /// Opens a call in the table; with a permit it is queued in the same step. On failure the permit stays the caller's.
    fn open(
        self: &Arc<Self>,
        opening: Opening<P>,
        permitted: bool,
        waker: &Waker,
    ) -> Result<Arc<Call<P>>, (NotAdmitted, u64)> {
        let Opening { request, deadline, bytes, caller, awaited, finishes } = opening;
        let (bound, caller) = caller.unzip();
        let (cell, due, shared) = (CallCell::awaited_by(waker.clone()), self.tick_at(deadline), Arc::clone(self));
        let mut opened = None;
        let mut calls = self.calls.lock();
        let result = calls.table.open(due, bound, request, |key| {
            let call = Call { cell, shared, key, deadline, bytes, caller, awaited, finishes };
            Arc::clone(opened.insert(Arc::new(call)))
        });
        let notify = permitted && opened.as_ref().is_some_and(|call| calls.push(Item::Call(Arc::clone(call))));
        // A refused request is dropped outside the lock: its drop may call this server.
        drop(calls);
        let result = result.map_err(|(why, _)| (why, bytes))?;
        let call = opened.ok_or((NotAdmitted::Full, bytes))?;
        if result.earliest {
            self.deadline_changed.notify_one();
        }
        if notify {
            self.notify_server();
        }
        Ok(call)
    }

    /// `Err` when the server admits no calls.
    pub(crate) fn check_admission(&self) -> Result<(), CallError<P::Error>> {
        match self.admission() {
            AdmissionState::Open => Ok(()),
            AdmissionState::Draining => Err(self.not_admitted(NotAdmitted::Draining)),
            AdmissionState::Closed => Err(self.not_admitted(NotAdmitted::Closed)),
        }
    }

    fn not_admitted(&self, why: NotAdmitted) -> CallError<P::Error> {
        match why {
            NotAdmitted::Draining => CallError::ShuttingDown,
            NotAdmitted::Closed => CallError::Died(Died::NoProcess),
            NotAdmitted::CallerExited => CallError::Cancelled,
            NotAdmitted::Full => {
                let (used, limit) = (self.gate.used(), self.gate.limit());
                Overload::InFlight { in_flight: used.count, limit: limit.count }.into()
            }
        }
    }

    /// The caller's error for a refusal of the gate.
    pub(crate) fn overload(&self, refused: Refused, wanted: u64) -> Overload {
        match refused.scarce {
            Scarce::Bytes => Overload::Bytes { held: refused.used.bytes, limit: refused.limit.bytes, wanted },
            Scarce::Queue => Overload::Queue { limit: self.limits.queue },
            Scarce::Waiters => Overload::Waiting,
            _ => Overload::InFlight { in_flight: refused.used.count, limit: refused.limit.count },
        }
    }
}

/// Reasons for which a call is refused before it is opened.
const REASONS: [(&str, Outcome); 9] = [
    ("in_flight", Outcome::Overloaded),
    ("bytes", Outcome::Overloaded),
    ("queue", Outcome::Overloaded),
    ("waiting", Outcome::Overloaded),
    ("timeout", Outcome::Timeout),
    ("shutting_down", Outcome::ShuttingDown),
    ("no_process", Outcome::Died),
    ("deadlock", Outcome::Deadlock),
    ("caller_gone", Outcome::Cancelled),
];

#[derive(Debug, Default)]
pub(crate) struct Refusals {
    counts: [AtomicU64; REASONS.len()],
}

impl Refusals {
    /// Counts a refusal and returns it.
    pub(crate) fn count<E>(&self, error: CallError<E>) -> CallError<E> {
        let reason = match &error {
            CallError::Overloaded(Overload::InFlight { .. }) => 0,
            CallError::Overloaded(Overload::Bytes { .. }) => 1,
            CallError::Overloaded(Overload::Queue { .. }) => 2,
            CallError::Overloaded(_) => 3,
            CallError::Timeout => 4,
            CallError::ShuttingDown => 5,
            CallError::Died(Died::NoProcess) => 6,
            CallError::Deadlock(_) => 7,
            CallError::Cancelled => 8,
            // Admission returns nothing else.
            CallError::App(_) | CallError::Died(_) => return error,
        };
        self.counts[reason].fetch_add(1, Ordering::Relaxed);
        error
    }

    /// How many were refused for which reason, and as which outcome each counts. One reading, so that
    /// adding it to both sides of `started = settled + in flight` keeps them equal.
    pub(crate) fn read(&self) -> [(&'static str, Outcome, u64); REASONS.len()] {
        let mut read = REASONS.map(|(name, outcome)| (name, outcome, 0));
        for (entry, count) in read.iter_mut().zip(&self.counts) {
            entry.2 = count.load(Ordering::Relaxed);
        }
        read
    }
}

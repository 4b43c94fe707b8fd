//! Admission: a permit, then slot and timer, all in the caller's task.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::task::Waker;

use plimsoll_sync::cell::CallCell;
use plimsoll_sync::permits::{Place, Refused, Scarce};
use plimsoll_sync::slots::SlotKey;
use tokio::time::Instant;

use super::call_table::{AdmissionState, NotAdmitted};
use super::shared::{Call, Item, Shared};
use super::{CallError, Died, Overload, Protocol};
use crate::wait_graph::Node;

/// A request that asks for admission.
pub(crate) struct Opening<P: Protocol> {
    pub(crate) request: P::Request,
    pub(crate) deadline: Instant,
    /// The bound actor: its key in this server's table, and the actor.
    pub(crate) caller: Option<(SlotKey, Arc<Node>)>,
    pub(crate) awaited: bool,
    pub(crate) finishes: bool,
    /// The worker of this server that makes the call, if one does.
    pub(crate) worker: Option<u64>,
}

/// A call that was admitted.
pub(crate) enum Admitted<P: Protocol> {
    Open(Arc<Call<P>>),
    /// It waits for a permit.
    Queued(Arc<Call<P>>, Place, Option<OwnWait<P>>),
}

/// A place among those who wait for a permit.
type QueuePlace<P> = (Place, Option<OwnWait<P>>);

/// A call that was not admitted: its request has not reached the server.
pub(crate) struct Rejected<P: Protocol> {
    pub(crate) error: CallError<P::Error>,
    pub(crate) request: P::Request,
}

impl<P: Protocol> Shared<P> {
    /// Admits a request, queues it for a permit, or refuses it.
    pub(crate) fn admit(self: &Arc<Self>, opening: Opening<P>, waker: &Waker) -> Result<Admitted<P>, Rejected<P>> {
        let bytes = self.limits.weigh.as_ref().map_or(0, |weigh| weigh(&opening.request));
        let refused = match self.gate.try_acquire(bytes) {
            Ok(()) => {
                return self.open(opening, bytes, true, waker).map(Admitted::Open).map_err(|(why, request)| {
                    self.release(bytes);
                    Rejected { error: self.not_admitted(why), request }
                });
            }
            Err(refused) => refused,
        };
        let (place, own) = match self.enqueue(&opening, refused, bytes, waker) {
            Ok(queued) => queued,
            Err(error) => return Err(Rejected { error, request: opening.request }),
        };
        match self.open(opening, bytes, false, waker) {
            Ok(call) => Ok(Admitted::Queued(call, place, own)),
            Err((why, request)) => {
                self.gate.cancel(place, Waker::wake);
                Err(Rejected { error: self.not_admitted(why), request })
            }
        }
    }

    /// Takes a place among those who wait for a permit.
    fn enqueue(
        self: &Arc<Self>,
        opening: &Opening<P>,
        refused: Refused,
        bytes: u64,
        waker: &Waker,
    ) -> Result<QueuePlace<P>, CallError<P::Error>> {
        self.check_admission()?;
        if self.limits.queue == 0 {
            return Err(self.overload(refused, bytes).into());
        }
        let own = opening.worker.filter(|_| opening.awaited).map(|worker| OwnWait::begin(self, worker)).transpose()?;
        let place = self.gate.enqueue(bytes, waker.clone(), Waker::wake);
        Ok((place.map_err(|refused| self.overload(refused, bytes))?, own))
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

impl<P: Protocol> Shared<P> {
    /// Opens a call in the table; with a permit it is queued in the same step. On failure the permit stays the caller's.
    fn open(
        self: &Arc<Self>,
        opening: Opening<P>,
        bytes: u64,
        permitted: bool,
        waker: &Waker,
    ) -> Result<Arc<Call<P>>, (NotAdmitted, P::Request)> {
        let Opening { request, deadline, caller, awaited, finishes, .. } = opening;
        let (bound, caller) = caller.unzip();
        let (cell, due, shared) = (CallCell::awaited_by(waker.clone()), self.tick_at(deadline), Arc::clone(self));
        let mut opened = None;
        let mut calls = self.calls.lock();
        let result = calls.table.open(due, bound, request, |key| {
            let call = Call { cell, shared, key, deadline, bytes, caller, awaited, finishes };
            Arc::clone(opened.insert(Arc::new(call)))
        });
        let notify = permitted && opened.as_ref().is_some_and(|call| calls.push(Item::Call(Arc::clone(call))));
        drop(calls);
        let result = result?;
        let Some(call) = opened else { unreachable!("the table makes the call that it opens") };
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

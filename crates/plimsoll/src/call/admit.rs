//! Admission: permit, then slot and timer, all in the caller's task.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::task::Waker;

use plimsoll_sync::permits::{Refused, Scarce};
use tokio::time::Instant;

use super::book::{Door, NotOpened};
use super::client::{Calling, New, Opening, State};
use super::shared::Shared;
use super::waits::{Party, Waiting};
use super::{CallError, Died, Overload, Protocol};

impl<P: Protocol> Calling<P> {
    /// Lets a request in, into the queue, or not at all.
    pub(crate) fn admit(&mut self, new: New<P>, waker: &Waker) -> Result<State<P>, CallError<P::Error>> {
        let New { shared, request, deadline, late, awaited, inside } = new;
        if late {
            return Err(shared.refusals.count(CallError::Timeout));
        }
        self.admit_to(&shared, request, deadline, (awaited, inside), waker)
            .map_err(|error| shared.refusals.count(error))
    }

    fn admit_to(
        &mut self,
        shared: &Arc<Shared<P>>,
        request: P::Request,
        deadline: Instant,
        (awaited, inside): (bool, Option<u64>),
        waker: &Waker,
    ) -> Result<State<P>, CallError<P::Error>> {
        let mut caller = None;
        if let Some(ties) = &mut self.ties
            && let Some(binding) = &ties.binding
        {
            if let (true, true, Some(server)) = (P::IN_TURN, awaited, shared.actor()) {
                let to = Party::from(&server.get_cell());
                ties.waiting = Some(Waiting::begin(&binding.party, &to).map_err(CallError::Deadlock)?);
            }
            caller = Some((binding.key, Arc::clone(&binding.party)));
        }
        let bytes = shared.limits.weigh.as_ref().map_or(0, |weigh| weigh(&request));
        let opening = Opening { request, deadline, bytes, caller, awaited };
        let refused = match shared.gate.try_acquire(bytes) {
            Ok(()) => {
                let opened = shared.open(opening, true, waker).map_err(|(why, bytes)| {
                    shared.release(bytes);
                    shared.not_opened(why)
                });
                return opened.map(State::Open);
            }
            Err(refused) => refused,
        };
        shared.is_shut()?;
        if shared.limits.queue == 0 {
            return Err(shared.overload(refused, bytes).into());
        }
        if let (Some(worker), true) = (inside, awaited) {
            let own = OwnWait::begin(shared, worker)?;
            self.ties.get_or_insert_default().own = Some(own);
        }
        let place = shared.gate.enqueue(bytes, waker.clone(), Waker::wake);
        let place = place.map_err(|refused| shared.overload(refused, bytes))?;
        match shared.open(opening, false, waker) {
            Ok(call) => Ok(State::Queued(call, place)),
            Err((why, _)) => {
                shared.gate.cancel(place, Waker::wake);
                Err(shared.not_opened(why))
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
        let server = shared.actor().map(|actor| Party::from(&actor.get_cell()).label.to_string()).unwrap_or_default();
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
    /// `Err` with how the door is shut, if it is.
    pub(crate) fn is_shut(&self) -> Result<(), CallError<P::Error>> {
        match self.door() {
            Door::Open => Ok(()),
            Door::Draining => Err(self.not_opened(NotOpened::Draining)),
            Door::Closed => Err(self.not_opened(NotOpened::Closed)),
        }
    }

    fn not_opened(&self, why: NotOpened) -> CallError<P::Error> {
        match why {
            NotOpened::Draining => CallError::ShuttingDown,
            NotOpened::Closed => CallError::Died(Died::NoProcess),
            NotOpened::CallerGone => CallError::Cancelled,
            NotOpened::Full => {
                let (used, limit) = (self.gate.used(), self.gate.limit());
                Overload::InFlight { in_flight: used.count, limit: limit.count }.into()
            }
        }
    }

    /// A gate's refusal in the words of a caller.
    pub(crate) fn overload(&self, refused: Refused, wanted: u64) -> Overload {
        match refused.scarce {
            Scarce::Bytes => Overload::Bytes { held: refused.used.bytes, limit: refused.limit.bytes, wanted },
            Scarce::Queue => Overload::Queue { limit: self.limits.queue },
            Scarce::Waiters => Overload::Waiting,
            _ => Overload::InFlight { in_flight: refused.used.count, limit: refused.limit.count },
        }
    }
}

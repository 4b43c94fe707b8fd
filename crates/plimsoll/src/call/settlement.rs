//! How a call settles: exactly once, and everything kept for it goes first.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use plimsoll_sync::cell::{Party, Won};

use super::call_table::{AdmissionState, Outcome};
use super::shared::{BegunCall, Call, Settled, Shared};
use super::{CallError, Died, Protocol};
use crate::exit::ExitReason;
use crate::panics::discard;

impl<P: Protocol> Shared<P> {
    /// Settles `call`, unless it has settled: the table first, then the caller, then the worker.
    pub(crate) fn settle(&self, call: &Call<P>, by: Party, outcome: Outcome, value: Settled<P>) -> bool {
        let Some(won) = call.cell.settle(by) else {
            if by == Party::Worker {
                self.gauges.late.fetch_add(1, Ordering::Relaxed);
            }
            return false;
        };
        self.complete(call, won, outcome, value);
        true
    }

    /// The caller has left: cancels `call`, unless it has begun and is to finish.
    pub(crate) fn caller_left(&self, call: &Call<P>) {
        let won = if call.finishes { call.cell.settle_unbegun() } else { call.cell.settle(Party::Other) };
        match won {
            Some(won) => self.complete(call, won, Outcome::Cancelled, Err(CallError::Cancelled)),
            None if call.finishes && !call.cell.is_settled() => {
                self.gauges.left_to_finish.fetch_add(1, Ordering::Relaxed);
            }
            None => {}
        }
    }

    fn complete(&self, call: &Call<P>, won: Won, outcome: Outcome, value: Settled<P>) {
        if won.abandoned {
            self.gauges.overrunning.fetch_add(1, Ordering::Relaxed);
        }
        let entry = self.calls.lock().table.close(call.key, outcome);
        discard(entry);
        let waiters = call.cell.fill(value);
        if let Some(caller) = waiters.caller {
            caller.wake();
        }
        if let Some(worker) = waiters.worker {
            worker.wake();
        }
        self.drain_progressed();
    }

    /// Closes admission. Open calls are served, or those only that have begun.
    pub(crate) fn drain(&self, serve_queued: bool) {
        self.calls.lock().table.drain();
        self.draining.store(true, Ordering::Release);
        if !serve_queued {
            self.end_unbegun();
        }
        self.progress.notify_one();
    }

    /// Settles the calls that have not begun as `ShuttingDown`.
    pub(crate) fn end_unbegun(&self) {
        let unbegun = self.calls.lock().table.unbegun_calls();
        self.end_as_shutting_down(unbegun);
    }

    /// Settles all open calls as `ShuttingDown`.
    pub(crate) fn end_open(&self) {
        let open = self.calls.lock().table.open_calls();
        self.end_as_shutting_down(open);
    }

    fn end_as_shutting_down(&self, calls: Vec<Arc<Call<P>>>) {
        for call in calls {
            self.settle(&call, Party::Other, Outcome::ShuttingDown, Err(CallError::ShuttingDown));
        }
    }

    /// What may still come, when the queue is empty and admission is closed.
    pub(crate) fn rest(&self) -> Rest {
        let (unbegun, queued) = {
            let calls = self.calls.lock();
            (calls.table.unbegun(), calls.queue.len())
        };
        let held = u64::from(self.gate.used().count);
        if unbegun == 0 && queued == 0 {
            Rest::None
        } else if queued > 0 || held > self.gauges.workers.load(Ordering::Acquire) {
            Rest::Granted
        } else {
            Rest::Stuck
        }
    }

    /// Whether every call has settled and every worker that could end has ended.
    pub(crate) fn is_drained(&self) -> bool {
        let in_flight = self.calls.lock().table.in_flight();
        in_flight == 0 && self.gauges.all_workers_overrun()
    }

    /// The server has ended: settles all open calls, drops the queue and ends the caller monitor.
    pub(crate) fn close(&self) {
        let (admission, open) = {
            let table = &mut self.calls.lock().table;
            (table.admission(), table.close_admission())
        };
        for call in open {
            let (outcome, error) = match self.exit.get() {
                None if admission == AdmissionState::Draining => (Outcome::ShuttingDown, CallError::ShuttingDown),
                reason => (Outcome::Died, Died::Exit(reason.cloned().unwrap_or(ExitReason::Killed)).into()),
            };
            self.settle(&call, Party::Other, outcome, Err(error));
        }
        self.calls.lock().closed = true;
        self.discard_queue();
        let monitored = self.calls.lock().table.callers().monitored();
        self.caller_monitor.end(monitored);
    }
}

/// How long a draining server waits for a caller that has got a permit and does not run.
pub(crate) const GRANTED_PATIENCE: Duration = Duration::from_millis(100);

/// What may still come to a draining server whose queue is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    None,
    /// A caller has got a permit and will hand over its call when it runs.
    Granted,
    /// Callers wait for permits that only begun calls hold.
    Stuck,
}

impl<P: Protocol> BegunCall<P> {
    /// Settles the call for its worker; a late reply is counted and dropped.
    pub(crate) fn settle(&self, outcome: Outcome, value: Settled<P>) -> bool {
        self.shared().settle(&self.call, Party::Worker, outcome, value)
    }

    /// The call has not settled, and no reply will come.
    fn unserved(&self) {
        let shared = self.shared();
        if P::keeps_unreplied(&shared.host, shared.identity(), shared.exit.get().is_some(), self.call.key) {
            return;
        }
        let (outcome, error) = if P::IN_TURN {
            (Outcome::Died, Died::NoReply.into())
        } else if shared.is_draining() {
            (Outcome::ShuttingDown, CallError::ShuttingDown)
        } else {
            (Outcome::Died, Died::Exit(ExitReason::Killed).into())
        };
        shared.settle(&self.call, Party::Other, outcome, Err(error));
    }
}

impl<P: Protocol> Drop for BegunCall<P> {
    fn drop(&mut self) {
        if !self.call.cell.is_settled() {
            self.unserved();
        }
        let shared = self.shared();
        if self.call.cell.end().abandoned {
            shared.gauges.overrunning.fetch_sub(1, Ordering::AcqRel);
        }
        shared.gauges.workers.fetch_sub(1, Ordering::AcqRel);
        shared.release(self.call.bytes);
    }
}

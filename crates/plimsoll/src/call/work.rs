//! A begun call in the hands of whoever serves it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use plimsoll_sync::cell::Party;

use super::book::Outcome;
use super::shared::{Call, Settled, Shared};
use super::{CallError, Died, Protocol};
use crate::exit::ExitReason;

/// The permit of a begun call and the duty to settle it. Both go when this is dropped, in whatever way that comes about.
pub(crate) struct Work<P: Protocol> {
    pub(crate) call: Arc<Call<P>>,
}

impl<P: Protocol> Work<P> {
    /// Takes a call up; `None` if it has settled already.
    pub(crate) fn begin(call: Arc<Call<P>>) -> Option<Self> {
        if !call.cell.begin() {
            return None;
        }
        call.shared.gauges.workers.fetch_add(1, Ordering::AcqRel);
        Some(Self { call })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared<P>> {
        &self.call.shared
    }

    /// Settles the call on behalf of its worker; a reply that comes late is counted and dropped.
    pub(crate) fn settle(&self, outcome: Outcome, value: Settled<P>) -> bool {
        self.shared().settle(&self.call, Party::Worker, outcome, value)
    }

    /// Nobody has settled the call, and nobody will reply any more.
    fn unserved(&self) {
        let shared = self.shared();
        if P::keeps_unreplied(shared, self.call.key) {
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

impl<P: Protocol> Drop for Work<P> {
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

//! Byte budgets: how many bytes all requests of a gateway may hold together, and how many one connection may.
//!
//! There are two: one for request bodies, one for responses that are not acknowledged. One connection holds at most its
//! share of either ([`Limits::SHARES`]), so that none alone can lock the others out. The length of what is held counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::Mutex;
use plimsoll::bounded::LogThrottle;
use plimsoll::inspect::{Metric, Metrics};

use super::limits::Limits;
use crate::problem::{Code, Problem};

/// Bytes held by all requests of a gateway.
#[derive(Debug)]
pub(super) struct ByteBudget {
    /// What is held, in message.
    what: &'static str,
    cap: u64,
    held: AtomicU64,
    high_water: AtomicU64,
    refused: [AtomicU64; RefusalReason::NAMES.len()],
    refusal_log: Mutex<LogThrottle>,
}

/// Bytes of a budget that one connection holds.
#[derive(Debug, Default)]
pub(super) struct ConnectionBytes(AtomicU64);

/// Bytes of a budget that one request holds, released on drop.
#[derive(Debug)]
#[must_use = "the bytes are released when this is dropped"]
pub(super) struct Reservation<'a> {
    budget: &'a ByteBudget,
    share: &'a ConnectionBytes,
    bytes: u64,
}

/// A reservation that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.message())]
pub(super) struct Refused {
    what: &'static str,
    reason: RefusalReason,
    held: u64,
    requested: u64,
    limit: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RefusalReason {
    /// All requests together hold too much.
    Full,
    /// The connection holds too much.
    Share,
    /// It would not fit if the connection held nothing else.
    TooLarge,
}

impl ByteBudget {
    pub(super) fn new(what: &'static str, cap: usize) -> Self {
        let (held, high_water) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { what, cap: cap as u64, held, high_water, refused: Default::default(), refusal_log: Mutex::default() }
    }

    pub(super) fn held(&self) -> u64 {
        self.held.load(Relaxed)
    }

    /// What one connection may hold.
    const fn share(&self) -> u64 {
        self.cap / Limits::SHARES as u64
    }

    /// An empty reservation of the connection that holds `share`.
    pub(super) const fn reservation<'a>(&'a self, share: &'a ConnectionBytes) -> Reservation<'a> {
        Reservation { budget: self, share, bytes: 0 }
    }

    /// Adds the counters to those of the gateway, prefixed with `name`.
    pub(super) fn add_to(&self, name: &str, metrics: &mut Metrics) {
        let mut show = |what: &str, metric| metrics.insert(format!("{name}_bytes_{what}"), metric);
        show("held", Metric::gauge(self.held()).bytes());
        show("cap", Metric::gauge(self.cap).bytes());
        show("high_water", Metric::gauge(self.high_water.load(Relaxed)).bytes());
        for (reason, count) in RefusalReason::NAMES.iter().zip(&self.refused) {
            show(&format!("refused_{reason}"), Metric::counter(count.load(Relaxed)));
        }
    }

    /// Counts a refusal and logs it: the first one, then one in ten seconds with the number between.
    #[cold]
    fn refuse(&self, reason: RefusalReason, held: u64, requested: u64) -> Refused {
        self.refused[reason as usize].fetch_add(1, Relaxed);
        if let Some(suppressed) = self.refusal_log.lock().record(Instant::now()) {
            let (what, reason, cap) = (self.what, RefusalReason::NAMES[reason as usize], self.cap);
            tracing::warn!(target: "plimsoll::mesh", what, reason, held, requested, cap, suppressed, "bytes refused");
        }
        let limit = if reason == RefusalReason::Full { self.cap } else { self.share() };
        Refused { what: self.what, reason, held, requested, limit }
    }
}

impl Reservation<'_> {
    /// Reserves `more` bytes, or none of them.
    ///
    /// # Errors
    /// [`Refused`], counted and logged.
    pub(super) fn grow(&mut self, more: usize) -> Result<(), Refused> {
        let Self { budget, share, bytes } = self;
        let (more, most) = (more as u64, budget.share());
        if bytes.saturating_add(more) > most {
            return Err(budget.refuse(RefusalReason::TooLarge, *bytes, more));
        }
        take(&share.0, more, most).map_err(|held| budget.refuse(RefusalReason::Share, held, more))?;
        let held = take(&budget.held, more, budget.cap).map_err(|held| {
            share.0.fetch_sub(more, Relaxed);
            budget.refuse(RefusalReason::Full, held, more)
        })?;
        *bytes += more;
        if held > budget.high_water.load(Relaxed) {
            budget.high_water.fetch_max(held, Relaxed);
        }
        Ok(())
    }

    /// Whether nothing is held.
    pub(super) const fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if !self.is_empty() {
            self.budget.held.fetch_sub(self.bytes, Relaxed);
            self.share.0.fetch_sub(self.bytes, Relaxed);
        }
    }
}

/// Adds `more` to `held` unless the sum is over `cap`. Returns the sum, or what was held already.
fn take(held: &AtomicU64, more: u64, cap: u64) -> Result<u64, u64> {
    // ORDERING: a count on its own; nothing else is published with it.
    let fits = |held: u64| held.checked_add(more).filter(|&sum| sum <= cap);
    held.fetch_update(Relaxed, Relaxed, fits).map(|held| held + more)
}

impl RefusalReason {
    const NAMES: [&'static str; 3] = ["full", "share", "too_large"];
}

impl Refused {
    fn message(&self) -> String {
        let Self { what, reason, held, requested, limit } = self;
        match reason {
            RefusalReason::Full => {
                format!("{what} of all clients together hold {held} of {limit} bytes, {requested} more are too many")
            }
            RefusalReason::Share => format!(
                "{what} of this connection hold {held} of the {limit} bytes that one may, {requested} more are too many"
            ),
            RefusalReason::TooLarge => {
                format!("{what} of one connection may hold {limit} bytes, {} are too many", held + requested)
            }
        }
    }

    /// The problem for the client: `too_large` where trying again is of no use.
    pub(super) fn problem(&self, too_large: Code, detail: String) -> Problem {
        let code = match self.reason {
            RefusalReason::Full => Code::Overloaded,
            RefusalReason::Share => Code::RateLimited,
            RefusalReason::TooLarge => too_large,
        };
        Problem::new(code, detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(budget: &ByteBudget) -> Vec<u64> {
        let mut counters = Metrics::default();
        budget.add_to("some", &mut counters);
        ["held", "cap", "high_water", "refused_full", "refused_share", "refused_too_large"]
            .map(|name| counters[&format!("some_bytes_{name}")])
            .into()
    }

    /// M-1, M-19: a refusal changes nothing but its count, and a dropped reservation is released.
    #[test]
    fn a_budget_holds_its_cap_and_a_connection_its_quarter() {
        let budget = ByteBudget::new("responses", 100);
        let shares: [ConnectionBytes; 5] = Default::default();
        let mut reservations: Vec<_> = shares.iter().map(|share| budget.reservation(share)).collect();
        for reservation in &mut reservations[..4] {
            reservation.grow(10).unwrap();
            reservation.grow(14).unwrap();
        }
        assert_eq!(reservations[0].grow(2).unwrap_err().reason, RefusalReason::TooLarge, "26 of 25 for one request");
        let refused = budget.reservation(&shares[0]).grow(2).unwrap_err();
        assert_eq!(refused.problem(Code::BodyTooLarge, String::new()).code, Code::RateLimited);
        assert_eq!(
            refused.to_string(),
            "responses of this connection hold 24 of the 25 bytes that one may, 2 more are too many"
        );
        let refused = reservations[4].grow(5).unwrap_err();
        assert_eq!(refused.problem(Code::BodyTooLarge, String::new()).code, Code::Overloaded);
        assert_eq!(refused.to_string(), "responses of all clients together hold 96 of 100 bytes, 5 more are too many");
        reservations[4].grow(4).unwrap();
        assert_eq!(figures(&budget), [100, 100, 100, 1, 1, 1]);
        drop(reservations);
        assert_eq!(figures(&budget), [0, 100, 100, 1, 1, 1]);
        assert!(shares.iter().all(|share| share.0.load(Relaxed) == 0));
    }

    #[test]
    fn absurd_sizes_do_not_wrap_around() {
        let (budget, share) = (ByteBudget::new("responses", usize::MAX), ConnectionBytes::default());
        let mut reservation = budget.reservation(&share);
        reservation.grow(1).unwrap();
        assert_eq!(reservation.grow(usize::MAX).unwrap_err().reason, RefusalReason::TooLarge);
        assert_eq!(budget.held(), 1);
    }
}

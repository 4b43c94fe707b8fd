//! Bytes that all requests of a gateway may hold together, and how many of them one connection may.
//!
//! There are two accounts: one of request bodies, one of answers on their way. One connection holds at most its share of
//! either ([`Limits::SHARES`]), so that none alone can lock the others out. What counts is the length of what is held.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::Mutex;
use plimsoll::bounded::LogThrottle;

use super::Limits;
use crate::problem::{Code, Problem};

/// Bytes held by all requests of a gateway.
#[derive(Debug)]
pub(super) struct Account {
    /// What is held, in words.
    what: &'static str,
    cap: u64,
    held: AtomicU64,
    high_water: AtomicU64,
    refused: [AtomicU64; Why::NAMES.len()],
    limit_met: Mutex<LogThrottle>,
}

/// Bytes of an account that one connection holds.
#[derive(Debug, Default)]
pub(super) struct Share(AtomicU64);

/// Bytes of an account that one request holds, given back on drop.
#[derive(Debug)]
#[must_use = "the bytes are given back when this is dropped"]
pub(super) struct Charge<'a> {
    account: &'a Account,
    share: &'a Share,
    bytes: u64,
}

/// More bytes than there are left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.words())]
pub(super) struct Refused {
    what: &'static str,
    why: Why,
    held: u64,
    wanted: u64,
    limit: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// All requests together hold too much.
    Full,
    /// The connection holds too much.
    Share,
    /// It would not fit if the connection held nothing else.
    TooLarge,
}

impl Account {
    pub(super) fn new(what: &'static str, cap: usize) -> Self {
        let (held, high_water) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { what, cap: cap as u64, held, high_water, refused: Default::default(), limit_met: Mutex::default() }
    }

    pub(super) fn held(&self) -> u64 {
        self.held.load(Relaxed)
    }

    /// What one connection may hold.
    const fn share(&self) -> u64 {
        self.cap / Limits::SHARES as u64
    }

    /// An empty charge of the connection that has `share`.
    pub(super) const fn charge<'a>(&'a self, share: &'a Share) -> Charge<'a> {
        Charge { account: self, share, bytes: 0 }
    }

    /// Adds the figures to those of the gateway, each behind `name`.
    pub(super) fn add_to(&self, name: &str, counters: &mut BTreeMap<String, u64>) {
        let mut show = |what: &str, value| counters.insert(format!("{name}_bytes_{what}"), value);
        show("held", self.held());
        show("cap", self.cap);
        show("high_water", self.high_water.load(Relaxed));
        for (reason, count) in Why::NAMES.iter().zip(&self.refused) {
            show(&format!("refused_{reason}"), count.load(Relaxed));
        }
    }

    /// Counts a refusal and tells of it: of the first, then of one in ten seconds.
    #[cold]
    fn refuse(&self, why: Why, held: u64, wanted: u64) -> Refused {
        self.refused[why as usize].fetch_add(1, Relaxed);
        if let Some(unsaid) = self.limit_met.lock().record(Instant::now()) {
            let (what, reason, cap) = (self.what, Why::NAMES[why as usize], self.cap);
            tracing::warn!(target: "plimsoll::mesh", what, reason, held, wanted, cap, unsaid, "bytes refused");
        }
        let limit = if why == Why::Full { self.cap } else { self.share() };
        Refused { what: self.what, why, held, wanted, limit }
    }
}

impl Charge<'_> {
    /// Holds `more` bytes as well, or none of them.
    ///
    /// # Errors
    /// [`Refused`], counted and told in the log.
    pub(super) fn grow(&mut self, more: usize) -> Result<(), Refused> {
        let Self { account, share, bytes } = self;
        let (more, most) = (more as u64, account.share());
        if bytes.saturating_add(more) > most {
            return Err(account.refuse(Why::TooLarge, *bytes, more));
        }
        take(&share.0, more, most).map_err(|held| account.refuse(Why::Share, held, more))?;
        let held = take(&account.held, more, account.cap).map_err(|held| {
            share.0.fetch_sub(more, Relaxed);
            account.refuse(Why::Full, held, more)
        })?;
        *bytes += more;
        if held > account.high_water.load(Relaxed) {
            account.high_water.fetch_max(held, Relaxed);
        }
        Ok(())
    }

    /// Whether nothing is held.
    pub(super) const fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        if !self.is_empty() {
            self.account.held.fetch_sub(self.bytes, Relaxed);
            self.share.0.fetch_sub(self.bytes, Relaxed);
        }
    }
}

/// Adds `more` to what is held unless that is over `cap`: what is held then, or else what was in the way.
fn take(held: &AtomicU64, more: u64, cap: u64) -> Result<u64, u64> {
    // ORDERING: a count on its own; nothing else is published with it.
    let fits = |held: u64| held.checked_add(more).filter(|&sum| sum <= cap);
    held.fetch_update(Relaxed, Relaxed, fits).map(|held| held + more)
}

impl Why {
    const NAMES: [&'static str; 3] = ["full", "share", "too_large"];
}

impl Refused {
    fn words(&self) -> String {
        let Self { what, why, held, wanted, limit } = self;
        match why {
            Why::Full => {
                format!("{what} of all clients together hold {held} of {limit} bytes, {wanted} more are too many")
            }
            Why::Share => format!(
                "{what} of this connection hold {held} of the {limit} bytes that one may, {wanted} more are too many"
            ),
            Why::TooLarge => format!("{what} of one connection may hold {limit} bytes, {} are too many", held + wanted),
        }
    }

    /// The problem to answer with: `too_large` where it is of no use to try again.
    pub(super) fn problem(&self, too_large: Code, detail: String) -> Problem {
        let code = match self.why {
            Why::Full => Code::Overloaded,
            Why::Share => Code::RateLimited,
            Why::TooLarge => too_large,
        };
        Problem::new(code, detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(account: &Account) -> Vec<u64> {
        let mut counters = BTreeMap::new();
        account.add_to("some", &mut counters);
        ["held", "cap", "high_water", "refused_full", "refused_share", "refused_too_large"]
            .map(|name| counters[&format!("some_bytes_{name}")])
            .into()
    }

    /// M-1, M-19: whatever is refused changes nothing but its count, and what is dropped is given back.
    #[test]
    fn an_account_keeps_to_its_cap_and_a_connection_to_its_quarter() {
        let account = Account::new("answers", 100);
        let shares: [Share; 5] = Default::default();
        let mut charges: Vec<_> = shares.iter().map(|share| account.charge(share)).collect();
        for charge in &mut charges[..4] {
            charge.grow(10).unwrap();
            charge.grow(14).unwrap();
        }
        assert_eq!(charges[0].grow(2).unwrap_err().why, Why::TooLarge, "26 of 25 for one request");
        let refused = account.charge(&shares[0]).grow(2).unwrap_err();
        assert_eq!(refused.problem(Code::BodyTooLarge, String::new()).code, Code::RateLimited);
        assert_eq!(
            refused.to_string(),
            "answers of this connection hold 24 of the 25 bytes that one may, 2 more are too many"
        );
        let refused = charges[4].grow(5).unwrap_err();
        assert_eq!(refused.problem(Code::BodyTooLarge, String::new()).code, Code::Overloaded);
        assert_eq!(refused.to_string(), "answers of all clients together hold 96 of 100 bytes, 5 more are too many");
        charges[4].grow(4).unwrap();
        assert_eq!(figures(&account), [100, 100, 100, 1, 1, 1]);
        drop(charges);
        assert_eq!(figures(&account), [0, 100, 100, 1, 1, 1]);
        assert!(shares.iter().all(|share| share.0.load(Relaxed) == 0));
    }

    #[test]
    fn absurd_sizes_do_not_wrap_around() {
        let (account, share) = (Account::new("answers", usize::MAX), Share::default());
        let mut charge = account.charge(&share);
        charge.grow(1).unwrap();
        assert_eq!(charge.grow(usize::MAX).unwrap_err().why, Why::TooLarge);
        assert_eq!(account.held(), 1);
    }
}

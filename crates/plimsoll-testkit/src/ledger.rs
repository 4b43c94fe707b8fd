//! Every call by its own id: settled once, run at most once.
//!
//! The caller's side issues and settles, the callee's side notes that it ran. At quiescence [`Ledger::balance`] compares.

use std::collections::BTreeMap;
use std::fmt;

use parking_lot::Mutex;

/// The two sides of every call.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: Mutex<Vec<Entry>>,
}

#[derive(Debug, Default)]
struct Entry {
    runs: u32,
    outcomes: Vec<String>,
}

/// The outcome word of a call that was answered by its service: such a call must have run exactly once.
pub const REPLY: &str = "reply";

/// What the calls of a ledger came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balance {
    /// Calls issued.
    pub issued: usize,
    /// Calls by outcome; the sum is `issued`.
    pub outcomes: BTreeMap<String, usize>,
}

/// Calls that break the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discrepancies(Vec<String>);

impl Ledger {
    /// Issues a call; its id belongs into the request.
    pub fn issue(&self) -> usize {
        let mut entries = self.entries.lock();
        entries.push(Entry::default());
        entries.len() - 1
    }

    /// Notes that the callee ran the call.
    pub fn ran(&self, id: usize) {
        if let Some(entry) = self.entries.lock().get_mut(id) {
            entry.runs += 1;
        }
    }

    /// Notes the outcome that the caller saw.
    pub fn settled(&self, id: usize, outcome: impl Into<String>) {
        if let Some(entry) = self.entries.lock().get_mut(id) {
            entry.outcomes.push(outcome.into());
        }
    }

    /// Compares both sides.
    ///
    /// # Errors
    /// [`Discrepancies`]: a call without an outcome, with two, run twice, or answered without having run exactly once.
    ///
    /// ```
    /// use plimsoll_testkit::ledger::{Ledger, REPLY};
    ///
    /// let ledger = Ledger::default();
    /// let id = ledger.issue();
    /// ledger.ran(id);
    /// ledger.settled(id, REPLY);
    /// assert_eq!(ledger.balance().unwrap().outcomes[REPLY], 1);
    /// ledger.settled(id, "timeout");
    /// assert!(ledger.balance().is_err());
    /// ```
    pub fn balance(&self) -> Result<Balance, Discrepancies> {
        let entries = self.entries.lock();
        let mut outcomes = BTreeMap::new();
        let mut wrong = Vec::new();
        for (id, entry) in entries.iter().enumerate() {
            match entry.outcomes.as_slice() {
                [] => wrong.push(format!("call {id} was never settled")),
                [outcome] => {
                    *outcomes.entry(outcome.clone()).or_default() += 1;
                    if outcome == REPLY && entry.runs != 1 {
                        wrong.push(format!("call {id} was answered and ran {} times", entry.runs));
                    }
                }
                several => wrong.push(format!("call {id} was settled {} times: {several:?}", several.len())),
            }
            if entry.runs > 1 {
                wrong.push(format!("call {id} ran {} times", entry.runs));
            }
        }
        if wrong.is_empty() { Ok(Balance { issued: entries.len(), outcomes }) } else { Err(Discrepancies(wrong)) }
    }
}

impl fmt::Display for Discrepancies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 10;
        write!(f, "{} discrepancies: {}", self.0.len(), self.0[..self.0.len().min(SHOWN)].join("; "))
    }
}

impl std::error::Error for Discrepancies {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_ran_twice_or_was_never_settled_is_named() {
        let ledger = Ledger::default();
        let (twice, lost) = (ledger.issue(), ledger.issue());
        ledger.ran(twice);
        ledger.ran(twice);
        ledger.settled(twice, "timeout");
        let text = ledger.balance().unwrap_err().to_string();
        assert!(text.contains(&format!("call {twice} ran 2 times")), "{text}");
        assert!(text.contains(&format!("call {lost} was never settled")), "{text}");
    }
}

//! The sums that hold at all times.
//!
//! A law is checked against the counters of one place in the tree, as the snapshot shows them. Call it at the end of every
//! test that could break it.

use std::collections::BTreeMap;
use std::fmt;

/// A sum: one counter equals the total of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Law {
    /// What the law is called in a failure.
    pub name: &'static str,
    /// The counter on the left.
    pub whole: &'static str,
    /// The counters on the right.
    pub parts: &'static [&'static str],
}

/// Every call is settled once or still in flight.
pub const CALLS: Law = Law { name: "calls", whole: "started", parts: &["settled", "in_flight"] };

/// Every connection attempt at the gateway is counted once.
pub const ADMISSION: Law = Law {
    name: "admission",
    whole: "offered",
    parts: &["served", "peers", "refused_with_reason", "refused_without_reason", "failed_handshakes", "pending"],
};

/// A law that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    law: Law,
    whole: Option<u64>,
    parts: Vec<(&'static str, Option<u64>)>,
}

impl Law {
    /// Checks the law.
    ///
    /// # Errors
    /// [`Violation`] with the figures, when the sum is wrong or a counter is missing: a law about nothing proves nothing.
    ///
    /// ```
    /// use std::collections::BTreeMap;
    /// use plimsoll_testkit::law;
    ///
    /// let counters = BTreeMap::from([("started".into(), 3), ("settled".into(), 2), ("in_flight".into(), 1)]);
    /// assert!(law::CALLS.check(&counters).is_ok());
    /// ```
    pub fn check(&self, counters: &BTreeMap<String, u64>) -> Result<(), Violation> {
        let whole = counters.get(self.whole).copied();
        let parts: Vec<_> = self.parts.iter().map(|&part| (part, counters.get(part).copied())).collect();
        let sum = parts.iter().try_fold(0_u64, |sum, (_, part)| sum.checked_add((*part)?));
        if whole.is_some() && whole == sum { Ok(()) } else { Err(Violation { law: *self, whole, parts }) }
    }

    /// Checks the law.
    ///
    /// # Panics
    /// With the figures, when it does not hold.
    #[track_caller]
    pub fn assert(&self, counters: &BTreeMap<String, u64>) {
        if let Err(violation) = self.check(counters) {
            panic!("{violation}");
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figure = |value: Option<u64>| value.map_or("missing".to_owned(), |value| value.to_string());
        write!(f, "the law of {}: {} ({}) is not", self.law.name, self.law.whole, figure(self.whole))?;
        for (index, (name, value)) in self.parts.iter().enumerate() {
            write!(f, "{} {name} ({})", if index == 0 { "" } else { " +" }, figure(*value))?;
        }
        Ok(())
    }
}

impl std::error::Error for Violation {}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(figures: &[(&str, u64)]) -> BTreeMap<String, u64> {
        figures.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    }

    #[test]
    fn a_lost_call_breaks_the_law() {
        let lost = counters(&[("started", 3), ("settled", 1), ("in_flight", 1)]);
        let violation = CALLS.check(&lost).unwrap_err();
        assert_eq!(violation.to_string(), "the law of calls: started (3) is not settled (1) + in_flight (1)");
    }

    #[test]
    fn a_missing_counter_breaks_the_law() {
        assert!(CALLS.check(&counters(&[("started", 0), ("settled", 0)])).is_err());
        assert!(CALLS.check(&counters(&[("settled", 0), ("in_flight", 0)])).is_err());
    }
}

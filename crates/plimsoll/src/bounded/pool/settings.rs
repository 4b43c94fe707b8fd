//! The settings of a pool.

use std::time::Duration;

use crate::bounded::Cap;

/// Whether a handle serves one user at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sharing {
    /// One lease at a time; further callers wait for a release if they asked to wait.
    Exclusive,
    /// Any number of leases at a time, as a QUIC connection supports. One handle per key.
    Shared,
}

/// The settings of a pool, each with its default.
///
/// ```
/// use plimsoll::bounded::{Cap, PoolSettings};
///
/// let settings = PoolSettings { cap: Cap::of::<100>(), ..PoolSettings::default() };
/// assert_eq!(settings.waiting.get(), 1_024);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSettings {
    /// The pool's name in the snapshot. Default `pool`.
    pub name: String,
    /// Handles open at once. Default 1,000.
    pub cap: Cap,
    /// Whether a handle serves one user at a time. Default [`Sharing::Shared`].
    pub sharing: Sharing,
    /// Handles of one key with [`Sharing::Exclusive`]; a shared handle is the only one of its key. Default 1.
    pub per_key: Cap,
    /// Callers that wait at once. Default 1,024.
    pub waiting: Cap,
    /// How long a handle stays unused before it is closed. Default 1 h.
    pub idle_time: Duration,
    /// How long no attempt is made for a key after its first failure; each further failure doubles it. Default 50 ms.
    pub retry_first: Duration,
    /// The longest that no attempt is made for a key. Default 30 s.
    pub retry_longest: Duration,
    /// How long making a handle may take ([`DialPool`](super::DialPool)). Default 5 s.
    pub connect_time: Duration,
    /// How long closing a handle may take before it counts as failed ([`DialPool`](super::DialPool)). Default 5 s.
    pub close_time: Duration,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            name: "pool".into(),
            cap: Cap::of::<1_000>(),
            sharing: Sharing::Shared,
            per_key: Cap::of::<1>(),
            waiting: Cap::of::<1_024>(),
            idle_time: Duration::from_secs(3600),
            retry_first: Duration::from_millis(50),
            retry_longest: Duration::from_secs(30),
            connect_time: Duration::from_secs(5),
            close_time: Duration::from_secs(5),
        }
    }
}

impl PoolSettings {
    /// How long no attempt is made for a key after `failures` failures in a row.
    pub(super) fn retry_after(&self, failures: u32) -> Duration {
        let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
        self.retry_first.saturating_mul(doubled).min(self.retry_longest)
    }

    /// Handles that one key may have.
    pub(super) fn handles_per_key(&self) -> usize {
        match self.sharing {
            Sharing::Exclusive => self.per_key.get(),
            Sharing::Shared => 1,
        }
    }
}

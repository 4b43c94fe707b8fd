//! The settings, refusals and events of a registry.

use std::time::Duration;

use crate::bounded::{Cap, Rate, events};

/// The settings of a [`TtlRegistry`](super::TtlRegistry), each with its default.
///
/// ```
/// use std::time::Duration;
/// use plimsoll::bounded::RegistrySettings;
///
/// assert_eq!(RegistrySettings::default().ttl, Duration::from_secs(300));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct RegistrySettings {
    /// The name in the snapshot. Default `registry`.
    pub name: String,
    /// Entries in total. Default 10,000.
    pub entries: Cap,
    /// Entries of one name. Default 1,000.
    pub per_name: Cap,
    /// Entries of one owner. Default 1,000.
    pub per_owner: Cap,
    /// Advertisements and renewals of one owner. Default 1,000 at once, then 10 a second: what 1,000 entries need that are
    /// renewed after each third of the default lease.
    pub owner_rate: Rate,
    /// The lease of an entry that is advertised without one. Default 300 s.
    pub ttl: Duration,
    /// The shortest lease. Default 1 s.
    pub shortest_ttl: Duration,
    /// The longest lease. Default 300 s.
    pub longest_ttl: Duration,
    /// The longest time between two sweeps. Default 60 s.
    pub sweep: Duration,
    /// The fraction by which the time between two sweeps is shortened at random, so that nodes do not sweep in step. Default
    /// 0.2.
    pub jitter: f64,
}

impl Default for RegistrySettings {
    fn default() -> Self {
        Self {
            name: "registry".into(),
            entries: Cap::of::<10_000>(),
            per_name: Cap::of::<1_000>(),
            per_owner: Cap::of::<1_000>(),
            owner_rate: Rate { per_second: Cap::of::<10>(), burst: Cap::of::<1_000>() },
            ttl: Duration::from_secs(300),
            shortest_ttl: Duration::from_secs(1),
            longest_ttl: Duration::from_secs(300),
            sweep: Duration::from_secs(60),
            jitter: 0.2,
        }
    }
}

/// Why an advertisement is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryRefusal {
    /// The registry is full.
    #[error("all {cap} entries of the registry are taken")]
    Full {
        /// The cap in force.
        cap: usize,
    },
    /// The name has as many providers as it may.
    #[error("the name has {cap} providers already")]
    NameFull {
        /// The cap in force.
        cap: usize,
    },
    /// The owner has as many entries as it may.
    #[error("the owner has {cap} entries already")]
    OwnerFull {
        /// The cap in force.
        cap: usize,
    },
    /// The owner advertises or renews too fast.
    #[error("too many advertisements by this owner; try again in {retry_after:?}")]
    RateLimited {
        /// When to try again.
        retry_after: Duration,
    },
    /// A lease that is too short or too long.
    #[error("a lease of {asked:?} is outside of {shortest:?} to {longest:?}")]
    InvalidTtl {
        /// The lease asked for.
        asked: Duration,
        /// The shortest lease.
        shortest: Duration,
        /// The longest lease.
        longest: Duration,
    },
}

events! {
    /// What a registry counts: `added = entries + withdrawn + owner_removed + expired`.
    pub enum RegistryEvent {
        /// Entries added.
        Added = "added",
        /// Renewals; one of all entries of an owner counts once.
        Refreshed = "refreshed",
        /// Entries withdrawn by their owner.
        Withdrawn = "withdrawn",
        /// Entries removed with their owner.
        OwnerRemoved = "owner_removed",
        /// Entries whose lease expired.
        Expired = "expired",
        /// Sweeps.
        Swept = "sweeps",
        /// [`RegistryRefusal::Full`].
        RefusedFull = "refused_full",
        /// [`RegistryRefusal::NameFull`].
        RefusedNameFull = "refused_name_full",
        /// [`RegistryRefusal::OwnerFull`].
        RefusedOwnerFull = "refused_owner_full",
        /// [`RegistryRefusal::RateLimited`].
        RefusedRate = "refused_rate",
        /// [`RegistryRefusal::InvalidTtl`].
        RefusedInvalidTtl = "refused_invalid_ttl",
    }
}

impl RegistryRefusal {
    pub(super) fn event(&self) -> RegistryEvent {
        match self {
            Self::Full { .. } => RegistryEvent::RefusedFull,
            Self::NameFull { .. } => RegistryEvent::RefusedNameFull,
            Self::OwnerFull { .. } => RegistryEvent::RefusedOwnerFull,
            Self::RateLimited { .. } => RegistryEvent::RefusedRate,
            Self::InvalidTtl { .. } => RegistryEvent::RefusedInvalidTtl,
        }
    }
}

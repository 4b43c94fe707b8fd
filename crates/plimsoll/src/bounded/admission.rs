//! Admission of clients, decided before a handshake and before memory is allocated for it.
//!
//! An attempt is admitted when the total number of clients, the number of its origin (the prefix of its address) and the
//! number of handshakes in progress are below their caps, and the total rate and the rate of its origin have a token left.
//! Of a refused attempt only its identity is remembered, among a fixed number of the latest: a client that repeats its
//! first packet gets the same refusal, and is counted once.

mod origin;
mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub use origin::Origin;

use self::table::{AdmissionTable, Admitted};
use super::{Cap, Compact, CompactPolicy, Compacted, Counters, Footprint, LogThrottle, Rate, events};
use crate::inspect::{Details, Inspect, Metric};

/// The settings of an [`Admission`], each with its default.
///
/// ```
/// use plimsoll::bounded::{AdmissionSettings, Cap};
///
/// let settings = AdmissionSettings { per_origin: Cap::of::<100>(), ..AdmissionSettings::default() };
/// assert_eq!(settings.clients.get(), 10_000);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmissionSettings {
    /// The name in the snapshot. Default `clients`.
    pub name: String,
    /// Clients at once, including those in their handshake. Default 10,000.
    pub clients: Cap,
    /// Clients of one origin at once. Default 10,000: as many as in total, so it limits only when it is set.
    pub per_origin: Cap,
    /// Clients in their handshake at once. Default 1,024.
    pub half_open: Cap,
    /// Admissions in total. Default 10,000 a second.
    pub rate: Rate,
    /// Admissions of one origin. Default 10,000 a second: as in total, so it limits only when it is set.
    pub origin_rate: Rate,
    /// Length of an origin's prefix for IPv4. Default 24 bits.
    pub ipv4_prefix: u8,
    /// Length of an origin's prefix for IPv6. Default 56 bits: the prefix of one site.
    pub ipv6_prefix: u8,
    /// Origins without a client whose rate is remembered. Default 4,096; the least recently used is forgotten first.
    pub origins: Cap,
    /// Refused attempts that are remembered, to recognise repeated ones. Default 16,384.
    pub remembered: Cap,
    /// After which time a client that was refused for a cap is to try again. Default 1 s.
    pub retry_after: Duration,
}

impl Default for AdmissionSettings {
    fn default() -> Self {
        Self {
            name: "clients".into(),
            clients: Cap::of::<10_000>(),
            per_origin: Cap::of::<10_000>(),
            half_open: Cap::of::<1_024>(),
            rate: Rate::per_second(Cap::of::<10_000>()),
            origin_rate: Rate::per_second(Cap::of::<10_000>()),
            ipv4_prefix: 24,
            ipv6_prefix: 56,
            origins: Cap::of::<4_096>(),
            remembered: Cap::of::<16_384>(),
            retry_after: Duration::from_secs(1),
        }
    }
}

/// Why an attempt is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdmissionRefusal {
    /// There are as many clients as may be.
    #[error("all {cap} places for clients are taken; try again in {retry_after:?}")]
    MaxClientsReached {
        /// The cap in force.
        cap: usize,
        /// When to try again.
        retry_after: Duration,
    },
    /// The origin has as many clients as it may.
    #[error("all {cap} places for clients of {origin} are taken; try again in {retry_after:?}")]
    OriginFull {
        /// The prefix.
        origin: Origin,
        /// The cap in force.
        cap: usize,
        /// When to try again.
        retry_after: Duration,
    },
    /// As many handshakes as may be are in progress.
    #[error("{cap} handshakes are in progress; try again in {retry_after:?}")]
    HalfOpen {
        /// The cap in force.
        cap: usize,
        /// When to try again.
        retry_after: Duration,
    },
    /// More attempts than the rate allows.
    #[error("too many attempts; try again in {retry_after:?}")]
    RateLimited {
        /// When there will be a token.
        retry_after: Duration,
    },
    /// More attempts from one origin than its rate allows.
    #[error("too many attempts from {origin}; try again in {retry_after:?}")]
    OriginRateLimited {
        /// The prefix.
        origin: Origin,
        /// When there will be a token.
        retry_after: Duration,
    },
    /// Admission is closed.
    #[error("no client is admitted any more")]
    ShuttingDown,
}

impl AdmissionRefusal {
    /// The error code on the wire.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::MaxClientsReached { .. } | Self::OriginFull { .. } => "max_clients_reached",
            Self::HalfOpen { .. } => "overloaded",
            Self::RateLimited { .. } | Self::OriginRateLimited { .. } => "rate_limited",
            Self::ShuttingDown => "shutting_down",
        }
    }

    /// When to try again; `None` when it will not help.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::MaxClientsReached { retry_after, .. }
            | Self::OriginFull { retry_after, .. }
            | Self::HalfOpen { retry_after, .. }
            | Self::RateLimited { retry_after }
            | Self::OriginRateLimited { retry_after, .. } => Some(*retry_after),
            Self::ShuttingDown => None,
        }
    }
}

events! {
    /// What an admission counts: `offered = admitted + refused` and `admitted = clients + left + failed handshakes`.
    pub enum AdmissionEvent {
        /// Attempts, each once.
        Offered = "offered",
        /// First packets of attempts that were refused before; not counted as offered.
        Repeated = "repeated",
        /// Attempts that were admitted.
        Admitted = "admitted",
        /// Admitted clients whose handshake was completed.
        Established = "established",
        /// Admitted clients that left before their handshake was completed.
        FailedHandshake = "failed_handshakes",
        /// Clients that left after their handshake.
        Left = "left",
        /// [`AdmissionRefusal::MaxClientsReached`].
        RefusedMaxClients = "refused_max_clients",
        /// [`AdmissionRefusal::OriginFull`].
        RefusedOriginFull = "refused_origin_full",
        /// [`AdmissionRefusal::HalfOpen`].
        RefusedHalfOpen = "refused_half_open",
        /// [`AdmissionRefusal::RateLimited`].
        RefusedRate = "refused_rate",
        /// [`AdmissionRefusal::OriginRateLimited`].
        RefusedOriginRate = "refused_origin_rate",
        /// [`AdmissionRefusal::ShuttingDown`].
        RefusedShuttingDown = "refused_shutting_down",
    }
}

/// A refusal, and whether the same attempt was refused before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{refusal}")]
pub struct Refused {
    /// Why.
    pub refusal: AdmissionRefusal,
    /// The attempt was refused before and is not counted again; the refusal is the same.
    pub repeated: bool,
}

/// Decides which clients are admitted. Cloning shares it; `A` identifies an attempt, for QUIC the sender's address with the
/// connection id that it chose.
///
/// An attempt takes one short critical section, at a cost that does not depend on the number of clients.
///
/// ```
/// use std::time::Instant;
/// use plimsoll::bounded::{Admission, AdmissionSettings, Cap};
///
/// let settings = AdmissionSettings { clients: Cap::of::<1>(), ..AdmissionSettings::default() };
/// let admission = Admission::<&str>::new(settings);
/// let address = "192.0.2.7".parse().unwrap();
/// let mut permit = admission.admit(address, Some("first"), Instant::now()).unwrap();
/// permit.establish();
/// let refused = admission.admit(address, Some("second"), Instant::now()).unwrap_err();
/// assert_eq!(refused.refusal.code(), "max_clients_reached");
/// drop(permit);
/// assert!(admission.admit(address, Some("third"), Instant::now()).is_ok());
/// ```
pub struct Admission<A> {
    inner: Arc<AdmissionInner<A>>,
}

struct AdmissionInner<A> {
    table: Mutex<AdmissionTable<A>>,
    refusals: Mutex<LogThrottle>,
    counters: Counters<AdmissionEvent>,
}

impl<A: Eq + Hash + Clone> Admission<A> {
    /// An open admission.
    pub fn new(settings: AdmissionSettings) -> Self {
        let table = AdmissionTable::new(settings);
        let counters = table.counters().clone();
        // Refusals are logged here, with the origin.
        counters.disable_refusal_log();
        Self { inner: Arc::new(AdmissionInner { table: Mutex::new(table), refusals: Mutex::default(), counters }) }
    }

    /// Admits an attempt from `address`, or refuses it. An attempt without an identity is always a new one, as a TCP
    /// connection is.
    ///
    /// # Errors
    /// [`Refused`]. The first refusal is logged as a warning, then one in ten seconds with the number suppressed.
    pub fn admit(&self, address: IpAddr, attempt: Option<A>, now: Instant) -> Result<Permit<A>, Refused> {
        let decided = self.inner.table.lock().admit(address, attempt, now);
        match decided {
            Ok(admitted) => Ok(Permit { inner: self.inner.clone(), admitted: Some(admitted) }),
            Err(refused) => {
                let log = if refused.repeated { None } else { self.inner.refusals.lock().record(now) };
                if let Some(suppressed) = log {
                    let name = self.inner.counters.name();
                    tracing::warn!(target: "plimsoll::bounded", name, suppressed, "refused: {refused}");
                }
                Err(refused)
            }
        }
    }

    /// Refuses all further attempts. Permits stay valid.
    pub fn close(&self) {
        self.inner.table.lock().set_open(false);
    }

    /// Admits attempts again.
    pub fn open(&self) {
        self.inner.table.lock().set_open(true);
    }

    /// Changes the cap on clients. Clients over a lowered cap stay; no further one is admitted meanwhile.
    pub fn set_clients(&self, cap: Cap) {
        self.inner.table.lock().set_clients(cap);
    }

    /// Clients, including those in their handshake.
    pub fn clients(&self) -> usize {
        self.inner.table.lock().clients()
    }

    /// Clients in their handshake.
    pub fn half_open(&self) -> usize {
        self.inner.table.lock().half_open()
    }

    /// The counters.
    pub fn counters(&self) -> &Counters<AdmissionEvent> {
        &self.inner.counters
    }
}

/// An admitted client, which leaves when this is dropped. It is in its handshake until [`Permit::establish`].
#[must_use = "the client leaves when this is dropped"]
pub struct Permit<A: Eq + Hash + Clone> {
    inner: Arc<AdmissionInner<A>>,
    admitted: Option<Admitted>,
}

impl<A: Eq + Hash + Clone> Permit<A> {
    /// The handshake is completed. Only the first call counts.
    pub fn establish(&mut self) {
        if let Some(admitted) = &mut self.admitted {
            self.inner.table.lock().establish(admitted);
        }
    }
}

impl<A: Eq + Hash + Clone> Drop for Permit<A> {
    fn drop(&mut self) {
        if let Some(admitted) = self.admitted.take() {
            self.inner.table.lock().release(admitted);
        }
    }
}

impl<A: Eq + Hash + Clone> fmt::Debug for Permit<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("admitted", &self.admitted).finish_non_exhaustive()
    }
}

impl<A> Clone for Admission<A> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<A> fmt::Debug for Admission<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").field("counters", &self.inner.counters).finish_non_exhaustive()
    }
}

impl<A: Eq + Hash + Clone + Send + 'static> Inspect for Admission<A> {
    fn inspect(&self) -> Details {
        let mut details = self.inner.counters.inspect();
        let table = self.inner.table.lock();
        let name = self.inner.counters.name();
        details.counters.insert(format!("{name}_half_open"), Metric::gauge(table.half_open() as u64));
        details.counters.insert(format!("{name}_origins"), Metric::gauge(table.origins() as u64));
        details
    }
}

impl<A: Eq + Hash + Clone> Compact for Admission<A> {
    fn footprint(&self) -> Footprint {
        self.inner.table.lock().footprint()
    }

    fn compact(&mut self, policy: &CompactPolicy) -> Compacted {
        self.inner.table.lock().compact(policy)
    }
}

//! Who may come in: decided before a handshake, and before memory is set aside for it.
//!
//! An attempt is admitted when there is a place in all, a place for its origin (the address prefix it comes from), room
//! for one more handshake, and a token left of the rate of all and of that of its origin. Nothing is kept of an attempt
//! that is refused but the attempt itself, among a fixed number of the last ones: a client that repeats its first packet
//! gets the same answer again, and is counted once.

mod origin;
mod rate;
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
pub(crate) use rate::Bucket;
pub use rate::Rate;

use self::table::{Table, Ticket};
use super::log_throttle::LogThrottle;
use super::{Cap, Compact, CompactPolicy, Compacted, Counters, Footprint, events};
use crate::inspect::{Details, Inspect};

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
    /// Clients at once, those in their handshake included. Default 10,000.
    pub clients: Cap,
    /// Clients of one origin at once. Default 10,000: as many as there are places, so tighter only when set.
    pub per_origin: Cap,
    /// Clients in their handshake at once. Default 1,024.
    pub half_open: Cap,
    /// Admissions in all. Default 10,000 a second.
    pub rate: Rate,
    /// Admissions of one origin. Default 10,000 a second: as in all, so tighter only when set.
    pub origin_rate: Rate,
    /// Length of an origin's prefix for IPv4. Default 24 bits.
    pub ipv4_prefix: u8,
    /// Length of an origin's prefix for IPv6. Default 56 bits: what one site is given.
    pub ipv6_prefix: u8,
    /// Origins without a client whose rate is remembered. Default 4,096; those quiet for longest are forgotten first.
    pub origins: Cap,
    /// Refused attempts that are remembered, to know them again. Default 16,384.
    pub remembered: Cap,
    /// What a client that finds no place is told to wait. Default 1 s.
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
    /// All places are taken.
    #[error("all {cap} places for clients are taken; try again in {retry_after:?}")]
    MaxClientsReached {
        /// The cap in force.
        cap: usize,
        /// When to try again.
        retry_after: Duration,
    },
    /// All places of the origin are taken.
    #[error("all {cap} places for clients of {origin} are taken; try again in {retry_after:?}")]
    OriginFull {
        /// The prefix.
        origin: Origin,
        /// The cap in force.
        cap: usize,
        /// When to try again.
        retry_after: Duration,
    },
    /// As many handshakes as may be are under way.
    #[error("{cap} handshakes are under way; try again in {retry_after:?}")]
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
    /// Nobody is admitted any more.
    #[error("nobody is admitted any more")]
    ShuttingDown,
}

impl AdmissionRefusal {
    /// The word for it on the wire.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::MaxClientsReached { .. } | Self::OriginFull { .. } => "max_clients_reached",
            Self::HalfOpen { .. } => "overloaded",
            Self::RateLimited { .. } | Self::OriginRateLimited { .. } => "rate_limited",
            Self::ShuttingDown => "shutting_down",
        }
    }

    /// When to try again, if it is worth it.
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
    /// What an admission counts: `offered = admitted + refused`, and `admitted = in place + established and gone +
    /// failed handshakes`.
    pub enum AdmissionEvent {
        /// Attempts, each once.
        Offered = "offered",
        /// First packets of attempts that were refused before; not counted as offered.
        Repeated = "repeated",
        /// Permits given.
        Admitted = "admitted",
        /// Permits whose handshake was completed.
        Established = "established",
        /// Permits that came back before their handshake was completed.
        FailedHandshake = "failed_handshakes",
        /// Permits that came back afterwards.
        Gone = "gone",
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

/// A refusal, and whether this very attempt was refused before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{refusal}")]
pub struct Refused {
    /// Why.
    pub refusal: AdmissionRefusal,
    /// The attempt was refused before and is not counted again; the answer is the same as then.
    pub repeated: bool,
}

/// Decides who may come in. Cloning shares it; `A` is how an attempt is known again, for QUIC the sender's address with the
/// connection id that it chose.
///
/// One short critical section an attempt, of a cost that does not depend on how many clients there are.
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
    shared: Arc<Shared<A>>,
}

struct Shared<A> {
    table: Mutex<Table<A>>,
    refusals: Mutex<LogThrottle>,
    counters: Counters<AdmissionEvent>,
}

impl<A: Eq + Hash + Clone> Admission<A> {
    /// An admission that admits.
    pub fn new(settings: AdmissionSettings) -> Self {
        let table = Table::new(settings);
        let counters = table.counters().clone();
        // The refusals are told here, with the origin.
        counters.disable_refusal_log();
        Self { shared: Arc::new(Shared { table: Mutex::new(table), refusals: Mutex::default(), counters }) }
    }

    /// Admits an attempt from `address`, or says why not. An attempt without an identity is always a new one, as a TCP
    /// connection is.
    ///
    /// # Errors
    /// [`Refused`]. The first refusal is logged as a warning, and then one in ten seconds with the number of those between.
    pub fn admit(&self, address: IpAddr, attempt: Option<A>, now: Instant) -> Result<Permit<A>, Refused> {
        let decided = self.shared.table.lock().admit(address, attempt, now);
        match decided {
            Ok(ticket) => Ok(Permit { shared: self.shared.clone(), ticket: Some(ticket) }),
            Err(refused) => {
                let edge = if refused.repeated { None } else { self.shared.refusals.lock().record(now) };
                if let Some(suppressed) = edge {
                    let name = self.shared.counters.name();
                    tracing::warn!(target: "plimsoll::bounded", name, suppressed, "refused: {refused}");
                }
                Err(refused)
            }
        }
    }

    /// Admits nobody any more. Permits stay valid.
    pub fn shut(&self) {
        self.shared.table.lock().set_open(false);
    }

    /// Admits again.
    pub fn open(&self) {
        self.shared.table.lock().set_open(true);
    }

    /// Changes the cap on clients. Those over a lowered one stay; nobody new is admitted meanwhile.
    pub fn set_clients(&self, cap: Cap) {
        self.shared.table.lock().set_clients(cap);
    }

    /// Clients in place, those in their handshake included.
    pub fn clients(&self) -> usize {
        self.shared.table.lock().clients()
    }

    /// Clients in their handshake.
    pub fn half_open(&self) -> usize {
        self.shared.table.lock().half_open()
    }

    /// The counters.
    pub fn counters(&self) -> &Counters<AdmissionEvent> {
        &self.shared.counters
    }
}

/// A place, given back by dropping it. It covers the handshake until [`Permit::establish`].
#[must_use = "the place is given back when this is dropped"]
pub struct Permit<A: Eq + Hash + Clone> {
    shared: Arc<Shared<A>>,
    ticket: Option<Ticket>,
}

impl<A: Eq + Hash + Clone> Permit<A> {
    /// The handshake is completed. Only the first call counts.
    pub fn establish(&mut self) {
        if let Some(ticket) = &mut self.ticket {
            self.shared.table.lock().establish(ticket);
        }
    }
}

impl<A: Eq + Hash + Clone> Drop for Permit<A> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.shared.table.lock().release(ticket);
        }
    }
}

impl<A: Eq + Hash + Clone> fmt::Debug for Permit<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}

impl<A> Clone for Admission<A> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<A> fmt::Debug for Admission<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").field("counters", &self.shared.counters).finish_non_exhaustive()
    }
}

impl<A: Eq + Hash + Clone + Send + 'static> Inspect for Admission<A> {
    fn inspect(&self) -> Details {
        let mut details = self.shared.counters.inspect();
        let table = self.shared.table.lock();
        let name = self.shared.counters.name();
        details.counters.insert(format!("{name}_half_open"), table.half_open() as u64);
        details.counters.insert(format!("{name}_origins"), table.origins() as u64);
        details
    }
}

impl<A: Eq + Hash + Clone> Compact for Admission<A> {
    fn footprint(&self) -> Footprint {
        self.shared.table.lock().footprint()
    }

    fn compact(&mut self, policy: &CompactPolicy) -> Compacted {
        self.shared.table.lock().compact(policy)
    }
}

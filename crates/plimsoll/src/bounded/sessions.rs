//! Clients with everything that belongs to them, as one structure.
//!
//! A stream, a subscription or an advertisement is attached to a session and is there as long as the session is, unless it
//! is detached before. [`Sessions::remove`] takes out a client with all of it and hands it over; it may be called by
//! whoever notices first that a client is gone, in any order and any number of times, as its key stands for this session
//! and never for a later one of the same client.

mod table;
#[cfg(test)]
mod tests;

pub use table::{ResourceKey, SessionKey, Sessions};

use std::fmt;

use super::{Cap, Counters, events};
use crate::inspect::{Details, Inspect};

/// What can belong to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ResourceKind {
    /// A stream with a request or a call on it.
    Stream,
    /// A subscription.
    Subscription,
    /// A name that the client advertises.
    Advertisement,
}

impl ResourceKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Stream, Self::Subscription, Self::Advertisement];

    const fn plural(self) -> &'static str {
        match self {
            Self::Stream => "streams",
            Self::Subscription => "subscriptions",
            Self::Advertisement => "advertisements",
        }
    }
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.plural())
    }
}

/// How much of one kind there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourceCaps {
    /// Of all clients.
    pub total: Cap,
    /// Of one client.
    pub per_client: Cap,
}

/// The settings of [`Sessions`], each with its default.
///
/// ```
/// use plimsoll::bounded::SessionSettings;
///
/// assert_eq!(SessionSettings::default().streams.per_client.get(), 64);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSettings {
    /// Clients at once. Default 10,000.
    pub clients: Cap,
    /// Streams. Default 64 a client, as its connection is allowed, and 100,000 in all.
    pub streams: ResourceCaps,
    /// Subscriptions. Default 64 a client, as each holds a stream, and 10,000 in all.
    pub subscriptions: ResourceCaps,
    /// Advertisements. Default 1,000 a client and 10,000 in all.
    pub advertisements: ResourceCaps,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            clients: Cap::of::<10_000>(),
            streams: ResourceCaps { total: Cap::of::<100_000>(), per_client: Cap::of::<64>() },
            subscriptions: ResourceCaps { total: Cap::of::<10_000>(), per_client: Cap::of::<64>() },
            advertisements: ResourceCaps { total: Cap::of::<10_000>(), per_client: Cap::of::<1_000>() },
        }
    }
}

impl SessionSettings {
    fn caps(&self, kind: ResourceKind) -> ResourceCaps {
        match kind {
            ResourceKind::Stream => self.streams,
            ResourceKind::Subscription => self.subscriptions,
            ResourceKind::Advertisement => self.advertisements,
        }
    }
}

/// Why a client or something of it is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionRefusal {
    /// There are as many clients as may be.
    #[error("there are {cap} clients already")]
    MaxClientsReached {
        /// The cap in force.
        cap: usize,
    },
    /// There is as much of this kind as may be.
    #[error("there are {cap} {kind} already")]
    Full {
        /// Of what.
        kind: ResourceKind,
        /// The cap in force.
        cap: usize,
    },
    /// The client has as much of this kind as it may.
    #[error("the client has {cap} {kind} already")]
    ClientFull {
        /// Of what.
        kind: ResourceKind,
        /// The cap in force.
        cap: usize,
    },
    /// The session has ended.
    #[error("the session has ended")]
    Ended,
}

/// A client that was taken out, with everything that belonged to it: whoever took it out ends that.
#[derive(Debug, PartialEq, Eq)]
pub struct Removed<K, C, R> {
    /// Which session it was.
    pub session: SessionKey,
    /// Who it was.
    pub id: K,
    /// What was kept about it.
    pub client: C,
    /// What belonged to it, in the order in which it was attached.
    pub resources: Vec<(ResourceKind, R)>,
}

events! {
    /// What sessions count: `connected = clients + removed`.
    pub enum SessionEvent {
        /// Sessions that began.
        Connected = "connected",
        /// Of these, those that took the place of an earlier one of the same client.
        Replaced = "replaced",
        /// Sessions that were taken out.
        Removed = "removed",
        /// Removals of sessions that were gone already.
        Stale = "stale_removals",
        /// [`SessionRefusal::MaxClientsReached`].
        RefusedMaxClients = "refused_max_clients",
    }
}

events! {
    /// What each kind of resource counts: `attached = in place + detached + removed`.
    pub enum ResourceEvent {
        /// Those that were attached.
        Attached = "attached",
        /// Those that were detached by themselves.
        Detached = "detached",
        /// Those that went with their client.
        Removed = "removed",
        /// [`SessionRefusal::Full`].
        RefusedFull = "refused_full",
        /// [`SessionRefusal::ClientFull`].
        RefusedClientFull = "refused_client_full",
        /// [`SessionRefusal::Ended`].
        RefusedEnded = "refused_ended",
    }
}

/// The counters of [`Sessions`]: of the clients, and of each kind of resource. Cloning shares them.
#[derive(Debug, Clone)]
pub struct SessionCounters {
    /// Of the clients.
    pub clients: Counters<SessionEvent>,
    kinds: [Counters<ResourceEvent>; 3],
}

impl SessionCounters {
    fn new(settings: &SessionSettings) -> Self {
        let kinds = ResourceKind::ALL
            .map(|kind| Counters::new(&format!("sessions_{}", kind.plural()), settings.caps(kind).total));
        Self { clients: Counters::new("sessions", settings.clients), kinds }
    }

    /// Of one kind of resource.
    pub fn of(&self, kind: ResourceKind) -> &Counters<ResourceEvent> {
        &self.kinds[kind as usize]
    }
}

impl Inspect for SessionCounters {
    fn inspect(&self) -> Details {
        let mut details = self.clients.inspect();
        self.kinds.iter().for_each(|kind| kind.add_to(&mut details));
        details
    }
}

//! Clients with all their resources, in one structure.
//!
//! A stream, a subscription or an advertisement is attached to a session and exists as long as the session, unless it is
//! detached before. [`Sessions::remove`] removes a client with all its resources and returns them. Several tasks may call
//! it, in any order and any number of times, when a client disconnects: a key identifies one session and never a later one
//! of the same client.

mod table;
#[cfg(test)]
mod tests;

pub use table::{ResourceKey, SessionKey, Sessions};

use std::fmt;

use super::{Cap, Counters, events};
use crate::inspect::{Details, Inspect};

/// A kind of resource of a client.
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

/// The caps on one kind of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourceCaps {
    /// Of all clients together.
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
    /// Streams. Default 64 a client, the limit of its connection, and 100,000 in total.
    pub streams: ResourceCaps,
    /// Subscriptions. Default 64 a client, as each uses a stream, and 10,000 in total.
    pub subscriptions: ResourceCaps,
    /// Advertisements. Default 1,000 a client and 10,000 in total.
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

/// Why a client or a resource is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionRefusal {
    /// There are as many clients as may be.
    #[error("there are {cap} clients already")]
    MaxClientsReached {
        /// The cap in force.
        cap: usize,
    },
    /// There are as many resources of this kind as may be.
    #[error("there are {cap} {kind} already")]
    Full {
        /// The kind.
        kind: ResourceKind,
        /// The cap in force.
        cap: usize,
    },
    /// The client has as many resources of this kind as it may.
    #[error("the client has {cap} {kind} already")]
    ClientFull {
        /// The kind.
        kind: ResourceKind,
        /// The cap in force.
        cap: usize,
    },
    /// The session has ended.
    #[error("the session has ended")]
    Ended,
}

/// A client that was removed, with its resources, which the caller has to end.
#[derive(Debug, PartialEq, Eq)]
pub struct Removed<K, C, R> {
    /// The session.
    pub session: SessionKey,
    /// The client's identity.
    pub id: K,
    /// The client's data.
    pub client: C,
    /// Its resources, in the order in which they were attached.
    pub resources: Vec<(ResourceKind, R)>,
}

events! {
    /// What sessions count: `connected = clients + removed`.
    pub enum SessionEvent {
        /// Sessions that began.
        Connected = "connected",
        /// Of these, those that replaced an earlier one of the same client.
        Replaced = "replaced",
        /// Sessions that were removed.
        Removed = "removed",
        /// Removals of sessions that had been removed before.
        Stale = "stale_removals",
        /// [`SessionRefusal::MaxClientsReached`].
        RefusedMaxClients = "refused_max_clients",
    }
}

events! {
    /// What each kind of resource counts: `attached = in use + detached + removed`.
    pub enum ResourceEvent {
        /// Resources that were attached.
        Attached = "attached",
        /// Resources that were detached one by one.
        Detached = "detached",
        /// Resources that were removed with their client.
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

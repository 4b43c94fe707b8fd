//! The table of clients and their resources.

use std::collections::HashMap;
use std::hash::Hash;

use plimsoll_sync::slots::{SlotKey, Slots};

use super::{Removed, ResourceEvent, ResourceKind, SessionCounters, SessionEvent, SessionRefusal, SessionSettings};
use crate::bounded::linked_list::{Links, List, linked, visits};
use crate::bounded::{Cap, Compact, CompactPolicy, Compacted, Footprint};

/// Identifies one session of one client; never a later one of the same client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey(SlotKey);

/// Identifies one resource of one session; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceKey(SlotKey);

/// At most [`SessionSettings::clients`] clients with their resources. See the [module](super) for how it works.
///
/// `K` is the identity of a client, `C` its data, `R` a resource (a task's abort handle, a topic, a name). Connecting,
/// attaching and detaching are O(1), a removal is O(resources of the client).
///
/// ```
/// use plimsoll::bounded::{ResourceKind, SessionSettings, Sessions};
///
/// let mut sessions = Sessions::new(SessionSettings::default());
/// let (old, _) = sessions.connect("client", "first connection").unwrap();
/// sessions.attach(old, ResourceKind::Stream, 4).unwrap();
/// // The client reconnects before the end of its first connection is noticed.
/// let (new, replaced) = sessions.connect("client", "second connection").unwrap();
/// assert_eq!(replaced.unwrap().resources, [(ResourceKind::Stream, 4)]);
/// assert!(sessions.remove(old).is_none());
/// assert_eq!(sessions.client(new), Some((&"client", &"second connection")));
/// ```
#[derive(Debug)]
pub struct Sessions<K, C, R> {
    settings: SessionSettings,
    clients: Slots<Client<K, C>>,
    index: HashMap<K, SlotKey>,
    resources: Slots<Resource<R>>,
    /// Resources by kind.
    totals: [usize; 3],
    counters: SessionCounters,
}

#[derive(Debug)]
struct Client<K, C> {
    id: K,
    client: C,
    resources: List<0>,
    by_kind: [u32; 3],
}

#[derive(Debug)]
struct Resource<R> {
    session: SlotKey,
    kind: ResourceKind,
    resource: R,
    links: Links,
}

linked!([R] Resource<R>, 0, links);

impl<K: Eq + Hash + Clone, C, R> Sessions<K, C, R> {
    /// Without clients. Allocates nothing yet.
    pub fn new(settings: SessionSettings) -> Self {
        let resources: u64 = ResourceKind::ALL.iter().map(|kind| settings.caps(*kind).total.get() as u64).sum();
        Self {
            clients: Slots::with_limit(settings.clients.slots()),
            index: HashMap::new(),
            resources: Slots::with_limit(u32::try_from(resources).unwrap_or(u32::MAX - 1)),
            totals: [0; 3],
            counters: SessionCounters::new(&settings),
            settings,
        }
    }

    /// Starts a session of the client `id`. An earlier one of the same client is removed and returned with its resources.
    ///
    /// # Errors
    /// [`SessionRefusal::MaxClientsReached`]; nothing is changed.
    #[expect(clippy::type_complexity, reason = "the new session and the one it replaced, in one step")]
    pub fn connect(&mut self, id: K, client: C) -> Result<(SessionKey, Option<Removed<K, C, R>>), SessionRefusal> {
        visits::count();
        let earlier = self.index.get(&id).map(|key| SessionKey(*key));
        let cap = self.settings.clients.get();
        if earlier.is_none() && self.clients.len() >= cap {
            self.counters.clients.count_by_owner(SessionEvent::RefusedMaxClients);
            return Err(SessionRefusal::MaxClientsReached { cap });
        }
        let replaced = earlier.and_then(|earlier| self.remove(earlier));
        if replaced.is_some() {
            self.counters.clients.count_by_owner(SessionEvent::Replaced);
        }
        let row = Client { id: id.clone(), client, resources: List::default(), by_kind: [0; 3] };
        let Ok(key) = self.clients.insert(row) else { return Err(SessionRefusal::MaxClientsReached { cap }) };
        self.index.insert(id, key);
        self.counters.clients.count_by_owner(SessionEvent::Connected);
        self.counters.clients.entries().set(self.clients.len() as u64);
        Ok((SessionKey(key), replaced))
    }

    /// Attaches `resource` to the session.
    ///
    /// # Errors
    /// [`SessionRefusal`], with the resource: the session has ended, or there are too many of its kind.
    pub fn attach(
        &mut self,
        session: SessionKey,
        kind: ResourceKind,
        resource: R,
    ) -> Result<ResourceKey, (SessionRefusal, R)> {
        visits::count();
        let (counters, caps) = (self.counters.of(kind), self.settings.caps(kind));
        let Some(client) = self.clients.get_mut(session.0) else {
            counters.count_by_owner(ResourceEvent::RefusedEnded);
            return Err((SessionRefusal::Ended, resource));
        };
        let of_kind = kind as usize;
        if client.by_kind[of_kind] as usize >= caps.per_client.get() {
            counters.count_by_owner(ResourceEvent::RefusedClientFull);
            return Err((SessionRefusal::ClientFull { kind, cap: caps.per_client.get() }, resource));
        }
        let full = SessionRefusal::Full { kind, cap: caps.total.get() };
        if self.totals[of_kind] >= caps.total.get() {
            counters.count_by_owner(ResourceEvent::RefusedFull);
            return Err((full, resource));
        }
        let row = Resource { session: session.0, kind, resource, links: Links::default() };
        let key = self.resources.insert(row).map_err(|row| (full, row.0.resource))?;
        client.resources.push_back(&mut self.resources, key.index());
        client.by_kind[of_kind] += 1;
        self.totals[of_kind] += 1;
        counters.count_by_owner(ResourceEvent::Attached);
        counters.entries().set(self.totals[of_kind] as u64);
        Ok(ResourceKey(key))
    }

    /// Detaches a resource from its session, if it is still attached.
    pub fn detach(&mut self, resource: ResourceKey) -> Option<R> {
        visits::count();
        let row = self.resources.get(resource.0)?;
        let (session, kind) = (row.session, row.kind);
        let client = self.clients.get_mut(session)?;
        client.resources.unlink(&mut self.resources, resource.0.index());
        client.by_kind[kind as usize] -= 1;
        let row = self.resources.remove(resource.0)?;
        self.count_out(kind, ResourceEvent::Detached);
        Some(row.resource)
    }

    /// Ends a session: removes the client with all its resources. `None` when it has ended before; a later session of the same
    /// client is never meant.
    pub fn remove(&mut self, session: SessionKey) -> Option<Removed<K, C, R>> {
        visits::count();
        let Some(mut client) = self.clients.remove(session.0) else {
            self.counters.clients.count_by_owner(SessionEvent::Stale);
            return None;
        };
        let mut resources = Vec::with_capacity(client.resources.len());
        while let Some(index) = client.resources.pop_front(&mut self.resources) {
            let Some((key, _)) = self.resources.at(index) else { break };
            let Some(row) = self.resources.remove(key) else { break };
            self.count_out(row.kind, ResourceEvent::Removed);
            resources.push((row.kind, row.resource));
        }
        // INVARIANT: the index has the latest session of a client; an earlier one is removed before that starts.
        self.index.remove(&client.id);
        self.counters.clients.count_by_owner(SessionEvent::Removed);
        self.counters.clients.entries().set(self.clients.len() as u64);
        Some(Removed { session, id: client.id, client: client.client, resources })
    }

    fn count_out(&mut self, kind: ResourceKind, event: ResourceEvent) {
        self.totals[kind as usize] -= 1;
        let counters = self.counters.of(kind);
        counters.count_by_owner(event);
        counters.entries().set(self.totals[kind as usize] as u64);
    }

    /// The session of a client, if it has one.
    pub fn find(&self, id: &K) -> Option<SessionKey> {
        self.index.get(id).map(|key| SessionKey(*key))
    }

    /// The identity and data of a client, while its session exists.
    pub fn client(&self, session: SessionKey) -> Option<(&K, &C)> {
        self.clients.get(session.0).map(|row| (&row.id, &row.client))
    }

    /// The data of a client, while its session exists.
    pub fn client_mut(&mut self, session: SessionKey) -> Option<&mut C> {
        self.clients.get_mut(session.0).map(|row| &mut row.client)
    }

    /// A resource, while it is attached.
    pub fn resource(&self, resource: ResourceKey) -> Option<&R> {
        self.resources.get(resource.0).map(|row| &row.resource)
    }

    /// The resources of a session, in the order in which they were attached. O(those).
    pub fn resources(&self, session: SessionKey) -> impl Iterator<Item = (ResourceKey, ResourceKind, &R)> {
        let first = self.clients.get(session.0).and_then(|client| client.resources.front());
        let indexes = std::iter::successors(first, |index| List::<0>::next(&self.resources, *index));
        indexes.filter_map(|index| {
            let (key, row) = self.resources.at(index)?;
            Some((ResourceKey(key), row.kind, &row.resource))
        })
    }

    /// All sessions. O(clients).
    pub fn iter(&self) -> impl Iterator<Item = (SessionKey, &K, &C)> {
        self.clients.iter().map(|(key, row)| (SessionKey(key), &row.id, &row.client))
    }

    /// The number of clients.
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether there is no client.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// The number of resources of one kind.
    pub fn count(&self, kind: ResourceKind) -> usize {
        self.totals[kind as usize]
    }

    /// Changes the cap on clients. Clients over a lowered cap stay; no further one is admitted meanwhile.
    pub fn set_clients(&mut self, cap: Cap) {
        self.settings.clients = cap;
        // A client that reconnects replaces its earlier session, also over a lowered cap.
        self.clients.set_limit(self.clients.limit().max(cap.slots()));
        self.counters.clients.entries().set_cap(cap.get() as u64);
    }

    /// The counters.
    pub fn counters(&self) -> &SessionCounters {
        &self.counters
    }

    /// Index = clients; resources = those of the clients; totals by kind = those; the counters add up.
    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        assert_eq!(self.index.len(), self.clients.len());
        for (id, key) in &self.index {
            assert!(self.clients.get(*key).is_some_and(|client| client.id == *id));
        }
        let mut held = 0;
        let mut totals = [0; 3];
        for (key, client) in self.clients.iter() {
            for index in client.resources.iter(&self.resources) {
                assert_eq!(self.resources.at(index).map(|(_, row)| row.session), Some(key));
                held += 1;
            }
            (0..3).for_each(|kind| totals[kind] += client.by_kind[kind] as usize);
        }
        assert_eq!(held, self.resources.len());
        assert_eq!(totals, self.totals);
        assert_eq!(totals.iter().sum::<usize>(), held);
        let clients = |event| self.counters.clients.counted(event);
        assert_eq!(clients(SessionEvent::Connected), self.len() as u64 + clients(SessionEvent::Removed));
        for kind in ResourceKind::ALL {
            let counters = self.counters.of(kind);
            let out = counters.counted(ResourceEvent::Detached) + counters.counted(ResourceEvent::Removed);
            assert_eq!(counters.counted(ResourceEvent::Attached), self.count(kind) as u64 + out);
            assert_eq!(counters.entries().read().used, self.count(kind) as u64);
        }
    }
}

impl<K: Eq + Hash, C, R> Compact for Sessions<K, C, R> {
    fn footprint(&self) -> Footprint {
        self.clients.footprint().plus(self.index.footprint()).plus(self.resources.footprint())
    }

    fn compact(&mut self, policy: &CompactPolicy) -> Compacted {
        Compact::compact(&mut self.clients, policy)
            .plus(self.index.compact(policy))
            .plus(Compact::compact(&mut self.resources, policy))
    }
}

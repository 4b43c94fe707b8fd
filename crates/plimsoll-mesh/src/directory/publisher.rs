//! The records that this node publishes about itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use chitchat::NodeState;

use crate::identity::{Identity, IdentityError};
use crate::names::ServiceName;
use crate::services::LocalService;

use super::signed_record::{LEASE, Lease, NODE, Origin, SERVICE, ServiceRecord};

/// The records of this node in one life of the engine.
pub(super) struct Publisher<'a> {
    pub(super) identity: &'a Identity,
    pub(super) origin: Origin<'a>,
    pub(super) ttl: Duration,
    counter: u64,
    renewed: Instant,
    sequence: u64,
    /// The published services, and whether their calls may run twice.
    published: BTreeMap<ServiceName, bool>,
    withdrawn: bool,
}

impl<'a> Publisher<'a> {
    pub(super) fn new(identity: &'a Identity, origin: Origin<'a>, ttl: Duration, now: Instant) -> Self {
        Self {
            identity,
            origin,
            ttl,
            counter: 0,
            renewed: now,
            sequence: 0,
            published: BTreeMap::new(),
            withdrawn: false,
        }
    }

    /// The first records: the node and its first lease.
    pub(super) fn introduce(&mut self, listens: Option<SocketAddr>) -> Result<Vec<(String, String)>, IdentityError> {
        let node = self.origin.sign_node(self.identity, listens)?;
        Ok(vec![(NODE.to_owned(), node), (LEASE.to_owned(), self.lease()?)])
    }

    /// Renews the lease when a third of it is over; with it all names of this node.
    pub(super) fn renew(&mut self, state: &mut NodeState, now: Instant) -> Result<(), IdentityError> {
        if !self.withdrawn && now.duration_since(self.renewed) >= self.ttl / 3 {
            self.renewed = now;
            let lease = self.lease()?;
            state.set(LEASE, lease);
        }
        Ok(())
    }

    /// Withdraws everything by a lease of zero length. Returns the version from which on that holds.
    pub(super) fn withdraw(&mut self, state: &mut NodeState) -> Result<u64, IdentityError> {
        (self.withdrawn, self.ttl) = (true, Duration::ZERO);
        state.set(LEASE, self.lease()?);
        Ok(state.max_version())
    }

    /// Publishes what is offered now, and withdraws what is not offered any more.
    pub(super) fn offer(&mut self, state: &mut NodeState, offered: &[LocalService]) -> Result<(), IdentityError> {
        if self.withdrawn {
            return Ok(());
        }
        for gone in self.published.keys().filter(|name| !offered.iter().any(|served| served.name == **name)) {
            state.delete(&key(gone));
        }
        self.published.retain(|name, _| offered.iter().any(|served| served.name == *name));
        for LocalService { name, idempotent, .. } in offered {
            if self.published.get(name) == Some(idempotent) {
                continue;
            }
            self.sequence += 1;
            let record = ServiceRecord { sequence: self.sequence, idempotent: *idempotent };
            state.set(key(name), self.origin.sign_service(self.identity, name, record)?);
            self.published.insert(name.clone(), *idempotent);
        }
        Ok(())
    }

    fn lease(&mut self) -> Result<String, IdentityError> {
        self.counter += 1;
        let ttl_ms = u32::try_from(self.ttl.as_millis()).unwrap_or(u32::MAX);
        self.origin.sign_lease(self.identity, Lease { counter: self.counter, ttl_ms })
    }
}

fn key(name: &ServiceName) -> String {
    format!("{SERVICE}{name}")
}

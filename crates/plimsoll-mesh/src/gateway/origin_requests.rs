//! Requests in flight by origin, the address prefix of their clients: many connections of one origin do not get more than
//! its share.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use parking_lot::Mutex;
use plimsoll::bounded::Origin;

/// The origins that have clients. Cloning shares it.
#[derive(Debug, Clone)]
pub(super) struct OriginRequests(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max: u32,
    /// INVARIANT: an entry for each origin with a client, so at most as many as clients.
    origins: Mutex<HashMap<Origin, Arc<AtomicU32>>>,
}

/// The part of one client in the requests of its origin.
#[derive(Debug)]
pub(super) struct OriginShare {
    shared: Arc<Shared>,
    origin: Origin,
    in_flight: Arc<AtomicU32>,
}

/// An origin has as many requests in flight as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("clients of {origin} have {max} requests in flight, as many as one origin may")]
pub(super) struct OriginFull {
    origin: Origin,
    max: u32,
}

impl OriginRequests {
    pub(super) fn new(max: u32) -> Self {
        Self(Arc::new(Shared { max, origins: Mutex::default() }))
    }

    /// The share of a client at `address`.
    pub(super) fn share(&self, address: IpAddr) -> OriginShare {
        // As admission divides addresses: what one network, or one site, is given.
        let origin = Origin::of(address, 24, 56);
        let in_flight = Arc::clone(self.0.origins.lock().entry(origin).or_default());
        OriginShare { shared: Arc::clone(&self.0), origin, in_flight }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.origins.lock().len()
    }
}

impl OriginShare {
    /// Counts a request, and says whether it is one too many. [`OriginShare::end`] must follow in either case.
    pub(super) fn begin(&self) -> Result<(), OriginFull> {
        let max = self.shared.max;
        if self.in_flight.fetch_add(1, Relaxed) < max { Ok(()) } else { Err(OriginFull { origin: self.origin, max }) }
    }

    /// Counts the end of a request.
    pub(super) fn end(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }
}

impl Drop for OriginShare {
    fn drop(&mut self) {
        let mut origins = self.shared.origins.lock();
        if let Entry::Occupied(entry) = origins.entry(self.origin) {
            // The entry's own and this one: under the lock nobody else can get another.
            if Arc::strong_count(entry.get()) == 2 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_origin_has_its_share_however_many_clients_it_has() {
        let requests = OriginRequests::new(2);
        let (a, b, other) = (
            requests.share(address("192.0.2.1")),
            requests.share(address("192.0.2.2")),
            requests.share(address("198.51.100.1")),
        );
        assert!(a.begin().is_ok() && b.begin().is_ok());
        assert!(a.begin().unwrap_err().to_string().contains("192.0.2.0/24"));
        a.end();
        assert!(other.begin().is_ok(), "another origin has a share of its own");
        b.end();
        assert!(a.begin().is_ok());
        assert_eq!(requests.len(), 2);
        drop((a, b, other));
        assert_eq!(requests.len(), 0, "nothing is left of origins without clients");
    }
}

//! Who may come in: the client cap, the refusal desk and the ledger of attempts.
//!
//! Each attempt to connect is counted once and ends once:
//! `offered = served + peers + told + turned away + failed handshakes + deciding`, at every moment, because the places
//! and the counts change under one lock. It is taken a few times in a connection's life, never for a request.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use plimsoll::bounded::{Admission, AdmissionRefusal, AdmissionSettings, Cap, Permit, Rate};

/// How many connections may begin, beside the cap of clients.
///
/// An origin is an address prefix: /24 for IPv4, /56 for IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// Clients of one origin at once. Default `None`: as many as there are places.
    pub per_origin: Option<Cap>,
    /// Handshakes under way at once. Default 1,024.
    pub half_open: Cap,
    /// Connections that begin, in all. Default 10,000 a second.
    pub rate: Rate,
    /// Connections that begin from one origin. Default 10,000 a second: as in all, so tighter only when set.
    pub origin_rate: Rate,
}

impl AdmissionLimits {
    fn settings(&self, clients: Cap) -> AdmissionSettings {
        let Self { per_origin, half_open, rate, origin_rate } = *self;
        let per_origin = per_origin.unwrap_or(clients).min(clients);
        AdmissionSettings { clients, per_origin, half_open, rate, origin_rate, ..AdmissionSettings::default() }
    }
}

impl Default for AdmissionLimits {
    fn default() -> Self {
        let AdmissionSettings { half_open, rate, origin_rate, .. } = AdmissionSettings::default();
        Self { per_origin: None, half_open, rate, origin_rate }
    }
}

/// How attempts to connect ended, and how many places are taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attempts {
    /// Attempts, each counted once however often its first packet was repeated.
    pub offered: u64,
    /// Let in as clients.
    pub served: u64,
    /// Turned out to be peers.
    pub peers: u64,
    /// Told `max_clients_reached` at the desk.
    pub told: u64,
    /// Refused without a word, because the desk was full or the gateway was stopping.
    pub turned_away: u64,
    /// Handshakes that failed or took too long.
    pub failed_handshakes: u64,
    /// In their handshake, or at the desk.
    pub deciding: u64,
    /// Client places taken now.
    pub clients: u64,
    /// Most client places that were ever taken at once.
    pub clients_high_water: u64,
    /// Desk places taken now.
    pub at_desk: u64,
}

impl Attempts {
    /// Whether every attempt is accounted for.
    pub const fn balanced(&self) -> bool {
        self.offered == self.served + self.peers + self.told + self.turned_away + self.failed_handshakes + self.deciding
    }
}

/// The answer to one attempt.
#[derive(Debug)]
pub(super) enum Arrival {
    /// There is a client place: accept.
    Client(Place),
    /// No client place, but one at the desk: accept, and tell.
    Desk(Place),
    /// Neither: refuse.
    TurnAway,
    /// This attempt has been answered before: refuse again, count nothing.
    Repeated,
}

/// How an attempt that was accepted ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Served,
    Peer,
    Told,
    TurnedAway,
    FailedHandshake,
}

/// The door. Cloning shares it.
#[derive(Debug, Clone)]
pub(super) struct Door {
    books: Arc<Mutex<Books>>,
    /// Places for clients, rates by origin, and the memory of those refused. Attempts are known by a keyed digest: a client
    /// cannot choose one that collides.
    admission: Admission<u64>,
    digest: RandomState,
}

#[derive(Debug)]
struct Books {
    attempts: Attempts,
    desk_cap: u64,
}

impl Door {
    pub(super) fn new(client_cap: usize, desk_cap: usize, limits: &AdmissionLimits) -> Self {
        let clients = Cap::new(client_cap.clamp(1, Cap::MAX)).unwrap_or(Cap::of::<1>());
        let admission = Admission::new(limits.settings(clients));
        let books = Books { attempts: Attempts::default(), desk_cap: desk_cap as u64 };
        Self { books: Arc::new(Mutex::new(books)), admission, digest: RandomState::new() }
    }

    /// One first packet, known by its sender's address and the destination id it chose.
    pub(super) fn arrive(&self, from: SocketAddr, connection_id: &[u8]) -> Arrival {
        let attempt = self.digest.hash_one((from, connection_id));
        let mut books = self.books.lock();
        let refused = match self.admission.admit(from.ip(), Some(attempt), Instant::now()) {
            Ok(permit) => {
                books.attempts.offered += 1;
                books.attempts.deciding += 1;
                return Arrival::Client(self.place(Kind::Client(permit)));
            }
            Err(refused) if refused.repeated => return Arrival::Repeated,
            Err(refused) => refused.refusal,
        };
        let desk_cap = books.desk_cap;
        let attempts = &mut books.attempts;
        attempts.offered += 1;
        // Whoever comes too fast, or while the gateway stops, is not worth a place at the desk.
        let full = matches!(refused, AdmissionRefusal::MaxClientsReached { .. } | AdmissionRefusal::OriginFull { .. });
        if full && attempts.at_desk < desk_cap {
            attempts.at_desk += 1;
            attempts.deciding += 1;
            Arrival::Desk(self.place(Kind::Desk))
        } else {
            attempts.turned_away += 1;
            Arrival::TurnAway
        }
    }

    fn place(&self, kind: Kind) -> Place {
        Place { door: self.clone(), kind, otherwise: Some(Outcome::FailedHandshake) }
    }

    /// From now on everybody is turned away: the gateway is stopping.
    pub(super) fn shut(&self) {
        self.admission.shut();
    }

    /// Lets in again, after a restart.
    pub(super) fn open(&self) {
        self.admission.open();
    }

    pub(super) fn attempts(&self) -> Attempts {
        let level = self.admission.counters().entries().read();
        Attempts { clients: level.used, clients_high_water: level.high_water, ..self.books.lock().attempts }
    }
}

/// A client place or a place at the desk, free again when this is dropped.
///
/// Dropped before [`Place::settle`], it was a failed handshake, or turned away if that was complete.
#[derive(Debug)]
#[must_use]
pub(super) struct Place {
    door: Door,
    kind: Kind,
    /// How the attempt ends if nobody says otherwise; `None` once it is written down.
    otherwise: Option<Outcome>,
}

#[derive(Debug)]
enum Kind {
    /// The permit is given back with it.
    Client(Permit<u64>),
    Desk,
}

impl Place {
    /// The handshake is complete: from now on the attempt can no longer fail in it.
    pub(super) fn shook_hands(&mut self) {
        self.otherwise = self.otherwise.map(|_| Outcome::TurnedAway);
        self.establish();
    }

    fn establish(&mut self) {
        if let Kind::Client(permit) = &mut self.kind {
            permit.establish();
        }
    }

    /// Writes down how the attempt ended. The first word counts.
    pub(super) fn settle(&mut self, outcome: Outcome) {
        if self.otherwise.take().is_none() {
            return;
        }
        if outcome != Outcome::FailedHandshake {
            self.establish();
        }
        let mut books = self.door.books.lock();
        let attempts = &mut books.attempts;
        attempts.deciding -= 1;
        match outcome {
            Outcome::Served => attempts.served += 1,
            Outcome::Peer => attempts.peers += 1,
            Outcome::Told => attempts.told += 1,
            Outcome::TurnedAway => attempts.turned_away += 1,
            Outcome::FailedHandshake => attempts.failed_handshakes += 1,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(outcome) = self.otherwise {
            self.settle(outcome);
        }
        if let Kind::Desk = self.kind {
            self.door.books.lock().attempts.at_desk -= 1;
        }
    }
}

#[cfg(test)]
mod tests;

//! Who may come in: the client cap, the refusal desk and the ledger of attempts.
//!
//! Each attempt to connect is counted once and ends once:
//! `offered = served + peers + told + turned away + failed handshakes + deciding`, at every moment, because the places
//! and the counts change under one lock. It is taken a few times in a connection's life, never for a request.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use super::recent::Recent;

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
}

#[derive(Debug)]
struct Books {
    attempts: Attempts,
    client_cap: u64,
    desk_cap: u64,
    recent: Recent,
    shut: bool,
}

impl Door {
    pub(super) fn new(client_cap: usize, desk_cap: usize) -> Self {
        let (client_cap, desk_cap) = (client_cap as u64, desk_cap as u64);
        let books =
            Books { attempts: Attempts::default(), client_cap, desk_cap, recent: Recent::default(), shut: false };
        Self { books: Arc::new(Mutex::new(books)) }
    }

    /// One first packet, known by its sender's address and the destination id it chose.
    pub(super) fn arrive(&self, from: SocketAddr, connection_id: &[u8]) -> Arrival {
        let mut books = self.books.lock();
        if !books.recent.is_new(from, connection_id) {
            return Arrival::Repeated;
        }
        let shut = books.shut;
        let (client_cap, desk_cap) = (books.client_cap, books.desk_cap);
        let attempts = &mut books.attempts;
        attempts.offered += 1;
        if shut {
            attempts.turned_away += 1;
            Arrival::TurnAway
        } else if attempts.clients < client_cap {
            attempts.clients += 1;
            attempts.clients_high_water = attempts.clients_high_water.max(attempts.clients);
            attempts.deciding += 1;
            Arrival::Client(Place { door: self.clone(), kind: Kind::Client, otherwise: Some(Outcome::FailedHandshake) })
        } else if attempts.at_desk < desk_cap {
            attempts.at_desk += 1;
            attempts.deciding += 1;
            Arrival::Desk(Place { door: self.clone(), kind: Kind::Desk, otherwise: Some(Outcome::FailedHandshake) })
        } else {
            attempts.turned_away += 1;
            Arrival::TurnAway
        }
    }

    /// From now on everybody is turned away: the gateway is stopping.
    pub(super) fn shut(&self) {
        self.books.lock().shut = true;
    }

    /// Lets in again, after a restart.
    pub(super) fn open(&self) {
        self.books.lock().shut = false;
    }

    pub(super) fn attempts(&self) -> Attempts {
        self.books.lock().attempts
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

#[derive(Debug, Clone, Copy)]
enum Kind {
    Client,
    Desk,
}

impl Place {
    /// The handshake is complete: from now on the attempt can no longer fail in it.
    pub(super) fn shook_hands(&mut self) {
        self.otherwise = self.otherwise.map(|_| Outcome::TurnedAway);
    }

    /// Writes down how the attempt ended. The first word counts.
    pub(super) fn settle(&mut self, outcome: Outcome) {
        if self.otherwise.take().is_none() {
            return;
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
        let mut books = self.door.books.lock();
        match self.kind {
            Kind::Client => books.attempts.clients -= 1,
            Kind::Desk => books.attempts.at_desk -= 1,
        }
    }
}

#[cfg(test)]
mod tests;

//! Admission of connections: the client cap, the refusal responders and the counters of attempts.
//!
//! Each connection attempt is counted once and ends once:
//! `offered = served + peers + refused with reason + refused without reason + failed handshakes + pending`, in every
//! reading, because slots and counters change under one lock. The lock is taken a few times in a connection's life, never
//! for a request.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use plimsoll::bounded::{Admission, AdmissionRefusal, AdmissionSettings, Cap, Permit, Rate};
use plimsoll::inspect::{Details, Inspect};
use tokio::sync::Notify;
use tokio::time::timeout;

/// Limits on new connections, beside the cap of clients.
///
/// An origin is an address prefix: /24 for IPv4, /56 for IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// Clients of one origin at once. Default `None`: half of the cap of clients, rounded up, so that one origin never keeps all
    /// others out.
    pub per_origin: Option<Cap>,
    /// Handshakes in progress at once. Default 1,024. While more than an eighth of them are, a client must first prove its
    /// address (QUIC's Retry).
    pub half_open: Cap,
    /// New connections in all. Default 10,000 a second.
    pub rate: Rate,
    /// New connections from one origin. Default 10,000 a second: as in all, so it takes effect only when set.
    pub origin_rate: Rate,
}

impl AdmissionLimits {
    fn settings(&self, clients: Cap) -> AdmissionSettings {
        let Self { per_origin, half_open, rate, origin_rate } = *self;
        let half = Cap::new(clients.get().div_ceil(2)).unwrap_or(clients);
        let per_origin = per_origin.unwrap_or(half).min(clients);
        AdmissionSettings { clients, per_origin, half_open, rate, origin_rate, ..AdmissionSettings::default() }
    }
}

impl Default for AdmissionLimits {
    fn default() -> Self {
        let AdmissionSettings { half_open, rate, origin_rate, .. } = AdmissionSettings::default();
        Self { per_origin: None, half_open, rate, origin_rate }
    }
}

/// How connection attempts ended, and how many slots are used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attempts {
    /// Attempts, each counted once however often its first packet was repeated.
    pub offered: u64,
    /// Admitted as clients.
    pub served: u64,
    /// Handed over as peers.
    pub peers: u64,
    /// Refused with `max_clients_reached`, in a response or in the close.
    pub refused_with_reason: u64,
    /// Refused without a handshake, because every refusal responder was busy or the gateway was stopping.
    pub refused_without_reason: u64,
    /// Handshakes that failed or took too long.
    pub failed_handshakes: u64,
    /// In their handshake, or at a refusal responder.
    pub pending: u64,
    /// Client slots used now.
    pub clients: u64,
    /// Most client slots that were ever used at once.
    pub clients_high_water: u64,
    /// Refusal responders used now.
    pub responding: u64,
    /// First packets that were answered with Retry (RFC 9000, 8.1.2). Their attempts are counted when they come back.
    pub retries: u64,
}

impl Attempts {
    /// Whether every attempt is accounted for.
    pub const fn balanced(&self) -> bool {
        self.offered
            == self.served
                + self.peers
                + self.refused_with_reason
                + self.refused_without_reason
                + self.failed_handshakes
                + self.pending
    }
}

/// What to do with one attempt.
#[derive(Debug)]
pub(super) enum Decision {
    /// A client slot is free: accept.
    Admit(AdmissionSlot),
    /// No client slot, but a refusal responder is free: accept, and respond with the reason.
    Respond(AdmissionSlot, AdmissionRefusal),
    /// Many handshakes are in progress: the client must prove its address first.
    Retry,
    /// Neither is free: refuse.
    Refuse(AdmissionRefusal),
    /// The attempt was refused before: refuse again, count nothing.
    Repeated,
}

/// How an accepted attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Served,
    Peer,
    RefusedWithReason,
    Refused,
    FailedHandshake,
}

/// A client that is admitted: its connection and its slot.
#[derive(Debug)]
pub(super) struct AdmittedConnection {
    pub(super) connection: quinn::Connection,
    pub(super) slot: AdmissionSlot,
}

/// Decides which connections are admitted. Cloning shares it.
#[derive(Debug, Clone)]
pub(super) struct ClientAdmission {
    counters: Arc<Mutex<AttemptCounters>>,
    /// Client slots, rates by origin, and the refused attempts that are remembered. An attempt is identified by a keyed digest,
    /// so that a client cannot choose one that collides.
    admission: Admission<u64>,
    digest: RandomState,
    /// Handshakes in progress from which on addresses are validated.
    retry_from: usize,
    /// Notified when a client slot is released.
    released: Arc<Notify>,
}

#[derive(Debug)]
struct AttemptCounters {
    attempts: Attempts,
    responders: u64,
}

impl ClientAdmission {
    pub(super) fn new(clients: usize, responders: usize, limits: &AdmissionLimits) -> Self {
        let clients = Cap::new(clients.clamp(1, Cap::MAX)).unwrap_or(Cap::of::<1>());
        let admission = Admission::new(limits.settings(clients));
        let counters = AttemptCounters { attempts: Attempts::default(), responders: responders as u64 };
        Self {
            counters: Arc::new(Mutex::new(counters)),
            admission,
            digest: RandomState::new(),
            retry_from: limits.half_open.get().div_ceil(8),
            released: Arc::default(),
        }
    }

    /// Decides on one first packet, identified by its sender's address and the destination id that the sender chose.
    /// `validated` says that the sender has proved its address.
    pub(super) fn decide(&self, from: SocketAddr, validated: bool, connection_id: &[u8]) -> Decision {
        if !validated && self.admission.half_open() >= self.retry_from {
            self.counters.lock().attempts.retries += 1;
            return Decision::Retry;
        }
        let attempt = self.digest.hash_one((from, connection_id));
        let mut counters = self.counters.lock();
        let refused = match self.admission.admit(from.ip(), Some(attempt), Instant::now()) {
            Ok(permit) => {
                counters.attempts.offered += 1;
                counters.attempts.pending += 1;
                return Decision::Admit(self.slot(SlotKind::Client(permit)));
            }
            Err(refused) if refused.repeated => return Decision::Repeated,
            Err(refused) => refused.refusal,
        };
        let responders = counters.responders;
        let attempts = &mut counters.attempts;
        attempts.offered += 1;
        // Rate-limited and late attempts are refused without a response.
        let full = matches!(refused, AdmissionRefusal::MaxClientsReached { .. } | AdmissionRefusal::OriginFull { .. });
        if full && attempts.responding < responders {
            attempts.responding += 1;
            attempts.pending += 1;
            Decision::Respond(self.slot(SlotKind::Responder), refused)
        } else {
            attempts.refused_without_reason += 1;
            Decision::Refuse(refused)
        }
    }

    /// Waits for a client slot for `slot`, which is a responder's. Returns whether it has one; it waits for `limit` at most.
    ///
    /// Cancel safe.
    pub(super) async fn promote(&self, slot: &mut AdmissionSlot, from: SocketAddr, limit: Duration) -> bool {
        let admitted = async {
            loop {
                let released = self.released.notified();
                if let Ok(permit) = self.admission.admit(from.ip(), None, Instant::now()) {
                    return permit;
                }
                released.await;
            }
        };
        let Ok(permit) = timeout(limit, admitted).await else { return false };
        slot.kind = SlotKind::Client(permit);
        self.counters.lock().attempts.responding -= 1;
        true
    }

    fn slot(&self, kind: SlotKind) -> AdmissionSlot {
        AdmissionSlot { admission: self.clone(), kind, on_drop: Some(Outcome::FailedHandshake) }
    }

    /// Refuses every attempt from now on: the gateway is stopping.
    pub(super) fn close(&self) {
        self.admission.close();
    }

    /// Admits again, after a restart.
    pub(super) fn open(&self) {
        self.admission.open();
    }

    /// The counters of admission itself, with the reason of each refusal.
    pub(super) fn inspect(&self) -> Details {
        self.admission.inspect()
    }

    pub(super) fn attempts(&self) -> Attempts {
        let level = self.admission.counters().entries().read();
        Attempts { clients: level.used, clients_high_water: level.high_water, ..self.counters.lock().attempts }
    }
}

/// A client slot or a refusal responder, released when this is dropped.
///
/// Dropped before [`AdmissionSlot::settle`], the attempt counts as a failed handshake, or as refused if the handshake was
/// completed.
#[derive(Debug)]
#[must_use]
pub(super) struct AdmissionSlot {
    admission: ClientAdmission,
    kind: SlotKind,
    /// The outcome if none is settled; `None` once one is.
    on_drop: Option<Outcome>,
}

#[derive(Debug)]
enum SlotKind {
    /// Dropping the permit releases it.
    Client(Permit<u64>),
    Responder,
    /// The slot is dropped.
    Released,
}

impl AdmissionSlot {
    /// Records that the handshake is completed: the attempt can no longer fail in it.
    pub(super) fn handshake_completed(&mut self) {
        self.on_drop = self.on_drop.map(|_| Outcome::Refused);
        self.establish();
    }

    fn establish(&mut self) {
        if let SlotKind::Client(permit) = &mut self.kind {
            permit.establish();
        }
    }

    /// Counts how the attempt ended. Only the first outcome counts.
    pub(super) fn settle(&mut self, outcome: Outcome) {
        if self.on_drop.take().is_none() {
            return;
        }
        if outcome != Outcome::FailedHandshake {
            self.establish();
        }
        let mut counters = self.admission.counters.lock();
        let attempts = &mut counters.attempts;
        attempts.pending -= 1;
        match outcome {
            Outcome::Served => attempts.served += 1,
            Outcome::Peer => attempts.peers += 1,
            Outcome::RefusedWithReason => attempts.refused_with_reason += 1,
            Outcome::Refused => attempts.refused_without_reason += 1,
            Outcome::FailedHandshake => attempts.failed_handshakes += 1,
        }
    }
}

impl Drop for AdmissionSlot {
    fn drop(&mut self) {
        if let Some(outcome) = self.on_drop {
            self.settle(outcome);
        }
        match std::mem::replace(&mut self.kind, SlotKind::Released) {
            SlotKind::Responder => self.admission.counters.lock().attempts.responding -= 1,
            SlotKind::Client(permit) => {
                drop(permit);
                self.admission.released.notify_waiters();
            }
            SlotKind::Released => {}
        }
    }
}

#[cfg(test)]
mod tests;

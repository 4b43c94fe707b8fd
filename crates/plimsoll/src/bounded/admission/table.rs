//! The decisions of an admission.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Instant;

use plimsoll_sync::slots::{SlotKey, Slots};

use super::{AdmissionEvent, AdmissionRefusal, AdmissionSettings, Origin, Refused};
use crate::bounded::linked_list::{Links, List, linked};
use crate::bounded::lru_map::LruMap;
use crate::bounded::{Cap, Compact, CompactPolicy, Compacted, Counters, Footprint, TokenBucket};

#[derive(Debug)]
pub(super) struct AdmissionTable<A> {
    settings: AdmissionSettings,
    clients: usize,
    half_open: usize,
    bucket: TokenBucket,
    /// Origins with clients, and the latest ones without.
    rows: Slots<Row>,
    index: HashMap<Origin, SlotKey>,
    /// Origins without a client, least recently used first.
    idle: List<0>,
    refused: LruMap<A, AdmissionRefusal>,
    open: bool,
    counters: Counters<AdmissionEvent>,
}

#[derive(Debug)]
struct Row {
    origin: Origin,
    clients: usize,
    bucket: TokenBucket,
    links: Links,
}

linked!([] Row, 0, links);

/// An admitted client. It leaves by [`AdmissionTable::release`].
#[derive(Debug)]
#[must_use]
pub(super) struct Admitted {
    row: SlotKey,
    half_open: bool,
}

impl<A: Eq + Hash + Clone> AdmissionTable<A> {
    pub(super) fn new(settings: AdmissionSettings) -> Self {
        Self {
            clients: 0,
            half_open: 0,
            bucket: TokenBucket::default(),
            rows: Slots::with_limit(settings.clients.slots() + settings.origins.slots()),
            index: HashMap::new(),
            idle: List::default(),
            refused: LruMap::new(settings.remembered),
            open: true,
            counters: Counters::new(&settings.name, settings.clients),
            settings,
        }
    }

    pub(super) fn admit(&mut self, address: IpAddr, attempt: Option<A>, now: Instant) -> Result<Admitted, Refused> {
        if let Some(refusal) = attempt.as_ref().and_then(|attempt| self.refused.peek(attempt)) {
            self.counters.count_by_owner(AdmissionEvent::Repeated);
            return Err(Refused { refusal: refusal.clone(), repeated: true });
        }
        self.counters.count_by_owner(AdmissionEvent::Offered);
        let origin = Origin::of(address, self.settings.ipv4_prefix, self.settings.ipv6_prefix);
        match self.decide(origin, now) {
            Ok(()) => {
                self.counters.count_by_owner(AdmissionEvent::Admitted);
                Ok(self.take(origin, now))
            }
            Err((event, refusal)) => {
                self.counters.count_by_owner(event);
                if let Some(attempt) = attempt {
                    self.refused.entry(&attempt, || refusal.clone());
                }
                Err(Refused { refusal, repeated: false })
            }
        }
    }

    fn decide(&self, origin: Origin, now: Instant) -> Result<(), (AdmissionEvent, AdmissionRefusal)> {
        let AdmissionSettings { clients, per_origin, half_open, rate, origin_rate, retry_after, .. } = self.settings;
        if !self.open {
            return Err((AdmissionEvent::RefusedShuttingDown, AdmissionRefusal::ShuttingDown));
        }
        if self.clients >= clients.get() {
            let refusal = AdmissionRefusal::MaxClientsReached { cap: clients.get(), retry_after };
            return Err((AdmissionEvent::RefusedMaxClients, refusal));
        }
        let row = self.index.get(&origin).and_then(|row| self.rows.get(*row));
        if row.is_some_and(|row| row.clients >= per_origin.get()) {
            let refusal = AdmissionRefusal::OriginFull { origin, cap: per_origin.get(), retry_after };
            return Err((AdmissionEvent::RefusedOriginFull, refusal));
        }
        if self.half_open >= half_open.get() {
            let refusal = AdmissionRefusal::HalfOpen { cap: half_open.get(), retry_after };
            return Err((AdmissionEvent::RefusedHalfOpen, refusal));
        }
        if let Err(retry_after) = self.bucket.check(rate, now) {
            return Err((AdmissionEvent::RefusedRate, AdmissionRefusal::RateLimited { retry_after }));
        }
        if let Some(Err(retry_after)) = row.map(|row| row.bucket.check(origin_rate, now)) {
            let refusal = AdmissionRefusal::OriginRateLimited { origin, retry_after };
            return Err((AdmissionEvent::RefusedOriginRate, refusal));
        }
        Ok(())
    }

    /// Counts a client and takes a token of each bucket.
    fn take(&mut self, origin: Origin, now: Instant) -> Admitted {
        self.bucket.take(self.settings.rate, now);
        self.clients += 1;
        self.half_open += 1;
        self.counters.entries().set(self.clients as u64);
        let key = match self.index.get(&origin) {
            Some(key) => *key,
            None => {
                let row = Row { origin, clients: 0, bucket: TokenBucket::default(), links: Links::default() };
                // INVARIANT: rows with clients are at most as many as clients, and of the idle ones the least recently used is
                // removed when there is one too many.
                let Ok(key) = self.rows.insert(row) else { unreachable!("rows are bounded by clients and idle ones") };
                self.index.insert(origin, key);
                self.idle.push_back(&mut self.rows, key.index());
                key
            }
        };
        if let Some(row) = self.rows.get_mut(key) {
            row.bucket.take(self.settings.origin_rate, now);
            row.clients += 1;
            if row.clients == 1 {
                self.idle.unlink(&mut self.rows, key.index());
            }
        }
        Admitted { row: key, half_open: true }
    }

    pub(super) fn establish(&mut self, admitted: &mut Admitted) {
        if std::mem::take(&mut admitted.half_open) {
            self.half_open -= 1;
            self.counters.count_by_owner(AdmissionEvent::Established);
        }
    }

    pub(super) fn release(&mut self, admitted: Admitted) {
        self.clients -= 1;
        self.counters.entries().set(self.clients as u64);
        if admitted.half_open {
            self.half_open -= 1;
            self.counters.count_by_owner(AdmissionEvent::FailedHandshake);
        } else {
            self.counters.count_by_owner(AdmissionEvent::Left);
        }
        let Some(row) = self.rows.get_mut(admitted.row) else { return };
        row.clients -= 1;
        if row.clients > 0 {
            return;
        }
        self.idle.push_back(&mut self.rows, admitted.row.index());
        if self.idle.len() > self.settings.origins.get()
            && let Some(index) = self.idle.pop_front(&mut self.rows)
            && let Some((key, _)) = self.rows.at(index)
            && let Some(row) = self.rows.remove(key)
        {
            self.index.remove(&row.origin);
        }
    }

    pub(super) fn set_open(&mut self, open: bool) {
        self.open = open;
    }

    pub(super) fn set_clients(&mut self, cap: Cap) {
        self.settings.clients = cap;
        self.rows.set_limit(self.rows.limit().max(cap.slots() + self.settings.origins.slots()));
        self.counters.entries().set_cap(cap.get() as u64);
    }

    pub(super) fn clients(&self) -> usize {
        self.clients
    }

    pub(super) fn half_open(&self) -> usize {
        self.half_open
    }

    pub(super) fn origins(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn counters(&self) -> &Counters<AdmissionEvent> {
        &self.counters
    }

    /// Index = rows; clients = sum over origins; idle = origins without a client, bounded; the counters add up.
    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        assert_eq!(self.index.len(), self.rows.len());
        for (origin, key) in &self.index {
            assert_eq!(self.rows.get(*key).map(|row| row.origin), Some(*origin));
        }
        assert_eq!(self.rows.iter().map(|(_, row)| row.clients).sum::<usize>(), self.clients);
        assert_eq!(self.idle.len(), self.rows.iter().filter(|(_, row)| row.clients == 0).count());
        assert_eq!(self.idle.iter(&self.rows).count(), self.idle.len());
        assert!(self.idle.len() <= self.settings.origins.get());
        assert!(self.refused.len() <= self.settings.remembered.get());
        let counted = |event| self.counters.counted(event);
        let ended = counted(AdmissionEvent::FailedHandshake) + counted(AdmissionEvent::Left);
        assert_eq!(counted(AdmissionEvent::Offered), counted(AdmissionEvent::Admitted) + self.counters.refused());
        assert_eq!(counted(AdmissionEvent::Admitted), self.clients as u64 + ended);
        let decided = counted(AdmissionEvent::Established) + counted(AdmissionEvent::FailedHandshake);
        assert_eq!(counted(AdmissionEvent::Admitted), self.half_open as u64 + decided);
        assert_eq!(self.counters.entries().read().used, self.clients as u64);
    }
}

impl<A: Eq + Hash> Compact for AdmissionTable<A> {
    fn footprint(&self) -> Footprint {
        self.rows.footprint().plus(self.index.footprint()).plus(self.refused.footprint())
    }

    fn compact(&mut self, policy: &CompactPolicy) -> Compacted {
        let rows = Compact::compact(&mut self.rows, policy);
        rows.plus(self.index.compact(policy)).plus(self.refused.compact(policy))
    }
}

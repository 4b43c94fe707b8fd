//! Which records count: signatures, leases and caps. Time comes in as an argument.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Instant;

use crate::identity::PublicKey;
use crate::names::{NodeId, ServiceName};

use super::signed_record::{LEASE, Lease, NODE, NodeRecord, Origin, SERVICE, ServiceRecord};
use super::validate::Incarnation;
use super::view::{DirectoryView, Member, Provider};

#[cfg(test)]
mod tests;

/// Service records in all.
pub(crate) const MAX_RECORDS: usize = 10_000;
/// Service records of one node.
pub(crate) const MAX_PER_NODE: usize = 1_000;
/// New or changed names of a node that are taken in a second, after a first thousand at once.
const CHANGES_PER_SECOND: f64 = 10.0;

/// One incarnation of a node as the engine holds it. `values` is `None` when nothing has changed since the last check.
#[derive(Debug)]
pub(crate) struct EngineEntry {
    pub(crate) life: Incarnation,
    pub(crate) alive: bool,
    pub(crate) values: Option<Vec<(String, String)>>,
}

/// The records of all other nodes, with the result of checking their signatures.
#[derive(Debug)]
pub(crate) struct RecordTable {
    me: NodeId,
    realm: String,
    lives: HashMap<Incarnation, NodeRecords>,
    invalid_records: u64,
}

#[derive(Debug)]
struct NodeRecords {
    alive: bool,
    /// It was alive once, by its heartbeats or its connection.
    seen_alive: bool,
    values: Vec<(String, String)>,
    node: Option<(String, NodeRecord)>,
    lease: Option<(String, Lease, Instant)>,
    /// By name: the value checked, and the record if its signature held.
    services: BTreeMap<ServiceName, (String, Option<ServiceRecord>)>,
    allowance: Allowance,
}

impl RecordTable {
    pub(crate) fn new(me: NodeId, realm: impl Into<String>) -> Self {
        Self { me, realm: realm.into(), lives: HashMap::new(), invalid_records: 0 }
    }

    /// Takes what the engine holds now, and forgets what it does not hold any more.
    pub(crate) fn update(&mut self, seen: Vec<EngineEntry>, now: Instant) {
        let shown: std::collections::HashSet<Incarnation> = seen.iter().map(|seen| seen.life).collect();
        self.lives.retain(|life, _| shown.contains(life));
        for EngineEntry { life, alive, values } in seen {
            if life.0 == self.me {
                continue;
            }
            let held = self.lives.entry(life).or_insert_with(|| NodeRecords::new(now));
            held.alive = alive;
            held.seen_alive |= alive;
            if let Some(values) = values {
                held.values = values;
            }
            let origin = Origin { realm: &self.realm, node: life.0, generation: life.1 };
            self.invalid_records += held.judge(&origin, now);
        }
    }

    /// RecordTable found to be unsigned or signed by another, ever since.
    pub(crate) fn invalid_records(&self) -> u64 {
        self.invalid_records
    }

    /// The directory at `now`: of each trusted node its latest incarnation, and its services as long as its lease holds.
    pub(crate) fn view(&self, now: Instant, trusts: impl Fn(&NodeId) -> bool) -> DirectoryView {
        let mut latest: BTreeMap<NodeId, (u64, &NodeRecords)> = BTreeMap::new();
        for (&(node, generation), held) in &self.lives {
            let newer = latest.get(&node).is_none_or(|(other, _)| *other < generation);
            if held.node.is_some() && newer && trusts(&node) {
                latest.insert(node, (generation, held));
            }
        }
        let mut view = DirectoryView::default();
        let mut records = 0;
        for (node, (_, held)) in latest {
            let (alive, leaving) = (held.alive, held.is_withdrawn());
            view.members.push(Member { node, address: held.listens(), alive, leaving });
            // The lease of a node that was never alive here arrived through others, and its age is not known.
            if !held.seen_alive || !held.leased(now) {
                continue;
            }
            for (name, record) in held.proven().take(MAX_RECORDS - records) {
                records += 1;
                let provider = Provider::new(node, record.idempotent);
                view.services.entry(name.clone()).or_default().push(provider);
            }
        }
        view
    }
}

impl NodeRecords {
    fn new(now: Instant) -> Self {
        Self {
            alive: false,
            seen_alive: false,
            values: Vec::new(),
            node: None,
            lease: None,
            services: BTreeMap::new(),
            allowance: Allowance::new(now),
        }
    }

    fn listens(&self) -> Option<SocketAddr> {
        self.node.as_ref().and_then(|(_, record)| record.listens)
    }

    /// Its last lease was over from the start.
    fn is_withdrawn(&self) -> bool {
        self.lease.as_ref().is_some_and(|(_, lease, _)| lease.ttl().is_zero())
    }

    fn leased(&self, now: Instant) -> bool {
        self.lease.as_ref().is_some_and(|(_, lease, renewed)| now.duration_since(*renewed) < lease.ttl())
    }

    fn proven(&self) -> impl Iterator<Item = (&ServiceName, ServiceRecord)> {
        self.services.iter().filter_map(|(name, (_, record))| Some((name, (*record)?)))
    }

    /// Checks what has changed; returns how many signatures did not hold.
    fn judge(&mut self, origin: &Origin<'_>, now: Instant) -> u64 {
        let mut invalid_records = 0;
        let Some(key) = self.judge_node(origin, &mut invalid_records) else { return invalid_records };
        self.judge_lease(origin, &key, now, &mut invalid_records);
        self.judge_services(origin, &key, now, &mut invalid_records);
        invalid_records
    }

    fn judge_node(&mut self, origin: &Origin<'_>, invalid_records: &mut u64) -> Option<PublicKey> {
        let value = value(&self.values, NODE)?;
        if self.node.as_ref().is_none_or(|(known, _)| known != value) {
            match origin.verify_node(value) {
                Ok(record) => self.node = Some((value.to_owned(), record)),
                // An earlier record that held stays: this one is not of the node.
                Err(_) => *invalid_records += 1,
            }
        }
        self.node.as_ref().map(|(_, record)| record.key)
    }

    fn judge_lease(&mut self, origin: &Origin<'_>, key: &PublicKey, now: Instant, invalid_records: &mut u64) {
        let Some(value) = value(&self.values, LEASE) else { return };
        if self.lease.as_ref().is_some_and(|(known, ..)| known == value) {
            return;
        }
        match origin.verify_lease(key, value) {
            // An old lease that arrives late renews nothing.
            Ok(lease) if self.lease.as_ref().is_none_or(|(_, known, _)| known.counter < lease.counter) => {
                self.lease = Some((value.to_owned(), lease, now));
            }
            Ok(_) => {}
            Err(_) => *invalid_records += 1,
        }
    }

    fn judge_services(&mut self, origin: &Origin<'_>, key: &PublicKey, now: Instant, invalid_records: &mut u64) {
        let mut services = BTreeMap::new();
        for (name, value) in self.values.iter().filter_map(|(name, value)| Some((name.strip_prefix(SERVICE)?, value))) {
            let Ok(name) = name.parse::<ServiceName>() else { continue };
            if services.len() >= MAX_PER_NODE {
                break;
            }
            let known = self.services.remove(&name);
            let entry = match known {
                Some((known, record)) if known == *value => (known, record),
                known if !self.allowance.take(now) => match known {
                    // Checked again when there is room; what held so far stays until then.
                    Some(known) => known,
                    None => continue,
                },
                known => match origin.verify_service(key, &name, value) {
                    Ok(record)
                        if known
                            .as_ref()
                            .and_then(|(_, old)| *old)
                            .is_none_or(|old| old.sequence < record.sequence) =>
                    {
                        (value.clone(), Some(record))
                    }
                    Ok(_) => (value.clone(), known.and_then(|(_, old)| old)),
                    Err(_) => {
                        *invalid_records += 1;
                        (value.clone(), known.and_then(|(_, old)| old))
                    }
                },
            };
            services.insert(name, entry);
        }
        self.services = services;
    }
}

fn value<'a>(values: &'a [(String, String)], key: &str) -> Option<&'a str> {
    values.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
}

/// A token bucket for changes.
#[derive(Debug)]
struct Allowance {
    left: f64,
    filled: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { left: MAX_PER_NODE as f64, filled: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let gained = now.duration_since(self.filled).as_secs_f64() * CHANGES_PER_SECOND;
        self.left = (self.left + gained).min(MAX_PER_NODE as f64);
        self.filled = now;
        let enough = self.left >= 1.0;
        if enough {
            self.left -= 1.0;
        }
        enough
    }
}

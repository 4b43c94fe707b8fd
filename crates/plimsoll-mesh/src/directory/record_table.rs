//! Which records count: signatures, leases and caps. Time comes in as an argument.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use plimsoll::bounded::{Cap, Rate, TokenBucket};

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
/// New or changed names of a node that are taken: ten a second, after a first thousand at once.
const CHANGES: Rate = Rate { per_second: Cap::of::<10>(), burst: Cap::of::<MAX_PER_NODE>() };

/// One incarnation of a node as the engine holds it. `values` is `None` when nothing has changed since the last check.
#[derive(Debug)]
pub(crate) struct EngineEntry {
    pub(crate) life: Incarnation,
    /// There is a connection to it.
    pub(crate) connected: bool,
    /// Its heartbeats arrive, through any node.
    pub(crate) beating: bool,
    pub(crate) values: Option<Vec<(String, String)>>,
}

/// The records of all other nodes, with the result of checking their signatures.
#[derive(Debug)]
pub(crate) struct RecordTable {
    me: NodeId,
    realm: String,
    /// How long heartbeats must arrive to prove that a node is alive: longer than those that it sent before its end go round.
    proof: Duration,
    lives: HashMap<Incarnation, NodeRecords>,
    invalid_records: u64,
}

#[derive(Debug)]
struct NodeRecords {
    first_seen: Instant,
    alive: bool,
    /// It has proved to be alive, by its connection or by heartbeats. It renews its lease at a third, so from then on the age
    /// of the lease is known: it was received since, or is not older than that.
    proven: bool,
    values: Vec<(String, String)>,
    node: Option<(String, NodeRecord)>,
    lease: Option<(String, Lease, Instant)>,
    /// By name: the value checked, and the record if its signature held.
    services: BTreeMap<ServiceName, (String, Option<ServiceRecord>)>,
    changes: TokenBucket,
}

impl RecordTable {
    pub(crate) fn new(me: NodeId, realm: impl Into<String>, proof: Duration) -> Self {
        Self { me, realm: realm.into(), proof, lives: HashMap::new(), invalid_records: 0 }
    }

    /// Takes what the engine holds now, and forgets what it does not hold any more.
    pub(crate) fn update(&mut self, seen: Vec<EngineEntry>, now: Instant) {
        let shown: std::collections::HashSet<Incarnation> = seen.iter().map(|seen| seen.life).collect();
        self.lives.retain(|life, _| shown.contains(life));
        for EngineEntry { life, connected, beating, values } in seen {
            if life.0 == self.me {
                continue;
            }
            let held = self.lives.entry(life).or_insert_with(|| NodeRecords::new(now));
            held.proven |= connected || beating && now.duration_since(held.first_seen) >= self.proof;
            held.alive = connected || beating && held.proven;
            if let Some(values) = values {
                held.values = values;
            }
            let origin = Origin { realm: &self.realm, node: life.0, generation: life.1 };
            self.invalid_records += held.judge(&origin, now);
        }
    }

    /// Records found to be unsigned or signed by another, ever since.
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
            // The lease of a node that has not proved to be alive arrived through others, and its age is not known.
            if !held.proven || !held.leased(now) {
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
            first_seen: now,
            alive: false,
            proven: false,
            values: Vec::new(),
            node: None,
            lease: None,
            services: BTreeMap::new(),
            changes: TokenBucket::default(),
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
                known if !take_change(&mut self.changes, now) => match known {
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

/// Takes a token for a change, if there is one.
fn take_change(changes: &mut TokenBucket, now: Instant) -> bool {
    let free = changes.check(CHANGES, now).is_ok();
    if free {
        changes.take(CHANGES, now);
    }
    free
}

fn value<'a>(values: &'a [(String, String)], key: &str) -> Option<&'a str> {
    values.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
}

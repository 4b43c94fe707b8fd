use std::time::Duration;

use super::*;
use crate::identity::Identity;

type TestResult = Result<(), Box<dyn std::error::Error>>;

const TTL: Duration = Duration::from_secs(9);
const PROOF: Duration = Duration::from_secs(2);

/// A node that signs what the tests want.
struct Author {
    identity: Identity,
    generation: u64,
}

impl Author {
    fn new(generation: u64) -> Result<Self, Box<dyn std::error::Error>> {
        Ok(Self { identity: Identity::generate()?, generation })
    }

    fn id(&self) -> NodeId {
        self.identity.node_id()
    }

    fn origin(&self) -> Origin<'static> {
        Origin { realm: "default", node: self.id(), generation: self.generation }
    }

    fn introduced(&self, counter: u64) -> Result<Vec<(String, String)>, Box<dyn std::error::Error>> {
        let lease = Lease { counter, ttl_ms: 9_000 };
        Ok(vec![
            (NODE.to_owned(), self.origin().sign_node(&self.identity, None)?),
            (LEASE.to_owned(), self.origin().sign_lease(&self.identity, lease)?),
        ])
    }

    fn service(&self, name: &str, sequence: u64) -> Result<(String, String), Box<dyn std::error::Error>> {
        let record = ServiceRecord { sequence, idempotent: true };
        Ok((format!("{SERVICE}{name}"), self.origin().sign_service(&self.identity, &name.parse()?, record)?))
    }

    fn seen(&self, values: Vec<(String, String)>) -> Vec<EngineEntry> {
        vec![EngineEntry { life: (self.id(), self.generation), connected: true, beating: true, values: Some(values) }]
    }
}

fn records() -> RecordTable {
    RecordTable::new(NodeId::from_digest([0; 32]), "default", PROOF)
}

fn names(view: &DirectoryView) -> Vec<String> {
    view.services.keys().map(ToString::to_string).collect()
}

fn everybody(_: &NodeId) -> bool {
    true
}

/// M-10: a live, renewing owner never expires; one that falls silent does, with all its names at once.
#[test]
fn one_lease_renews_all_names_of_a_node() -> TestResult {
    let (author, start) = (Author::new(1)?, Instant::now());
    let mut records = records();
    for renewal in 0..5 {
        let mut values = author.introduced(renewal + 1)?;
        values.extend([author.service("echo", 1)?, author.service("time", 2)?]);
        let now = start + TTL / 3 * u32::try_from(renewal)?;
        records.update(author.seen(values), now);
        assert_eq!(names(&records.view(now, everybody)), ["echo", "time"]);
    }
    let silent_since = start + TTL / 3 * 4;
    let unchanged = || vec![EngineEntry { life: (author.id(), 1), connected: true, beating: true, values: None }];
    for (after, left) in [(TTL - Duration::from_millis(1), 2), (TTL, 0)] {
        records.update(unchanged(), silent_since + after);
        assert_eq!(records.view(silent_since + after, everybody).services.len(), left);
    }
    Ok(())
}

/// A node that stops signs a lease that is over: its names go at once, and come back with its next life.
#[test]
fn a_lease_that_is_over_takes_all_names_back() -> TestResult {
    let (author, now) = (Author::new(1)?, Instant::now());
    let mut records = records();
    let mut values = author.introduced(1)?;
    values.push(author.service("echo", 1)?);
    records.update(author.seen(values.clone()), now);
    assert!(!records.view(now, everybody).members[0].leaving);
    let over = Lease { counter: 2, ttl_ms: 0 };
    values[1].1 = author.origin().sign_lease(&author.identity, over)?;
    records.update(author.seen(values), now);
    let view = records.view(now, everybody);
    assert!(view.services.is_empty() && view.members[0].leaving, "{view:?}");

    let next = Author { generation: 2, ..author };
    let mut values = next.introduced(1)?;
    values.push(next.service("echo", 1)?);
    records.update(next.seen(values), now);
    let view = records.view(now, everybody);
    assert!(names(&view) == ["echo"] && !view.members[0].leaving, "{view:?}");
    Ok(())
}

/// An old lease that somebody passes on late does not bring names back.
#[test]
fn an_old_lease_renews_nothing() -> TestResult {
    let (author, start) = (Author::new(1)?, Instant::now());
    let mut records = records();
    let service = author.service("echo", 1)?;
    let values = |counter| -> Result<_, Box<dyn std::error::Error>> {
        let mut values = author.introduced(counter)?;
        values.push(service.clone());
        Ok(values)
    };
    records.update(author.seen(values(5)?), start);
    records.update(author.seen(values(4)?), start + TTL / 2);
    records.update(author.seen(values(5)?), start + TTL / 2);
    assert_eq!(records.view(start + TTL, everybody).services.len(), 0);
    records.update(author.seen(values(6)?), start + TTL);
    assert_eq!(records.view(start + TTL, everybody).services.len(), 1);
    Ok(())
}

/// Issue 10, 4.3: records of a node that died before this one joined reach it through others, and so do its last heartbeats.
/// Its services are not offered, however long its lease is; they are once it proves to be alive, and then for as long as the
/// lease holds.
#[test]
fn a_node_that_did_not_prove_to_be_alive_here_provides_nothing() -> TestResult {
    let (author, start) = (Author::new(1)?, Instant::now());
    let mut values = author.introduced(1)?;
    values.push(author.service("echo", 1)?);
    let entry = |connected, beating, values| vec![EngineEntry { life: (author.id(), 1), connected, beating, values }];
    let shown = |records: &RecordTable, now| {
        let view = records.view(now, everybody);
        (names(&view).len(), view.members[0].alive)
    };

    let mut records = records();
    records.update(entry(false, false, Some(values.clone())), start);
    assert_eq!(shown(&records, start), (0, false));
    // Its last heartbeats arrive through several nodes, for a while.
    for ms in (0..2_000).step_by(100) {
        let now = start + Duration::from_millis(ms);
        records.update(entry(false, true, None), now);
        assert_eq!(shown(&records, now), (0, false), "after {ms} ms");
    }
    records.update(entry(false, false, None), start + TTL / 3);
    assert_eq!(shown(&records, start + TTL / 3), (0, false));

    for (proof, connected) in [(start + TTL / 2, true), (start + PROOF, false)] {
        let mut records = self::records();
        records.update(entry(false, false, Some(values.clone())), start);
        records.update(entry(connected, true, None), proof);
        assert_eq!(shown(&records, proof), (1, true), "connected: {connected}");
        records.update(entry(false, false, None), proof);
        assert_eq!(shown(&records, proof), (1, false), "until its lease ends");
        assert_eq!(shown(&records, start + TTL).0, 0, "its age counts from when it was received");
    }
    Ok(())
}

#[test]
fn only_records_of_trusted_nodes_signed_by_them_count() -> TestResult {
    let (author, liar, now) = (Author::new(1)?, Author::new(1)?, Instant::now());
    let mut records = records();
    let mut values = author.introduced(1)?;
    let (key, forged) = liar.service("forged", 1)?;
    values.extend([author.service("echo", 1)?, (key, forged), ("s/Bad Name".to_owned(), "1".to_owned())]);
    records.update(author.seen(values.clone()), now);
    assert_eq!(names(&records.view(now, everybody)), ["echo"]);
    assert_eq!(records.invalid_records(), 1);
    records.update(author.seen(values), now);
    assert_eq!(records.invalid_records(), 1, "a signature is checked once");
    assert_eq!(records.view(now, |_| false), DirectoryView::default());
    Ok(())
}

#[test]
fn a_name_that_is_taken_back_is_gone_and_a_later_life_counts_alone() -> TestResult {
    let now = Instant::now();
    let (first, mut records) = (Author::new(1)?, records());
    let second = Author { identity: first.identity.clone(), generation: 2 };
    let mut values = first.introduced(1)?;
    values.push(first.service("old", 1)?);
    records.update(first.seen(values), now);
    let mut later = second.introduced(1)?;
    later.push(second.service("new", 1)?);
    let mut both = second.seen(later.clone());
    both.push(EngineEntry { life: (first.id(), 1), connected: false, beating: false, values: None });
    records.update(both, now);
    assert_eq!(names(&records.view(now, everybody)), ["new"]);
    assert_eq!(records.view(now, everybody).members.len(), 1);

    later.pop();
    records.update(second.seen(later), now);
    assert!(records.view(now, everybody).services.is_empty());
    Ok(())
}

/// A thousand names at once, then ten a second; and never more than a thousand.
#[test]
fn a_flood_of_changes_is_taken_in_at_a_rate() -> TestResult {
    let (author, now) = (Author::new(1)?, Instant::now());
    let mut records = records();
    let mut values = author.introduced(1)?;
    for n in 0..MAX_PER_NODE + 50 {
        values.push(author.service(&format!("s{n:05}"), 1)?);
    }
    records.update(author.seen(values.clone()), now);
    assert_eq!(records.view(now, everybody).services.len(), MAX_PER_NODE);

    let mut changed = author.introduced(1)?;
    for n in 0..100 {
        changed.push(author.service(&format!("t{n:05}"), 2)?);
    }
    records.update(author.seen(changed), now);
    assert_eq!(records.view(now, everybody).services.len(), 0, "the allowance is spent");
    let unchanged = vec![EngineEntry { life: (author.id(), 1), connected: true, beating: true, values: None }];
    records.update(unchanged, now + Duration::from_secs(2));
    assert_eq!(records.view(now, everybody).services.len(), 20);
    Ok(())
}

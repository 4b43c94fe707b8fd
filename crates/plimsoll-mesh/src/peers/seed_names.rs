//! Seeds that are host names: when to look a name up, and which addresses it has. Rules without I/O, and the lookup itself.
//!
//! A name is looked up at the start, again after a failure, and again when none of its addresses leads to a connected node:
//! the machine behind it may have moved. All addresses of a name are dialled.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::names::NodeId;

use super::redial::Redial;

/// How long the addresses of a name hold while none of them leads to a connected node.
const LOOK_UP_AGAIN: Duration = Duration::from_secs(30);
/// The shortest time between two lookups of a name, however often its node is lost.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// Addresses of one name that are dialled.
const MAX_ADDRESSES: usize = 16;

/// Looks host names up.
pub trait Resolve: Send + Sync + 'static {
    /// All addresses of `host`, with `port`.
    ///
    /// Cancel safe: dropping the future abandons the lookup.
    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;
}

/// The resolver of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let host = host.to_owned();
        async move { tokio::net::lookup_host((host, port)).await.map(Iterator::collect) }.boxed()
    }
}

/// A name to look up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lookup {
    pub(crate) index: usize,
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// What the end of a lookup means to the operator.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LookupOutcome {
    /// As before.
    Unchanged,
    /// The name has other addresses than before.
    Changed,
    /// The first failure in a row: `host` does not resolve.
    Unresolved { host: String, error: String },
}

#[derive(Debug)]
struct SeedName {
    host: String,
    port: u16,
    expected: Option<NodeId>,
    addresses: Vec<SocketAddr>,
    due: Instant,
    looked_up: Option<Instant>,
    in_progress: bool,
    failures: u32,
}

/// The seeds that are host names: as many as the configuration has.
#[derive(Debug)]
pub(crate) struct SeedNames {
    names: Vec<SeedName>,
    redial: Redial,
}

impl SeedNames {
    pub(crate) fn new(redial: Redial) -> Self {
        Self { names: Vec::new(), redial }
    }

    pub(crate) fn add(&mut self, host: &str, port: u16, expected: Option<NodeId>, now: Instant) {
        self.names.push(SeedName {
            host: host.to_owned(),
            port,
            expected,
            addresses: Vec::new(),
            due: now,
            looked_up: None,
            in_progress: false,
            failures: 0,
        });
    }

    /// The names to look up now; each is in progress from here on.
    pub(crate) fn due(&mut self, now: Instant, is_up: impl Fn(&SocketAddr) -> bool) -> Vec<Lookup> {
        let mut due = Vec::new();
        for (index, name) in self.names.iter_mut().enumerate() {
            if name.is_waiting(&is_up) && name.due <= now {
                (name.in_progress, name.looked_up) = (true, Some(now));
                due.push(Lookup { index, host: name.host.clone(), port: name.port });
            }
        }
        due
    }

    /// When the next name is due.
    pub(crate) fn next_due(&self, is_up: impl Fn(&SocketAddr) -> bool) -> Option<Instant> {
        self.names.iter().filter(|name| name.is_waiting(&is_up)).map(|name| name.due).min()
    }

    /// A lookup ended. After a failure the former addresses stay.
    pub(crate) fn resolved(
        &mut self,
        index: usize,
        result: Result<Vec<SocketAddr>, String>,
        now: Instant,
        jitter: f64,
    ) -> LookupOutcome {
        let redial = self.redial;
        let Some(name) = self.names.get_mut(index) else { return LookupOutcome::Unchanged };
        name.in_progress = false;
        let result = result.and_then(|found| if found.is_empty() { Err("no address".to_owned()) } else { Ok(found) });
        match result {
            Ok(mut found) => {
                found.sort_unstable();
                found.dedup();
                found.truncate(MAX_ADDRESSES);
                (name.failures, name.due) = (0, now + LOOK_UP_AGAIN);
                let changed = name.addresses != found;
                name.addresses = found;
                if changed { LookupOutcome::Changed } else { LookupOutcome::Unchanged }
            }
            Err(error) => {
                name.failures = name.failures.saturating_add(1);
                name.due = now + redial.delay(name.failures, true, jitter).max(MIN_INTERVAL);
                if name.failures > 1 {
                    return LookupOutcome::Unchanged;
                }
                LookupOutcome::Unresolved { host: format!("{}:{}", name.host, name.port), error }
            }
        }
    }

    /// The node at one of these addresses was lost: its names are looked up again.
    pub(crate) fn lost(&mut self, addresses: &[SocketAddr], now: Instant) {
        for name in &mut self.names {
            if name.addresses.iter().any(|address| addresses.contains(address)) {
                let earliest = name.looked_up.map_or(now, |last| now.max(last + MIN_INTERVAL));
                name.due = name.due.min(earliest);
            }
        }
    }

    /// All addresses, with the node expected there.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (SocketAddr, Option<NodeId>)> {
        self.names.iter().flat_map(|name| name.addresses.iter().map(|&address| (address, name.expected)))
    }
}

impl SeedName {
    fn is_waiting(&self, is_up: impl Fn(&SocketAddr) -> bool) -> bool {
        !self.in_progress && !self.addresses.iter().any(is_up)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: u8) -> SocketAddr {
        ([10, 0, 0, n], 4433).into()
    }

    fn names() -> (SeedNames, Instant) {
        let (mut names, now) = (SeedNames::new(Redial::default()), Instant::now());
        names.add("seed.example", 4433, None, now);
        (names, now)
    }

    fn found(names: &SeedNames) -> Vec<SocketAddr> {
        names.addresses().map(|(address, _)| address).collect()
    }

    #[test]
    fn a_name_that_does_not_resolve_is_looked_up_again_and_reported_once() {
        let (mut names, mut now) = names();
        let mut reported = 0;
        for failures in 1..=10 {
            let due = names.due(now, |_| false);
            assert_eq!(due.len(), 1, "attempt {failures}");
            assert!(names.due(now, |_| false).is_empty(), "one lookup at a time");
            let outcome = names.resolved(0, Err("no such host".to_owned()), now, 0.0);
            reported += usize::from(matches!(outcome, LookupOutcome::Unresolved { .. }));
            let next = names.next_due(|_| false).unwrap();
            assert!(next > now && next <= now + Duration::from_secs(30));
            now = next;
        }
        assert_eq!(reported, 1);
        names.due(now, |_| false);
        assert_eq!(names.resolved(0, Ok(vec![at(2), at(1), at(2)]), now, 0.0), LookupOutcome::Changed);
        assert_eq!(found(&names), [at(1), at(2)], "all of its addresses, each once");
    }

    #[test]
    fn a_name_is_looked_up_again_when_its_node_is_lost_or_never_connects() {
        let (mut names, now) = names();
        names.due(now, |_| false);
        names.resolved(0, Ok(vec![at(1)]), now, 0.0);
        let later = now + LOOK_UP_AGAIN;
        assert!(names.due(later, |address| *address == at(1)).is_empty(), "its node is connected");
        assert_eq!(names.next_due(|address| *address == at(1)), None);
        names.lost(&[at(9)], now + Duration::from_secs(5));
        assert_eq!(names.next_due(|_| false), Some(later), "another node's address");
        names.lost(&[at(1)], now + Duration::from_secs(5));
        assert_eq!(names.next_due(|_| false), Some(now + Duration::from_secs(5)));
        assert_eq!(names.due(now + Duration::from_secs(5), |_| false).len(), 1);
        let moved = names.resolved(0, Ok(vec![at(2)]), now + Duration::from_secs(5), 0.0);
        assert_eq!((moved, found(&names)), (LookupOutcome::Changed, vec![at(2)]));
        names.lost(&[at(2)], now + Duration::from_secs(5));
        assert_eq!(names.next_due(|_| false), Some(now + Duration::from_secs(6)), "a node that flaps causes no storm");
        names.due(now + Duration::from_secs(6), |_| false);
        names.resolved(0, Err("timed out".to_owned()), now + Duration::from_secs(6), 0.0);
        assert_eq!(found(&names), [at(2)], "a failed lookup forgets nothing");
    }
}

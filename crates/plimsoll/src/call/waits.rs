//! Who waits for whom, so that a wait that could never end is an error at once.
//!
//! An edge says that one actor waits for a reply that only another can give. Edges exist for calls of clients that are
//! bound to an actor, and point to the actor that serves: a [`Server`](super::Server), or the worker of a
//! [`CallServer`](super::CallServer). An edge that would close a circle is refused, with the circle's names.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use ractor::{ActorCell, ActorId};

static WAITS: LazyLock<Mutex<Waits>> = LazyLock::new(Mutex::default);

/// An actor in the words of an error: its name, or else its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Party {
    pub(crate) id: ActorId,
    pub(crate) label: Arc<str>,
}

impl From<&ActorCell> for Party {
    fn from(actor: &ActorCell) -> Self {
        let id = actor.get_id();
        Self { id, label: actor.get_name().unwrap_or_else(|| id.to_string()).into() }
    }
}

/// The edges between all actors that wait at this moment. Every edge belongs to a [`Waiting`].
#[derive(Debug, Default)]
struct Waits {
    edges: HashMap<ActorId, Vec<Party>>,
}

impl Waits {
    fn add(&mut self, from: &Party, to: &Party) -> Result<(), Vec<String>> {
        if let Some(mut path) = self.path(to, from.id) {
            path.insert(0, from.label.to_string());
            return Err(path);
        }
        self.edges.entry(from.id).or_default().push(to.clone());
        Ok(())
    }

    fn remove(&mut self, from: ActorId, to: ActorId) {
        let Some(edges) = self.edges.get_mut(&from) else { return };
        if let Some(at) = edges.iter().position(|edge| edge.id == to) {
            edges.swap_remove(at);
        }
        if edges.is_empty() {
            self.edges.remove(&from);
        }
    }

    /// The labels on a way from `start` to `goal`, both included.
    fn path(&self, start: &Party, goal: ActorId) -> Option<Vec<String>> {
        let mut seen = HashSet::from([start.id]);
        let mut ways = vec![vec![start]];
        while let Some(way) = ways.pop() {
            let last = way.last()?;
            if last.id == goal {
                return Some(way.iter().map(|party| party.label.to_string()).collect());
            }
            for next in self.edges.get(&last.id).into_iter().flatten() {
                if seen.insert(next.id) {
                    let mut longer = way.clone();
                    longer.push(next);
                    ways.push(longer);
                }
            }
        }
        None
    }
}

/// An actor waits for another, until this is dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    from: ActorId,
    to: ActorId,
}

impl Waiting {
    /// `from` begins to wait for `to`; `Err` with the circle that this would close.
    pub(crate) fn begin(from: &Party, to: &Party) -> Result<Self, Vec<String>> {
        WAITS.lock().add(from, to)?;
        Ok(Self { from: from.id, to: to.id })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITS.lock().remove(self.from, self.to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(name: &str) -> Party {
        let id = ActorId::Local(name.bytes().map(u64::from).sum());
        Party { id, label: name.into() }
    }

    #[test]
    fn a_circle_is_refused_and_named() {
        let mut waits = Waits::default();
        let [a, b, c] = ["a", "b", "c"].map(party);
        waits.add(&a, &b).unwrap();
        waits.add(&b, &c).unwrap();
        assert_eq!(waits.add(&c, &a), Err(["c", "a", "b", "c"].map(str::to_owned).to_vec()));
        assert_eq!(waits.add(&a, &a), Err(["a", "a"].map(str::to_owned).to_vec()));
    }

    #[test]
    fn a_wait_that_is_over_closes_no_circle() {
        let mut waits = Waits::default();
        let [a, b] = ["a", "b"].map(party);
        waits.add(&a, &b).unwrap();
        waits.add(&a, &b).unwrap();
        waits.remove(a.id, b.id);
        assert!(waits.add(&b, &a).is_err());
        waits.remove(a.id, b.id);
        waits.add(&b, &a).unwrap();
        waits.remove(b.id, a.id);
        assert!(waits.edges.is_empty());
    }
}

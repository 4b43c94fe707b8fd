//! The wait-for graph of actors, so that a wait that could never end is an error at once.
//!
//! An edge says that one actor waits for what only another actor can do: send a reply, or take a message from a full
//! mailbox. Edges exist for calls of clients that are bound to an actor, and point to the actor that serves (a
//! [`GenServer`](crate::server::GenServer), or the worker of a [`CallServer`](crate::call::CallServer)), and for senders that
//! wait for room in a bounded mailbox. An edge that would close a cycle is rejected with the names along the cycle.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use ractor::{ActorCell, ActorId};
use tokio::task;

static GRAPH: LazyLock<Mutex<WaitGraph>> = LazyLock::new(Mutex::default);
/// The actors whose task is known, so that a wait in that task can be attributed to the actor.
static TASKS: LazyLock<Mutex<HashMap<task::Id, Node>>> = LazyLock::new(Mutex::default);

/// Registers `actor` as the one that runs in `task`, until this is dropped.
#[derive(Debug)]
pub(crate) struct ActorTask(task::Id);

impl ActorTask {
    pub(crate) fn register(task: task::Id, actor: &ActorCell) -> Self {
        TASKS.lock().insert(task, Node::from(actor));
        Self(task)
    }
}

impl Drop for ActorTask {
    fn drop(&mut self) {
        TASKS.lock().remove(&self.0);
    }
}

/// The actor that runs in the current task, if it is registered.
pub(crate) fn current_actor() -> Option<Node> {
    TASKS.lock().get(&task::try_id()?).cloned()
}

/// An actor in the graph; its label in errors is its name, or else its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) id: ActorId,
    pub(crate) label: Arc<str>,
}

impl From<&ActorCell> for Node {
    fn from(actor: &ActorCell) -> Self {
        let id = actor.get_id();
        Self { id, label: actor.get_name().unwrap_or_else(|| id.to_string()).into() }
    }
}

/// The edges between all actors that wait at this moment. Every edge belongs to a [`WaitEdge`].
#[derive(Debug, Default)]
struct WaitGraph {
    edges: HashMap<ActorId, Vec<Node>>,
}

impl WaitGraph {
    fn add(&mut self, from: &Node, to: &Node) -> Result<(), Vec<String>> {
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

    /// The labels on a path from `start` to `goal`, both included.
    fn path(&self, start: &Node, goal: ActorId) -> Option<Vec<String>> {
        let mut seen = HashSet::from([start.id]);
        let mut paths = vec![vec![start]];
        while let Some(path) = paths.pop() {
            let last = path.last()?;
            if last.id == goal {
                return Some(path.iter().map(|node| node.label.to_string()).collect());
            }
            for next in self.edges.get(&last.id).into_iter().flatten() {
                if seen.insert(next.id) {
                    let mut longer = path.clone();
                    longer.push(next);
                    paths.push(longer);
                }
            }
        }
        None
    }
}

/// An actor waits for another, until this is dropped.
#[derive(Debug)]
pub(crate) struct WaitEdge {
    from: ActorId,
    to: ActorId,
}

impl WaitEdge {
    /// `from` begins to wait for `to`; `Err` with the cycle that this would close.
    pub(crate) fn begin(from: &Node, to: &Node) -> Result<Self, Vec<String>> {
        GRAPH.lock().add(from, to)?;
        Ok(Self { from: from.id, to: to.id })
    }
}

impl Drop for WaitEdge {
    fn drop(&mut self) {
        GRAPH.lock().remove(self.from, self.to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> Node {
        let id = ActorId::Local(name.bytes().map(u64::from).sum());
        Node { id, label: name.into() }
    }

    #[test]
    fn a_cycle_is_refused_and_named() {
        let mut graph = WaitGraph::default();
        let [a, b, c] = ["a", "b", "c"].map(node);
        graph.add(&a, &b).unwrap();
        graph.add(&b, &c).unwrap();
        assert_eq!(graph.add(&c, &a), Err(["c", "a", "b", "c"].map(str::to_owned).to_vec()));
        assert_eq!(graph.add(&a, &a), Err(["a", "a"].map(str::to_owned).to_vec()));
    }

    #[test]
    fn a_wait_that_is_over_closes_no_cycle() {
        let mut graph = WaitGraph::default();
        let [a, b] = ["a", "b"].map(node);
        graph.add(&a, &b).unwrap();
        graph.add(&a, &b).unwrap();
        graph.remove(a.id, b.id);
        assert!(graph.add(&b, &a).is_err());
        graph.remove(a.id, b.id);
        graph.add(&b, &a).unwrap();
        graph.remove(b.id, a.id);
        assert!(graph.edges.is_empty());
    }
}

//! Finds callers that would wait for themselves.
//!
//! A child that stops its own supervisor waits for its own end, as do two children that terminate each other. Each caller
//! that waits for the end of a child or a supervisor is entered with its tokio task; before it waits, the entries are
//! followed from what it waits for. Who runs in which task is known to the supervisors. Callers outside of any task of a
//! supervised actor are part of no circle. A caller that waits in one task for work in another, such as one it spawned,
//! is not recognised.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxBuildHasher;
use tokio::task::{self, Id};

use super::Runtime;
use super::child::{ChildTable, LiveChild};
use crate::supervisor::child::{Nested, OwnsTask};
use crate::supervisor::error::Deadlock;

static WAITS: Mutex<HashMap<Id, Vec<Target>, FxBuildHasher>> = Mutex::new(HashMap::with_hasher(FxBuildHasher));

/// What a caller waits for.
#[derive(Clone)]
pub(crate) enum Target {
    /// The end of a child, with its other tasks, and its subtree if it is a supervisor.
    Child(Id, Option<Arc<dyn OwnsTask>>, Option<Arc<dyn Nested>>),
    /// The end of a supervisor.
    Supervisor(Arc<dyn Nested>),
}

impl Target {
    pub(crate) fn child(child: &LiveChild) -> Self {
        Self::Child(child.task, child.tasks().cloned(), child.nested().cloned())
    }

    /// The end of a start.
    pub(super) fn start(task: Id) -> Self {
        Self::Child(task, None, None)
    }

    pub(super) fn contains(&self, task: Id) -> bool {
        match self {
            Self::Child(own, tasks, nested) => {
                *own == task
                    || tasks.as_ref().is_some_and(|tasks| tasks.owns(task))
                    || nested.as_ref().is_some_and(|nested| nested.contains(task))
            }
            Self::Supervisor(nested) => nested.contains(task),
        }
    }

    /// The callers in it that wait themselves, with what they wait for.
    fn waiters(&self) -> Vec<(Id, Vec<Target>)> {
        if let Self::Child(task, None, None) = self {
            let waits = WAITS.lock();
            return waits.get(task).map(|targets| (*task, targets.clone())).into_iter().collect();
        }
        let all: Vec<_> = WAITS.lock().iter().map(|(task, targets)| (*task, targets.clone())).collect();
        all.into_iter().filter(|(task, _)| self.contains(*task)).collect()
    }
}

/// A caller waits while this lives.
pub(crate) struct Wait(Option<Id>);

/// Enters the current task as waiting.
///
/// # Errors
/// When it would wait for itself.
pub(crate) fn wait_for(target: Target) -> Result<Wait, Deadlock> {
    let Some(current) = task::try_id() else { return Ok(Wait(None)) };
    // Entered first: of two that come at once at least one sees the other.
    WAITS.lock().entry(current).or_default().push(target.clone());
    let wait = Wait(Some(current));
    let mut seen = vec![];
    let mut pending = vec![target];
    while let Some(target) = pending.pop() {
        if target.contains(current) {
            return Err(Deadlock);
        }
        for (waiter, targets) in target.waiters() {
            if !seen.contains(&waiter) {
                seen.push(waiter);
                pending.extend(targets);
            }
        }
    }
    Ok(wait)
}

impl Drop for Wait {
    fn drop(&mut self) {
        let Some(task) = self.0 else { return };
        let mut waits = WAITS.lock();
        let removed = match waits.get_mut(&task) {
            Some(targets) if targets.len() > 1 => targets.pop(),
            _ => waits.remove(&task).and_then(|mut targets| targets.pop()),
        };
        drop(waits);
        drop(removed);
    }
}

impl<T: ChildTable> Runtime<T::State, T> {
    /// Whether this task is a child's, or the start of one, of this supervisor or of one below it.
    pub(super) fn contains_task(&self, task: Id) -> bool {
        let nested = self.read(|inner| {
            if inner.table.live().any(|(_, child)| child.owns(task))
                || inner.starts.values().any(|start| start.id() == task)
            {
                return None;
            }
            Some(inner.table.live().filter_map(|(_, child)| child.nested().cloned()).collect::<Vec<_>>())
        });
        nested.is_none_or(|nested| nested.iter().any(|nested| nested.contains(task)))
    }

    /// Enters the current task as waiting for this supervisor's end.
    ///
    /// # Errors
    /// When it runs below this supervisor, or is waited for from there.
    pub(crate) fn wait_for_end(self: &Arc<Self>) -> Result<Wait, Deadlock> {
        wait_for(Target::Supervisor(self.clone()))
    }
}

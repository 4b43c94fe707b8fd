//! Finds callers that would wait for themselves.
//!
//! A child that stops its own supervisor waits for its own end, as do two children that terminate each other. Each caller
//! that waits for the end of a child or a supervisor is entered with its tokio task; before it waits, the entries are
//! followed from what it waits for. Who runs in which task is known to the supervisors; a worker of a call server counts
//! as that server. Callers outside of any task of a supervised actor are part of no circle. A caller that waits in one
//! task for work in another, such as one it spawned, is not recognised.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use ractor::ActorId;
use rustc_hash::FxBuildHasher;
use tokio::task::Id;

use super::Runtime;
use super::child::{ChildTable, LiveChild};
use super::start::StartTask;
use crate::supervisor::child::{Caller, Nested};
use crate::supervisor::error::Deadlock;

static WAITS: Mutex<Waits> = Mutex::new(Waits {
    by_task: HashMap::with_hasher(FxBuildHasher),
    by_server: HashMap::with_hasher(FxBuildHasher),
    next: 0,
});

/// Supervisors that are being started below another, by the task in which they are started.
static BOOTS: Mutex<Boots> = Mutex::new(HashMap::with_hasher(FxBuildHasher));

type Boots = HashMap<Id, Vec<Arc<dyn Nested>>, FxBuildHasher>;

/// The callers that wait.
struct Waits {
    by_task: HashMap<Id, Waiter, FxBuildHasher>,
    /// Those that are workers of a call server, by that server.
    by_server: HashMap<ActorId, HashSet<Id, FxBuildHasher>, FxBuildHasher>,
    /// Numbers the waits.
    next: u64,
}

#[derive(Clone)]
struct Waiter {
    caller: Caller,
    targets: Vec<(u64, Target)>,
}

/// What a caller waits for.
#[derive(Clone)]
pub(crate) enum Target {
    /// The end of a child, and of its subtree if it is a supervisor.
    Child(Id, ActorId, Option<Arc<dyn Nested>>),
    /// The end of a start.
    Start(Id),
    /// The end of a supervisor.
    Supervisor(Arc<dyn Nested>),
}

impl Target {
    pub(crate) fn child(child: &LiveChild) -> Self {
        Self::Child(child.task, child.actor.get_id(), child.nested().cloned())
    }

    pub(super) fn contains(&self, caller: Caller) -> bool {
        match self {
            Self::Child(task, actor, nested) => {
                *task == caller.task
                    || Some(*actor) == caller.server
                    || nested.as_ref().is_some_and(|nested| nested.contains(caller))
            }
            Self::Start(task) => *task == caller.task || booted_by(*task).iter().any(|nested| nested.contains(caller)),
            Self::Supervisor(nested) => nested.contains(caller),
        }
    }

    /// The callers in it that wait themselves.
    fn waiters(&self) -> Vec<Waiter> {
        let waits = WAITS.lock();
        match self {
            Self::Start(task) if !boots(*task) => waits.by_task.get(task).cloned().into_iter().collect(),
            Self::Child(task, actor, None) => {
                let workers = waits.by_server.get(actor).into_iter().flatten();
                let tasks = workers.chain(std::iter::once(task));
                tasks.filter_map(|task| waits.by_task.get(task).cloned()).collect()
            }
            _ => {
                let all: Vec<Waiter> = waits.by_task.values().cloned().collect();
                drop(waits);
                all.into_iter().filter(|waiter| self.contains(waiter.caller)).collect()
            }
        }
    }
}

/// A caller waits while this lives.
pub(crate) struct Wait(Option<(Caller, u64)>);

/// Enters the current task as waiting.
///
/// # Errors
/// When it would wait for itself.
pub(crate) fn wait_for(target: Target) -> Result<Wait, Deadlock> {
    let Some(caller) = Caller::current() else { return Ok(Wait(None)) };
    let wait = Wait::enter(caller, target.clone());
    let mut seen = vec![];
    let mut pending = vec![target];
    while let Some(target) = pending.pop() {
        if target.contains(caller) {
            return Err(Deadlock);
        }
        for waiter in target.waiters() {
            if !seen.contains(&waiter.caller.task) {
                seen.push(waiter.caller.task);
                pending.extend(waiter.targets.into_iter().map(|(_, target)| target));
            }
        }
    }
    Ok(wait)
}

impl Wait {
    /// Before the entries are looked at: of two that come at once at least one sees the other.
    fn enter(caller: Caller, target: Target) -> Self {
        let mut waits = WAITS.lock();
        if let Some(server) = caller.server {
            waits.by_server.entry(server).or_default().insert(caller.task);
        }
        let number = waits.next;
        waits.next += 1;
        let waiter = waits.by_task.entry(caller.task).or_insert_with(|| Waiter { caller, targets: Vec::new() });
        waiter.targets.push((number, target));
        Self(Some((caller, number)))
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let Some((caller, number)) = self.0 else { return };
        let mut waits = WAITS.lock();
        let Some(waiter) = waits.by_task.get_mut(&caller.task) else { return };
        let index = waiter.targets.iter().position(|(own, _)| *own == number);
        let removed = index.map(|index| waiter.targets.swap_remove(index));
        if waiter.targets.is_empty() {
            waits.by_task.remove(&caller.task);
            if let Some(Entry::Occupied(mut workers)) = caller.server.map(|server| waits.by_server.entry(server)) {
                workers.get_mut().remove(&caller.task);
                if workers.get().is_empty() {
                    workers.remove();
                }
            }
        }
        drop(waits);
        drop(removed);
    }
}

/// A supervisor is being started in the current task, as a part of the start of another's child.
pub(super) struct Boot(Option<Id>);

impl Boot {
    pub(super) fn begin(nested: Arc<dyn Nested>) -> Self {
        let task = tokio::task::try_id();
        if let Some(task) = task {
            BOOTS.lock().entry(task).or_default().push(nested);
        }
        Self(task)
    }
}

impl Drop for Boot {
    fn drop(&mut self) {
        let Some(task) = self.0 else { return };
        let mut boots = BOOTS.lock();
        // One task starts one after the other: what it began last ends first.
        let ended = boots.get_mut(&task).and_then(Vec::pop);
        if boots.get(&task).is_some_and(Vec::is_empty) {
            boots.remove(&task);
        }
        drop(boots);
        drop(ended);
    }
}

fn boots(task: Id) -> bool {
    BOOTS.lock().contains_key(&task)
}

/// The supervisors that are being started in this task.
fn booted_by(task: Id) -> Vec<Arc<dyn Nested>> {
    BOOTS.lock().get(&task).cloned().unwrap_or_default()
}

impl<T: ChildTable> Runtime<T::State, T> {
    /// Whether the caller is a start of this supervisor, or of one that it is starting.
    pub(super) fn is_start(&self, caller: Caller) -> bool {
        let tasks = self.start_tasks();
        tasks.contains(&caller.task) || tasks.into_iter().flat_map(booted_by).any(|nested| nested.starts(caller))
    }

    fn start_tasks(&self) -> Vec<Id> {
        self.read(|inner| inner.starts.values().map(StartTask::id).collect())
    }

    /// Whether the caller is a child, a worker of a child, or the start of a child, of this supervisor or of one below it.
    pub(super) fn contains_caller(&self, caller: Caller) -> bool {
        let nested = self.read(|inner| {
            if inner.table.live().any(|(_, child)| child.is(caller)) {
                return None;
            }
            Some(inner.table.live().filter_map(|(_, child)| child.nested().cloned()).collect::<Vec<_>>())
        });
        nested.is_none_or(|nested| nested.iter().any(|nested| nested.contains(caller))) || self.is_start(caller)
    }

    /// Enters the current task as waiting for this supervisor's end.
    ///
    /// # Errors
    /// When it runs below this supervisor, or is waited for from there.
    pub(crate) fn wait_for_end(self: &Arc<Self>) -> Result<Wait, Deadlock> {
        wait_for(Target::Supervisor(self.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Workers that wait are found by their server, not by looking at every wait.
    #[tokio::test]
    async fn waiting_workers_are_found_by_their_server() {
        let (server, other) = (ActorId::Local(u64::MAX), ActorId::Local(u64::MAX - 1));
        let task = |server| async move {
            let caller = Caller { task: tokio::task::id(), server: Some(server) };
            let waits = [(); 2].map(|()| Wait::enter(caller, Target::Start(caller.task)));
            (caller.task, waits)
        };
        let mut waits = Vec::new();
        for n in 0..10 {
            waits.push(tokio::spawn(task(if n == 3 { other } else { server })).await.unwrap());
        }
        let found = |actor| Target::Child(tokio::task::id(), actor, None).waiters().len();
        let counted = tokio::spawn(async move { (found(server), found(other)) }).await.unwrap();
        assert_eq!(counted, (9, 1));
        drop(waits);
        let left = WAITS.lock();
        assert!(!left.by_server.contains_key(&server) && !left.by_server.contains_key(&other));
    }
}

//! The children of a [`Supervisor`](crate::supervisor::Supervisor), by incarnation, and their specs.

use std::sync::Arc;
use std::time::Duration;

use ractor::concurrency::JoinHandle;
use ractor::{ActorCell, ActorId};
use tokio::sync::oneshot;

use super::child::{ChildTable, Dropped, LiveChild, PreparedStart, StartCall, StopPolicy};
use super::deadlock::Target;
use super::lifecycle::Observer;
use super::{Config, Inner, Response, Runtime, StaticRuntime};
use crate::inspect::{Details, Inspect, Kind, Metric, Status, TreeNode};
use crate::supervisor::child::{Caller, Presence};
use crate::supervisor::child_spec::{ChildSettings, ChildSpec, StartFn};
use crate::supervisor::error::{Deadlock, StartError};
use crate::supervisor::event_queue::EventObserver;
use crate::supervisor::options::Restart;
use crate::supervisor::state::{
    ChildPhase, Flags, Key, Numbered, Refusal, Reply, RequestId, Run, SpecCommand, StaticState, SupervisorState,
};

/// What a supervisor starts from.
pub(crate) struct StaticLaunch {
    pub(crate) name: Arc<str>,
    pub(crate) flags: Flags,
    pub(crate) children: Vec<ChildSpec>,
    pub(crate) observer: Option<Observer>,
    pub(crate) on_event: Option<EventObserver>,
}

struct Spec {
    settings: ChildSettings,
    /// None for a temporary child that has been started.
    start: Option<StartFn>,
}

/// The children and specs of a supervisor with static children.
#[derive(Default)]
pub(crate) struct StaticTable {
    specs: Numbered<Key, Spec>,
    children: Numbered<Run, (Key, LiveChild)>,
    actors: Numbered<ActorId, Run>,
    /// Specs of `start_child` that have not been accepted yet.
    offered: Numbered<RequestId, ChildSpec>,
}

impl StaticTable {
    pub(crate) fn key_of(&self, actor: ActorId) -> Option<Key> {
        let run = self.actors.get(&actor)?;
        self.children.get(run).map(|(key, _)| *key)
    }

    pub(crate) fn offer(&mut self, request: RequestId, spec: ChildSpec) {
        self.offered.insert(request, spec);
    }
}

impl ChildTable for StaticTable {
    type State = StaticState;

    const ONE_KIND: bool = false;

    fn find(&self, actor: ActorId) -> Option<Run> {
        self.actors.get(&actor).copied()
    }

    fn get(&self, run: Run) -> Option<&LiveChild> {
        self.children.get(&run).map(|(_, child)| child)
    }

    fn get_mut(&mut self, run: Run) -> Option<&mut LiveChild> {
        self.children.get_mut(&run).map(|(_, child)| child)
    }

    fn insert(&mut self, spec: Key, run: Run, child: LiveChild) -> Option<LiveChild> {
        self.actors.insert(child.actor.get_id(), run);
        self.children.insert(run, (spec, child)).map(|(_, previous)| previous)
    }

    fn release(&mut self, run: Run) -> Option<Dropped> {
        let (_, child) = self.children.remove(&run)?;
        self.actors.remove(&child.actor.get_id());
        Some(Box::new(child))
    }

    fn live(&self) -> impl Iterator<Item = (Run, &LiveChild)> {
        self.children.iter().map(|(run, (_, child))| (*run, child))
    }

    fn len(&self) -> usize {
        self.specs.len()
    }

    fn spec_of(&self, run: Run) -> Option<Key> {
        self.children.get(&run).map(|(spec, _)| *spec)
    }

    fn presence(&self, state: &StaticState, spec: Key) -> Presence {
        let phase = state.phase_of(spec);
        let running = match phase {
            Some(ChildPhase::Running(run) | ChildPhase::Stopping(run)) => self.get(run),
            _ => None,
        };
        match (running, phase) {
            (Some(child), _) => Presence::Running(child.reference(), child.nested().cloned()),
            _ if state.is_shutting_down() => Presence::SupervisorEnded,
            (None, Some(ChildPhase::Restarting | ChildPhase::Starting)) => Presence::Restarting,
            // A strategy has stopped it, and will start it.
            (None, Some(_)) if state.awaits_restart(spec) => Presence::Restarting,
            (None, Some(_)) => Presence::Stopped,
            (None, None) => Presence::Removed,
        }
    }

    fn spec_by_id(state: &StaticState, id: &str) -> Option<Key> {
        state.key_of(id)
    }

    fn name(&self, spec: Key) -> Arc<str> {
        self.specs.get(&spec).map_or_else(|| "".into(), |spec| spec.settings.id.clone())
    }

    fn name_of_run(&self, run: Run) -> Arc<str> {
        self.children.get(&run).map_or_else(|| "".into(), |(spec, _)| self.name(*spec))
    }

    fn prepare_start(&mut self, spec: Key) -> Option<PreparedStart> {
        let Spec { settings, start } = self.specs.get_mut(&spec)?;
        let start = if settings.restart == Restart::Temporary { start.take() } else { start.clone() };
        let stop = StopPolicy { mode: settings.stop_mode, shutdown: settings.shutdown };
        let (timeout, id) = (settings.start_timeout, Some(settings.id.clone()));
        Some(PreparedStart { start: StartCall::Spec(start?), timeout, stop, id })
    }

    fn give_back(&mut self, _: Key, args: Dropped) -> Option<Dropped> {
        Some(args)
    }

    fn callers(&self) -> usize {
        0
    }

    fn change_specs(&mut self, change: SpecCommand<Key>) -> Option<Dropped> {
        match change {
            SpecCommand::Add { spec, request } => {
                let ChildSpec { settings, start } = self.offered.remove(&request)?;
                self.specs.insert(spec, Spec { settings, start: Some(start) });
                None
            }
            SpecCommand::Remove { spec } => {
                let start = self.specs.remove(&spec)?.start?;
                Some(Box::new(start))
            }
            SpecCommand::Started => None,
        }
    }

    fn forget_request(&mut self, request: RequestId) -> Option<Dropped> {
        Some(Box::new(self.offered.remove(&request)?))
    }

    fn take_specs(&mut self) -> Dropped {
        Box::new(std::mem::take(&mut self.specs))
    }
}

/// Starts a supervisor with static children. Returns when its children run, with the handle of its lifecycle task.
pub(crate) async fn launch_static(
    launch: StaticLaunch,
    parent: Option<ActorCell>,
) -> Result<(Arc<StaticRuntime>, JoinHandle<()>), StartError> {
    let StaticLaunch { name, flags, children, observer, on_event } = launch;
    let config = Config { name, kill_timeout: flags.kill_timeout, observer, on_event, has_parent: parent.is_some() };
    let runtime = Runtime::new(config, StaticState::new(flags, rand::random()), StaticTable::default());
    let boot = async {
        let (sender, booted) = oneshot::channel();
        runtime.update(|inner, now| {
            inner.booted = Some(sender);
            let settings: Vec<_> = children.iter().map(|spec| spec.settings.clone()).collect();
            for (key, ChildSpec { settings, start }) in children.into_iter().enumerate() {
                inner.table.specs.insert(key as Key, Spec { settings, start: Some(start) });
            }
            inner.state.boot(settings, now);
        });
        booted.await.unwrap_or(Err(StartError::ShuttingDown))
    };
    let task = runtime.launch(parent, boot).await?;
    Ok((runtime, task))
}

impl Inner<StaticState, StaticTable> {
    /// What a caller that terminates this child waits for.
    pub(crate) fn target(&self, id: &str) -> Option<Target> {
        let key = self.state.key_of(id)?;
        match self.state.phase_of(key)? {
            ChildPhase::Running(run) | ChildPhase::Stopping(run) => self.table.get(run).map(Target::child),
            ChildPhase::Starting | ChildPhase::Restarting => {
                self.starts.values().find(|start| start.spec() == key).map(|start| Target::Start(start.id()))
            }
            ChildPhase::Stopped => None,
        }
    }

    /// Callers that wait, and callers and operations that the state remembers.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> (usize, usize) {
        (self.requests.len(), self.state.waiting())
    }

    /// Takes back an operation that waits; returns whether it did.
    fn withdraw(&mut self, request: RequestId) -> bool {
        let withdrawn = self.state.withdraw(request);
        if withdrawn {
            self.reply(request, Reply::Done);
        }
        withdrawn
    }

    /// What the snapshot shows, and what its children add themselves.
    fn details(&self) -> (Details, Vec<Option<Arc<dyn Inspect>>>) {
        let mut details = Details::default();
        let mut shown = Vec::new();
        for (_, settings, phase, restarts) in self.state.children() {
            let (status, run) = match phase {
                ChildPhase::Stopped => (Status::Stopped, None),
                ChildPhase::Starting => (Status::Starting, None),
                ChildPhase::Running(run) => (Status::Running, Some(run)),
                ChildPhase::Stopping(run) => (Status::Stopping, Some(run)),
                ChildPhase::Restarting => (Status::Restarting, None),
            };
            let child = run.and_then(|run| self.table.get(run));
            details.children.push(TreeNode {
                id: settings.id.to_string(),
                kind: if settings.kind == Kind::Supervisor { Kind::Supervisor } else { Kind::Worker },
                status,
                actor: child.map(|child| child.actor.get_id().to_string()),
                restarts,
                details: Details::default(),
            });
            shown.push(child.and_then(LiveChild::inspect));
        }
        details.counters = [
            ("restarts", Metric::counter(self.restarts)),
            ("kill_timed_out", Metric::counter(self.own_exit.abandoned_children())),
            ("children", Metric::gauge(details.children.len() as u64)),
            ("active", Metric::gauge(self.table.children.len() as u64)),
        ]
        .into();
        (details, shown)
    }
}

impl StaticRuntime {
    /// Requests an operation that may have to wait, and waits for its response.
    ///
    /// # Errors
    /// When it would have to wait for its caller: a start of this supervisor, or a child that is being stopped.
    pub(crate) async fn request_in_turn(
        self: &Arc<Self>,
        operation: impl FnOnce(&mut Inner<StaticState, StaticTable>, RequestId, Duration),
    ) -> Result<Option<Response>, Deadlock> {
        let (request, response) = self.submit(operation);
        if !self.read(|inner| inner.state.is_queued(request)) {
            return Ok(response.await.ok());
        }
        let waits = WithdrawOnDrop { runtime: self, request };
        if let Some(caller) = Caller::current() {
            // The caller may hand the future to another task, which may wait.
            tokio::task::yield_now().await;
            if tokio::task::try_id() == Some(caller.task) {
                if self.is_start(caller) && self.update(|inner, _| inner.withdraw(request)) {
                    return Err(Deadlock);
                }
                if let Some(child) = self.child_of(caller) {
                    self.update(|inner, now| inner.state.set_caller(request, child, now));
                }
            }
        }
        let response = response.await.ok();
        drop(waits);
        match response {
            Some(Response::Refused(Refusal::Deadlock)) => Err(Deadlock),
            response => Ok(response),
        }
    }

    /// Requests the stop of a child and waits for it.
    pub(crate) async fn terminate_child(self: &Arc<Self>, id: &str) -> Option<Response> {
        let (request, response) = self.submit(|inner, request, now| inner.state.terminate_child(id, request, now));
        let waits = LeaveOnDrop { runtime: self, id, request };
        let response = response.await.ok();
        std::mem::forget(waits);
        response
    }

    /// The child that the caller is, or is below.
    fn child_of(&self, caller: Caller) -> Option<Key> {
        let children: Vec<_> =
            self.read(|inner| inner.table.children.values().map(|(key, child)| (*key, Target::child(child))).collect());
        children.into_iter().find(|(_, child)| child.contains(caller)).map(|(key, _)| key)
    }
}

/// Takes back an operation whose caller does not wait any longer.
struct WithdrawOnDrop<'a> {
    runtime: &'a Arc<StaticRuntime>,
    request: RequestId,
}

impl Drop for WithdrawOnDrop<'_> {
    fn drop(&mut self) {
        self.runtime.update(|inner, _| inner.withdraw(self.request));
    }
}

/// Forgets a caller that does not wait for the end of a child any longer. The stop goes on.
struct LeaveOnDrop<'a> {
    runtime: &'a Arc<StaticRuntime>,
    id: &'a str,
    request: RequestId,
}

impl Drop for LeaveOnDrop<'_> {
    fn drop(&mut self) {
        self.runtime.update(|inner, _| {
            inner.state.forget_waiter(self.id, self.request);
            inner.requests.remove(&self.request);
        });
    }
}

impl Inspect for StaticRuntime {
    fn inspect(&self) -> Details {
        let (details, shown) = self.read(Inner::details);
        with_children(details, shown)
    }
}

/// Adds the children's own descriptions: outside the lock, because they are the children's code.
pub(super) fn with_children(mut details: Details, shown: Vec<Option<Arc<dyn Inspect>>>) -> Details {
    for (node, inspect) in details.children.iter_mut().zip(shown) {
        if let Some(inspect) = inspect {
            node.details = inspect.inspect();
        }
    }
    details
}

//! The children of a [`DynamicSupervisor`](crate::supervisor::DynamicSupervisor) in slots, and their starts in the tasks of
//! their callers.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use plimsoll_sync::slots::{SlotKey, Slots};
use ractor::concurrency::JoinHandle;
use ractor::{ActorCell, ActorId};
use tokio::sync::oneshot;

use super::child::{ChildTable, Dropped, LiveChild, PreparedStart, StartCall, StopPolicy};
use super::deadlock::Target;
use super::effects::Effect;
use super::lifecycle::Observer;
use super::start::{attempt, end_orphans};
use super::static_table::with_children;
use super::unclaimed::StartNumber;
use super::{Config, DynamicRuntime, Inner, Response, Runtime};
use crate::inspect::{Details, Inspect, Kind, Metric, Status, TreeNode};
use crate::panics::discard;
use crate::supervisor::child::Presence;
use crate::supervisor::child::{Child, ChildRef};
use crate::supervisor::child_entry::{ChildCount, ChildEntry, ChildState};
use crate::supervisor::child_path::ChildPath;
use crate::supervisor::child_spec::{ChildSettings, StartBox, placed};
use crate::supervisor::error::StartError;
use crate::supervisor::event_queue::EventObserver;
use crate::supervisor::state::{
    DynamicPhase, DynamicState, Numbered, Refusal, Reply, RequestId, SpecCommand, SupervisorState, Template,
};

/// Puts a start in its place, and into the box that is there, if there is one.
pub(crate) type TemplateFn<A> = Arc<dyn Fn(ActorCell, A, &mut Option<StartBox>) + Send + Sync>;
/// Copies arguments, to keep them for restarts.
pub(crate) type KeepArgs<A> = fn(&A) -> A;

/// Boxes of starts kept for the next, a few KiB each.
const USED_BOXES: usize = 16;
/// Children that a snapshot shows one by one.
const SHOWN: usize = 1_000;

/// What a dynamic supervisor starts from.
pub(crate) struct DynamicLaunch<A> {
    pub(crate) name: Arc<str>,
    pub(crate) template: TemplateFn<A>,
    pub(crate) keep: Option<KeepArgs<A>>,
    pub(crate) child: Template,
    pub(crate) settings: ChildSettings,
    pub(crate) intensity: u32,
    pub(crate) period: Duration,
    pub(crate) max_children: u32,
    pub(crate) observer: Option<Observer>,
    pub(crate) on_event: Option<EventObserver>,
}

/// One child. Kept small: there may be a hundred thousand.
struct Slot<A> {
    /// None while its first start is in progress; the last incarnation while it waits for its restart.
    child: Option<LiveChild>,
    args: Option<A>,
    restarts: u32,
}

/// The children of a dynamic supervisor.
pub(crate) struct DynamicTable<A> {
    slots: Slots<Slot<A>>,
    /// Slots by the number of their actor.
    actors: Numbered<u64, SlotKey>,
    /// Boxes of starts that are over.
    used: Vec<StartBox>,
    /// Starts in progress in callers' tasks.
    callers: usize,
    started: u64,
    refused: u64,
    template: TemplateFn<A>,
    keep: Option<KeepArgs<A>>,
    settings: ChildSettings,
}

impl<A> DynamicTable<A> {
    pub(crate) fn has_actor(&self, actor: ActorId) -> bool {
        self.actors.contains_key(&actor.pid())
    }

    pub(crate) fn settings(&self) -> &ChildSettings {
        &self.settings
    }

    pub(crate) fn max_children(&self) -> u32 {
        self.slots.limit()
    }

    pub(crate) fn set_max_children(&mut self, max: u32) {
        self.slots.set_limit(max);
    }

    fn stop_policy(&self) -> StopPolicy {
        StopPolicy { mode: self.settings.stop_mode, shutdown: self.settings.shutdown }
    }
}

impl<A: Send + 'static> ChildTable for DynamicTable<A> {
    type State = DynamicState;

    const ONE_KIND: bool = true;

    fn find(&self, actor: ActorId) -> Option<SlotKey> {
        self.actors.get(&actor.pid()).copied()
    }

    fn get(&self, key: SlotKey) -> Option<&LiveChild> {
        self.slots.get(key)?.child.as_ref()
    }

    fn get_mut(&mut self, key: SlotKey) -> Option<&mut LiveChild> {
        self.slots.get_mut(key)?.child.as_mut()
    }

    fn insert(&mut self, _spec: SlotKey, key: SlotKey, child: LiveChild) -> Option<LiveChild> {
        let Some(slot) = self.slots.get_mut(key) else { return Some(child) };
        self.actors.insert(child.actor.get_id().pid(), key);
        let previous = slot.child.replace(child)?;
        slot.restarts = slot.restarts.saturating_add(1);
        self.actors.remove(&previous.actor.get_id().pid());
        Some(previous)
    }

    fn release(&mut self, key: SlotKey) -> Option<Dropped> {
        let slot = self.slots.remove(key)?;
        if let Some(child) = &slot.child {
            self.actors.remove(&child.actor.get_id().pid());
        }
        let plain = slot.args.is_none() && slot.child.as_ref().is_none_or(LiveChild::is_plain);
        (!plain).then(|| Box::new(slot) as Dropped)
    }

    fn live(&self) -> impl Iterator<Item = (SlotKey, &LiveChild)> {
        self.slots.iter().filter_map(|(key, slot)| Some((key, slot.child.as_ref()?)))
    }

    fn len(&self) -> usize {
        self.slots.len()
    }

    fn spec_of(&self, key: SlotKey) -> Option<SlotKey> {
        Some(key)
    }

    fn presence(&self, state: &DynamicState, key: SlotKey) -> Presence {
        if self.slots.get(key).is_none() {
            return Presence::Removed;
        }
        match (state.phase_of(key), self.get(key)) {
            (Some(DynamicPhase::Restarting), _) | (_, None) if state.is_shutting_down() => Presence::SupervisorEnded,
            (Some(DynamicPhase::Restarting), _) | (_, None) => Presence::Restarting,
            (_, Some(child)) => Presence::Running(child.reference(), child.nested().cloned()),
        }
    }

    fn spec_by_id(_: &DynamicState, _: &str) -> Option<SlotKey> {
        None
    }

    fn name(&self, key: SlotKey) -> Arc<str> {
        self.get(key).map(|child| child.actor.get_id().to_string()).unwrap_or_default().into()
    }

    fn name_of_run(&self, key: SlotKey) -> Arc<str> {
        self.name(key)
    }

    fn prepare_start(&mut self, key: SlotKey) -> Option<PreparedStart> {
        let keep = self.keep?;
        let args = self.slots.get_mut(key)?.args.take()?;
        let template = self.template.clone();
        let start = move |parent, place: &mut _, kept: &mut Option<Dropped>| {
            let kept = kept.insert(Box::new(args));
            if let Some(args) = kept.downcast_ref() {
                template(parent, keep(args), place);
            }
        };
        let start = StartCall::Template(Box::new(start));
        Some(PreparedStart { start, timeout: self.settings.start_timeout, stop: self.stop_policy(), id: None })
    }

    fn give_back(&mut self, key: SlotKey, args: Dropped) -> Option<Dropped> {
        let Some(slot) = self.slots.get_mut(key) else { return Some(args) };
        match args.downcast::<A>() {
            Ok(args) => {
                slot.args = Some(*args);
                None
            }
            Err(other) => Some(other),
        }
    }

    fn callers(&self) -> usize {
        self.callers
    }

    fn change_specs(&mut self, _: SpecCommand<SlotKey>) -> Option<Dropped> {
        None
    }

    fn forget_request(&mut self, _: RequestId) -> Option<Dropped> {
        None
    }

    fn take_specs(&mut self) -> Dropped {
        Box::new(())
    }
}

/// Starts a dynamic supervisor. Returns it with the handle of its lifecycle task.
pub(crate) async fn launch_dynamic<A: Send + 'static>(
    launch: DynamicLaunch<A>,
    parent: Option<ActorCell>,
) -> Result<(Arc<DynamicRuntime<A>>, JoinHandle<()>), StartError> {
    let (kill_timeout, has_parent) = (launch.child.kill_timeout, parent.is_some());
    let config =
        Config { name: launch.name, kill_timeout, observer: launch.observer, on_event: launch.on_event, has_parent };
    let state = DynamicState::new(launch.child, launch.intensity, launch.period, rand::random());
    let table = DynamicTable {
        slots: Slots::with_limit(launch.max_children),
        actors: Numbered::default(),
        used: Vec::new(),
        callers: 0,
        started: 0,
        refused: 0,
        template: launch.template,
        keep: launch.keep,
        settings: launch.settings,
    };
    let runtime = Runtime::new(config, state, table);
    let task = runtime.launch(parent, async { Ok(()) }).await?;
    Ok((runtime, task))
}

impl<A: Send + 'static> DynamicRuntime<A> {
    /// Requests the stop of a child and waits for it; `None` when there is no such child.
    pub(crate) async fn terminate_child(self: &Arc<Self>, actor: ActorId) -> Option<Response> {
        let (sender, response) = oneshot::channel();
        let request = self.update(|inner, now| inner.terminate_child(actor, sender, now))?;
        let waits = LeaveOnDrop { runtime: self, actor, request };
        let response = response.await;
        std::mem::forget(waits);
        Some(response.unwrap_or(Response::Refused(Refusal::ShuttingDown)))
    }

    /// Starts a child in the calling task.
    pub(crate) async fn start_child(self: &Arc<Self>, args: A) -> Result<ChildRef, StartError> {
        let Reserved { key, number, used, template, keep, timeout } = self.inner.lock().reserve()?;
        let mut slot = ReservedSlot { runtime: self, key: Some(key), number, loose: AtomicBool::new(false) };
        // Declared later, to be dropped earlier: what is given up has to be gone when the slot is given back.
        let mut place = used;
        let kept = keep.map(|keep| keep(&args));
        let monitor = self.monitor();
        let start = |parent| {
            template(parent, args, &mut place);
            placed(&mut place)
        };
        let outcome = {
            let path = ChildPath::new(&self.path, None);
            let mut attempt = pin!(attempt(start, &monitor, path, timeout, &slot.loose));
            match futures::poll!(&mut attempt) {
                // Most starts are over at the first poll.
                Poll::Ready(outcome) => outcome,
                Poll::Pending => tokio::select! {
                    biased;
                    outcome = attempt => outcome,
                    () = self.shutting_down.cancelled() => return Err(StartError::ShuttingDown),
                },
            }
        };
        if outcome.is_err() {
            discard(place.take());
        }
        match outcome {
            Ok(Some(child)) => match slot.fill(child, kept, place) {
                Ok(child) => Ok(child),
                Err(refused) => {
                    // The supervisor began to stop meanwhile: it waits until this one is gone.
                    refused.actor.kill();
                    let _ = refused.ended.await;
                    Err(StartError::ShuttingDown)
                }
            },
            Ok(None) => Err(StartError::Ignored),
            Err(failure) => {
                Box::pin(end_orphans(slot.orphans(), self.kill_timeout)).await;
                Err(failure.into())
            }
        }
    }
}

/// Forgets a caller that does not wait for the end of a child any longer. The stop goes on.
struct LeaveOnDrop<'a, A: Send + 'static> {
    runtime: &'a Arc<DynamicRuntime<A>>,
    actor: ActorId,
    request: RequestId,
}

impl<A: Send + 'static> Drop for LeaveOnDrop<'_, A> {
    fn drop(&mut self) {
        self.runtime.update(|inner, _| {
            if let Some(key) = inner.table.find(self.actor) {
                inner.state.forget_waiter(key, self.request);
            }
            inner.requests.remove(&self.request);
        });
    }
}

/// What a start in its caller's task needs.
struct Reserved<A> {
    key: SlotKey,
    number: StartNumber,
    used: Option<StartBox>,
    template: TemplateFn<A>,
    keep: Option<KeepArgs<A>>,
    timeout: Option<Duration>,
}

impl<A: Send + 'static> Inner<DynamicState, DynamicTable<A>> {
    fn reserve(&mut self) -> Result<Reserved<A>, StartError> {
        if self.state.is_shutting_down() {
            return Err(StartError::ShuttingDown);
        }
        let table = &mut self.table;
        let Ok(key) = table.slots.insert(Slot { child: None, args: None, restarts: 0 }) else {
            table.refused += 1;
            return Err(StartError::MaxChildren { max: table.slots.limit() });
        };
        table.callers += 1;
        self.state.reserve();
        Ok(Reserved {
            key,
            number: self.unclaimed.begin(),
            used: table.used.pop(),
            template: table.template.clone(),
            keep: table.keep,
            timeout: table.settings.start_timeout,
        })
    }

    /// A start in its caller's task came to nothing.
    fn release_slot(&mut self, key: SlotKey, number: StartNumber) {
        self.table.slots.remove(key);
        self.unclaimed.end(number).iter().for_each(ActorCell::kill);
        self.caller_is_done();
    }

    fn caller_is_done(&mut self) {
        self.table.callers -= 1;
        self.state.release();
        self.drop_early_exits();
    }

    /// Takes in the child that its caller has started; gives it back when the supervisor is about to stop.
    fn fill(
        &mut self,
        runtime: &Arc<DynamicRuntime<A>>,
        (key, number): (SlotKey, StartNumber),
        child: Child,
        args: Option<A>,
        used: Option<StartBox>,
        now: Duration,
    ) -> Option<Child> {
        if self.state.is_shutting_down() {
            self.effects.push(Effect::Drop(Box::new((args, used))));
            return Some(child);
        }
        if self.table.used.len() < USED_BOXES {
            self.table.used.extend(used);
        } else if let Some(used) = used {
            self.effects.push(Effect::Drop(Box::new(used)));
        }
        self.table.started += 1;
        let early = self.adopt(runtime, key, key, child, (self.table.stop_policy(), number), now);
        if let Some(slot) = self.table.slots.get_mut(key) {
            slot.args = args;
        }
        self.early_exit(runtime, key, early, now);
        self.caller_is_done();
        None
    }

    /// What a caller that terminates this child waits for.
    pub(crate) fn child_of(&self, actor: ActorId) -> Option<Target> {
        self.table.get(self.table.find(actor)?).map(Target::child)
    }

    /// Begins to stop a child; `None` when there is no such child.
    fn terminate_child(
        &mut self,
        actor: ActorId,
        waiting: oneshot::Sender<Response>,
        now: Duration,
    ) -> Option<RequestId> {
        let key = self.table.find(actor);
        if key.is_none() && !self.state.is_shutting_down() {
            return None;
        }
        let request = self.new_request(waiting);
        match key {
            Some(key) => {
                let nested = self.table.get(key).is_some_and(|child| child.nested().is_some());
                self.state.terminate_child(key, nested, request, now);
            }
            None => self.reply(request, Reply::Refused(Refusal::ShuttingDown)),
        }
        Some(request)
    }

    pub(crate) fn which_children(&self) -> Vec<ChildEntry> {
        let kind = self.table.settings.kind;
        let mut slots: Vec<_> = self.table.slots.iter().collect();
        slots.sort_unstable_by_key(|(key, _)| std::cmp::Reverse(*key));
        let state = |key, slot: &Slot<A>| match (self.state.phase_of(key), &slot.child) {
            (Some(DynamicPhase::Restarting), _) => ChildState::Restarting,
            (_, Some(child)) => ChildState::Running(child.actor.clone()),
            (_, None) => ChildState::Starting,
        };
        slots.into_iter().map(|(key, slot)| ChildEntry { id: None, kind, state: state(key, slot) }).collect()
    }

    pub(crate) fn count_children(&self) -> ChildCount {
        let all = self.table.slots.len();
        let active = all - self.state.restarting() - self.table.callers;
        let supervisors = if self.table.settings.kind == Kind::Supervisor { all } else { 0 };
        ChildCount { specs: 1, active, supervisors, workers: all - supervisors }
    }

    fn details(&self) -> (Details, Vec<Option<Arc<dyn Inspect>>>) {
        let mut details = Details::default();
        let mut shown = Vec::new();
        let table = &self.table;
        for (key, slot) in table.slots.iter().take(SHOWN) {
            let status = match (self.state.phase_of(key), &slot.child) {
                (Some(DynamicPhase::Restarting), _) => Status::Restarting,
                (Some(DynamicPhase::Stopping), _) => Status::Stopping,
                (None, Some(_)) => Status::Running,
                (None, None) => Status::Starting,
            };
            let actor = slot.child.as_ref().map(|child| child.actor.get_id().to_string());
            details.children.push(TreeNode {
                id: actor.clone().unwrap_or_default(),
                kind: table.settings.kind,
                status,
                actor,
                restarts: u64::from(slot.restarts),
                details: Details::default(),
            });
            shown.push(slot.child.as_ref().and_then(LiveChild::inspect));
        }
        details.counters = [
            ("children", Metric::gauge(table.slots.len() as u64)),
            ("max_children", Metric::gauge(u64::from(table.slots.limit()))),
            ("started", Metric::counter(table.started)),
            ("restarts", Metric::counter(self.restarts)),
            ("refused_max_children", Metric::counter(table.refused)),
            ("kill_timed_out", Metric::counter(self.own_exit.abandoned_children())),
        ]
        .into();
        (details, shown)
    }
}

impl<A: Send + 'static> Inspect for DynamicRuntime<A> {
    fn inspect(&self) -> Details {
        let (details, shown) = self.read(Inner::details);
        with_children(details, shown)
    }
}

/// A slot held for a start in its caller's task.
struct ReservedSlot<'a, A: Send + 'static> {
    runtime: &'a Arc<DynamicRuntime<A>>,
    key: Option<SlotKey>,
    number: StartNumber,
    /// The start may have left an actor that runs, or leave one later.
    loose: AtomicBool,
}

impl<A: Send + 'static> ReservedSlot<'_, A> {
    /// Gives the child back when the supervisor is about to stop.
    fn fill(&mut self, child: Child, args: Option<A>, used: Option<StartBox>) -> Result<ChildRef, Child> {
        let Some(key) = self.key else { return Err(child) };
        let reference = child.reference();
        match self.runtime.update(|inner, now| inner.fill(self.runtime, (key, self.number), child, args, used, now)) {
            None => {
                self.key = None;
                Ok(reference)
            }
            Some(refused) => Err(refused),
        }
    }

    fn orphans(&self) -> Vec<ActorCell> {
        let loose = self.loose.load(Ordering::Relaxed);
        let mut inner = self.runtime.inner.lock();
        if self.key.is_some() { inner.orphans(self.runtime, self.number, loose) } else { Vec::new() }
    }
}

impl<A: Send + 'static> Drop for ReservedSlot<'_, A> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.orphans().iter().for_each(ActorCell::kill);
            self.runtime.update(|inner, _| inner.release_slot(key, self.number));
        }
    }
}

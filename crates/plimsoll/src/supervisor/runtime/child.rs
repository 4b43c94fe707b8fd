//! Children that run, and the table that holds them.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ractor::concurrency::JoinHandle;
use ractor::{ActorCell, ActorId};
use tokio::task::Id;
use tokio_util::sync::CancellationToken;

use crate::exit::{ExitReason, Failure};
use crate::inspect::Inspect;
use crate::panics;
use crate::supervisor::child::{Caller, Child, ChildRef, Nested, Presence};
use crate::supervisor::child_spec::{StartBox, StartFn};
use crate::supervisor::current_message::CurrentMessage;
use crate::supervisor::options::{Shutdown, StopMode};
use crate::supervisor::state::{Remains, RequestId, SpecCommand, SupervisorState};
use crate::supervisor::stop_deadline::StopDeadline;

/// One incarnation that runs, or has not ended yet. Kept small: there may be a hundred thousand.
pub(crate) struct LiveChild {
    pub(crate) actor: ActorCell,
    /// Its task.
    pub(super) task: Id,
    /// The handle of its task, until something waits for it.
    pub(super) join: Option<JoinHandle<()>>,
    pub(super) since: Duration,
    pub(super) stop: StopPolicy,
    extras: Option<Box<Extras>>,
}

/// What few children have.
#[derive(Default)]
struct Extras {
    value: Option<Arc<dyn Any + Send + Sync>>,
    inspect: Option<Arc<dyn Inspect>>,
    token: Option<CancellationToken>,
    nested: Option<Arc<dyn Nested>>,
    current_message: Option<CurrentMessage>,
    stop_deadline: Option<StopDeadline>,
    /// The message that it handled when it was killed.
    killed_with: Option<Arc<str>>,
    exit: ExitProgress,
}

/// How a child is asked to stop.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StopPolicy {
    pub(crate) mode: StopMode,
    pub(crate) shutdown: Shutdown,
}

impl LiveChild {
    pub(super) fn new(child: Child, stop: StopPolicy, now: Duration) -> Self {
        let Child { actor, ended, inspect, value, token, nested, current_message, stop_deadline } = child;
        let plain = inspect.is_none()
            && value.is_none()
            && token.is_none()
            && nested.is_none()
            && current_message.is_none()
            && stop_deadline.is_none();
        let extras = (!plain).then(|| {
            let extras = Extras::default();
            Box::new(Extras { value, inspect, token, nested, current_message, stop_deadline, ..extras })
        });
        Self { actor, task: ended.id(), join: Some(ended), since: now, stop, extras }
    }

    pub(crate) fn reference(&self) -> ChildRef {
        let value = self.extras.as_ref().and_then(|extras| extras.value.clone());
        ChildRef { actor: self.actor.clone(), value }
    }

    pub(crate) fn inspect(&self) -> Option<Arc<dyn Inspect>> {
        self.extras.as_ref()?.inspect.clone()
    }

    /// Whether it can be dropped under the lock. The handle of its task may contain the payload of a panic.
    pub(super) fn is_plain(&self) -> bool {
        self.extras.is_none() && self.join.is_none()
    }

    /// Sets how long the child may take to stop.
    pub(super) fn set_stop_deadline(&self) {
        if let (Some(extras), Shutdown::After(time)) = (&self.extras, self.stop.shutdown)
            && let Some(deadline) = &extras.stop_deadline
        {
            deadline.set_after(time);
        }
    }

    pub(super) fn token(&self) -> Option<&CancellationToken> {
        self.extras.as_ref()?.token.as_ref()
    }

    pub(super) fn nested(&self) -> Option<&Arc<dyn Nested>> {
        self.extras.as_ref()?.nested.as_ref()
    }

    /// Whether the caller is this child or a worker of it, not something below it.
    pub(super) fn is(&self, caller: Caller) -> bool {
        self.task == caller.task || caller.server == Some(self.actor.get_id())
    }

    pub(super) fn exit(&mut self) -> &mut ExitProgress {
        &mut self.extras.get_or_insert_default().exit
    }

    /// Remembers the message that it handles: a kill interrupts it.
    pub(super) fn remember_message(&mut self) {
        if let Some(extras) = &mut self.extras {
            extras.killed_with = extras.current_message.as_ref().and_then(CurrentMessage::get);
        }
    }

    /// The message that it handles, or handled when it was killed.
    pub(super) fn message(&self) -> Option<Arc<str>> {
        let extras = self.extras.as_ref()?;
        extras.killed_with.clone().or_else(|| extras.current_message.as_ref()?.get())
    }
}

/// The parts of an exit, which arrive one by one: the reason by ractor's event, the end of the task by its handle, and
/// from a nested supervisor its report. The state gets the exit when reason and end are known; earlier when the task does
/// not end in time, or when a nested supervisor has reported children that could not be ended. In these cases it gets the
/// end later as well.
#[derive(Debug, Default)]
pub(super) struct ExitProgress {
    reason: Option<ExitReason>,
    joined: bool,
    panic: Option<Failure>,
    /// The state knows of the exit.
    applied: bool,
    /// A nested supervisor that leaves children behind.
    abandoned_children: bool,
}

/// What the state does not know yet.
#[derive(Debug)]
pub(super) enum ExitStep {
    Exited(ExitReason, Remains),
    Ended,
}

impl ExitProgress {
    /// The first reason counts.
    pub(super) fn set_reason(&mut self, reason: ExitReason) {
        self.reason.get_or_insert(reason);
    }

    pub(super) fn has_reason(&self) -> bool {
        self.reason.is_some()
    }

    pub(super) fn joined(&mut self, panic: Option<Failure>) {
        self.joined = true;
        self.panic = panic;
    }

    pub(super) fn is_joined(&self) -> bool {
        self.joined
    }

    pub(super) fn reported(&mut self, abandoned_children: bool) {
        self.abandoned_children = abandoned_children;
    }

    /// The task has not ended long after the exit: the reason, unless the state knows.
    pub(super) fn lingers(&mut self) -> Option<ExitReason> {
        let reason = self.reason.as_ref().filter(|_| !self.applied)?;
        self.applied = true;
        Some(reason.clone())
    }

    pub(super) fn next_step(&mut self) -> Option<ExitStep> {
        let reason = self.reason.as_ref()?;
        if !self.joined && (!self.abandoned_children || self.applied) {
            return None;
        }
        if std::mem::replace(&mut self.applied, true) {
            return Some(ExitStep::Ended);
        }
        let reason = self.panic.clone().map_or_else(|| reason.clone(), ExitReason::Failed);
        Some(ExitStep::Exited(reason, if self.joined { Remains::Nothing } else { Remains::Subtree }))
    }
}

/// The exit of an actor, as ractor reports it.
#[derive(Debug)]
pub(crate) enum ExitEvent {
    /// An ordinary exit; the panic of the actor's state when it was dropped.
    Terminated(ExitReason, Option<Failure>),
    /// A failure: its text.
    Failed(String),
}

impl ExitEvent {
    /// The exit reason of an actor that ran in `task`.
    pub(super) fn reason(self, task: Id) -> ExitReason {
        match self {
            Self::Terminated(_, Some(failure)) => ExitReason::Failed(failure),
            Self::Terminated(reason, None) => reason,
            Self::Failed(text) => ExitReason::Failed(panics::located(&text, Some(task))),
        }
    }
}

/// What a start needs.
pub(crate) struct PreparedStart {
    pub(super) start: StartCall,
    pub(super) timeout: Option<Duration>,
    pub(super) stop: StopPolicy,
    /// The child's id; none for a dynamic child.
    pub(super) id: Option<Arc<str>>,
}

/// A start function with its arguments.
pub(super) enum StartCall {
    Spec(StartFn),
    Template(TemplateCall),
}

/// The template of a dynamic supervisor with the arguments of one child. It copies them for the start and puts the
/// originals into the last place, also when copying panics.
pub(super) type TemplateCall = Box<dyn FnOnce(ActorCell, &mut Option<StartBox>, &mut Option<Dropped>) + Send>;

/// The children of one supervisor, and their specs.
pub(crate) trait ChildTable: Sized + Send + 'static {
    /// The state machine that decides about these children.
    type State: SupervisorState;

    /// The children are of one kind: their failures are logged together.
    const ONE_KIND: bool;

    fn find(&self, actor: ActorId) -> Option<RunOf<Self>>;
    fn get(&self, run: RunOf<Self>) -> Option<&LiveChild>;
    fn get_mut(&mut self, run: RunOf<Self>) -> Option<&mut LiveChild>;
    /// Returns what was there before.
    fn insert(&mut self, spec: SpecOf<Self>, run: RunOf<Self>, child: LiveChild) -> Option<LiveChild>;
    /// Drops what is kept of an incarnation; returns what has to be dropped outside the lock.
    fn release(&mut self, run: RunOf<Self>) -> Option<Dropped>;
    fn live(&self) -> impl Iterator<Item = (RunOf<Self>, &LiveChild)>;
    /// How many children there are, those that start, restart or stop included.
    fn len(&self) -> usize;
    /// The spec of an incarnation.
    fn spec_of(&self, run: RunOf<Self>) -> Option<SpecOf<Self>>;
    /// The spec with this id; none for dynamic children.
    fn spec_by_id(state: &Self::State, id: &str) -> Option<SpecOf<Self>>;
    /// What a handle to this child finds.
    fn presence(&self, state: &Self::State, spec: SpecOf<Self>) -> Presence;
    /// The name of a child in logs and reports.
    fn name(&self, spec: SpecOf<Self>) -> Arc<str>;
    fn name_of_run(&self, run: RunOf<Self>) -> Arc<str>;
    /// What a start needs; `None` when the spec is gone.
    fn prepare_start(&mut self, spec: SpecOf<Self>) -> Option<PreparedStart>;
    /// The arguments of a dynamic child that a start has used; returned when there is no such child any more.
    fn give_back(&mut self, spec: SpecOf<Self>, args: Dropped) -> Option<Dropped>;
    /// How many starts are in progress in callers' tasks.
    fn callers(&self) -> usize;
    /// Changes the specs; returns what has to be dropped outside the lock.
    fn change_specs(&mut self, change: SpecCommand<SpecOf<Self>>) -> Option<Dropped>;
    /// The reply to this request was sent.
    fn forget_request(&mut self, request: RequestId) -> Option<Dropped>;
    /// The supervisor has ended.
    fn take_specs(&mut self) -> Dropped;
}

pub(crate) type SpecOf<T> = <<T as ChildTable>::State as SupervisorState>::Spec;
pub(crate) type RunOf<T> = <<T as ChildTable>::State as SupervisorState>::Run;

/// A user's value, to be dropped outside the lock.
pub(crate) type Dropped = Box<dyn Any + Send>;

/// The number of exits that are kept for starts in progress; the oldest is dropped beyond it.
const EARLY_EXITS: usize = 1_024;

/// Exits of linked actors that are not in the table yet, because their starts are in progress.
#[derive(Debug, Default)]
pub(super) struct EarlyExits(VecDeque<(ActorId, ExitEvent)>);

impl EarlyExits {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn push(&mut self, actor: ActorId, exit: ExitEvent) -> Option<(ActorId, ExitEvent)> {
        let oldest = if self.0.len() == EARLY_EXITS { self.0.pop_front() } else { None };
        self.0.push_back((actor, exit));
        oldest
    }

    pub(super) fn take(&mut self, actor: ActorId) -> Option<ExitEvent> {
        let index = self.0.iter().position(|(early, _)| *early == actor)?;
        self.0.remove(index).map(|(_, exit)| exit)
    }
}

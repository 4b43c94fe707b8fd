//! What executes the decisions of a supervisor's [state](super::state), for static and for dynamic children.
//!
//! A supervisor is two small actors ([`actors`]) and a task ([`lifecycle`]). None of them owns the state: it is behind one
//! lock, which is held for one event and the commands that follow, never across an `await` and never while user code
//! runs. Each event source takes the lock directly, so nothing queues: a read is a look, an operation is requested in its
//! caller's task, and an exit is applied by the monitor that receives it.
//!
//! What wakes other tasks or runs user code ([`Effects`]) is done after the lock is released.

mod actors;
mod child;
mod child_slots;
mod deadlock;
mod dynamic_table;
mod effects;
mod lifecycle;
mod monitor_check;
mod own_exit;
mod start;
mod static_table;
mod termination;
mod unclaimed;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use ractor::ActorCell;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use self::child::{ChildTable, LiveChild};
use self::child::{EarlyExits, RunOf, SpecOf};
use self::child_slots::ChildSlots;
pub(crate) use self::deadlock::wait_for;
pub(crate) use self::dynamic_table::{DynamicLaunch, DynamicTable, KeepArgs, TemplateFn, launch_dynamic};
use self::effects::{Effect, Effects};
pub(crate) use self::lifecycle::Observer;
use self::own_exit::OwnExit;
use self::start::StartTask;
pub(crate) use self::start::{describe, guarded_start};
pub(crate) use self::static_table::{StaticLaunch, StaticTable, launch_static};
use self::unclaimed::Unclaimed;
use super::child::{BoxFuture, Caller, ChildRef, ChildSlot, Nested};
use super::child_path;
use super::error::StartError;
use super::event_queue::{EventObserver, Events};
use super::log::{self, Line};
use super::shutdown_report::ShutdownReport;
use super::state::{
    Command, DynamicState, Event, Numbered, Refusal, Reply, RequestId, SpecCommand, StaticState, SupervisorState,
};
use crate::panics::guarded;

/// One running supervisor.
pub(crate) struct Runtime<S: SupervisorState, T> {
    pub(crate) name: Arc<str>,
    /// Its path below the supervisor that is nobody's child; empty for that one.
    path: Arc<str>,
    /// How long a killed child is waited for.
    kill_timeout: Duration,
    /// Where its tasks run.
    tokio: Handle,
    epoch: Instant,
    /// What the parent and callers see.
    actor: OnceLock<ActorCell>,
    /// What children are linked to.
    monitor: ArcSwapOption<ActorCell>,
    /// A monitor had to be replaced, so that children may be linked to another than the one in use.
    monitor_replaced: AtomicBool,
    /// Something was started since the monitor was checked.
    unchecked: AtomicBool,
    /// A start was given up in a way that may still link an actor.
    late_links: AtomicBool,
    /// Wakes the lifecycle task: an earlier timer, or the end.
    wake: Notify,
    /// Nothing runs any more, or only what a kill cannot end.
    nothing_runs: CancellationToken,
    /// The actors are gone too, and the report is written.
    ended: CancellationToken,
    /// The supervisor stops: starts in callers' tasks end.
    shutting_down: CancellationToken,
    report: OnceLock<Arc<ShutdownReport>>,
    observer: Option<Observer>,
    pub(crate) events: Arc<Events>,
    /// A parent receives the report and decides who else does.
    has_parent: bool,
    inner: Mutex<Inner<S, T>>,
}

// The state's type is a parameter of its own, and not found through the table's trait, so that a future that holds a
// runtime is `Send` for every kind of arguments.
pub(crate) type RuntimeOf<T> = Runtime<<T as ChildTable>::State, T>;
type InnerOf<T> = Inner<<T as ChildTable>::State, T>;
pub(crate) type StaticRuntime = Runtime<StaticState, StaticTable>;
pub(crate) type DynamicRuntime<A> = Runtime<DynamicState, DynamicTable<A>>;

/// What the lock protects.
pub(crate) struct Inner<S: SupervisorState, T> {
    pub(crate) state: S,
    pub(crate) table: T,
    requests: Numbered<RequestId, oneshot::Sender<Response>>,
    next_request: RequestId,
    starts: Numbered<S::Run, StartTask<S::Spec>>,
    /// The start task that has just finished a start, and what it is to start next.
    free_task: Option<tokio::task::AbortHandle>,
    next_start: Option<S::Run>,
    early_exits: EarlyExits,
    unclaimed: Unclaimed,
    /// Notified when the supervisor's own start is over.
    booted: Option<oneshot::Sender<Result<(), StartError>>>,
    pub(crate) restarts: u64,
    pub(crate) own_exit: OwnExit,
    /// Until when the lifecycle task sleeps; none inside: until it is woken.
    sleeps_until: Option<Duration>,
    monitor_lost: bool,
    /// The state can no longer be relied upon.
    abandoned: bool,
    events: Arc<Events>,
    effects: Effects,
    /// What child handles read.
    slots: ChildSlots<S::Spec>,
}

/// What a waiting caller receives.
#[derive(Debug)]
pub(crate) enum Response {
    Started(ChildRef),
    Ignored,
    Done,
    AlreadyStarted(ChildRef),
    Refused(Refusal),
}

/// How a runtime is made.
pub(crate) struct Config {
    pub(crate) name: Arc<str>,
    pub(crate) kill_timeout: Duration,
    pub(crate) observer: Option<Observer>,
    pub(crate) on_event: Option<EventObserver>,
    pub(crate) has_parent: bool,
}

impl<T: ChildTable> Runtime<T::State, T> {
    fn new(config: Config, state: T::State, table: T) -> Arc<Self> {
        let Config { name, kill_timeout, observer, on_event, has_parent } = config;
        let events = Arc::new(Events::new(name.clone(), on_event, T::ONE_KIND));
        Arc::new(Self {
            name,
            path: if has_parent { child_path::current() } else { "".into() },
            kill_timeout,
            tokio: Handle::current(),
            epoch: Instant::now(),
            actor: OnceLock::new(),
            monitor: ArcSwapOption::empty(),
            monitor_replaced: AtomicBool::new(false),
            unchecked: AtomicBool::new(false),
            late_links: AtomicBool::new(false),
            wake: Notify::new(),
            nothing_runs: CancellationToken::new(),
            ended: CancellationToken::new(),
            shutting_down: CancellationToken::new(),
            report: OnceLock::new(),
            observer,
            events: events.clone(),
            has_parent,
            inner: Mutex::new(Inner::new(state, table, events)),
        })
    }

    /// Its actor. Set before a reference is given out.
    pub(crate) fn actor(&self) -> &ActorCell {
        self.actor.get().expect("the actor starts before a reference is given out")
    }

    /// The actor that children link to.
    pub(crate) fn monitor(&self) -> Arc<ActorCell> {
        self.monitor.load_full().expect("the monitor starts before any child")
    }

    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Changes the state and executes what it decides. Should that panic, the supervisor is over: everything is killed,
    /// and nobody waits any longer.
    pub(crate) fn update<U: Default>(self: &Arc<Self>, change: impl FnOnce(&mut InnerOf<T>, Duration) -> U) -> U {
        self.update_then(change, |_, result| result)
    }

    fn update_then<U: Default, V: Default>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut InnerOf<T>, Duration) -> U,
        then: impl FnOnce(&mut InnerOf<T>, U) -> V,
    ) -> V {
        let mut inner = self.inner.lock();
        let changed = guarded(|| {
            let result = change(&mut inner, self.now());
            inner.execute(self);
            then(&mut inner, result)
        });
        if changed.is_err() {
            inner.abandon();
        }
        inner.publish_slots();
        if inner.state.is_shutting_down() || changed.is_err() {
            self.shutting_down.cancel();
        }
        let wake = inner.sleeps_too_long();
        let effects = std::mem::take(&mut inner.effects);
        drop(inner);
        if wake {
            self.wake.notify_one();
        }
        effects.run();
        self.events.deliver();
        changed.unwrap_or_else(|failure| {
            log::crashed(&self.name, &failure.message);
            V::default()
        })
    }

    fn apply(self: &Arc<Self>, event: Event<RunOf<T>>) {
        self.update(|inner, now| inner.state.apply(event, now));
    }

    pub(crate) fn is_shutting_down(&self) -> bool {
        self.read(|inner| inner.state.is_shutting_down())
    }

    /// Reads the state.
    pub(crate) fn read<U>(&self, read: impl FnOnce(&InnerOf<T>) -> U) -> U {
        read(&self.inner.lock())
    }

    /// Requests an operation. The response is an error when the supervisor is gone.
    fn submit(
        self: &Arc<Self>,
        operation: impl FnOnce(&mut InnerOf<T>, RequestId, Duration),
    ) -> (RequestId, oneshot::Receiver<Response>) {
        let (sender, response) = oneshot::channel();
        let request = self.update(|inner, now| {
            let request = inner.new_request(sender);
            operation(inner, request, now);
            request
        });
        (request, response)
    }

    /// Stops the supervisor, without waiting.
    pub(crate) fn begin_stop(self: &Arc<Self>) {
        self.apply(Event::Stop);
    }

    /// Stops the supervisor for a caller that waits for the report.
    pub(crate) fn begin_stop_for_caller(self: &Arc<Self>) {
        self.update(|inner, now| {
            inner.own_exit.requested_by_caller();
            inner.state.apply(Event::Stop, now);
        });
    }

    pub(crate) fn report(&self) -> Option<Arc<ShutdownReport>> {
        self.report.get().cloned()
    }

    /// Gives the report to the observer.
    fn observe(&self) {
        if let (Some(observer), Some(report)) = (&self.observer, self.report.get()) {
            let _ = guarded(|| observer(report));
        }
    }

    /// Links a child that is linked to a monitor no longer in use to the one that is.
    fn relink(&self, child: &ActorCell) {
        let monitor = self.monitor();
        if let Some(parent) = child.try_get_supervisor()
            && parent.get_id() != monitor.get_id()
            && self.is_monitor(&parent)
        {
            child.link((*monitor).clone());
        }
    }

    fn is_linked(&self, child: &ActorCell) -> bool {
        let monitor = self.monitor();
        child.try_get_supervisor().is_some_and(|parent| parent.get_id() == monitor.get_id())
    }

    /// Whether this actor is, or was, a monitor of this supervisor.
    fn is_monitor(&self, actor: &ActorCell) -> bool {
        actor.try_get_supervisor().is_some_and(|parent| parent.get_id() == self.actor().get_id())
    }
}

impl<S: SupervisorState, T> Runtime<S, T> {
    /// Waits until the supervisor has ended.
    pub(crate) async fn wait(&self) -> Arc<ShutdownReport> {
        self.ended.cancelled().await;
        self.report.get().expect("the report is written before the end is announced").clone()
    }
}

impl<T: ChildTable> Nested for Runtime<T::State, T> {
    fn slot(&self, id: &str) -> Option<Arc<ChildSlot>> {
        let mut inner = self.inner.lock();
        let spec = T::spec_by_id(&inner.state, id)?;
        Some(inner.slot(spec))
    }

    fn ended(&self) -> BoxFuture<'_, Arc<ShutdownReport>> {
        Box::pin(self.wait())
    }

    fn observe(&self) {
        Runtime::observe(self);
    }

    fn contains(&self, caller: Caller) -> bool {
        self.contains_caller(caller)
    }

    fn starts(&self, caller: Caller) -> bool {
        self.is_start(caller)
    }
}

impl<T: ChildTable> Inner<T::State, T> {
    fn new(state: T::State, table: T, events: Arc<Events>) -> Self {
        Self {
            state,
            table,
            requests: Numbered::default(),
            next_request: 0,
            starts: Numbered::default(),
            free_task: None,
            next_start: None,
            early_exits: EarlyExits::default(),
            unclaimed: Unclaimed::default(),
            booted: None,
            restarts: 0,
            own_exit: OwnExit::default(),
            sleeps_until: None,
            monitor_lost: false,
            abandoned: false,
            events,
            effects: Effects::default(),
            slots: ChildSlots::default(),
        }
    }

    fn new_request(&mut self, waiting: oneshot::Sender<Response>) -> RequestId {
        let request = self.next_request;
        self.next_request += 1;
        self.requests.insert(request, waiting);
        request
    }

    /// Executes what the state decided, and what it decides upon that.
    fn execute(&mut self, runtime: &Arc<RuntimeOf<T>>) {
        while let Some(command) = self.state.next_command() {
            match command {
                Command::Start { spec, run } => self.start(runtime, spec, run),
                Command::CancelStart { run } => self.cancel_start(run, runtime.now()),
                Command::RequestStop { run } => self.request_stop(runtime, run),
                Command::Kill { run } => self.kill(runtime, run),
                Command::Release { run } => self.release(run),
                Command::ListRunning => {
                    let running = self.table.live().map(|(run, child)| (run, child.nested().is_some())).collect();
                    self.state.apply(Event::Running(running), runtime.now());
                }
                Command::Reply { request, reply } => self.reply(request, reply),
                Command::Spec(change) => self.change_specs(runtime, change),
                Command::Notice(notice) => self.notice(runtime, notice),
                Command::Finish { exit } => self.finish(exit),
            }
        }
        if self.state.is_shutting_down() {
            self.own_exit.begin(runtime.now());
        }
    }

    fn reply(&mut self, request: RequestId, reply: Reply<RunOf<T>>) {
        if let Some(dropped) = self.table.forget_request(request) {
            self.effects.push(Effect::Drop(dropped));
        }
        let Some(waiting) = self.requests.remove(&request) else { return };
        let child = |run| self.table.get(run).map(LiveChild::reference);
        let response = match reply {
            Reply::Started { run } => child(run).map(Response::Started),
            Reply::AlreadyStarted { run } => child(run).map(Response::AlreadyStarted),
            Reply::Ignored => Some(Response::Ignored),
            Reply::Done => Some(Response::Done),
            Reply::Refused(refusal) => Some(Response::Refused(refusal)),
        };
        self.effects.push(Effect::Respond(waiting, response.unwrap_or(Response::Refused(Refusal::NotFound))));
    }

    fn change_specs(&mut self, runtime: &Arc<RuntimeOf<T>>, change: SpecCommand<SpecOf<T>>) {
        if matches!(change, SpecCommand::Started) {
            self.events.push_line(Line::Started, runtime.now());
            self.boot_is_over(Ok(()));
        }
        if let Some(dropped) = self.table.change_specs(change) {
            self.effects.push(Effect::Drop(dropped));
        }
    }

    fn boot_is_over(&mut self, result: Result<(), StartError>) {
        if let Some(booted) = self.booted.take() {
            self.effects.push(Effect::Booted(booted, result));
        }
    }

    fn release(&mut self, run: RunOf<T>) {
        self.touch(self.table.spec_of(run));
        if let Some(dropped) = self.table.release(run) {
            self.effects.push(Effect::Drop(dropped));
        }
    }

    /// Whether the lifecycle task sleeps longer than it may.
    fn sleeps_too_long(&self) -> bool {
        let earlier = match (self.state.deadline(), self.sleeps_until) {
            (Some(deadline), Some(until)) => deadline < until,
            (deadline, _) => deadline.is_some(),
        };
        earlier || self.own_exit.is_over()
    }

    /// Kills whatever is there, without the state, and lets nobody wait any longer: for when the lifecycle task is gone,
    /// or the state cannot be relied upon.
    fn abandon(&mut self) {
        self.abandoned = true;
        self.state.abandon();
        self.free_task = None;
        if let Some(next) = self.next_start.take()
            && let Some(start) = self.starts.get_mut(&next)
        {
            start.begun = false;
        }
        // Those that have not begun will not report.
        for (_, mut start) in self.starts.extract_if(|_, start| {
            start.abort();
            !start.begun
        }) {
            self.effects.push(Effect::Drop(Box::new(start.take_prepared())));
        }
        for (_, child) in self.table.live() {
            child.actor.kill();
        }
        self.own_exit.abandon();
        self.requests.clear();
        self.boot_is_over(Err(StartError::ShuttingDown));
    }

    /// Whether an incarnation is left that nothing could end.
    fn anything_left(&self) -> bool {
        self.table.live().next().is_some() || !self.starts.is_empty()
    }
}

//! Starting children: one start function at a time in its task, its panics and its timeout, and what it leaves behind.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use tracing::Level;

use futures::FutureExt;
use ractor::{ActorCell, ActorStatus, SpawnErr};
use tokio::task::AbortHandle;

use super::child::{ChildTable, Dropped, ExitEvent, LiveChild, PreparedStart, RunOf, SpecOf, StartCall, StopPolicy};
use super::effects::Effect;
use super::termination::is_exiting;
use super::unclaimed::StartNumber;
use super::{Inner, RuntimeOf};
use crate::exit::Failure;
use crate::panics::{self, discard};
use crate::supervisor::child::Child;
use crate::supervisor::child_path::{ChildPath, within};
use crate::supervisor::child_spec::{StartBox, placed};
use crate::supervisor::error::{BoxError, StartError};
use crate::supervisor::event::SupervisorEvent;
use crate::supervisor::state::{Event, StartFailure, SupervisorState};

/// A start during a restart that takes longer does not hold up operations any more.
const SLOW_START: Duration = Duration::from_millis(1);

/// How long a child that is not linked is waited for after its kill.
const UNLINKED_KILL_TIMEOUT: Duration = Duration::from_secs(1);

/// The task of a start.
pub(super) struct StartTask<S> {
    spec: S,
    stop: StopPolicy,
    number: StartNumber,
    task: AbortHandle,
    /// What it starts, until it has taken that. It is kept here because a task that is spawned while the tokio runtime ends
    /// is dropped at once: under the lock, where a user's value must not be dropped.
    prepared: Option<PreparedStart>,
    /// It has run: when it is aborted it reports so itself.
    pub(super) begun: bool,
    /// It was aborted, and may end at any `await` that follows.
    aborted: bool,
}

impl<S> StartTask<S> {
    pub(super) fn abort(&mut self) {
        self.aborted = true;
        self.task.abort();
    }

    /// What it would have started, to be dropped outside the lock.
    pub(super) fn take_prepared(&mut self) -> Option<PreparedStart> {
        self.prepared.take()
    }

    pub(super) fn spec(&self) -> S
    where
        S: Copy,
    {
        self.spec
    }

    pub(super) fn id(&self) -> tokio::task::Id {
        self.task.id()
    }
}

impl<T: ChildTable> Inner<T::State, T> {
    pub(super) fn start(&mut self, runtime: &Arc<RuntimeOf<T>>, spec: SpecOf<T>, run: RunOf<T>) {
        let Some(prepared) = self.table.prepare_start(spec) else { return };
        let (stop, number) = (prepared.stop, self.unclaimed.begin());
        let (task, begun) = match self.free_task.take() {
            Some(task) => {
                self.next_start = Some(run);
                (task, true)
            }
            None => (runtime.tokio.spawn(run_starts(runtime.clone(), run)).abort_handle(), false),
        };
        let prepared = Some(prepared);
        self.starts.insert(run, StartTask { spec, stop, number, task, prepared, begun, aborted: false });
    }

    pub(super) fn cancel_start(&mut self, run: RunOf<T>, now: Duration) {
        let Some(start) = self.starts.get_mut(&run) else { return };
        start.abort();
        if !start.begun {
            self.remove_start(run);
            self.state.apply(Event::StartFailed { run, failure: StartFailure::Cancelled }, now);
        }
    }

    /// Forgets a start whose task will not report.
    fn remove_start(&mut self, run: RunOf<T>) {
        let Some(mut start) = self.starts.remove(&run) else { return };
        self.unclaimed.end(start.number).iter().for_each(ActorCell::kill);
        if let Some(prepared) = start.take_prepared() {
            self.effects.push(Effect::Drop(Box::new(prepared)));
        }
    }

    /// The task of a start begins it; returns what it starts, if the start is still wanted.
    fn start_begins(&mut self, run: RunOf<T>) -> Option<(StartNumber, PreparedStart)> {
        let start = self.starts.get_mut(&run)?;
        start.begun = true;
        Some((start.number, start.take_prepared()?))
    }

    fn start_is_over(
        &mut self,
        runtime: &Arc<RuntimeOf<T>>,
        run: RunOf<T>,
        outcome: Result<Option<Child>, StartFailure>,
        args: Option<Dropped>,
        now: Duration,
    ) {
        let Some(start) = self.starts.remove(&run) else {
            return self.effects.push(Effect::Drop(Box::new((outcome, args))));
        };
        if let Some(args) = args
            && let Some(dropped) = self.table.give_back(start.spec, args)
        {
            self.effects.push(Effect::Drop(dropped));
        }
        match outcome {
            Ok(Some(child)) => {
                let nested = child.nested.is_some();
                let early = self.adopt(runtime, start.spec, run, child, (start.stop, start.number), now);
                self.state.apply(Event::Started { run, nested }, now);
                self.early_exit(runtime, run, early, now);
            }
            Ok(None) => self.state.apply(Event::Ignored { run }, now),
            Err(failure) => self.state.apply(Event::StartFailed { run, failure }, now),
        }
        self.unclaimed.end(start.number).iter().for_each(ActorCell::kill);
        // The task of one start performs the next, unless it was told to end.
        self.free_task = Some(start).filter(|start| !start.aborted).map(|start| start.task);
        self.drop_early_exits();
    }

    /// Takes a started child into the table. Returns its exit, if that was reported already.
    pub(super) fn adopt(
        &mut self,
        runtime: &Arc<RuntimeOf<T>>,
        spec: SpecOf<T>,
        run: RunOf<T>,
        child: Child,
        (stop, number): (StopPolicy, StartNumber),
        now: Duration,
    ) -> Option<ExitEvent> {
        if runtime.monitor_replaced.load(Ordering::Acquire) {
            runtime.relink(&child.actor);
        }
        runtime.plan_monitor_check();
        let id = child.actor.get_id();
        let nested = child.nested.clone();
        let mut child = LiveChild::new(child, stop, now);
        // Exiting already: the exit may have been reported, is on its way, or will never be reported.
        if (nested.is_some() || is_exiting(&child.actor))
            && let Some(join) = child.join.take()
        {
            runtime.watch(run, join, nested);
        }
        if self.abandoned {
            child.actor.kill();
        }
        if let Some(previous) = self.table.insert(spec, run, child) {
            self.effects.push(Effect::Drop(Box::new(previous)));
        }
        self.touch(Some(spec));
        if self.events.wants(Level::DEBUG) {
            let (child, actor) = (self.table.name_of_run(run), id.to_string().into());
            self.events.push(SupervisorEvent::ChildStarted { child, actor }, now);
        }
        if let Some(child) = self.table.get(run).filter(|_| !self.unclaimed.is_empty()) {
            self.unclaimed.claim(&child.actor);
        }
        self.unclaimed.end(number).iter().for_each(ActorCell::kill);
        self.early_exits.take(id)
    }

    pub(super) fn early_exit(
        &mut self,
        runtime: &Arc<RuntimeOf<T>>,
        run: RunOf<T>,
        exit: Option<ExitEvent>,
        now: Duration,
    ) {
        let Some(actor) = self.table.get(run).map(|child| child.actor.get_id()) else { return };
        if let Some(exit) = exit
            && let Some(run) = self.child_exited(actor, exit, now)
        {
            self.await_task(runtime, run, now);
        }
    }

    pub(super) fn drop_early_exits(&mut self) {
        if !self.early_exits.is_empty() && !self.is_starting() {
            self.effects.push(Effect::Drop(Box::new(std::mem::take(&mut self.early_exits))));
        }
    }

    pub(super) fn is_starting(&self) -> bool {
        !self.starts.is_empty() || self.table.callers() > 0
    }
}

/// The task of one start, and of those that follow from it one after the other.
async fn run_starts<T: ChildTable>(runtime: Arc<RuntimeOf<T>>, first: RunOf<T>) {
    let mut next = (Some(first), None);
    while let (Some(run), used) = next {
        let Some((number, prepared)) = runtime.update(|inner, _| inner.start_begins(run)) else { return };
        next = perform_start(&runtime, (run, number), prepared, used).await;
    }
}

/// Performs one start and reports it. Returns the next, and the box of this one for it.
async fn perform_start<T: ChildTable>(
    runtime: &Arc<RuntimeOf<T>>,
    (run, number): (RunOf<T>, StartNumber),
    PreparedStart { start, timeout, id, .. }: PreparedStart,
    used: Option<StartBox>,
) -> (Option<RunOf<T>>, Option<StartBox>) {
    let mut report =
        ReportOnDrop { runtime: runtime.clone(), run, number, loose: AtomicBool::new(false), reported: false };
    // Declared later, to be dropped earlier: what is given up has to be gone when that is reported.
    let mut place = used;
    let mut args = None;
    // A long row of quick starts lets others have their turn, too.
    tokio::task::coop::consume_budget().await;
    let monitor = runtime.monitor();
    let (function, template) = match start {
        StartCall::Spec(function) => (Some(function), None),
        StartCall::Template(template) => (None, Some(template)),
    };
    let outcome = {
        let call = |parent: ActorCell| {
            match (&function, template) {
                (Some(function), _) => function(parent, &mut place),
                (None, Some(template)) => template(parent, &mut place, &mut args),
                (None, None) => {}
            }
            placed(&mut place)
        };
        let path = ChildPath::new(&runtime.path, id);
        let mut attempt = pin!(attempt(call, &monitor, path, timeout, &report.loose));
        // Most starts are over at the first poll, which costs no timer.
        match futures::poll!(&mut attempt) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => match tokio::time::timeout(SLOW_START, &mut attempt).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    runtime.apply(Event::StartIsSlow { run });
                    attempt.await
                }
            },
        }
    };
    drop(function);
    if outcome.is_err() {
        discard(place.take());
    }
    let orphans = report.orphans(!matches!(outcome, Ok(Some(_))));
    if !orphans.is_empty() {
        end_orphans(orphans, runtime.kill_timeout).await;
    }
    report.reported = true;
    let next = runtime.update_then(
        |inner, now| inner.start_is_over(runtime, run, outcome, args, now),
        |inner, ()| {
            inner.free_task = None;
            inner.next_start.take()
        },
    );
    (next, place)
}

/// Reports a start that was given up, when it was. Made when its task first runs: one that is dropped before may be
/// dropped under the lock.
struct ReportOnDrop<T: ChildTable> {
    runtime: Arc<RuntimeOf<T>>,
    run: RunOf<T>,
    number: StartNumber,
    /// The start may have left an actor that runs, or leave one later.
    loose: AtomicBool,
    reported: bool,
}

impl<T: ChildTable> ReportOnDrop<T> {
    fn orphans(&self, failed: bool) -> Vec<ActorCell> {
        let loose = self.loose.load(Ordering::Relaxed);
        if !failed || (!loose && self.runtime.read(|inner| inner.unclaimed.is_empty())) {
            return Vec::new();
        }
        self.runtime.update(|inner, _| inner.orphans(&self.runtime, self.number, loose))
    }
}

impl<T: ChildTable> Drop for ReportOnDrop<T> {
    fn drop(&mut self) {
        if self.reported {
            return;
        }
        let (runtime, run) = (self.runtime.clone(), self.run);
        let orphans = self.orphans(true);
        let report = move || {
            runtime.update(|inner, now| inner.start_is_over(&runtime, run, Err(StartFailure::Cancelled), None, now));
        };
        if orphans.is_empty() {
            return report();
        }
        let limit = self.runtime.kill_timeout;
        self.runtime.tokio.spawn(async move {
            end_orphans(orphans, limit).await;
            report();
        });
    }
}

/// Why a start function returned no child.
pub(crate) enum NoChild {
    Error(BoxError),
    Panic(Failure),
}

impl NoChild {
    /// Whether there is nothing to run, which is no failure.
    pub(crate) fn is_ignored(&self) -> bool {
        matches!(self, Self::Error(error) if matches!(error.downcast_ref(), Some(StartError::Ignored)))
    }
}

/// Calls a function and awaits its future; a panic in either is a value.
pub(crate) async fn guarded_start<T, F, Fut>(function: F) -> Result<T, NoChild>
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<T, BoxError>>,
{
    let caught = AssertUnwindSafe(async move { function().await }).catch_unwind().await;
    match caught {
        Ok(result) => result.map_err(NoChild::Error),
        Err(payload) => {
            let failure = panics::failure_here(payload.as_ref());
            discard(payload);
            Err(NoChild::Panic(failure))
        }
    }
}

pub(crate) fn describe(no_child: NoChild) -> Failure {
    match no_child {
        NoChild::Error(error) => panics::error_failure(&*error),
        NoChild::Panic(failure) => failure,
    }
}

/// Runs a start to its end. When this future is dropped, the half-started actor goes with it, unless it runs already:
/// `loose` is then set, as it is after a failure that may have left one.
pub(super) async fn attempt<F, Fut>(
    start: F,
    parent: &ActorCell,
    path: ChildPath,
    timeout: Option<Duration>,
    loose: &AtomicBool,
) -> Result<Option<Child>, StartFailure>
where
    F: FnOnce(ActorCell) -> Fut,
    Fut: Future<Output = Result<Child, BoxError>>,
{
    loose.store(true, Ordering::Relaxed);
    // What is rare is in a box of its own, so that the future of an ordinary start is small and moves cheaply.
    let result = pin!(guarded_start(|| within(path, async move { start(parent.clone()).await })));
    let result = match timeout {
        Some(limit) => {
            let limited = Box::pin(tokio::time::timeout(limit, result));
            limited.await.map_err(|_| StartFailure::Timeout(limit))?
        }
        None => result.await,
    };
    // An error of ractor's or of ours says that nothing runs.
    let clean = match &result {
        Ok(_) => true,
        Err(NoChild::Error(error)) => error.is::<SpawnErr>() || error.is::<StartError>(),
        Err(NoChild::Panic(_)) => false,
    };
    loose.store(!clean, Ordering::Relaxed);
    match result {
        Ok(child) if is_linked(&child, parent) => Ok(Some(child)),
        Ok(child) => Err(Box::pin(not_linked(child)).await),
        Err(no_child) if no_child.is_ignored() => Ok(None),
        Err(NoChild::Error(error)) => Err(failure_of(error)),
        Err(NoChild::Panic(failure)) => Err(StartFailure::Failed(failure)),
    }
}

/// Kills what a start linked before it failed, and waits until it has ended, for so long.
pub(super) async fn end_orphans(orphans: Vec<ActorCell>, limit: Duration) {
    orphans.iter().for_each(ActorCell::kill);
    let ended = futures::future::join_all(orphans.iter().map(|orphan| orphan.wait(None)));
    let _ = tokio::time::timeout(limit, ended).await;
}

fn failure_of(error: BoxError) -> StartFailure {
    let error = match error.downcast::<StartError>() {
        Ok(nested) => return StartFailure::Nested(nested),
        Err(error) => error,
    };
    match error.downcast_ref::<SpawnErr>() {
        Some(SpawnErr::ActorAlreadyRegistered(name)) => StartFailure::NameTaken(name.as_str().into()),
        // A panic in `pre_start` was in this very task.
        Some(SpawnErr::StartupFailed(inner)) => StartFailure::Failed(panics::error_failure(inner.as_ref())),
        _ => StartFailure::Failed(panics::error_failure(&*error)),
    }
}

/// Whether the child is the supervisor's to watch.
fn is_linked(child: &Child, parent: &ActorCell) -> bool {
    let linked = child.actor.try_get_supervisor().is_some_and(|supervisor| supervisor.get_id() == parent.get_id());
    // One that has exited already is linked no more; the reason is on its way.
    linked || child.actor.get_status() >= ActorStatus::Stopping
}

/// Ends a child that is not linked to its supervisor.
async fn not_linked(child: Child) -> StartFailure {
    child.actor.kill();
    let _ = tokio::time::timeout(UNLINKED_KILL_TIMEOUT, child.ended).await;
    StartFailure::NotLinked
}

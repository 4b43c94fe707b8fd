//! The frame that every supervisor stands in.
//!
//! A supervisor is two small actors and a task. The *face* is the actor that the world sees: it is linked to the parent,
//! and a stop of it is a stop of the tree. The *anchor* is the actor that the children are linked to: it lives until the
//! last of them has ended, so that every end is heard of, also during the stop. The *keeper* is the task that waits for
//! timers and for the end, and sees to it that the anchor gets its turns (see [`lookout`]).
//!
//! None of them owns the state: that is a [`Crew`], behind a lock that is held for one decision and what follows from it,
//! never across an `await` and never while a user's code runs. Whoever brings news takes the lock himself, so that nothing
//! queues behind anything: a read is a look, an operation is asked for in its caller's task, and the end of a child is
//! acted upon by the anchor that hears of it.

mod actors;
mod early;
mod ending;
mod keeper;
mod lookout;
mod own_end;
mod rest;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt;
use ractor::concurrency::JoinHandle;
use ractor::{ActorCell, ActorId};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(in crate::supervisor) use early::EarlyEnds;
pub(in crate::supervisor) use ending::{End, Ending};
pub(crate) use keeper::launch;
pub(in crate::supervisor) use own_end::OwnEnd;
pub(crate) use rest::Rest;
pub(in crate::supervisor) use rest::Sleep;

use super::builder::Observer;
use super::child::Nested;
use super::shutdown_report::ShutdownReport;
use super::start::Boxed;
use crate::exit::{ExitReason, Failure};

/// How many anchors there may be, one after the other.
const ANCHORS: usize = 4;

/// How often a task that is about to end is looked at before it is waited for: some microseconds.
const GLANCES: u32 = 100;

/// What all kinds of supervisors share.
pub(crate) struct Frame {
    pub(crate) name: Arc<str>,
    /// How long a killed child is waited for.
    pub(crate) kill_timeout: Duration,
    pub(crate) runtime: Handle,
    epoch: Instant,
    anchors: [OnceLock<ActorCell>; ANCHORS],
    /// The anchor in use.
    current: AtomicUsize,
    /// Something was started since the anchor was looked after.
    unchecked: AtomicBool,
    face: OnceLock<ActorCell>,
    /// Wakes the keeper: an earlier timer, or the end.
    pub(crate) wake: Notify,
    /// Nothing runs any more, or only what no kill can end.
    idle: CancellationToken,
    /// Face and anchor are gone too, and the report is there.
    over: CancellationToken,
    report: OnceLock<Arc<ShutdownReport>>,
    observer: Option<Observer>,
    /// A parent gets the report and decides who is told.
    has_parent: bool,
}

impl Frame {
    pub(crate) fn new(name: Arc<str>, kill_timeout: Duration, observer: Option<Observer>, has_parent: bool) -> Self {
        Self {
            name,
            kill_timeout,
            runtime: Handle::current(),
            epoch: Instant::now(),
            anchors: [const { OnceLock::new() }; ANCHORS],
            current: AtomicUsize::new(0),
            unchecked: AtomicBool::new(false),
            face: OnceLock::new(),
            wake: Notify::new(),
            idle: CancellationToken::new(),
            over: CancellationToken::new(),
            report: OnceLock::new(),
            observer,
            has_parent,
        }
    }

    /// The actor that children link to. Set before anything is started.
    pub(crate) fn anchor(&self) -> &ActorCell {
        let current = &self.anchors[self.current_anchor()];
        current.get().expect("the anchor starts before any child")
    }

    fn current_anchor(&self) -> usize {
        self.current.load(Ordering::Acquire)
    }

    /// From now on children link to this anchor.
    fn use_anchor(&self, index: usize, anchor: Option<ActorCell>) {
        if let Some(anchor) = anchor {
            let _ = self.anchors[index].set(anchor);
        }
        // ORDERING: whoever reads the index finds the anchor there.
        self.current.store(index, Ordering::Release);
    }

    /// Whether `actor` is, or once was, the anchor.
    pub(crate) fn is_anchor(&self, actor: &ActorCell) -> bool {
        self.anchors.iter().filter_map(OnceLock::get).any(|anchor| anchor.get_id() == actor.get_id())
    }

    /// Whether an anchor had to be replaced.
    pub(crate) fn was_stuck(&self) -> bool {
        self.anchors[1].get().is_some()
    }

    /// Links a child that is linked to an anchor no longer in use to the one that is.
    pub(crate) fn relink(&self, child: &ActorCell) {
        let anchor = self.anchor();
        if child
            .try_get_supervisor()
            .is_some_and(|parent| parent.get_id() != anchor.get_id() && self.is_anchor(&parent))
        {
            child.link(anchor.clone());
        }
    }

    /// Whether an actor is linked to the anchor in use.
    pub(in crate::supervisor) fn is_linked(&self, child: &ActorCell) -> bool {
        child.try_get_supervisor().is_some_and(|parent| parent.get_id() == self.anchor().get_id())
    }

    /// Something was started: its first poll may have taken the anchor's turn with it.
    pub(crate) fn look_out(&self) {
        // ORDERING: a hint; the keeper looks again at every wake.
        if !self.unchecked.load(Ordering::Relaxed) && !self.unchecked.swap(true, Ordering::Relaxed) {
            self.wake.notify_one();
        }
    }

    /// Whether something was started since the last look.
    fn take_unchecked(&self) -> bool {
        self.unchecked.swap(false, Ordering::Relaxed)
    }

    fn other_anchors(&self) -> impl Iterator<Item = &ActorCell> {
        let current = self.anchor().get_id();
        self.anchors.iter().filter_map(OnceLock::get).filter(move |anchor| anchor.get_id() != current)
    }

    pub(crate) fn face(&self) -> &ActorCell {
        self.face.get().expect("the face starts before a reference is given out")
    }

    /// Time as the rules count it.
    pub(crate) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Waits until the tree has ended.
    pub(crate) async fn ended(&self) -> Arc<ShutdownReport> {
        self.over.cancelled().await;
        self.report.get().expect("the report is written before the end is told").clone()
    }

    pub(crate) fn report(&self) -> Option<Arc<ShutdownReport>> {
        self.report.get().cloned()
    }

    fn observe(&self) {
        if let (Some(observer), Some(report)) = (&self.observer, self.report.get())
            && let Err(payload) = catch_unwind(AssertUnwindSafe(|| observer(report)))
        {
            discard(payload);
        }
    }
}

/// The state of a supervisor, and what can be told to it.
pub(crate) trait Crew: Send + Sync + 'static {
    /// Names one incarnation of a child.
    type Run: Copy + Send + Sync + 'static;

    fn frame(&self) -> &Frame;

    /// A linked actor ended.
    fn heard(self: &Arc<Self>, actor: ActorId, heard: Heard);
    /// The task of `run` has ended; whether its last words are still to come.
    fn joined(self: &Arc<Self>, run: Self::Run, panic: Option<Failure>) -> bool;
    /// Every event sent before the task of `run` ended has been heard.
    fn flushed(self: &Arc<Self>, run: Self::Run);
    /// The task of `run` has not ended long after it should have.
    fn lingers(self: &Arc<Self>, run: Self::Run);
    /// The nested supervisor of `run` has ended; its stragglers may live on.
    fn nested_over(self: &Arc<Self>, run: Self::Run, report: &ShutdownReport);

    /// Stop the tree; `told`: whoever asked waits for the report.
    fn stop(self: &Arc<Self>, told: bool);
    /// The face is gone: kill what is left.
    fn kill(self: &Arc<Self>);
    /// Another anchor is in use: what runs has to be linked to it.
    fn relink(self: &Arc<Self>);
    /// The anchor is gone: nothing will be heard any more.
    fn deaf(self: &Arc<Self>);
    /// A timer is due.
    fn tick(self: &Arc<Self>);
    /// Until when the keeper may sleep; `None` inside: until it is woken. The end, once it has come.
    fn rest(self: &Arc<Self>) -> Rest;
    /// The report; whether the one who stopped it is told.
    fn conclude(self: &Arc<Self>) -> (ShutdownReport, bool);
    /// Whether an incarnation is left that nothing could end.
    fn anything_left(&self) -> bool;
    /// Kills whatever is there, lets nobody wait any longer and performs nothing else: for when nobody is left to perform
    /// it.
    fn abandon(&self);
}

/// What ractor tells of an end.
#[derive(Debug)]
pub(crate) enum Heard {
    /// An ordinary end; a panic while the actor's state was dropped.
    Ended(ExitReason, Option<Failure>),
    /// A failure: its text.
    Failed(String),
}

impl Heard {
    /// The exit reason, of an actor that ran in `task`.
    pub(crate) fn reason(self, task: Option<tokio::task::Id>) -> ExitReason {
        match self {
            Self::Ended(_, Some(failure)) => ExitReason::Failed(failure),
            Self::Ended(reason, None) => reason,
            Self::Failed(text) => ExitReason::Failed(crate::panics::located(&text, task)),
        }
    }
}

/// The task of a start.
pub(crate) struct StartTask {
    pub(crate) task: AbortHandle,
    /// It has run: when it is aborted it tells so itself.
    pub(crate) begun: bool,
    /// It was aborted, and may end at any `await` that follows.
    pub(crate) aborted: bool,
}

impl StartTask {
    pub(crate) fn new(task: AbortHandle) -> Self {
        Self { task, begun: false, aborted: false }
    }

    /// Gives the start up.
    pub(crate) fn abort(&mut self) {
        self.aborted = true;
        self.task.abort();
    }
}

/// Stops the tree and waits until it has ended.
pub(crate) async fn stop<C: Crew>(crew: &Arc<C>) -> Arc<ShutdownReport> {
    crew.stop(true);
    crew.frame().ended().await
}

/// Waits for the task of `run`, and for what else has to end with it.
pub(crate) fn watch<C: Crew>(crew: &Arc<C>, run: C::Run, mut join: JoinHandle<()>, nested: Option<Arc<dyn Nested>>) {
    let watcher = crew.clone();
    crew.frame().runtime.spawn(async move {
        let ended = if let Some(nested) = nested {
            let report = nested.over().await;
            watcher.nested_over(run, &report);
            join.await
        } else {
            match tokio::time::timeout(watcher.frame().kill_timeout, &mut join).await {
                Ok(ended) => ended,
                Err(_) => {
                    watcher.lingers(run);
                    join.await
                }
            }
        };
        joined(&watcher, run, ended).await;
    });
}

/// Waits for the task of `run`, however long it takes.
pub(crate) fn watch_patiently<C: Crew>(crew: &Arc<C>, run: C::Run, join: JoinHandle<()>) {
    let watcher = crew.clone();
    crew.frame().runtime.spawn(async move {
        let ended = join.await;
        joined(&watcher, run, ended).await;
    });
}

async fn joined<C: Crew>(crew: &Arc<C>, run: C::Run, ended: Result<(), JoinError>) {
    if crew.joined(run, ended.err().and_then(panic_of)) {
        turns_of_others(&**crew).await;
        if crew.frame().anchor().send_message(actors::Word::Flush(run)).is_err() {
            crew.flushed(run);
        }
    }
}

/// Waits until every anchor that was replaced had a turn, for what it was sent before; not for long.
async fn turns_of_others<C: Crew>(crew: &C) {
    let turns: Vec<_> = crew.frame().other_anchors().map(actors::turn::<C>).collect();
    if !turns.is_empty() {
        let _ = tokio::time::timeout(crew.frame().kill_timeout, futures::future::join_all(turns)).await;
    }
}

/// The outcome of a task that may have ended: `None` when it has not, else the panic that ended it, if one did.
pub(crate) fn ended_already(join: &mut JoinHandle<()>) -> Option<Option<Failure>> {
    if !join.is_finished() {
        return None;
    }
    // A task without budget left is told that the handle is not ready.
    join.now_or_never().map(|ended| ended.err().and_then(panic_of))
}

/// The same for a task that has said its last words on another thread and is about to end. Waiting for it in a task of its
/// own would cost more than the end itself.
pub(crate) fn ended_soon(join: &mut JoinHandle<()>) -> Option<Option<Failure>> {
    let others_run = Handle::current().runtime_flavor() != RuntimeFlavor::CurrentThread;
    for _ in 0..if others_run { GLANCES } else { 0 } {
        if join.is_finished() {
            break;
        }
        std::hint::spin_loop();
    }
    ended_already(join)
}

fn panic_of(error: JoinError) -> Option<Failure> {
    let task = error.id();
    let payload = error.try_into_panic().ok()?;
    let failure = crate::panics::located(crate::panics::message(payload.as_ref()), Some(task));
    discard(payload);
    Some(failure)
}

/// Does what must not fail while a supervisor's state is locked. `None`, and its text, when it did.
pub(crate) fn guarded<T>(act: impl FnOnce() -> T) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(act)).map_err(|payload| {
        let failure = crate::panics::failure_here(payload.as_ref());
        discard(payload);
        failure
    })
}

/// What came from a user and is dropped outside the lock.
pub(crate) type Garbage = Vec<Box<dyn Any + Send>>;

/// Drops what came from a user; a panic in it is nobody else's business. Answers its text.
pub(crate) fn discard<T>(value: T) -> Option<Failure> {
    let payload = catch_unwind(AssertUnwindSafe(move || drop(value))).err()?;
    let failure = crate::panics::failure_here(payload.as_ref());
    // A payload whose own drop panics is given up.
    if let Err(worse) = catch_unwind(AssertUnwindSafe(move || drop(payload))) {
        std::mem::forget(worse);
    }
    Some(failure)
}

/// A supervisor as its parent, itself a supervisor of ours, knows it.
pub(crate) struct NestedCrew<C>(pub(crate) Arc<C>);

impl<C: Crew> Nested for NestedCrew<C> {
    fn over(&self) -> Boxed<'_, Arc<ShutdownReport>> {
        Box::pin(self.0.frame().ended())
    }

    fn observe(&self) {
        self.0.frame().observe();
    }
}

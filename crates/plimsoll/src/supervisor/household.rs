//! What performs the rules' decisions.
//!
//! A supervisor is two small actors and a task. The *face* is the actor that the world sees: it is linked to the parent,
//! and a stop of it is a stop of the tree. The *anchor* is the actor that the children are linked to: it lives until the
//! last of them has ended, so that every end is heard of, also during the stop. The *keeper* is the task that waits for
//! timers and for the end.
//!
//! None of them owns the state: the rules stand in the [`Household`], behind a lock that is held for one decision and what
//! follows from it, never across an `await` and never while a user's code runs. Whoever brings news takes the lock
//! himself, so that nothing queues behind anything: a read is a look, an operation is asked for in its caller's task, and
//! the end of a child is acted upon by the anchor that hears of it. Starts run in tasks of their own.

mod actors;
mod core;
mod keeper;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use ractor::{ActorCell, ActorId};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::core::Core;
pub(crate) use self::core::Reply;
pub(crate) use self::keeper::launch;
use super::builder::Observer;
use super::child::Nested;
use super::report::ShutdownReport;
use super::rules::{Flags, Rules, Run, Ticket};
use super::spec::ChildSpec;
use super::start::Boxed;
use crate::exit::{ExitReason, Failure};
use crate::inspect::{Details, Inspect};

/// What a supervisor starts from.
pub(crate) struct Launch {
    pub(crate) name: Arc<str>,
    pub(crate) flags: Flags,
    pub(crate) children: Vec<ChildSpec>,
    pub(crate) observer: Option<Observer>,
}

/// The shared state of one supervisor.
pub(crate) struct Household {
    pub(crate) name: Arc<str>,
    pub(crate) flags: Flags,
    core: Mutex<Core>,
    epoch: Instant,
    runtime: Handle,
    anchor: OnceLock<ActorCell>,
    face: OnceLock<ActorCell>,
    /// Wakes the keeper: an earlier timer, or the end.
    wake: Notify,
    /// Nothing runs any more, or only what no kill can end.
    idle: CancellationToken,
    /// Face and anchor are gone too, and the report is there.
    over: CancellationToken,
    report: OnceLock<Arc<ShutdownReport>>,
    observer: Option<Observer>,
    /// A parent gets the report and decides who is told.
    has_parent: bool,
}

impl Household {
    fn new(name: Arc<str>, flags: Flags, observer: Option<Observer>, has_parent: bool) -> Self {
        Self {
            core: Mutex::new(Core::new(Rules::new(flags.clone(), rand::random()))),
            name,
            flags,
            epoch: Instant::now(),
            runtime: Handle::current(),
            anchor: OnceLock::new(),
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
    fn anchor(&self) -> &ActorCell {
        self.anchor.get().expect("the anchor is the first to start")
    }

    pub(crate) fn face(&self) -> &ActorCell {
        self.face.get().expect("the face starts before a reference is given out")
    }

    /// Time as the rules count it.
    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Tells the rules something and performs what they decide.
    pub(crate) fn tell<T>(self: &Arc<Self>, news: impl FnOnce(&mut Core, Duration) -> T) -> T {
        let mut core = self.core.lock();
        let answer = news(&mut core, self.now());
        core.perform(self);
        let garbage = core.take_garbage();
        if core.keeper_is_wanted() {
            self.wake.notify_one();
        }
        drop(core);
        discard(garbage);
        answer
    }

    /// Looks at the state.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Core) -> T) -> T {
        look(&self.core.lock())
    }

    /// Kills whatever is there, without performing anything else: for when there is no runtime to perform it.
    fn kill_everything(&self) {
        self.core.lock().kill_everything();
    }

    /// Asks for an operation; `None` when the supervisor is gone.
    pub(crate) async fn ask(self: &Arc<Self>, operation: impl FnOnce(&mut Core, Ticket, Duration)) -> Option<Reply> {
        let (ticket, reply) = oneshot::channel();
        self.tell(|core, now| {
            let ticket = core.ticket(ticket);
            operation(core, ticket, now);
        });
        reply.await.ok()
    }

    /// A linked actor ended.
    fn heard(self: &Arc<Self>, actor: ActorId, reason: Heard) {
        self.tell(|core, now| core.heard(self, actor, reason, now));
    }

    /// Stops the tree and waits until it has ended.
    pub(crate) async fn stop(self: &Arc<Self>) -> Arc<ShutdownReport> {
        self.tell(|core, now| core.stop(true, now));
        self.ended().await
    }

    /// Waits until the tree has ended.
    pub(crate) async fn ended(&self) -> Arc<ShutdownReport> {
        self.over.cancelled().await;
        self.report.get().expect("the report is written before the end is told").clone()
    }

    pub(crate) fn report(&self) -> Option<Arc<ShutdownReport>> {
        self.report.get().cloned()
    }

    /// Waits for the task of `run`, and for what else has to end with it.
    fn watch(
        self: &Arc<Self>,
        run: Run,
        mut join: ractor::concurrency::JoinHandle<()>,
        nested: Option<Arc<dyn Nested>>,
    ) {
        let household = self.clone();
        self.runtime.spawn(async move {
            let ended = if let Some(nested) = nested {
                let report = nested.over().await;
                household.tell(|core, now| core.nested_over(run, &report, now));
                join.await
            } else {
                match tokio::time::timeout(household.flags.leave_behind, &mut join).await {
                    Ok(ended) => ended,
                    Err(_) => {
                        household.tell(|core, now| core.lingers(run, now));
                        join.await
                    }
                }
            };
            let panic = ended.err().and_then(panic_of);
            household.joined(run, panic);
        });
    }

    fn joined(self: &Arc<Self>, run: Run, panic: Option<Failure>) {
        let unheard = self.tell(|core, now| core.joined(run, panic, now));
        if unheard && self.anchor().send_message(actors::Flush(run)).is_err() {
            self.flushed(run);
        }
    }

    /// Every event sent before the task of `run` ended has been heard.
    fn flushed(self: &Arc<Self>, run: Run) {
        self.tell(|core, now| core.flushed(run, now));
    }
}

/// What ractor tells of an end.
#[derive(Debug)]
pub(crate) enum Heard {
    /// An ordinary end; a panic while the actor's state was dropped.
    Ended(ExitReason, Option<Failure>),
    /// A failure: its text.
    Failed(String),
}

fn panic_of(error: tokio::task::JoinError) -> Option<Failure> {
    let task = error.id();
    let payload = error.try_into_panic().ok()?;
    let failure = crate::panics::located(crate::panics::message(payload.as_ref()), Some(task));
    discard(payload);
    Some(failure)
}

/// Drops what came from a user; a panic in it is nobody else's business. Answers its payload's text.
pub(crate) fn discard<T>(value: T) -> Option<Failure> {
    let payload = catch_unwind(AssertUnwindSafe(move || drop(value))).err()?;
    let failure = crate::panics::failure_here(payload.as_ref());
    // A payload whose own drop panics is given up.
    if let Err(worse) = catch_unwind(AssertUnwindSafe(move || drop(payload))) {
        std::mem::forget(worse);
    }
    Some(failure)
}

pub(crate) type Garbage = Vec<Box<dyn Any + Send>>;

impl Nested for Household {
    fn over(&self) -> Boxed<'_, Arc<ShutdownReport>> {
        Box::pin(self.ended())
    }

    fn observe(&self) {
        if let (Some(observer), Some(report)) = (&self.observer, self.report.get()) {
            let observed = catch_unwind(AssertUnwindSafe(|| observer(report)));
            discard(observed);
        }
    }
}

impl Inspect for Household {
    fn inspect(&self) -> Details {
        let (mut details, shown) = self.look(|core| core.details());
        // Outside the lock: a child's own description is the child's code.
        for (node, inspect) in details.children.iter_mut().zip(shown) {
            if let Some(inspect) = inspect {
                node.details = inspect.inspect();
            }
        }
        details
    }
}

//! What performs the rules' decisions for the children of a [`Supervisor`](super::Supervisor).
//!
//! The rules stand in the [`Household`], together with the actors, tasks and start functions that their numbers stand for.
//! See [`frame`](super::frame) for how it is woken, and by whom. Starts run in tasks of their own.

mod core;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ractor::concurrency::JoinHandle;
use ractor::{ActorCell, ActorId};
use tokio::sync::oneshot;

pub(crate) use self::core::Reply;
use self::core::{Core, NextStart};
use super::builder::Observer;
use super::child::Child;
use super::child_spec::ChildSpec;
use super::error::StartError;
use super::frame::{self, Crew, Frame, Heard, Rest, discard, ended_soon};
use super::log;
use super::rules::{Flags, Rules, Run, StartFailure, Ticket};
use super::shutdown_report::ShutdownReport;
use crate::exit::Failure;
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
    pub(crate) flags: Flags,
    frame: Frame,
    core: Mutex<Core>,
}

/// Starts a supervisor; answers when its children run, with the handle of its keeper.
pub(crate) async fn launch(
    launch: Launch,
    parent: Option<ActorCell>,
) -> Result<(Arc<Household>, JoinHandle<()>), StartError> {
    let Launch { name, flags, children, observer } = launch;
    let frame = Frame::new(name, flags.kill_timeout, observer, parent.is_some());
    let core = Mutex::new(Core::new(Rules::new(flags.clone(), rand::random())));
    let household = Arc::new(Household { flags, frame, core });
    let boot = async {
        let (told, booted) = oneshot::channel();
        household.tell(|core, now| core.boot(children, now, told));
        booted.await.unwrap_or(Err(StartError::ShuttingDown))
    };
    let ended = frame::launch(&household, parent, boot).await?;
    Ok((household, ended))
}

impl Household {
    /// Tells the rules something and performs what they decide. Should that fail, the supervisor is over: everything is
    /// killed, and nobody waits any longer.
    pub(crate) fn tell<T: Default>(self: &Arc<Self>, news: impl FnOnce(&mut Core, Duration) -> T) -> T {
        self.tell_then(news, |_, answer| answer)
    }

    fn tell_then<T, U: Default>(
        self: &Arc<Self>,
        news: impl FnOnce(&mut Core, Duration) -> T,
        then: impl FnOnce(&mut Core, T) -> U,
    ) -> U {
        let mut core = self.core.lock();
        let told = frame::guarded(|| {
            let answer = news(&mut core, self.frame.now());
            core.perform(self);
            then(&mut core, answer)
        });
        if told.is_err() {
            core.abandon();
        }
        let garbage = core.take_garbage();
        let wanted = core.keeper_is_wanted();
        drop(core);
        if wanted {
            self.frame.wake.notify_one();
        }
        if !garbage.is_empty() {
            garbage.into_iter().for_each(|user| drop(discard(user)));
        }
        told.unwrap_or_else(|failure| {
            log::crashed(&self.frame.name, &failure.message);
            U::default()
        })
    }

    /// Tells that a start is over; answers what its task is to start next.
    fn start_over(self: &Arc<Self>, run: Run, outcome: Result<Option<Child>, StartFailure>) -> Option<NextStart> {
        self.tell_then(|core, now| core.start_over(self, run, outcome, now), |core, ()| core.next_start())
    }

    /// Looks at the state.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Core) -> T) -> T {
        look(&self.core.lock())
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
}

impl Crew for Household {
    type Run = Run;

    fn frame(&self) -> &Frame {
        &self.frame
    }

    fn heard(self: &Arc<Self>, actor: ActorId, heard: Heard) {
        if let Some((run, mut join)) = self.tell(|core, now| core.heard(actor, heard, now)) {
            let ended = ended_soon(&mut join);
            self.tell(|core, now| core.awaited(self, run, join, ended, now));
        }
    }

    fn joined(self: &Arc<Self>, run: Run, panic: Option<Failure>) -> bool {
        self.tell(|core, now| core.joined(run, panic, now))
    }

    fn flushed(self: &Arc<Self>, run: Run) {
        self.tell(|core, now| core.flushed(run, now));
    }

    fn lingers(self: &Arc<Self>, run: Run) {
        self.tell(|core, now| core.lingers(run, now));
    }

    fn nested_over(self: &Arc<Self>, run: Run, report: &ShutdownReport) {
        let unwanted = self.tell(|core, now| core.nested_over(run, report, now));
        if let Some(nested) = unwanted {
            nested.observe();
        }
    }

    fn stop(self: &Arc<Self>, told: bool) {
        self.tell(|core, now| core.stop(told, now));
    }

    fn kill(self: &Arc<Self>) {
        self.tell(|core, now| core.rules.kill(now));
    }

    fn relink(self: &Arc<Self>) {
        self.tell(|core, _| core.relink(self));
    }

    fn deaf(self: &Arc<Self>) {
        self.tell(|core, now| core.deaf(self, now));
    }

    fn tick(self: &Arc<Self>) {
        self.tell(|core, now| core.rules.tick(now));
    }

    fn rest(self: &Arc<Self>) -> Rest {
        self.core.lock().rest()
    }

    fn conclude(self: &Arc<Self>) -> (ShutdownReport, bool) {
        let concluded = self.tell(|core, now| Some(core.conclude(&self.frame.name, now)));
        concluded.unwrap_or_else(|| (ShutdownReport::cut_short(self.frame.name.clone()), false))
    }

    fn anything_left(&self) -> bool {
        self.look(Core::anything_left)
    }

    fn abandon(&self) {
        self.core.lock().abandon();
    }
}

impl Inspect for Household {
    fn inspect(&self) -> Details {
        let (mut details, shown) = self.look(Core::details);
        // Outside the lock: a child's own description is the child's code.
        for (node, inspect) in details.children.iter_mut().zip(shown) {
            if let Some(inspect) = inspect {
                node.details = inspect.inspect();
            }
        }
        details
    }
}

//! Starting dynamic children in their callers' tasks, and performing the rules' decisions about the rest.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use plimsoll_sync::slots::SlotKey;
use ractor::concurrency::JoinHandle;
use ractor::{ActorCell, ActorId, ActorStatus};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::core::Core;
use crate::exit::Failure;
use crate::inspect::{Details, Inspect};
use crate::supervisor::builder::Observer;
use crate::supervisor::child::{Child, ChildRef, Started};
use crate::supervisor::child_spec::{ChildSettings, StartBox, placed};
use crate::supervisor::error::{ChildError, StartError};
use crate::supervisor::frame::{self, Crew, Frame, Heard, Rest, discard, ended_soon};
use crate::supervisor::handle::{ChildCount, ChildEntry};
use crate::supervisor::log;
use crate::supervisor::rules::{DynamicRules, Refusal, Template};
use crate::supervisor::shutdown_report::ShutdownReport;
use crate::supervisor::start;

/// Puts a start in its place, and into the box that is there, if there is one.
pub(crate) type TemplateFn<A> = Arc<dyn Fn(ActorCell, A, &mut Option<StartBox>) + Send + Sync>;
/// Copies arguments, to keep them for restarts.
pub(crate) type Keep<A> = fn(&A) -> A;

/// What a dynamic supervisor starts from.
pub(crate) struct DynamicLaunch<A> {
    pub(crate) name: Arc<str>,
    pub(crate) template: TemplateFn<A>,
    pub(crate) keep: Option<Keep<A>>,
    pub(crate) child: Template,
    pub(crate) settings: ChildSettings,
    pub(crate) intensity: u32,
    pub(crate) period: Duration,
    pub(crate) max_children: u32,
    pub(crate) observer: Option<Observer>,
}

/// The shared state of one dynamic supervisor.
pub(crate) struct Dynamic<A> {
    pub(super) frame: Frame,
    pub(super) template: TemplateFn<A>,
    pub(super) keep: Option<Keep<A>>,
    pub(super) settings: ChildSettings,
    /// Ends the starts under way in callers' tasks.
    pub(super) closing: CancellationToken,
    core: Mutex<Core<A>>,
}

pub(crate) async fn launch<A: Send + 'static>(
    launch: DynamicLaunch<A>,
    parent: Option<ActorCell>,
) -> Result<(Arc<Dynamic<A>>, JoinHandle<()>), StartError> {
    let frame = Frame::new(launch.name, launch.child.kill_timeout, launch.observer, parent.is_some());
    let rules = DynamicRules::new(launch.child, launch.intensity, launch.period, rand::random());
    let crew = Arc::new(Dynamic {
        frame,
        template: launch.template,
        keep: launch.keep,
        settings: launch.settings,
        closing: CancellationToken::new(),
        core: Mutex::new(Core::new(rules, launch.max_children)),
    });
    let ended = frame::launch(&crew, parent, async { Ok(()) }).await?;
    Ok((crew, ended))
}

impl<A: Send + 'static> Dynamic<A> {
    /// Changes the state, and performs what the rules decide upon that. Should that fail, the supervisor is over: everything is
    /// killed, and nobody waits any longer.
    pub(super) fn tell<T: Default>(self: &Arc<Self>, news: impl FnOnce(&mut Core<A>, Duration) -> T) -> T {
        let mut core = self.core.lock();
        let told = frame::guarded(|| {
            let answer = news(&mut core, self.frame.now());
            core.perform(self);
            answer
        });
        if told.is_err() {
            core.abandon();
            self.closing.cancel();
        }
        let (garbage, errands) = (core.take_garbage(), core.take_errands());
        let wanted = core.keeper_is_wanted();
        drop(core);
        errands.run();
        if wanted {
            self.frame.wake.notify_one();
        }
        if !garbage.is_empty() {
            garbage.into_iter().for_each(|user| drop(discard(user)));
        }
        told.unwrap_or_else(|failure| {
            log::crashed(&self.frame.name, &failure.message);
            T::default()
        })
    }

    pub(super) async fn start_child(self: &Arc<Self>, args: A) -> Result<Started, StartError> {
        let (key, used) = self.core.lock().reserve()?;
        let mut reserved = Reserved { crew: self, key: Some(key), loose: AtomicBool::new(false) };
        // After that, to be dropped before it: what is given up has to be gone when the slot is given back.
        let mut place = used;
        let kept = self.keep.map(|keep| keep(&args));
        let template = &self.template;
        let (anchor, limit) = (self.frame.anchor(), self.settings.start_timeout);
        let start = |parent| {
            template(parent, args, &mut place);
            placed(&mut place)
        };
        let outcome = {
            let mut attempt = pin!(start::attempt(start, anchor, limit, &reserved.loose));
            match futures::poll!(&mut attempt) {
                // Most starts are over at the first poll.
                Poll::Ready(outcome) => outcome,
                Poll::Pending => tokio::select! {
                    biased;
                    outcome = attempt => outcome,
                    () = self.closing.cancelled() => return Err(StartError::ShuttingDown),
                },
            }
        };
        if outcome.is_err() {
            discard(place.take());
        }
        match outcome {
            Ok(Some(child)) => match reserved.fill(child, kept, place) {
                Ok(child) => Ok(Started::Child(child)),
                Err(refused) => {
                    // The supervisor began to stop meanwhile: it waits until this one is gone.
                    refused.actor.kill();
                    let _ = refused.ended.await;
                    Err(StartError::ShuttingDown)
                }
            },
            Ok(None) => Ok(Started::Ignored),
            Err(failure) => {
                Box::pin(start::end(self.orphans(&reserved.loose), self.frame.kill_timeout)).await;
                Err(failure.into())
            }
        }
    }

    /// What a start may have left, if it may have.
    pub(super) fn orphans(&self, loose: &AtomicBool) -> Vec<ActorCell> {
        if loose.load(Ordering::Relaxed) { self.core.lock().orphans(self) } else { Vec::new() }
    }

    pub(super) async fn terminate_child(self: &Arc<Self>, actor: &ActorCell) -> Result<(), ChildError> {
        let (ticket, reply) = oneshot::channel();
        if !self.tell(|core, now| core.terminate(actor.get_id(), ticket, now)) {
            return match actor.get_status() {
                ActorStatus::Stopped => Ok(()),
                _ => Err(ChildError::NotFound),
            };
        }
        match reply.await {
            Ok(None) => Ok(()),
            Ok(Some(Refusal::KillTimedOut)) => Err(ChildError::KillTimedOut),
            Ok(Some(_)) | Err(_) => Err(ChildError::ShuttingDown),
        }
    }

    pub(super) fn child_spec(&self, actor: ActorId) -> Result<ChildSettings, ChildError> {
        let core = self.core.lock();
        core.serving()?;
        if core.knows(actor) { Ok(self.settings.clone()) } else { Err(ChildError::NotFound) }
    }

    pub(super) fn which_children(&self) -> Result<Vec<ChildEntry>, ChildError> {
        let core = self.core.lock();
        core.serving()?;
        Ok(core.entries(self.settings.kind))
    }

    pub(super) fn count_children(&self) -> Result<ChildCount, ChildError> {
        let core = self.core.lock();
        core.serving()?;
        Ok(core.count(self.settings.kind))
    }

    pub(super) fn is_closing(&self) -> bool {
        self.core.lock().serving().is_err()
    }

    pub(super) fn max_children(&self) -> u32 {
        self.core.lock().max_children()
    }

    pub(super) fn set_max_children(&self, max: u32) {
        self.core.lock().set_max_children(max);
    }
}

/// A slot held for a start in its caller's task.
struct Reserved<'a, A: Send + 'static> {
    crew: &'a Arc<Dynamic<A>>,
    key: Option<SlotKey>,
    /// The start may have left an actor that runs.
    loose: AtomicBool,
}

impl<A: Send + 'static> Reserved<'_, A> {
    /// Gives the child back when the supervisor is about to stop.
    fn fill(&mut self, child: Child, args: Option<A>, used: Option<StartBox>) -> Result<ChildRef, Child> {
        let Some(key) = self.key else { return Err(child) };
        let reference = ChildRef { actor: child.actor.clone(), value: child.value.clone() };
        match self.crew.tell(|core, now| core.fill(self.crew, key, child, args, used, now)) {
            None => {
                self.key = None;
                Ok(reference)
            }
            Some(refused) => Err(refused),
        }
    }
}

impl<A: Send + 'static> Drop for Reserved<'_, A> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.crew.orphans(&self.loose).iter().for_each(ActorCell::kill);
            self.crew.tell(|core, _| core.release(key));
        }
    }
}

impl<A: Send + 'static> Crew for Dynamic<A> {
    type Run = SlotKey;

    fn frame(&self) -> &Frame {
        &self.frame
    }

    fn heard(self: &Arc<Self>, actor: ActorId, heard: Heard) {
        if let Some((key, mut join)) = self.tell(|core, now| core.heard(actor, heard, now)) {
            let ended = ended_soon(&mut join);
            self.tell(|core, now| core.awaited(self, key, join, ended, now));
        }
    }

    fn joined(self: &Arc<Self>, key: SlotKey, panic: Option<Failure>) -> bool {
        self.tell(|core, now| core.joined(key, panic, now))
    }

    fn flushed(self: &Arc<Self>, key: SlotKey) {
        self.tell(|core, now| core.flushed(key, now));
    }

    fn lingers(self: &Arc<Self>, key: SlotKey) {
        self.tell(|core, now| core.lingers(key, now));
    }

    fn nested_over(self: &Arc<Self>, key: SlotKey, report: &ShutdownReport) {
        let unwanted = self.tell(|core, now| core.nested_over(key, report, now));
        if let Some(nested) = unwanted {
            nested.observe();
        }
    }

    fn stop(self: &Arc<Self>, told: bool) {
        self.tell(|core, now| core.stop(told, now));
    }

    fn kill(self: &Arc<Self>) {
        self.tell(|core, now| core.kill(now));
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
        self.core.lock().anything_left()
    }

    fn abandon(&self) {
        self.core.lock().abandon();
        self.closing.cancel();
    }
}

impl<A: Send + 'static> Inspect for Dynamic<A> {
    fn inspect(&self) -> Details {
        let (mut details, shown) = self.core.lock().details(self.settings.kind);
        for (node, inspect) in details.children.iter_mut().zip(shown) {
            if let Some(inspect) = inspect {
                node.details = inspect.inspect();
            }
        }
        details
    }
}

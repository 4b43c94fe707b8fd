//! The decisions of a [`DynamicSupervisor`](crate::supervisor::DynamicSupervisor): many children of one kind, none of
//! which depends on another.
//!
//! A child that simply runs costs nothing here: it is only in the supervisor's table. Only those that exit, restart or are
//! stopped are in [`DynamicState`], so that a start and an exit are O(1) however many children there are. The table decides
//! about `max_children`, in the caller's task.

mod child;
mod exit;
mod restart;
mod shutdown;
mod timers;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use plimsoll_sync::slots::SlotKey;

use self::child::Child;
pub(crate) use self::child::DynamicPhase;
use self::timers::Timer;
use super::intensity::IntensityWindow;
use super::outcome::ExitPolicy;
use super::{Command, Event, Exit, Notice, Numbered, Refusal, Reply, RequestId, StopProblem, SupervisorState};
use crate::supervisor::options::{AutoShutdown, Backoff, Restart, Shutdown, StopMode};

/// What the children have in common.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    pub(crate) restart: Restart,
    pub(crate) shutdown: Shutdown,
    pub(crate) stop_mode: StopMode,
    pub(crate) backoff: Backoff,
    pub(crate) significant: bool,
    pub(crate) auto_shutdown: AutoShutdown,
    /// How long a killed child may take to end before it is abandoned.
    pub(crate) kill_timeout: Duration,
}

impl Template {
    fn exit_policy(&self) -> ExitPolicy {
        ExitPolicy { restart: self.restart, shutdown: self.shutdown, stop_mode: self.stop_mode }
    }
}

#[derive(Debug)]
enum Phase {
    Running,
    /// At the second time even the starts in callers' tasks are no longer waited for.
    ShuttingDown(Exit<SlotKey>, Option<Duration>),
    Finished,
}

/// Whether the children that run have to be listed, because the supervisor stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listing {
    Done,
    Wanted,
    Requested,
}

/// The state of a dynamic supervisor.
#[derive(Debug)]
pub(crate) struct DynamicState {
    template: Template,
    window: IntensityWindow,
    /// Children that do not simply run.
    children: Numbered<SlotKey, Child>,
    /// Restarts in a row, of children that were restarted.
    attempts: Numbered<SlotKey, u32>,
    timers: BTreeSet<(Duration, SlotKey, Timer)>,
    set_at: Numbered<(SlotKey, Timer), Duration>,
    /// The end of the common shutdown time.
    shutdown_at: Option<Duration>,
    phase: Phase,
    /// Children in the map that are worth waiting for.
    existing: usize,
    /// Starts in progress in callers' tasks.
    reserved: usize,
    listing: Listing,
    jitter: u64,
    commands: VecDeque<Command<DynamicState>>,
}

impl DynamicState {
    pub(crate) fn new(template: Template, intensity: u32, period: Duration, seed: u64) -> Self {
        Self {
            template,
            window: IntensityWindow::new(intensity, period),
            children: Numbered::default(),
            attempts: Numbered::default(),
            timers: BTreeSet::new(),
            set_at: Numbered::default(),
            shutdown_at: None,
            phase: Phase::Running,
            existing: 0,
            reserved: 0,
            listing: Listing::Done,
            jitter: seed,
            commands: VecDeque::new(),
        }
    }

    /// A caller begins a start; it ends with [`release`](Self::release).
    pub(crate) fn reserve(&mut self) {
        self.reserved += 1;
    }

    /// A caller's start is over.
    pub(crate) fn release(&mut self) {
        // None are counted any more when a stop has waited long enough for them.
        self.reserved = self.reserved.saturating_sub(1);
        self.finish_if_done();
    }

    /// The phase of a child that does not simply run.
    pub(crate) fn phase_of(&self, key: SlotKey) -> Option<DynamicPhase> {
        self.children.get(&key).map(Child::phase)
    }

    /// How many children wait for their restart or are being restarted.
    pub(crate) fn restarting(&self) -> usize {
        self.children.values().filter(|child| child.phase() == DynamicPhase::Restarting).count()
    }

    fn insert(&mut self, key: SlotKey, child: Child) {
        self.existing += usize::from(child.exists());
        self.children.insert(key, child);
    }

    fn remove(&mut self, key: SlotKey) -> Option<Child> {
        let child = self.children.remove(&key)?;
        self.existing -= usize::from(child.exists());
        Some(child)
    }

    /// The child is gone for good.
    fn free(&mut self, key: SlotKey, waiters: Vec<RequestId>) {
        self.attempts.remove(&key);
        self.commands.push_back(Command::Release { run: key });
        for request in waiters {
            self.commands.push_back(Command::Reply { request, reply: Reply::Done });
        }
    }

    fn refuse(&mut self, request: RequestId, refusal: Refusal) {
        self.commands.push_back(Command::Reply { request, reply: Reply::Refused(refusal) });
    }

    fn notice(&mut self, notice: Notice<Self>) {
        self.commands.push_back(Command::Notice(notice));
    }

    fn stop_problem(&mut self, key: SlotKey, problem: StopProblem, began: Duration, now: Duration) {
        let (shutting_down, waited) = (self.is_shutting_down(), now.saturating_sub(began));
        self.notice(Notice::StopProblem { spec: key, run: key, problem, shutting_down, waited });
    }
}

impl SupervisorState for DynamicState {
    type Spec = SlotKey;
    type Run = SlotKey;

    fn apply(&mut self, event: Event<SlotKey>, now: Duration) {
        match event {
            Event::Started { run, nested } => self.restarted(run, nested, now),
            Event::Ignored { run } => self.ignored(run),
            Event::StartFailed { run, failure } => self.restart_failed(run, failure, now),
            Event::StartIsSlow { .. } => {}
            Event::Exited { run, reason, remains, uptime, others } => {
                self.exited(run, reason, remains, uptime, others, now);
            }
            Event::Ended { run } => self.task_ended(run, now),
            Event::Running(children) => self.stop_running(children, now),
            Event::Stop => self.shut_down(Exit::Stopped, now),
            Event::Kill => self.kill(now),
            Event::Tick => self.tick(now),
        }
        self.finish_if_done();
    }

    fn next_command(&mut self) -> Option<Command<Self>> {
        if let Some(command) = self.commands.pop_front() {
            return Some(command);
        }
        // Last: children that are released before are not to be listed.
        (self.listing == Listing::Wanted).then(|| {
            self.listing = Listing::Requested;
            Command::ListRunning
        })
    }

    fn deadline(&self) -> Option<Duration> {
        let timer = self.timers.first().map(|(at, ..)| *at);
        let reserved = match &self.phase {
            Phase::ShuttingDown(_, until) => *until,
            _ => None,
        };
        [timer, self.shutdown_at, reserved].into_iter().flatten().min()
    }

    fn is_shutting_down(&self) -> bool {
        !matches!(self.phase, Phase::Running)
    }

    fn abandon(&mut self) {
        self.phase = Phase::Finished;
        self.timers.clear();
        self.set_at.clear();
        self.shutdown_at = None;
        self.listing = Listing::Done;
        self.commands.clear();
    }
}

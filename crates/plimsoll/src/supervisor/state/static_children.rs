//! The decisions of a [`Supervisor`](crate::supervisor::Supervisor): named children in a fixed order.
//!
//! A [`Key`] names a child spec and orders specs by age; a [`Run`] names one incarnation of a child. A failure leads to a
//! [`PendingRestart`](restart::PendingRestart), from the stop of the siblings that the strategy covers, over the delay, to
//! the last start. The three strategies differ only in what a restart covers.

mod child;
mod exit;
mod operations;
mod restart;
mod shutdown;
mod start;
mod timers;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use self::child::Child;
pub(crate) use self::child::ChildPhase;
use self::operations::Queued;
use self::restart::PendingRestart;
use self::shutdown::Shutdown;
use self::timers::Timers;
use super::intensity::IntensityWindow;
use super::{Command, Event, Numbered, Refusal, Reply, RequestId, SpecCommand, SupervisorState};
use crate::exit::ExitReason;
use crate::supervisor::child_spec::ChildSettings;
use crate::supervisor::options::{AutoShutdown, Strategy};

/// Names a child spec; later ones are larger.
pub(crate) type Key = u64;
/// Names one incarnation of a child.
pub(crate) type Run = u64;

/// The options of a supervisor (OTP's supervisor flags).
#[derive(Debug, Clone)]
pub(crate) struct Flags {
    pub(crate) strategy: Strategy,
    pub(crate) intensity: u32,
    pub(crate) period: Duration,
    pub(crate) auto_shutdown: AutoShutdown,
    /// How long a killed child may take to end before it is abandoned.
    pub(crate) kill_timeout: Duration,
}

/// Whether the supervisor starts, runs or stops.
#[derive(Debug)]
enum Phase {
    /// Starting its first children; the next is at or after this key.
    Starting(Key),
    Running,
    ShuttingDown(Shutdown),
    Finished,
}

/// The state of one supervisor with static children.
#[derive(Debug)]
pub(crate) struct StaticState {
    flags: Flags,
    children: BTreeMap<Key, Child>,
    ids: HashMap<Arc<str>, Key>,
    runs: Numbered<Run, Key>,
    next_key: Key,
    next_run: Run,
    window: IntensityWindow,
    /// Restarts in progress, by the child that failed.
    restarts: BTreeMap<Key, PendingRestart>,
    phase: Phase,
    /// Exits while a strategy stopped siblings, or during the supervisor's start: handled in full afterwards.
    deferred: VecDeque<(Key, Run, ExitReason)>,
    /// Restarts whose delay is over.
    due: VecDeque<Key>,
    /// Operations that wait.
    queued: VecDeque<Queued>,
    timers: Timers,
    /// Starts that have only just begun. Most are over before anything else happens, so others wait for them.
    new_starts: usize,
    jitter: u64,
    commands: VecDeque<Command<StaticState>>,
}

impl StaticState {
    pub(crate) fn new(flags: Flags, seed: u64) -> Self {
        let window = IntensityWindow::new(flags.intensity, flags.period);
        Self {
            flags,
            children: BTreeMap::new(),
            ids: HashMap::new(),
            runs: Numbered::default(),
            next_key: 0,
            next_run: 0,
            window,
            restarts: BTreeMap::new(),
            phase: Phase::Running,
            deferred: VecDeque::new(),
            due: VecDeque::new(),
            queued: VecDeque::new(),
            timers: Timers::new(),
            new_starts: 0,
            jitter: seed,
            commands: VecDeque::new(),
        }
    }

    /// Every child spec, oldest first, with the state of its child and how often it was restarted.
    pub(crate) fn children(&self) -> impl DoubleEndedIterator<Item = (Key, &ChildSettings, ChildPhase, u64)> {
        self.children.iter().map(|(key, child)| (*key, &child.settings, child.phase(), child.restarts))
    }

    pub(crate) fn phase_of(&self, key: Key) -> Option<ChildPhase> {
        self.children.get(&key).map(Child::phase)
    }

    pub(crate) fn key_of(&self, id: &str) -> Option<Key> {
        self.ids.get(id).copied()
    }

    pub(crate) fn settings(&self, key: Key) -> Option<&ChildSettings> {
        self.children.get(&key).map(|child| &child.settings)
    }

    pub(crate) fn auto_shutdown(&self) -> AutoShutdown {
        self.flags.auto_shutdown
    }

    /// Continues whatever waited for the event just handled.
    fn settle(&mut self, now: Duration) {
        while matches!(self.phase, Phase::Running) && !self.stopping_siblings() {
            if let Some((key, run, reason)) = self.deferred.pop_front() {
                self.handle_deferred(key, run, reason, now);
                if self.deferred.is_empty() {
                    self.advance_all(now);
                }
            } else if self.serve_queued() {
                // One at a time.
            } else if self.may_continue()
                && let Some(origin) = self.due.pop_front()
            {
                self.delay_over(origin, now);
            } else {
                break;
            }
        }
        if !self.queued.is_empty() {
            self.refuse_deadlocks();
        }
        self.advance_shutdown(now);
    }

    fn insert(&mut self, settings: ChildSettings) -> Key {
        let key = self.next_key;
        self.next_key += 1;
        self.ids.insert(settings.id.clone(), key);
        self.children.insert(key, Child::new(settings));
        key
    }

    fn remove(&mut self, key: Key) {
        if let Some(child) = self.children.remove(&key) {
            self.ids.remove(&child.settings.id);
            child.cancel_timers(key, &mut self.timers);
            self.commands.push_back(Command::Spec(SpecCommand::Remove { spec: key }));
        }
    }

    fn by_run(&mut self, run: Run) -> Option<(Key, &mut Child)> {
        let key = *self.runs.get(&run)?;
        Some((key, self.children.get_mut(&key)?))
    }

    /// The child of a key that is known to exist.
    fn child(&mut self, key: Key) -> &mut Child {
        self.children.get_mut(&key).expect("a child spec is kept as long as its key is in use")
    }

    fn reply(&mut self, request: RequestId, reply: Reply<Run>) {
        self.commands.push_back(Command::Reply { request, reply });
    }

    fn refuse(&mut self, request: RequestId, refusal: Refusal) {
        self.reply(request, Reply::Refused(refusal));
    }

    fn reply_all(&mut self, requests: Vec<RequestId>, reply: &Reply<Run>) {
        for request in requests {
            self.reply(request, reply.clone());
        }
    }
}

impl SupervisorState for StaticState {
    type Spec = Key;
    type Run = Run;

    fn apply(&mut self, event: Event<Run>, now: Duration) {
        match event {
            Event::Started { run, nested } => self.started(run, nested, now),
            Event::Ignored { run } => self.ignored(run, now),
            Event::StartFailed { run, failure } => self.start_failed(run, failure, now),
            Event::StartIsSlow { run } => self.start_is_slow(run, now),
            Event::Exited { run, reason, remains, .. } => self.exited(run, reason, remains, now),
            Event::Ended { run } => self.ended(run, now),
            Event::Running(_) => {}
            Event::Stop => self.stop(now),
            Event::Kill => self.kill(now),
            Event::Tick => self.tick(now),
        }
    }

    fn next_command(&mut self) -> Option<Command<Self>> {
        self.commands.pop_front()
    }

    fn deadline(&self) -> Option<Duration> {
        self.timers.first().map(|(at, ..)| *at)
    }

    fn is_shutting_down(&self) -> bool {
        matches!(self.phase, Phase::ShuttingDown(_) | Phase::Finished)
    }

    fn abandon(&mut self) {
        self.phase = Phase::Finished;
        self.restarts.clear();
        self.deferred.clear();
        self.queued.clear();
        self.timers.clear();
        self.commands.clear();
    }
}

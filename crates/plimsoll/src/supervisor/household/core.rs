//! The rules together with what they stand for: actors, tasks, start functions, waiting callers.

use std::any::Any;
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use ractor::concurrency::JoinHandle;
use ractor::{ActorCell, ActorId};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::Household;
use crate::exit::{ExitReason, Failure};
use crate::inspect::{Details, Inspect, Kind, Status, TreeNode};
use crate::supervisor::child::{Child, ChildRef, Nested};
use crate::supervisor::error::{ChildError, StartError};
use crate::supervisor::frame::{Crew, Garbage, Heard, Rest, StartTask, discard, ended_already, watch, watch_patiently};
use crate::supervisor::in_hand::InHand;
use crate::supervisor::log::{self, Log};
use crate::supervisor::policy::{Ask, Shutdown};
use crate::supervisor::report::{ShutdownReport, Trouble as Reported, TroubleKind, Troubles};
use crate::supervisor::rules::{
    Action, Answer, Exit, Gone, Key, Note, Numbered, Phase, Refusal, Rules, Run, StartFailure, Ticket, Trouble,
};
use crate::supervisor::spec::{ChildSettings, ChildSpec, StartBox, StartFn, placed};
use crate::supervisor::start;

/// Ends of linked actors that came before their start was told; the oldest goes beyond that.
const EARLY_ENDS: usize = 1_024;

/// A start in a restart that takes longer does not hold up operations any more.
const BRISK: Duration = Duration::from_millis(1);

/// What a waiting caller is told.
pub(crate) enum Reply {
    Started(ChildRef),
    Ignored,
    Done,
    AlreadyStarted(ChildRef),
    Refused(Refusal),
}

/// One incarnation that runs, or has not ended yet.
pub(crate) struct Live {
    pub(crate) actor: ActorCell,
    pub(crate) value: Option<Arc<dyn Any + Send + Sync>>,
    inspect: Option<Arc<dyn Inspect>>,
    token: Option<CancellationToken>,
    nested: Option<Arc<dyn Nested>>,
    in_hand: Option<InHand>,
    /// What it had in hand when it was killed.
    killed_with: Option<Arc<str>>,
    /// The handle of its task, until somebody waits for it.
    join: Option<JoinHandle<()>>,
    /// Its last words, while its task has not ended.
    heard: Option<ExitReason>,
    /// Its task has ended, but its last words were not heard yet.
    joined: bool,
    panic: Option<Failure>,
    /// The rules know that it ended.
    told: bool,
    /// A nested supervisor that leaves stragglers behind.
    hopeless: bool,
    ask: Ask,
}

impl Live {
    fn had_in_hand(&self) -> Option<Arc<str>> {
        self.killed_with.clone().or_else(|| self.in_hand.as_ref()?.held())
    }
}

/// A start that is to be performed.
pub(crate) struct NextStart {
    run: Run,
    start: StartFn,
    limit: Option<Duration>,
}

struct Spec {
    settings: ChildSettings,
    /// Gone for a temporary child that has been started.
    start: Option<StartFn>,
}

/// The state behind the household's lock.
pub(crate) struct Core {
    pub(crate) rules: Rules,
    specs: Numbered<Key, Spec>,
    live: Numbered<Run, Live>,
    actors: Numbered<ActorId, Run>,
    starts: Numbered<Run, StartTask>,
    /// The task that has just told of a start, and what it is given to do next.
    free: Option<AbortHandle>,
    next: Option<NextStart>,
    /// Who has just gone, for what the rules have to say of it.
    parting: Option<(Run, ActorId, Option<Arc<str>>)>,
    /// The newest actor that was taken in.
    newest: u64,
    early: VecDeque<(ActorId, Heard)>,
    tickets: Numbered<Ticket, oneshot::Sender<Reply>>,
    /// Specs of `start_child` that have not been taken yet.
    offered: Numbered<Ticket, ChildSpec>,
    next_ticket: Ticket,
    /// Told when the boot is over.
    boot: Option<oneshot::Sender<Result<(), StartError>>>,
    troubles: Troubles,
    left_behind: u64,
    restarts: u64,
    closing_since: Option<Duration>,
    asked_by_call: bool,
    exit: Option<Exit>,
    keeper_sleeps_until: Option<Duration>,
    log: Log,
    garbage: Garbage,
}

impl Core {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            specs: Numbered::default(),
            live: Numbered::default(),
            actors: Numbered::default(),
            starts: Numbered::default(),
            free: None,
            next: None,
            parting: None,
            newest: 0,
            early: VecDeque::new(),
            tickets: Numbered::default(),
            offered: Numbered::default(),
            next_ticket: 0,
            boot: None,
            troubles: Troubles::default(),
            left_behind: 0,
            restarts: 0,
            closing_since: None,
            asked_by_call: false,
            exit: None,
            keeper_sleeps_until: None,
            log: Log::default(),
            garbage: Vec::new(),
        }
    }

    pub(super) fn boot(&mut self, specs: Vec<ChildSpec>, now: Duration, told: oneshot::Sender<Result<(), StartError>>) {
        self.boot = Some(told);
        let rules: Vec<_> = specs.iter().map(|spec| spec.settings.rules()).collect();
        for (key, spec) in specs.into_iter().enumerate() {
            self.specs.insert(key as Key, Spec { settings: spec.settings, start: Some(spec.start) });
        }
        self.rules.boot(rules, now);
    }

    pub(super) fn ticket(&mut self, waiting: oneshot::Sender<Reply>) -> Ticket {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.tickets.insert(ticket, waiting);
        ticket
    }

    /// Asks for a new child.
    pub(crate) fn start_child(&mut self, spec: ChildSpec, ticket: Ticket, now: Duration) {
        let rules = spec.settings.rules();
        self.offered.insert(ticket, spec);
        self.rules.start_child(rules, ticket, now);
    }

    pub(super) fn stop(&mut self, asked_by_call: bool, now: Duration) {
        self.asked_by_call |= asked_by_call;
        self.rules.stop(now);
    }

    /// What the keeper does next.
    pub(super) fn rest(&mut self) -> Rest {
        self.keeper_sleeps_until = self.rules.deadline();
        if self.exit.is_some() { Rest::Over } else { Rest::Until(self.keeper_sleeps_until) }
    }

    /// Whether the keeper sleeps longer than it may.
    pub(super) fn keeper_is_wanted(&self) -> bool {
        let earlier = match (self.rules.deadline(), self.keeper_sleeps_until) {
            (Some(deadline), Some(until)) => deadline < until,
            (deadline, _) => deadline.is_some(),
        };
        earlier || self.exit.is_some()
    }

    pub(super) fn take_garbage(&mut self) -> Garbage {
        std::mem::take(&mut self.garbage)
    }

    /// The task of a start runs for the first time; whether it is still wanted.
    pub(super) fn start_begins(&mut self, run: Run) -> bool {
        let start = self.starts.get_mut(&run);
        start.map(|start| start.begun = true).is_some()
    }

    /// A start is over.
    pub(super) fn start_over(
        &mut self,
        household: &Arc<Household>,
        run: Run,
        outcome: Result<Option<Child>, StartFailure>,
        now: Duration,
    ) {
        // The task of one start performs the next, unless it was told to end.
        self.free = self.starts.remove(&run).filter(|start| !start.aborted).map(|start| start.task);
        match outcome {
            Ok(Some(child)) => self.adopt(household, run, child, now),
            Ok(None) => self.rules.ignored(run, now),
            Err(why) => self.rules.start_failed(run, why, now),
        }
        if self.starts.is_empty() {
            self.garbage.push(Box::new(std::mem::take(&mut self.early)));
        }
    }

    /// What the only start under way linked to the supervisor before it failed or was given up. With others under way
    /// nobody can tell whose it is: the last of them that fails takes it along.
    fn orphans(&self, household: &Household) -> Vec<ActorCell> {
        if self.starts.len() > 1 {
            return Vec::new();
        }
        let unknown = |actor: &ActorCell| {
            let id = actor.get_id();
            id.pid() > self.newest && !self.actors.contains_key(&id)
        };
        household.frame().anchor().get_children().into_iter().filter(unknown).collect()
    }

    fn adopt(&mut self, household: &Arc<Household>, run: Run, child: Child, now: Duration) {
        let Child { actor, ended, inspect, value, token, nested, in_hand } = child;
        let key = self.rules.key_of_run(run);
        let ask = key.and_then(|key| self.specs.get(&key)).map_or(Ask::Stop, |spec| spec.settings.ask);
        if household.frame().was_stuck() {
            household.frame().relink(&actor);
        }
        household.frame().look_out();
        let id = actor.get_id();
        self.newest = self.newest.max(id.pid());
        // Ending already: its last words may have been heard, are on their way, or will never come.
        let ending = actor.get_status() >= ractor::ActorStatus::Stopping;
        let mut join = Some(ended);
        if let Some(join) = (ending || nested.is_some()).then(|| join.take()).flatten() {
            watch(household, run, join, nested.clone());
        }
        let is_nested = nested.is_some();
        let live = Live {
            actor,
            value,
            inspect,
            token,
            nested,
            in_hand,
            killed_with: None,
            join,
            heard: None,
            joined: false,
            panic: None,
            told: false,
            hopeless: false,
            ask,
        };
        self.live.insert(run, live);
        self.actors.insert(id, run);
        self.rules.started(run, is_nested, now);
        if let Some(index) = self.early.iter().position(|(actor, _)| *actor == id)
            && let Some((_, heard)) = self.early.remove(index)
            && let Some((run, join)) = self.heard(id, heard, now)
        {
            self.awaited(household, run, join, None, now);
        }
    }

    /// ractor told of the end of a linked actor. Answers its task, when that is still to be waited for.
    pub(super) fn heard(&mut self, actor: ActorId, heard: Heard, now: Duration) -> Option<(Run, JoinHandle<()>)> {
        let Some(&run) = self.actors.get(&actor) else {
            if !self.starts.is_empty() {
                if self.early.len() == EARLY_ENDS {
                    self.early.pop_front();
                }
                self.early.push_back((actor, heard));
            }
            return None;
        };
        let live = self.live.get_mut(&run)?;
        let reason = heard.reason(live.join.as_ref().map(JoinHandle::id));
        live.heard.get_or_insert(reason);
        if let Some(mut join) = live.join.take() {
            let Some(panic) = ended_already(&mut join) else { return Some((run, join)) };
            live.joined = true;
            live.panic = panic;
        }
        self.tell_end(run, now);
        None
    }

    /// The task of an incarnation whose last words were heard has ended, or it takes longer and is waited for.
    pub(super) fn awaited(
        &mut self,
        household: &Arc<Household>,
        run: Run,
        join: JoinHandle<()>,
        ended: Option<Option<Failure>>,
        now: Duration,
    ) {
        let Some(live) = self.live.get_mut(&run) else { return };
        match ended {
            Some(panic) => {
                live.joined = true;
                live.panic = panic;
            }
            None => watch(household, run, join, None),
        }
        self.tell_end(run, now);
    }

    /// The task of `run` has ended; whether its last words are still to come.
    pub(super) fn joined(&mut self, run: Run, panic: Option<Failure>, now: Duration) -> bool {
        let Some(live) = self.live.get_mut(&run) else { return false };
        live.joined = true;
        live.panic = panic;
        if live.heard.is_none() {
            return true;
        }
        self.tell_end(run, now);
        false
    }

    /// All that could be heard of `run` has been heard.
    pub(super) fn flushed(&mut self, run: Run, now: Duration) {
        let Some(live) = self.live.get_mut(&run) else { return };
        if live.joined {
            live.heard.get_or_insert(ExitReason::Killed);
            self.tell_end(run, now);
        }
    }

    /// The task of `run` has not ended long after its last words.
    pub(super) fn lingers(&mut self, run: Run, now: Duration) {
        let Some(live) = self.live.get_mut(&run) else { return };
        if let (Some(reason), false) = (&live.heard, live.told) {
            live.told = true;
            self.rules.exited(run, reason.clone(), Gone::Lingers, now);
        }
    }

    /// The nested supervisor of `run` has ended; its stragglers may live on. Answers it when its report is of no use here.
    pub(super) fn nested_over(&mut self, run: Run, report: &ShutdownReport, now: Duration) -> Option<Arc<dyn Nested>> {
        let live = self.live.get_mut(&run)?;
        let mut unwanted = None;
        live.hopeless = report.left_behind().next().is_some();
        if self.closing_since.is_some() {
            if let Some(rules) = self.rules.key_of_run(run).and_then(|key| self.rules.rules_of(key)) {
                let id = rules.id.clone();
                self.left_behind += report.left_behind().count() as u64;
                self.troubles.merge(&id, report);
            }
        } else {
            unwanted = live.nested.clone();
        }
        self.tell_end(run, now);
        unwanted
    }

    /// Tells the rules what is known by now of the end of `run`.
    fn tell_end(&mut self, run: Run, now: Duration) {
        let Some(live) = self.live.get_mut(&run) else { return };
        let Some(heard) = &live.heard else { return };
        let reason = live.panic.clone().map_or_else(|| heard.clone(), ExitReason::Failed);
        let (joined, told) = (live.joined, live.told);
        if !joined && (!live.hopeless || told) {
            return;
        }
        live.told = true;
        if joined && let Some(live) = self.live.remove(&run) {
            self.actors.remove(&live.actor.get_id());
            self.parting = Some((run, live.actor.get_id(), live.had_in_hand()));
            self.garbage.push(Box::new(live));
        }
        match (joined, told) {
            (true, true) => self.rules.ended(run, now),
            (true, false) => self.rules.exited(run, reason, Gone::Yes, now),
            (false, _) => self.rules.exited(run, reason, Gone::StragglersLeft, now),
        }
    }

    /// Performs what the rules decided, and what they decide upon that.
    pub(super) fn perform(&mut self, household: &Arc<Household>) {
        while let Some(action) = self.rules.next_action() {
            match action {
                Action::Start { key, run } => self.start(household, key, run),
                Action::CancelStart { run } => {
                    if let Some(start) = self.starts.get_mut(&run) {
                        start.abort();
                        if !start.begun {
                            self.starts.remove(&run);
                            self.rules.start_failed(run, StartFailure::Cancelled, household.frame().now());
                        }
                    }
                }
                Action::Ask { run } => self.ask_to_stop(household, run),
                Action::Kill { run } => self.kill(household, run),
                Action::Take { key, ticket } => {
                    if let Some(ChildSpec { settings, start }) = self.offered.remove(&ticket) {
                        self.specs.insert(key, Spec { settings, start: Some(start) });
                    }
                }
                Action::Booted => {
                    log::started(&household.frame().name);
                    self.told_boot(Ok(()));
                }
                Action::Answer { ticket, answer } => self.answer(ticket, answer),
                Action::Forget { key } => {
                    if let Some(Spec { start: Some(start), .. }) = self.specs.remove(&key) {
                        self.garbage.push(Box::new(start));
                    }
                }
                Action::Note(note) => self.note(household, note),
                Action::Finish { exit } => self.exit = Some(exit),
            }
        }
        if self.closing_since.is_none() && self.rules.is_closing() {
            self.closing_since = Some(household.frame().now());
        }
    }

    fn start(&mut self, household: &Arc<Household>, key: Key, run: Run) {
        let Some(spec) = self.specs.get_mut(&key) else { return };
        let temporary = spec.settings.restart == crate::supervisor::policy::Restart::Temporary;
        let start = if temporary { spec.start.take() } else { spec.start.clone() };
        let Some(start) = start else { return };
        let next = NextStart { run, start, limit: spec.settings.start_timeout };
        let start = match self.free.take() {
            Some(task) => {
                self.next = Some(next);
                StartTask { begun: true, ..StartTask::new(task) }
            }
            None => StartTask::new(household.frame().runtime.spawn(starting(household.clone(), next)).abort_handle()),
        };
        self.starts.insert(run, start);
    }

    /// What the task whose start is over performs next.
    pub(super) fn next_start(&mut self) -> Option<NextStart> {
        self.free = None;
        self.next.take()
    }

    fn ask_to_stop(&mut self, household: &Arc<Household>, run: Run) {
        self.make_sure(household, run);
        let key = self.rules.key_of_run(run);
        let patient =
            key.and_then(|key| self.rules.rules_of(key)).is_some_and(|rules| rules.shutdown == Shutdown::Infinity);
        let Some(live) = self.live.get_mut(&run) else { return };
        // No kill will find out that it unlinked itself in its stop hook: its task is waited for.
        if patient && let Some(join) = live.join.take() {
            watch_patiently(household, run, join);
        }
        match (&live.token, live.ask) {
            (Some(token), _) => token.cancel(),
            (None, Ask::Stop) => live.actor.stop(Some("shutdown".to_owned())),
            (None, Ask::Drain) => drop(live.actor.drain()),
        }
    }

    fn kill(&mut self, household: &Arc<Household>, run: Run) {
        self.make_sure(household, run);
        if let Some(live) = self.live.get_mut(&run) {
            // A kill takes it from its hands.
            live.killed_with = live.in_hand.as_ref().and_then(InHand::held);
            live.actor.kill();
        }
    }

    /// One that is linked no more would die without a word: it is monitored from now on, and its task waited for.
    fn make_sure(&mut self, household: &Arc<Household>, run: Run) {
        let Some(live) = self.live.get_mut(&run) else { return };
        let parent = live.actor.try_get_supervisor();
        if parent.is_none_or(|parent| parent.get_id() != household.frame().anchor().get_id())
            && let Some(join) = live.join.take()
        {
            household.frame().anchor().monitor(live.actor.clone());
            watch(household, run, join, None);
        }
    }

    /// Another anchor is in use. What ended by now may have said so to one that gets no turn: its task is waited for.
    pub(super) fn relink(&mut self, household: &Arc<Household>) {
        let anchor = household.frame().anchor().get_id();
        let mut unsure = Vec::new();
        for (run, live) in &mut self.live {
            household.frame().relink(&live.actor);
            let linked = live.actor.try_get_supervisor().is_some_and(|parent| parent.get_id() == anchor);
            if !linked || live.actor.get_status() >= ractor::ActorStatus::Stopping {
                unsure.extend(live.join.take().map(|join| (*run, join)));
            }
        }
        for (run, join) in unsure {
            watch(household, run, join, None);
        }
    }

    /// The anchor died: nothing will be heard any more.
    pub(super) fn deaf(&mut self, household: &Arc<Household>, now: Duration) {
        let runs: Vec<Run> = self.live.keys().copied().collect();
        for run in runs {
            if let Some(join) = self.live.get_mut(&run).and_then(|live| live.join.take()) {
                watch(household, run, join, None);
            }
        }
        self.rules.kill(now);
    }

    fn answer(&mut self, ticket: Ticket, answer: Answer) {
        if let Some(offer) = self.offered.remove(&ticket) {
            self.garbage.push(Box::new(offer));
        }
        let Some(waiting) = self.tickets.remove(&ticket) else { return };
        let child = |run: Run| {
            let live = self.live.get(&run)?;
            Some(ChildRef { actor: live.actor.clone(), value: live.value.clone() })
        };
        let reply = match answer {
            Answer::Started { run } => child(run).map(Reply::Started),
            Answer::Failed(Refusal::AlreadyStarted { run }) => child(run).map(Reply::AlreadyStarted),
            Answer::Ignored => Some(Reply::Ignored),
            Answer::Done => Some(Reply::Done),
            Answer::Failed(refusal) => Some(Reply::Refused(refusal)),
        };
        let reply = reply.unwrap_or(Reply::Refused(Refusal::NotFound));
        if let Err(unheard) = waiting.send(reply) {
            self.garbage.push(Box::new(unheard));
        }
    }

    fn told_boot(&mut self, outcome: Result<(), StartError>) {
        if let Some(boot) = self.boot.take() {
            let _ = boot.send(outcome);
        }
    }

    fn note(&mut self, household: &Arc<Household>, note: Note) {
        let id = |key: Key| self.specs.get(&key).map(|spec| spec.settings.id.clone()).unwrap_or_else(|| "".into());
        match note {
            Note::Ended { key, reason, restarting } => {
                self.restarts += u64::from(restarting);
                let id = id(key);
                self.log.ended(&household.frame().name, &id, &reason, restarting, household.frame().now());
            }
            Note::RestartFailed { key, reason } => {
                let id = id(key);
                self.log.restart_failed(&household.frame().name, &id, &reason, household.frame().now());
            }
            Note::GaveUp { key } => log::gave_up(&household.frame().name, &id(key)),
            Note::AutoShutdown { key } => log::auto_shutdown(&household.frame().name, &id(key)),
            Note::Trouble { key, run, trouble, closing, waited } => {
                let what = match trouble {
                    Trouble::Ended(reason) => TroubleKind::Ended(reason),
                    Trouble::Killed => TroubleKind::Killed,
                    Trouble::LeftBehind => TroubleKind::LeftBehind,
                };
                let parting = self.parting.take().filter(|(gone, ..)| *gone == run);
                let who = parting.map(|(_, actor, in_hand)| (actor, in_hand));
                let who = who.or_else(|| self.live.get(&run).map(|live| (live.actor.get_id(), live.had_in_hand())));
                let (actor, in_hand) = who.unzip();
                let in_hand = in_hand.flatten().filter(|_| !matches!(what, TroubleKind::Ended(_)));
                let reported = Reported { path: vec![id(key)], actor, what, waited, in_hand };
                self.left_behind += u64::from(reported.what == TroubleKind::LeftBehind);
                log::trouble(&household.frame().name, &reported);
                if closing {
                    self.troubles.push(reported);
                }
            }
        }
    }

    /// The report, the last word to whoever waited for the boot, and whether the one who stopped it is told.
    pub(super) fn conclude(&mut self, name: &Arc<str>, now: Duration) -> (ShutdownReport, bool) {
        let exit = self.exit.clone().unwrap_or(Exit::Killed);
        let (cause, reason) = exit.outcome();
        let troubles = std::mem::take(&mut self.troubles);
        let report = ShutdownReport {
            supervisor: name.clone(),
            cause,
            reason,
            took: now.saturating_sub(self.closing_since.unwrap_or(now)),
            troubles: troubles.list,
            omitted: troubles.omitted,
        };
        let boot = match exit {
            Exit::BootFailed { key, reason } => {
                let id = self.specs.get(&key).map(|spec| spec.settings.id.clone()).unwrap_or_else(|| "".into());
                StartError::FailedToStart { id, reason: Box::new(reason.into()) }
            }
            _ => StartError::ShuttingDown,
        };
        self.told_boot(Err(boot));
        self.garbage.push(Box::new(std::mem::take(&mut self.specs)));
        self.tickets.clear();
        (report, self.asked_by_call)
    }

    /// Whether an incarnation is left that nothing could end.
    pub(super) fn anything_left(&self) -> bool {
        !self.live.is_empty() || !self.starts.is_empty()
    }

    /// Kills whatever is there, by itself, and lets nobody wait any longer: for when the keeper is no more, or the rules
    /// cannot be relied upon.
    pub(super) fn abandon(&mut self) {
        self.rules.abandon();
        self.free = None;
        if let Some(next) = self.next.take() {
            self.starts.remove(&next.run);
            self.garbage.push(Box::new(next));
        }
        self.starts.values_mut().for_each(StartTask::abort);
        // Those that have not begun will not tell.
        self.starts.retain(|_, start| start.begun);
        for live in self.live.values() {
            live.actor.kill();
        }
        self.exit.get_or_insert(Exit::Killed);
        self.tickets.clear();
        self.told_boot(Err(StartError::ShuttingDown));
    }

    /// # Errors
    /// While the supervisor ends, and after.
    pub(crate) fn serving(&self) -> Result<(), ChildError> {
        if self.rules.is_closing() { Err(ChildError::ShuttingDown) } else { Ok(()) }
    }

    pub(crate) fn child(&self, run: Run) -> Option<ChildRef> {
        self.live.get(&run).map(|live| ChildRef { actor: live.actor.clone(), value: live.value.clone() })
    }

    pub(crate) fn run_of(&self, actor: ActorId) -> Option<Run> {
        self.actors.get(&actor).copied()
    }

    pub(crate) fn settings(&self, key: Key) -> Option<&ChildSettings> {
        self.specs.get(&key).map(|spec| &spec.settings)
    }

    /// What the snapshot shows, and what its children add themselves.
    pub(super) fn details(&self) -> (Details, Vec<Option<Arc<dyn Inspect>>>) {
        let mut details = Details::default();
        let mut shown = Vec::new();
        for (_, rules, phase, restarts) in self.rules.phases() {
            let (status, run) = match phase {
                Phase::Vacant => (Status::Stopped, None),
                Phase::Starting => (Status::Starting, None),
                Phase::Up(run) => (Status::Running, Some(run)),
                Phase::Stopping(run) => (Status::Stopping, Some(run)),
                Phase::Restarting => (Status::Restarting, None),
            };
            let live = run.and_then(|run| self.live.get(&run));
            details.children.push(TreeNode {
                id: rules.id.to_string(),
                kind: if rules.kind == Kind::Supervisor { Kind::Supervisor } else { Kind::Worker },
                status,
                actor: live.map(|live| live.actor.get_id().to_string()),
                restarts,
                details: Details::default(),
            });
            shown.push(live.and_then(|live| live.inspect.clone()));
        }
        details.counters = [
            ("restarts", self.restarts),
            ("left_behind", self.left_behind),
            ("children", details.children.len() as u64),
            ("active", self.live.len() as u64),
        ]
        .into_iter()
        .map(|(name, count)| (name.to_owned(), count))
        .collect();
        (details, shown)
    }
}

/// The task of one start, and of those that follow from it one after the other.
async fn starting(household: Arc<Household>, first: NextStart) {
    if !household.tell(|core, _| core.start_begins(first.run)) {
        return;
    }
    let mut next = (Some(first), None);
    while let (Some(start), used) = next {
        next = perform_start(&household, start, used).await;
    }
}

/// Performs one start and tells of it. Answers the next, and the box of this one for it.
async fn perform_start(
    household: &Arc<Household>,
    NextStart { run, start, limit }: NextStart,
    used: Option<StartBox>,
) -> (Option<NextStart>, Option<StartBox>) {
    let mut untold = Untold { household: household.clone(), run, loose: AtomicBool::new(false), told: false };
    // After that, to be dropped before it: what is given up has to be gone when it is told.
    let mut place = used;
    // A long row of quick starts lets others have their turn, too.
    tokio::task::coop::consume_budget().await;
    let outcome = {
        let anchor = untold.household.frame().anchor();
        let mut attempt = pin!(start::attempt(
            |parent| {
                start(parent, &mut place);
                placed(&mut place)
            },
            anchor,
            limit,
            &untold.loose,
        ));
        // Most starts are over at the first poll, which costs no timer.
        match futures::poll!(&mut attempt) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => match tokio::time::timeout(BRISK, &mut attempt).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    untold.household.tell(|core, now| core.rules.start_is_slow(run, now));
                    attempt.await
                }
            },
        }
    };
    drop(start);
    if outcome.is_err() {
        discard(place.take());
    }
    let orphans = untold.orphans();
    if !orphans.is_empty() {
        start::end(orphans, untold.household.frame().leave_behind).await;
    }
    untold.told = true;
    (household.start_over(run, outcome), place)
}

/// Tells that a start was given up, when it was. Made when its task first runs: one that is dropped before may be dropped
/// under the lock.
struct Untold {
    household: Arc<Household>,
    run: Run,
    /// The start may have left an actor that runs.
    loose: AtomicBool,
    told: bool,
}

impl Untold {
    fn orphans(&self) -> Vec<ActorCell> {
        if !self.loose.load(Ordering::Relaxed) {
            return Vec::new();
        }
        self.household.look(|core| core.orphans(&self.household))
    }
}

impl Drop for Untold {
    fn drop(&mut self) {
        if self.told {
            return;
        }
        let (household, run) = (self.household.clone(), self.run);
        let orphans = self.orphans();
        let tell = move || {
            household.tell(|core, now| core.start_over(&household, run, Err(StartFailure::Cancelled), now));
        };
        if orphans.is_empty() {
            return tell();
        }
        let limit = self.household.frame().leave_behind;
        self.household.frame().runtime.spawn(async move {
            start::end(orphans, limit).await;
            tell();
        });
    }
}

//! The slots of a dynamic supervisor's children, and the rules for those that do not simply run.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_sync::slots::{SlotKey, Slots};
use ractor::concurrency::JoinHandle;
use ractor::{ActorCell, ActorId};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::crew::{Dynamic, starting};
use super::errands::{Errand, Errands};
use crate::exit::{ExitReason, Failure};
use crate::inspect::{Details, Inspect, Kind, Status, TreeNode};
use crate::supervisor::child::{Child, Nested};
use crate::supervisor::error::{ChildError, StartError};
use crate::supervisor::frame::{Garbage, Heard, Rest, StartTask, ended_already, guarded, watch, watch_patiently};
use crate::supervisor::handle::{ChildCount, ChildEntry, ChildState};
use crate::supervisor::in_hand::InHand;
use crate::supervisor::log::{self, Log};
use crate::supervisor::policy::{Ask, Shutdown};
use crate::supervisor::report::{ShutdownReport, Trouble as Reported, TroubleKind, Troubles};
use crate::supervisor::rules::{
    DynamicAction as Action, DynamicPhase, DynamicRules, Exit, Gone, Numbered, Refusal, StartFailure, Ticket, Trouble,
};
use crate::supervisor::spec::StartBox;

/// Ends of linked actors that came before their start was told; the oldest goes beyond that.
const EARLY_ENDS: usize = 1_024;
/// Boxes of starts kept for the next, a few KiB each.
const USED: usize = 16;
/// Children that a snapshot shows one by one.
const SHOWN: usize = 1_000;

/// One child. Kept small: there may be a hundred thousand.
struct Slot<A> {
    /// None while its first start is under way; the last one while it waits for its restart.
    actor: Option<ActorCell>,
    /// The handle of its task, until somebody waits for it.
    join: Option<JoinHandle<()>>,
    since: Duration,
    args: Option<A>,
    more: Option<Box<More>>,
}

/// What few children have.
#[derive(Default)]
struct More {
    value: Option<Arc<dyn Any + Send + Sync>>,
    inspect: Option<Arc<dyn Inspect>>,
    token: Option<CancellationToken>,
    nested: Option<Arc<dyn Nested>>,
    in_hand: Option<InHand>,
    /// What it had in hand when it was killed.
    killed_with: Option<Arc<str>>,
    restarts: u64,
    ending: Ending,
}

/// What is known of an end that is not over.
#[derive(Default)]
struct Ending {
    heard: Option<ExitReason>,
    joined: bool,
    panic: Option<Failure>,
    told: bool,
    hopeless: bool,
}

impl<A> Slot<A> {
    fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    fn is_nested(&self) -> bool {
        self.more.as_ref().is_some_and(|more| more.nested.is_some())
    }
}

/// The state behind the lock.
pub(super) struct Core<A> {
    pub(super) rules: DynamicRules,
    slots: Slots<Slot<A>>,
    /// Slots by the number of their actor.
    actors: Numbered<u64, SlotKey>,
    /// Boxes of starts that are over.
    used: Vec<StartBox>,
    /// Starts under way in callers' tasks.
    reserved: usize,
    starts: Numbered<SlotKey, StartTask>,
    /// The newest actor that was taken in.
    newest: u64,
    early: VecDeque<(ActorId, Heard)>,
    tickets: Numbered<Ticket, oneshot::Sender<Option<Refusal>>>,
    next_ticket: Ticket,
    troubles: Troubles,
    counts: Counts,
    closing_since: Option<Duration>,
    asked_by_call: bool,
    exit: Option<Exit>,
    keeper_sleeps_until: Option<Duration>,
    log: Log,
    garbage: Garbage,
    errands: Errands,
}

#[derive(Default)]
struct Counts {
    started: u64,
    restarts: u64,
    refused: u64,
    left_behind: u64,
}

impl<A: Send + 'static> Core<A> {
    pub(super) fn new(rules: DynamicRules, max_children: u32) -> Self {
        Self {
            rules,
            slots: Slots::with_limit(max_children),
            actors: Numbered::default(),
            used: Vec::new(),
            reserved: 0,
            starts: Numbered::default(),
            newest: 0,
            early: VecDeque::new(),
            tickets: Numbered::default(),
            next_ticket: 0,
            troubles: Troubles::default(),
            counts: Counts::default(),
            closing_since: None,
            asked_by_call: false,
            exit: None,
            keeper_sleeps_until: None,
            log: Log::default(),
            garbage: Vec::new(),
            errands: Errands::default(),
        }
    }

    pub(super) fn serving(&self) -> Result<(), ChildError> {
        if self.rules.is_closing() { Err(ChildError::ShuttingDown) } else { Ok(()) }
    }

    /// Holds a slot for a start in its caller's task. Answers a box for the start, too, when a used one is there.
    pub(super) fn reserve(&mut self) -> Result<(SlotKey, Option<StartBox>), StartError> {
        if self.rules.is_closing() {
            return Err(StartError::ShuttingDown);
        }
        let slot = Slot { actor: None, join: None, since: Duration::ZERO, args: None, more: None };
        let Ok(key) = self.slots.insert(slot) else {
            self.counts.refused += 1;
            return Err(StartError::MaxChildren { max: self.slots.limit() });
        };
        self.reserved += 1;
        self.rules.reserved();
        Ok((key, self.used.pop()))
    }

    /// A start in its caller's task came to nothing.
    pub(super) fn release(&mut self, key: SlotKey) {
        self.slots.remove(key);
        self.settled();
    }

    fn settled(&mut self) {
        self.reserved -= 1;
        self.rules.settled();
        self.forget_early();
    }

    /// What the only start under way linked to the supervisor before it failed or was given up. With others under way
    /// nobody can tell whose it is: the last of them that fails takes it along. O(n).
    pub(super) fn orphans(&self, crew: &Dynamic<A>) -> Vec<ActorCell> {
        if self.reserved + self.starts.len() > 1 {
            return Vec::new();
        }
        let unknown = |actor: &ActorCell| {
            let pid = actor.get_id().pid();
            pid > self.newest && !self.actors.contains_key(&pid)
        };
        crew.frame.anchor().get_children().into_iter().filter(unknown).collect()
    }

    fn forget_early(&mut self) {
        if self.reserved == 0 && self.starts.is_empty() && !self.early.is_empty() {
            self.garbage.push(Box::new(std::mem::take(&mut self.early)));
        }
    }

    /// Takes in the child that its caller has started; gives it back when the supervisor is about to stop.
    pub(super) fn fill(
        &mut self,
        crew: &Arc<Dynamic<A>>,
        key: SlotKey,
        child: Child,
        args: Option<A>,
        used: Option<StartBox>,
        now: Duration,
    ) -> Option<Child> {
        if self.rules.is_closing() {
            return Some(child);
        }
        if self.used.len() < USED {
            self.used.extend(used);
        }
        self.counts.started += 1;
        let early = self.adopt(crew, key, child, now);
        if let Some(slot) = self.slots.get_mut(key) {
            slot.args = args;
        }
        if let Some((actor, heard)) = early {
            self.heard_early(crew, actor, heard, now);
        }
        self.settled();
        None
    }

    fn adopt(&mut self, crew: &Arc<Dynamic<A>>, key: SlotKey, child: Child, now: Duration) -> Option<(ActorId, Heard)> {
        let slot = self.slots.get_mut(key)?;
        let Child { actor, ended, inspect, value, token, nested, in_hand } = child;
        if crew.frame.was_stuck() {
            crew.frame.relink(&actor);
        }
        crew.frame.look_out();
        let id = actor.get_id();
        if let Some(previous) = slot.actor.take() {
            self.actors.remove(&previous.get_id().pid());
        }
        if let Some(more) = &mut slot.more {
            let old = std::mem::take(&mut **more);
            more.restarts = old.restarts;
            self.garbage.push(Box::new(old));
        }
        // Ending already: its last words may have been heard, are on their way, or will never come.
        if nested.is_some() || actor.get_status() >= ractor::ActorStatus::Stopping {
            watch(crew, key, ended, nested.clone());
        } else {
            slot.join = Some(ended);
        }
        if inspect.is_some() || value.is_some() || token.is_some() || nested.is_some() || in_hand.is_some() {
            let more = slot.more();
            (more.inspect, more.value, more.token, more.nested) = (inspect, value, token, nested);
            more.in_hand = in_hand;
        }
        slot.actor = Some(actor);
        slot.since = now;
        self.newest = self.newest.max(id.pid());
        self.actors.insert(id.pid(), key);
        let early = self.early.iter().position(|(actor, _)| *actor == id)?;
        self.early.remove(early)
    }

    /// The task of a restart runs for the first time; whether it is still wanted.
    pub(super) fn start_begins(&mut self, key: SlotKey) -> bool {
        let start = self.starts.get_mut(&key);
        start.map(|start| start.begun = true).is_some()
    }

    /// A restart is over.
    pub(super) fn start_over(
        &mut self,
        crew: &Arc<Dynamic<A>>,
        key: SlotKey,
        outcome: Result<Option<Child>, StartFailure>,
        now: Duration,
    ) {
        self.starts.remove(&key);
        match outcome {
            Ok(Some(child)) => {
                let nested = child.nested.is_some();
                let early = self.adopt(crew, key, child, now);
                if let Some(slot) = self.slots.get_mut(key) {
                    slot.more().restarts += 1;
                }
                self.rules.restarted(key, nested, now);
                if let Some((actor, heard)) = early {
                    self.heard_early(crew, actor, heard, now);
                }
            }
            Ok(None) => self.rules.ignored(key),
            Err(failure) => self.rules.restart_failed(key, failure, now),
        }
        self.forget_early();
    }

    /// ractor told of the end of a linked actor. Answers its task, when that is still to be waited for.
    pub(super) fn heard(&mut self, actor: ActorId, heard: Heard, now: Duration) -> Option<(SlotKey, JoinHandle<()>)> {
        let Some(&key) = self.actors.get(&actor.pid()) else {
            if self.reserved > 0 || !self.starts.is_empty() {
                if self.early.len() == EARLY_ENDS {
                    self.early.pop_front();
                }
                self.early.push_back((actor, heard));
            }
            return None;
        };
        let slot = self.slots.get_mut(key)?;
        let reason = heard.reason(slot.join.as_ref().map(JoinHandle::id));
        if let Some(mut join) = slot.join.take() {
            let Some(panic) = ended_already(&mut join) else {
                slot.more().ending.heard.get_or_insert(reason);
                return Some((key, join));
            };
            let since = slot.since;
            let reason = panic.map_or(reason, ExitReason::Failed);
            self.exited(key, since, reason, Gone::Yes, now);
            return None;
        }
        slot.more().ending.heard.get_or_insert(reason);
        self.tell_end(key, now);
        None
    }

    fn heard_early(&mut self, crew: &Arc<Dynamic<A>>, actor: ActorId, heard: Heard, now: Duration) {
        if let Some((key, join)) = self.heard(actor, heard, now) {
            self.awaited(crew, key, join, None, now);
        }
    }

    /// The task of a child whose last words were heard has ended, or it takes longer and is waited for.
    pub(super) fn awaited(
        &mut self,
        crew: &Arc<Dynamic<A>>,
        key: SlotKey,
        join: JoinHandle<()>,
        ended: Option<Option<Failure>>,
        now: Duration,
    ) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        match ended {
            Some(panic) => {
                let ending = &mut slot.more().ending;
                ending.joined = true;
                ending.panic = panic;
            }
            None => watch(crew, key, join, None),
        }
        self.tell_end(key, now);
    }

    /// The task of the child has ended; whether its last words are still to come.
    pub(super) fn joined(&mut self, key: SlotKey, panic: Option<Failure>, now: Duration) -> bool {
        let Some(slot) = self.slots.get_mut(key) else { return false };
        let ending = &mut slot.more().ending;
        ending.joined = true;
        ending.panic = panic;
        if ending.heard.is_none() {
            return true;
        }
        self.tell_end(key, now);
        false
    }

    /// All that could be heard of the child has been heard.
    pub(super) fn flushed(&mut self, key: SlotKey, now: Duration) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let ending = &mut slot.more().ending;
        if ending.joined {
            ending.heard.get_or_insert(ExitReason::Killed);
            self.tell_end(key, now);
        }
    }

    /// The task of the child has not ended long after its last words.
    pub(super) fn lingers(&mut self, key: SlotKey, now: Duration) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let since = slot.since;
        let ending = &mut slot.more().ending;
        if let (Some(reason), false) = (&ending.heard, ending.told) {
            ending.told = true;
            let reason = reason.clone();
            self.exited(key, since, reason, Gone::Lingers, now);
        }
    }

    /// The nested supervisor has ended; its stragglers may live on. Answers it when its report is of no use here.
    pub(super) fn nested_over(
        &mut self,
        key: SlotKey,
        report: &ShutdownReport,
        now: Duration,
    ) -> Option<Arc<dyn Nested>> {
        let slot = self.slots.get_mut(key)?;
        let id = slot.actor.as_ref().map(|actor| actor.get_id().to_string()).unwrap_or_default();
        let more = slot.more();
        more.ending.hopeless = report.left_behind().next().is_some();
        let mut unwanted = None;
        if self.closing_since.is_some() {
            self.counts.left_behind += report.left_behind().count() as u64;
            self.troubles.merge(&id.into(), report);
        } else {
            unwanted = more.nested.clone();
        }
        self.tell_end(key, now);
        unwanted
    }

    fn exited(&mut self, key: SlotKey, since: Duration, reason: ExitReason, gone: Gone, now: Duration) {
        let others = self.slots.len() - 1;
        self.rules.exited(key, since, reason, gone, others, now);
    }

    /// Tells the rules what is known by now of an end.
    fn tell_end(&mut self, key: SlotKey, now: Duration) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let since = slot.since;
        let ending = &mut slot.more().ending;
        let Some(heard) = &ending.heard else { return };
        let reason = ending.panic.clone().map_or_else(|| heard.clone(), ExitReason::Failed);
        let (joined, told) = (ending.joined, ending.told);
        if !joined && (!ending.hopeless || told) {
            return;
        }
        ending.told = true;
        match (joined, told) {
            (true, true) => self.rules.ended(key, now),
            (true, false) => self.exited(key, since, reason, Gone::Yes, now),
            (false, _) => self.exited(key, since, reason, Gone::StragglersLeft, now),
        }
    }

    /// Begins to stop a child; whether there is such a child.
    pub(super) fn terminate(
        &mut self,
        actor: ActorId,
        waiting: oneshot::Sender<Option<Refusal>>,
        now: Duration,
    ) -> bool {
        if self.rules.is_closing() {
            let _ = waiting.send(Some(Refusal::ShuttingDown));
            return true;
        }
        let Some(&key) = self.actors.get(&actor.pid()) else { return false };
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.tickets.insert(ticket, waiting);
        let nested = self.slots.get(key).is_some_and(Slot::is_nested);
        self.rules.terminate(key, nested, ticket, now);
        true
    }

    pub(super) fn stop(&mut self, asked_by_call: bool, now: Duration) {
        self.asked_by_call |= asked_by_call;
        let running = self.running();
        self.rules.stop(running, now);
    }

    pub(super) fn kill(&mut self, now: Duration) {
        let running = self.running();
        self.rules.kill(running, now);
    }

    /// Another anchor is in use. What ended by now may have said so to one that gets no turn: its task is waited for.
    pub(super) fn relink(&mut self, crew: &Arc<Dynamic<A>>) {
        let anchor = crew.frame.anchor().get_id();
        let keys: Vec<SlotKey> = self.slots.iter().map(|(key, _)| key).collect();
        for key in keys {
            let Some(slot) = self.slots.get_mut(key) else { continue };
            let Some(actor) = &slot.actor else { continue };
            crew.frame.relink(actor);
            let linked = actor.try_get_supervisor().is_some_and(|parent| parent.get_id() == anchor);
            if (!linked || actor.get_status() >= ractor::ActorStatus::Stopping)
                && let Some(join) = slot.join.take()
            {
                watch(crew, key, join, None);
            }
        }
    }

    /// The anchor died: nothing will be heard any more.
    pub(super) fn deaf(&mut self, crew: &Arc<Dynamic<A>>, now: Duration) {
        let keys: Vec<SlotKey> = self.slots.iter().map(|(key, _)| key).collect();
        for key in keys {
            if let Some(join) = self.slots.get_mut(key).and_then(|slot| slot.join.take()) {
                watch(crew, key, join, None);
            }
        }
        self.kill(now);
    }

    /// Children that simply run. One that waits for its restart still has its last actor, and runs no more.
    fn running(&self) -> Vec<(SlotKey, bool)> {
        let running = |(key, slot): (SlotKey, &Slot<A>)| {
            (slot.actor.is_some() && self.rules.phase(key).is_none()).then(|| (key, slot.is_nested()))
        };
        self.slots.iter().filter_map(running).collect()
    }

    /// Performs what the rules decided, and what they decide upon that.
    pub(super) fn perform(&mut self, crew: &Arc<Dynamic<A>>) {
        loop {
            // First what is decided already: one that is gone must not be asked to stop.
            while let Some(action) = self.rules.next_action() {
                self.act(crew, action);
            }
            if !self.rules.must_stop_all() {
                break;
            }
            let running = self.running();
            self.rules.stop_all(running, crew.frame.now());
        }
        if self.closing_since.is_none() && self.rules.is_closing() {
            self.closing_since = Some(crew.frame.now());
            crew.closing.cancel();
        }
    }

    fn act(&mut self, crew: &Arc<Dynamic<A>>, action: Action) {
        match action {
            Action::Start(key) => self.start(crew, key),
            Action::CancelStart(key) => {
                if let Some(start) = self.starts.get_mut(&key) {
                    start.abort();
                    if !start.begun {
                        self.starts.remove(&key);
                        self.rules.restart_failed(key, StartFailure::Cancelled, crew.frame.now());
                    }
                }
            }
            Action::Ask(key) => self.ask_to_stop(crew, key),
            Action::Kill(key) => {
                self.make_sure(crew, key);
                if let Some(slot) = self.slots.get_mut(key) {
                    // A kill takes it from its hands.
                    if let Some(more) = &mut slot.more {
                        more.killed_with = more.in_hand.as_ref().and_then(InHand::held);
                    }
                    slot.actor.iter().for_each(ActorCell::kill);
                }
            }
            Action::Answer { ticket, refusal } => {
                if let Some(waiting) = self.tickets.remove(&ticket) {
                    self.errands.push(Errand::Answer(waiting, refusal));
                }
            }
            Action::Free(key) => {
                if let Some(slot) = self.slots.remove(key) {
                    if let Some(actor) = &slot.actor {
                        self.actors.remove(&actor.get_id().pid());
                    }
                    if slot.args.is_some() || slot.more.is_some() {
                        self.garbage.push(Box::new(slot));
                    }
                }
            }
            Action::Ended { key, reason, restarting } => {
                self.counts.restarts += u64::from(restarting);
                if reason.is_failure() {
                    // Folded together: the children are of one kind.
                    let name = crew.frame.name.clone();
                    self.log.ended(&name, &name, &reason, restarting, crew.frame.now());
                } else {
                    log::ended_quietly(&crew.frame.name, &self.name(key), &reason, restarting);
                }
            }
            Action::RestartFailed { failure, .. } => {
                let name = crew.frame.name.clone();
                self.log.restart_failed(&name, &name, &failure.to_string(), crew.frame.now());
            }
            Action::GaveUp => log::gave_up(&crew.frame.name, &crew.frame.name),
            Action::AutoShutdown(key) => log::auto_shutdown(&crew.frame.name, &self.name(key)),
            Action::Trouble { key, trouble, closing, waited } => self.trouble(crew, key, trouble, closing, waited),
            Action::Finish(exit) => self.exit = Some(exit),
        }
    }

    fn name(&self, key: SlotKey) -> Arc<str> {
        let actor = self.slots.get(key).and_then(|slot| slot.actor.as_ref());
        actor.map(|actor| actor.get_id().to_string()).unwrap_or_default().into()
    }

    fn trouble(&mut self, crew: &Arc<Dynamic<A>>, key: SlotKey, trouble: Trouble, closing: bool, waited: Duration) {
        let what = match trouble {
            Trouble::Ended(reason) => TroubleKind::Ended(reason),
            Trouble::Killed => TroubleKind::Killed,
            Trouble::LeftBehind => TroubleKind::LeftBehind,
        };
        let slot = self.slots.get(key);
        let actor = slot.and_then(|slot| slot.actor.as_ref()).map(ActorCell::get_id);
        let more = slot.and_then(|slot| slot.more.as_ref()).filter(|_| !matches!(what, TroubleKind::Ended(_)));
        let in_hand = more.and_then(|more| more.killed_with.clone().or_else(|| more.in_hand.as_ref()?.held()));
        let reported = Reported { path: vec![self.name(key)], actor, what, waited, in_hand };
        self.counts.left_behind += u64::from(reported.what == TroubleKind::LeftBehind);
        log::trouble(&crew.frame.name, &reported);
        if closing {
            self.troubles.push(reported);
        }
    }

    fn start(&mut self, crew: &Arc<Dynamic<A>>, key: SlotKey) {
        let Some(keep) = crew.keep else { return };
        let Some(args) = self.slots.get(key).and_then(|slot| slot.args.as_ref()) else { return };
        let args = match guarded(|| keep(args)) {
            Ok(args) => args,
            Err(failure) => {
                return self.rules.restart_failed(key, StartFailure::Failed(failure), crew.frame.now());
            }
        };
        let start = crew.frame.runtime.spawn(starting(crew.clone(), key, args));
        self.starts.insert(key, StartTask::new(start.abort_handle()));
    }

    fn ask_to_stop(&mut self, crew: &Arc<Dynamic<A>>, key: SlotKey) {
        self.make_sure(crew, key);
        let Some(slot) = self.slots.get_mut(key) else { return };
        // No kill will find out that it unlinked itself in its stop hook: its task is waited for.
        if crew.settings.shutdown == Shutdown::Infinity
            && let Some(join) = slot.join.take()
        {
            watch_patiently(crew, key, join);
        }
        let Some(actor) = &slot.actor else { return };
        let token = slot.more.as_ref().and_then(|more| more.token.as_ref());
        self.errands.push(match (token, crew.settings.ask) {
            (Some(token), _) => Errand::Cancel(token.clone()),
            (None, Ask::Stop) => Errand::Stop(actor.clone()),
            (None, Ask::Drain) => Errand::Drain(actor.clone()),
        });
    }

    /// One that is linked no more would die without a word: it is monitored from now on, and its task waited for.
    fn make_sure(&mut self, crew: &Arc<Dynamic<A>>, key: SlotKey) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let Some(actor) = &slot.actor else { return };
        let parent = actor.try_get_supervisor();
        if parent.is_none_or(|parent| parent.get_id() != crew.frame.anchor().get_id())
            && let Some(join) = slot.join.take()
        {
            crew.frame.anchor().monitor(actor.clone());
            watch(crew, key, join, None);
        }
    }

    pub(super) fn take_garbage(&mut self) -> Garbage {
        std::mem::take(&mut self.garbage)
    }

    pub(super) fn take_errands(&mut self) -> Errands {
        std::mem::take(&mut self.errands)
    }

    pub(super) fn rest(&mut self) -> Rest {
        self.keeper_sleeps_until = self.rules.deadline();
        if self.exit.is_some() { Rest::Over } else { Rest::Until(self.keeper_sleeps_until) }
    }

    pub(super) fn keeper_is_wanted(&self) -> bool {
        let earlier = match (self.rules.deadline(), self.keeper_sleeps_until) {
            (Some(deadline), Some(until)) => deadline < until,
            (deadline, _) => deadline.is_some(),
        };
        earlier || self.exit.is_some()
    }

    pub(super) fn conclude(&mut self, name: &Arc<str>, now: Duration) -> (ShutdownReport, bool) {
        let (cause, reason) = self.exit.clone().unwrap_or(Exit::Killed).outcome();
        let troubles = std::mem::take(&mut self.troubles);
        let report = ShutdownReport {
            supervisor: name.clone(),
            cause,
            reason,
            took: now.saturating_sub(self.closing_since.unwrap_or(now)),
            troubles: troubles.list,
            omitted: troubles.omitted,
        };
        self.tickets.clear();
        (report, self.asked_by_call)
    }

    pub(super) fn anything_left(&self) -> bool {
        self.slots.iter().any(|(_, slot)| slot.actor.is_some()) || !self.starts.is_empty()
    }

    /// Kills whatever is there, by itself, and lets nobody wait any longer: for when the keeper is no more, or the rules
    /// cannot be relied upon.
    pub(super) fn abandon(&mut self) {
        self.rules.abandon();
        self.starts.values_mut().for_each(StartTask::abort);
        // Those that have not begun will not tell.
        self.starts.retain(|_, start| start.begun);
        for actor in self.slots.iter().filter_map(|(_, slot)| slot.actor.as_ref()) {
            actor.kill();
        }
        self.exit.get_or_insert(Exit::Killed);
        self.tickets.clear();
    }

    pub(super) fn knows(&self, actor: ActorId) -> bool {
        self.actors.contains_key(&actor.pid())
    }

    pub(super) fn max_children(&self) -> u32 {
        self.slots.limit()
    }

    pub(super) fn set_max_children(&mut self, max: u32) {
        self.slots.set_limit(max);
    }

    fn state(&self, key: SlotKey, slot: &Slot<A>) -> ChildState {
        match (self.rules.phase(key), &slot.actor) {
            (Some(DynamicPhase::Restarting), _) => ChildState::Restarting,
            (_, Some(actor)) => ChildState::Running(actor.clone()),
            (_, None) => ChildState::None,
        }
    }

    pub(super) fn entries(&self, kind: Kind) -> Vec<ChildEntry> {
        let mut slots: Vec<_> = self.slots.iter().collect();
        slots.sort_unstable_by_key(|(key, _)| std::cmp::Reverse(*key));
        slots.into_iter().map(|(key, slot)| ChildEntry { id: None, kind, state: self.state(key, slot) }).collect()
    }

    pub(super) fn count(&self, kind: Kind) -> ChildCount {
        let all = self.slots.len();
        let restarting = self.rules.restarting();
        let starting = self.reserved;
        let supervisors = if kind == Kind::Supervisor { all } else { 0 };
        ChildCount { specs: 1, active: all - restarting - starting, supervisors, workers: all - supervisors }
    }

    pub(super) fn details(&self, kind: Kind) -> (Details, Vec<Option<Arc<dyn Inspect>>>) {
        let mut details = Details::default();
        let mut shown = Vec::new();
        for (key, slot) in self.slots.iter().take(SHOWN) {
            let status = match (self.rules.phase(key), &slot.actor) {
                (Some(DynamicPhase::Restarting), _) => Status::Restarting,
                (Some(DynamicPhase::Stopping), _) => Status::Stopping,
                (None, Some(_)) => Status::Running,
                (None, None) => Status::Starting,
            };
            let actor = slot.actor.as_ref().map(|actor| actor.get_id().to_string());
            details.children.push(TreeNode {
                id: actor.clone().unwrap_or_default(),
                kind,
                status,
                actor,
                restarts: slot.more.as_ref().map_or(0, |more| more.restarts),
                details: Details::default(),
            });
            shown.push(slot.more.as_ref().and_then(|more| more.inspect.clone()));
        }
        details.counters = [
            ("children", self.slots.len() as u64),
            ("max_children", u64::from(self.slots.limit())),
            ("started", self.counts.started),
            ("restarts", self.counts.restarts),
            ("refused_max_children", self.counts.refused),
            ("left_behind", self.counts.left_behind),
        ]
        .into_iter()
        .map(|(name, count)| (name.to_owned(), count))
        .collect();
        (details, shown)
    }
}

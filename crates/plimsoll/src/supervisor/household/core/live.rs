//! Children that run: taken in, kept linked, asked to stop, killed.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use ractor::ActorCell;
use ractor::concurrency::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Core, Household};
use crate::inspect::Inspect;
use crate::supervisor::child::{Child, Nested};
use crate::supervisor::current_message::CurrentMessage;
use crate::supervisor::frame::{Crew, Ending, watch, watch_patiently};
use crate::supervisor::options::{Shutdown, StopMode};
use crate::supervisor::rules::Run;
use crate::supervisor::stop_deadline::StopDeadline;

/// One incarnation that runs, or has not ended yet.
pub(super) struct Live {
    pub(super) actor: ActorCell,
    pub(super) value: Option<Arc<dyn Any + Send + Sync>>,
    pub(super) inspect: Option<Arc<dyn Inspect>>,
    token: Option<CancellationToken>,
    pub(super) nested: Option<Arc<dyn Nested>>,
    current_message: Option<CurrentMessage>,
    stop_deadline: Option<StopDeadline>,
    /// What it had in hand when it was killed.
    killed_with: Option<Arc<str>>,
    /// The handle of its task, until somebody waits for it.
    pub(super) join: Option<JoinHandle<()>>,
    pub(super) ending: Ending,
    stop_mode: StopMode,
}

impl Live {
    pub(super) fn message_at_kill(&self) -> Option<Arc<str>> {
        self.killed_with.clone().or_else(|| self.current_message.as_ref()?.get())
    }
}

impl Core {
    pub(super) fn adopt(&mut self, household: &Arc<Household>, run: Run, child: Child, now: Duration) {
        let Child { actor, ended, inspect, value, token, nested, current_message, stop_deadline } = child;
        let key = self.rules.key_of_run(run);
        let stop_mode = key.and_then(|key| self.specs.get(&key)).map_or(StopMode::Stop, |spec| spec.settings.stop_mode);
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
            current_message,
            stop_deadline,
            killed_with: None,
            join,
            ending: Ending::default(),
            stop_mode,
        };
        self.live.insert(run, live);
        self.actors.insert(id, run);
        self.rules.started(run, is_nested, now);
        if let Some(heard) = self.early.take(id)
            && let Some((run, join)) = self.heard(id, heard, now)
        {
            self.awaited(household, run, join, None, now);
        }
    }

    pub(super) fn ask_to_stop(&mut self, household: &Arc<Household>, run: Run) {
        self.make_sure(household, run);
        let key = self.rules.key_of_run(run);
        let shutdown = key.and_then(|key| self.rules.rules_of(key)).map(|rules| rules.shutdown);
        let patient = shutdown == Some(Shutdown::Infinity);
        let Some(live) = self.live.get_mut(&run) else { return };
        if let (Some(stop_deadline), Some(Shutdown::After(grace))) = (&live.stop_deadline, shutdown) {
            stop_deadline.set_after(grace);
        }
        // No kill will find out that it unlinked itself in its stop hook: its task is waited for.
        if patient && let Some(join) = live.join.take() {
            watch_patiently(household, run, join);
        }
        match (&live.token, live.stop_mode) {
            (Some(token), _) => token.cancel(),
            (None, StopMode::Stop) => live.actor.stop(Some("shutdown".to_owned())),
            (None, StopMode::Drain) => drop(live.actor.drain()),
        }
    }

    pub(super) fn kill(&mut self, household: &Arc<Household>, run: Run) {
        self.make_sure(household, run);
        if let Some(live) = self.live.get_mut(&run) {
            // A kill takes it from its hands.
            live.killed_with = live.current_message.as_ref().and_then(CurrentMessage::get);
            live.actor.kill();
        }
    }

    /// One that is linked no more would die without a word: it is monitored from now on, and its task waited for.
    fn make_sure(&mut self, household: &Arc<Household>, run: Run) {
        let Some(live) = self.live.get_mut(&run) else { return };
        if !household.frame().is_linked(&live.actor)
            && let Some(join) = live.join.take()
        {
            household.frame().anchor().monitor(live.actor.clone());
            watch(household, run, join, None);
        }
    }

    /// Another anchor is in use. What ended by now may have said so to one that gets no turn: its task is waited for.
    pub(in crate::supervisor::household) fn relink(&mut self, household: &Arc<Household>) {
        let mut unsure = Vec::new();
        for (run, live) in &mut self.live {
            household.frame().relink(&live.actor);
            if !household.frame().is_linked(&live.actor) || live.actor.get_status() >= ractor::ActorStatus::Stopping {
                unsure.extend(live.join.take().map(|join| (*run, join)));
            }
        }
        for (run, join) in unsure {
            watch(household, run, join, None);
        }
    }

    /// The anchor died: nothing will be heard any more.
    pub(in crate::supervisor::household) fn deaf(&mut self, household: &Arc<Household>, now: Duration) {
        let runs: Vec<Run> = self.live.keys().copied().collect();
        for run in runs {
            if let Some(join) = self.live.get_mut(&run).and_then(|live| live.join.take()) {
                watch(household, run, join, None);
            }
        }
        self.rules.kill(now);
    }
}

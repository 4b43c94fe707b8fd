//! The rules together with what they stand for: actors, tasks, start functions, waiting callers.
//!
//! Here are the state and the doors of the whole: its beginning, what is asked of it, its end.

mod acting;
mod ending;
mod inspection;
mod live;
mod starting;

use std::sync::Arc;
use std::time::Duration;

use ractor::ActorId;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use self::live::Live;
pub(super) use self::starting::NextStart;
use super::Household;
use crate::supervisor::child::ChildRef;
use crate::supervisor::child_spec::{ChildSettings, ChildSpec, StartFn};
use crate::supervisor::error::StartError;
use crate::supervisor::frame::{EarlyEnds, Garbage, OwnEnd, Rest, Sleep, StartTask};
use crate::supervisor::log::Log;
use crate::supervisor::rules::{Exit, Key, Numbered, Refusal, Rules, Run, Ticket};
use crate::supervisor::shutdown_report::ShutdownReport;

/// What a waiting caller is told.
pub(crate) enum Reply {
    Started(ChildRef),
    Ignored,
    Done,
    AlreadyStarted(ChildRef),
    Refused(Refusal),
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
    /// Ends of linked actors whose start has not been told.
    early: EarlyEnds,
    tickets: Numbered<Ticket, oneshot::Sender<Reply>>,
    /// Specs of `start_child` that have not been taken yet.
    offered: Numbered<Ticket, ChildSpec>,
    next_ticket: Ticket,
    /// Told when the boot is over.
    boot: Option<oneshot::Sender<Result<(), StartError>>>,
    restarts: u64,
    own_end: OwnEnd,
    keeper: Sleep,
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
            early: EarlyEnds::default(),
            tickets: Numbered::default(),
            offered: Numbered::default(),
            next_ticket: 0,
            boot: None,
            restarts: 0,
            own_end: OwnEnd::default(),
            keeper: Sleep::default(),
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
        self.own_end.asked(asked_by_call);
        self.rules.stop(now);
    }

    /// What the keeper does next.
    pub(super) fn rest(&mut self) -> Rest {
        self.keeper.rest(self.rules.deadline(), self.own_end.is_over())
    }

    /// Whether the keeper sleeps longer than it may.
    pub(super) fn keeper_is_wanted(&self) -> bool {
        self.keeper.is_too_long(self.rules.deadline(), self.own_end.is_over())
    }

    pub(super) fn take_garbage(&mut self) -> Garbage {
        std::mem::take(&mut self.garbage)
    }

    fn told_boot(&mut self, outcome: Result<(), StartError>) {
        if let Some(boot) = self.boot.take() {
            let _ = boot.send(outcome);
        }
    }

    /// The report, the last word to whoever waited for the boot, and whether the one who stopped it is told.
    pub(super) fn conclude(&mut self, name: &Arc<str>, now: Duration) -> (ShutdownReport, bool) {
        let report = self.own_end.report(name.clone(), now);
        let boot = match self.own_end.exit() {
            Exit::BootFailed { key, reason } => {
                let id = self.specs.get(&key).map(|spec| spec.settings.id.clone()).unwrap_or_else(|| "".into());
                StartError::FailedToStart { id, reason: Box::new(reason.into()) }
            }
            _ => StartError::ShuttingDown,
        };
        self.told_boot(Err(boot));
        self.garbage.push(Box::new(std::mem::take(&mut self.specs)));
        self.tickets.clear();
        (report, self.own_end.asked_by_call())
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
        self.own_end.abandon();
        self.tickets.clear();
        self.told_boot(Err(StartError::ShuttingDown));
    }
}

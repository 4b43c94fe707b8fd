//! The operations on a running supervisor.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::entry::{Cause, Phase, State};
use super::group::{Group, Stage};
use super::{Action, ChildRules, Key, Rules, Run, Ticket};
use crate::exit::Failure;

/// What whoever asked is told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    /// The child runs.
    Started { run: Run },
    /// Its start had nothing to run.
    Ignored,
    /// It is done.
    Done,
    /// It is not.
    Failed(Refusal),
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Refusal {
    AlreadyStarted { run: Run },
    AlreadyPresent,
    NotFound,
    Running,
    Restarting,
    ShuttingDown,
    Terminated,
    KillTimedOut,
    Start(StartFailure),
}

/// Why a start failed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum StartFailure {
    Failed(Failure),
    NameTaken(Arc<str>),
    Timeout(Duration),
    NotLinked,
    Cancelled,
    /// A nested supervisor's own child failed to start.
    Nested(Box<crate::supervisor::StartError>),
}

/// An operation that waits for a stop.
#[derive(Debug)]
pub(super) struct Queued {
    ticket: Ticket,
    operation: Operation,
}

#[derive(Debug)]
enum Operation {
    Start(ChildRules),
    Restart(Arc<str>),
    Delete(Arc<str>),
}

impl Operation {
    fn id(&self) -> &Arc<str> {
        match self {
            Self::Start(rules) => &rules.id,
            Self::Restart(id) | Self::Delete(id) => id,
        }
    }
}

impl Rules {
    /// Adds a spec and starts its child.
    pub(crate) fn start_child(&mut self, rules: ChildRules, ticket: Ticket, now: Duration) {
        self.ask(ticket, Operation::Start(rules), now);
    }

    pub(crate) fn restart_child(&mut self, id: &str, ticket: Ticket, now: Duration) {
        self.ask(ticket, Operation::Restart(id.into()), now);
    }

    pub(crate) fn delete_child(&mut self, id: &str, ticket: Ticket, now: Duration) {
        self.ask(ticket, Operation::Delete(id.into()), now);
    }

    /// Stops a child; at once, whatever is under way.
    pub(crate) fn terminate_child(&mut self, id: &str, ticket: Ticket, now: Duration) {
        if self.is_closing() {
            return self.answer(ticket, Answer::Failed(Refusal::ShuttingDown));
        }
        let Some(&key) = self.ids.get(id) else { return self.answer(ticket, Answer::Failed(Refusal::NotFound)) };
        self.leave_group(key);
        match &mut self.entry(key).state {
            State::Vacant => self.answer(ticket, Answer::Done),
            State::Restarting => {
                self.entry(key).state = State::Vacant;
                self.answer(ticket, Answer::Done);
            }
            State::Starting { waiters, .. } => {
                waiters.push(ticket);
                self.cancel_start(key, now);
            }
            State::Up { .. } => {
                self.begin_stop(key, now);
                if let State::Stopping { waiters, .. } = &mut self.entry(key).state {
                    waiters.push(ticket);
                }
            }
            State::Stopping { left: true, .. } | State::Down { left: true, .. } => {
                let entry = self.entry(key);
                entry.respawn = false;
                if let State::Down { restarting, .. } = &mut entry.state {
                    *restarting = false;
                }
                self.answer(ticket, Answer::Failed(Refusal::KillTimedOut));
            }
            State::Stopping { waiters, .. } => waiters.push(ticket),
            State::Down { run, waiters, restarting, .. } => {
                let run = *run;
                waiters.push(ticket);
                *restarting = false;
                self.deferred.retain(|(_, deferred, _)| *deferred != run);
                self.no_longer_pending(key, run, now);
            }
        }
        self.settle(now);
    }

    /// The state of every child, oldest spec first.
    pub(crate) fn phases(&self) -> impl DoubleEndedIterator<Item = (Key, &ChildRules, Phase, u64)> {
        self.entries.iter().map(|(key, entry)| (*key, &entry.rules, entry.phase(), entry.restarts))
    }

    pub(crate) fn phase_of(&self, key: Key) -> Option<Phase> {
        self.entries.get(&key).map(|entry| entry.phase())
    }

    pub(crate) fn key_of(&self, id: &str) -> Option<Key> {
        self.ids.get(id).copied()
    }

    pub(crate) fn key_of_run(&self, run: Run) -> Option<Key> {
        self.runs.get(&run).copied()
    }

    pub(crate) fn rules_of(&self, key: Key) -> Option<&ChildRules> {
        self.entries.get(&key).map(|entry| &entry.rules)
    }

    fn ask(&mut self, ticket: Ticket, operation: Operation, now: Duration) {
        if self.is_closing() {
            return self.answer(ticket, Answer::Failed(Refusal::ShuttingDown));
        }
        self.queued.push_back(Queued { ticket, operation });
        self.settle(now);
    }

    /// Serves the first operation that need not wait; whether there was one.
    pub(super) fn serve_queued(&mut self, now: Duration) -> bool {
        if !self.may_go_on() {
            return false;
        }
        let ready = self.queued.iter().position(|queued| !self.must_wait(queued.operation.id()));
        let Some(Queued { ticket, operation }) = ready.and_then(|index| self.queued.remove(index)) else {
            return false;
        };
        match operation {
            Operation::Start(rules) => self.start_now(rules, ticket),
            Operation::Restart(id) => self.restart_now(&id, ticket, now),
            Operation::Delete(id) => self.delete_now(&id, ticket),
        }
        true
    }

    pub(super) fn refuse_queued(&mut self) {
        for Queued { ticket, .. } in std::mem::take(&mut self.queued) {
            self.answer(ticket, Answer::Failed(Refusal::ShuttingDown));
        }
    }

    /// Whether the child in question is being stopped itself, or its start has only just begun.
    fn must_wait(&self, id: &str) -> bool {
        let state = self.ids.get(id).and_then(|key| self.entries.get(key)).map(|entry| &entry.state);
        match state {
            Some(State::Stopping { left, .. }) => !left,
            Some(State::Down { left, restarting, .. }) => !left && !restarting,
            Some(State::Starting { cancelled, slow, .. }) => *cancelled || !slow,
            _ => false,
        }
    }

    fn start_now(&mut self, rules: ChildRules, ticket: Ticket) {
        let present = self.ids.get(&rules.id).and_then(|key| self.entries.get(key)).map(|entry| entry.phase());
        match present {
            Some(Phase::Up(run)) => self.answer(ticket, Answer::Failed(Refusal::AlreadyStarted { run })),
            Some(_) => self.answer(ticket, Answer::Failed(Refusal::AlreadyPresent)),
            None => {
                let key = self.insert(rules);
                self.actions.push_back(Action::Take { key, ticket });
                self.begin_start(key, Cause::Asked(ticket), true);
            }
        }
    }

    fn restart_now(&mut self, id: &str, ticket: Ticket, _now: Duration) {
        let Some(&key) = self.ids.get(id) else { return self.answer(ticket, Answer::Failed(Refusal::NotFound)) };
        let refusal = match self.entry(key).phase() {
            Phase::Vacant => return self.begin_start(key, Cause::Asked(ticket), false),
            Phase::Restarting => Refusal::Restarting,
            Phase::Stopping(_) if self.entry(key).kill_timed_out() => Refusal::KillTimedOut,
            Phase::Up(_) | Phase::Starting | Phase::Stopping(_) => Refusal::Running,
        };
        self.answer(ticket, Answer::Failed(refusal));
    }

    fn delete_now(&mut self, id: &str, ticket: Ticket) {
        let Some(&key) = self.ids.get(id) else { return self.answer(ticket, Answer::Failed(Refusal::NotFound)) };
        let refusal = match self.entry(key).phase() {
            Phase::Vacant => {
                self.forget(key);
                return self.answer(ticket, Answer::Done);
            }
            Phase::Restarting => Refusal::Restarting,
            Phase::Stopping(_) if self.entry(key).kill_timed_out() => Refusal::KillTimedOut,
            Phase::Up(_) | Phase::Starting | Phase::Stopping(_) => Refusal::Running,
        };
        self.answer(ticket, Answer::Failed(refusal));
    }

    /// A child terminated by hand leaves the restart that would start it again. Where it is the one being tried again,
    /// the restart ends with it.
    fn leave_group(&mut self, key: Key) {
        let starting = match self.entry(key).state {
            State::Starting { cause: Cause::Group(origin), .. } => Some(origin),
            _ => None,
        };
        if let Some(group) = self.groups.get(&key) {
            let ends = match group.stage {
                Stage::Waiting => true,
                Stage::Stopping { .. } => group.retry || matches!(group.cover, super::group::Cover::One(_)),
                Stage::Starting { .. } => starting == Some(key),
            };
            if ends {
                return self.end_group(key);
            }
        }
        let stopped = self.being_stopped(key);
        self.entry(key).skip = stopped;
    }

    /// Starts a child whose last incarnation was left behind and has ended at last.
    pub(super) fn start_late(&mut self, key: Key, now: Duration) {
        if self.groups.contains_key(&key) || !self.entry(key).startable() {
            return;
        }
        let stage = Stage::Starting { next: key, end: key + 1 };
        self.groups.insert(
            key,
            Group { cover: super::group::Cover::One(key), stage, retry: false, owes: false, delay_at: None },
        );
        self.advance(key, now);
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(failure) => write!(f, "{failure}"),
            other => write!(f, "{other:?}"),
        }
    }
}

impl fmt::Display for StartFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(failure) => write!(f, "{failure}"),
            Self::NameTaken(name) => write!(f, "the name `{name}` is taken"),
            Self::Timeout(limit) => write!(f, "the start took longer than {limit:?}"),
            Self::NotLinked => f.write_str("the start answered an actor that is not linked to the supervisor"),
            Self::Cancelled => f.write_str("the start was given up"),
            Self::Nested(error) => write!(f, "{error}"),
        }
    }
}

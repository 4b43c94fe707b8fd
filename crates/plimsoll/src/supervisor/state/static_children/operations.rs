//! The operations on a running supervisor.
//!
//! `terminate_child` acts at once, whatever is in progress. The others wait for a strategy that stops siblings. Under
//! one_for_all and rest_for_one a start also waits for the starts of earlier children that are in progress: as in OTP, no
//! child is older than one that it may depend on.

use std::sync::Arc;
use std::time::Duration;

use super::child::{ChildPhase, StartCause, State};
use super::restart::{PendingRestart, Scope, Stage};
use super::{Key, StaticState};
use crate::exit::ExitReason;
use crate::supervisor::child_spec::ChildSettings;
use crate::supervisor::options::Strategy;
use crate::supervisor::state::{Command, Refusal, Reply, RequestId, SpecCommand, SupervisorState};

/// An operation that waits.
#[derive(Debug)]
pub(super) struct Queued {
    request: RequestId,
    operation: Operation,
    /// The child that requested it, if one did.
    caller: Option<Key>,
}

#[derive(Debug)]
enum Operation {
    Start(ChildSettings),
    StartOrGet(ChildSettings),
    Restart(Arc<str>),
    Delete(Arc<str>),
}

impl Operation {
    fn id(&self) -> &Arc<str> {
        match self {
            Self::Start(settings) | Self::StartOrGet(settings) => &settings.id,
            Self::Restart(id) | Self::Delete(id) => id,
        }
    }
}

impl StaticState {
    /// Adds a spec and starts its child.
    pub(crate) fn start_child(&mut self, settings: ChildSettings, request: RequestId, now: Duration) {
        self.enqueue(request, Operation::Start(settings), now);
    }

    /// Returns the running child of this id, waiting for a start in progress, or starts it.
    pub(crate) fn start_or_get_child(&mut self, settings: ChildSettings, request: RequestId, now: Duration) {
        self.enqueue(request, Operation::StartOrGet(settings), now);
    }

    /// Starts the child of a spec that is kept.
    pub(crate) fn restart_child(&mut self, id: &str, request: RequestId, now: Duration) {
        self.enqueue(request, Operation::Restart(id.into()), now);
    }

    /// Drops the spec of a child that does not run.
    pub(crate) fn delete_child(&mut self, id: &str, request: RequestId, now: Duration) {
        self.enqueue(request, Operation::Delete(id.into()), now);
    }

    /// Stops a child; at once, whatever is in progress.
    pub(crate) fn terminate_child(&mut self, id: &str, request: RequestId, now: Duration) {
        if self.is_shutting_down() {
            return self.refuse(request, Refusal::ShuttingDown);
        }
        let Some(&key) = self.ids.get(id) else { return self.refuse(request, Refusal::NotFound) };
        self.leave_restart(key);
        match &mut self.child(key).state {
            State::Stopped => self.reply(request, Reply::Done),
            State::Restarting => {
                self.child(key).state = State::Stopped;
                self.reply(request, Reply::Done);
            }
            State::Starting { waiters, .. } => {
                waiters.push(request);
                self.cancel_start(key, now);
            }
            State::Running { .. } => {
                self.begin_stop(key, now);
                if let State::Stopping { waiters, .. } = &mut self.child(key).state {
                    waiters.push(request);
                }
            }
            State::Stopping { abandoned: true, .. } | State::Exited { abandoned: true, .. } => {
                let child = self.child(key);
                child.start_when_ended = false;
                if let State::Exited { restarting, .. } = &mut child.state {
                    *restarting = false;
                }
                self.refuse(request, Refusal::KillTimedOut);
            }
            State::Stopping { waiters, .. } => waiters.push(request),
            State::Exited { run, waiters, restarting, .. } => {
                let run = *run;
                waiters.push(request);
                *restarting = false;
                self.deferred.retain(|(_, deferred, _)| *deferred != run);
                self.no_longer_pending(key, run, now);
            }
        }
        self.settle(now);
    }

    /// The caller does not wait for the end of this child any longer. That of a start counts on: its spec is kept.
    pub(crate) fn forget_waiter(&mut self, id: &str, request: RequestId) {
        let Some(child) = self.ids.get(id).and_then(|key| self.children.get_mut(key)) else { return };
        if let State::Stopping { waiters, .. } | State::Exited { waiters, .. } = &mut child.state {
            waiters.retain(|waiter| *waiter != request);
        }
    }

    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        let waiters = self.children.values().map(|child| match &child.state {
            State::Starting { waiters, .. } | State::Stopping { waiters, .. } | State::Exited { waiters, .. } => {
                waiters.len()
            }
            State::Stopped | State::Running { .. } | State::Restarting => 0,
        });
        self.queued.len() + waiters.sum::<usize>()
    }

    fn enqueue(&mut self, request: RequestId, operation: Operation, now: Duration) {
        if self.is_shutting_down() {
            return self.refuse(request, Refusal::ShuttingDown);
        }
        self.queued.push_back(Queued { request, operation, caller: None });
        self.settle(now);
    }

    /// Serves the first operation that need not wait; returns whether there was one.
    pub(super) fn serve_queued(&mut self) -> bool {
        if !self.may_continue() {
            return false;
        }
        let ready = self.queued.iter().position(|queued| !self.must_wait(&queued.operation));
        let Some(Queued { request, operation, .. }) = ready.and_then(|index| self.queued.remove(index)) else {
            return false;
        };
        match operation {
            Operation::Start(settings) => self.start_now(settings, request),
            Operation::StartOrGet(settings) => self.start_or_get_now(settings, request),
            Operation::Restart(id) => self.restart_now(&id, request),
            Operation::Delete(id) => self.delete_now(&id, request),
        }
        true
    }

    pub(crate) fn is_queued(&self, request: RequestId) -> bool {
        self.queued.iter().any(|queued| queued.request == request)
    }

    /// This operation was requested by a child.
    pub(crate) fn set_caller(&mut self, request: RequestId, caller: Key, now: Duration) {
        if let Some(queued) = self.queued.iter_mut().find(|queued| queued.request == request) {
            queued.caller = Some(caller);
            self.settle(now);
        }
    }

    /// Operations of a child that is being stopped would wait for the end of their caller.
    pub(super) fn refuse_deadlocks(&mut self) {
        let stops =
            |caller: Key| self.children.get(&caller).is_some_and(|child| matches!(child.state, State::Stopping { .. }));
        let deadlocks: Vec<_> =
            self.queued.iter().filter(|queued| queued.caller.is_some_and(stops)).map(|queued| queued.request).collect();
        for request in deadlocks {
            self.withdraw(request);
            self.refuse(request, Refusal::Deadlock);
        }
    }

    /// Drops an operation that waits; returns whether there was one.
    pub(crate) fn withdraw(&mut self, request: RequestId) -> bool {
        let before = self.queued.len();
        self.queued.retain(|queued| queued.request != request);
        self.queued.len() < before
    }

    pub(super) fn refuse_queued(&mut self) {
        for Queued { request, .. } in std::mem::take(&mut self.queued) {
            self.refuse(request, Refusal::ShuttingDown);
        }
    }

    /// Whether the child is being stopped itself, its start has only just begun, or an earlier one is being started.
    fn must_wait(&self, operation: &Operation) -> bool {
        let key = self.key_of(operation.id());
        let state = key.and_then(|key| self.children.get(&key)).map(|child| &child.state);
        let get = matches!(operation, Operation::StartOrGet(_));
        match state {
            Some(State::Stopping { abandoned, .. }) => !abandoned,
            Some(State::Exited { abandoned, restarting, .. }) => !abandoned && (!restarting || get),
            Some(State::Starting { cancelled, slow, .. }) => *cancelled || !slow || get,
            Some(State::Restarting) => get,
            Some(State::Running { .. }) => false,
            Some(State::Stopped) => match operation {
                Operation::Restart(_) | Operation::StartOrGet(_) => self.start_in_progress_before(key),
                Operation::Start(_) | Operation::Delete(_) => false,
            },
            None => match operation {
                Operation::Start(_) | Operation::StartOrGet(_) => self.start_in_progress_before(None),
                Operation::Restart(_) | Operation::Delete(_) => false,
            },
        }
    }

    /// Whether a child before this one, or before a new one, is being started, on which it may depend.
    fn start_in_progress_before(&self, key: Option<Key>) -> bool {
        if self.flags.strategy == Strategy::OneForOne {
            return false;
        }
        let limit = key.unwrap_or(Key::MAX);
        let restarting = |restart: &PendingRestart| {
            restart.scope.has_siblings()
                && matches!(restart.stage, Stage::Starting { next, end } if next < end.min(limit))
        };
        self.restarts.values().any(restarting)
            || self.children.range(..limit).any(|(_, child)| matches!(child.state, State::Starting { .. }))
    }

    fn start_now(&mut self, settings: ChildSettings, request: RequestId) {
        let present = self.key_of(&settings.id).and_then(|key| self.phase_of(key));
        match present {
            Some(ChildPhase::Running(run)) => self.reply(request, Reply::AlreadyStarted { run }),
            Some(ChildPhase::Starting) => self.refuse(request, Refusal::Starting),
            Some(_) => self.refuse(request, Refusal::AlreadyPresent),
            None => {
                let key = self.insert(settings);
                self.commands.push_back(Command::Spec(SpecCommand::Add { spec: key, request }));
                self.begin_start(key, StartCause::Requested(request), true);
            }
        }
    }

    fn start_or_get_now(&mut self, settings: ChildSettings, request: RequestId) {
        let key = self.key_of(&settings.id);
        match key.and_then(|key| self.phase_of(key)) {
            Some(ChildPhase::Running(run)) => self.reply(request, Reply::Started { run }),
            // Only one that was abandoned after a kill comes here in another phase than stopped.
            Some(_) => self.restart_now(&settings.id, request),
            None => self.start_now(settings, request),
        }
    }

    fn restart_now(&mut self, id: &str, request: RequestId) {
        let Some(key) = self.key_of(id) else { return self.refuse(request, Refusal::NotFound) };
        match self.not_stopped(key) {
            None => self.begin_start(key, StartCause::Requested(request), false),
            Some(refusal) => self.refuse(request, refusal),
        }
    }

    fn delete_now(&mut self, id: &str, request: RequestId) {
        let Some(key) = self.key_of(id) else { return self.refuse(request, Refusal::NotFound) };
        match self.not_stopped(key) {
            None => {
                self.remove(key);
                self.reply(request, Reply::Done);
            }
            Some(refusal) => self.refuse(request, refusal),
        }
    }

    /// Why an operation on a stopped child is refused, if it is.
    fn not_stopped(&mut self, key: Key) -> Option<Refusal> {
        let child = self.child(key);
        match child.phase() {
            ChildPhase::Stopped => None,
            ChildPhase::Starting => Some(Refusal::Starting),
            ChildPhase::Restarting => Some(Refusal::Restarting),
            ChildPhase::Stopping(_) if child.abandoned() => Some(Refusal::KillTimedOut),
            ChildPhase::Running(_) | ChildPhase::Stopping(_) => Some(Refusal::Running),
        }
    }

    /// A child terminated by hand is not started by the restart that covers it; its siblings are. Where the restart covers
    /// nothing else, it ends. So does a retry without delay, whose siblings stay stopped, as in OTP.
    fn leave_restart(&mut self, key: Key) {
        if let Some(restart) = self.restarts.get(&key) {
            let otp_retry = restart.retry && !restart.delayed && !matches!(restart.stage, Stage::Starting { .. });
            if !restart.scope.has_siblings() || otp_retry {
                return self.end_restart(key);
            }
        }
        let skip = self.restarts.values().any(|restart| {
            restart.scope.contains(key)
                && match restart.stage {
                    Stage::Stopping { .. } => true,
                    Stage::Waiting => restart.delayed,
                    Stage::Starting { next, end } => next < key && key < end,
                }
        });
        self.child(key).skip = skip;
    }

    /// Starts a child whose abandoned incarnation has ended at last.
    pub(super) fn start_late(&mut self, key: Key, now: Duration) {
        if self.restarts.contains_key(&key) || !self.child(key).startable() {
            return;
        }
        let restart = PendingRestart {
            scope: Scope::One(key),
            stage: Stage::Starting { next: key, end: key + 1 },
            retry: false,
            count_at_start: false,
            delayed: false,
            delay_at: None,
            reason: ExitReason::Killed,
        };
        self.restarts.insert(key, restart);
        self.advance(key, now);
    }
}

//! One child spec and the state of its child.

use std::time::Duration;

use super::timers::{Timer, Timers};
use super::{Key, Run};
use crate::exit::ExitReason;
use crate::supervisor::child_spec::ChildSettings;
use crate::supervisor::state::RequestId;
use crate::supervisor::state::outcome::{ExitPolicy, Kill};

/// A spec in the supervisor's list.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) settings: ChildSettings,
    pub(super) state: State,
    /// How often it was restarted.
    pub(super) restarts: u64,
    /// Restarts in a row, for the backoff.
    pub(super) attempt: u32,
    /// To be started as soon as its abandoned incarnation has ended.
    pub(super) start_when_ended: bool,
    /// Terminated by hand while a restart covers it: that restart does not start it.
    pub(super) skip: bool,
    /// The caller was refused its start, which succeeded all the same: the spec is dropped when the child has ended.
    pub(super) unwanted: bool,
    /// The child is a supervisor of this library, which reports its own end after a kill.
    pub(super) nested: bool,
    pub(super) shutdown_at: Option<Duration>,
    pub(super) kill_timeout_at: Option<Duration>,
}

/// Why a start is in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StartCause {
    /// The supervisor's own start.
    Boot,
    /// `start_child` or `restart_child`.
    Requested(RequestId),
    /// A restart, by its origin.
    Restart(Key),
}

/// The state of a child.
#[derive(Debug)]
pub(super) enum State {
    /// No child: not yet started, ignored, exited, terminated.
    Stopped,
    /// Its start is in progress. `fresh`: the spec came with the start and is dropped if that fails. `slow`: it takes long.
    Starting { run: Run, cause: StartCause, cancelled: bool, fresh: bool, slow: bool, waiters: Vec<RequestId> },
    /// It runs.
    Running { run: Run, since: Duration },
    /// It exited by itself: its task has not ended yet, or its exit is deferred (`pending`).
    Exited {
        run: Run,
        since: Duration,
        ended: bool,
        pending: bool,
        abandoned: bool,
        restarting: bool,
        waiters: Vec<RequestId>,
    },
    /// Its stop was requested, or it was killed.
    Stopping {
        run: Run,
        began: Duration,
        killed: Option<Kill>,
        exit: Option<ExitReason>,
        abandoned: bool,
        waiters: Vec<RequestId>,
    },
    /// It waits for its restart.
    Restarting,
}

impl State {
    pub(super) fn exited(run: Run, since: Duration) -> Self {
        Self::Exited {
            run,
            since,
            ended: false,
            pending: false,
            abandoned: false,
            restarting: false,
            waiters: Vec::new(),
        }
    }

    pub(super) fn stopping(run: Run, began: Duration) -> Self {
        Self::Stopping { run, began, killed: None, exit: None, abandoned: false, waiters: Vec::new() }
    }
}

/// The state of a child as callers see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChildPhase {
    Stopped,
    Starting,
    Running(Run),
    Stopping(Run),
    Restarting,
}

impl Child {
    pub(super) fn new(settings: ChildSettings) -> Self {
        Self {
            settings,
            state: State::Stopped,
            restarts: 0,
            attempt: 0,
            start_when_ended: false,
            skip: false,
            unwanted: false,
            nested: false,
            shutdown_at: None,
            kill_timeout_at: None,
        }
    }

    pub(super) fn exit_policy(&self) -> ExitPolicy {
        let ChildSettings { restart, shutdown, stop_mode, .. } = self.settings;
        ExitPolicy { restart, shutdown, stop_mode }
    }

    /// Cancels the timers of its incarnation.
    pub(super) fn cancel_timers(&self, key: Key, timers: &mut Timers) {
        if let Some(at) = self.shutdown_at {
            timers.remove(&(at, key, Timer::Shutdown));
        }
        if let Some(at) = self.kill_timeout_at {
            timers.remove(&(at, key, Timer::KillTimeout));
        }
    }

    pub(super) fn phase(&self) -> ChildPhase {
        match &self.state {
            State::Stopped => ChildPhase::Stopped,
            State::Starting { cause: StartCause::Restart(_), .. } | State::Restarting => ChildPhase::Restarting,
            State::Starting { .. } => ChildPhase::Starting,
            State::Running { run, .. } => ChildPhase::Running(*run),
            State::Exited { restarting: true, .. } => ChildPhase::Restarting,
            State::Exited { run, .. } | State::Stopping { run, .. } => ChildPhase::Stopping(*run),
        }
    }

    /// Whether something of this child may still exist that is worth waiting for.
    pub(super) fn exists(&self) -> bool {
        match &self.state {
            State::Stopped | State::Restarting => false,
            State::Starting { .. } | State::Running { .. } => true,
            State::Exited { abandoned, ended, .. } => !abandoned && !ended,
            State::Stopping { abandoned, .. } => !abandoned,
        }
    }

    /// Whether its incarnation was abandoned after a kill and has not ended.
    pub(super) fn abandoned(&self) -> bool {
        matches!(
            self.state,
            State::Exited { abandoned: true, ended: false, .. } | State::Stopping { abandoned: true, .. }
        )
    }

    /// Whether a start may begin.
    pub(super) fn startable(&self) -> bool {
        matches!(self.state, State::Stopped | State::Restarting)
    }
}

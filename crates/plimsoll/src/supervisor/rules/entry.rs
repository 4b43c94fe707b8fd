//! One child spec and what has become of its child.

use std::time::Duration;

use super::{ChildRules, Key, Run, Ticket, Timer, Timers};
use crate::exit::ExitReason;

/// A spec in the supervisor's list.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) rules: ChildRules,
    pub(super) state: State,
    /// How often it was started again.
    pub(super) restarts: u64,
    /// Restarts in a row, for the backoff.
    pub(super) attempt: u32,
    /// To be started again as soon as the incarnation left behind has ended.
    pub(super) respawn: bool,
    /// Terminated by hand while a strategy stops it: not started again by this group.
    pub(super) skip: bool,
    /// Its start was refused to whoever asked for it, and succeeded all the same: it goes when that has ended.
    pub(super) unwanted: bool,
    /// The child is a supervisor of ours, whose end is its own business once it was killed.
    pub(super) nested: bool,
    pub(super) grace_at: Option<Duration>,
    pub(super) leave_at: Option<Duration>,
}

/// Why a start is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The supervisor's own start.
    Boot,
    /// `start_child` or `restart_child`.
    Asked(Ticket),
    /// A restart, by its group's origin.
    Group(Key),
}

/// What has become of the child.
#[derive(Debug)]
pub(super) enum State {
    /// There is none: not yet started, ignored, ended, terminated.
    Vacant,
    /// Its start is under way. `fresh`: the spec came with the start and goes if that fails. `slow`: it takes its time.
    Starting { run: Run, cause: Cause, cancelled: bool, fresh: bool, slow: bool, waiters: Vec<Ticket> },
    /// It runs.
    Up { run: Run, since: Duration },
    /// It ended by itself: its task has not ended yet, or what follows from it waits (`pending`).
    Down { run: Run, since: Duration, gone: bool, pending: bool, left: bool, restarting: bool, waiters: Vec<Ticket> },
    /// It was asked to stop, or killed.
    Stopping {
        run: Run,
        began: Duration,
        killed: Option<Kill>,
        ended_with: Option<ExitReason>,
        left: bool,
        waiters: Vec<Ticket>,
    },
    /// It waits for its restart.
    Restarting,
}

impl State {
    pub(super) fn down(run: Run, since: Duration) -> Self {
        Self::Down { run, since, gone: false, pending: false, left: false, restarting: false, waiters: Vec::new() }
    }
}

/// Why a child was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kill {
    /// Its spec says so.
    Brutal,
    /// It outlasted its grace.
    Overdue,
}

/// The state of a child as everybody may see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Vacant,
    Starting,
    Up(Run),
    Stopping(Run),
    Restarting,
}

impl Entry {
    pub(super) fn new(rules: ChildRules) -> Self {
        Self {
            rules,
            state: State::Vacant,
            restarts: 0,
            attempt: 0,
            respawn: false,
            skip: false,
            unwanted: false,
            nested: false,
            grace_at: None,
            leave_at: None,
        }
    }

    /// Drops what its incarnation was given time for.
    pub(super) fn forget_timers(&mut self, key: Key, timers: &mut Timers) {
        if let Some(at) = self.grace_at.take() {
            timers.remove(&(at, key, Timer::Grace));
        }
        if let Some(at) = self.leave_at.take() {
            timers.remove(&(at, key, Timer::Leave));
        }
    }

    pub(super) fn phase(&self) -> Phase {
        match &self.state {
            State::Vacant => Phase::Vacant,
            State::Starting { cause: Cause::Group(_), .. } | State::Restarting => Phase::Restarting,
            State::Starting { .. } => Phase::Starting,
            State::Up { run, .. } => Phase::Up(*run),
            State::Down { restarting: true, .. } => Phase::Restarting,
            State::Down { run, .. } | State::Stopping { run, .. } => Phase::Stopping(*run),
        }
    }

    /// Whether something of this child may still exist that is worth waiting for.
    pub(super) fn holds(&self) -> bool {
        match &self.state {
            State::Vacant | State::Restarting => false,
            State::Starting { .. } | State::Up { .. } => true,
            State::Down { left, gone, .. } => !left && !gone,
            State::Stopping { left, .. } => !left,
        }
    }

    /// Whether its incarnation is waited for no longer, and is still there.
    pub(super) fn kill_timed_out(&self) -> bool {
        matches!(self.state, State::Down { left: true, gone: false, .. } | State::Stopping { left: true, .. })
    }

    /// Whether a start may begin.
    pub(super) fn startable(&self) -> bool {
        matches!(self.state, State::Vacant | State::Restarting)
    }
}

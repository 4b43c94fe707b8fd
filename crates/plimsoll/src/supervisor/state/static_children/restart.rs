//! A restart in progress: stop the siblings that it covers, wait for the delay, start in order.

use std::time::Duration;

use super::child::{Child, StartCause, State};
use super::timers::Timer;
use super::{Key, StaticState};
use crate::exit::ExitReason;
use crate::supervisor::options::Strategy;
use crate::supervisor::state::intensity::Verdict;
use crate::supervisor::state::jitter::next_fraction;
use crate::supervisor::state::{AfterExit, Exit, Notice, StartFailure};

/// Which specs a restart covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    One(Key),
    From(Key),
    All,
}

impl Scope {
    pub(super) fn contains(self, key: Key) -> bool {
        match self {
            Self::One(only) => key == only,
            Self::From(first) => key >= first,
            Self::All => true,
        }
    }

    pub(super) fn has_siblings(self) -> bool {
        !matches!(self, Self::One(_))
    }

    fn first(self) -> Key {
        match self {
            Self::One(key) | Self::From(key) => key,
            Self::All => 0,
        }
    }
}

/// One restart, named by the child that failed: its origin.
#[derive(Debug)]
pub(super) struct PendingRestart {
    pub(super) scope: Scope,
    pub(super) stage: Stage,
    /// A start of this restart has failed before.
    pub(super) retry: bool,
    /// A try without delay, counted only when it is made, as in OTP: what happens before it may make it needless.
    pub(super) count_at_start: bool,
    /// It has a delay. OTP has none, so the rules for operations during a delay are ours.
    pub(super) delayed: bool,
    /// The end of its delay.
    pub(super) delay_at: Option<Duration>,
    /// Why the origin failed last.
    pub(super) reason: ExitReason,
}

/// How far a restart is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Stopping what it covers, last first; below this key it still has to look. Then the delay, or the starts at once.
    Stopping { below: Key, then: Option<Duration> },
    /// Waiting for the delay.
    Waiting,
    /// Starting what it covers; the next is at or after `next` and before `end`: specs added meanwhile are not covered.
    Starting { next: Key, end: Key },
}

impl StaticState {
    /// What a restart of this child covers.
    pub(super) fn scope_of(&self, key: Key) -> Scope {
        match self.flags.strategy {
            Strategy::OneForOne => Scope::One(key),
            Strategy::RestForOne => Scope::From(key),
            Strategy::OneForAll => Scope::All,
        }
    }

    /// Whether a strategy is stopping siblings.
    pub(super) fn stopping_siblings(&self) -> bool {
        self.flags.strategy != Strategy::OneForOne
            && self
                .restarts
                .values()
                .any(|restart| restart.scope.has_siblings() && matches!(restart.stage, Stage::Stopping { .. }))
    }

    /// Whether a restart in progress will start this child, if it does not run then.
    pub(crate) fn awaits_restart(&self, key: Key) -> bool {
        let skipped = self.children.get(&key).is_none_or(|child| child.skip);
        let will_start = |restart: &PendingRestart| match restart.stage {
            Stage::Starting { next, end } => restart.scope.contains(key) && (next..end).contains(&key),
            Stage::Stopping { .. } | Stage::Waiting => restart.scope.contains(key),
        };
        !skipped && self.restarts.values().any(will_start)
    }

    /// Whether a strategy that is stopping siblings covers this one.
    pub(super) fn is_being_stopped(&self, key: Key) -> bool {
        self.flags.strategy != Strategy::OneForOne
            && self
                .restarts
                .values()
                .any(|restart| restart.scope.contains(key) && matches!(restart.stage, Stage::Stopping { .. }))
    }

    /// Counts a restart of a child that exited and begins it, or gives up.
    pub(super) fn restart(&mut self, key: Key, reason: ExitReason, now: Duration) {
        if self.window.record(now) == Verdict::GiveUp {
            self.notice(Notice::Exited { spec: key, reason: reason.clone(), then: AfterExit::GiveUp });
            return self.give_up(key, reason, now);
        }
        let delay = self.next_delay(key);
        self.notice(Notice::Exited { spec: key, reason: reason.clone(), then: AfterExit::Restart(delay) });
        let scope = self.scope_of(key);
        self.take_over(key, scope, now);
        let restart = PendingRestart {
            scope,
            stage: Stage::Stopping { below: Key::MAX, then: Some(delay) },
            retry: false,
            count_at_start: false,
            delayed: !delay.is_zero(),
            delay_at: None,
            reason,
        };
        self.restarts.insert(key, restart);
        self.advance(key, now);
    }

    /// A start in the restart `origin` failed: that child is tried again, and what its strategy covers from there.
    pub(super) fn retry(&mut self, origin: Key, key: Key, failure: StartFailure, now: Duration) {
        self.end_restart(origin);
        let reason = failure.reason();
        let delay = self.next_delay(key);
        // Counted at the failure where a delay follows, else when the try is made, as in OTP.
        let count_at_start = delay.is_zero();
        if !count_at_start && self.window.record(now) == Verdict::GiveUp {
            self.notice(Notice::StartFailed { spec: key, failure, retry: None });
            return self.give_up(key, reason, now);
        }
        self.notice(Notice::StartFailed { spec: key, failure, retry: Some(delay) });
        let scope = self.scope_of(key);
        self.child(key).state = State::Restarting;
        self.take_over(key, scope, now);
        // Also without a delay others are served first: a start that fails without end must not shut them out.
        let restart = PendingRestart {
            scope,
            stage: Stage::Waiting,
            retry: true,
            count_at_start,
            delayed: !count_at_start,
            delay_at: None,
            reason,
        };
        self.restarts.insert(key, restart);
        self.wait(key, now.saturating_add(delay));
    }

    fn give_up(&mut self, key: Key, reason: ExitReason, now: Duration) {
        self.notice(Notice::GaveUp { spec: key, reason: reason.clone() });
        self.shut_down(Exit::GaveUp, now);
    }

    fn wait(&mut self, origin: Key, until: Duration) {
        if let Some(restart) = self.restarts.get_mut(&origin) {
            restart.stage = Stage::Waiting;
            restart.delay_at = Some(until);
            self.timers.insert((until, origin, Timer::Delay));
        }
    }

    fn next_delay(&mut self, key: Key) -> Duration {
        let fraction = next_fraction(&mut self.jitter);
        let child = self.child(key);
        let delay = child.settings.backoff.delay(child.attempt, fraction);
        child.attempt = child.attempt.saturating_add(1);
        delay
    }

    /// Takes over the restarts that `scope` includes, and those whose remaining starts it includes. Children other than
    /// `origin` that waited for one of them are stopped from now on, as after `terminate_children` in OTP.
    fn take_over(&mut self, origin: Key, scope: Scope, now: Duration) {
        let covered = |(other, restart): (&Key, &PendingRestart)| {
            let remaining = match restart.stage {
                Stage::Starting { next, .. } => next.max(restart.scope.first()),
                Stage::Stopping { .. } | Stage::Waiting => restart.scope.first(),
            };
            match (scope, restart.scope) {
                (Scope::One(key), _) => (*other == key).then_some(*other),
                (Scope::All, _) => Some(*other),
                (Scope::From(_), Scope::One(_)) => scope.contains(*other).then_some(*other),
                (Scope::From(first), _) => (first <= remaining).then_some(*other),
            }
        };
        let covered: Vec<Key> = self.restarts.iter().filter_map(covered).collect();
        for other in covered {
            self.end_restart(other);
        }
        if !scope.has_siblings() {
            return;
        }
        self.cover_deferred(scope, now);
        for (_, child) in self.children.range_mut(scope.first()..).filter(|(key, _)| **key != origin) {
            match &mut child.state {
                State::Restarting => child.state = State::Stopped,
                State::Exited { restarting, .. } => *restarting = false,
                _ => {}
            }
        }
    }

    pub(super) fn end_restart(&mut self, origin: Key) {
        if let Some(PendingRestart { delay_at: Some(at), .. }) = self.restarts.remove(&origin) {
            self.timers.remove(&(at, origin, Timer::Delay));
        }
    }

    /// The delay of a restart is over: what it covers is stopped again, then started.
    pub(super) fn delay_over(&mut self, origin: Key, now: Duration) {
        // It may have been taken over, or have continued, since.
        let due = |restart: &mut PendingRestart| {
            restart.stage == Stage::Waiting && restart.delay_at.is_some_and(|at| at <= now)
        };
        if !self.restarts.get_mut(&origin).is_some_and(due) {
            return;
        }
        let Some(restart) = self.restarts.remove(&origin) else { return };
        if restart.count_at_start && self.window.record(now) == Verdict::GiveUp {
            return self.give_up(origin, restart.reason, now);
        }
        self.take_over(origin, restart.scope, now);
        let stage = Stage::Stopping { below: Key::MAX, then: None };
        let restart = PendingRestart { stage, count_at_start: false, delay_at: None, ..restart };
        self.restarts.insert(origin, restart);
        self.advance(origin, now);
    }

    /// A start of this restart is over; on to the next.
    pub(super) fn advance_past(&mut self, origin: Key, key: Key, now: Duration) {
        let Some(restart) = self.restarts.get_mut(&origin) else { return };
        if let Stage::Starting { next, .. } = &mut restart.stage
            && *next == key
        {
            *next = key + 1;
            self.advance(origin, now);
        }
    }

    /// Advances the restarts that may have waited for this child.
    pub(super) fn advance_for(&mut self, key: Key, now: Duration) {
        if self.flags.strategy == Strategy::OneForOne {
            return self.advance(key, now);
        }
        self.advance_all(now);
    }

    pub(super) fn advance_all(&mut self, now: Duration) {
        let mut next = self.restarts.keys().next().copied();
        while let Some(origin) = next {
            self.advance(origin, now);
            next = self.restarts.range(origin + 1..).next().map(|(origin, _)| *origin);
        }
    }

    /// Advances a restart as far as it can go without waiting.
    pub(super) fn advance(&mut self, origin: Key, now: Duration) {
        while let Some(restart) = self.restarts.get(&origin) {
            let (scope, stage) = (restart.scope, restart.stage);
            match stage {
                Stage::Stopping { below, then } => match self.last_existing(scope, below) {
                    Some(key) => {
                        self.set_stage(origin, Stage::Stopping { below: key + 1, then });
                        return self.stop_covered(key, now);
                    }
                    None if then.is_some_and(|delay| !delay.is_zero()) => {
                        return self.wait(origin, now.saturating_add(then.unwrap_or_default()));
                    }
                    None => {
                        let (next, end) = (scope.first(), self.next_key);
                        self.set_stage(origin, Stage::Starting { next, end });
                    }
                },
                Stage::Waiting => return,
                // Deferred exits come first, all of them: a wider restart need not start these twice.
                Stage::Starting { .. } if !self.deferred.is_empty() && !self.stopping_siblings() => return,
                Stage::Starting { next, end } => {
                    let Some(key) = self.next_covered(scope, next).filter(|key| *key < end) else {
                        self.restarts.remove(&origin);
                        return;
                    };
                    let waits = self.start_covered(origin, key);
                    self.set_stage(origin, Stage::Starting { next: if waits { key } else { key + 1 }, end });
                    if waits {
                        return;
                    }
                }
            }
        }
    }

    /// Starts a covered child if it can be started; returns whether the next one has to wait for it.
    fn start_covered(&mut self, origin: Key, key: Key) -> bool {
        let child = self.child(key);
        if std::mem::take(&mut child.skip) {
            return false;
        }
        match child.state {
            State::Stopped | State::Restarting => {
                if key != origin {
                    // It need not be tried again by itself.
                    self.end_restart(key);
                }
                self.begin_start(key, StartCause::Restart(origin), false);
                true
            }
            State::Starting { cause, .. } => cause == StartCause::Restart(origin),
            State::Exited { abandoned: false, .. } => true,
            // An abandoned one is started when it has ended.
            State::Exited { abandoned: true, .. } | State::Stopping { abandoned: true, .. } => {
                child.start_when_ended = true;
                false
            }
            // Started again, or being stopped, by hand.
            State::Running { .. } | State::Stopping { .. } => false,
        }
    }

    fn next_covered(&self, scope: Scope, next: Key) -> Option<Key> {
        match scope {
            Scope::One(key) => (key >= next && self.children.contains_key(&key)).then_some(key),
            Scope::From(_) | Scope::All => self.children.range(next..).next().map(|(key, _)| *key),
        }
    }

    fn set_stage(&mut self, origin: Key, stage: Stage) {
        if let Some(restart) = self.restarts.get_mut(&origin) {
            restart.stage = stage;
        }
    }

    fn last_existing(&self, scope: Scope, below: Key) -> Option<Key> {
        let existing = |(key, child): (&Key, &Child)| child.exists().then_some(*key);
        match scope {
            Scope::One(key) => self.children.get(&key).is_some_and(Child::exists).then_some(key),
            Scope::From(_) | Scope::All => self.children.range(scope.first()..below).rev().find_map(existing),
        }
    }

    fn stop_covered(&mut self, key: Key, now: Duration) {
        match &self.child(key).state {
            State::Running { .. } => self.begin_stop(key, now),
            State::Starting { cancelled: false, .. } => self.cancel_start(key, now),
            _ => {}
        }
    }
}

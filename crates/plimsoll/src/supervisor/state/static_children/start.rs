//! Starting: the first children, and the result of each start.

use std::time::Duration;

use super::child::{Child, StartCause, State};
use super::{Key, Phase, Run, StaticState};
use crate::supervisor::child_spec::ChildSettings;
use crate::supervisor::options::{Restart, Strategy};
use crate::supervisor::state::{Command, Exit, Notice, Refusal, Reply, SpecCommand, StartFailure};

impl StaticState {
    /// Starts the first children, in order. Their keys are 0, 1, 2 ….
    pub(crate) fn boot(&mut self, specs: impl IntoIterator<Item = ChildSettings>, now: Duration) {
        for settings in specs {
            self.insert(settings);
        }
        self.phase = Phase::Starting(0);
        self.boot_next();
        self.settle(now);
    }

    fn boot_past(&mut self, key: Key) {
        if let Phase::Starting(next) = &mut self.phase {
            *next = key + 1;
            self.boot_next();
        }
    }

    fn boot_next(&mut self) {
        let Phase::Starting(next) = self.phase else { return };
        let stopped = |(key, child): (&Key, &Child)| matches!(child.state, State::Stopped).then_some(*key);
        match self.children.range(next..).find_map(stopped) {
            Some(key) => self.begin_start(key, StartCause::Boot, false),
            None => {
                self.phase = Phase::Running;
                self.commands.push_back(Command::Spec(SpecCommand::Started));
            }
        }
    }

    pub(super) fn begin_start(&mut self, key: Key, cause: StartCause, fresh: bool) {
        let run = self.next_run;
        self.next_run += 1;
        self.runs.insert(run, key);
        self.new_starts += usize::from(cause != StartCause::Boot);
        let child = self.child(key);
        child.skip = false;
        child.state = State::Starting { run, cause, cancelled: false, fresh, slow: false, waiters: Vec::new() };
        self.commands.push_back(Command::Start { spec: key, run });
    }

    pub(super) fn started(&mut self, run: Run, nested: bool, now: Duration) {
        let Some(&key) = self.runs.get(&run) else { return };
        let Some(child) = self.children.get_mut(&key) else { return };
        let State::Starting { cause, cancelled, waiters, fresh, slow, .. } = &mut child.state else {
            // It had been cancelled and abandoned.
            return self.commands.push_back(Command::Kill { run });
        };
        self.new_starts -= usize::from(!*slow && *cause != StartCause::Boot);
        let (cause, cancelled, fresh, waiters) = (*cause, *cancelled, *fresh, std::mem::take(waiters));
        child.unwanted = cancelled && fresh && waiters.is_empty();
        child.nested = nested;
        child.restarts += u64::from(!cancelled && matches!(cause, StartCause::Restart(_)));
        child.state = State::Running { run, since: now };
        self.cancel_timers(key);
        if cancelled {
            self.begin_stop(key, now);
            if let State::Stopping { waiters: stop_waiters, .. } = &mut self.child(key).state {
                stop_waiters.extend(waiters);
            }
            self.no_child_for(cause, key, now);
            return self.settle(now);
        }
        match cause {
            StartCause::Boot => self.boot_past(key),
            StartCause::Requested(request) => self.reply(request, Reply::Started { run }),
            StartCause::Restart(origin) => self.advance_past(origin, key, now),
        }
        self.settle(now);
    }

    pub(super) fn start_is_slow(&mut self, run: Run, now: Duration) {
        if let Some((_, child)) = self.by_run(run)
            && let State::Starting { slow, cause: StartCause::Restart(_) | StartCause::Requested(_), .. } =
                &mut child.state
            && !std::mem::replace(slow, true)
        {
            self.new_starts -= 1;
            self.settle(now);
        }
    }

    /// A start is over, one way or the other.
    pub(super) fn start_is_over(&mut self, key: Key) {
        if let State::Starting { slow: false, cause: StartCause::Restart(_) | StartCause::Requested(_), .. } =
            self.child(key).state
        {
            self.new_starts -= 1;
        }
    }

    pub(super) fn ignored(&mut self, run: Run, now: Duration) {
        let Some(&key) = self.runs.get(&run) else { return };
        self.start_is_over(key);
        if matches!(self.child(key).state, State::Stopping { .. }) {
            // It had been abandoned.
            self.task_ended(key, run, now);
            return self.settle(now);
        }
        let child = self.child(key);
        let State::Starting { cause, waiters, .. } = &mut child.state else { return };
        let (cause, waiters) = (*cause, std::mem::take(waiters));
        child.state = State::Stopped;
        self.cancel_timers(key);
        self.runs.remove(&run);
        if self.child(key).settings.restart == Restart::Temporary {
            self.remove(key);
        }
        self.reply_all(waiters, &Reply::Done);
        match cause {
            StartCause::Boot => self.boot_past(key),
            StartCause::Requested(request) => self.reply(request, Reply::Ignored),
            StartCause::Restart(origin) => self.advance_past(origin, key, now),
        }
        self.advance_for(key, now);
        self.settle(now);
    }

    pub(super) fn start_failed(&mut self, run: Run, failure: StartFailure, now: Duration) {
        let Some(&key) = self.runs.get(&run) else { return };
        self.start_is_over(key);
        let child = self.child(key);
        if matches!(child.state, State::Stopping { .. }) {
            // It had been abandoned.
            self.task_ended(key, run, now);
            return self.settle(now);
        }
        let State::Starting { cause, cancelled, waiters, fresh, .. } = &mut child.state else { return };
        let (cause, cancelled, fresh, waiters) = (*cause, *cancelled, *fresh, std::mem::take(waiters));
        child.state = State::Stopped;
        self.cancel_timers(key);
        self.runs.remove(&run);
        let by_itself = !cancelled && !matches!(cause, StartCause::Restart(_));
        if by_itself {
            self.notice(Notice::StartFailed { spec: key, failure: failure.clone(), retry: None });
        }
        let temporary = self.child(key).settings.restart == Restart::Temporary;
        // A new spec is kept only where it was terminated by hand; one that fails the boot has yet to be named.
        let by_hand = cancelled && !waiters.is_empty();
        if (temporary && cause != StartCause::Boot) || (fresh && !by_hand) {
            self.remove(key);
        }
        self.reply_all(waiters, &Reply::Done);
        match cause {
            StartCause::Requested(request) => {
                self.refuse(request, if cancelled { Refusal::Terminated } else { Refusal::Start(failure) });
            }
            StartCause::Boot if !cancelled => self.shut_down(Exit::StartFailed { spec: key, failure }, now),
            StartCause::Boot => self.boot_past(key),
            StartCause::Restart(origin) if cancelled => self.advance_past(origin, key, now),
            StartCause::Restart(origin) => self.retry(origin, key, failure, now),
        }
        self.advance_for(key, now);
        self.settle(now);
    }

    /// A cancelled start has no child for what asked for it.
    pub(super) fn no_child_for(&mut self, cause: StartCause, key: Key, now: Duration) {
        match cause {
            StartCause::Boot => self.boot_past(key),
            StartCause::Requested(request) => self.refuse(request, Refusal::Terminated),
            StartCause::Restart(origin) => self.advance_past(origin, key, now),
        }
    }

    /// Whether no start has only just begun that the others should wait for. Under one_for_one there are no others.
    pub(super) fn may_continue(&self) -> bool {
        self.flags.strategy == Strategy::OneForOne || self.new_starts == 0
    }
}

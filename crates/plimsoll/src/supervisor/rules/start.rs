//! Starting: the first children, and what comes of each start.

use std::time::Duration;

use super::entry::{Cause, Entry, State};
use super::{Action, Answer, ChildRules, Exit, Key, Life, Refusal, Rules, Run, StartFailure};
use crate::supervisor::options::{Restart, Strategy};

impl Rules {
    /// Starts the first children, in order. Their keys are 0, 1, 2 ….
    pub(crate) fn boot(&mut self, specs: impl IntoIterator<Item = ChildRules>, now: Duration) {
        for spec in specs {
            self.insert(spec);
        }
        self.life = Life::Booting(0);
        self.boot_on();
        self.settle(now);
    }

    fn boot_past(&mut self, key: Key) {
        if let Life::Booting(next) = &mut self.life {
            *next = key + 1;
            self.boot_on();
        }
    }

    fn boot_on(&mut self) {
        let Life::Booting(next) = self.life else { return };
        let vacant = |(key, entry): (&Key, &Entry)| matches!(entry.state, State::Vacant).then_some(*key);
        match self.entries.range(next..).find_map(vacant) {
            Some(key) => self.begin_start(key, Cause::Boot, false),
            None => {
                self.life = Life::Serving;
                self.actions.push_back(Action::Booted);
            }
        }
    }

    pub(super) fn begin_start(&mut self, key: Key, cause: Cause, fresh: bool) {
        let run = self.next_run;
        self.next_run += 1;
        self.runs.insert(run, key);
        self.brisk += usize::from(cause != Cause::Boot);
        self.entry(key).state =
            State::Starting { run, cause, cancelled: false, fresh, slow: false, waiters: Vec::new() };
        self.actions.push_back(Action::Start { key, run });
    }

    /// The start of `run` succeeded. `nested`: it is a supervisor that sees to its own end after a kill.
    pub(crate) fn started(&mut self, run: Run, nested: bool, now: Duration) {
        let Some(&key) = self.runs.get(&run) else { return };
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let State::Starting { cause, cancelled, waiters, fresh, slow, .. } = &mut entry.state else {
            // It had been given up and left behind.
            return self.actions.push_back(Action::Kill { run });
        };
        self.brisk -= usize::from(!*slow && *cause != Cause::Boot);
        let (cause, cancelled, fresh, waiters) = (*cause, *cancelled, *fresh, std::mem::take(waiters));
        entry.unwanted = cancelled && fresh && waiters.is_empty();
        entry.nested = nested;
        entry.restarts += u64::from(!cancelled && matches!(cause, Cause::Group(_)));
        entry.state = State::Up { run, since: now };
        entry.forget_timers(key, &mut self.timers);
        if cancelled {
            self.begin_stop(key, now);
            if let State::Stopping { waiters: those_waiting, .. } = &mut self.entry(key).state {
                those_waiting.extend(waiters);
            }
            self.over_without_child(cause, key, now);
            return self.settle(now);
        }
        match cause {
            Cause::Boot => self.boot_past(key),
            Cause::Asked(ticket) => self.answer(ticket, Answer::Started { run }),
            Cause::Group(origin) => self.advance_past(origin, key, now),
        }
        self.settle(now);
    }

    /// The start of `run` takes its time: others are served meanwhile.
    pub(crate) fn start_is_slow(&mut self, run: Run, now: Duration) {
        if let Some((_, entry)) = self.by_run(run)
            && let State::Starting { slow, cause: Cause::Group(_) | Cause::Asked(_), .. } = &mut entry.state
            && !std::mem::replace(slow, true)
        {
            self.brisk -= 1;
            self.settle(now);
        }
    }

    /// A start is over, one way or the other.
    pub(super) fn start_ends(&mut self, key: Key) {
        if let State::Starting { slow: false, cause: Cause::Group(_) | Cause::Asked(_), .. } = self.entry(key).state {
            self.brisk -= 1;
        }
    }

    /// The start of `run` answered that there is nothing to run.
    pub(crate) fn ignored(&mut self, run: Run, now: Duration) {
        let Some(key) = self.key_of_run(run) else { return };
        self.start_ends(key);
        let entry = self.entry(key);
        let State::Starting { cause, waiters, .. } = &mut entry.state else { return };
        let (cause, waiters) = (*cause, std::mem::take(waiters));
        entry.state = State::Vacant;
        self.cancel_timers(key);
        self.runs.remove(&run);
        if self.entry(key).rules.restart == Restart::Temporary {
            self.forget(key);
        }
        self.answer_all(waiters, &Answer::Done);
        match cause {
            Cause::Boot => self.boot_past(key),
            Cause::Asked(ticket) => self.answer(ticket, Answer::Ignored),
            Cause::Group(origin) => self.advance_past(origin, key, now),
        }
        self.advance_for(key, now);
        self.settle(now);
    }

    /// The start of `run` failed, or was given up as asked. Nothing of it is left.
    pub(crate) fn start_failed(&mut self, run: Run, why: StartFailure, now: Duration) {
        let Some(key) = self.key_of_run(run) else { return };
        self.start_ends(key);
        let entry = self.entry(key);
        if matches!(entry.state, State::Stopping { .. }) {
            // It had been left behind.
            self.gone(key, run, now);
            return self.settle(now);
        }
        let State::Starting { cause, cancelled, waiters, fresh, .. } = &mut entry.state else { return };
        let (cause, cancelled, fresh, waiters) = (*cause, *cancelled, *fresh, std::mem::take(waiters));
        entry.state = State::Vacant;
        self.cancel_timers(key);
        self.runs.remove(&run);
        let temporary = self.entry(key).rules.restart == Restart::Temporary;
        // A new spec is kept only where it was terminated by hand; one that fails the boot has yet to be named.
        let by_hand = cancelled && !waiters.is_empty();
        if (temporary && cause != Cause::Boot) || (fresh && !by_hand) {
            self.forget(key);
        }
        self.answer_all(waiters, &Answer::Done);
        match cause {
            Cause::Asked(ticket) => {
                let why = if cancelled { Refusal::Terminated } else { Refusal::Start(why) };
                self.answer(ticket, Answer::Failed(why));
            }
            Cause::Boot if !cancelled => self.close(Exit::BootFailed { key, reason: why }, now),
            Cause::Boot => self.boot_past(key),
            Cause::Group(origin) if cancelled => self.advance_past(origin, key, now),
            Cause::Group(origin) => self.retry(origin, key, &why, now),
        }
        self.advance_for(key, now);
        self.settle(now);
    }

    /// A start that was given up has come to nothing for whoever wanted it.
    pub(super) fn over_without_child(&mut self, cause: Cause, key: Key, now: Duration) {
        match cause {
            Cause::Boot => self.boot_past(key),
            Cause::Asked(ticket) => self.answer(ticket, Answer::Failed(Refusal::Terminated)),
            Cause::Group(origin) => self.advance_past(origin, key, now),
        }
    }

    /// Whether no start has only just begun that the others should wait for. Under one_for_one there are no others.
    pub(super) fn may_go_on(&self) -> bool {
        self.flags.strategy == Strategy::OneForOne || self.brisk == 0
    }
}

//! The rules of a supervisor, apart from what performs them.
//!
//! [`Rules`] is a plain state machine. An event goes in with the time at which it happened: a child started, failed to
//! start or ended; somebody asked for an operation; a timer is due. A list of [`Action`]s comes out: start this, ask that
//! to stop, kill it, answer so. It knows no actor, no task and no clock: time is a [`Duration`] since the supervisor's
//! beginning, children are numbers. A [`Key`] names a spec and orders specs by age, a [`Run`] names one incarnation of a
//! child from the moment its start begins until its task has ended.
//!
//! What a failure takes along is a [`Group`]: one restart under way, from the stop of siblings over the delay to the last
//! start. All three strategies are groups that differ in what they cover.

mod dynamic;
mod entry;
mod exit;
mod group;
mod ops;
mod stop;
mod window;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxBuildHasher;

use super::policy::{Ask, AutoShutdown, Backoff, Restart, Shutdown, Strategy};
use super::report::ShutdownCause;
use crate::exit::ExitReason;
use crate::inspect::Kind;

pub(crate) use dynamic::{DynamicAction, DynamicPhase, DynamicRules, Template};
pub(crate) use entry::Phase;
use entry::{Cause, Entry, State};
use group::Group;
pub(crate) use ops::{Answer, Refusal, StartFailure};
use stop::{Closing, Stop};
pub(crate) use window::{IntensityWindow, Verdict};

/// Names a child spec; later ones are larger.
pub(crate) type Key = u64;
/// Names one incarnation of a child.
pub(crate) type Run = u64;
/// Names whoever waits for an answer.
pub(crate) type Ticket = u64;

/// A map by numbers that are counted up here or by ractor: nobody can choose them so that they collide.
pub(crate) type Numbered<K, V> = HashMap<K, V, FxBuildHasher>;

/// What a supervisor is told about itself.
#[derive(Debug, Clone)]
pub(crate) struct Flags {
    pub(crate) strategy: Strategy,
    pub(crate) intensity: u32,
    pub(crate) period: Duration,
    pub(crate) auto_shutdown: AutoShutdown,
    /// How long a killed child may take to be gone before it is left behind.
    pub(crate) leave_behind: Duration,
}

/// What the rules know of a child spec.
#[derive(Debug, Clone)]
pub(crate) struct ChildRules {
    pub(crate) id: Arc<str>,
    pub(crate) kind: Kind,
    pub(crate) restart: Restart,
    pub(crate) shutdown: Shutdown,
    pub(crate) significant: bool,
    pub(crate) ask: Ask,
    pub(crate) backoff: Backoff,
}

impl ChildRules {
    fn stop(&self) -> Stop {
        Stop { restart: self.restart, shutdown: self.shutdown, ask: self.ask }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Begin this start; answer with [`Rules::started`], [`Rules::ignored`] or [`Rules::start_failed`].
    Start { key: Key, run: Run },
    /// Give up the start that is under way; answer as above.
    CancelStart { run: Run },
    /// Ask the child to stop.
    Ask { run: Run },
    /// Kill the child.
    Kill { run: Run },
    /// The spec that came with this ticket was taken.
    Take { key: Key, ticket: Ticket },
    /// All first children have been started.
    Booted,
    /// Tell whoever waits.
    Answer { ticket: Ticket, answer: Answer },
    /// The spec is gone.
    Forget { key: Key },
    /// Something for the log and the report.
    Note(Note),
    /// Nothing runs any more, or only what no kill can end.
    Finish { exit: Exit },
}

/// What happened, for the log and the report.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Note {
    /// A child ended by itself.
    Ended { key: Key, reason: ExitReason, restarting: bool },
    /// A restart could not start the child.
    RestartFailed { key: Key, reason: Arc<str> },
    /// More restarts than the budget allows.
    GaveUp { key: Key },
    /// A significant child ended.
    AutoShutdown { key: Key },
    /// A child did not stop as it should have.
    Trouble { key: Key, run: Run, trouble: Trouble, closing: bool, waited: Duration },
}

/// How a stop went wrong.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Trouble {
    /// It ended with this reason where a shutdown was expected.
    Ended(ExitReason),
    /// It was killed after its grace.
    Killed,
    /// A kill did not end it.
    LeftBehind,
}

/// Whether the task of a child that said its last has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gone {
    /// It has.
    Yes,
    /// It should have long ago.
    Lingers,
    /// It waits for stragglers of its own, which it has reported.
    StragglersLeft,
}

/// How the supervisor ends.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Exit {
    /// It was asked to stop.
    Stopped,
    /// Its restart budget is used up.
    GaveUp,
    /// Its significant children ended.
    AutoShutdown,
    /// A child failed to start at boot.
    BootFailed { key: Key, reason: StartFailure },
    /// It was killed.
    Killed,
}

impl Exit {
    /// What made the supervisor end, and the reason with which it does.
    pub(crate) fn outcome(&self) -> (ShutdownCause, ExitReason) {
        match self {
            Self::Stopped => (ShutdownCause::Stopped, ExitReason::Shutdown),
            Self::GaveUp => (ShutdownCause::GaveUp, ExitReason::Shutdown),
            Self::AutoShutdown => (ShutdownCause::AutoShutdown, ExitReason::Shutdown),
            Self::BootFailed { .. } => (ShutdownCause::StartFailed, ExitReason::Shutdown),
            Self::Killed => (ShutdownCause::Killed, ExitReason::Killed),
        }
    }
}

/// Whether the supervisor starts, serves or ends.
#[derive(Debug)]
enum Life {
    /// Starting its first children; the next is at or after this key.
    Booting(Key),
    Serving,
    Closing(Closing),
    Finished,
}

/// What is to be told when, the earliest first.
type Timers = BTreeSet<(Duration, Key, Timer)>;

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// The grace of a child is over.
    Grace,
    /// A killed child has had time enough.
    Leave,
    /// The delay of the group with this origin is over.
    Delay,
}

/// The state machine of one supervisor.
#[derive(Debug)]
pub(crate) struct Rules {
    flags: Flags,
    entries: BTreeMap<Key, Entry>,
    ids: HashMap<Arc<str>, Key>,
    runs: Numbered<Run, Key>,
    next_key: Key,
    next_run: Run,
    window: IntensityWindow,
    /// Restarts under way, by their origin.
    groups: BTreeMap<Key, Group>,
    life: Life,
    /// Children that ended while a strategy stopped others, or during boot: handled in full afterwards.
    deferred: VecDeque<(Key, Run, ExitReason)>,
    /// Restarts whose delay is over.
    due: VecDeque<Key>,
    /// Operations that wait for a stop.
    queued: VecDeque<ops::Queued>,
    timers: Timers,
    /// Starts that have only just begun, and as a rule are over before anybody else has a say.
    brisk: usize,
    random: u64,
    actions: VecDeque<Action>,
}

impl Rules {
    pub(crate) fn new(flags: Flags, seed: u64) -> Self {
        let window = IntensityWindow::new(flags.intensity, flags.period);
        Self {
            flags,
            entries: BTreeMap::new(),
            ids: HashMap::new(),
            runs: Numbered::default(),
            next_key: 0,
            next_run: 0,
            window,
            groups: BTreeMap::new(),
            life: Life::Serving,
            deferred: VecDeque::new(),
            due: VecDeque::new(),
            queued: VecDeque::new(),
            timers: BTreeSet::new(),
            brisk: 0,
            random: seed,
            actions: VecDeque::new(),
        }
    }

    /// Starts the first children, in order. Their keys are 0, 1, 2 ….
    pub(crate) fn boot(&mut self, specs: impl IntoIterator<Item = ChildRules>, now: Duration) {
        for spec in specs {
            self.insert(spec);
        }
        self.life = Life::Booting(0);
        self.boot_on();
        self.settle(now);
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
    fn start_ends(&mut self, key: Key) {
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
    fn over_without_child(&mut self, cause: Cause, key: Key, now: Duration) {
        match cause {
            Cause::Boot => self.boot_past(key),
            Cause::Asked(ticket) => self.answer(ticket, Answer::Failed(Refusal::Terminated)),
            Cause::Group(origin) => self.advance_past(origin, key, now),
        }
    }

    /// The child of `run` said its last.
    pub(crate) fn exited(&mut self, run: Run, reason: ExitReason, gone: Gone, now: Duration) {
        let Some((key, entry)) = self.by_run(run) else { return };
        match &mut entry.state {
            State::Up { since, .. } => {
                let since = *since;
                entry.state = State::down(run, since);
                if gone != Gone::Yes {
                    self.set_timer(now + self.flags.leave_behind, key, Timer::Leave);
                }
                self.ended_by_itself(key, run, reason, now);
            }
            State::Stopping { ended_with, .. } => {
                *ended_with = Some(reason);
                if gone != Gone::Yes {
                    // The grace was for the stop; the task's last moments are given the time of a killed one.
                    self.set_timer(now + self.flags.leave_behind, key, Timer::Leave);
                }
            }
            _ => return,
        }
        match gone {
            Gone::Yes => self.gone(key, run, now),
            Gone::Lingers => self.leave(key, true, now),
            Gone::StragglersLeft => self.leave(key, false, now),
        }
        self.settle(now);
    }

    /// The task of `run` has ended.
    pub(crate) fn ended(&mut self, run: Run, now: Duration) {
        let Some((key, _)) = self.by_run(run) else { return };
        self.gone(key, run, now);
        self.settle(now);
    }

    /// The next moment at which [`tick`](Self::tick) has something to do.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.timers.first().map(|(at, ..)| *at)
    }

    /// Handles every timer that is due.
    pub(crate) fn tick(&mut self, now: Duration) {
        while let Some(&(at, key, timer)) = self.timers.first() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            match timer {
                Timer::Grace => self.kill_child(key, now),
                Timer::Leave => self.leave(key, true, now),
                Timer::Delay => self.due.push_back(key),
            }
        }
        self.settle(now);
    }

    /// Nobody performs anything any more.
    pub(crate) fn abandon(&mut self) {
        self.life = Life::Finished;
        self.groups.clear();
        self.deferred.clear();
        self.queued.clear();
        self.timers.clear();
        self.actions.clear();
    }

    /// What is to be done next.
    pub(crate) fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Whether the supervisor is on its way out.
    pub(crate) fn is_closing(&self) -> bool {
        matches!(self.life, Life::Closing(_) | Life::Finished)
    }

    /// Carries on whatever waited for the event just handled.
    fn settle(&mut self, now: Duration) {
        while matches!(self.life, Life::Serving) && !self.stop_phase() {
            if let Some((key, run, reason)) = self.deferred.pop_front() {
                self.handle_deferred(key, run, reason, now);
                if self.deferred.is_empty() {
                    self.advance_all(now);
                }
            } else if self.serve_queued(now) {
                // One at a time.
            } else if self.may_go_on()
                && let Some(origin) = self.due.pop_front()
            {
                self.delay_over(origin, now);
            } else {
                break;
            }
        }
        self.advance_closing(now);
    }

    /// Whether no start has only just begun that the others should wait for. Under one_for_one there are no others.
    fn may_go_on(&self) -> bool {
        self.flags.strategy == Strategy::OneForOne || self.brisk == 0
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

    fn insert(&mut self, rules: ChildRules) -> Key {
        let key = self.next_key;
        self.next_key += 1;
        self.ids.insert(rules.id.clone(), key);
        self.entries.insert(key, Entry::new(rules));
        key
    }

    fn forget(&mut self, key: Key) {
        if let Some(entry) = self.entries.remove(&key) {
            self.ids.remove(&entry.rules.id);
            self.cancel_timers(key);
            self.actions.push_back(Action::Forget { key });
        }
    }

    fn begin_start(&mut self, key: Key, cause: Cause, fresh: bool) {
        let run = self.next_run;
        self.next_run += 1;
        self.runs.insert(run, key);
        self.brisk += usize::from(cause != Cause::Boot);
        self.entry(key).state =
            State::Starting { run, cause, cancelled: false, fresh, slow: false, waiters: Vec::new() };
        self.actions.push_back(Action::Start { key, run });
    }

    fn by_run(&mut self, run: Run) -> Option<(Key, &mut Entry)> {
        let key = *self.runs.get(&run)?;
        Some((key, self.entries.get_mut(&key)?))
    }

    /// The entry of a key that is known to exist.
    fn entry(&mut self, key: Key) -> &mut Entry {
        self.entries.get_mut(&key).expect("an entry lives as long as its key is in use")
    }

    fn set_timer(&mut self, at: Duration, key: Key, timer: Timer) {
        let entry = self.entry(key);
        let slot = match timer {
            Timer::Grace => &mut entry.grace_at,
            Timer::Leave => &mut entry.leave_at,
            Timer::Delay => return,
        };
        if let Some(before) = slot.replace(at) {
            self.timers.remove(&(before, key, timer));
        }
        self.timers.insert((at, key, timer));
    }

    fn clear_timer(&mut self, key: Key, timer: Timer) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let slot = match timer {
            Timer::Grace => &mut entry.grace_at,
            Timer::Leave => &mut entry.leave_at,
            Timer::Delay => return,
        };
        if let Some(at) = slot.take() {
            self.timers.remove(&(at, key, timer));
        }
    }

    /// Cancels the timers of a child's incarnation.
    fn cancel_timers(&mut self, key: Key) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.forget_timers(key, &mut self.timers);
        }
    }

    fn answer(&mut self, ticket: Ticket, answer: Answer) {
        self.actions.push_back(Action::Answer { ticket, answer });
    }

    fn answer_all(&mut self, tickets: Vec<Ticket>, answer: &Answer) {
        for ticket in tickets {
            self.answer(ticket, answer.clone());
        }
    }
}

/// A number in `0..1` (SplitMix64: the jitter needs spread, not secrecy).
fn random(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

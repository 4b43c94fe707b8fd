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

mod action;
mod dynamic;
mod entry;
mod exit;
mod group;
mod ops;
mod random;
mod spec;
mod start;
mod stop;
mod timer;
mod window;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxBuildHasher;

pub(crate) use action::{Action, Exit, Note};
pub(crate) use dynamic::{DynamicAction, DynamicPhase, DynamicRules, Template};
use entry::Entry;
pub(crate) use entry::Phase;
pub(crate) use exit::Gone;
use group::Group;
pub(crate) use ops::{Answer, Refusal, StartFailure};
use random::random;
pub(crate) use spec::{ChildRules, Flags};
use stop::Closing;
use timer::{Timer, Timers};
pub(crate) use window::{IntensityWindow, Verdict};

use crate::exit::ExitReason;

/// Names a child spec; later ones are larger.
pub(crate) type Key = u64;
/// Names one incarnation of a child.
pub(crate) type Run = u64;
/// Names whoever waits for an answer.
pub(crate) type Ticket = u64;

/// A map by numbers that are counted up here or by ractor: nobody can choose them so that they collide.
pub(crate) type Numbered<K, V> = HashMap<K, V, FxBuildHasher>;

/// Whether the supervisor starts, serves or ends.
#[derive(Debug)]
enum Life {
    /// Starting its first children; the next is at or after this key.
    Booting(Key),
    Serving,
    Closing(Closing),
    Finished,
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

    fn by_run(&mut self, run: Run) -> Option<(Key, &mut Entry)> {
        let key = *self.runs.get(&run)?;
        Some((key, self.entries.get_mut(&key)?))
    }

    /// The entry of a key that is known to exist.
    fn entry(&mut self, key: Key) -> &mut Entry {
        self.entries.get_mut(&key).expect("an entry lives as long as its key is in use")
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

//! A restart under way: stop the siblings it covers, wait for the delay, start in order.

use std::time::Duration;

use super::entry::{Cause, Entry, State};
use super::{Action, Exit, Key, Note, Rules, StartFailure, Timer, Verdict, random};
use crate::supervisor::controls::broken;
use crate::supervisor::options::Strategy;

/// Which specs a restart covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cover {
    One(Key),
    From(Key),
    All,
}

impl Cover {
    pub(super) fn has(self, key: Key) -> bool {
        match self {
            Self::One(only) => key == only,
            Self::From(first) => key >= first,
            Self::All => true,
        }
    }

    fn first(self) -> Key {
        match self {
            Self::One(key) | Self::From(key) => key,
            Self::All => 0,
        }
    }
}

/// One restart, named by the child that failed.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) cover: Cover,
    pub(super) stage: Stage,
    /// A start of this restart has failed before.
    pub(super) retry: bool,
    /// A try without delay that has yet to be charged: what comes before it may make it needless.
    pub(super) owes: bool,
    /// The end of its delay.
    pub(super) delay_at: Option<Duration>,
}

/// How far a restart is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Stopping what it covers, last first; below this key it still has to look. Then the delay, or the starts at once.
    Stopping { below: Key, then: Option<Duration> },
    /// Between tries.
    Waiting,
    /// Starting what it covers; the next is at or after this key, and before that one: specs added meanwhile are none of
    /// its business.
    Starting { next: Key, end: Key },
}

impl Rules {
    pub(super) fn cover_of(&self, key: Key) -> Cover {
        match self.flags.strategy {
            Strategy::OneForOne => Cover::One(key),
            Strategy::RestForOne if broken("rest_covers_all") => Cover::All,
            Strategy::RestForOne => Cover::From(key),
            Strategy::OneForAll => Cover::All,
        }
    }

    /// Whether a strategy is stopping siblings just now.
    pub(super) fn stop_phase(&self) -> bool {
        self.flags.strategy != Strategy::OneForOne
            && self
                .groups
                .values()
                .any(|group| !matches!(group.cover, Cover::One(_)) && matches!(group.stage, Stage::Stopping { .. }))
    }

    /// Whether a strategy that is stopping siblings covers this one.
    pub(super) fn being_stopped(&self, key: Key) -> bool {
        self.flags.strategy != Strategy::OneForOne
            && self.groups.values().any(|group| group.cover.has(key) && matches!(group.stage, Stage::Stopping { .. }))
    }

    /// Charges a restart of `key` and begins it, or gives up.
    pub(super) fn restart(&mut self, key: Key, now: Duration) {
        if self.window.record(now) == Verdict::GiveUp {
            self.actions.push_back(Action::Note(Note::GaveUp { key }));
            return self.close(Exit::GaveUp, now);
        }
        let delay = self.next_delay(key);
        let cover = self.cover_of(key);
        self.absorb(key, cover, now);
        let stage = Stage::Stopping { below: Key::MAX, then: Some(delay) };
        self.groups.insert(key, Group { cover, stage, retry: false, owes: false, delay_at: None });
        self.advance(key, now);
    }

    /// A start in the restart `origin` failed: that child is tried again, and what its strategy covers from there.
    pub(super) fn retry(&mut self, origin: Key, key: Key, why: &StartFailure, now: Duration) {
        self.actions.push_back(Action::Note(Note::RestartFailed { key, reason: why.to_string().into() }));
        self.end_group(origin);
        let delay = self.next_delay(key);
        // Intensity is counted at the failure where a delay follows, else when the try is made, as in OTP.
        let owes = delay.is_zero();
        if !owes && !self.charge_retry(key, now) {
            return;
        }
        let cover = self.cover_of(key);
        self.entry(key).state = State::Restarting;
        self.absorb(key, cover, now);
        // Also without a delay others are served first: a start that fails without end must not shut them out.
        self.groups.insert(key, Group { cover, stage: Stage::Waiting, retry: true, owes, delay_at: None });
        self.wait(key, now + delay);
    }

    /// Whether the budget allows for one more try.
    fn charge_retry(&mut self, key: Key, now: Duration) -> bool {
        let charged = broken("retry_not_charged") || self.window.record(now) == Verdict::Restart;
        if !charged {
            self.actions.push_back(Action::Note(Note::GaveUp { key }));
            self.close(Exit::GaveUp, now);
        }
        charged
    }

    fn wait(&mut self, origin: Key, until: Duration) {
        if let Some(group) = self.groups.get_mut(&origin) {
            group.stage = Stage::Waiting;
            group.delay_at = Some(until);
            self.timers.insert((until, origin, Timer::Delay));
        }
    }

    fn next_delay(&mut self, key: Key) -> Duration {
        let random = random(&mut self.random);
        let entry = self.entry(key);
        let delay = entry.rules.backoff.delay(entry.attempt, random);
        entry.attempt = entry.attempt.saturating_add(1);
        delay
    }

    /// Takes over the restarts that `cover` includes, and those whose remaining starts it includes. What waited for one of
    /// them, other than the new origin, has no child from now on, as after `terminate_children` in OTP.
    fn absorb(&mut self, origin: Key, cover: Cover, now: Duration) {
        if broken("wider_restart_takes_nothing_over") {
            return;
        }
        let covered = |(origin, group): (&Key, &Group)| {
            let rest = match group.stage {
                Stage::Starting { next, .. } => next.max(group.cover.first()),
                Stage::Stopping { .. } | Stage::Waiting => group.cover.first(),
            };
            match (cover, group.cover) {
                (Cover::One(key), _) => (*origin == key).then_some(*origin),
                (Cover::All, _) => Some(*origin),
                (Cover::From(_), Cover::One(_)) => cover.has(*origin).then_some(*origin),
                (Cover::From(first), _) => (first <= rest).then_some(*origin),
            }
        };
        let absorbed: Vec<Key> = self.groups.iter().filter_map(covered).collect();
        for absorbed in absorbed {
            self.end_group(absorbed);
        }
        if matches!(cover, Cover::One(_)) {
            return;
        }
        self.absorb_deferred(cover, now);
        for (_, entry) in self.entries.range_mut(cover.first()..).filter(|(key, _)| **key != origin) {
            match &mut entry.state {
                State::Restarting => entry.state = State::Vacant,
                State::Down { restarting, .. } => *restarting = false,
                _ => {}
            }
        }
    }

    pub(super) fn end_group(&mut self, origin: Key) {
        if let Some(Group { delay_at: Some(at), .. }) = self.groups.remove(&origin) {
            self.timers.remove(&(at, origin, Timer::Delay));
        }
    }

    /// The delay of a group is over: what it covers is stopped again, then started.
    pub(super) fn delay_over(&mut self, origin: Key, now: Duration) {
        // It may have been taken over, or have gone on, since.
        let due = |group: &mut Group| group.stage == Stage::Waiting && group.delay_at.is_some_and(|at| at <= now);
        if !self.groups.get_mut(&origin).is_some_and(due) {
            return;
        }
        let Some(group) = self.groups.remove(&origin) else { return };
        if group.owes && !self.charge_retry(origin, now) {
            return;
        }
        self.absorb(origin, group.cover, now);
        let stage = Stage::Stopping { below: Key::MAX, then: None };
        self.groups.insert(origin, Group { stage, owes: false, delay_at: None, ..group });
        self.advance(origin, now);
    }

    /// A start of this group is over; on to the next.
    pub(super) fn advance_past(&mut self, origin: Key, key: Key, now: Duration) {
        let Some(group) = self.groups.get_mut(&origin) else { return };
        if let Stage::Starting { next, .. } = &mut group.stage
            && *next == key
        {
            *next = key + 1;
            self.advance(origin, now);
        }
    }

    /// Takes the restarts on that may have waited for this child.
    pub(super) fn advance_for(&mut self, key: Key, now: Duration) {
        if self.flags.strategy == Strategy::OneForOne {
            return self.advance(key, now);
        }
        self.advance_all(now);
    }

    pub(super) fn advance_all(&mut self, now: Duration) {
        let mut next = self.groups.keys().next().copied();
        while let Some(origin) = next {
            self.advance(origin, now);
            next = self.groups.range(origin + 1..).next().map(|(origin, _)| *origin);
        }
    }

    /// Takes a group as far as it can go without waiting.
    pub(super) fn advance(&mut self, origin: Key, now: Duration) {
        while let Some(group) = self.groups.get(&origin) {
            let (cover, stage) = (group.cover, group.stage);
            match stage {
                Stage::Stopping { below, then } => match self.last_held(cover, below) {
                    Some(key) => {
                        self.set_stage(origin, Stage::Stopping { below: key + 1, then });
                        return self.stop_covered(key, now);
                    }
                    None if then.is_some_and(|delay| !delay.is_zero()) && !broken("no_delay_before_restart") => {
                        self.wait(origin, now + then.unwrap_or_default());
                        return;
                    }
                    None => {
                        let (next, end) = (cover.first(), self.next_key);
                        self.set_stage(origin, Stage::Starting { next, end });
                    }
                },
                Stage::Waiting => return,
                // Ends that waited come first, all of them: a wider restart need not start these twice.
                Stage::Starting { .. } if !self.deferred.is_empty() && !self.stop_phase() => return,
                Stage::Starting { next, end } => {
                    let Some(key) = self.next_covered(cover, next).filter(|key| *key < end) else {
                        self.groups.remove(&origin);
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

    /// Starts a covered child if it can be; whether there is something to wait for before the next one.
    fn start_covered(&mut self, origin: Key, key: Key) -> bool {
        let entry = self.entry(key);
        if std::mem::take(&mut entry.skip) && !broken("terminated_sibling_started_again") {
            return false;
        }
        match entry.state {
            State::Vacant if broken("group_leaves_vacant_children") => false,
            State::Vacant | State::Restarting => {
                if key != origin {
                    // It need not be tried again by itself.
                    self.end_group(key);
                }
                self.begin_start(key, Cause::Group(origin), false);
                true
            }
            State::Starting { cause, .. } => cause == Cause::Group(origin),
            State::Down { left: false, .. } => true,
            // One left behind follows when it is gone.
            State::Down { left: true, .. } | State::Stopping { left: true, .. } => {
                entry.respawn = true;
                false
            }
            // Up again by hand, or on its way out by hand.
            State::Up { .. } | State::Stopping { .. } => false,
        }
    }

    fn next_covered(&self, cover: Cover, next: Key) -> Option<Key> {
        match cover {
            Cover::One(key) => (key >= next && self.entries.contains_key(&key)).then_some(key),
            Cover::From(_) | Cover::All => self.entries.range(next..).next().map(|(key, _)| *key),
        }
    }

    fn set_stage(&mut self, origin: Key, stage: Stage) {
        if let Some(group) = self.groups.get_mut(&origin) {
            group.stage = stage;
        }
    }

    fn last_held(&self, cover: Cover, below: Key) -> Option<Key> {
        let holds = |(key, entry): (&Key, &Entry)| entry.holds().then_some(*key);
        match cover {
            Cover::One(key) => self.entries.get(&key).is_some_and(|entry| entry.holds()).then_some(key),
            _ if broken("group_stops_in_start_order") => self.entries.range(cover.first()..).find_map(holds),
            Cover::From(_) | Cover::All => self.entries.range(cover.first()..below).rev().find_map(holds),
        }
    }

    fn stop_covered(&mut self, key: Key, now: Duration) {
        match &self.entry(key).state {
            State::Up { .. } => self.begin_stop(key, now),
            State::Starting { cancelled: false, .. } => self.cancel_start(key, now),
            _ => {}
        }
    }
}

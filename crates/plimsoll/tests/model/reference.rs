//! The reference: what a tree of supervisors does, written down as naively as possible.
//!
//! Everything is a list that is walked from the front. A restart is a to-do list; a stop is a to-do list; at every
//! millisecond at which something is due all lists are looked at until nothing moves. Nothing here is shared with the
//! rules under test, and nothing is fast.

use std::collections::HashMap;

use plimsoll::supervisor::{AutoShutdown, Restart, Shutdown, Strategy};

use super::plan::{Begin, End, KidPlan, Op, SupPlan, begin};

/// What has become of a child.
#[derive(Debug, Clone, PartialEq)]
enum State {
    None,
    Up,
    /// Its start hangs: for an operation, or for a restart.
    Hanging(Option<u32>),
    /// Ends at this time; `overdue`: by a kill.
    Stopping {
        ends: u64,
        overdue: bool,
    },
    Restarting,
}

#[derive(Debug)]
struct Kid {
    plan: KidPlan,
    uid: u32,
    state: State,
    since: u64,
    waiters: Vec<u32>,
    /// Terminated by hand while a restart stops it.
    skip: bool,
    /// Its spec came with the start that hangs, and goes with it.
    fresh: bool,
    /// Its supervisor, if it is one and runs.
    sup: Option<Sup>,
}

#[derive(Debug, Clone, PartialEq)]
enum Todo {
    Stop(u32),
    Pause(u64),
    Until(u64),
    Start(u32),
}

/// A restart that is under way.
#[derive(Debug)]
struct Again {
    origin: u32,
    retry: bool,
    todo: Vec<Todo>,
}

impl Again {
    fn stops(&self) -> bool {
        matches!(self.todo.first(), Some(Todo::Stop(_)))
    }

    fn waits(&self) -> bool {
        matches!(self.todo.first(), Some(Todo::Until(_)))
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Life {
    Serving,
    Closing(Vec<u32>),
    Over,
}

/// A supervisor.
#[derive(Debug)]
pub struct Sup {
    path: String,
    plan: SupPlan,
    number: u32,
    kids: Vec<Kid>,
    again: Vec<Again>,
    charges: Vec<u64>,
    life: Life,
    deferred: Vec<(u32, End)>,
    queue: Vec<(u32, Op)>,
    next_uid: u32,
    troubles: Vec<(String, String)>,
}

/// What goes on around the supervisors.
pub struct Book {
    seed: u64,
    pub now: u64,
    /// When something was due last.
    pub moved_at: u64,
    pub events: Vec<String>,
    /// Answers to operations.
    pub told: Vec<(u32, String)>,
    /// When the last restart was charged, and the period of its window.
    pub last_charge: Option<(u64, u64)>,
    starts: HashMap<(String, u32), u32>,
    lives: HashMap<String, u32>,
}

impl Book {
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            now: 0,
            moved_at: 0,
            events: Vec::new(),
            told: Vec::new(),
            last_charge: None,
            starts: HashMap::new(),
            lives: HashMap::new(),
        }
    }

    fn note(&mut self, verb: &str, path: &str) {
        self.events.push(format!("{verb} {path}"));
    }

    fn tell(&mut self, op: u32, answer: &str) {
        self.told.push((op, answer.to_owned()));
    }
}

impl Sup {
    /// Boots a supervisor; `None` when its first child fails to start.
    pub fn boot(plan: &SupPlan, path: &str, book: &mut Book) -> Option<Self> {
        let number = book.lives.entry(path.to_owned()).or_default();
        *number += 1;
        let mut sup = Self {
            path: path.to_owned(),
            plan: plan.clone(),
            number: *number,
            kids: Vec::new(),
            again: Vec::new(),
            charges: Vec::new(),
            life: Life::Serving,
            deferred: Vec::new(),
            queue: Vec::new(),
            next_uid: 0,
            troubles: Vec::new(),
        };
        let uids: Vec<u32> = plan.kids.iter().map(|kid| sup.add(kid.clone())).collect();
        for uid in uids {
            match sup.try_start(uid, book) {
                Begin::Run => {}
                Begin::Ignore => sup.ended(uid, book),
                Begin::Fail | Begin::Hang => return None,
            }
        }
        Some(sup)
    }

    fn add(&mut self, plan: KidPlan) -> u32 {
        let uid = self.next_uid;
        self.next_uid += 1;
        let kid =
            Kid { plan, uid, state: State::None, since: 0, waiters: Vec::new(), skip: false, fresh: false, sup: None };
        self.kids.push(kid);
        uid
    }

    fn kid(&mut self, uid: u32) -> Option<&mut Kid> {
        self.kids.iter_mut().find(|kid| kid.uid == uid)
    }

    fn uid_of(&self, id: &str) -> Option<u32> {
        self.kids.iter().find(|kid| kid.plan.id == id).map(|kid| kid.uid)
    }

    fn state(&self, uid: u32) -> Option<State> {
        self.kids.iter().find(|kid| kid.uid == uid).map(|kid| kid.state.clone())
    }

    fn path_of(&self, uid: u32) -> String {
        let kid = self.kids.iter().find(|kid| kid.uid == uid).expect("a kid");
        format!("{}/{}", self.path, kid.plan.id)
    }

    /// One attempt to start a child. A child that runs is up afterwards.
    fn try_start(&mut self, uid: u32, book: &mut Book) -> Begin {
        let path = self.path_of(uid);
        let number = self.number;
        let n = book.starts.entry((path.clone(), number)).or_default();
        *n += 1;
        let begins = begin(book.seed, &path, number, *n - 1);
        if begins != Begin::Run {
            return begins;
        }
        let plan = self.kid(uid).expect("a kid").plan.clone();
        let mut sup = None;
        if let Some(plan) = &plan.sup {
            let Some(booted) = Self::boot(plan, &path, book) else { return Begin::Fail };
            sup = Some(booted);
        } else {
            book.note("start", &path);
        }
        let now = book.now;
        let kid = self.kid(uid).expect("a kid");
        kid.state = State::Up;
        kid.since = now;
        kid.sup = sup;
        Begin::Run
    }

    /// There is no child any more.
    fn ended(&mut self, uid: u32, book: &mut Book) {
        let Some(kid) = self.kid(uid) else { return };
        kid.state = State::None;
        kid.sup = None;
        let temporary = kid.plan.restart == Restart::Temporary;
        for op in std::mem::take(&mut kid.waiters) {
            book.tell(op, "ok");
        }
        if temporary {
            self.kids.retain(|kid| kid.uid != uid);
        }
    }

    fn covered(&self, origin: u32) -> Vec<u32> {
        let all = self.kids.iter().map(|kid| kid.uid);
        match self.plan.strategy {
            Strategy::OneForOne => all.filter(|uid| *uid == origin).collect(),
            Strategy::OneForAll => all.collect(),
            Strategy::RestForOne => all.filter(|uid| *uid >= origin).collect(),
        }
    }

    fn covers(&self, origin: u32, uid: u32) -> bool {
        match self.plan.strategy {
            Strategy::OneForOne => uid == origin,
            Strategy::OneForAll => true,
            Strategy::RestForOne => uid >= origin,
        }
    }

    fn stop_phase(&self) -> bool {
        self.plan.strategy != Strategy::OneForOne && self.again.iter().any(Again::stops)
    }

    // ---- what happens to it ----

    /// The child ends by itself, in this way.
    fn end(&mut self, uid: u32, end: End, book: &mut Book) {
        let Some(state) = self.state(uid) else { return };
        let path = self.path_of(uid);
        if let State::Stopping { .. } = state {
            // Only a kill reaches it now.
            if end == End::Kill {
                let said = self.kid(uid).and_then(|kid| kid.sup.as_mut()).map(Sup::said).unwrap_or_default();
                self.take_over_report(uid, said);
                self.end_trouble(uid, end);
                self.ended(uid, book);
            }
            return;
        }
        if self.kid(uid).is_some_and(|kid| kid.plan.sup.is_none())
            && matches!(end, End::Normal | End::Shutdown | End::Upgrade)
        {
            book.note("stop", &path);
        }
        let kid = self.kid(uid).expect("a kid");
        kid.state = State::None;
        if let Some(mut sup) = kid.sup.take() {
            let said = sup.said();
            sup.killed(book);
            self.take_over_report(uid, said);
        }
        match self.life {
            Life::Over => {}
            Life::Closing(_) => {
                self.end_trouble(uid, end);
                self.ended(uid, book);
            }
            Life::Serving => {
                let absorbed = self.again.iter().any(|again| again.stops() && self.covers(again.origin, uid));
                if self.stop_phase() && absorbed {
                    self.ended(uid, book);
                } else if self.stop_phase() {
                    self.deferred.push((uid, end));
                } else {
                    self.deal_with(uid, end, book);
                }
            }
        }
    }

    fn deal_with(&mut self, uid: u32, end: End, book: &mut Book) {
        let Some(kid) = self.kid(uid) else { return };
        let (restart, significant) = (kid.plan.restart, kid.plan.significant);
        let again = match restart {
            Restart::Permanent => true,
            Restart::Transient => matches!(end, End::Fail | End::Kill),
            Restart::Temporary => false,
        };
        if again {
            kid.state = State::Restarting;
            return self.restart(uid, book);
        }
        let last = |sup: &Self| {
            !sup.kids.iter().any(|other| {
                // Between two tries those that follow have no child.
                let pending = sup.again.iter().filter(|again| !(again.retry && again.waits())).any(|again| {
                    again.todo.contains(&Todo::Start(other.uid))
                        || (sup.covers(again.origin, other.uid)
                            && !again.todo.iter().any(|todo| matches!(todo, Todo::Start(_))))
                });
                let active = matches!(other.state, State::Up | State::Hanging(_) | State::Restarting)
                    || (pending && !other.skip && other.plan.restart != Restart::Temporary);
                other.uid != uid && other.plan.significant && active
            })
        };
        let over = significant
            && match self.plan.auto_shutdown {
                AutoShutdown::Never => false,
                AutoShutdown::AnySignificant => true,
                AutoShutdown::AllSignificant => last(self),
            };
        self.ended(uid, book);
        if over {
            self.close(book);
        }
    }

    /// Charges a restart; gives up when it is one too many.
    fn charge(&mut self, book: &mut Book) -> bool {
        book.last_charge = Some((book.now, self.plan.period));
        self.charges.push(book.now);
        let recent = self.charges.iter().filter(|then| **then + self.plan.period >= book.now).count();
        if recent > self.plan.intensity as usize {
            self.close(book);
            return false;
        }
        true
    }

    fn restart(&mut self, uid: u32, book: &mut Book) {
        if !self.charge(book) {
            return;
        }
        self.take_over(uid, book);
        let pause = self.kid(uid).expect("a kid").plan.backoff;
        let todo = self.stops(uid).into_iter().chain([Todo::Pause(pause)]).collect();
        self.again.push(Again { origin: uid, retry: false, todo });
    }

    fn retry(&mut self, uid: u32, book: &mut Book) {
        let pause = self.kid(uid).expect("a kid").plan.backoff;
        // Without a pause it is charged when it is made.
        if pause > 0 && !self.charge(book) {
            return;
        }
        self.kid(uid).expect("a kid").state = State::Restarting;
        self.take_over(uid, book);
        self.again.push(Again { origin: uid, retry: true, todo: vec![Todo::Until(book.now + pause)] });
    }

    fn stops(&self, origin: u32) -> Vec<Todo> {
        self.covered(origin).into_iter().rev().map(Todo::Stop).collect()
    }

    fn again_from(&self, origin: u32) -> Vec<Todo> {
        self.stops(origin).into_iter().chain(self.covered(origin).into_iter().map(Todo::Start)).collect()
    }

    /// What this restart covers takes over what is left of others, and ends that waited.
    fn take_over(&mut self, origin: u32, book: &mut Book) {
        let mut kept = Vec::new();
        for again in std::mem::take(&mut self.again) {
            let first = again.todo.iter().find_map(|todo| match todo {
                Todo::Start(uid) => Some(*uid),
                _ => None,
            });
            let rest = match (again.stops() || again.waits(), self.plan.strategy) {
                (false, _) => first.unwrap_or(u32::MAX),
                (true, Strategy::OneForAll) => 0,
                (true, _) => again.origin,
            };
            let taken = match self.plan.strategy {
                Strategy::OneForOne => again.origin == origin,
                Strategy::OneForAll => true,
                Strategy::RestForOne => origin <= rest,
            };
            if !taken {
                kept.push(again);
            }
        }
        self.again = kept;
        if self.plan.strategy != Strategy::OneForOne {
            let (taken, others): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.deferred).into_iter().partition(|(uid, _)| self.covers(origin, *uid));
            self.deferred = others;
            for (uid, _) in taken {
                self.ended(uid, book);
            }
            // All it covers is taken down: the others have no child until it comes to them.
            for uid in self.covered(origin) {
                let kid = self.kid(uid).expect("a kid");
                if uid != origin && kid.state == State::Restarting {
                    kid.state = State::None;
                }
            }
        }
    }

    fn close(&mut self, book: &mut Book) {
        if self.life != Life::Serving {
            return;
        }
        self.again.clear();
        let order = self.kids.iter().rev().map(|kid| kid.uid).collect();
        self.life = Life::Closing(order);
        for (uid, end) in std::mem::take(&mut self.deferred) {
            self.end_trouble(uid, end);
            self.ended(uid, book);
        }
        for (op, _) in std::mem::take(&mut self.queue) {
            book.tell(op, "shutting down");
        }
        for kid in &mut self.kids {
            for op in std::mem::take(&mut kid.waiters) {
                book.tell(op, "shutting down");
            }
            if let State::Hanging(by) = kid.state {
                kid.state = State::None;
                if let Some(op) = by {
                    book.tell(op, "shutting down");
                }
            }
        }
    }

    /// Gone at once, with all below: whoever waits is told.
    fn killed(&mut self, book: &mut Book) {
        self.close(book);
        for sup in self.kids.iter_mut().filter_map(|kid| kid.sup.as_mut()) {
            sup.killed(book);
        }
    }

    /// What an end by itself is worth in the report of a stop.
    fn end_trouble(&mut self, uid: u32, end: End) {
        let Some(kid) = self.kid(uid) else { return };
        let permanent = kid.plan.restart == Restart::Permanent;
        match (end, kid.plan.shutdown) {
            (End::Fail, _) => self.trouble(uid, "failed"),
            (End::Kill, Shutdown::Brutal) => {}
            (End::Kill, _) => self.trouble(uid, "killed by somebody"),
            (End::Normal | End::Upgrade, _) | (End::Shutdown, Shutdown::Brutal) if permanent => {
                self.trouble(uid, "ended");
            }
            _ => {}
        }
    }

    fn trouble(&mut self, uid: u32, what: &str) {
        if matches!(self.life, Life::Closing(_)) {
            let id = self.kid(uid).expect("a kid").plan.id.clone();
            self.troubles.push((id, what.to_owned()));
        }
    }

    /// What its own stop, and those under way below it, have told so far: a kill does not take that back.
    fn said(&mut self) -> Vec<(String, String)> {
        let mut said = std::mem::take(&mut self.troubles);
        for kid in &mut self.kids {
            let id = &kid.plan.id;
            let below = kid.sup.as_mut().map(Sup::said).unwrap_or_default();
            said.extend(below.into_iter().map(|(path, what)| (format!("{id}/{path}"), what)));
        }
        said
    }

    /// The report of a supervisor that ended is of use only to one that is itself on its way out.
    fn take_over_report(&mut self, uid: u32, said: Vec<(String, String)>) {
        if matches!(self.life, Life::Closing(_)) {
            let id = self.kid(uid).expect("a kid").plan.id.clone();
            self.troubles.extend(said.into_iter().map(|(path, what)| (format!("{id}/{path}"), what)));
        }
    }

    // ---- operations ----

    /// Whoever runs this operation is told at once, or later.
    fn operate(&mut self, op: u32, what: Op, book: &mut Book) {
        if self.life != Life::Serving {
            return book.tell(op, "shutting down");
        }
        match what {
            Op::Terminate(id) => self.terminate(op, &id, book),
            other => self.queue.push((op, other)),
        }
    }

    fn terminate(&mut self, op: u32, id: &str, book: &mut Book) {
        let Some(uid) = self.uid_of(id) else { return book.tell(op, "not found") };
        // The one that is tried again takes its restart along; another one is passed over by a restart that stops it.
        let hanging = self.state(uid) == Some(State::Hanging(None));
        let ends = |again: &Again| {
            let stops = again.stops() && (again.retry || self.plan.strategy == Strategy::OneForOne);
            again.origin == uid && (again.waits() || stops || hanging)
        };
        let before = self.again.len();
        let kept: Vec<bool> = self.again.iter().map(|again| !ends(again)).collect();
        let mut kept = kept.into_iter();
        self.again.retain(|_| kept.next() == Some(true));
        if self.again.len() == before {
            let stopped =
                self.stop_phase() && self.again.iter().any(|again| again.stops() && self.covers(again.origin, uid));
            self.kid(uid).expect("a kid").skip = stopped;
        }
        self.deferred.retain(|(deferred, _)| *deferred != uid);
        self.kid(uid).expect("a kid").waiters.push(op);
        match self.state(uid).expect("a kid") {
            State::None | State::Restarting => self.ended(uid, book),
            State::Hanging(by) => {
                self.hang_over(uid, by, book);
                self.ended(uid, book);
            }
            State::Up => self.begin_stop(uid, book),
            State::Stopping { .. } => {}
        }
    }

    /// A start that hung was given up.
    fn hang_over(&mut self, uid: u32, by: Option<u32>, book: &mut Book) {
        self.kid(uid).expect("a kid").state = State::None;
        if let Some(op) = by {
            book.tell(op, "terminated");
        }
        for again in &mut self.again {
            if again.todo.first() == Some(&Todo::Start(uid)) {
                again.todo.remove(0);
            }
        }
    }

    fn serve(&mut self, op: u32, what: Op, book: &mut Book) {
        let id = match &what {
            Op::Start(plan) => plan.id.clone(),
            Op::Terminate(id) | Op::Restart(id) | Op::Delete(id) => id.clone(),
        };
        let uid = self.uid_of(&id);
        let state = uid.and_then(|uid| self.state(uid));
        match (what, uid, state) {
            (Op::Start(_), _, Some(State::Up)) => book.tell(op, "already started"),
            (Op::Start(_), _, Some(_)) => book.tell(op, "already present"),
            (Op::Start(plan), _, None) => {
                let uid = self.add(plan);
                self.start_for(op, uid, true, book);
            }
            (_, _, None) => book.tell(op, "not found"),
            (_, _, Some(State::Up | State::Stopping { .. } | State::Hanging(Some(_)))) => book.tell(op, "running"),
            (_, _, Some(State::Restarting | State::Hanging(None))) => book.tell(op, "restarting"),
            (Op::Restart(_), Some(uid), Some(State::None)) => self.start_for(op, uid, false, book),
            (Op::Delete(_), Some(uid), Some(State::None)) => {
                self.kids.retain(|kid| kid.uid != uid);
                book.tell(op, "ok");
            }
            (what, ..) => unreachable!("{what:?}"),
        }
    }

    fn start_for(&mut self, op: u32, uid: u32, fresh: bool, book: &mut Book) {
        match self.try_start(uid, book) {
            Begin::Run => book.tell(op, "started"),
            Begin::Hang => {
                let kid = self.kid(uid).expect("a kid");
                (kid.state, kid.fresh) = (State::Hanging(Some(op)), fresh);
            }
            Begin::Ignore => {
                self.ended(uid, book);
                book.tell(op, "ignored");
            }
            Begin::Fail => {
                self.ended(uid, book);
                if fresh {
                    self.kids.retain(|kid| kid.uid != uid);
                }
                book.tell(op, "failed");
            }
        }
    }

    // ---- stopping ----

    fn begin_stop(&mut self, uid: u32, book: &mut Book) {
        let path = self.path_of(uid);
        let now = book.now;
        let kid = self.kid(uid).expect("a kid");
        let takes = kid.plan.stop_takes;
        match (kid.plan.shutdown, &mut kid.sup) {
            // Killed: with all below it, and without a word.
            (Shutdown::Brutal, sup) => {
                if let Some(mut sup) = sup.take() {
                    let said = sup.said();
                    sup.killed(book);
                    self.take_over_report(uid, said);
                }
                self.ended(uid, book);
            }
            (_, Some(sup)) => {
                sup.close(book);
                kid.state = State::Stopping { ends: u64::MAX, overdue: false };
            }
            (Shutdown::After(grace), None) if takes > grace.as_millis() as u64 => {
                kid.state = State::Stopping { ends: now + grace.as_millis() as u64, overdue: true };
            }
            (_, None) if takes == 0 => {
                book.note("stop", &path);
                self.ended(uid, book);
            }
            (_, None) => kid.state = State::Stopping { ends: now + takes, overdue: false },
        }
    }

    /// Whatever is due now, in all supervisors below this one and in it, until nothing moves.
    fn settle(&mut self, book: &mut Book) {
        loop {
            let moved = self.settle_kids(book) | self.settle_stops(book) | self.settle_lists(book);
            if !moved {
                return;
            }
        }
    }

    fn settle_kids(&mut self, book: &mut Book) -> bool {
        let mut over = Vec::new();
        for kid in &mut self.kids {
            if let Some(sup) = &mut kid.sup {
                sup.settle(book);
                if sup.life == Life::Over {
                    over.push(kid.uid);
                }
            }
        }
        for uid in &over {
            let said = self.kid(*uid).and_then(|kid| kid.sup.as_mut()).map(Sup::said).unwrap_or_default();
            self.take_over_report(*uid, said);
            match self.state(*uid) {
                Some(State::Stopping { .. }) => self.ended(*uid, book),
                _ => self.end(*uid, End::Shutdown, book),
            }
        }
        !over.is_empty()
    }

    fn settle_stops(&mut self, book: &mut Book) -> bool {
        let due = |kid: &&Kid| matches!(kid.state, State::Stopping { ends, .. } if ends <= book.now);
        let Some(kid) = self.kids.iter().find(due) else { return false };
        let (uid, state) = (kid.uid, kid.state.clone());
        if state == (State::Stopping { ends: book.now, overdue: true }) {
            self.trouble(uid, "killed");
        } else {
            let path = self.path_of(uid);
            book.note("stop", &path);
        }
        self.ended(uid, book);
        true
    }

    fn settle_lists(&mut self, book: &mut Book) -> bool {
        if let Life::Closing(order) = &mut self.life {
            let Some(&uid) = order.first() else {
                self.life = Life::Over;
                return true;
            };
            return match self.state(uid) {
                Some(State::Up) => {
                    self.begin_stop(uid, book);
                    true
                }
                Some(State::Stopping { .. }) => false,
                _ => {
                    if let Life::Closing(order) = &mut self.life {
                        order.remove(0);
                    }
                    true
                }
            };
        }
        if self.life == Life::Over {
            return false;
        }
        if !self.stop_phase() && !self.deferred.is_empty() {
            let (uid, end) = self.deferred.remove(0);
            self.deal_with(uid, end, book);
            return true;
        }
        for index in 0..self.again.len() {
            if !self.again[index].waits() && self.step(index, book) {
                return true;
            }
        }
        if self.stop_phase() {
            return false;
        }
        let busy = |sup: &Self, what: &Op| {
            let id = match what {
                Op::Start(plan) => &plan.id,
                Op::Terminate(id) | Op::Restart(id) | Op::Delete(id) => id,
            };
            let kid = sup.kids.iter().find(|kid| kid.plan.id == *id);
            kid.is_some_and(|kid| matches!(kid.state, State::Stopping { .. }))
        };
        match self.queue.iter().position(|(_, what)| !busy(self, what)) {
            Some(index) => {
                let (op, what) = self.queue.remove(index);
                self.serve(op, what, book);
                true
            }
            None => (0..self.again.len()).any(|index| self.again[index].waits() && self.step(index, book)),
        }
    }

    /// One step of a restart; whether it moved.
    fn step(&mut self, index: usize, book: &mut Book) -> bool {
        let origin = self.again[index].origin;
        let Some(todo) = self.again[index].todo.first().cloned() else {
            self.again.remove(index);
            return true;
        };
        match todo {
            Todo::Stop(uid) => match self.state(uid) {
                Some(State::Up) => self.begin_stop(uid, book),
                Some(State::Stopping { .. }) => return false,
                Some(State::Hanging(by)) => {
                    let fresh = by.is_some() && self.kid(uid).is_some_and(|kid| kid.fresh);
                    self.hang_over(uid, by, book);
                    self.ended(uid, book);
                    if fresh {
                        self.kids.retain(|kid| kid.uid != uid);
                    }
                }
                _ => {
                    self.again[index].todo.remove(0);
                }
            },
            Todo::Pause(0) => self.again[index].todo = self.covered(origin).into_iter().map(Todo::Start).collect(),
            Todo::Pause(pause) => self.again[index].todo = vec![Todo::Until(book.now + pause)],
            Todo::Until(then) if book.now < then => return false,
            Todo::Until(_) => {
                let again = self.again.remove(index);
                let owed = again.retry && self.kid(origin).is_some_and(|kid| kid.plan.backoff == 0);
                if owed && !self.charge(book) {
                    return true;
                }
                self.take_over(origin, book);
                let todo = self.again_from(origin);
                self.again.push(Again { todo, ..again });
            }
            Todo::Start(uid) => {
                let skip = self.kid(uid).is_some_and(|kid| std::mem::take(&mut kid.skip));
                match self.state(uid) {
                    Some(State::None | State::Restarting) if !skip => return self.start_again(index, uid, book),
                    Some(State::Hanging(None)) if !skip => return false,
                    _ => {
                        self.again[index].todo.remove(0);
                    }
                }
            }
        }
        true
    }

    fn start_again(&mut self, index: usize, uid: u32, book: &mut Book) -> bool {
        // One that waited by itself need not any more.
        let origin = self.again[index].origin;
        self.again.retain(|again| again.origin == origin || again.origin != uid);
        let index = self.again.iter().position(|again| again.origin == origin).expect("this one");
        match self.try_start(uid, book) {
            Begin::Run => {
                self.again[index].todo.remove(0);
            }
            Begin::Ignore => {
                self.again[index].todo.remove(0);
                self.ended(uid, book);
            }
            Begin::Hang => self.kid(uid).expect("a kid").state = State::Hanging(None),
            Begin::Fail => {
                self.again.remove(index);
                self.retry(uid, book);
            }
        }
        true
    }

    /// The next thing due in this supervisor and in each below.
    fn dues(&self, now: u64, dues: &mut Vec<u64>) {
        let stops = self.kids.iter().filter_map(|kid| match kid.state {
            State::Stopping { ends, .. } if ends < u64::MAX => Some(ends),
            _ => None,
        });
        let pauses = self.again.iter().filter_map(|again| match again.todo.first() {
            Some(Todo::Until(then)) => Some(*then),
            _ => None,
        });
        dues.extend(stops.chain(pauses).filter(|due| *due > now).min());
        self.kids.iter().filter_map(|kid| kid.sup.as_ref()).for_each(|sup| sup.dues(now, dues));
    }
}

/// A whole tree, driven from outside.
pub struct Reference {
    pub top: Sup,
    pub book: Book,
    /// In two supervisors something was due in the same millisecond: which of them is first is nobody's promise.
    pub tie: bool,
}

impl Reference {
    /// The supervisor at `path`, provided that it and all above it run.
    fn at(&mut self, path: &[String]) -> Option<(&mut Sup, &mut Book)> {
        let mut sup = &mut self.top;
        for id in path {
            let kid = sup.kids.iter_mut().find(|kid| kid.plan.id == *id && kid.state == State::Up)?;
            sup = kid.sup.as_mut()?;
        }
        Some((sup, &mut self.book))
    }

    pub fn end(&mut self, path: &[String], id: &str, end: End) {
        if let Some((sup, book)) = self.at(path)
            && let Some(uid) = sup.uid_of(id)
        {
            sup.end(uid, end, book);
        }
        self.top.settle(&mut self.book);
    }

    pub fn operate(&mut self, path: &[String], op: u32, what: Op) {
        if let Some((sup, book)) = self.at(path) {
            sup.operate(op, what, book);
        }
        self.top.settle(&mut self.book);
    }

    pub fn stop(&mut self) {
        self.top.close(&mut self.book);
        self.top.settle(&mut self.book);
    }

    /// Time passes.
    pub fn pass(&mut self, until: u64) {
        while let Some(due) = self.next_due().filter(|due| *due <= until) {
            let mut dues = Vec::new();
            self.top.dues(self.book.now, &mut dues);
            self.tie |= dues.into_iter().filter(|other| *other == due).count() > 1;
            self.book.now = due;
            self.book.moved_at = due;
            self.top.settle(&mut self.book);
        }
        self.book.now = until;
        self.top.settle(&mut self.book);
    }

    pub fn next_due(&self) -> Option<u64> {
        let mut dues = Vec::new();
        self.top.dues(self.book.now, &mut dues);
        dues.into_iter().min()
    }

    pub fn is_over(&self) -> bool {
        self.top.life == Life::Over
    }

    pub fn troubles(&self) -> &[(String, String)] {
        &self.top.troubles
    }

    /// The tree in one line, and every supervisor that runs with its children that do.
    pub fn shown(&self) -> String {
        shown(&self.top)
    }

    /// Supervisors that can be reached, with the ids of their children: all, and those up (with whether it is one).
    pub fn reachable(&self) -> Vec<Reachable> {
        let mut found = Vec::new();
        reachable(&self.top, Vec::new(), &mut found);
        found
    }
}

/// A supervisor that can be reached.
pub struct Reachable {
    pub path: Vec<String>,
    pub ids: Vec<String>,
    pub up: Vec<(String, bool)>,
    /// Children in their stop hook, that only a kill reaches.
    pub stopping: Vec<String>,
    pub auto_shutdown: AutoShutdown,
    pub depth: u32,
}

fn shown(sup: &Sup) -> String {
    if sup.life != Life::Serving {
        return "shutting down".to_owned();
    }
    let kids = sup.kids.iter().map(|kid| {
        let state = match (&kid.state, &kid.sup) {
            (State::Up | State::Stopping { .. }, Some(sup)) => format!("({})", shown(sup)),
            (State::Up | State::Stopping { .. }, None) => "+".to_owned(),
            (State::Restarting | State::Hanging(None), _) => "~".to_owned(),
            (State::None | State::Hanging(Some(_)), _) => "-".to_owned(),
        };
        format!("{}{state}", kid.plan.id)
    });
    kids.collect::<Vec<_>>().join(" ")
}

fn reachable(sup: &Sup, path: Vec<String>, found: &mut Vec<Reachable>) {
    // Children cannot be looked up in one that is on its way out.
    let serving = sup.life == Life::Serving;
    let up = sup.kids.iter().filter(|kid| serving && kid.state == State::Up);
    let stopping =
        sup.kids.iter().filter(|kid| serving && matches!(kid.state, State::Stopping { .. }) && kid.sup.is_none());
    found.push(Reachable {
        ids: sup.kids.iter().map(|kid| kid.plan.id.clone()).collect(),
        up: up.clone().map(|kid| (kid.plan.id.clone(), kid.sup.is_some())).collect(),
        stopping: stopping.map(|kid| kid.plan.id.clone()).collect(),
        auto_shutdown: sup.plan.auto_shutdown,
        depth: path.len() as u32 + 1,
        path: path.clone(),
    });
    for kid in up {
        if let Some(sup) = &kid.sup {
            reachable(sup, [path.clone(), vec![kid.plan.id.clone()]].concat(), found);
        }
    }
}

//! The reference: what a tree of supervisors does, written down as naively as possible.
//!
//! Everything is a list that is walked from the front. A restart is a to-do list; a stop is a to-do list; at every
//! millisecond at which something is due all lists are looked at until nothing moves. Nothing here is shared with the
//! rules under test, and nothing is fast.

mod ends;
mod operations;
mod report;
mod restarts;
mod settling;

use std::collections::HashMap;

use plimsoll::supervisor::{AutoShutdown, Restart, Strategy};

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
    delayed: bool,
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
    failures: Vec<(String, String)>,
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
            failures: Vec::new(),
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
        self.kid(uid).expect("a kid").skip = false;
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

    pub fn failures(&self) -> &[(String, String)] {
        &self.top.failures
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

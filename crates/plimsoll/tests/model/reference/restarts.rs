//! Restarts as to-do lists: what is charged, what they take over, and their steps.

use plimsoll::supervisor::Strategy;

use super::{Again, Book, State, Sup, Todo};
use crate::model::plan::Begin;

impl Sup {
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

    pub(super) fn restart(&mut self, uid: u32, book: &mut Book) {
        if !self.charge(book) {
            return;
        }
        self.take_over(uid, book);
        let pause = self.kid(uid).expect("a kid").plan.backoff;
        let todo = self.stops(uid).into_iter().chain([Todo::Pause(pause)]).collect();
        self.again.push(Again { origin: uid, retry: false, delayed: pause > 0, todo });
    }

    fn retry(&mut self, uid: u32, book: &mut Book) {
        let pause = self.kid(uid).expect("a kid").plan.backoff;
        // Without a pause it is charged when it is made.
        if pause > 0 && !self.charge(book) {
            return;
        }
        self.kid(uid).expect("a kid").state = State::Restarting;
        self.take_over(uid, book);
        let todo = vec![Todo::Until(book.now + pause)];
        self.again.push(Again { origin: uid, retry: true, delayed: pause > 0, todo });
    }

    pub(super) fn stops(&self, origin: u32) -> Vec<Todo> {
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

    /// One step of a restart; whether it moved.
    pub(super) fn step(&mut self, index: usize, book: &mut Book) -> bool {
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
                let owed = again.retry && !again.delayed;
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
}

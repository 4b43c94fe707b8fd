//! Operations asked for from outside.

use plimsoll::supervisor::Strategy;

use super::{Again, Book, Life, State, Sup, Todo};
use crate::model::plan::{Begin, Op};

impl Sup {
    /// Whoever runs this operation is told at once, or later.
    pub(super) fn operate(&mut self, op: u32, what: Op, book: &mut Book) {
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
    pub(super) fn hang_over(&mut self, uid: u32, by: Option<u32>, book: &mut Book) {
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

    pub(super) fn serve(&mut self, op: u32, what: Op, book: &mut Book) {
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
}

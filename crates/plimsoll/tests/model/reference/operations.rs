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
        // A restart of this child alone ends; so does a retry without delay, as in OTP. Any other passes it over.
        let alone = self.plan.strategy == Strategy::OneForOne;
        let ends = |again: &Again| {
            let otp_retry = again.retry && !again.delayed && (again.waits() || again.stops());
            again.origin == uid && (alone || otp_retry)
        };
        let before = self.again.len();
        let kept: Vec<bool> = self.again.iter().map(|again| !ends(again)).collect();
        let mut kept = kept.into_iter();
        self.again.retain(|_| kept.next() == Some(true));
        if self.again.len() == before {
            let passed_over = |again: &Again| {
                let later = again.todo.iter().skip(1).any(|todo| *todo == Todo::Start(uid));
                let starts = matches!(again.todo.first(), Some(Todo::Start(_)));
                self.covers(again.origin, uid)
                    && (again.stops() || (again.waits() && again.delayed) || (starts && later))
            };
            let skip = !alone && self.again.iter().any(passed_over);
            self.kid(uid).expect("a kid").skip = skip;
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
            (_, _, Some(State::Hanging(Some(_)))) => book.tell(op, "starting"),
            (Op::Start(_), _, Some(_)) => book.tell(op, "already present"),
            (Op::Start(plan), _, None) => {
                let uid = self.add(plan);
                self.start_for(op, uid, true, book);
            }
            (_, _, None) => book.tell(op, "not found"),
            (_, _, Some(State::Up | State::Stopping { .. })) => book.tell(op, "running"),
            (_, _, Some(State::Restarting | State::Hanging(None))) => book.tell(op, "restarting"),
            (Op::Restart(_), Some(uid), Some(State::None)) => self.start_for(op, uid, false, book),
            (Op::Delete(_), Some(uid), Some(State::None)) => {
                self.kids.retain(|kid| kid.uid != uid);
                book.tell(op, "ok");
            }
            (what, ..) => unreachable!("{what:?}"),
        }
    }

    /// Whether this operation starts a child after another that is being started, on which it may depend.
    pub(super) fn starts_behind(&self, what: &Op) -> bool {
        let (id, new) = match what {
            Op::Start(plan) => (&plan.id, true),
            Op::Restart(id) => (id, false),
            Op::Terminate(_) | Op::Delete(_) => return false,
        };
        let limit = match self.uid_of(id) {
            None if new => u32::MAX,
            Some(uid) if !new && self.state(uid) == Some(State::None) => uid,
            _ => return false,
        };
        let restarts =
            self.again.iter().any(|again| matches!(again.todo.first(), Some(Todo::Start(uid)) if *uid < limit));
        let hangs = self.kids.iter().any(|kid| kid.uid < limit && matches!(kid.state, State::Hanging(_)));
        self.plan.strategy != Strategy::OneForOne && (restarts || hangs)
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

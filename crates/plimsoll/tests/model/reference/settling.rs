//! Stops, and whatever is due: looked at until nothing moves.

use plimsoll::supervisor::Shutdown;

use super::{Book, Kid, Life, State, Sup, Todo};
use crate::model::plan::{End, Op};

impl Sup {
    pub(super) fn begin_stop(&mut self, uid: u32, book: &mut Book) {
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
    pub(super) fn settle(&mut self, book: &mut Book) {
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
            self.failure(uid, "killed");
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
            kid.is_some_and(|kid| matches!(kid.state, State::Stopping { .. })) || sup.starts_behind(what)
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

    /// The next thing due in this supervisor and in each below.
    pub(super) fn dues(&self, now: u64, dues: &mut Vec<u64>) {
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

//! Ends of children and of supervisors: what follows from each.

use plimsoll::supervisor::{AutoShutdown, Restart};

use super::{Book, Life, State, Sup, Todo};
use crate::model::plan::End;

impl Sup {
    /// The child ends by itself, in this way.
    pub(super) fn end(&mut self, uid: u32, end: End, book: &mut Book) {
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

    pub(super) fn deal_with(&mut self, uid: u32, end: End, book: &mut Book) {
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

    pub(super) fn close(&mut self, book: &mut Book) {
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
    pub(super) fn killed(&mut self, book: &mut Book) {
        self.close(book);
        for sup in self.kids.iter_mut().filter_map(|kid| kid.sup.as_mut()) {
            sup.killed(book);
        }
    }
}

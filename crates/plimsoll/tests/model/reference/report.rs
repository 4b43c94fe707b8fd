//! What the report of a stop tells.

use plimsoll::supervisor::{Restart, Shutdown};

use super::{Life, Sup};
use crate::model::plan::End;

impl Sup {
    /// What an end by itself is worth in the report of a stop.
    pub(super) fn end_trouble(&mut self, uid: u32, end: End) {
        let Some(kid) = self.kid(uid) else { return };
        let permanent = kid.plan.restart == Restart::Permanent;
        match (end, kid.plan.shutdown) {
            (End::Fail, _) => self.failure(uid, "failed"),
            (End::Kill, Shutdown::Brutal) => {}
            (End::Kill, _) => self.failure(uid, "killed by somebody"),
            (End::Normal | End::Upgrade, _) | (End::Shutdown, Shutdown::Brutal) if permanent => {
                self.failure(uid, "ended");
            }
            _ => {}
        }
    }

    pub(super) fn failure(&mut self, uid: u32, what: &str) {
        if matches!(self.life, Life::Closing(_)) {
            let id = self.kid(uid).expect("a kid").plan.id.clone();
            self.failures.push((id, what.to_owned()));
        }
    }

    /// What its own stop, and those under way below it, have told so far: a kill does not take that back.
    pub(super) fn said(&mut self) -> Vec<(String, String)> {
        let mut said = std::mem::take(&mut self.failures);
        for kid in &mut self.kids {
            let id = &kid.plan.id;
            let below = kid.sup.as_mut().map(Sup::said).unwrap_or_default();
            said.extend(below.into_iter().map(|(path, what)| (format!("{id}/{path}"), what)));
        }
        said
    }

    /// The report of a supervisor that ended is of use only to one that is itself on its way out.
    pub(super) fn take_over_report(&mut self, uid: u32, said: Vec<(String, String)>) {
        if matches!(self.life, Life::Closing(_)) {
            let id = self.kid(uid).expect("a kid").plan.id.clone();
            self.failures.extend(said.into_iter().map(|(path, what)| (format!("{id}/{path}"), what)));
        }
    }
}

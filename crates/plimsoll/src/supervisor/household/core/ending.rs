//! The end of a child: what is heard of it, piece by piece, until the rules are told.

use std::sync::Arc;
use std::time::Duration;

use ractor::ActorId;
use ractor::concurrency::JoinHandle;

use super::{Core, Household};
use crate::exit::{ExitReason, Failure};
use crate::supervisor::child::Nested;
use crate::supervisor::frame::{End, Heard, ended_already, watch};
use crate::supervisor::rules::{Gone, Run};
use crate::supervisor::shutdown_report::ShutdownReport;

impl Core {
    /// ractor told of the end of a linked actor. Answers its task, when that is still to be waited for.
    pub(in crate::supervisor::household) fn heard(
        &mut self,
        actor: ActorId,
        heard: Heard,
        now: Duration,
    ) -> Option<(Run, JoinHandle<()>)> {
        let Some(&run) = self.actors.get(&actor) else {
            if !self.starts.is_empty() {
                self.early.push(actor, heard);
            }
            return None;
        };
        let live = self.live.get_mut(&run)?;
        let reason = heard.reason(live.join.as_ref().map(JoinHandle::id));
        live.ending.heard(reason);
        if let Some(mut join) = live.join.take() {
            let Some(panic) = ended_already(&mut join) else { return Some((run, join)) };
            live.ending.joined(panic);
        }
        self.tell_end(run, now);
        None
    }

    /// The task of an incarnation whose last words were heard has ended, or it takes longer and is waited for.
    pub(in crate::supervisor::household) fn awaited(
        &mut self,
        household: &Arc<Household>,
        run: Run,
        join: JoinHandle<()>,
        ended: Option<Option<Failure>>,
        now: Duration,
    ) {
        let Some(live) = self.live.get_mut(&run) else { return };
        match ended {
            Some(panic) => live.ending.joined(panic),
            None => watch(household, run, join, None),
        }
        self.tell_end(run, now);
    }

    /// The task of `run` has ended; whether its last words are still to come.
    pub(in crate::supervisor::household) fn joined(&mut self, run: Run, panic: Option<Failure>, now: Duration) -> bool {
        let Some(live) = self.live.get_mut(&run) else { return false };
        live.ending.joined(panic);
        if !live.ending.is_heard() {
            return true;
        }
        self.tell_end(run, now);
        false
    }

    /// All that could be heard of `run` has been heard.
    pub(in crate::supervisor::household) fn flushed(&mut self, run: Run, now: Duration) {
        let Some(live) = self.live.get_mut(&run) else { return };
        if live.ending.is_joined() {
            live.ending.heard(ExitReason::Killed);
            self.tell_end(run, now);
        }
    }

    /// The task of `run` has not ended long after its last words.
    pub(in crate::supervisor::household) fn lingers(&mut self, run: Run, now: Duration) {
        let Some(live) = self.live.get_mut(&run) else { return };
        if let Some(reason) = live.ending.lingers() {
            self.rules.exited(run, reason, Gone::Lingers, now);
        }
    }

    /// The nested supervisor of `run` has ended; its stragglers may live on. Answers it when its report is of no use here.
    pub(in crate::supervisor::household) fn nested_over(
        &mut self,
        run: Run,
        report: &ShutdownReport,
        now: Duration,
    ) -> Option<Arc<dyn Nested>> {
        let live = self.live.get_mut(&run)?;
        let mut unwanted = None;
        live.ending.reported(report.kill_timed_out().next().is_some());
        if self.own_end.has_begun() {
            if let Some(rules) = self.rules.key_of_run(run).and_then(|key| self.rules.rules_of(key)) {
                let id = rules.id.clone();
                self.own_end.merge(&id, report);
            }
        } else {
            unwanted = live.nested.clone();
        }
        self.tell_end(run, now);
        unwanted
    }

    /// Tells the rules what is known by now of the end of `run`.
    fn tell_end(&mut self, run: Run, now: Duration) {
        let Some(live) = self.live.get_mut(&run) else { return };
        let Some(end) = live.ending.news() else { return };
        if live.ending.is_joined()
            && let Some(live) = self.live.remove(&run)
        {
            self.actors.remove(&live.actor.get_id());
            self.parting = Some((run, live.actor.get_id(), live.message_at_kill()));
            self.garbage.push(Box::new(live));
        }
        match end {
            End::Exited(reason, gone) => self.rules.exited(run, reason, gone, now),
            End::Ended => self.rules.ended(run, now),
        }
    }
}

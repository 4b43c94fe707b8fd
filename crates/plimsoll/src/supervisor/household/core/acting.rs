//! What the rules decided is done: actors and tasks, waiting callers, the log and the report.

use std::sync::Arc;

use super::{Core, Household, Reply, Spec};
use crate::supervisor::child::ChildRef;
use crate::supervisor::child_spec::ChildSpec;
use crate::supervisor::frame::Crew;
use crate::supervisor::log;
use crate::supervisor::rules::{Action, Answer, Key, Note, Refusal, Run, StartFailure, Ticket};
use crate::supervisor::shutdown_report::{StopFailure, StopFailureKind};

impl Core {
    /// Performs what the rules decided, and what they decide upon that.
    pub(in crate::supervisor::household) fn perform(&mut self, household: &Arc<Household>) {
        while let Some(action) = self.rules.next_action() {
            match action {
                Action::Start { key, run } => self.start(household, key, run),
                Action::CancelStart { run } => {
                    if let Some(start) = self.starts.get_mut(&run) {
                        start.abort();
                        if !start.begun {
                            self.starts.remove(&run);
                            self.rules.start_failed(run, StartFailure::Cancelled, household.frame().now());
                        }
                    }
                }
                Action::Ask { run } => self.ask_to_stop(household, run),
                Action::Kill { run } => self.kill(household, run),
                Action::Take { key, ticket } => {
                    if let Some(ChildSpec { settings, start }) = self.offered.remove(&ticket) {
                        self.specs.insert(key, Spec { settings, start: Some(start) });
                    }
                }
                Action::Booted => {
                    log::started(&household.frame().name);
                    self.told_boot(Ok(()));
                }
                Action::Answer { ticket, answer } => self.answer(ticket, answer),
                Action::Forget { key } => {
                    if let Some(Spec { start: Some(start), .. }) = self.specs.remove(&key) {
                        self.garbage.push(Box::new(start));
                    }
                }
                Action::Note(note) => self.note(household, note),
                Action::Finish { exit } => self.own_end.finish(exit),
            }
        }
        if !self.own_end.has_begun() && self.rules.is_closing() {
            self.own_end.begin(household.frame().now());
        }
    }

    fn answer(&mut self, ticket: Ticket, answer: Answer) {
        if let Some(offer) = self.offered.remove(&ticket) {
            self.garbage.push(Box::new(offer));
        }
        let Some(waiting) = self.tickets.remove(&ticket) else { return };
        let child = |run: Run| {
            let live = self.live.get(&run)?;
            Some(ChildRef { actor: live.actor.clone(), value: live.value.clone() })
        };
        let reply = match answer {
            Answer::Started { run } => child(run).map(Reply::Started),
            Answer::Failed(Refusal::AlreadyStarted { run }) => child(run).map(Reply::AlreadyStarted),
            Answer::Ignored => Some(Reply::Ignored),
            Answer::Done => Some(Reply::Done),
            Answer::Failed(refusal) => Some(Reply::Refused(refusal)),
        };
        let reply = reply.unwrap_or(Reply::Refused(Refusal::NotFound));
        if let Err(unheard) = waiting.send(reply) {
            self.garbage.push(Box::new(unheard));
        }
    }

    fn note(&mut self, household: &Arc<Household>, note: Note) {
        let id = |key: Key| self.specs.get(&key).map(|spec| spec.settings.id.clone()).unwrap_or_else(|| "".into());
        match note {
            Note::Ended { key, reason, restarting } => {
                self.restarts += u64::from(restarting);
                let id = id(key);
                self.log.ended(&household.frame().name, &id, &reason, restarting, household.frame().now());
            }
            Note::RestartFailed { key, reason } => {
                let id = id(key);
                self.log.restart_failed(&household.frame().name, &id, &reason, household.frame().now());
            }
            Note::GaveUp { key } => log::gave_up(&household.frame().name, &id(key)),
            Note::AutoShutdown { key } => log::auto_shutdown(&household.frame().name, &id(key)),
            Note::StopFailed { key, run, kind, closing, waited } => {
                let parting = self.parting.take().filter(|(gone, ..)| *gone == run);
                let who = parting.map(|(_, actor, current_message)| (actor, current_message));
                let who = who.or_else(|| self.live.get(&run).map(|live| (live.actor.get_id(), live.message_at_kill())));
                let (actor, current_message) = who.unzip();
                let current_message = current_message.flatten().filter(|_| !matches!(kind, StopFailureKind::Ended(_)));
                let failure = StopFailure { path: vec![id(key)], actor, kind, waited, current_message };
                self.own_end.stop_failed(&household.frame().name, failure, closing);
            }
        }
    }
}

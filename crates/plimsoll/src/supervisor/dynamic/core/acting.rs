//! What the rules decided is done: actors and tasks, waiting callers, the log and the report.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_sync::slots::SlotKey;
use ractor::ActorCell;

use super::{Core, Dynamic};
use crate::supervisor::dynamic::errands::Errand;
use crate::supervisor::log;
use crate::supervisor::rules::{DynamicAction as Action, StartFailure};
use crate::supervisor::shutdown_report::{StopFailure, StopFailureKind};

impl<A: Send + 'static> Core<A> {
    /// Performs what the rules decided, and what they decide upon that.
    pub(in crate::supervisor::dynamic) fn perform(&mut self, crew: &Arc<Dynamic<A>>) {
        loop {
            // First what is decided already: one that is gone must not be asked to stop.
            while let Some(action) = self.rules.next_action() {
                self.act(crew, action);
            }
            if !self.rules.must_stop_all() {
                break;
            }
            let running = self.running();
            self.rules.stop_all(running, crew.frame.now());
        }
        if !self.own_end.has_begun() && self.rules.is_closing() {
            self.own_end.begin(crew.frame.now());
            crew.closing.cancel();
        }
    }

    fn act(&mut self, crew: &Arc<Dynamic<A>>, action: Action) {
        match action {
            Action::Start(key) => self.start(crew, key),
            Action::CancelStart(key) => {
                if let Some(start) = self.starts.get_mut(&key) {
                    start.abort();
                    if !start.begun {
                        self.starts.remove(&key);
                        self.rules.restart_failed(key, StartFailure::Cancelled, crew.frame.now());
                    }
                }
            }
            Action::Ask(key) => self.ask_to_stop(crew, key),
            Action::Kill(key) => self.kill_child(crew, key),
            Action::Answer { ticket, refusal } => {
                if let Some(waiting) = self.tickets.remove(&ticket) {
                    self.errands.push(Errand::Answer(waiting, refusal));
                }
            }
            Action::Free(key) => self.free(key),
            Action::Ended { key, reason, restarting } => {
                self.counts.restarts += u64::from(restarting);
                if reason.is_failure() {
                    // Folded together: the children are of one kind.
                    let name = crew.frame.name.clone();
                    self.log.ended(&name, &name, &reason, restarting, crew.frame.now());
                } else {
                    log::ended_quietly(&crew.frame.name, &self.name(key), &reason, restarting);
                }
            }
            Action::RestartFailed { failure, .. } => {
                let name = crew.frame.name.clone();
                self.log.restart_failed(&name, &name, &failure.to_string(), crew.frame.now());
            }
            Action::GaveUp => log::gave_up(&crew.frame.name, &crew.frame.name),
            Action::AutoShutdown(key) => log::auto_shutdown(&crew.frame.name, &self.name(key)),
            Action::StopFailed { key, kind, closing, waited } => self.stop_failed(crew, key, kind, closing, waited),
            Action::Finish(exit) => self.own_end.finish(exit),
        }
    }

    fn name(&self, key: SlotKey) -> Arc<str> {
        let actor = self.slots.get(key).and_then(|slot| slot.actor.as_ref());
        actor.map(|actor| actor.get_id().to_string()).unwrap_or_default().into()
    }

    fn stop_failed(
        &mut self,
        crew: &Arc<Dynamic<A>>,
        key: SlotKey,
        kind: StopFailureKind,
        closing: bool,
        waited: Duration,
    ) {
        let slot = self.slots.get(key);
        let actor = slot.and_then(|slot| slot.actor.as_ref()).map(ActorCell::get_id);
        let more = slot.and_then(|slot| slot.more.as_ref()).filter(|_| !matches!(kind, StopFailureKind::Ended(_)));
        let current_message = more.and_then(|more| more.message_at_kill());
        let failure = StopFailure { path: vec![self.name(key)], actor, kind, waited, current_message };
        self.own_end.stop_failed(&crew.frame.name, failure, closing);
    }
}

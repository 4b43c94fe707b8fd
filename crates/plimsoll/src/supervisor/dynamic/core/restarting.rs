//! Restarts: their tasks, and what is told of them.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use plimsoll_sync::slots::SlotKey;

use super::{Core, Dynamic};
use crate::supervisor::child::Child;
use crate::supervisor::child_spec::placed;
use crate::supervisor::frame::{StartTask, discard, guarded};
use crate::supervisor::rules::StartFailure;
use crate::supervisor::start;

impl<A: Send + 'static> Core<A> {
    pub(super) fn start(&mut self, crew: &Arc<Dynamic<A>>, key: SlotKey) {
        let Some(keep) = crew.keep else { return };
        let Some(args) = self.slots.get(key).and_then(|slot| slot.args.as_ref()) else { return };
        let args = match guarded(|| keep(args)) {
            Ok(args) => args,
            Err(failure) => {
                return self.rules.restart_failed(key, StartFailure::Failed(failure), crew.frame.now());
            }
        };
        let start = crew.frame.runtime.spawn(starting(crew.clone(), key, args));
        self.starts.insert(key, StartTask::new(start.abort_handle()));
    }

    /// The task of a restart runs for the first time; whether it is still wanted.
    fn start_begins(&mut self, key: SlotKey) -> bool {
        let start = self.starts.get_mut(&key);
        start.map(|start| start.begun = true).is_some()
    }

    /// A restart is over.
    fn start_over(
        &mut self,
        crew: &Arc<Dynamic<A>>,
        key: SlotKey,
        outcome: Result<Option<Child>, StartFailure>,
        now: Duration,
    ) {
        self.starts.remove(&key);
        match outcome {
            Ok(Some(child)) => {
                let nested = child.nested.is_some();
                let early = self.adopt(crew, key, child, now);
                if let Some(slot) = self.slots.get_mut(key) {
                    slot.more().restarts += 1;
                }
                self.rules.restarted(key, nested, now);
                if let Some((actor, heard)) = early {
                    self.heard_early(crew, actor, heard, now);
                }
            }
            Ok(None) => self.rules.ignored(key),
            Err(failure) => self.rules.restart_failed(key, failure, now),
        }
        self.forget_early();
    }
}

/// The task of one restart.
async fn starting<A: Send + 'static>(crew: Arc<Dynamic<A>>, key: SlotKey, args: A) {
    if !crew.tell(|core, _| core.start_begins(key)) {
        return;
    }
    let mut untold = Untold { crew, key, loose: AtomicBool::new(false), told: false };
    let crew = &untold.crew;
    let template = &crew.template;
    let (anchor, limit) = (crew.frame.anchor(), crew.settings.start_timeout);
    // After that, to be dropped before it: what is given up has to be gone when it is told.
    let mut place = None;
    let start = |parent| {
        template(parent, args, &mut place);
        placed(&mut place)
    };
    let outcome = start::attempt(start, anchor, limit, &untold.loose).await;
    discard(place.take());
    let orphans = crew.orphans(&untold.loose);
    if !orphans.is_empty() {
        start::end(orphans, crew.frame.kill_timeout).await;
    }
    untold.told = true;
    untold.crew.tell(|core, now| core.start_over(&untold.crew, key, outcome, now));
}

/// Tells that a restart was given up, when it was. Made when its task first runs: one that is dropped before may be
/// dropped under the lock.
struct Untold<A: Send + 'static> {
    crew: Arc<Dynamic<A>>,
    key: SlotKey,
    /// The start may have left an actor that runs.
    loose: AtomicBool,
    told: bool,
}

impl<A: Send + 'static> Drop for Untold<A> {
    fn drop(&mut self) {
        if self.told {
            return;
        }
        let (crew, key) = (self.crew.clone(), self.key);
        let orphans = crew.orphans(&self.loose);
        let tell = move || {
            crew.tell(|core, now| core.start_over(&crew, key, Err(StartFailure::Cancelled), now));
        };
        if orphans.is_empty() {
            return tell();
        }
        let limit = self.crew.frame.kill_timeout;
        self.crew.frame.runtime.spawn(async move {
            start::end(orphans, limit).await;
            tell();
        });
    }
}

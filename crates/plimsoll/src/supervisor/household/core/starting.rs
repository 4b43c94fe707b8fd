//! Starts: their tasks, and what is told of them.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use ractor::ActorCell;

use super::{Core, Household};
use crate::supervisor::child::Child;
use crate::supervisor::child_spec::{StartBox, StartFn, placed};
use crate::supervisor::frame::{Crew, StartTask, discard};
use crate::supervisor::options::Restart;
use crate::supervisor::rules::{Key, Run, StartFailure};
use crate::supervisor::start;

/// A start in a restart that takes longer does not hold up operations any more.
const BRISK: Duration = Duration::from_millis(1);

/// A start that is to be performed.
pub(in crate::supervisor::household) struct NextStart {
    pub(super) run: Run,
    start: StartFn,
    limit: Option<Duration>,
}

impl Core {
    pub(super) fn start(&mut self, household: &Arc<Household>, key: Key, run: Run) {
        let Some(spec) = self.specs.get_mut(&key) else { return };
        let temporary = spec.settings.restart == Restart::Temporary;
        let start = if temporary { spec.start.take() } else { spec.start.clone() };
        let Some(start) = start else { return };
        let next = NextStart { run, start, limit: spec.settings.start_timeout };
        let start = match self.free.take() {
            Some(task) => {
                self.next = Some(next);
                StartTask { begun: true, ..StartTask::new(task) }
            }
            None => StartTask::new(household.frame().runtime.spawn(starting(household.clone(), next)).abort_handle()),
        };
        self.starts.insert(run, start);
    }

    /// What the task whose start is over performs next.
    pub(in crate::supervisor::household) fn next_start(&mut self) -> Option<NextStart> {
        self.free = None;
        self.next.take()
    }

    /// The task of a start runs for the first time; whether it is still wanted.
    fn start_begins(&mut self, run: Run) -> bool {
        let start = self.starts.get_mut(&run);
        start.map(|start| start.begun = true).is_some()
    }

    /// A start is over.
    pub(in crate::supervisor::household) fn start_over(
        &mut self,
        household: &Arc<Household>,
        run: Run,
        outcome: Result<Option<Child>, StartFailure>,
        now: Duration,
    ) {
        // The task of one start performs the next, unless it was told to end.
        self.free = self.starts.remove(&run).filter(|start| !start.aborted).map(|start| start.task);
        match outcome {
            Ok(Some(child)) => self.adopt(household, run, child, now),
            Ok(None) => self.rules.ignored(run, now),
            Err(why) => self.rules.start_failed(run, why, now),
        }
        if self.starts.is_empty() && !self.early.is_empty() {
            self.garbage.push(Box::new(std::mem::take(&mut self.early)));
        }
    }

    /// What the only start under way linked to the supervisor before it failed or was given up. With others under way
    /// nobody can tell whose it is: the last of them that fails takes it along.
    fn orphans(&self, household: &Household) -> Vec<ActorCell> {
        if self.starts.len() > 1 {
            return Vec::new();
        }
        let unknown = |actor: &ActorCell| {
            let id = actor.get_id();
            id.pid() > self.newest && !self.actors.contains_key(&id)
        };
        household.frame().anchor().get_children().into_iter().filter(unknown).collect()
    }
}

/// The task of one start, and of those that follow from it one after the other.
async fn starting(household: Arc<Household>, first: NextStart) {
    if !household.tell(|core, _| core.start_begins(first.run)) {
        return;
    }
    let mut next = (Some(first), None);
    while let (Some(start), used) = next {
        next = perform_start(&household, start, used).await;
    }
}

/// Performs one start and tells of it. Answers the next, and the box of this one for it.
async fn perform_start(
    household: &Arc<Household>,
    NextStart { run, start, limit }: NextStart,
    used: Option<StartBox>,
) -> (Option<NextStart>, Option<StartBox>) {
    let mut untold = Untold { household: household.clone(), run, loose: AtomicBool::new(false), told: false };
    // After that, to be dropped before it: what is given up has to be gone when it is told.
    let mut place = used;
    // A long row of quick starts lets others have their turn, too.
    tokio::task::coop::consume_budget().await;
    let outcome = {
        let anchor = untold.household.frame().anchor();
        let mut attempt = pin!(start::attempt(
            |parent| {
                start(parent, &mut place);
                placed(&mut place)
            },
            anchor,
            limit,
            &untold.loose,
        ));
        // Most starts are over at the first poll, which costs no timer.
        match futures::poll!(&mut attempt) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => match tokio::time::timeout(BRISK, &mut attempt).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    untold.household.tell(|core, now| core.rules.start_is_slow(run, now));
                    attempt.await
                }
            },
        }
    };
    drop(start);
    if outcome.is_err() {
        discard(place.take());
    }
    let orphans = untold.orphans();
    if !orphans.is_empty() {
        start::end(orphans, untold.household.frame().kill_timeout).await;
    }
    untold.told = true;
    (household.start_over(run, outcome), place)
}

/// Tells that a start was given up, when it was. Made when its task first runs: one that is dropped before may be dropped
/// under the lock.
struct Untold {
    household: Arc<Household>,
    run: Run,
    /// The start may have left an actor that runs.
    loose: AtomicBool,
    told: bool,
}

impl Untold {
    fn orphans(&self) -> Vec<ActorCell> {
        if !self.loose.load(Ordering::Relaxed) {
            return Vec::new();
        }
        self.household.look(|core| core.orphans(&self.household))
    }
}

impl Drop for Untold {
    fn drop(&mut self) {
        if self.told {
            return;
        }
        let (household, run) = (self.household.clone(), self.run);
        let orphans = self.orphans();
        let tell = move || {
            household.tell(|core, now| core.start_over(&household, run, Err(StartFailure::Cancelled), now));
        };
        if orphans.is_empty() {
            return tell();
        }
        let limit = self.household.frame().kill_timeout;
        self.household.frame().runtime.spawn(async move {
            start::end(orphans, limit).await;
            tell();
        });
    }
}

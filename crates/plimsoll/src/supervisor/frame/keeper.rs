//! The keeper: waits for timers and for the end, and sees the tree out.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ractor::concurrency::JoinHandle;
use ractor::{Actor, ActorCell};
use tokio::time::Instant;

use super::actors::{Anchor, Face};
use super::lookout::{Lookout, PATIENCE};
use super::{ANCHORS, Crew, Rest};
use crate::supervisor::error::StartError;
use crate::supervisor::log;
use crate::supervisor::shutdown_report::ShutdownReport;

/// Gives a crew its face, anchor and keeper, and then starts what it starts with. Answers the handle of the keeper, which
/// ends after everything else.
pub(crate) async fn launch<C: Crew>(
    crew: &Arc<C>,
    parent: Option<ActorCell>,
    boot: impl Future<Output = Result<(), StartError>>,
) -> Result<JoinHandle<()>, StartError> {
    let spawned = match parent {
        None => Face::spawn(None, Face(crew.clone()), ()).await,
        Some(parent) => Face::spawn_linked(None, Face(crew.clone()), (), parent).await,
    };
    let (face, face_ended) = spawned.map_err(|_| StartError::ShuttingDown)?;
    // From here on the face's end is the tree's: if this future is dropped, everything goes.
    let mut undo = Undo(Some(face.get_cell()));
    let anchor = Anchor::spawn_linked(None, Anchor(crew.clone()), (), face.get_cell()).await;
    let (anchor, anchor_ended) = anchor.map_err(|_| StartError::ShuttingDown)?;
    crew.frame().use_anchor(0, Some(anchor.get_cell()));
    let keeper = Keeper {
        crew: crew.clone(),
        face_ended: Some(face_ended),
        anchors_ended: [Some(anchor_ended), None, None, None],
        lookout: Lookout::Idle,
    };
    let ended = crew.frame().runtime.spawn(keeper.run());
    let outcome = boot.await;
    if outcome.is_err() {
        crew.frame().ended().await;
    }
    undo.0 = None;
    outcome.map(|()| ended)
}

/// Kills the half-started tree when its start is dropped.
struct Undo(Option<ActorCell>);

impl Drop for Undo {
    fn drop(&mut self) {
        if let Some(face) = &self.0 {
            face.kill();
        }
    }
}

struct Keeper<C: Crew> {
    crew: Arc<C>,
    face_ended: Option<JoinHandle<()>>,
    anchors_ended: [Option<JoinHandle<()>>; ANCHORS],
    lookout: Lookout,
}

impl<C: Crew> Keeper<C> {
    async fn run(mut self) {
        self.keep().await;
        self.see_out().await;
        // Whoever starts this supervisor again waits for this task, and so for the last straggler.
        while self.crew.anything_left() {
            self.crew.frame().wake.notified().await;
        }
    }

    /// Serves timers until nothing runs any more.
    async fn keep(&mut self) {
        while let Rest::Until(until) = self.crew.rest() {
            let frame = self.crew.frame();
            let until = until.map(|until| frame.epoch + until).into_iter().chain(self.lookout.at()).min();
            let timer = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = frame.wake.notified() => {}
                () = timer => self.crew.tick(),
                () = ended(&mut self.face_ended) => self.crew.kill(),
                () = ended(&mut self.anchors_ended[frame.current_anchor()]) => self.crew.deaf(),
            }
            if self.lookout.look(&*self.crew, Instant::now()) {
                self.replace_anchor().await;
            }
        }
    }

    /// The anchor gets no turn: another takes its place.
    async fn replace_anchor(&mut self) {
        let frame = self.crew.frame();
        let next = (frame.current_anchor() + 1) % ANCHORS;
        log::stuck(&frame.name);
        if frame.anchors[next].get().is_some() {
            // All have been: the oldest may get its turns again.
            frame.use_anchor(next, None);
        } else {
            let face = frame.face().clone();
            let Ok((anchor, ended)) = Anchor::spawn_linked(None, Anchor(self.crew.clone()), (), face).await else {
                return;
            };
            self.anchors_ended[next] = Some(ended);
            self.crew.frame().use_anchor(next, Some(anchor.get_cell()));
        }
        self.crew.relink();
    }

    /// Ends face and anchor, then tells the report.
    async fn see_out(&mut self) {
        let frame = self.crew.frame();
        let (report, told) = self.crew.conclude();
        frame.idle.cancel();
        frame.face().stop(Some("shutdown".to_owned()));
        gone(&mut self.face_ended, frame.kill_timeout).await;
        frame.anchors.iter().filter_map(OnceLock::get).for_each(|anchor| anchor.stop(None));
        gone(&mut self.anchors_ended[frame.current_anchor()], frame.kill_timeout).await;
        // Those left behind end unheard from now on: their tasks are waited for.
        self.crew.deaf();
        log::over(&report);
        let _ = frame.report.set(Arc::new(report));
        frame.over.cancel();
        if !told && !frame.has_parent {
            frame.observe();
        }
    }
}

impl<C: Crew> Drop for Keeper<C> {
    // Reached before the end only when the runtime goes: whatever is there is told to go, too.
    fn drop(&mut self) {
        let frame = self.crew.frame();
        self.crew.abandon();
        frame.idle.cancel();
        if !frame.over.is_cancelled() {
            let _ = frame.report.set(Arc::new(ShutdownReport::cut_short(frame.name.clone())));
            frame.over.cancel();
        }
    }
}

/// Ready once the task has ended; never again after that.
async fn ended(task: &mut Option<JoinHandle<()>>) {
    match task {
        Some(handle) => {
            let _ = handle.await;
            *task = None;
        }
        None => std::future::pending().await,
    }
}

/// Waits for the end of a task that may wait behind a thread that is blocked.
async fn gone(task: &mut Option<JoinHandle<()>>, limit: Duration) {
    if task.is_some() {
        let _ = tokio::time::timeout(limit.max(PATIENCE), ended(task)).await;
    }
}

//! The keeper: waits for timers and for the end, and sees the tree out.

use std::sync::Arc;

use ractor::concurrency::JoinHandle;
use ractor::{Actor, ActorCell};
use tokio::sync::oneshot;

use super::actors::{Anchor, Face};
use super::{Household, Launch};
use crate::supervisor::child::Nested;
use crate::supervisor::error::StartError;
use crate::supervisor::handle::SupervisorRef;
use crate::supervisor::report::ShutdownReport;
use crate::supervisor::rules::Exit;

/// Starts a supervisor; answers when its children run, with the handle of its keeper, which ends after everything else.
pub(crate) async fn launch(
    launch: Launch,
    parent: Option<ActorCell>,
) -> Result<(SupervisorRef, JoinHandle<()>), StartError> {
    let Launch { name, flags, children, observer } = launch;
    let household = Arc::new(Household::new(name, flags, observer, parent.is_some()));
    let spawned = |error: ractor::SpawnErr| StartError::failed(error.to_string());

    let face = Face { household: household.clone() };
    let (face, face_ended) = match parent {
        None => Face::spawn(None, face, ()).await.map_err(spawned)?,
        Some(parent) => Face::spawn_linked(None, face, (), parent).await.map_err(|_| StartError::ShuttingDown)?,
    };
    // From here on the face's end is the tree's: if this future is dropped, everything goes.
    let undo = Undo(Some(face.get_cell()));
    let anchor = Anchor { household: household.clone() };
    let (_, anchor_ended) =
        Anchor::spawn_linked(None, anchor, (), face.get_cell()).await.map_err(|_| StartError::ShuttingDown)?;
    let keeper =
        Keeper { household: household.clone(), face_ended: Some(face_ended), anchor_ended: Some(anchor_ended) };
    let ended = tokio::spawn(keeper.run());
    let (told, booted) = oneshot::channel();
    household.tell(|core, now| core.boot(children, now, told));
    let outcome = booted.await.unwrap_or(Err(StartError::ShuttingDown));
    if let Err(error) = outcome {
        household.ended().await;
        undo.disarm();
        return Err(error);
    }
    undo.disarm();
    Ok((SupervisorRef::new(household), ended))
}

/// Kills the half-started tree when its start is dropped.
struct Undo(Option<ActorCell>);

impl Undo {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if let Some(face) = &self.0 {
            face.kill();
        }
    }
}

struct Keeper {
    household: Arc<Household>,
    face_ended: Option<JoinHandle<()>>,
    anchor_ended: Option<JoinHandle<()>>,
}

impl Keeper {
    async fn run(mut self) {
        let exit = self.keep().await;
        let household = self.household.clone();
        let (report, told) = household.tell(|core, now| core.conclude(&household, &exit, now));
        self.see_out(report, told).await;
        // Whoever starts this supervisor again waits for this task, and so for the last straggler.
        while household.look(|core| core.anything_left()) {
            household.wake.notified().await;
        }
    }

    /// Serves timers until nothing runs any more.
    async fn keep(&mut self) -> Exit {
        let household = self.household.clone();
        loop {
            let (exit, until) = household.tell(|core, _| (core.take_exit(), core.keeper_sleeps()));
            if let Some(exit) = exit {
                return exit;
            }
            let timer = async {
                match until {
                    Some(until) => tokio::time::sleep_until(household.epoch + until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = household.wake.notified() => {}
                () = timer => household.tell(|core, now| core.rules.tick(now)),
                () = ended(&mut self.face_ended) => household.tell(|core, now| core.rules.kill(now)),
                () = ended(&mut self.anchor_ended) => household.tell(|core, now| core.deaf(&household, now)),
            }
        }
    }

    /// Ends face and anchor, then tells the report.
    async fn see_out(&mut self, report: ShutdownReport, told: bool) {
        let household = &self.household;
        household.idle.cancel();
        household.face().stop(Some("shutdown".to_owned()));
        ended_if_any(&mut self.face_ended).await;
        household.anchor().stop(None);
        ended_if_any(&mut self.anchor_ended).await;
        household.look(|core| core.log.over(&report));
        let nested = household.has_parent;
        let _ = household.report.set(Arc::new(report));
        household.over.cancel();
        if !told && !nested {
            household.observe();
        }
    }
}

impl Drop for Keeper {
    // Reached with something left only when the runtime goes: whatever is there is told to go, too.
    fn drop(&mut self) {
        self.household.kill_everything();
        self.household.idle.cancel();
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

async fn ended_if_any(task: &mut Option<JoinHandle<()>>) {
    if task.is_some() {
        ended(task).await;
    }
}

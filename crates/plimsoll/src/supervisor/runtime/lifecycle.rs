//! The lifecycle task: starts the actors, waits for timers and for the end, and writes the report.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ractor::concurrency::JoinHandle;
use ractor::{Actor, ActorCell};
use tokio::time::Instant;

use super::actors::{ChildMonitor, SupervisorActor};
use super::child::ChildTable;
use super::deadlock::Boot;
use super::monitor_check::{MonitorCheck, PATIENCE, ReplacedMonitor};
use super::{Runtime, RuntimeOf};
use crate::supervisor::error::StartError;
use crate::supervisor::event::SupervisorEvent;
use crate::supervisor::log::Line;
use crate::supervisor::shutdown_report::ShutdownReport;
use crate::supervisor::state::{Event, SupervisorState};

/// Receives the report of a supervisor when no caller of `stop` does.
pub(crate) type Observer = Arc<dyn Fn(&ShutdownReport) + Send + Sync>;

/// The longest time the lifecycle task sleeps at once: a timer may be set for longer than the clock can count.
const LONGEST_SLEEP: Duration = Duration::from_secs(24 * 3_600);

impl<T: ChildTable> Runtime<T::State, T> {
    /// Starts the two actors and the lifecycle task, then what `boot` starts. Returns the handle of the lifecycle task,
    /// which ends after everything else.
    pub(super) async fn launch(
        self: &Arc<Self>,
        parent: Option<ActorCell>,
        boot: impl Future<Output = Result<(), StartError>>,
    ) -> Result<JoinHandle<()>, StartError> {
        let _boot = parent.is_some().then(|| Boot::begin(self.clone()));
        let spawned = match parent {
            None => SupervisorActor::spawn(None, SupervisorActor(self.clone()), ()).await,
            Some(parent) => SupervisorActor::spawn_linked(None, SupervisorActor(self.clone()), (), parent).await,
        };
        let (actor, actor_task) = spawned.map_err(|_| StartError::ShuttingDown)?;
        // From here on the actor's end is the supervisor's: if this future is dropped, everything ends.
        let mut undo = KillOnDrop(Some(actor.get_cell()));
        let monitor = ChildMonitor::spawn_linked(None, ChildMonitor(self.clone()), (), actor.get_cell()).await;
        let (monitor, monitor_task) = monitor.map_err(|_| StartError::ShuttingDown)?;
        self.monitor.store(Some(Arc::new(monitor.get_cell())));
        let lifecycle = Lifecycle {
            runtime: self.clone(),
            actor_task: Some(actor_task),
            monitor_task: Some(monitor_task),
            replaced: Vec::new(),
            check: MonitorCheck::Idle,
        };
        let task = self.tokio.spawn(lifecycle.run());
        let booted = boot.await;
        if booted.is_err() {
            self.wait().await;
        }
        undo.0 = None;
        booted.map(|()| task)
    }
}

/// Kills the half-started supervisor when its start is dropped.
struct KillOnDrop(Option<ActorCell>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(actor) = &self.0 {
            actor.kill();
        }
    }
}

struct Lifecycle<T: ChildTable> {
    runtime: Arc<RuntimeOf<T>>,
    actor_task: Option<JoinHandle<()>>,
    monitor_task: Option<JoinHandle<()>>,
    replaced: Vec<ReplacedMonitor>,
    check: MonitorCheck,
}

impl<T: ChildTable> Lifecycle<T> {
    async fn run(mut self) {
        self.serve().await;
        self.conclude().await;
        // A parent that restarts this supervisor waits for this task, and so for the last child that was abandoned.
        while self.runtime.read(|inner| inner.anything_left()) {
            self.runtime.wake.notified().await;
        }
    }

    /// Serves timers until nothing runs any more.
    async fn serve(&mut self) {
        while let Some(until) = self.next_wake() {
            let runtime = &self.runtime;
            let timer = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = runtime.wake.notified() => {}
                () = timer => runtime.apply(Event::Tick),
                () = ended(&mut self.actor_task) => runtime.apply(Event::Kill),
                () = ended(&mut self.monitor_task) => runtime.monitor_lost(),
            }
            if self.check.advance(&self.runtime, Instant::now()) {
                self.replace_monitor().await;
            }
            self.replaced.retain_mut(|replaced| !replaced.retire(&self.runtime));
        }
    }

    /// Until when to sleep, none inside for as long as nothing happens; `None` when the supervisor has ended.
    fn next_wake(&self) -> Option<Option<Instant>> {
        let mut inner = self.runtime.inner.lock();
        inner.sleeps_until = inner.state.deadline();
        if inner.own_exit.is_over() {
            return None;
        }
        let timer = inner.sleeps_until.map(|until| {
            let longest = Instant::now() + LONGEST_SLEEP;
            self.runtime.epoch.checked_add(until).unwrap_or(longest).min(longest)
        });
        Some(timer.into_iter().chain(self.check.at()).min())
    }

    async fn replace_monitor(&mut self) {
        if let Some((task, replaced)) = self.runtime.replace_monitor().await {
            self.monitor_task = Some(task);
            self.replaced.push(ReplacedMonitor::new(replaced));
        }
    }

    /// Ends the actors, then announces the report.
    async fn conclude(&mut self) {
        let runtime = &self.runtime;
        let (report, caller_receives_it) = runtime
            .update(|inner, now| Some(inner.conclude(&runtime.name, now)))
            .unwrap_or_else(|| (ShutdownReport::cut_short(runtime.name.clone()), false));
        runtime.nothing_runs.cancel();
        let monitors = runtime.monitors();
        runtime.actor().stop(Some("shutdown".to_owned()));
        ended_within(&mut self.actor_task, runtime.kill_timeout).await;
        monitors.iter().for_each(|monitor| monitor.stop(None));
        ended_within(&mut self.monitor_task, runtime.kill_timeout).await;
        // Exits of abandoned children are not reported from now on: their tasks are waited for.
        runtime.monitor_lost();
        let report = Arc::new(report);
        let ended = SupervisorEvent::Ended { cause: report.cause.clone(), reason: report.reason.clone() };
        runtime.events.push_line(Line::Ended { report: report.clone() }, runtime.now());
        runtime.events.push(ended, runtime.now());
        let _ = runtime.report.set(report);
        runtime.ended.cancel();
        runtime.events.deliver();
        if !caller_receives_it && !runtime.has_parent {
            runtime.observe();
        }
    }
}

impl<T: ChildTable> Drop for Lifecycle<T> {
    // Reached before the end only when the tokio runtime is dropped: whatever is there is ended, too.
    fn drop(&mut self) {
        let runtime = &self.runtime;
        let mut inner = runtime.inner.lock();
        inner.abandon();
        inner.publish_slots();
        let effects = std::mem::take(&mut inner.effects);
        drop(inner);
        effects.run();
        runtime.shutting_down.cancel();
        runtime.nothing_runs.cancel();
        if !runtime.ended.is_cancelled() {
            let _ = runtime.report.set(Arc::new(ShutdownReport::cut_short(runtime.name.clone())));
            runtime.ended.cancel();
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

/// Waits for the end of a task that may wait behind a blocked thread.
async fn ended_within(task: &mut Option<JoinHandle<()>>, limit: Duration) {
    if task.is_some() {
        let _ = tokio::time::timeout(limit.max(PATIENCE), ended(task)).await;
    }
}

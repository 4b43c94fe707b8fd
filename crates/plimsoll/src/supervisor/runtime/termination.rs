//! Ending children: requests to stop, kills, and the exits that follow.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use ractor::concurrency::JoinHandle;
use ractor::{ActorCell, ActorId, ActorStatus};
use tokio::task::JoinError;

use super::actors::ping;
use super::child::{ChildTable, Dropped, ExitEvent, ExitStep, RunOf};
use super::effects::{Effect, Effects};
use super::monitor_check::PATIENCE;
use super::{Inner, Runtime, RuntimeOf};
use crate::exit::{ExitReason, Failure};
use crate::panics::{self, discard};
use crate::supervisor::child::Nested;
use crate::supervisor::event::SupervisorEvent;
use crate::supervisor::options::{Shutdown, StopMode};
use crate::supervisor::shutdown_report::ShutdownReport;
use crate::supervisor::state::{Event, Remains, SupervisorState};

impl<T: ChildTable> Runtime<T::State, T> {
    /// ractor reported the exit of a linked actor.
    pub(super) async fn child_exited(self: &Arc<Self>, actor: ActorId, exit: ExitEvent) {
        let Some(run) = self.update(|inner, now| inner.child_exited(actor, exit, now)) else { return };
        // The task is about to end on another thread. One turn of others is usually enough, and costs less than a task
        // that waits. The handle stays in the table: a kill of the monitor drops this future.
        tokio::task::yield_now().await;
        self.update(|inner, now| inner.await_task(self, run, now));
    }

    /// Waits for the task of `run`, and for what else has to end with it.
    pub(super) fn watch(self: &Arc<Self>, run: RunOf<T>, mut join: JoinHandle<()>, nested: Option<Arc<dyn Nested>>) {
        let runtime = self.clone();
        self.tokio.spawn(async move {
            if let Some(nested) = nested {
                let report = nested.ended().await;
                runtime.nested_ended(run, &report);
            } else {
                match tokio::time::timeout(runtime.kill_timeout, &mut join).await {
                    Ok(ended) => return runtime.task_ended(run, ended.err()).await,
                    Err(_) => runtime.update(|inner, now| inner.task_lingers(run, now)),
                }
            }
            let ended = join.await;
            runtime.task_ended(run, ended.err()).await;
        });
    }

    /// Waits for the task of `run`, however long it takes.
    fn watch_patiently(self: &Arc<Self>, run: RunOf<T>, join: JoinHandle<()>) {
        let runtime = self.clone();
        self.tokio.spawn(async move {
            let ended = join.await;
            runtime.task_ended(run, ended.err()).await;
        });
    }

    async fn task_ended(self: &Arc<Self>, run: RunOf<T>, error: Option<JoinError>) {
        // The payload of a panic is a user's value: it is dropped outside the lock.
        let panic = error.and_then(panic_of).map(|(failure, payload)| {
            discard(payload);
            failure
        });
        if self.update(|inner, now| inner.task_ended(run, panic, now)) {
            self.flush_monitors().await;
            self.update(|inner, now| inner.no_reason_for(run, now));
        }
    }

    /// Waits until every event that was sent before has been handled. A monitor that ends meanwhile drops its ping; one
    /// that cannot run is not waited for longer than a killed child.
    async fn flush_monitors(&self) {
        let pings = self.monitors().iter().map(ping).collect::<Vec<_>>();
        let _ = tokio::time::timeout(self.kill_timeout.max(PATIENCE), futures::future::join_all(pings)).await;
    }

    /// The monitor in use and those that were replaced.
    pub(super) fn monitors(&self) -> Vec<ActorCell> {
        self.actor().get_children()
    }

    fn nested_ended(self: &Arc<Self>, run: RunOf<T>, report: &ShutdownReport) {
        let unreported = self.update(|inner, now| inner.nested_ended(run, report, now));
        if let Some(nested) = unreported {
            nested.observe();
        }
    }

    /// The monitor has ended: no exit will be reported any more, and those that were sent to it are lost.
    pub(super) fn monitor_lost(self: &Arc<Self>) {
        self.update(|inner, now| inner.monitor_lost(self, now));
    }
}

impl<T: ChildTable> Inner<T::State, T> {
    pub(super) fn request_stop(&mut self, runtime: &Arc<RuntimeOf<T>>, run: RunOf<T>) {
        self.watch_if_unlinked(runtime, run);
        let Some(child) = self.table.get_mut(run) else { return };
        // No kill will find out that it unlinked itself in its stop hook: its task is waited for.
        if child.stop.shutdown == Shutdown::Infinity
            && let Some(join) = child.join.take()
        {
            runtime.watch_patiently(run, join);
        }
        child.set_stop_deadline();
        let effect = match (child.token(), child.stop.mode) {
            (Some(token), _) => Effect::Cancel(token.clone()),
            (None, StopMode::Stop) => Effect::Stop(child.actor.clone()),
            (None, StopMode::Drain) => Effect::Drain(child.actor.clone()),
        };
        self.effects.push(effect);
    }

    pub(super) fn kill(&mut self, runtime: &Arc<RuntimeOf<T>>, run: RunOf<T>) {
        self.watch_if_unlinked(runtime, run);
        if let Some(child) = self.table.get_mut(run) {
            child.remember_message();
            child.actor.kill();
        }
    }

    /// The exit of a child that unlinked itself would not be reported: it is monitored, and its task waited for.
    fn watch_if_unlinked(&mut self, runtime: &Arc<RuntimeOf<T>>, run: RunOf<T>) {
        let Some(child) = self.table.get_mut(run) else { return };
        if !runtime.is_linked(&child.actor)
            && let Some(join) = child.join.take()
        {
            runtime.monitor().monitor(child.actor.clone());
            runtime.watch(run, join, None);
        }
    }

    /// ractor reported an exit. Returns the child, when its task is still to be waited for.
    pub(super) fn child_exited(&mut self, actor: ActorId, exit: ExitEvent, now: Duration) -> Option<RunOf<T>> {
        let Some(run) = self.table.find(actor) else {
            if self.is_starting()
                && let Some(oldest) = self.early_exits.push(actor, exit)
            {
                self.effects.push(Effect::Drop(Box::new(oldest)));
            }
            return None;
        };
        let child = self.table.get_mut(run)?;
        let reason = exit.reason(child.task);
        if let Some(join) = &mut child.join {
            let Some(panic) = outcome(join, &mut self.effects) else {
                child.exit().set_reason(reason);
                return Some(run);
            };
            child.join = None;
            self.exited(run, panic.map_or(reason, ExitReason::Failed), Remains::Nothing, now);
            return None;
        }
        child.exit().set_reason(reason);
        self.apply_exit(run, now);
        None
    }

    /// The task of a child whose exit was reported has ended, or it takes longer and is waited for.
    pub(super) fn await_task(&mut self, runtime: &Arc<RuntimeOf<T>>, run: RunOf<T>, now: Duration) {
        let Some(child) = self.table.get_mut(run) else { return };
        // Something waits for it already, where there is no handle.
        let Some(mut join) = child.join.take() else { return };
        match outcome(&mut join, &mut self.effects) {
            Some(panic) => child.exit().joined(panic),
            None => runtime.watch(run, join, None),
        }
        self.apply_exit(run, now);
    }

    /// The task of the child has ended. Returns whether its exit has yet to be reported.
    fn task_ended(&mut self, run: RunOf<T>, panic: Option<Failure>, now: Duration) -> bool {
        let Some(child) = self.table.get_mut(run) else { return false };
        child.exit().joined(panic);
        if !child.exit().has_reason() && !self.monitor_lost {
            return true;
        }
        self.no_reason_for(run, now);
        false
    }

    /// Everything that could be reported of a child whose task has ended was reported: without a reason it was killed.
    fn no_reason_for(&mut self, run: RunOf<T>, now: Duration) {
        let Some(child) = self.table.get_mut(run) else { return };
        if child.exit().is_joined() {
            child.exit().set_reason(ExitReason::Killed);
            self.apply_exit(run, now);
        }
    }

    /// The task of the child has not ended long after its exit.
    fn task_lingers(&mut self, run: RunOf<T>, now: Duration) {
        let Some(child) = self.table.get_mut(run) else { return };
        if let Some(reason) = child.exit().lingers() {
            self.exited(run, reason, Remains::Task, now);
        }
    }

    /// The nested supervisor has ended; children that it abandoned may live on. Returns it when its report is not part of
    /// this supervisor's.
    fn nested_ended(&mut self, run: RunOf<T>, report: &ShutdownReport, now: Duration) -> Option<Arc<dyn Nested>> {
        let name = self.table.name_of_run(run);
        let child = self.table.get_mut(run)?;
        child.exit().reported(report.kill_timed_out().next().is_some());
        let unreported = if self.own_exit.has_begun() {
            self.own_exit.merge(&name, report);
            None
        } else {
            child.nested().cloned()
        };
        self.apply_exit(run, now);
        unreported
    }

    fn monitor_lost(&mut self, runtime: &Arc<RuntimeOf<T>>, now: Duration) {
        self.monitor_lost = true;
        let runs: Vec<_> = self.table.live().map(|(run, _)| run).collect();
        for run in runs {
            let join = self.table.get_mut(run).and_then(|child| child.join.take());
            match join {
                Some(join) => runtime.watch(run, join, None),
                None => self.no_reason_for(run, now),
            }
        }
        self.state.apply(Event::Kill, now);
    }

    /// Passes to the state what is known by now of an exit.
    fn apply_exit(&mut self, run: RunOf<T>, now: Duration) {
        let Some(child) = self.table.get_mut(run) else { return };
        let joined = child.exit().is_joined();
        match child.exit().next_step() {
            Some(ExitStep::Exited(reason, remains)) => self.exited(run, reason, remains, now),
            Some(ExitStep::Ended) => self.state.apply(Event::Ended { run }, now),
            None => return,
        }
        if joined && self.abandoned {
            self.release(run);
        }
    }

    fn exited(&mut self, run: RunOf<T>, reason: ExitReason, remains: Remains, now: Duration) {
        let Some(child) = self.table.get(run) else { return };
        if self.events.is_observed() {
            let (child, actor) = (self.table.name_of_run(run), child.actor.get_id().to_string().into());
            self.events.push(SupervisorEvent::ChildExited { child, actor, reason: reason.clone() }, now);
        }
        let uptime = now.saturating_sub(child.since);
        self.touch(self.table.spec_of(run));
        let others = self.table.len().saturating_sub(1);
        self.state.apply(Event::Exited { run, reason, remains, uptime, others }, now);
        if self.abandoned && remains == Remains::Nothing {
            self.release(run);
        }
    }
}

/// Whether an actor is on its way out: its exit was reported already, or will never be.
pub(super) fn is_exiting(actor: &ActorCell) -> bool {
    actor.get_status() >= ActorStatus::Stopping
}

/// The outcome of a task that may have ended: `None` when it has not, else the panic that ended it, if one did. The payload
/// is dropped outside the lock.
fn outcome(join: &mut JoinHandle<()>, effects: &mut Effects) -> Option<Option<Failure>> {
    if !join.is_finished() {
        return None;
    }
    // A task without budget left is told that the handle is not ready.
    let panic = join.now_or_never()?.err().and_then(panic_of);
    Some(panic.map(|(failure, payload)| {
        effects.push(Effect::Drop(payload));
        failure
    }))
}

/// The panic that ended a task, and its payload.
fn panic_of(error: JoinError) -> Option<(Failure, Dropped)> {
    let task = error.id();
    let payload = error.try_into_panic().ok()?;
    Some((panics::located(panics::message(payload.as_ref()), Some(task)), payload))
}

//! Finds a monitor that cannot run, and replaces it.
//!
//! tokio runs a task that was just woken next on the thread that woke it, and no other thread can take it from there. A
//! child's first poll wakes the monitor, because ractor reports the start; if the child blocks its thread in that same
//! poll, the monitor waits behind it, and no exit of any child is noticed. The child is the user's actor in a task that
//! ractor spawns, so nothing can be put between the report and the blocking; a monitor on a thread of its own would be
//! woken across threads at every start, which costs more than the start itself. So a ping is sent to the monitor a while
//! after something was started. If it is not handled in time, another monitor takes its place and the children are linked
//! to that. The replaced one ends as soon as its thread is free and no start can link to it any more. There is at most one
//! for each blocked thread of the runtime.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ractor::concurrency::JoinHandle;
use ractor::{Actor, ActorCell};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::time::Instant;

use super::actors::{ChildMonitor, ping};
use super::child::ChildTable;
use super::{Inner, Runtime, RuntimeOf};
use crate::supervisor::log;

/// The least time in which a monitor has to handle a ping.
pub(super) const PATIENCE: Duration = Duration::from_millis(50);

/// How far a check is.
pub(super) enum MonitorCheck {
    Idle,
    /// Something was started; a ping is sent then.
    Planned(Instant),
    /// A ping was sent; it has to be handled by then.
    Pinged(oneshot::Receiver<()>, Instant),
}

/// A monitor that was replaced.
pub(super) struct ReplacedMonitor {
    actor: ActorCell,
    /// Resolves when it runs again.
    runs: oneshot::Receiver<()>,
}

impl ReplacedMonitor {
    pub(super) fn new(actor: ActorCell) -> Self {
        Self { runs: ping(&actor), actor }
    }

    /// Ends the monitor if it runs again and nothing is or will be linked to it. Returns whether it did.
    pub(super) fn retire<T: ChildTable>(&mut self, runtime: &RuntimeOf<T>) -> bool {
        let retires = self.runs.try_recv() != Err(TryRecvError::Empty)
            && !runtime.read(Inner::is_starting)
            && self.actor.get_children().is_empty();
        if retires {
            self.actor.stop(None);
        }
        retires
    }
}

impl MonitorCheck {
    /// When to look again.
    pub(super) fn at(&self) -> Option<Instant> {
        match self {
            Self::Idle => None,
            Self::Planned(at) | Self::Pinged(_, at) => Some(*at),
        }
    }

    /// Continues the check; returns whether the monitor has to be replaced.
    pub(super) fn advance<T: ChildTable>(&mut self, runtime: &RuntimeOf<T>, now: Instant) -> bool {
        let patience = runtime.kill_timeout.clamp(PATIENCE, Duration::from_secs(3_600));
        match self {
            Self::Idle => {
                if runtime.take_unchecked() {
                    *self = Self::Planned(now + patience);
                }
            }
            Self::Planned(at) if *at <= now => {
                runtime.take_unchecked();
                *self = Self::Pinged(ping(&runtime.monitor()), now + patience);
            }
            Self::Pinged(reply, at) if *at <= now => {
                let stuck = reply.try_recv() == Err(TryRecvError::Empty);
                // The next monitor is checked as well.
                *self = if stuck { Self::Planned(now + patience) } else { Self::Idle };
                return stuck || self.advance(runtime, now);
            }
            Self::Planned(_) | Self::Pinged(..) => {}
        }
        false
    }
}

impl<T: ChildTable> Runtime<T::State, T> {
    /// Something was started: its first poll may have taken the monitor's turn.
    pub(super) fn plan_monitor_check(&self) {
        // ORDERING: a hint; the lifecycle task looks again at every wake.
        if !self.unchecked.load(Ordering::Relaxed) && !self.unchecked.swap(true, Ordering::Relaxed) {
            self.wake.notify_one();
        }
    }

    /// Whether something was started since the last look.
    fn take_unchecked(&self) -> bool {
        self.unchecked.swap(false, Ordering::Relaxed)
    }

    /// Puts another monitor in the place of one that cannot run. Returns the handle of the new one's task.
    pub(super) async fn replace_monitor(self: &Arc<Self>) -> Option<(JoinHandle<()>, ActorCell)> {
        log::monitor_replaced(&self.name);
        let parent = self.actor().clone();
        let (monitor, task) = ChildMonitor::spawn_linked(None, ChildMonitor(self.clone()), (), parent).await.ok()?;
        // ORDERING: a start that finds the new monitor need not know; one that found the old one is relinked when it is
        // taken into the table, which is after this under the lock that `relink_children` takes.
        self.monitor_replaced.store(true, Ordering::Release);
        let replaced = self.monitor.swap(Some(Arc::new(monitor.get_cell())))?;
        self.update(|inner, _| inner.relink_children(self));
        Some((task, (*replaced).clone()))
    }
}

impl<T: ChildTable> Inner<T::State, T> {
    /// Links all children to the monitor in use. An exit may have been reported to one that cannot run: the tasks of
    /// children that are exiting are waited for.
    fn relink_children(&mut self, runtime: &Arc<RuntimeOf<T>>) {
        let runs: Vec<_> = self.table.live().map(|(run, _)| run).collect();
        for run in runs {
            let Some(child) = self.table.get_mut(run) else { continue };
            runtime.relink(&child.actor);
            let exiting = child.actor.get_status() >= ractor::ActorStatus::Stopping;
            if (exiting || !runtime.is_linked(&child.actor))
                && let Some(join) = child.join.take()
            {
                runtime.watch(run, join, None);
            }
        }
    }
}

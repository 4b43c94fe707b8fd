//! An actor that receives the exits of other actors on behalf of a server.
//!
//! A server's own actor receives events only between two handlers, and none while it drains. This one does nothing else. It
//! is started with the first monitored actor, linked to the server, and ends with it.

use std::future::Future;
use std::sync::OnceLock;

use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, ActorRuntime, ActorStatus, SupervisionEvent};
use tokio::runtime::Handle;

use crate::exit::ExitReason;
use crate::panics;

/// What happens when a monitored actor exits. May be called more than once for one actor; the first call counts.
pub(crate) trait OnExit: Send + Sync + 'static {
    /// `actor` has exited: with `reason`, or before it was monitored.
    fn exited(&self, actor: &ActorCell, reason: Option<ExitReason>) -> impl Future<Output = ()> + Send;
}

/// The monitoring actor of a server, once it is needed.
#[derive(Debug, Default)]
pub(crate) struct ExitMonitor {
    actor: OnceLock<ActorRef<HasExited>>,
}

/// Reports an actor that exited before it was monitored.
#[derive(Debug)]
struct HasExited(ActorCell);

impl ExitMonitor {
    /// Monitors `target` from now on, for the server `owner` that runs in `runtime`.
    pub(crate) fn monitor<H: OnExit>(
        &self,
        runtime: &Handle,
        owner: &ActorCell,
        handler: impl FnOnce() -> H,
        target: &ActorCell,
    ) {
        let monitor = self.actor.get_or_init(|| {
            let _runtime = runtime.enter();
            // Linked here and not by its start, which comes later and fails when the server has begun to stop by then: a
            // draining server still needs its monitor. A link to a stopping server is not made, and `end` does what it
            // would have done.
            match ActorRuntime::spawn_instant(None, MonitorActor(handler()), ()) {
                Ok((monitor, _)) => {
                    monitor.link(owner.clone());
                    monitor
                }
                Err(_) => unreachable!("an actor without a name can always be started"),
            }
        });
        monitor.monitor(target.clone());
        // ractor sends a monitor nothing about an actor that exited before, and may send nothing about one that is
        // stopping. An event that was sent is handled before this message.
        match target.get_status() {
            ActorStatus::Stopped => drop(monitor.send_message(HasExited(target.clone()))),
            ActorStatus::Stopping => {
                let (monitor, target) = (monitor.clone(), target.clone());
                runtime.spawn(async move {
                    target.wait(None).await.ok();
                    drop(monitor.send_message(HasExited(target)));
                });
            }
            _ => {}
        }
    }

    /// No longer monitors `target`.
    pub(crate) fn demonitor(&self, target: &ActorCell) {
        if let Some(monitor) = self.actor.get() {
            monitor.unmonitor(target.clone());
        }
    }

    /// The server has ended: ends the monitor. `targets` are all that are monitored.
    pub(crate) fn end(&self, targets: Vec<ActorCell>) {
        targets.iter().for_each(|target| self.demonitor(target));
        if let Some(monitor) = self.actor.get() {
            monitor.kill();
        }
    }

    /// Whether `exited` was the monitoring actor, without which exits would go unnoticed.
    pub(crate) fn was(&self, exited: ActorId) -> bool {
        self.actor.get().is_some_and(|monitor| monitor.get_id() == exited)
    }
}

struct MonitorActor<H>(H);

impl<H: OnExit> Actor for MonitorActor<H> {
    type Msg = HasExited;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<HasExited>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _: ActorRef<HasExited>,
        HasExited(actor): HasExited,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        self.0.exited(&actor, None).await;
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<HasExited>,
        event: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(actor, _, reason) => {
                self.0.exited(&actor, Some(ExitReason::from_stop(reason.as_deref()))).await;
            }
            SupervisionEvent::ActorFailed(actor, error) => {
                let reason = ExitReason::Failed(panics::error_failure(error.as_ref()));
                self.0.exited(&actor, Some(reason)).await;
            }
            _ => {}
        }
        Ok(())
    }
}

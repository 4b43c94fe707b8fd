//! The actor of a call server: it starts a worker for each call and serves none itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ractor::{Actor, ActorProcessingErr, ActorRef, ActorStatus, SupervisionEvent};
use tokio::time::{Instant, sleep_until};

use super::Service;
use super::deadline::DeadlineTask;
use super::settlement::GRANTED_PATIENCE;
use super::shared::{BegunCall, Next, Notified, Shared};
use super::worker::{self, Worker, WorkerActor};

/// Workers started for one message, before the actor handles anything else.
const BATCH: usize = 64;

pub(crate) struct Router<S: Service> {
    pub(crate) shared: Arc<Shared<S>>,
    pub(crate) worker: Worker,
    pub(crate) serve_queued: bool,
    pub(crate) deadline_task: DeadlineTask,
}

impl<S: Service> Router<S> {
    /// Starts a worker for each of the next calls. Returns whether there may be more.
    async fn route(&self, myself: &ActorRef<Notified>) -> bool {
        for _ in 0..BATCH {
            let Some((Next::Call(call, request), last)) = self.shared.next() else { return false };
            match self.worker {
                Worker::Task => drop(tokio::spawn(worker::task(call, request))),
                // Boxed, because ractor moves a handler's future about for every message, and a start is a large one.
                Worker::Actor => Box::pin(Self::start(call, request, myself)).await,
            }
            if last {
                return false;
            }
        }
        true
    }

    /// A start that fails drops the call, which settles it.
    async fn start(call: BegunCall<S>, request: S::Request, myself: &ActorRef<Notified>) {
        let worker = WorkerActor::new(call, request);
        if myself.get_status() < ActorStatus::Draining {
            let _ = WorkerActor::spawn_linked(None, worker, (), myself.get_cell()).await;
        } else {
            // ractor links nothing to an actor that is stopping. A worker that starts then needs no link: it ends when
            // its call is settled, which the end of this actor does.
            let _ = WorkerActor::spawn(None, worker, ()).await;
        }
    }
}

impl<S: Service> Actor for Router<S> {
    type Msg = Notified;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Notified>, (): ()) -> Result<(), ActorProcessingErr> {
        self.shared.set_actor(myself.clone());
        self.deadline_task.start(&self.shared, myself.get_cell());
        Ok(())
    }

    async fn handle(&self, myself: ActorRef<Notified>, _: Notified, (): &mut ()) -> Result<(), ActorProcessingErr> {
        if self.route(&myself).await {
            self.shared.notify_server();
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Notified>,
        event: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(actor, _) | SupervisionEvent::ActorTerminated(actor, ..)
                if self.shared.caller_monitor.was(actor.get_id()) =>
            {
                Err("the caller monitor has exited".into())
            }
            // Its call has been settled by the worker's own end; a worker's failure is none of the server's.
            SupervisionEvent::ActorFailed(..) => {
                self.shared.gauges.worker_failures.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn post_stop(&self, myself: ActorRef<Notified>, (): &mut ()) -> Result<(), ActorProcessingErr> {
        self.shared.drain(self.serve_queued);
        let end = self.shared.host.stop_deadline.serve_until(Instant::now());
        loop {
            while self.route(&myself).await {}
            if self.shared.is_drained() {
                return Ok(());
            }
            let now = Instant::now();
            let end = end.filter(|end| now < *end);
            // Without workers only callers that have got a permit and do not run are left.
            let idle = self.shared.gauges.workers.load(Ordering::Acquire) == 0;
            let granted = idle.then(|| now + GRANTED_PATIENCE);
            let until = end.into_iter().chain(granted).min();
            tokio::select! {
                () = self.shared.progress.notified() => {}
                () = sleep_until(until.unwrap_or(now)), if until.is_some() => match until == granted {
                    true => self.shared.end_unbegun(),
                    false => self.shared.end_open(),
                }
            }
        }
    }
}

impl<S: Service> Drop for Router<S> {
    fn drop(&mut self) {
        self.shared.close();
    }
}

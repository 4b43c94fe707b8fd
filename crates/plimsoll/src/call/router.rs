//! The actor of a call server: it routes and never works.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ractor::{Actor, ActorProcessingErr, ActorRef, ActorStatus, SupervisionEvent};

use super::Service;
use super::clock::Clock;
use super::shared::{Bell, Next, Shared};
use super::work::Work;
use super::worker::{self, Worker, WorkerActor};

/// Calls routed in one turn, before whatever else the actor has to hear.
const TURN: usize = 64;

pub(crate) struct Router<S: Service> {
    pub(crate) shared: Arc<Shared<S>>,
    pub(crate) worker: Worker,
    pub(crate) serve_queued: bool,
    pub(crate) clock: Clock,
}

impl<S: Service> Router<S> {
    /// Starts a worker for each of the next calls; whether there may be more.
    async fn route(&self, myself: &ActorRef<Bell>) -> bool {
        for _ in 0..TURN {
            let Some((Next::Call(work, request), last)) = self.shared.next() else { return false };
            match self.worker {
                Worker::Task => drop(tokio::spawn(worker::task(work, request))),
                // Boxed, because ractor moves a handler's future about for every message, and a start is a large one.
                Worker::Actor => Box::pin(Self::start(work, request, myself)).await,
            }
            if last {
                return false;
            }
        }
        true
    }

    /// A start that fails drops the work, which settles the call.
    async fn start(work: Work<S>, request: S::Request, myself: &ActorRef<Bell>) {
        let worker = WorkerActor::new(work, request);
        if myself.get_status() < ActorStatus::Draining {
            let _ = WorkerActor::spawn_linked(None, worker, (), myself.get_cell()).await;
        } else {
            // ractor links nothing to an actor that is stopping. What is left to serve then needs no link: it ends when
            // its call is settled, which the end of this actor does.
            let _ = WorkerActor::spawn(None, worker, ()).await;
        }
    }
}

impl<S: Service> Actor for Router<S> {
    type Msg = Bell;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Bell>, (): ()) -> Result<(), ActorProcessingErr> {
        self.shared.set_actor(myself.clone());
        self.clock.start(&self.shared, myself.get_cell());
        Ok(())
    }

    async fn handle(&self, myself: ActorRef<Bell>, _: Bell, (): &mut ()) -> Result<(), ActorProcessingErr> {
        if self.route(&myself).await {
            self.shared.ring();
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Bell>,
        event: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(actor, _) | SupervisionEvent::ActorTerminated(actor, ..)
                if self.shared.watch.was(actor.get_id()) =>
            {
                Err("who watches the callers has ended".into())
            }
            // Its call has been settled by the worker's own end; a worker's failure is none of the server's.
            SupervisionEvent::ActorFailed(..) => {
                self.shared.gauges.worker_failures.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn post_stop(&self, myself: ActorRef<Bell>, (): &mut ()) -> Result<(), ActorProcessingErr> {
        self.shared.drain(self.serve_queued);
        loop {
            while self.route(&myself).await {}
            if self.shared.is_drained() {
                return Ok(());
            }
            self.shared.drained.notified().await;
        }
    }
}

impl<S: Service> Drop for Router<S> {
    fn drop(&mut self) {
        self.shared.shut();
    }
}

//! The actor of a call server: it routes and never works.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef, ActorStatus, SupervisionEvent};

use super::Service;
use super::clock::Clock;
use super::shared::{Bell, Item, Shared};
use super::work::Work;
use super::worker::{Worker, WorkerActor};

/// Calls routed in one turn, before whatever else the actor has to hear.
const TURN: usize = 64;

/// How long the calls of a dead caller are settled before others have their turn.
const SLICE: Duration = Duration::from_millis(1);

pub(crate) struct Router<S: Service> {
    pub(crate) shared: Arc<Shared<S>>,
    pub(crate) worker: Worker,
    pub(crate) serve_queued: bool,
    pub(crate) clock: Clock,
}

impl<S: Service> Router<S> {
    /// Starts a worker for each of the next calls; whether there may be more.
    async fn route(&self, myself: &ActorRef<Bell>) -> bool {
        self.shared.answer_bell();
        for _ in 0..TURN {
            let Some(Item::Call(call)) = self.shared.next_item() else { return false };
            if let Some(work) = Work::begin(&self.shared, call) {
                self.start(work, myself).await;
            }
        }
        true
    }

    async fn start(&self, work: Work<S>, myself: &ActorRef<Bell>) {
        match self.worker {
            // A start that fails drops the work, which settles the call.
            Worker::Actor if myself.get_status() < ActorStatus::Draining => {
                let _ = WorkerActor::spawn_linked(None, WorkerActor(work), (), myself.get_cell()).await;
            }
            // ractor links nothing to an actor that is stopping. What is left to serve then needs no link: it ends when
            // its call is settled, which the end of this actor does.
            Worker::Actor => {
                let _ = WorkerActor::spawn(None, WorkerActor(work), ()).await;
            }
            Worker::Task => {
                tokio::spawn(async move {
                    let _ = work.serve(None).await;
                });
            }
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
        myself: ActorRef<Bell>,
        event: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        let ended = match event {
            // Its call has been settled by the worker's own end; a worker's failure is none of the server's.
            SupervisionEvent::ActorFailed(actor, _) => {
                self.shared.gauges.worker_failures.fetch_add(1, Ordering::Relaxed);
                actor
            }
            SupervisionEvent::ActorTerminated(actor, ..) => actor,
            _ => return Ok(()),
        };
        let mut began = Instant::now();
        while self.shared.cancel_some_of(ended.get_id()) {
            // Others must not wait for the many calls of one that is gone.
            if began.elapsed() >= SLICE {
                self.route(&myself).await;
                tokio::task::yield_now().await;
                began = Instant::now();
            }
        }
        Ok(())
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

//! The actor of a call server: it routes and never works.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, ActorStatus, SupervisionEvent};
use tokio::task::AbortHandle;
use tokio::time::sleep_until;

use super::Service;
use super::shared::{Bell, Shared};
use super::worker::{Work, Worker, WorkerActor};

/// Calls routed in one turn, before whatever else the actor has to hear.
const TURN: usize = 64;
/// Deadlines handled in one critical section.
const SLICE: usize = 64;

pub(crate) struct Router<S: Service> {
    pub(crate) shared: Arc<Shared<S>>,
    pub(crate) worker: Worker,
    pub(crate) serve_queued: bool,
    /// The task that keeps the deadlines. It stands here and not in the state, which outlives the actor in its exit event.
    pub(crate) clock: OnceLock<AbortHandle>,
}

impl<S: Service> Router<S> {
    async fn route(&self, myself: &ActorRef<Bell>) -> bool {
        self.shared.answer_bell();
        for _ in 0..TURN {
            let Some(call) = self.shared.next_call() else { return false };
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
        self.shared.set_router(myself.clone());
        let clock = tokio::spawn(keep_time(Arc::clone(&self.shared), EndServer(myself.get_cell())));
        let _ = self.clock.set(clock.abort_handle());
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
        // The call has been settled by the worker's own end; a worker's failure is none of the server's.
        if let SupervisionEvent::ActorFailed(..) = event {
            self.shared.worker_failures.fetch_add(1, Ordering::Relaxed);
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
        if let Some(clock) = self.clock.get() {
            clock.abort();
        }
        self.shared.shut();
    }
}

/// Ends the server if its clock should fail: without it no deadline would be kept.
struct EndServer(ActorCell);

impl Drop for EndServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.kill();
        }
    }
}

/// Settles what is due, sleeps until the next deadline, or until told of an earlier one.
async fn keep_time<S: Service>(shared: Arc<Shared<S>>, _guard: EndServer) {
    loop {
        let expired = shared.expire(SLICE);
        if expired.more {
            tokio::task::yield_now().await;
            continue;
        }
        match expired.next {
            None => shared.alarm.notified().await,
            Some(next) => {
                tokio::select! {
                    () = sleep_until(next) => {}
                    () = shared.alarm.notified() => {}
                }
            }
        }
    }
}

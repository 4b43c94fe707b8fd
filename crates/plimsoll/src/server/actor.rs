//! The actor of a server: one thing after the other.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use plimsoll_sync::cell::Party;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SupervisionEvent};

use super::timers::Fired;
use super::turns::Post;
use super::{BoxError, Reply, Server, Serving, Turn};
use crate::call::book::Outcome;
use crate::call::clock::Clock;
use crate::call::shared::{Bell, Item, Shared};
use crate::call::work::Work;
use crate::exit::ExitReason;
use crate::panics;

/// Things handled in one turn, before whatever else the actor has to hear.
const TURN: usize = 64;

pub(crate) struct ServerActor<S: Server> {
    pub(crate) shared: Arc<Shared<Serving<S>>>,
    pub(crate) clock: Clock,
    pub(crate) args: Mutex<Option<S::Args>>,
    /// Here and not in ractor's state, which outlives the actor in its exit event. Out while a handler runs.
    pub(crate) server: Mutex<Option<S>>,
    /// Continuations of `init`.
    pub(crate) first: Mutex<Option<Turn<S>>>,
    pub(crate) idle: Option<Duration>,
    pub(crate) serve_queued: bool,
}

type Handled = Result<(), ActorProcessingErr>;

impl<S: Server> ServerActor<S> {
    /// Handles the next things; whether there may be more.
    async fn turn(&self, myself: &ActorCell) -> Result<bool, ActorProcessingErr> {
        self.shared.answer_bell();
        let Some(mut server) = self.server.lock().take() else { return Ok(false) };
        let mut turn = Turn::new(&self.shared, myself.clone());
        let (mut more, mut came) = (true, false);
        // A stop that is to leave the queue unserved must be heard between any two things.
        for _ in 0..if self.serve_queued { TURN } else { 1 } {
            let Some(item) = self.shared.next_item() else {
                more = false;
                break;
            };
            came |= self.handle_item(&mut server, item, &mut turn).await?;
            if let Some(reason) = turn.stop.take() {
                let _ = self.shared.exit.set(ExitReason::from_stop(reason.as_deref()));
                myself.stop(reason);
                more = false;
                break;
            }
        }
        *self.server.lock() = Some(server);
        if came {
            self.restart_idle();
        }
        Ok(more)
    }

    /// Handles one thing; whether something came, which a time of idleness is not.
    async fn handle_item(
        &self,
        server: &mut S,
        item: Item<Serving<S>>,
        turn: &mut Turn<S>,
    ) -> Result<bool, ActorProcessingErr> {
        turn.deadline = None;
        match item {
            Item::Call(call) => {
                let Some(work) = Work::begin(&self.shared, call) else { return Ok(true) };
                let Some(request) = work.call.request.lock().take() else { return Ok(true) };
                let (method, running) = (S::method(&request), self.shared.host.timings.begin());
                turn.deadline = Some(work.call.deadline);
                let reply = Reply(work);
                let handled = self.guarded(server.call(request, reply, turn)).await;
                self.shared.host.timings.end(method, running);
                handled?;
            }
            Item::Post(Post::Cast(cast)) => {
                let permit = CastPermit(&self.shared);
                let handled = self.guarded(server.cast(cast, turn)).await;
                drop(permit);
                handled?;
                self.shared.gauges.casts_handled.fetch_add(1, Ordering::Relaxed);
            }
            Item::Due(Post::Timer(key)) => {
                let (fired, wakes) = self.shared.host.timers.lock().fire(key, self.shared.now());
                if wakes {
                    self.shared.alarm.notify_one();
                }
                match fired {
                    Some(Fired::Message(message)) => self.guarded(server.message(message, turn)).await?,
                    Some(Fired::Idle) => {
                        self.shared.compact(2);
                        self.guarded(server.idle(turn)).await?;
                        self.continuations(server, turn).await?;
                        return Ok(false);
                    }
                    None => return Ok(false),
                }
            }
            Item::Due(Post::Answer(message, place)) => {
                drop(place);
                self.guarded(server.message(message, turn)).await?;
            }
            Item::Post(_) | Item::Due(Post::Cast(_)) => {}
        }
        self.continuations(server, turn).await?;
        Ok(true)
    }

    async fn continuations(&self, server: &mut S, turn: &mut Turn<S>) -> Handled {
        while let (Some(message), None) = (turn.next.pop_front(), &turn.stop) {
            self.guarded(server.message(message, turn)).await?;
        }
        Ok(())
    }

    /// Runs a handler. A failure becomes the server's exit reason, which then is that of every open call.
    async fn guarded(&self, handler: impl Future<Output = Result<(), BoxError>> + Send) -> Handled {
        let host = &self.shared.host;
        host.busy.store(true, Ordering::Release);
        let handled = AssertUnwindSafe(handler).catch_unwind().await;
        let failure = match handled {
            Ok(Ok(())) => {
                host.busy.store(false, Ordering::Release);
                self.settle_unreplied();
                return Ok(());
            }
            Ok(Err(error)) => panics::error_failure(error.as_ref()),
            Err(panic) => panics::failure_here(panic.as_ref()),
        };
        let message = failure.message.to_string();
        let _ = self.shared.exit.set(ExitReason::Failed(failure));
        Err(message.into())
    }

    /// Calls whose reply handle was dropped while a handler ran that went well: forgotten.
    fn settle_unreplied(&self) {
        let keys = std::mem::take(&mut *self.shared.host.unreplied.lock());
        for key in keys {
            let call = self.shared.book.lock().get(key);
            if let Some(call) = call {
                let died = crate::call::Died::NoReply.into();
                self.shared.settle(&call, Party::Other, Outcome::Died, Err(died));
            }
        }
    }

    fn restart_idle(&self) {
        if let Some(idle) = self.idle {
            let when = self.shared.due(tokio::time::Instant::now() + idle);
            if self.shared.host.timers.lock().restart_idle(when) {
                self.shared.alarm.notify_one();
            }
        }
    }
}

impl<S: Server> Actor for ServerActor<S> {
    type Msg = Bell;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Bell>, (): ()) -> Handled {
        self.shared.set_actor(myself.clone());
        self.clock.start(&self.shared, myself.get_cell());
        let Some(args) = self.args.lock().take() else { return Ok(()) };
        let mut turn = Turn::new(&self.shared, myself.get_cell());
        let server = S::init(args, &mut turn).await?;
        *self.server.lock() = Some(server);
        *self.first.lock() = Some(turn);
        Ok(())
    }

    async fn post_start(&self, myself: ActorRef<Bell>, (): &mut ()) -> Handled {
        let (Some(mut server), Some(mut turn)) = (self.server.lock().take(), self.first.lock().take()) else {
            return Ok(());
        };
        self.continuations(&mut server, &mut turn).await?;
        *self.server.lock() = Some(server);
        if let Some(reason) = turn.stop {
            let _ = self.shared.exit.set(ExitReason::from_stop(reason.as_deref()));
            myself.stop(reason);
        }
        self.restart_idle();
        Ok(())
    }

    async fn handle(&self, myself: ActorRef<Bell>, _: Bell, (): &mut ()) -> Handled {
        if self.turn(&myself.get_cell()).await? {
            self.shared.ring();
        }
        Ok(())
    }

    async fn handle_supervisor_evt(&self, _: ActorRef<Bell>, event: SupervisionEvent, (): &mut ()) -> Handled {
        if let SupervisionEvent::ActorTerminated(actor, ..) | SupervisionEvent::ActorFailed(actor, _) = event {
            while self.shared.cancel_some_of(actor.get_id()) {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    async fn post_stop(&self, myself: ActorRef<Bell>, (): &mut ()) -> Handled {
        let myself = myself.get_cell();
        if self.shared.exit.get().is_none() {
            self.shared.drain(self.serve_queued);
            loop {
                while self.turn(&myself).await? {}
                if self.shared.is_drained() || self.shared.exit.get().is_some() {
                    break;
                }
                self.shared.drained.notified().await;
            }
        }
        let Some(mut server) = self.server.lock().take() else { return Ok(()) };
        let mut turn = Turn::new(&self.shared, myself);
        self.guarded(server.stopped(&mut turn)).await?;
        // Replies that are still owed go with the state: they end with the server's reason, not as forgotten.
        self.shared.host.busy.store(true, Ordering::Release);
        Ok(())
    }
}

impl<S: Server> Drop for ServerActor<S> {
    fn drop(&mut self) {
        self.shared.shut();
    }
}

/// The permit of a cast: it returns when the cast has been handled, in whatever way that ends.
struct CastPermit<'a, S: Server>(&'a Shared<Serving<S>>);

impl<S: Server> Drop for CastPermit<'_, S> {
    fn drop(&mut self) {
        self.0.release(0);
    }
}

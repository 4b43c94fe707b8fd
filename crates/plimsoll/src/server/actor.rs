//! The actor of a server: one thing after the other.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use plimsoll_sync::cell::Party;
use plimsoll_sync::slots::SlotKey;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SupervisionEvent};

use super::handling;
use super::timers::Fired;
use super::turns::{Post, Turns};
use super::{BoxError, Reply, Server, Serving, Turn};
use crate::call::book::Outcome;
use crate::call::clock::Clock;
use crate::call::shared::{Bell, Next, Shared};
use crate::exit::{ExitReason, Failure};
use crate::panics;

/// Things handled in one turn, before whatever else the actor has to hear.
const TURN: usize = 64;

pub(crate) struct ServerActor<S: Server> {
    pub(crate) shared: Arc<Shared<Serving<S>>>,
    pub(crate) clock: Clock,
    pub(crate) args: Mutex<Option<S::Args>>,
    /// Here and not in ractor's state, which outlives the actor in its exit event. Locked while a handler runs: by nobody
    /// but this actor itself, so that nobody ever waits for it.
    pub(crate) live: Mutex<Option<Live<S>>>,
    pub(crate) idle: Option<Duration>,
    pub(crate) serve_queued: bool,
}

/// A server that has started.
pub(crate) struct Live<S: Server> {
    server: S,
    turn: Turn<S>,
}

type Handled = Result<(), ActorProcessingErr>;
/// A handler at work: one size for all of them, and none is moved about.
type Handler<'a> = Pin<&'a mut (dyn Future<Output = Result<(), BoxError>> + Send)>;

#[allow(
    clippy::await_holding_lock,
    reason = "only this actor ever locks its state; a failing try would be a fault here"
)]
impl<S: Server> ServerActor<S> {
    /// Handles the next things; whether there may be more.
    async fn turn(&self, myself: &ActorCell) -> Result<bool, ActorProcessingErr> {
        let mut live = self.live.lock();
        let Some(live) = &mut *live else { return Ok(false) };
        let (mut more, mut came) = (true, false);
        // A stop that is to leave the queue unserved must be heard between any two things.
        for _ in 0..if self.serve_queued { TURN } else { 1 } {
            let Some((next, last)) = self.shared.next() else {
                more = false;
                break;
            };
            came |= self.handle_next(live, next).await?;
            if self.stops(live, myself) || last {
                more = false;
                break;
            }
        }
        if came {
            self.restart_idle();
        }
        Ok(more)
    }

    /// Whether a handler wants the server to end.
    fn stops(&self, live: &mut Live<S>, myself: &ActorCell) -> bool {
        let Some(reason) = live.turn.stop.take() else { return false };
        let _ = self.shared.exit.set(ExitReason::from_stop(reason.as_deref()));
        myself.stop(reason);
        true
    }

    /// Handles one thing; whether something came, which a time of idleness is not.
    async fn handle_next(&self, live: &mut Live<S>, next: Next<Serving<S>>) -> Result<bool, ActorProcessingErr> {
        let Live { server, turn } = &mut *live;
        turn.deadline = None;
        let hold = |message| self.shared.host.current_message.set(message);
        match next {
            Next::Call(work, request) => {
                let shared = &self.shared;
                let method = S::method(&request);
                let _held = hold(method);
                let running = shared.host.timings.begin(method);
                turn.deadline = Some(work.call.deadline);
                self.run(pin!(server.call(request, Reply(work), turn))).await?;
                drop(running);
            }
            Next::Post(Post::Cast(cast)) => {
                let _held = hold("cast");
                let permit = CastPermit(&self.shared);
                self.run(pin!(server.cast(cast, turn))).await?;
                drop(permit);
                self.shared.gauges.casts_handled.fetch_add(1, Ordering::Relaxed);
            }
            Next::Due(Post::Timer(key)) => {
                let now = self.shared.now();
                // What an interval brings is made by a closure of the user's.
                let fired = catch_unwind(AssertUnwindSafe(|| self.shared.host.timers.lock().fire(key, now)));
                let (fired, wakes) = fired.map_err(|panic| self.fails(panics::failure_here(panic.as_ref())))?;
                if wakes {
                    self.shared.alarm.notify_one();
                }
                match fired {
                    Some(Fired::Message(message)) => {
                        let _held = hold("message");
                        self.run(pin!(server.message(message, turn))).await?;
                    }
                    Some(Fired::Idle) => {
                        self.shared.compact(2);
                        self.run(pin!(server.idle(turn))).await?;
                        self.continuations(live).await?;
                        return Ok(false);
                    }
                    None => return Ok(false),
                }
            }
            Next::Due(Post::Answer(message, place)) => {
                drop(place);
                let _held = hold("message");
                self.run(pin!(server.message(message, turn))).await?;
            }
            Next::Post(_) | Next::Due(Post::Cast(_)) => {}
        }
        self.continuations(live).await?;
        Ok(true)
    }

    async fn continuations(&self, Live { server, turn }: &mut Live<S>) -> Handled {
        while let (Some(message), None) = (turn.next.pop_front(), &turn.stop) {
            self.run(pin!(server.message(message, turn))).await?;
        }
        Ok(())
    }

    /// Runs a handler. A failure becomes the server's exit reason, which then is that of every open call, also of one
    /// whose reply handle was dropped in the failing. A handle that is dropped otherwise ends its call at once.
    async fn run(&self, mut handler: Handler<'_>) -> Handled {
        let mut cut_short = Ending { host: &self.shared.host, armed: true };
        let id = self.shared.identity();
        let failure = poll_fn(|cx| {
            let (polled, unreplied) =
                handling::during(id, || catch_unwind(AssertUnwindSafe(|| handler.as_mut().poll(cx))));
            let failure = match polled {
                Ok(Poll::Ready(Err(error))) => Some(panics::error_failure(error.as_ref())),
                Err(panic) => Some(panics::failure_here(panic.as_ref())),
                Ok(Poll::Ready(Ok(()))) => None,
                Ok(Poll::Pending) => {
                    self.settle_unreplied(unreplied);
                    return Poll::Pending;
                }
            };
            if failure.is_none() {
                self.settle_unreplied(unreplied);
            }
            Poll::Ready(failure)
        })
        .await;
        cut_short.armed = false;
        failure.map_or(Ok(()), |failure| Err(self.fails(failure)))
    }

    /// Makes a failure the server's exit reason.
    fn fails(&self, failure: Failure) -> ActorProcessingErr {
        let message = failure.message.to_string();
        let _ = self.shared.exit.set(ExitReason::Failed(failure));
        message.into()
    }

    /// Calls whose reply handle was dropped by a handler that goes on, or went well: forgotten.
    fn settle_unreplied(&self, keys: Vec<SlotKey>) {
        for key in keys {
            let call = self.shared.desk.lock().book.get(key);
            if let Some(call) = call {
                let died = crate::call::Died::NoReply.into();
                self.shared.settle(&call, Party::Other, Outcome::Died, Err(died));
            }
        }
    }

    fn restart_idle(&self) {
        if let Some(idle) = self.idle {
            let when = self.shared.due_in(idle);
            if self.shared.host.timers.lock().restart_idle(when) {
                self.shared.alarm.notify_one();
            }
        }
    }
}

#[allow(
    clippy::await_holding_lock,
    reason = "only this actor ever locks its state; a failing try would be a fault here"
)]
impl<S: Server> Actor for ServerActor<S> {
    type Msg = Bell;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Bell>, (): ()) -> Handled {
        self.shared.set_actor(myself.clone());
        self.clock.start(&self.shared, myself.get_cell());
        let args = self.args.lock().take();
        let Some(args) = args else { return Ok(()) };
        let mut turn = Turn::new(&self.shared, myself.get_cell());
        let server = S::init(args, &mut turn).await?;
        *self.live.lock() = Some(Live { server, turn });
        Ok(())
    }

    async fn post_start(&self, myself: ActorRef<Bell>, (): &mut ()) -> Handled {
        let mut live = self.live.lock();
        let Some(live) = &mut *live else { return Ok(()) };
        self.continuations(live).await?;
        if !self.stops(live, &myself.get_cell()) {
            self.restart_idle();
        }
        Ok(())
    }

    async fn handle(&self, myself: ActorRef<Bell>, _: Bell, (): &mut ()) -> Handled {
        if self.turn(&myself.get_cell()).await? {
            self.shared.ring();
        }
        Ok(())
    }

    async fn handle_supervisor_evt(&self, _: ActorRef<Bell>, event: SupervisionEvent, (): &mut ()) -> Handled {
        match event {
            SupervisionEvent::ActorTerminated(actor, ..) | SupervisionEvent::ActorFailed(actor, _)
                if self.shared.watch.was(actor.get_id()) =>
            {
                Err("who watches the callers has ended".into())
            }
            _ => Ok(()),
        }
    }

    async fn post_stop(&self, myself: ActorRef<Bell>, (): &mut ()) -> Handled {
        if self.shared.exit.get().is_none() {
            self.shared.drain(self.serve_queued);
            let myself = myself.get_cell();
            loop {
                while self.turn(&myself).await? {}
                if self.shared.is_drained() || self.shared.exit.get().is_some() {
                    break;
                }
                self.shared.drained.notified().await;
            }
        }
        let mut live = self.live.lock();
        let Some(Live { server, turn }) = &mut *live else { return Ok(()) };
        turn.deadline = None;
        self.run(pin!(server.stopped(turn))).await?;
        // Replies that are still owed go with the state: they end with the server's reason, not as forgotten.
        self.shared.host.ending.store(true, Ordering::Release);
        Ok(())
    }
}

impl<S: Server> Drop for ServerActor<S> {
    fn drop(&mut self) {
        self.shared.shut();
    }
}

/// Says that the server is ending when a handler is dropped before it is done: what it held was not forgotten.
struct Ending<'a, S: Server> {
    host: &'a Turns<S>,
    armed: bool,
}

impl<S: Server> Drop for Ending<'_, S> {
    fn drop(&mut self) {
        if self.armed {
            self.host.ending.store(true, Ordering::Release);
        }
    }
}

/// The permit of a cast: it returns when the cast has been handled, in whatever way that ends.
struct CastPermit<'a, S: Server>(&'a Shared<Serving<S>>);

impl<S: Server> Drop for CastPermit<'_, S> {
    fn drop(&mut self) {
        self.0.release(0);
    }
}

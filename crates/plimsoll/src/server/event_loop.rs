//! The task of a server in which its handlers run, one at a time.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use futures::FutureExt;
use plimsoll_sync::cell::Party;
use plimsoll_sync::slots::SlotKey;
use ractor::ActorCell;
use ractor::concurrency::JoinHandle;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, timeout_at};

use super::protocol::{LoopResult, ServerMessage, ServerProtocol};
use super::reply_drop;
use super::timers::Fired;
use super::{BoxError, Context, GenServer, Reply, Response};
use crate::call::Died;
use crate::call::call_table::Outcome;
use crate::call::settlement::{GRANTED_PATIENCE, Rest};
use crate::call::shared::{BegunCall, Next, Notified, Shared};
use crate::exit::{ExitReason, Failure};
use crate::panics::{self, discard};
use crate::wait_graph::ActorTask;

/// A server that has been initialized.
pub(crate) struct EventLoop<S: GenServer> {
    server: S,
    ctx: Context<S>,
    shared: Arc<Shared<ServerProtocol<S>>>,
    pub(crate) idle: Option<Duration>,
    /// The longest time one item took since the stop.
    longest: Duration,
}

/// Why the loop ends.
enum End {
    /// The server was asked to stop, and the queue is done.
    Asked,
    /// A handler asked for it.
    Itself(Option<String>),
    Failed(String),
}

type Handled = Result<(), End>;
/// A handler's future: one size for all of them, and none is moved.
type Handler<'a, T> = Pin<&'a mut (dyn Future<Output = Result<T, BoxError>> + Send)>;

impl<S: GenServer> EventLoop<S> {
    pub(crate) fn new(server: S, ctx: Context<S>) -> Self {
        let shared = Arc::clone(&ctx.shared);
        Self { server, ctx, shared, idle: None, longest: Duration::ZERO }
    }

    /// Runs until the server ends, and then until its actor has ended.
    pub(crate) async fn run(self, actor_ended: JoinHandle<()>) {
        let actor = self.ctx.actor.clone();
        let mut killer = KillActor { actor: actor.clone(), armed: true };
        let _task = tokio::task::try_id().map(|task| ActorTask::register(task, &actor));
        self.run_to_end(&actor).await;
        killer.armed = false;
        let _ = actor_ended.await;
    }

    async fn run_to_end(mut self, actor: &ActorCell) {
        let end = match self.handle_all().await {
            Ok(()) => End::Asked,
            Err(end) => end,
        };
        let host = &self.shared.host;
        let result = match end {
            End::Failed(message) => LoopResult::Failed(message),
            end => {
                self.shared.drain(true);
                self.ctx.deadline = None;
                let stopped = run(&self.shared, pin!(self.server.stopped(&mut self.ctx))).await;
                match (stopped, end) {
                    (Err(End::Failed(message)), _) => LoopResult::Failed(message),
                    (_, End::Itself(reason)) if !stop_itself(actor, reason.clone()) => {
                        LoopResult::StoppedItself(reason)
                    }
                    _ => LoopResult::Stopped,
                }
            }
        };
        // Replies that are still owed go with the state, and end with the server's reason.
        host.ending.store(true, Ordering::Release);
        if self.shared.exit.get().is_none() {
            self.shared.end_unbegun();
            let _ = self.shared.exit.set(ExitReason::Shutdown);
        }
        let failed = matches!(result, LoopResult::Failed(_));
        let _ = host.loop_result.set(result);
        host.loop_ended.notify_one();
        if failed && let Some(actor) = self.shared.actor() {
            // One that is stopping does not take it, and reads the result itself.
            let _ = actor.send_message(Notified);
        }
        discard(self);
    }

    /// Handles items until the server is asked to stop and the queue is done.
    async fn handle_all(&mut self) -> Handled {
        self.continuations().await?;
        self.restart_idle();
        let mut came = false;
        let mut stopping = None;
        loop {
            if stopping.is_none() && self.shared.is_draining() {
                self.ctx.deadline = None;
                run(&self.shared, pin!(self.server.stopping(&mut self.ctx))).await?;
                self.continuations().await?;
                stopping = Some(self.shared.host.stop_deadline.serve_until(Instant::now()));
            }
            let until = stopping.flatten();
            if until.is_some_and(|until| Instant::now() + self.longest >= until) {
                self.shared.end_unbegun();
                return Ok(());
            }
            let last = match self.shared.next() {
                Some((next, last)) => {
                    let began = stopping.map(|_| Instant::now());
                    came |= self.handle_next(next).await?;
                    if let Some(began) = began {
                        self.longest = self.longest.max(began.elapsed());
                    }
                    last
                }
                None => true,
            };
            if last {
                let progress = self.shared.progress.notified();
                match (stopping.map(|_| self.shared.rest()), until) {
                    (Some(Rest::None), _) => return Ok(()),
                    (Some(Rest::Stuck), _) => {
                        self.shared.end_unbegun();
                        return Ok(());
                    }
                    (Some(Rest::Granted), until) => {
                        let patience = Instant::now() + GRANTED_PATIENCE;
                        if timeout_at(until.map_or(patience, |until| until.min(patience)), progress).await.is_err() {
                            self.shared.end_unbegun();
                        }
                    }
                    (None, _) => {
                        if std::mem::take(&mut came) {
                            self.restart_idle();
                        }
                        progress.await;
                    }
                }
            }
            consume_budget().await;
        }
    }

    /// Handles one item. Returns whether something came, which a time of idleness is not.
    async fn handle_next(&mut self, next: Next<ServerProtocol<S>>) -> Result<bool, End> {
        let Self { server, ctx, shared, .. } = self;
        ctx.deadline = None;
        let current = |message| shared.host.current_message.set(message);
        match next {
            Next::Call(begun, request) => {
                let method = S::method(&request);
                let _current = current(method);
                let running = shared.host.timings.begin(method);
                ctx.deadline = Some(begun.call.deadline);
                ctx.reply = Some(Reply(begun));
                let response = run(shared, pin!(server.call(request, ctx))).await?;
                drop(running);
                let reply = ctx.reply.take();
                match (reply, response) {
                    (Some(reply), Response::Reply(value)) => drop(reply.ok(value)),
                    (Some(reply), Response::Error(error)) => drop(reply.err(error)),
                    // The handle was not taken: nobody will reply.
                    (Some(Reply(begun)), Response::Later) => no_reply(shared, begun),
                    (None, _) => {}
                }
            }
            Next::Cast(ServerMessage::Cast(cast)) => {
                let _current = current("cast");
                let permit = CastPermit(shared);
                run(shared, pin!(server.cast(cast, ctx))).await?;
                drop(permit);
                shared.gauges.casts_handled.fetch_add(1, Ordering::Relaxed);
            }
            Next::Event(ServerMessage::Timer(key)) => {
                let now = shared.tick_now();
                // An interval's message is made by a closure of the user's.
                let fired = catch_unwind(AssertUnwindSafe(|| shared.host.timers.lock().fire(key, now)));
                let (fired, earlier) = fired.map_err(|panic| fail(shared, panics::failure_here(panic.as_ref())))?;
                if earlier {
                    shared.deadline_changed.notify_one();
                }
                match fired {
                    Some(Fired::Message(message)) => {
                        let _current = current("message");
                        run(shared, pin!(server.message(message, ctx))).await?;
                    }
                    Some(Fired::Idle) => {
                        shared.compact(2);
                        run(shared, pin!(server.idle(ctx))).await?;
                        self.continuations().await?;
                        return Ok(false);
                    }
                    None => return Ok(false),
                }
            }
            Next::Event(ServerMessage::Result(message, place)) => {
                drop(place);
                let _current = current("message");
                run(shared, pin!(server.message(message, ctx))).await?;
            }
            Next::Event(ServerMessage::Down(monitor)) => {
                let down = shared.host.monitors.lock().take_down(monitor);
                let Some(down) = down else { return Ok(false) };
                let _current = current("down");
                run(shared, pin!(server.down(down, ctx))).await?;
            }
            Next::Cast(_) | Next::Event(ServerMessage::Cast(_)) => {}
        }
        self.continuations().await?;
        Ok(true)
    }

    /// Runs continuations, and ends the loop if a handler asked for it.
    async fn continuations(&mut self) -> Handled {
        loop {
            if let Some(reason) = self.ctx.stop.take() {
                let _ = self.shared.exit.set(ExitReason::from_stop(reason.as_deref()));
                return Err(End::Itself(reason));
            }
            let Some(message) = self.ctx.next.pop_front() else { return Ok(()) };
            run(&self.shared, pin!(self.server.message(message, &mut self.ctx))).await?;
        }
    }

    fn restart_idle(&self) {
        if let Some(idle) = self.idle {
            let when = self.shared.tick_after(idle);
            if self.shared.host.timers.lock().restart_idle(when) {
                self.shared.deadline_changed.notify_one();
            }
        }
    }
}

/// Runs a handler. A failure becomes the server's exit reason, which then is that of every open call, also of one whose
/// reply handle was dropped by the failing handler. A handle that is dropped otherwise ends its call at once.
async fn run<S: GenServer, T>(shared: &Arc<Shared<ServerProtocol<S>>>, mut handler: Handler<'_, T>) -> Result<T, End> {
    let id = shared.identity();
    let mut cut_short = CutShort { shared, armed: true };
    let result = poll_fn(|cx| {
        let (polled, unreplied) =
            reply_drop::during(id, || catch_unwind(AssertUnwindSafe(|| handler.as_mut().poll(cx))));
        let result = match polled {
            Ok(Poll::Ready(Err(error))) => Err(panics::error_failure(error.as_ref())),
            Err(panic) => Err(panics::failure_here(panic.as_ref())),
            Ok(Poll::Ready(Ok(value))) => Ok(value),
            Ok(Poll::Pending) => {
                settle_unreplied(shared, unreplied);
                return Poll::Pending;
            }
        };
        if result.is_ok() {
            settle_unreplied(shared, unreplied);
        }
        Poll::Ready(result)
    })
    .await;
    cut_short.armed = false;
    result.map_err(|failure| fail(shared, failure))
}

/// Marks the server as ending when a handler is dropped before it is done, so that the reply handles that it holds end with
/// the server's reason.
struct CutShort<'a, S: GenServer> {
    shared: &'a Shared<ServerProtocol<S>>,
    armed: bool,
}

impl<S: GenServer> Drop for CutShort<'_, S> {
    fn drop(&mut self) {
        if self.armed {
            self.shared.host.ending.store(true, Ordering::Release);
        }
    }
}

/// Makes a failure the server's exit reason.
fn fail<S: GenServer>(shared: &Shared<ServerProtocol<S>>, failure: Failure) -> End {
    let message = failure.message.to_string();
    shared.host.ending.store(true, Ordering::Release);
    let _ = shared.exit.set(ExitReason::Failed(failure));
    End::Failed(message)
}

/// Settles calls whose reply handle was dropped by a handler that runs on or succeeded, unless the server stops itself:
/// then they end with its reason.
fn settle_unreplied<S: GenServer>(shared: &Arc<Shared<ServerProtocol<S>>>, keys: Vec<SlotKey>) {
    if keys.is_empty() || shared.host.ending.load(Ordering::Acquire) {
        return;
    }
    for key in keys {
        let call = shared.calls.lock().table.get(key);
        if let Some(call) = call {
            shared.settle(&call, Party::Other, Outcome::Died, Err(Died::NoReply.into()));
        }
    }
}

/// Drops a begun call to which nobody will reply.
fn no_reply<S: GenServer>(shared: &Arc<Shared<ServerProtocol<S>>>, begun: BegunCall<ServerProtocol<S>>) {
    if !shared.host.ending.load(Ordering::Acquire) {
        shared.settle(&begun.call, Party::Other, Outcome::Died, Err(Died::NoReply.into()));
    }
}

/// Stops the server's own actor. Returns whether this was the first stop, so that ractor reports its reason.
fn stop_itself(actor: &ActorCell, reason: Option<String>) -> bool {
    // A second `stop_and_wait` fails at once; the first waits, and is not waited for.
    actor.stop_and_wait(reason, None).now_or_never().is_none()
}

/// Kills the actor when the loop is aborted by anything but the actor's end.
struct KillActor {
    actor: ActorCell,
    armed: bool,
}

impl Drop for KillActor {
    fn drop(&mut self) {
        if self.armed {
            self.actor.kill();
        }
    }
}

/// The permit of a cast. It returns when the cast has been handled, however that ends.
struct CastPermit<'a, S: GenServer>(&'a Shared<ServerProtocol<S>>);

impl<S: GenServer> Drop for CastPermit<'_, S> {
    fn drop(&mut self) {
        self.0.release(0);
    }
}

//! What a server can do inside a handler.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

use ractor::ActorCell;
use tokio::time::Instant;

use super::monitors::{DownReason, MonitorRef, MonitorsFull};
use super::protocol::{ServerMessage, ServerProtocol};
use super::{GenServer, Reply, ServerRef, TimerKey, TimersFull};
use crate::call::shared::{Item, Shared};
use crate::call::{CallClient, CallError, Overload, Protocol};
use crate::exit::ExitReason;
use crate::exit_monitor::OnExit;

/// The context of a handler: the server's own actor, timers, monitors and requests, and what happens next.
pub struct Context<S: GenServer> {
    pub(crate) shared: Arc<Shared<ServerProtocol<S>>>,
    pub(crate) actor: ActorCell,
    /// The deadline of the call being handled, if one is.
    pub(crate) deadline: Option<Instant>,
    /// The reply handle of the call being handled, until the handler takes it.
    pub(crate) reply: Option<Reply<S>>,
    pub(crate) next: VecDeque<S::Message>,
    pub(crate) stop: Option<Option<String>>,
}

/// What a request of a server ends with.
pub type RequestResult<P> = Result<<P as Protocol>::Reply, CallError<<P as Protocol>::Error>>;

impl<S: GenServer> Context<S> {
    pub(crate) fn new(shared: &Arc<Shared<ServerProtocol<S>>>, actor: ActorCell) -> Self {
        Self { shared: Arc::clone(shared), actor, deadline: None, reply: None, next: VecDeque::new(), stop: None }
    }

    /// The server's actor.
    pub fn actor(&self) -> &ActorCell {
        &self.actor
    }

    /// A client of this server, to hand to others.
    pub fn myself(&self) -> ServerRef<S> {
        CallClient::new(Arc::clone(&self.shared))
    }

    /// The deadline of the call being handled; `None` while anything else is.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// `client` for calls that this server makes and awaits in this handler: bound to its actor, and never later than the
    /// call being handled. A cycle of servers that wait for each other is an error at once.
    #[must_use]
    pub fn client<P: Protocol>(&self, client: &CallClient<P>) -> CallClient<P> {
        let client = client.bind(&self.actor);
        match self.deadline {
            Some(deadline) => client.with_deadline(deadline),
            None => client,
        }
    }

    /// Takes the reply handle of the call being handled, to reply later: the handler returns
    /// [`Response::Later`](super::Response::Later). `None` outside a call, and when it was taken before.
    pub fn take_reply(&mut self) -> Option<Reply<S>> {
        self.reply.take()
    }

    /// Monitors `actor`: when it exits, [`GenServer::down`] runs once with the exit reason. For an actor that has exited
    /// already it runs with [`DownReason::NoProcess`](super::DownReason::NoProcess). Several monitors of one actor are
    /// independent.
    ///
    /// # Errors
    /// [`MonitorsFull`] when there are as many monitors as [`ServerBuilder::monitors`](super::ServerBuilder::monitors)
    /// allows, those included whose `down` has not run yet.
    ///
    /// Cost: two map entries; the first monitor of a server also an actor.
    pub fn monitor(&mut self, actor: &ActorCell) -> Result<MonitorRef, MonitorsFull> {
        let shared = &self.shared;
        let mut monitors = shared.host.monitors.lock();
        let (monitor, first) = monitors.add(actor)?;
        if first && let (Some(runtime), Some(server)) = (shared.runtime.get(), shared.actor()) {
            let handler = || Monitors(Arc::clone(shared));
            shared.host.exit_monitor.monitor(runtime, &server.get_cell(), handler, actor);
        }
        Ok(monitor)
    }

    /// Ends a monitor: its `down` does not run any more, even if the actor has exited. Returns whether it was there.
    pub fn demonitor(&mut self, monitor: MonitorRef) -> bool {
        let mut monitors = self.shared.host.monitors.lock();
        let Some((actor, last)) = monitors.remove(monitor) else { return false };
        if last {
            self.shared.host.exit_monitor.demonitor(&actor);
        }
        true
    }

    /// Handles `message` right after this, before anything queued (OTP's continue).
    pub fn continue_with(&mut self, message: S::Message) {
        self.next.push_back(message);
    }

    /// Ends the server after this handler, with `reason` or normally. Open calls end as
    /// [`Died::Exit`](crate::call::Died::Exit) with that reason.
    pub fn stop(&mut self, reason: Option<&str>) {
        self.shared.host.ending.store(true, Ordering::Release);
        self.stop = Some(reason.map(str::to_owned));
    }

    /// Sends the server `message` after `delay`.
    ///
    /// # Errors
    /// [`TimersFull`] when as many timers are set as may be.
    pub fn send_after(&mut self, delay: Duration, message: S::Message) -> Result<TimerKey, TimersFull> {
        let when = self.shared.tick_after(delay);
        let set = self.shared.host.timers.lock().once(when, message);
        self.set(set)
    }

    /// Sends the server what `make` makes, every `period`. Periods that pass while the server is busy are skipped.
    ///
    /// # Errors
    /// [`TimersFull`] when as many timers are set as may be.
    pub fn every(
        &mut self,
        period: Duration,
        make: impl FnMut() -> S::Message + Send + 'static,
    ) -> Result<TimerKey, TimersFull> {
        let period = u64::try_from(period.as_millis()).unwrap_or(u64::MAX / 2);
        let now = self.shared.tick_at(Instant::now());
        let set = self.shared.host.timers.lock().every(now, period, Box::new(make));
        self.set(set)
    }

    /// Cancels a timer, also one that is due and has not been handled yet. Whether it was there.
    pub fn cancel(&mut self, timer: TimerKey) -> bool {
        self.shared.host.timers.lock().cancel(timer)
    }

    /// Calls without waiting: the result arrives as the message that `map` makes of it. The call ends with this server.
    ///
    /// # Errors
    /// Refusals of the callee, and [`Overload::InFlight`] when as many requests of this server are open as may be.
    pub fn request<P: Protocol>(
        &mut self,
        client: &CallClient<P>,
        request: P::Request,
        map: impl FnOnce(RequestResult<P>) -> S::Message + Send + 'static,
    ) -> Result<(), CallError<P::Error>> {
        let place = self.shared.host.request_place();
        let place = place.map_err(|limit| CallError::Overloaded(Overload::InFlight { in_flight: limit, limit }))?;
        let mut calling = client.bind(&self.actor).unawaited().call(request);
        calling.start(Waker::noop())?;
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let message = map(calling.await);
            shared.submit(Item::Event(ServerMessage::Result(message, place)));
        });
        Ok(())
    }

    fn set(&self, set: Result<(TimerKey, bool), TimersFull>) -> Result<TimerKey, TimersFull> {
        let (key, earlier) = set?;
        if earlier {
            self.shared.deadline_changed.notify_one();
        }
        Ok(key)
    }
}

impl<S: GenServer> fmt::Debug for Context<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("actor", &self.actor.get_id()).field("deadline", &self.deadline).finish()
    }
}

/// Announces the exits of monitored actors to their server.
struct Monitors<S: GenServer>(Arc<Shared<ServerProtocol<S>>>);

impl<S: GenServer> OnExit for Monitors<S> {
    async fn exited(&self, actor: &ActorCell, reason: Option<ExitReason>) {
        let reason = reason.map_or(DownReason::NoProcess, DownReason::Exit);
        let monitors = self.0.host.monitors.lock().exited(actor.get_id(), &reason);
        for monitor in monitors {
            self.0.submit(Item::Event(ServerMessage::Down(monitor)));
        }
    }
}

//! What a server can do while it handles something.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use ractor::ActorCell;
use tokio::time::Instant;

use super::turns::Post;
use super::{Server, Serving, TimerKey, TimersFull};
use crate::call::shared::{Item, Shared};
use crate::call::{CallClient, CallError, Overload, Protocol};

/// A server's turn: its own actor, its timers, its requests, what is to happen next.
pub struct Turn<S: Server> {
    pub(crate) shared: Arc<Shared<Serving<S>>>,
    pub(crate) actor: ActorCell,
    /// The deadline of the call being handled, if one is.
    pub(crate) deadline: Option<Instant>,
    pub(crate) next: VecDeque<S::Message>,
    pub(crate) stop: Option<Option<String>>,
}

/// What a request of a server ended with.
pub type Answer<P> = Result<<P as Protocol>::Reply, CallError<<P as Protocol>::Error>>;

impl<S: Server> Turn<S> {
    pub(crate) fn new(shared: &Arc<Shared<Serving<S>>>, actor: ActorCell) -> Self {
        Self { shared: Arc::clone(shared), actor, deadline: None, next: VecDeque::new(), stop: None }
    }

    /// The server's actor.
    pub fn actor(&self) -> &ActorCell {
        &self.actor
    }

    /// A client of this server, to hand to others.
    pub fn myself(&self) -> CallClient<Serving<S>> {
        CallClient::new(Arc::clone(&self.shared))
    }

    /// The deadline of the call being handled; `None` while anything else is.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// `client` for calls that this server makes and awaits in this turn: bound to its actor, and never later than the
    /// call being handled. A circle of servers that wait for each other is an error at once.
    #[must_use]
    pub fn client<P: Protocol>(&self, client: &CallClient<P>) -> CallClient<P> {
        let client = client.bind(&self.actor);
        match self.deadline {
            Some(deadline) => client.within(deadline),
            None => client,
        }
    }

    /// Handles `message` right after this, before anything queued (OTP's continue).
    pub fn continue_with(&mut self, message: S::Message) {
        self.next.push_back(message);
    }

    /// Ends the server after this turn, with `reason` or normally. Open calls end as died with that reason.
    pub fn stop(&mut self, reason: Option<&str>) {
        self.stop = Some(reason.map(str::to_owned));
    }

    /// Sends the server `message` after `delay`.
    ///
    /// # Errors
    /// [`TimersFull`] when as many timers are set as may be.
    pub fn send_after(&mut self, delay: Duration, message: S::Message) -> Result<TimerKey, TimersFull> {
        let when = self.shared.due_in(delay);
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
        let now = self.shared.due(Instant::now());
        let set = self.shared.host.timers.lock().every(now, period, Box::new(make));
        self.set(set)
    }

    /// Cancels a timer, also one that is due and has not been handled yet. Whether it was there.
    pub fn cancel(&mut self, timer: TimerKey) -> bool {
        self.shared.host.timers.lock().cancel(timer)
    }

    /// Calls without waiting: the answer arrives as the message that `map` makes of it. The call ends with this server.
    ///
    /// # Errors
    /// Refusals of the callee, and [`Overload::InFlight`] when as many requests of this server are open as may be.
    pub fn request<P: Protocol>(
        &mut self,
        client: &CallClient<P>,
        request: P::Request,
        map: impl FnOnce(Answer<P>) -> S::Message + Send + 'static,
    ) -> Result<(), CallError<P::Error>> {
        let place = self.shared.host.request_place();
        let place = place.map_err(|limit| CallError::Overloaded(Overload::InFlight { in_flight: limit, limit }))?;
        let mut calling = client.bind(&self.actor).unawaited().call(request);
        calling.start(Waker::noop())?;
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let message = map(calling.await);
            shared.submit(Item::Due(Post::Answer(message, place)));
        });
        Ok(())
    }

    fn set(&self, set: Result<(TimerKey, bool), TimersFull>) -> Result<TimerKey, TimersFull> {
        let (key, wakes) = set?;
        if wakes {
            self.shared.alarm.notify_one();
        }
        Ok(key)
    }
}

impl<S: Server> fmt::Debug for Turn<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").field("actor", &self.actor.get_id()).field("deadline", &self.deadline).finish()
    }
}

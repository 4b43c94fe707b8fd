//! One subscriber: what waits for it, which tasks to wake, and why it was disconnected.

use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;

use super::backlog::{Backlog, BacklogLimits, Disconnected, weight};
use super::reservation::{BudgetBytes, StorageReservation};

/// Which of the messages a subscriber receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delivery {
    /// Every message, in order; the subscriber is disconnected when it is too slow.
    #[default]
    Every,
    /// The latest message only: a newer message replaces one that was not taken yet. At most one message waits, so only the
    /// budget of all backlogs can disconnect it. For viewers of a current state.
    Latest,
}

/// The state of a subscriber, shared by the publisher's table, the budget and the subscription.
#[derive(Debug)]
pub(super) struct Subscriber {
    state: Mutex<State>,
    budget: Arc<BudgetBytes>,
}

#[derive(Debug)]
struct State {
    queue: Queue,
    storage: StorageReservation,
    /// Weight of the message that the reader took last and may still hold: until it asks for the next one.
    taken: usize,
    reader: Option<Waker>,
    watcher: Option<Waker>,
    end: Option<Disconnected>,
}

#[derive(Debug)]
enum Queue {
    Every(Backlog),
    Latest(Option<Bytes>),
}

/// What happened to a message at one subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offered {
    Queued,
    /// Queued in place of one that the subscriber never took.
    Replaced,
    Disconnected(Disconnected),
}

/// What a subscriber finds in its queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    Message(Bytes),
    Nothing,
    End(Disconnected),
}

impl Subscriber {
    pub(super) fn new(delivery: Delivery, limits: BacklogLimits, budget: &Arc<BudgetBytes>) -> Self {
        let queue = match delivery {
            Delivery::Every => Queue::Every(Backlog::new(limits)),
            Delivery::Latest => Queue::Latest(None),
        };
        let storage = StorageReservation::new(budget.clone());
        let state = State { queue, storage, taken: 0, reader: None, watcher: None, end: None };
        Self { state: Mutex::new(state), budget: budget.clone() }
    }

    /// Offers a message; the tasks to be woken for it are added to `wakers`.
    pub(super) fn offer(&self, message: &Bytes, now: Instant, wakers: &mut Vec<Waker>) -> Offered {
        let mut state = self.state.lock();
        let offered = match &mut state.queue {
            Queue::Every(backlog) => match backlog.push(message.clone(), now) {
                Ok(()) => Offered::Queued,
                Err(reason) => Offered::Disconnected(reason),
            },
            Queue::Latest(value) => match value.replace(message.clone()) {
                None => Offered::Queued,
                Some(_) => Offered::Replaced,
            },
        };
        match offered {
            Offered::Disconnected(reason) => self.end_with(&mut state, reason, wakers),
            Offered::Queued | Offered::Replaced => {
                state.reserve_storage();
                wakers.extend(state.reader.take());
            }
        }
        offered
    }

    /// Disconnects the subscriber if it has been too slow, or without progress, for too long.
    pub(super) fn check(&self, now: Instant, wakers: &mut Vec<Waker>) -> Result<(), Disconnected> {
        let mut state = self.state.lock();
        let Queue::Every(backlog) = &mut state.queue else { return Ok(()) };
        backlog.check(now).inspect_err(|reason| self.end_with(&mut state, *reason, wakers))
    }

    /// Disconnects the subscriber and drops what waits for it.
    pub(super) fn disconnect(&self, reason: Disconnected, wakers: &mut Vec<Waker>) {
        self.end_with(&mut self.state.lock(), reason, wakers);
    }

    /// Ends the subscription after the messages that are already waiting.
    pub(super) fn close(&self, wakers: &mut Vec<Waker>) {
        let mut state = self.state.lock();
        state.end.get_or_insert(Disconnected::Closed);
        state.wake(wakers);
    }

    /// The next message or the end; registers `waker` when there is neither.
    pub(super) fn take(&self, waker: Option<&Waker>) -> Next {
        let mut state = self.state.lock();
        self.release_taken(&mut state);
        let message = match &mut state.queue {
            Queue::Every(backlog) => backlog.pop(),
            Queue::Latest(value) => value.take(),
        };
        if let Some(message) = message {
            state.taken = weight(&message);
            state.reserve_storage();
            return Next::Message(message);
        }
        if let Some(end) = state.end {
            return Next::End(end);
        }
        register(&mut state.reader, waker);
        Next::Nothing
    }

    /// The reader has dropped its subscription.
    pub(super) fn left(&self) {
        self.release_taken(&mut self.state.lock());
    }

    /// Why the subscriber was disconnected, if it was; otherwise registers `waker` for that.
    pub(super) fn end(&self, waker: Option<&Waker>) -> Option<Disconnected> {
        let mut state = self.state.lock();
        if state.end.is_none() {
            register(&mut state.watcher, waker);
        }
        state.end
    }

    /// Bytes that wait, and messages.
    pub(super) fn backlog(&self) -> (usize, usize) {
        self.state.lock().backlog()
    }

    /// Bytes that a disconnection would release: those that wait and those of the message in the reader's hands.
    pub(super) fn weight(&self) -> usize {
        let state = self.state.lock();
        if state.is_disconnected() { 0 } else { state.backlog().0 + state.taken }
    }

    fn end_with(&self, state: &mut State, reason: Disconnected, wakers: &mut Vec<Waker>) {
        match &mut state.queue {
            Queue::Every(backlog) => backlog.clear(),
            Queue::Latest(value) => *value = None,
        }
        state.reserve_storage();
        if !state.is_disconnected() {
            self.budget.expect_release(state.taken);
            state.end = Some(reason);
        }
        state.wake(wakers);
    }

    fn release_taken(&self, state: &mut State) {
        let released = std::mem::take(&mut state.taken);
        if released > 0 && state.is_disconnected() {
            self.budget.released(released);
        }
    }
}

impl State {
    /// Ended by a disconnection; one that was closed may still have a backlog.
    fn is_disconnected(&self) -> bool {
        self.end.is_some_and(|end| end != Disconnected::Closed)
    }

    fn backlog(&self) -> (usize, usize) {
        match &self.queue {
            Queue::Every(backlog) => (backlog.bytes(), backlog.len()),
            Queue::Latest(value) => value.as_ref().map_or((0, 0), |message| (weight(message), 1)),
        }
    }

    fn reserve_storage(&mut self) {
        if let Queue::Every(backlog) = &self.queue {
            self.storage.set(backlog.storage());
        }
    }

    fn wake(&mut self, wakers: &mut Vec<Waker>) {
        wakers.extend(self.reader.take());
        wakers.extend(self.watcher.take());
    }
}

fn register(place: &mut Option<Waker>, waker: Option<&Waker>) {
    if let Some(waker) = waker
        && place.as_ref().is_none_or(|known| !known.will_wake(waker))
    {
        *place = Some(waker.clone());
    }
}

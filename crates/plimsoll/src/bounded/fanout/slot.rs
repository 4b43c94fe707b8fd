//! One subscriber: what waits for it, whom to wake, and how it ended.

use std::task::Waker;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;

use super::backlog::{Backlog, BacklogLimits, CutOff, weight};

/// What a subscriber wants of the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delivery {
    /// Every one, in order; cut off when too slow.
    #[default]
    Every,
    /// The latest only: a newer message takes the place of one that was not taken yet. Never cut off, for at most one
    /// message waits. For viewers, who want to see how things stand and not how they came about.
    Latest,
}

/// A subscriber's slot, shared by the publisher's table and the subscription.
#[derive(Debug)]
pub(super) struct Slot {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    waiting: Waiting,
    reader: Option<Waker>,
    watcher: Option<Waker>,
    end: Option<CutOff>,
}

#[derive(Debug)]
enum Waiting {
    Every(Backlog),
    Latest(Option<Bytes>),
}

/// What became of a message at one subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offered {
    Queued,
    /// Queued in place of one that the subscriber never saw.
    Replaced,
    CutOff(CutOff),
}

/// What a subscriber finds when it looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    Message(Bytes),
    Nothing,
    End(CutOff),
}

impl Slot {
    pub(super) fn new(delivery: Delivery, limits: BacklogLimits) -> Self {
        let waiting = match delivery {
            Delivery::Every => Waiting::Every(Backlog::new(limits)),
            Delivery::Latest => Waiting::Latest(None),
        };
        Self { state: Mutex::new(State { waiting, reader: None, watcher: None, end: None }) }
    }

    /// Offers a message; whoever has to be woken for it is added to `wakers`.
    pub(super) fn offer(&self, message: &Bytes, now: Instant, wakers: &mut Vec<Waker>) -> Offered {
        let mut state = self.state.lock();
        let offered = match &mut state.waiting {
            Waiting::Every(backlog) => match backlog.push(message.clone(), now) {
                Ok(()) => Offered::Queued,
                Err(reason) => Offered::CutOff(reason),
            },
            Waiting::Latest(value) => match value.replace(message.clone()) {
                None => Offered::Queued,
                Some(_) => Offered::Replaced,
            },
        };
        match offered {
            Offered::CutOff(reason) => state.cut_off(reason, wakers),
            Offered::Queued | Offered::Replaced => wakers.extend(state.reader.take()),
        }
        offered
    }

    /// Cuts the subscriber off if it has been over the soft limit for too long.
    pub(super) fn check(&self, now: Instant, wakers: &mut Vec<Waker>) -> Result<(), CutOff> {
        let mut state = self.state.lock();
        let Waiting::Every(backlog) = &state.waiting else { return Ok(()) };
        backlog.check(now).inspect_err(|reason| state.cut_off(*reason, wakers))
    }

    /// Ends the subscription behind what waits already.
    pub(super) fn close(&self, wakers: &mut Vec<Waker>) {
        let mut state = self.state.lock();
        state.end.get_or_insert(CutOff::Closed);
        state.wake(wakers);
    }

    /// The next message or the end; with `waker`, whom to wake when there is neither.
    pub(super) fn take(&self, waker: Option<&Waker>) -> Found {
        let mut state = self.state.lock();
        let message = match &mut state.waiting {
            Waiting::Every(backlog) => backlog.pop(),
            Waiting::Latest(value) => value.take(),
        };
        if let Some(message) = message {
            return Found::Message(message);
        }
        if let Some(end) = state.end {
            return Found::End(end);
        }
        set(&mut state.reader, waker);
        Found::Nothing
    }

    /// Why the subscriber was cut off, if it was; otherwise `waker` is woken when it is.
    pub(super) fn end(&self, waker: Option<&Waker>) -> Option<CutOff> {
        let mut state = self.state.lock();
        if state.end.is_none() {
            set(&mut state.watcher, waker);
        }
        state.end
    }

    /// Bytes that wait, and messages.
    pub(super) fn backlog(&self) -> (usize, usize) {
        match &self.state.lock().waiting {
            Waiting::Every(backlog) => (backlog.bytes(), backlog.len()),
            Waiting::Latest(value) => value.as_ref().map_or((0, 0), |message| (weight(message), 1)),
        }
    }
}

impl State {
    fn cut_off(&mut self, reason: CutOff, wakers: &mut Vec<Waker>) {
        if let Waiting::Every(backlog) = &mut self.waiting {
            backlog.clear();
        }
        self.end = Some(reason);
        self.wake(wakers);
    }

    fn wake(&mut self, wakers: &mut Vec<Waker>) {
        wakers.extend(self.reader.take());
        wakers.extend(self.watcher.take());
    }
}

fn set(place: &mut Option<Waker>, waker: Option<&Waker>) {
    if let Some(waker) = waker
        && place.as_ref().is_none_or(|known| !known.will_wake(waker))
    {
        *place = Some(waker.clone());
    }
}

//! What a server keeps beside its call books, and how it speaks [`Protocol`].

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::Mutex;
use plimsoll_sync::slots::SlotKey;

use super::Server;
use super::handling;
use super::timers::{TimerKey, Timers};
use crate::call::Protocol;
use crate::call::shared::Shared;
use crate::call::timing::Timings;
use crate::supervisor::CurrentMessage;

/// A [`Server`] as a conversation: `CallClient<Serving<S>>` is a client of the server `S`.
#[derive(Debug)]
pub struct Serving<S>(PhantomData<fn() -> S>);

impl<S: Server> Protocol for Serving<S> {
    type Request = S::Call;
    type Reply = S::Reply;
    type Error = S::Error;
    type Post = Post<S>;
    type Host = Turns<S>;
    const IN_TURN: bool = true;

    fn tick(host: &Turns<S>, now: u64, due: &mut Vec<Post<S>>) -> Option<u64> {
        host.timers.lock().tick(now, |key| due.push(Post::Timer(key)))
    }

    #[allow(private_interfaces, reason = "not part of the public face")]
    fn keeps_unreplied(shared: &Shared<Self>, call: SlotKey) -> bool {
        shared.host.ending.load(Ordering::Acquire)
            || shared.exit.get().is_some()
            || handling::dropped(std::ptr::from_ref(shared).addr(), call)
    }

    fn current_message(host: &Turns<S>) -> Option<CurrentMessage> {
        Some(host.current_message.clone())
    }

    fn describe(host: &Turns<S>, counters: &mut BTreeMap<String, u64>) {
        host.timings.describe(counters);
        counters.insert("own_timers".to_owned(), host.timers.lock().len() as u64);
        counters.insert("requests".to_owned(), u64::from(host.requests.load(Ordering::Relaxed)));
    }
}

/// What a server's actor is sent beside calls.
#[doc(hidden)]
#[allow(missing_debug_implementations, reason = "not part of the public face")]
pub enum Post<S: Server> {
    Cast(S::Cast),
    Timer(TimerKey),
    Answer(S::Message, RequestPlace<S>),
}

/// A server's own part of what it shares with callers and clock.
#[doc(hidden)]
#[allow(missing_debug_implementations, reason = "not part of the public face")]
pub struct Turns<S: Server> {
    pub(crate) timers: Mutex<Timers<S::Message>>,
    /// Reply handles that are dropped from now on go with the server.
    pub(crate) ending: AtomicBool,
    pub(crate) timings: Timings,
    /// For the report of a stop that the server holds up.
    pub(crate) current_message: CurrentMessage,
    requests: Arc<AtomicU32>,
    request_limit: u32,
}

impl<S: Server> Turns<S> {
    pub(crate) fn new(timers: u32, requests: u32) -> Self {
        Self {
            timers: Mutex::new(Timers::new(timers)),
            ending: AtomicBool::new(false),
            timings: Timings::default(),
            current_message: CurrentMessage::default(),
            requests: Arc::new(AtomicU32::new(0)),
            request_limit: requests,
        }
    }

    /// A place for the answer to a request, if there is one left.
    pub(crate) fn request_place(&self) -> Result<RequestPlace<S>, u32> {
        let taken = self.requests.fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| {
            (taken < self.request_limit).then_some(taken + 1)
        });
        match taken {
            Ok(_) => Ok(RequestPlace { requests: Arc::clone(&self.requests), server: PhantomData }),
            Err(_) => Err(self.request_limit),
        }
    }
}

/// The place that an answer will take in the server's intake.
#[doc(hidden)]
#[allow(missing_debug_implementations, reason = "not part of the public face")]
pub struct RequestPlace<S> {
    requests: Arc<AtomicU32>,
    server: PhantomData<fn() -> S>,
}

impl<S> Drop for RequestPlace<S> {
    fn drop(&mut self) {
        self.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

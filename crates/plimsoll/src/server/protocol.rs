//! How a server uses the call machinery, and what it keeps beside its call table.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use plimsoll_sync::slots::SlotKey;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::monitors::{MonitorRef, MonitorTable};
use super::timers::{TimerKey, Timers};
use super::{GenServer, reply_drop};
use crate::call::Protocol;
use crate::call::counters::MethodTimings;
use crate::call::shared::Shared;
use crate::exit_monitor::ExitMonitor;
use crate::inspect::{Metric, Metrics};
use crate::panics::discard;
use crate::supervisor::{CurrentMessage, StopDeadline};

/// The [`Protocol`] of a [`GenServer`]. Write [`ServerRef<S>`](super::ServerRef) for a client.
#[derive(Debug)]
pub struct ServerProtocol<S>(PhantomData<fn() -> S>);

impl<S: GenServer> Protocol for ServerProtocol<S> {
    type Request = S::Call;
    type Reply = S::Reply;
    type Error = S::Error;
    type Message = ServerMessage<S>;
    type Host = ServerHost<S>;
    const IN_TURN: bool = true;

    fn tick(host: &ServerHost<S>, now: u64, events: &mut Vec<ServerMessage<S>>) -> Option<u64> {
        host.timers.lock().tick(now, |key| events.push(ServerMessage::Timer(key)))
    }

    fn keeps_unreplied(host: &ServerHost<S>, server: usize, exited: bool, call: SlotKey) -> bool {
        exited || host.ending.load(Ordering::Acquire) || reply_drop::dropped(server, call)
    }

    fn current_message(host: &ServerHost<S>) -> Option<CurrentMessage> {
        Some(host.current_message.clone())
    }

    fn stop_deadline(host: &ServerHost<S>) -> StopDeadline {
        host.stop_deadline.clone()
    }

    fn describe(host: &ServerHost<S>, metrics: &mut Metrics) {
        host.timings.describe(metrics);
        metrics.insert("own_timers", Metric::gauge(host.timers.lock().len() as u64));
        metrics.insert("requests", Metric::gauge(u64::from(host.requests.load(Ordering::Relaxed))));
        metrics.insert("monitors", Metric::gauge(host.monitors.lock().len() as u64));
    }
}

/// How a server's event loop ended.
#[derive(Debug)]
pub(crate) enum LoopResult {
    /// After a stop, its own or another's.
    Stopped,
    /// The server stopped itself with this reason while it was asked to stop.
    StoppedItself(Option<String>),
    Failed(String),
}

/// What a server is sent beside calls.
#[doc(hidden)]
#[allow(missing_debug_implementations, reason = "not part of the public interface")]
pub enum ServerMessage<S: GenServer> {
    Cast(S::Cast),
    Timer(TimerKey),
    Result(S::Message, RequestPlace<S>),
    Down(MonitorRef),
}

/// A server's own part of what it shares with callers and the deadline task.
#[doc(hidden)]
#[allow(missing_debug_implementations, reason = "not part of the public interface")]
pub struct ServerHost<S: GenServer> {
    pub(crate) timers: Mutex<Timers<S::Message>>,
    pub(crate) monitors: Mutex<MonitorTable>,
    pub(crate) exit_monitor: ExitMonitor,
    /// Reply handles that are dropped from now on go with the server.
    pub(crate) ending: AtomicBool,
    pub(crate) timings: MethodTimings,
    /// For the report of a stop that the server delays.
    pub(crate) current_message: CurrentMessage,
    pub(crate) stop_deadline: StopDeadline,
    pub(crate) loop_result: OnceLock<LoopResult>,
    pub(crate) loop_ended: Notify,
    event_loop: OnceLock<AbortHandle>,
    actor_ended: AtomicBool,
    requests: Arc<AtomicU32>,
    request_limit: u32,
}

impl<S: GenServer> ServerHost<S> {
    pub(crate) fn new(timers: u32, requests: u32, monitors: u32) -> Self {
        Self {
            timers: Mutex::new(Timers::new(timers)),
            monitors: Mutex::new(MonitorTable::new(monitors)),
            exit_monitor: ExitMonitor::default(),
            ending: AtomicBool::new(false),
            timings: MethodTimings::default(),
            current_message: CurrentMessage::default(),
            stop_deadline: StopDeadline::default(),
            loop_result: OnceLock::new(),
            loop_ended: Notify::new(),
            event_loop: OnceLock::new(),
            actor_ended: AtomicBool::new(false),
            requests: Arc::new(AtomicU32::new(0)),
            request_limit: requests,
        }
    }

    pub(crate) fn event_loop_started(&self, event_loop: AbortHandle) {
        let _ = self.event_loop.set(event_loop);
        // ORDERING: SeqCst here and in `actor_ended`: of two that cross, at least one sees the other's store.
        if self.actor_ended.load(Ordering::SeqCst) {
            self.abort_event_loop();
        }
    }

    /// The server's actor has ended: settles what is open, and ends the event loop if that has not ended.
    pub(crate) fn actor_ended(&self, shared: &Shared<ServerProtocol<S>>) {
        self.ending.store(true, Ordering::Release);
        shared.close();
        let targets = self.monitors.lock().close();
        self.exit_monitor.end(targets);
        let timers = self.timers.lock().close();
        discard(timers);
        self.actor_ended.store(true, Ordering::SeqCst);
        self.abort_event_loop();
    }

    fn abort_event_loop(&self) {
        if self.loop_result.get().is_none()
            && let Some(event_loop) = self.event_loop.get()
        {
            event_loop.abort();
        }
    }

    /// A place for the result of a request, if there is one left.
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

/// The place that the result of a request will take in the server's queue.
#[doc(hidden)]
#[allow(missing_debug_implementations, reason = "not part of the public interface")]
pub struct RequestPlace<S> {
    requests: Arc<AtomicU32>,
    server: PhantomData<fn() -> S>,
}

impl<S> Drop for RequestPlace<S> {
    fn drop(&mut self) {
        self.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

//! A service whose calls end in every way there is, and what its tests share.
#![allow(dead_code, unreachable_pub, missing_debug_implementations, reason = "each test program uses its own part")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use plimsoll::call::{
    CallClient, CallContext, CallError, CallServer, CallServerBuilder, Protocol, Service, StartedServer,
};
use plimsoll_testkit::gate::Gate;
use plimsoll_testkit::law;
use plimsoll_testkit::probe::Mark;

/// What a call is to do.
pub enum Do {
    Echo(u32),
    Refuse(&'static str),
    Panic(&'static str),
    /// Wait at a gate, then reply.
    Pass(Gate),
    /// Note the deadline.
    Deadline(Mark<tokio::time::Instant>),
    /// Hold this until the call's future is dropped, and never reply.
    Hold(Arc<()>),
    /// Block the thread until the other end says so or is dropped, then reply.
    Block(std::sync::mpsc::Receiver<()>),
    /// Kill the worker actor itself.
    KillWorker,
    /// Once through the gate, call this server.
    CallSelf(CallClient<Obedient>, Gate),
}

/// Does what it is told.
#[derive(Clone, Copy)]
pub struct Obedient;

impl Service for Obedient {
    type Request = Do;
    type Reply = u32;
    type Error = &'static str;

    async fn call(&self, ctx: CallContext, what: Do) -> Result<u32, &'static str> {
        match what {
            Do::Echo(n) => Ok(n),
            Do::Refuse(why) => Err(why),
            Do::Panic(why) => panic!("{why}"),
            Do::Pass(gate) => {
                gate.pass().await;
                Ok(0)
            }
            Do::Deadline(mark) => {
                mark.note(ctx.deadline());
                Ok(0)
            }
            Do::Hold(_held) => std::future::pending().await,
            Do::Block(release) => {
                let _ = release.recv();
                Ok(0)
            }
            Do::CallSelf(client, gate) => {
                gate.pass().await;
                match ctx.client(&client).call(Do::Echo(1)).await {
                    Err(CallError::Deadlock(_)) => Err("deadlock"),
                    other => other.map_err(|_| "otherwise"),
                }
            }
            Do::KillWorker => {
                if let Some(worker) = ctx.worker() {
                    worker.kill();
                }
                std::future::pending().await
            }
        }
    }
}

pub fn server() -> CallServerBuilder<Obedient> {
    CallServer::builder(Obedient).deadline(Duration::from_secs(5))
}

pub fn counters<P: Protocol>(server: &StartedServer<P>) -> BTreeMap<String, u64> {
    let counters = server.inspector().inspect().counters;
    calls_balance(&counters);
    counters.into()
}

/// Every call has settled in one way or is in flight, and has a timer while it is.
pub fn calls_balance(counters: &BTreeMap<String, u64>) {
    law::CALLS.assert(counters);
    let by_outcome: u64 = counters.iter().filter(|(name, _)| name.starts_with("settled_")).map(|(_, n)| n).sum();
    assert_eq!(counters["settled"], by_outcome, "settled is the sum of its outcomes: {counters:?}");
    assert_eq!(counters["timers"], counters["in_flight"], "one timer a call in flight: {counters:?}");
}

/// No slot, timer, permit, byte, waiter or worker is left.
pub fn assert_nothing_left(counters: &BTreeMap<String, u64>) {
    calls_balance(counters);
    for name in ["in_flight", "timers", "permits_used", "bytes_used", "waiting", "workers", "overrunning"] {
        assert_eq!(counters[name], 0, "{name} left: {counters:?}");
    }
}

/// Lets every task that can run do so until `done`.
pub async fn until(mut done: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if done() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it did not come to that within 10,000 turns");
}

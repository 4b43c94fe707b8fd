//! Calls, sends and refusals against what a user would write by hand on ractor, in the same run, interleaved.
//!
//! `just bench call` prints a table and writes `target/bench/call.json`; the second half of it, allocations and bytes, is
//! the program `call_memory`. Every figure is the median of rounds that alternate between ours and theirs.

#![allow(missing_docs, unreachable_pub, reason = "a program, not a library")]

mod call {
    pub mod load;
    pub mod peers;
    pub mod profile;
    pub mod server;
}
#[path = "common/report.rs"]
mod report;

use std::time::{Duration, Instant};

use call::peers::{bare_call, bare_router};
use plimsoll::call::{CallContext, CallServer, Service, Worker};
use report::{Row, median, ns_each, publish};

pub(crate) struct Increment;

impl Service for Increment {
    type Request = u64;
    type Reply = u64;
    type Error = std::convert::Infallible;

    async fn call(&self, _: CallContext, n: u64) -> Result<u64, Self::Error> {
        Ok(n + 1)
    }
}

/// `gen_server` with a spawned, linked process a call, 64 callers, on a machine of this kind. Not measured here: it needs
/// an Erlang installation.
const ERLANG_SPAWN_PER_CALL: f64 = 1_850.0;

/// `callers` tasks make `calls` calls in all.
pub(crate) async fn callers<F: Future<Output = ()> + Send>(
    callers: usize,
    calls: usize,
    call: impl Fn() -> F + Clone + Send + 'static,
) -> f64 {
    let each = calls / callers;
    let start = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let call = call.clone();
            tokio::spawn(async move {
                for _ in 0..each {
                    call().await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a caller");
    }
    ns_each(start.elapsed(), each * callers)
}

async fn spawn_per_call(rows: &mut Vec<Row>) {
    for (worker, name) in [(Worker::Actor, "actor"), (Worker::Task, "task")] {
        let server = CallServer::builder(Increment).worker(worker).max_in_flight(4_096).start().await.expect("starts");
        let (bare, _) = bare_router(worker == Worker::Actor).await;
        for n in [1, 64] {
            let calls = if worker == Worker::Actor { 20_000 } else { 50_000 };
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for _ in 0..11 {
                let client = server.client();
                ours.push(
                    callers(n, calls, move || {
                        let client = client.clone();
                        async move { client.call(1).await.map(|_| ()).expect("a reply") }
                    })
                    .await,
                );
                let bare = bare.clone();
                theirs.push(
                    callers(n, calls, move || {
                        let bare = bare.clone();
                        async move {
                            bare_call(&bare, 1).await;
                        }
                    })
                    .await,
                );
            }
            let peer = if worker == Worker::Actor { "ractor + spawn_linked" } else { "ractor + tokio::spawn" };
            let goal = match (worker, n) {
                (Worker::Actor, _) => Some(1.15),
                (_, 64) => Some(1.5),
                _ => None,
            };
            let ours = median(ours);
            rows.push(Row::against(
                format!("call, {name} worker, {n} callers"),
                ours,
                "ns",
                peer,
                median(theirs),
                goal,
            ));
            if worker == Worker::Task && n == 64 {
                rows.push(Row::absolute("call, task worker, 64 callers, absolute", ours, "ns", Some(1_000.0)));
                rows.push(Row::against(
                    "call, task worker, 64 callers",
                    ours,
                    "ns",
                    "Erlang/OTP 25 spawn per call: a figure of November 2026, not of this run",
                    ERLANG_SPAWN_PER_CALL,
                    None,
                ));
            }
        }
        server.actor().stop(None);
        bare.stop(None);
    }
}

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    if call::profile::asked(&args) {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let rows = runtime.block_on(async {
        tokio::spawn(async {
            let mut rows = Vec::new();
            eprintln!("spawn per call");
            spawn_per_call(&mut rows).await;
            eprintln!("plain calls");
            call::server::plain_calls(&mut rows).await;
            eprintln!("calls through handles");
            call::server::calls_through_handles(&mut rows).await;
            eprintln!("sends");
            call::server::sends(&mut rows).await;
            eprintln!("throughput");
            call::load::throughput(&mut rows).await;
            eprintln!("overload");
            call::load::overload(&mut rows).await;
            eprintln!("dead caller");
            call::load::dead_caller(&mut rows).await;
            eprintln!("in flight");
            call::load::in_flight(&mut rows).await;
            rows
        })
        .await
        .expect("the benchmark")
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    publish("call", &rows)
}

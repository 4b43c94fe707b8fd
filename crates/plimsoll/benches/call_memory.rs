//! Allocations and bytes a call, counted exactly: the second half of `just bench call`.
//!
//! A program of its own, because counting slows the allocator down. Adds its rows to `target/bench/call.json`.

#![allow(missing_docs, unreachable_pub, dead_code, reason = "a program, not a library")]

mod call {
    pub mod peers;
}
#[path = "common/report.rs"]
mod report;

use std::alloc::System;
use std::convert::Infallible;

use call::peers::{bare_call, bare_router};
use plimsoll::call::{CallContext, CallServer, Service, StartedServer, Worker};
use report::{Row, publish_added};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, Stats, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

struct Answer;

impl Service for Answer {
    type Request = Option<u64>;
    type Reply = u64;
    type Error = Infallible;

    async fn call(&self, _: CallContext, n: Option<u64>) -> Result<u64, Infallible> {
        match n {
            Some(n) => Ok(n + 1),
            None => std::future::pending().await,
        }
    }
}

const CALLS: u64 = 2_000;

async fn counted<F: Future<Output = ()>>(mut call: impl FnMut() -> F) -> Stats {
    for _ in 0..CALLS {
        call().await;
    }
    let region = Region::new(ALLOCATOR);
    for _ in 0..CALLS {
        call().await;
    }
    region.change()
}

async fn a_call(rows: &mut Vec<Row>) {
    for (worker, name, actors) in [(Worker::Actor, "actor", true), (Worker::Task, "task", false)] {
        let server = CallServer::builder(Answer).worker(worker).start().await.expect("starts");
        let client = server.client();
        let ours = counted(|| async { assert!(client.call(Some(1)).await.is_ok()) }).await;
        let (bare, _) = bare_router(actors).await;
        let theirs = counted(|| async { assert_eq!(bare_call(&bare, 1).await, 2) }).await;
        for (what, ours, theirs, unit) in [
            ("allocations", ours.allocations, theirs.allocations, "allocs"),
            ("bytes allocated", ours.bytes_allocated, theirs.bytes_allocated, "bytes"),
        ] {
            let each = |total: usize| total as f64 / CALLS as f64;
            let peer = if actors { "ractor + spawn_linked" } else { "ractor + tokio::spawn" };
            rows.push(Row::against(
                format!("{what} a call, {name} worker"),
                each(ours),
                unit,
                peer,
                each(theirs),
                None,
            ));
        }
        server.actor().stop(None);
        bare.stop(None);
    }
}

/// Live bytes of each of `n` calls that wait, the callers' tasks included.
async fn waiting(server: &StartedServer<Answer>, n: usize, counter: &str) -> f64 {
    let mut tasks = Vec::with_capacity(n);
    let region = Region::new(ALLOCATOR);
    for _ in 0..n {
        let client = server.client();
        tasks.push(tokio::spawn(async move { client.call(None).await }));
    }
    let inspect = server.inspector();
    while inspect.inspect().counters[counter] < n as u64 {
        tokio::task::yield_now().await;
    }
    let change = region.change();
    server.actor().kill();
    for task in tasks {
        assert!(task.await.expect("a caller").is_err());
    }
    (change.bytes_allocated as f64 + change.bytes_reallocated as f64 - change.bytes_deallocated as f64) / n as f64
}

async fn in_flight(rows: &mut Vec<Row>) {
    const N: usize = 100_000;
    let queued = CallServer::builder(Answer).worker(Worker::Task).max_in_flight(1).queue(N as u32 + 1);
    let queued = queued.start().await.expect("starts");
    let client = queued.client();
    let _first = tokio::spawn(async move { client.call(None).await });
    while queued.inspector().inspect().counters["workers"] == 0 {
        tokio::task::yield_now().await;
    }
    rows.push(Row::absolute(
        "a waiting call with its caller's task, before a worker",
        waiting(&queued, N, "waiting").await,
        "bytes",
        Some(700.0),
    ));
    for (worker, name, n) in [(Worker::Task, "task", N), (Worker::Actor, "actor", N / 10)] {
        let server = CallServer::builder(Answer).worker(worker).max_in_flight(N as u32).start().await.expect("starts");
        let bytes = waiting(&server, n, "workers").await;
        rows.push(Row::absolute(
            format!("a call in flight with its caller's task and {name} worker"),
            bytes,
            "bytes",
            None,
        ));
    }
}

fn main() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rows = runtime.block_on(async {
        let mut rows = Vec::new();
        a_call(&mut rows).await;
        in_flight(&mut rows).await;
        rows
    });
    publish_added("call", &rows)
}

//! The load that once drove an Erlang VM out of memory: hundreds of long-lived servers under a dynamic supervisor, called
//! over and over with work that builds 2 MiB of temporaries.
//!
//! Done inside the server, each keeps the room that its largest call needed, and memory rises with the number of servers:
//! that is the control. Done in a worker of its own per call, it goes back with the worker. Each runs in a process of its
//! own: `cargo run --release --example erlang_load [seconds]`. Leaves `target/e2e/erlang-load.json`.

use std::alloc::System;
use std::convert::Infallible;
use std::env;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use plimsoll::call::{CallClient, CallContext, CallServer, Protocol, Service};
use plimsoll::ractor::ActorCell;
use plimsoll::server::{self, BoxError, Context, Server, ServerProtocol};
use plimsoll::supervisor::{Child, DynamicSupervisor};
use plimsoll_testkit::report::{Report, Row};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

const SERVERS: usize = 300;
const CALLERS: usize = 2;
const TEMPORARIES: usize = 2 << 20;
const MIB: f64 = 1_048_576.0;

/// What a spawned worker may leave: a few MiB, of which the callers' calls in flight are most.
const RISE: f64 = 24.0;

fn work(room: &mut Vec<u8>, seed: u64) -> u64 {
    room.clear();
    room.resize(TEMPORARIES, seed as u8);
    room.iter().step_by(512).map(|byte| u64::from(*byte)).sum()
}

struct PerCall;

impl Service for PerCall {
    type Request = u64;
    type Reply = u64;
    type Error = Infallible;

    async fn call(&self, _: CallContext, seed: u64) -> Result<u64, Infallible> {
        Ok(work(&mut Vec::new(), seed))
    }
}

struct Inside(Vec<u8>);

impl Server for Inside {
    type Call = u64;
    type Reply = u64;

    async fn call(&mut self, seed: u64, _: &mut Context<Self>) -> Result<u64, BoxError> {
        Ok(work(&mut self.0, seed))
    }
}

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// MiB allocated and not freed: resident memory would depend on what the C library keeps.
fn held() -> f64 {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated.saturating_sub(stats.bytes_deallocated) as f64 / MIB
}

/// Calls all servers in turn for as long as it takes; calls made, and by how much memory rose at most, in MiB.
async fn load<P: Protocol<Request = u64, Reply = u64>>(clients: Vec<CallClient<P>>, time: Duration) -> (usize, f64) {
    let (start, from) = (Instant::now(), held());
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let clients = clients.clone();
            tokio::spawn(async move {
                let mut calls = 0;
                // Everyone is called at least twice, however short the time.
                while start.elapsed() < time || calls < 2 * SERVERS / CALLERS {
                    let client = &clients[(calls * CALLERS + caller) % clients.len()];
                    if client.call(calls as u64).await.is_err() {
                        break;
                    }
                    calls += 1;
                }
                calls
            })
        })
        .collect();
    let mut most: f64 = 0.0;
    let sampler = tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            tick.tick().await;
            most = most.max(held() - from);
            if start.elapsed() > time {
                return most;
            }
        }
    });
    let mut calls = 0;
    for caller in callers {
        calls += caller.await.unwrap_or(0);
    }
    let most = sampler.await.unwrap_or(0.0).max(held() - from);
    (calls, most)
}

async fn servers<P: Protocol>(
    start: impl Fn(ActorCell) -> futures::future::BoxFuture<'static, Result<Child, BoxError>> + Send + Sync + 'static,
) -> Result<Vec<CallClient<P>>, Box<dyn std::error::Error>> {
    let template = move |parent: ActorCell, (): ()| start(parent);
    let tree = DynamicSupervisor::builder("servers", template).max_children(SERVERS as u32).start().await?;
    let mut clients = Vec::new();
    for _ in 0..SERVERS {
        let child = tree.start_child(()).await?;
        clients.push(child.value::<CallClient<P>>().ok_or("a server without a client")?.as_ref().clone());
    }
    if tree.start_child(()).await.is_ok() {
        return Err("a server more than there may be".into());
    }
    Ok(clients)
}

async fn one(mode: &str, time: Duration) -> Result<(usize, f64), Box<dyn std::error::Error>> {
    if mode == "inside" {
        let start = |parent: ActorCell| -> futures::future::BoxFuture<'static, Result<Child, BoxError>> {
            Box::pin(async move { Ok(server::builder(Inside(Vec::new())).start_linked(parent).await?.into()) })
        };
        return Ok(load(servers::<ServerProtocol<Inside>>(start).await?, time).await);
    }
    let start = |parent: ActorCell| -> futures::future::BoxFuture<'static, Result<Child, BoxError>> {
        Box::pin(async move { Ok(CallServer::builder(PerCall).start_linked(parent).await?.into()) })
    };
    Ok(load(servers::<PerCall>(start).await?, time).await)
}

fn child(mode: &str, seconds: &str) -> Result<(usize, f64), Box<dyn std::error::Error>> {
    let output = Command::new(env::current_exe()?).args([seconds, mode]).output()?;
    let text = String::from_utf8(output.stdout)?;
    let (calls, rise) = text.trim().split_once(' ').ok_or("the child said nothing")?;
    Ok((calls.parse()?, rise.parse()?))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let seconds = arguments.first().map_or("60", String::as_str);
    let time = Duration::from_secs_f64(seconds.parse()?);
    if let Some(mode) = arguments.get(1) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let (calls, rise) = runtime.block_on(one(mode, time))?;
        println!("{calls} {rise:.1}");
        return Ok(());
    }
    let (calls, rise) = child("per-call", seconds)?;
    let (control_calls, control) = child("inside", seconds)?;
    // A worker a call must not cost throughput against work done in place. A few seconds on a busy machine tell nothing.
    let as_fast = calls as f64 >= 0.8 * control_calls as f64 || time < Duration::from_secs(30);
    let (met, shown) = (rise <= RISE && as_fast, control >= 10.0 * RISE);
    println!("{SERVERS} servers, {} MiB of temporaries a call, {seconds} s", TEMPORARIES >> 20);
    println!("a worker a call:          {calls:>9} calls, memory rose by {rise:>7.1} MiB (at most {RISE})");
    println!("inside the server (control): {control_calls:>6} calls, memory rose by {control:>7.1} MiB");
    let row = Row {
        scenario: format!("{SERVERS} servers called over and over with 2 MiB of temporaries a call, {seconds} s"),
        figure: format!("memory rose by {rise:.1} MiB in {calls} calls"),
        bound: format!("at most {RISE} MiB"),
        met,
        control: Some(format!("done inside the servers: {control:.1} MiB in {control_calls} calls")),
    };
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    Report::new(&target, "erlang-load").write("erlang-load", &[row])?;
    if met && shown { Ok(()) } else { Err("memory did not behave as promised".into()) }
}

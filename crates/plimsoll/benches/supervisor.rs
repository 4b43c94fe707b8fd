//! Supervision against bare ractor and kameo, in the same run, interleaved.
//!
//! `cargo bench -p plimsoll --bench supervisor` prints a table and writes `target/bench/supervisor.json`. Everything runs
//! inside spawned tasks; every figure is the median of rounds that alternate between ours and theirs.
//! `-- --only start` (or `one-for-all`, `crash`, `tree-lock`, `memory`) measures one part; `-- --profile ours-start-stop 2000` runs one
//! path alone, for a profiler.

#![allow(missing_docs, unreachable_pub, reason = "a program, not a library")]

mod supervisor {
    pub mod peers;
    pub mod profile;
}
#[path = "common/report.rs"]
mod report;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use plimsoll::supervisor::{
    Backoff, ChildSpec, DynamicSupervisor, DynamicSupervisorRef, Strategy, Supervisor, SupervisorRef,
};
use ractor::{Actor, ActorCell};
use report::{Row, median, ns_each, publish};
use supervisor::peers::{Do, Started, Victim, bare_parent, bare_start, bare_start_stop, kameo_tree, stop_bare};
use supervisor::profile;
use tokio::sync::oneshot;

fn main() {
    if let Some(which) = std::env::args().skip_while(|arg| arg != "--memory").nth(1) {
        return block_on(async move { memory_of(&which).await });
    }
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload_as_str() != Some("told to panic") {
            hook(panic);
        }
    }));
    if let Some(which) = std::env::args().skip_while(|arg| arg != "--profile").nth(1) {
        let count = std::env::args().next_back().and_then(|count| count.parse().ok()).unwrap_or(1_000);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let path = async move { profile::run(&which, count).await };
        return runtime.block_on(async { tokio::spawn(path).await.expect("no panic") });
    }
    let only = std::env::args().skip_while(|arg| arg != "--only").nth(1);
    let wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    let mut rows = Vec::new();
    if wanted("start") {
        rows.extend(block_on(start_stop(1, "start and stop of one dynamic child")));
        rows.extend(block_on(start_stop(8, "the same, 8 tasks at once")));
        rows.extend(block_on(start_at(1_000)));
        rows.extend(block_on(start_at(100_000)));
    }
    if wanted("one-for-all") {
        rows.extend(block_on(one_for_all()));
    }
    if wanted("crash") {
        for (load, name, goal) in
            [(0, "idle", true), (25, "at 25 %", true), (50, "at 50 %", false), (100, "saturated", false)]
        {
            rows.extend(block_on(crash_to_running(load, name, goal)));
        }
    }
    if wanted("tree-lock") {
        rows.extend(block_on(tree_lock()));
    }
    if wanted("memory") {
        rows.push(memory());
    }
    publish(if only.is_some() { "supervisor-part" } else { "supervisor" }, &rows).expect("the report is written");
}

fn block_on<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async move { tokio::spawn(work).await.expect("no panic") })
}

async fn dynamic(max: u32) -> DynamicSupervisorRef<()> {
    let builder = DynamicSupervisor::temporary("bench", |parent: ActorCell, (): ()| {
        Victim::spawn_linked(None, Victim(None), (), parent)
    });
    builder.max_children(max).start().await.expect("it starts")
}

async fn our_start_stop(dynamic: &DynamicSupervisorRef<()>) {
    let child = dynamic.start_child(()).await.expect("it starts");
    dynamic.terminate_child(child.actor()).await.expect("it ends");
}

async fn start_stop(tasks: usize, name: &str) -> Vec<Row> {
    const EACH: usize = 8_000;
    let (dynamic, parent) = (dynamic(100).await, bare_parent().await);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..21 {
        let dynamic = dynamic.clone();
        let our = timed(tasks, EACH / tasks, move || {
            let dynamic = dynamic.clone();
            async move { our_start_stop(&dynamic).await }
        });
        let parent = parent.clone();
        let their = timed(tasks, EACH / tasks, move || {
            let parent = parent.clone();
            async move { bare_start_stop(&parent).await }
        });
        let (our, their) = if round % 2 == 0 {
            (our.await, their.await)
        } else {
            let their = their.await;
            (our.await, their)
        };
        ours.push(our);
        theirs.push(their);
    }
    vec![Row::against(name, median(ours), "ns", "bare ractor", median(theirs), Some(1.15))]
}

/// Nanoseconds each, of `tasks` tasks that do it `each` times.
async fn timed<F: Future<Output = ()> + Send>(
    tasks: usize,
    each: usize,
    work: impl Fn() -> F + Clone + Send + 'static,
) -> f64 {
    let began = Instant::now();
    let tasks: Vec<_> = (0..tasks)
        .map(|_| {
            let work = work.clone();
            tokio::spawn(async move {
                for _ in 0..each {
                    work().await;
                }
            })
        })
        .collect();
    let calls = tasks.len() * each;
    for task in tasks {
        task.await.expect("no panic");
    }
    ns_each(began.elapsed(), calls)
}

/// One start at so many children, the heap warm: children over the count are stopped again outside the time.
async fn start_at(count: usize) -> Vec<Row> {
    const STARTS: usize = 500;
    let (dynamic, parent) = (dynamic(count as u32 + 10_000).await, bare_parent().await);
    // What these leave lies below what stays, where malloc does not give it back to the kernel: for both sides.
    let mut warm = Vec::new();
    for _ in 0..2 * STARTS {
        warm.push(bare_start(&parent).await);
    }
    let mut bare = Vec::new();
    for _ in 0..count {
        dynamic.start_child(()).await.expect("it starts");
        bare.push(bare_start(&parent).await);
    }
    stop_bare(warm).await;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let our_round = async || {
        let mut started = Vec::with_capacity(STARTS);
        let began = Instant::now();
        for _ in 0..STARTS {
            started.push(dynamic.start_child(()).await.expect("it starts"));
        }
        let each = ns_each(began.elapsed(), STARTS);
        for child in started {
            dynamic.terminate_child(child.actor()).await.expect("it ends");
        }
        each
    };
    let their_round = async || {
        let mut started = Vec::with_capacity(STARTS);
        let began = Instant::now();
        for _ in 0..STARTS {
            started.push(bare_start(&parent).await);
        }
        let each = ns_each(began.elapsed(), STARTS);
        stop_bare(started).await;
        each
    };
    for round in 0..30 {
        if round % 2 == 0 {
            ours.push(our_round().await);
            theirs.push(their_round().await);
        } else {
            theirs.push(their_round().await);
            ours.push(our_round().await);
        }
    }
    let name = format!("one start at {count} dynamic children");
    vec![Row::against(name, median(ours), "ns", "bare ractor", median(theirs), Some(1.2))]
}

fn victim(n: usize, started: &Started, noting: usize) -> ChildSpec {
    let started = (n == noting).then(|| started.clone());
    ChildSpec::new(format!("child {n}"), move |parent| Victim::spawn_linked(None, Victim(started.clone()), (), parent))
        .backoff(Backoff::NONE)
}

async fn tree(strategy: Strategy, children: usize, started: &Started, noting: usize) -> SupervisorRef {
    let children = (0..children).map(|n| victim(n, started, noting));
    let builder = Supervisor::builder("bench").strategy(strategy).intensity(u32::MAX, Duration::from_millis(1));
    builder.children(children).start().await.expect("it starts")
}

async fn one_for_all() -> Vec<Row> {
    const CHILDREN: usize = 1_000;
    let started = Started::default();
    let tree = tree(Strategy::OneForAll, CHILDREN, &started, CHILDREN - 1).await;
    let parent = bare_parent().await;
    let mut bare = Vec::new();
    for _ in 0..CHILDREN {
        bare.push(Victim::spawn_linked(None, Victim(None), (), parent.clone()).await.expect("it starts"));
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..21 {
        let victim = tree.child("child 0").expect("it runs");
        let (noted, when) = oneshot::channel();
        *started.lock().unwrap() = Some(noted);
        let began = Instant::now();
        victim.actor().send_message(Do::Panic).expect("it lives");
        let done = when.await.expect("it starts again");
        ours.push((done - began).as_micros() as f64);
        // The last start has been told, but not yet taken in.
        while tree.child(&format!("child {}", CHILDREN - 1)).is_err() || tree.child("child 0").is_err() {
            tokio::task::yield_now().await;
        }

        let began = Instant::now();
        while let Some((actor, ended)) = bare.pop() {
            actor.stop(None);
            ended.await.expect("it ends");
        }
        for _ in 0..CHILDREN {
            bare.push(Victim::spawn_linked(None, Victim(None), (), parent.clone()).await.expect("it starts"));
        }
        theirs.push(began.elapsed().as_micros() as f64);
    }
    let name = "one_for_all of 1000 children, full cycle";
    vec![Row::against(name, median(ours), "us", "sequential loop on bare ractor", median(theirs), Some(1.3))]
}

/// Keeps `load` per cent of two cores busy with messages of 5 us, spread evenly.
fn load_with(load: u64, send: impl Fn(usize) + Send + 'static) -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    if load > 0 {
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_millis(1));
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            let mut next = 0;
            while !stopped.load(Ordering::Relaxed) {
                tick.tick().await;
                for _ in 0..load * 4 {
                    next = (next + 1) % 999;
                    send(next + 1);
                }
            }
        });
    }
    stop
}

async fn crash_to_running(load: u64, name: &str, goal: bool) -> Vec<Row> {
    const SAMPLES: usize = 150;
    let (started, their_start) = (Started::default(), Started::default());
    let tree = tree(Strategy::OneForOne, 1_000, &started, 0).await;
    let (_parent, kameo) = kameo_tree(1_000, &their_start).await;
    let siblings: Vec<ActorCell> =
        (0..1_000).map(|n| tree.child(&format!("child {n}")).expect("it runs").actor().clone()).collect();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..8 {
        let busy = siblings.clone();
        let stop = load_with(load, move |n| drop(busy[n].send_message(Do::Spin)));
        for _ in 0..SAMPLES {
            let victim = tree.child("child 0").expect("it runs");
            ours.push(sample(&started, || async { victim.actor().send_message(Do::Panic).expect("it lives") }).await);
            while tree.child("child 0").is_err() {
                tokio::task::yield_now().await;
            }
        }
        stop.store(true, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(20)).await;

        let busy = kameo.clone();
        let stop = load_with(load, move |n| drop(busy[n].tell(Do::Spin).try_send()));
        for _ in 0..SAMPLES {
            theirs.push(sample(&their_start, || async { kameo[0].tell(Do::Panic).await.expect("it lives") }).await);
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
        stop.store(true, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let p99 = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() * 99 / 100]
    };
    let (our_p99, their_p99) = (p99(&mut ours), p99(&mut theirs));
    let goal = goal.then_some(1.2);
    let mut rows = vec![
        Row::against(format!("crash to running, {name}: p50"), median(ours), "us", "kameo 0.22", median(theirs), goal),
        Row::against(format!("crash to running, {name}: p99"), our_p99, "us", "kameo 0.22", their_p99, goal),
    ];
    if load == 0 {
        rows.push(Row::absolute("crash to running, idle: p99 alone", our_p99, "us", Some(1_000.0)));
    }
    rows
}

async fn sample<F: Future<Output = ()>>(started: &Started, crash: impl FnOnce() -> F) -> f64 {
    let (noted, when) = oneshot::channel();
    *started.lock().unwrap() = Some(noted);
    // From rest: what the last round left to do is done.
    tokio::time::sleep(Duration::from_micros(50)).await;
    let began = Instant::now();
    crash().await;
    (when.await.expect("it starts again") - began).as_nanos() as f64 / 1_000.0
}

/// What ractor's process-wide lock costs: links and unlinks of actors that have nothing else in common, by one task and by
/// one on each core.
async fn tree_lock() -> Vec<Row> {
    const EACH: usize = 100_000;
    let mut rows = Vec::new();
    for tasks in [1, 2] {
        let mut rounds = Vec::new();
        for _ in 0..9 {
            let mut pairs = Vec::new();
            for _ in 0..tasks {
                pairs.push((bare_parent().await, bare_parent().await));
            }
            let began = Instant::now();
            let tasks: Vec<_> = pairs
                .iter()
                .cloned()
                .map(|(parent, child)| {
                    tokio::spawn(async move {
                        for _ in 0..EACH {
                            child.link(parent.clone());
                            child.unlink(parent.clone());
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.expect("no panic");
            }
            rounds.push(ns_each(began.elapsed(), EACH));
            for (parent, child) in pairs {
                child.stop(None);
                parent.stop(None);
            }
        }
        let name = format!("ractor's link and unlink of strangers, {tasks} at once");
        rows.push(Row::absolute(name, median(rounds), "ns", None));
    }
    rows
}

/// Bytes of one idle child, each kind in a process of its own.
fn memory() -> Row {
    let measure = |which: &str| -> f64 {
        let program = std::env::current_exe().expect("a path");
        let run = || {
            let output = std::process::Command::new(&program).args(["--memory", which]).output().expect("it runs");
            String::from_utf8_lossy(&output.stdout).trim().parse::<f64>().expect("a number")
        };
        median((0..3).map(|_| run()).collect())
    };
    let (ours, bare) = (measure("ours"), measure("bare"));
    println!("an idle child: {ours:.0} B supervised, {bare:.0} B bare");
    Row::absolute("one idle dynamic child, beyond a bare ractor actor", ours - bare, "bytes", Some(300.0))
}

async fn memory_of(which: &str) {
    const CHILDREN: usize = 100_000;
    let resident = || {
        let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
        statm.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok()).expect("pages") * 4_096.0
    };
    let (dynamic, parent) = (dynamic(CHILDREN as u32).await, bare_parent().await);
    let mut bare = Vec::with_capacity(CHILDREN);
    let before = resident();
    for _ in 0..CHILDREN {
        if which == "ours" {
            dynamic.start_child(()).await.expect("it starts");
        } else {
            bare.push(Victim::spawn_linked(None, Victim(None), (), parent.clone()).await.expect("it starts"));
        }
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    println!("{:.0}", (resident() - before) / CHILDREN as f64);
    std::process::exit(0);
}

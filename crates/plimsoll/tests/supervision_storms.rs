//! Storms: many crashes, and many stops. A small part of the size by default; `PLIMSOLL_STORM=full` for all of it.
//!
//! Memory is judged for the whole process, so that each storm needs one of its own: nextest gives it.

use std::alloc::System;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use plimsoll::supervisor::{
    Backoff, ChildSpec, DynamicSupervisor, Restart, Shutdown, StopFailureKind, Supervisor, SupervisorRef,
};
use plimsoll_testkit::census::Kinds;
use plimsoll_testkit::process::Process;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

/// Panics at every message, and counts its starts.
struct Firework(Arc<AtomicU64>);

struct Burst;

impl Actor for Firework {
    type Msg = Burst;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Burst>, (): ()) -> Result<(), ActorProcessingErr> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Burst>, _: Burst, _: &mut ()) -> Result<(), ActorProcessingErr> {
        panic!("told to panic")
    }
}

fn full() -> bool {
    std::env::var("PLIMSOLL_STORM").is_ok_and(|size| size == "full")
}

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes allocated and not freed.
fn held() -> isize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated.wrapping_sub(stats.bytes_deallocated).cast_signed()
}

/// Resident memory in bytes, the median after each of so many waves; nothing is asked of the allocator in between.
///
/// glibc has an arena for each thread, and children end on another thread than they started on: what its arenas keep
/// drifts between 20.0 and 21.2 MiB while the bytes allocated stay the same, from a wave to the next and over a storm.
/// Seven storms of the full size ended 0.5, 1.9, 2.8, 3.6, 3.9, 4.6 and 5.3 % higher than they began: too near to 5 % to tell
/// a leak from it. With a single arena (`MALLOC_ARENA_MAX=1`, which `just storm` sets) four of them ended 0.3 to 1.5 %
/// higher, at 14.2 MiB: a byte kept of each panic would be noticed.
async fn resident(tree: &SupervisorRef, children: usize, starts: &AtomicU64, waves: usize) -> u64 {
    let this = Process(std::process::id());
    let mut readings = Vec::with_capacity(waves);
    for _ in 0..waves {
        wave(tree, children, starts).await;
        readings.push(this.resident().expect("it has a status"));
    }
    readings.sort_unstable();
    readings[waves / 2]
}

/// How many per cent more than before.
fn grown(before: f64, after: f64) -> f64 {
    100.0 * (after - before) / before
}

/// Makes every child panic once and waits until all have been started again.
async fn wave(tree: &SupervisorRef, children: usize, starts: &AtomicU64) {
    let expected = starts.load(Ordering::Relaxed) + children as u64;
    for n in 0..children {
        let child = tree.child(&format!("{n}")).expect("a child that runs");
        child.actor().send_message(Burst).expect("it lives");
    }
    while starts.load(Ordering::Relaxed) < expected || tree.count_children().expect("it serves").active < children {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_storm() {
    let (children, waves) = if full() { (1_000, 1_000) } else { (200, 100) };
    std::panic::set_hook(Box::new(|_| {}));
    let starts = Arc::new(AtomicU64::new(0));
    let panics = (children * waves) as u64;
    let specs = (0..children).map(|n| {
        let starts = starts.clone();
        let start = move |parent| Firework::spawn_linked(None, Firework(starts.clone()), (), parent);
        ChildSpec::new(format!("{n}"), start).backoff(Backoff::NONE)
    });
    let (warm, measured) = (10, 20);
    let all = (children * (warm + measured + waves)) as u32;
    // A window keeps the time of each restart in it: a short one next to nothing.
    let builder = Supervisor::builder("storm").intensity(all, Duration::from_millis(50));
    let tree = builder.children(specs).start().await.expect("it starts");
    let kinds = Kinds::default().kind::<Burst>("firework");
    for _ in 0..warm {
        wave(&tree, children, &starts).await;
    }
    let resident_before = resident(&tree, children, &starts, measured).await;
    let (census, memory, began) = (kinds.census(&tree.actor()), held(), Instant::now());
    for _ in measured..waves {
        wave(&tree, children, &starts).await;
    }
    let resident_after = resident(&tree, children, &starts, measured).await;
    let took = began.elapsed();
    // The last to panic end in their own time.
    let mut change = kinds.census(&tree.actor()).since(&census);
    let end = Instant::now() + Duration::from_secs(20);
    while !change.is_empty() && Instant::now() < end {
        tokio::task::yield_now().await;
        change = kinds.census(&tree.actor()).since(&census);
    }
    assert!(change.is_empty(), "{change}");
    let restarts = tree.inspect().details.counters["restarts"];
    assert_eq!(restarts, u64::from(all));
    assert_eq!(starts.load(Ordering::Relaxed), restarts + children as u64);
    let allocated = grown(memory as f64, held() as f64);
    println!("{panics} panics in {took:?}, {allocated:+.2} % more held than the {memory} B before");
    assert!(allocated < 5.0, "{allocated:.1} % more is held than before");
    let resident = grown(resident_before as f64, resident_after as f64);
    println!("{resident:+.2} % more is resident than the {resident_before} B before");
    // In a small storm 5 % would be some pages, and other tests may run in this process.
    assert!(!full() || resident < 5.0, "{resident:.1} % more is resident than before");
    tree.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_is_exact() {
    let (children, waves) = (100, 50);
    std::panic::set_hook(Box::new(|_| {}));
    let starts = Arc::new(AtomicU64::new(0));
    let specs = (0..children).map(|n| {
        let starts = starts.clone();
        let start = move |parent| Firework::spawn_linked(None, Firework(starts.clone()), (), parent);
        ChildSpec::new(format!("{n}"), start).backoff(Backoff::NONE)
    });
    let budget = (children * waves) as u32;
    let builder = Supervisor::builder("budget").intensity(budget, Duration::from_secs(86_400));
    let tree = builder.children(specs).start().await.expect("it starts");
    for _ in 0..waves {
        wave(&tree, children, &starts).await;
    }
    assert!(tree.report().is_none(), "so many restarts are within it, and one more is not");
    tree.child("0").expect("a child that runs").actor().send_message(Burst).expect("it lives");
    assert!(matches!(tree.wait().await.unwrap().cause, plimsoll::supervisor::ShutdownCause::GaveUp { .. }));
}

/// Obeys a stop, or does not.
struct Member {
    straggles: bool,
}

impl Actor for Member {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<()>, _: &mut ()) -> Result<(), ActorProcessingErr> {
        if self.straggles {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_storm() {
    // Three levels: 50 groups (or 5) of a static supervisor with 10 members and a dynamic one with 90. The members are what
    // is counted, 5,000 (or 500); the 101 (or 11) supervisors above them come on top.
    let (fixed, pooled) = (10, 90);
    let groups = if full() { 50 } else { 5 };
    let grace = Duration::from_millis(40);
    let stragglers = Arc::new(std::sync::Mutex::new(BTreeSet::new()));
    let group = |g: usize| {
        let straggling = stragglers.clone();
        move || {
            let members = (0..fixed).map(|m| {
                let straggles = m == 3 && g.is_multiple_of(2);
                let start = move |parent| Member::spawn_linked(None, Member { straggles }, (), parent);
                ChildSpec::new(format!("m{m}"), start).shutdown(Shutdown::After(grace))
            });
            if g.is_multiple_of(2) {
                straggling.lock().unwrap().insert(format!("g{g}/m3"));
            }
            let pool = ChildSpec::supervisor("pool", move || {
                DynamicSupervisor::builder("pool", |parent: ActorCell, straggles: bool| {
                    Member::spawn_linked(None, Member { straggles }, (), parent)
                })
                .restart(Restart::Transient)
                .shutdown(Shutdown::After(grace))
            });
            Supervisor::builder(format!("g{g}")).children(members).child(pool)
        }
    };
    let specs = (0..groups).map(|g| ChildSpec::supervisor(format!("g{g}"), group(g)));
    let tree = Supervisor::builder("storm").children(specs).start().await.expect("it starts");
    for g in 0..groups {
        let group = tree.child(&format!("g{g}")).unwrap().value::<SupervisorRef>().unwrap();
        let pool = group.child("pool").unwrap().value::<plimsoll::supervisor::DynamicSupervisorRef<bool>>().unwrap();
        for m in 0..pooled {
            let straggles = m == 7 && !g.is_multiple_of(2);
            let child = pool.start_child(straggles).await.unwrap();
            if straggles {
                stragglers.lock().unwrap().insert(format!("g{g}/pool/{}", child.actor().get_id()));
            }
        }
    }
    // Each group has one straggler: in the static part its grace is one of a sum, in the pool the common one.
    let critical = grace * groups as u32;
    let began = Instant::now();
    let report = tree.stop().await.unwrap();
    let took = began.elapsed();
    println!("{} members stopped in {took:?}, the graces are {critical:?}", groups * (fixed + pooled));
    let named: BTreeSet<String> = report.stragglers().map(|failure| failure.path.join("/")).collect();
    assert!(report.stragglers().all(|failure| failure.kind == StopFailureKind::Killed));
    assert_eq!(named, *stragglers.lock().unwrap());
    assert_eq!(report.stragglers().count(), groups);
    // One grace after the other for all members would be twenty times as long.
    let slack = if full() { Duration::from_millis(250) } else { Duration::from_secs(5) };
    assert!(took < critical + slack, "{took:?}");
}

//! Kills, stops, crashes and operations at every step of start, run, restart and stop, on two and four threads.
//!
//! A second and a half for each test; `PLIMSOLL_STRESS_SECONDS` for longer. A failure names the seed of its round:
//! `PLIMSOLL_STRESS_SEED` runs that round first.

use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll::supervisor::{
    Backoff, ChildSpec, ChildState, DynamicSupervisorRef, Strategy, Supervisor, SupervisorBuilder, SupervisorRef,
};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::stage::{Living, agent, agents, fail};

const WORKERS: [&str; 3] = ["a", "b", "c"];

fn time_to_run() -> Duration {
    let seconds = std::env::var("PLIMSOLL_STRESS_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    seconds.map_or(Duration::from_millis(1_500), Duration::from_secs)
}

fn first_seed() -> u64 {
    let seed = std::env::var("PLIMSOLL_STRESS_SEED").ok().and_then(|seed| seed.parse().ok());
    seed.unwrap_or_else(rand::random)
}

/// Workers whose start takes some polls.
fn slow_start(id: &str, living: &Living) -> ChildSpec {
    let living = living.clone();
    ChildSpec::new(id, move |parent| {
        let living = living.clone();
        async move {
            yields(2).await;
            crate::stage::Agent::start(living, parent).await
        }
    })
    .backoff(Backoff::NONE)
}

fn nested(id: &str, living: &Living) -> ChildSpec {
    let living = living.clone();
    ChildSpec::supervisor(id, move || many(Supervisor::builder("nested"), &living)).backoff(Backoff::NONE)
}

fn dynamic(id: &str, living: &Living) -> ChildSpec {
    let living = living.clone();
    ChildSpec::supervisor(id, move || agents(&living).intensity(u32::MAX, Duration::from_millis(10)))
        .backoff(Backoff::NONE)
}

fn many(builder: SupervisorBuilder, living: &Living) -> SupervisorBuilder {
    let builder = builder.intensity(u32::MAX, Duration::from_millis(10));
    builder.children([agent("a", living), slow_start("b", living), agent("c", living)])
}

async fn yields(count: u32) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}

/// What a disturbance may do to a tree that is to heal by itself.
#[derive(Clone, Copy, Debug)]
enum Blow {
    FailWorker,
    KillWorker,
    StopWorker,
    KillNested,
    StopNested,
    FailInner,
    KillDynamic,
    KillDynamicChild,
    StartDynamic,
    TerminateDynamic,
    Terminate,
    Restart,
}

const BLOWS: [Blow; 12] = [
    Blow::FailWorker,
    Blow::KillWorker,
    Blow::StopWorker,
    Blow::KillNested,
    Blow::StopNested,
    Blow::FailInner,
    Blow::KillDynamic,
    Blow::KillDynamicChild,
    Blow::StartDynamic,
    Blow::TerminateDynamic,
    Blow::Terminate,
    Blow::Restart,
];

fn inner(top: &SupervisorRef) -> Option<Arc<SupervisorRef>> {
    top.child("nested").ok()?.value()
}

fn pool(top: &SupervisorRef) -> Option<Arc<DynamicSupervisorRef<()>>> {
    top.child("dynamic").ok()?.value()
}

fn dynamic_child(top: &SupervisorRef) -> Option<ractor::ActorCell> {
    pool(top)?.which_children().ok()?.into_iter().find_map(|child| match child.state {
        ChildState::Running(actor) => Some(actor),
        _ => None,
    })
}

async fn strike(top: &SupervisorRef, blow: Blow, id: &str) {
    let worker = || Some(top.child(id).ok()?.actor().clone());
    match blow {
        Blow::FailWorker => drop(worker().map(|actor| fail(&actor))),
        Blow::KillWorker => drop(worker().map(|actor| actor.kill())),
        Blow::StopWorker => drop(worker().map(|actor| actor.stop(None))),
        Blow::KillNested => drop(top.child("nested").map(|child| child.actor().kill())),
        Blow::StopNested => drop(top.child("nested").map(|child| child.actor().stop(None))),
        Blow::FailInner => drop(inner(top).and_then(|tree| tree.child(id).ok()).map(|child| fail(child.actor()))),
        Blow::KillDynamic => drop(top.child("dynamic").map(|child| child.actor().kill())),
        Blow::KillDynamicChild => drop(dynamic_child(top).map(|actor| actor.kill())),
        Blow::StartDynamic => {
            if let Some(pool) = pool(top) {
                let _ = pool.start_child(()).await;
            }
        }
        Blow::TerminateDynamic => {
            if let (Some(pool), Some(actor)) = (pool(top), dynamic_child(top)) {
                let _ = pool.terminate_child(&actor).await;
            }
        }
        Blow::Terminate => drop(top.terminate_child(id).await),
        Blow::Restart => drop(top.restart_child(id).await),
    }
}

/// One of several that disturb a tree at once.
async fn disturb(top: SupervisorRef, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..random.random_range(1..8) {
        let (blow, id) = (*BLOWS.choose(&mut random).unwrap(), *WORKERS.choose(&mut random).unwrap());
        strike(&top, blow, id).await;
        yields(random.random_range(0..6)).await;
    }
}

/// Waits until everything runs again, what was terminated by hand included.
async fn heals(top: &SupervisorRef) -> bool {
    let healed = async {
        loop {
            let ids = WORKERS.iter().chain(&["nested", "dynamic"]);
            let mut whole = true;
            for id in ids {
                if top.child(id).is_err() {
                    whole = false;
                    let _ = top.restart_child(id).await;
                }
            }
            whole &= inner(top).is_some_and(|tree| WORKERS.iter().all(|id| tree.child(id).is_ok()));
            if whole {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), healed).await.is_ok()
}

/// How a round ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// Its start is dropped.
    DropStart,
    Kill,
    StopActor,
    Stop,
    HealThenStop,
}

const ENDS: [End; 6] = [End::DropStart, End::Kill, End::StopActor, End::Stop, End::HealThenStop, End::HealThenStop];

async fn round(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let living = Living::default();
    let strategy = *[Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne].choose(&mut random).unwrap();
    let builder = many(Supervisor::builder("top").strategy(strategy), &living);
    let builder = builder.child(nested("nested", &living)).child(dynamic("dynamic", &living));
    let end = *ENDS.choose(&mut random).unwrap();
    let starting = tokio::spawn(builder.start());
    if end == End::DropStart {
        yields(random.random_range(0..40)).await;
        starting.abort();
    }
    let top = match starting.await {
        Ok(started) => started.unwrap(),
        Err(_) => return living.until_none().await,
    };
    let disturbing: Vec<_> = (0..3).map(|_| tokio::spawn(disturb(top.clone(), random.random()))).collect();
    yields(random.random_range(0..60)).await;
    match end {
        End::Kill => top.actor().kill(),
        End::StopActor => top.actor().stop(None),
        End::HealThenStop => {
            for disturbance in disturbing {
                disturbance.await.unwrap();
            }
            assert!(heals(&top).await, "seed {seed}: it does not heal: {:?}", top.inspect());
        }
        End::DropStart | End::Stop => {}
    }
    let ended = tokio::time::timeout(Duration::from_secs(20), top.stop()).await;
    assert!(ended.is_ok(), "seed {seed}: {end:?} of {strategy:?} does not end: {:?}", top.inspect());
    let report = top.report().expect("it has ended");
    assert_eq!(report.stragglers().count(), 0, "seed {seed}: {end:?} of {strategy:?}: {report}");
    living.until_none().await;
}

async fn rounds() {
    let (began, mut seed) = (Instant::now(), first_seed());
    while began.elapsed() < time_to_run() {
        let limit = Duration::from_secs(60);
        assert!(tokio::time::timeout(limit, round(seed)).await.is_ok(), "seed {seed}: the round does not end");
        seed = seed.wrapping_add(1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trees_survive_blows_at_every_step_on_two_threads() {
    rounds().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn trees_survive_blows_at_every_step_on_four_threads() {
    rounds().await;
}

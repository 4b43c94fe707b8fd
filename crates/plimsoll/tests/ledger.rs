//! The ledger: calls against servers that panic, are killed, stopped, drained and restarted, by callers that wait, give
//! up, are killed and die. Every id settles exactly once and runs at most once, the books balance at every sample, and in
//! the end nothing is left.
//!
//! A seed replays its run: time is paused and the runtime has one thread. 100,000 calls in an ordinary run;
//! `PLIMSOLL_LEDGER_CALLS` and `PLIMSOLL_LEDGER_SEED` say otherwise (`just ledger`).

#![allow(unreachable_pub, missing_debug_implementations, reason = "a test program")]

mod common;
mod ledger {
    pub mod callers;
    pub mod fates;
    pub mod stage;
}

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ledger::callers::caller;
use ledger::stage::Stage;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::runtime::Handle;

const CALLERS: usize = 64;

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}: a whole number")))
}

/// Runs `calls` calls; what they came to.
fn run(seed: u64, calls: usize) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let before = Handle::current().metrics().num_alive_tasks();
        let stage = Arc::new(Stage::start(seed).await);
        let troubles = tokio::spawn(Arc::clone(&stage).trouble(seed));
        let sampler = tokio::spawn({
            let stage = Arc::clone(&stage);
            async move {
                let mut tick = tokio::time::interval(Duration::from_millis(1));
                loop {
                    tick.tick().await;
                    stage.check_books();
                }
            }
        });
        let mut seeds = StdRng::seed_from_u64(seed);
        let callers: Vec<_> = (0..CALLERS)
            .map(|n| {
                let share = calls / CALLERS + usize::from(n < calls % CALLERS);
                tokio::spawn(caller(Arc::clone(&stage), seeds.random(), share))
            })
            .collect();
        for caller in callers {
            caller.await.expect("a caller");
        }
        stage.over.store(true, Ordering::Relaxed);
        troubles.await.expect("the trouble-maker");
        sampler.abort();
        let _ = sampler.await;
        let came_to = stage.end().await;
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        assert!(Handle::current().metrics().num_alive_tasks() <= before, "tasks are left, seed {seed}");
        came_to
    })
}

/// The panics that are part of the load would fill the log.
fn silence_fate() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if panic.payload_as_str() != Some("fate") {
                hook(panic);
            }
        }));
    });
}

/// E-8, E-9, E-10, E-12, R-2, R-20: the law of the crate: each call by its own id.
#[test]
fn every_call_settles_once_and_runs_at_most_once() {
    silence_fate();
    let (seed, calls) = (setting("PLIMSOLL_LEDGER_SEED", 20_261_121), setting("PLIMSOLL_LEDGER_CALLS", 100_000));
    let came_to = run(seed, usize::try_from(calls).unwrap());
    println!("seed {seed}, {calls} calls: {came_to}");
}

/// The same seed gives the same run.
#[test]
fn a_seed_replays_its_run() {
    silence_fate();
    assert_eq!(run(7, 3_000), run(7, 3_000));
    assert_ne!(run(7, 3_000), run(8, 3_000));
}

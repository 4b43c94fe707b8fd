//! A first supervised service: two async functions, one of which crashes. `cargo run --example supervised_service`
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use plimsoll::supervisor::{Backoff, BoxError, CancellationToken, ChildSpec, Supervisor};

static RUNS: AtomicU32 = AtomicU32::new(0);

/// Crashes twice, then works until it is asked to stop.
async fn worker(stop: CancellationToken) -> Result<(), BoxError> {
    let run = RUNS.fetch_add(1, Ordering::Relaxed) + 1;
    println!("worker: run {run}");
    if run < 3 {
        return Err(format!("run {run} went wrong").into());
    }
    stop.cancelled().await;
    println!("worker: stopped");
    Ok(())
}

async fn listener(stop: CancellationToken) -> Result<(), BoxError> {
    println!("listener: listening");
    stop.cancelled().await;
    println!("listener: closed");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let tree = Supervisor::builder("service")
        .intensity(5, Duration::from_secs(10))
        .child(ChildSpec::task("listener", listener))
        .child(ChildSpec::task("worker", worker).backoff(Backoff::constant(Duration::from_millis(10))))
        .start()
        .await?;
    tokio::time::sleep(Duration::from_millis(200)).await; // a real service waits for ctrl-c here
    println!("stopped cleanly: {}", tree.stop().await.unwrap().is_clean());
    Ok(())
}

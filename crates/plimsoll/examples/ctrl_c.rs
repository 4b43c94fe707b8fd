//! Runs until Ctrl-C, or until the tree ends by itself; then reports how it ended.
use plimsoll::supervisor::{BoxError, CancellationToken, ChildSpec, Supervisor};
use tokio::signal::unix::{SignalKind, signal};

async fn worker(stop: CancellationToken) -> Result<(), BoxError> {
    stop.cancelled().await;
    println!("worker: stopped");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut interrupts = signal(SignalKind::interrupt())?;
    let tree = Supervisor::builder("app").child(ChildSpec::task("worker", worker)).start().await?;
    println!("running, stop with Ctrl-C");
    let report = tree.run_until(interrupts.recv()).await?;
    println!("stopped cleanly: {}", report.is_clean());
    Ok(())
}

//! A caching image proxy: fetches from an origin over HTTP, keeps what it fetched in memory and in a folder, serves many.
//!
//! It does the job of the image server whose memory analysis gave the requirements, out of plimsoll's bounded
//! parts: each tenant's client of the origin stands in a pool, each request runs in a worker of its own, one fetch a key
//! goes to the client and into a capped copy, and the folder is filled in the background.
//!
//! On stdout: one line of JSON when it serves and one when it has stopped. Exit codes: 0 good, 1 it failed, 2 wrong use.

#[cfg(plimsoll_controls)]
mod before;
mod body;
mod cacheable;
#[cfg(plimsoll_controls)]
mod controls;
mod front;
mod heap;
mod images;
mod key;
mod mechanisms;
mod origin;
mod settings;
mod store;
mod tree;
mod write_timeout;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use plimsoll_console::LossyWriter;
use tokio::signal::unix::{SignalKind, signal};

use crate::settings::Settings;

fn main() -> ExitCode {
    let settings = Settings::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(run(settings))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "image-proxy: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: Settings) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let (tree, address) = tree::start(settings).await?;
    // A reader that stalls must not stop the proxy.
    let mut out = LossyWriter::new("stdout", std::io::stdout(), 64 << 10, |_| String::new())?;
    writeln!(out, "{}", serde_json::json!({ "event": "serving", "address": address }))?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
        () = async { drop(tree.wait().await) } => anyhow::bail!("the supervisor gave up"),
    }
    let report = tree.stop().await?;
    let tasks = last_tasks().await;
    writeln!(out, "{}", serde_json::json!({ "event": "stopped", "clean": report.is_clean(), "tasks": tasks }))?;
    out.flush_within(Duration::from_millis(500));
    anyhow::ensure!(report.is_clean(), "not everything stopped: {report:?}");
    Ok(())
}

/// The tasks that are left: connections whose client was dropped end in tasks of their own, a moment later.
async fn last_tasks() -> usize {
    let metrics = tokio::runtime::Handle::current().metrics();
    for _ in 0..100 {
        if metrics.num_alive_tasks() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    metrics.num_alive_tasks()
}

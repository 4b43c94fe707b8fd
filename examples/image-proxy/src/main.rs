//! A caching image proxy: fetches from an origin over HTTP, keeps what it fetched in memory and in a folder, serves many.
//!
//! It does the job of the image server whose memory analysis gave the requirements, with plimsoll's bounded parts:
//! a pool holds the clients of the origin, one for each tenant; each request runs in its own worker; an image is fetched once for
//! all that request it, and streams to its client while a capped copy is made; the folder is filled in the background.
//!
//! On stdout: one line of JSON when it serves and one when it has stopped. Exit codes: 0 success, 1 failure, 2 usage error.

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
mod origin;
mod output;
mod settings;
mod store;
mod tree;
mod write_timeout;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::settings::Settings;

fn main() -> ExitCode {
    let settings = Settings::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let done = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(run(settings)));
    let code = match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::warn(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    };
    output::flush();
    code
}

async fn run(settings: Settings) -> anyhow::Result<()> {
    output::start()?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (tree, address) = tree::start(settings).await?;
    output::event(&serde_json::json!({ "event": "serving", "address": address }));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
        () = async { drop(tree.wait().await) } => anyhow::bail!("the supervision tree ended by itself"),
    }
    let report = tree.stop().await?;
    let tasks = last_tasks().await;
    output::event(&serde_json::json!({ "event": "stopped", "clean": report.is_clean(), "tasks": tasks }));
    anyhow::ensure!(report.is_clean(), "not everything stopped: {report}");
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

//! `demo`: three nodes on this machine and a tour with faults, after which they stay for the user to try.

mod children;
mod steps;
mod tour;

use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use serde_json::json;

use crate::failure::Failure;
use crate::output::{self, Paint};
use crate::signals::{self, Signals};
use children::Trio;
use steps::Step;

/// Arguments of `demo`.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 every step had the expected result, 1 at least one had not.")]
pub(crate) struct DemoArgs {
    /// Stop the nodes after the tour instead of keeping them for you to try.
    #[arg(long)]
    once: bool,
    /// Print the outcome of each step as JSON lines, and nothing else on stdout.
    #[arg(long)]
    json: bool,
    /// Makes this step fail, for the tests of the tour itself.
    #[arg(long, hide = true, value_enum)]
    fail: Option<Step>,
}

/// How soon the three nodes must be connected and know all services.
pub(crate) const READY_WITHIN: Duration = Duration::from_secs(2);

/// How long the three may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(60);

pub(crate) async fn run(args: DemoArgs, paint: Paint) -> Result<(), Failure> {
    let mut signals = Signals::new().context("no signals")?;
    let began = Instant::now();
    let mut trio = tokio::select! {
        trio = Trio::start() => trio?,
        _ = signals.next() => return Err(Failure::because("interrupted")),
    };
    let ready = began.elapsed();
    let mut good = ready <= READY_WITHIN;
    let interrupted = tokio::select! {
        outcome = tour::run(&mut trio, &args, paint, ready) => {
            good &= outcome?;
            false
        }
        _ = signals.next() => true,
    };
    if !args.once && !interrupted {
        if !args.json {
            tour::print_examples(&trio, paint);
        }
        let _ = signals.next().await;
    }
    // If this does not finish, the nodes end with this process.
    let stopped = signals::stopped(trio.stop(), signals.stop(), STOP_WITHIN).await.map_err(Failure::because)?;
    if args.json {
        output::print(&format!("{}\n", json!({ "schema": 1, "event": "end", "met": good, "stopped": stopped })));
    } else {
        output::print(&format!("\n{stopped}\n"));
    }
    if good && !interrupted { Ok(()) } else { Err(Failure::Failed(None)) }
}

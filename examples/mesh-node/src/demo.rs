//! `demo`: three nodes on this machine, a tour with faults, then a playground.

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

/// `demo`, parsed.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 each step was as announced, 1 one was not.")]
pub(crate) struct DemoArgs {
    /// End after the tour.
    #[arg(long)]
    once: bool,
    /// Say how each step went as JSON lines, and nothing else on stdout.
    #[arg(long)]
    json: bool,
    /// Makes what this step announces untrue, for the tests of the tour itself.
    #[arg(long, hide = true, value_enum)]
    untrue: Option<Step>,
}

/// How soon the three nodes must know each other and all services.
pub(crate) const READY_WITHIN: Duration = Duration::from_secs(2);

/// How long the three may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(60);

pub(crate) async fn run(args: DemoArgs, paint: Paint) -> Result<(), Failure> {
    let mut signals = Signals::new().context("no signals")?;
    let began = Instant::now();
    let mut trio = tokio::select! {
        trio = Trio::start() => trio?,
        () = signals.next() => return Err(Failure::because("interrupted")),
    };
    let ready = began.elapsed();
    let mut good = ready <= READY_WITHIN;
    let interrupted = tokio::select! {
        told = tour::run(&mut trio, &args, paint, ready) => {
            good &= told?;
            false
        }
        () = signals.next() => true,
    };
    if !args.once && !interrupted {
        if !args.json {
            tour::invite(&trio, paint);
        }
        signals.next().await;
    }
    // Cut short, the nodes die with this process.
    let farewell = signals::stopped(trio.stop(), signals.next(), STOP_WITHIN).await.map_err(Failure::because)?;
    if args.json {
        output::print(&format!("{}\n", json!({ "schema": 1, "event": "end", "met": good, "stopped": farewell })));
    } else {
        output::print(&format!("\n{farewell}\n"));
    }
    if good && !interrupted { Ok(()) } else { Err(Failure::Failed(None)) }
}

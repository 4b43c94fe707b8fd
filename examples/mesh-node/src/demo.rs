//! `demo`: three nodes on this machine, a tour with faults, then a playground.

mod children;
mod steps;
mod tour;

use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;
use crate::output::{self, Paint};
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

pub(crate) async fn run(args: DemoArgs, paint: Paint) -> Result<(), Failure> {
    let mut interrupt = signal(SignalKind::interrupt()).context("no signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("no signals")?;
    let stop = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    tokio::pin!(stop);
    let began = Instant::now();
    let mut trio = tokio::select! {
        trio = Trio::start() => trio?,
        () = &mut stop => return Err(Failure::because("interrupted")),
    };
    let ready = began.elapsed();
    let mut good = ready <= READY_WITHIN;
    let interrupted = tokio::select! {
        told = tour::run(&mut trio, &args, paint, ready) => {
            good &= told?;
            false
        }
        () = &mut stop => true,
    };
    if !args.once && !interrupted {
        if !args.json {
            tour::invite(&trio, paint);
        }
        stop.await;
    }
    let farewell = trio.stop().await;
    if args.json {
        output::print(&format!("{}\n", json!({ "schema": 1, "event": "end", "met": good, "stopped": farewell })));
    } else {
        output::print(&format!("\n{farewell}\n"));
    }
    if good && !interrupted { Ok(()) } else { Err(Failure::Failed(None)) }
}

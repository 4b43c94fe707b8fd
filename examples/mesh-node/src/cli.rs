//! The command line: which commands there are.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::args::{ReadArgs, ServeArgs, TreeArgs};
use crate::command;
use crate::demo;
use crate::failure::Failure;
use crate::output::{Color, Paint};
use crate::streams;

/// A mesh node: HTTP/3 gateway, peers and supervised services in one process, and commands to inspect it.
#[derive(Debug, Parser)]
#[command(name = "mesh-node", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
    /// When to use colours.
    #[arg(long, global = true, value_enum, default_value = "auto", value_name = "WHEN")]
    color: Color,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start three nodes on this machine and show what they do, faults included
    Demo(demo::DemoArgs),
    /// Run a node until a signal stops it; SIGHUP reads its settings again
    Serve(ServeArgs),
    /// Call a service through a node
    Call(command::call::CallArgs),
    /// List the services that a running node knows
    Services(ReadArgs),
    /// List the nodes that a running node knows
    Nodes(ReadArgs),
    /// List the latest events of a running node
    Events(ReadArgs),
    /// Show the supervision tree of a running node
    Tree(TreeArgs),
    /// Show this node's id, making its key at first use
    Identity(ReadArgs),
}

/// Runs the command.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let paint = Paint::new(cli.color);
    let code = match run(cli.command, paint) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    };
    streams::flush();
    code
}

fn run(verb: Verb, paint: Paint) -> Result<(), Failure> {
    // A node uses all cores; a command that waits for one response does not.
    let mut runtime = match verb {
        Verb::Serve(_) => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = runtime.enable_all().build().map_err(|error| Failure::because(format!("no runtime: {error}")))?;
    let done = runtime.block_on(async {
        match verb {
            Verb::Demo(args) => demo::run(args, paint).await,
            Verb::Serve(args) => command::serve::run(args).await,
            Verb::Call(args) => command::call::run(args).await,
            Verb::Services(args) => command::read::services(args, paint).await,
            Verb::Nodes(args) => command::read::nodes(args, paint).await,
            Verb::Events(args) => command::read::events(args, paint).await,
            Verb::Tree(args) => command::read::tree(args, paint).await,
            Verb::Identity(args) => command::identity::run(args),
        }
    });
    // Tasks that did not stop in time are not waited for.
    runtime.shutdown_background();
    done
}

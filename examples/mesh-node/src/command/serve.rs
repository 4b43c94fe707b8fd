//! `serve`: a node until SIGTERM or Ctrl-C.

use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use plimsoll::supervisor::{ShutdownReport, StopFailureKind};
use plimsoll_console::Console;
use plimsoll_mesh::names::NodeId;
use plimsoll_mesh::node::{ADMIN_SOCKET, Node, NodeConfig, NodeError, Trusted};
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

use crate::cli::ServeArgs;
use crate::failure::Failure;
use crate::output;
use crate::panics;
use crate::settings::{Budget, Settings};
use crate::signals::{self, Signals};

/// What `serve --json` says, a line each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    Ready(Ready),
    Stopped(Stopped),
}

/// The node serves.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ready {
    pub(crate) schema: u32,
    pub(crate) node: NodeId,
    pub(crate) address: SocketAddr,
    /// Where others reach it.
    pub(crate) advertised: SocketAddr,
    pub(crate) data: PathBuf,
}

/// The node has stopped.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Stopped {
    pub(crate) schema: u32,
    pub(crate) reason: String,
    pub(crate) took_ms: u64,
    /// Who outlasted its grace, by its path in the tree.
    pub(crate) killed: Vec<String>,
    /// Who did not end even then.
    pub(crate) kill_timed_out: Vec<String>,
}

const SCHEMA: u32 = 1;

/// How long a stop may take: far longer than all graces of the tree together.
const STOP_WITHIN: Duration = Duration::from_secs(60);

pub(crate) async fn run(args: ServeArgs) -> Result<(), Failure> {
    let settings = Settings::from_layers(&args.layers()?)?;
    log(&settings)?;
    panics::log();
    if args.tied {
        end_with_stdin(settings.data.clone());
    }
    let mut signals = Signals::new().context("no signals")?;
    let node = tokio::select! {
        node = start(&settings) => node?,
        () = signals.next() => return Err(Failure::because("ended by a signal before the node was ready")),
    };
    ready(&node, &settings, args.json);
    tokio::select! {
        () = signals.next() => {}
        report = node.wait() => {
            stopped(&report, args.json);
            return Err(Failure::because(format!("the node gave up: {}", report.reason)));
        }
    }
    if !args.json {
        output::say("stopping; a second signal ends the node at once");
    }
    match signals::stopped(node.stop(), signals.next(), STOP_WITHIN).await {
        Ok(report) => {
            stopped(&report, args.json);
            Ok(())
        }
        Err(cut_short) => {
            node.close().await;
            Err(Failure::because(cut_short))
        }
    }
}

async fn start(settings: &Settings) -> Result<Node, Failure> {
    let mut config = NodeConfig::new(settings.data.clone(), settings.listen);
    config.advertise = settings.advertise;
    config.realm = settings.realm.clone();
    config.trusted = if settings.open { Trusted::Open } else { Trusted::Listed(settings.allow_list.clone()) };
    config.seeds = settings.seeds.clone();
    config.max_peers = settings.max_peers;
    config.max_events = settings.max_events;
    config.gossip_interval = settings.gossip_interval;
    config.service_ttl = settings.service_ttl;
    config.choice = settings.choice;
    config.gateway.clients = settings.max_clients;
    config.gateway.idle_timeout = settings.client_idle;
    config.gateway.body_bytes = settings.max_body;
    config.gateway.all_responses_bytes = settings.answer_bytes;
    config.gateway.deadline = settings.call_deadline;
    config.gateway.admission = settings.admission;
    config.gateway.advertisements = settings.advertisements.clone();
    config.gateway.pubsub = settings.pubsub;
    config.memory_budget = match settings.budget {
        Budget::Bytes(bytes) => bytes,
        Budget::Percent(percent) => {
            let (all, _) = plimsoll_mesh::node::memory()
                .ok_or_else(|| Failure::because("the system does not tell its memory; set memory.budget in bytes"))?;
            all / 100 * u64::from(percent)
        }
    };
    let builder = settings.services.iter().fold(Node::builder(config), |builder, service| {
        builder.service(service.offer(settings.max_in_flight, settings.call_deadline))
    });
    let socket = settings.data.join(ADMIN_SOCKET);
    let builder = builder.console(move |parent, view| Console::new(&socket, move || view.snapshot()).start(parent));
    builder.start().await.map_err(|error| match error {
        NodeError::BudgetTooSmall(_)
        | NodeError::AllowList(_)
        | NodeError::NoAddress(_)
        | NodeError::BadAdvertise(_) => Failure::Usage(error.into()),
        error => Failure::Failed(Some(error.into())),
    })
}

fn log(settings: &Settings) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&settings.log)
        .map_err(|error| Failure::Usage(anyhow::anyhow!("log.filter = {:?}: {error}", settings.log)))?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        // A line that cannot be written is lost. Told on stderr, which is what failed, it would be a panic of whoever
        // logged it: a supervisor, or the holder of a stream.
        .log_internal_errors(false);
    if settings.log_json {
        subscriber.json().init()
    } else {
        subscriber.init()
    }
    Ok(())
}

/// Ends this process when stdin does, and removes its data: whoever holds the other end is gone.
///
/// A thread of its own, so that not even a blocked runtime keeps the process alive.
fn end_with_stdin(data: PathBuf) {
    std::thread::spawn(move || {
        let mut sink = [0; 64];
        while std::io::stdin().read(&mut sink).is_ok_and(|read| read > 0) {}
        let _ = std::fs::remove_dir_all(&data);
        if let Some(parent) = data.parent() {
            // Logs of the siblings may be there; the last one to end removes the folder.
            let _ = std::fs::remove_file(data.with_extension("log"));
            let _ = std::fs::remove_dir(parent);
        }
        std::process::exit(1);
    });
}

fn ready(node: &Node, settings: &Settings, json: bool) {
    if json {
        let (address, advertised, data) = (node.address(), node.advertised(), settings.data.clone());
        print(&Event::Ready(Ready { schema: SCHEMA, node: node.id(), address, advertised, data }));
        return;
    }
    let (address, advertised) = (node.address(), node.advertised());
    output::say(format_args!("node {} listens on {address} (UDP), realm {}", node.id(), settings.realm));
    if advertised != address {
        output::say(format_args!("others reach it at {advertised}"));
    }
    let services: Vec<_> = settings.services.iter().map(|service| service.name()).collect();
    match settings.services.first() {
        Some(service) => {
            output::say(format_args!("services: {}", services.join(" ")));
            let (id, example) = (node.id(), service.example());
            output::say(format_args!("try: mesh-node call --to {advertised} --pin {id} {example}"));
        }
        None => {
            output::say("services: none of its own; it passes calls on to other nodes");
            output::say(format_args!("try: mesh-node services --data {}", settings.data.display()));
        }
    }
}

fn stopped(report: &ShutdownReport, json: bool) {
    let path = |failure: &plimsoll::supervisor::StopFailure| failure.path.join("/");
    let stopped = Stopped {
        schema: SCHEMA,
        reason: report.reason.to_string(),
        took_ms: u64::try_from(report.took.as_millis()).unwrap_or(u64::MAX),
        killed: report.stragglers().filter(|failure| failure.kind == StopFailureKind::Killed).map(path).collect(),
        kill_timed_out: report.kill_timed_out().map(path).collect(),
    };
    if json {
        print(&Event::Stopped(stopped));
    } else if report.is_clean() {
        output::say(format_args!("stopped in {} ms; nobody had to be killed", stopped.took_ms));
    } else {
        output::say(report);
    }
}

/// A node serves on when nobody can hear it.
fn print(event: &Event) {
    let line = serde_json::to_string(event).map_err(std::io::Error::from);
    if let Err(error) = line.and_then(|line| output::write(format!("{line}\n").as_bytes())) {
        output::say(format_args!("error: cannot write to stdout: {error}"));
    }
}

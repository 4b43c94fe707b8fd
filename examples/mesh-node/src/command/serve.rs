//! `serve`: runs a node until a signal stops it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use plimsoll::supervisor::{ShutdownReport, StopFailure, StopFailureKind};
use plimsoll_console::Console;
use plimsoll_mesh::names::NodeId;
use plimsoll_mesh::node::{ADMIN_SOCKET, Node, NodeError};
use serde::{Deserialize, Serialize, Serializer};
use tracing::{info, warn};

use crate::args::ServeArgs;
use crate::events;
use crate::failure::Failure;
use crate::log::{self, Log};
use crate::panics;
use crate::settings::{Layers, Settings};
use crate::signals::{self, Asked, Signals};
use crate::streams::{self, say};
use crate::tied;

/// What `serve --json` prints, a line each.
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
    /// The data folder; bytes that are not UTF-8 are replaced.
    #[serde(serialize_with = "lossy")]
    pub(crate) data: PathBuf,
}

/// The node has stopped.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Stopped {
    pub(crate) schema: u32,
    pub(crate) reason: String,
    pub(crate) took_ms: u64,
    /// Calls of clients that were still running after the grace. They may have run.
    pub(crate) calls_cut_off: u64,
    /// Paths in the tree of those that outlasted their grace and were killed.
    pub(crate) killed: Vec<String>,
    /// Paths in the tree of those that did not exit even then.
    pub(crate) kill_timed_out: Vec<String>,
}

const SCHEMA: u32 = 1;

/// What a stop may take beyond the grace of the gateway: longer than all other graces of the tree together.
const STOP_WITHIN: Duration = Duration::from_secs(60);

pub(crate) async fn run(args: ServeArgs) -> Result<(), Failure> {
    let layers = args.layers()?;
    let settings = Settings::from_layers(&layers)?;
    let socket = settings.data.join(ADMIN_SOCKET);
    // Before anything is made or started: what cannot work is a configuration error.
    Console::check(&socket)
        .map_err(|error| Failure::Usage(anyhow::Error::from(error).context(format!("data = {:?}", settings.data))))?;
    if args.tied {
        tied::mark(&settings.data)?;
        tied::end_with_stdin(settings.data.clone()).context("no thread")?;
    }
    let mut signals = Signals::new().context("no signals")?;
    let log = Log::start(&settings)?;
    panics::log();
    let node = tokio::select! {
        node = start(&settings, &socket) => node?,
        () = signals.stop() => return Err(Failure::because("stopped by a signal before the node was ready")),
    };
    events::record_in(node.view());
    ready(&node, &settings, args.json);
    tokio::select! {
        () = serve(&mut signals, &args, layers, &log) => {}
        report = node.wait() => {
            let report = report.context("the node waits for itself")?;
            stopped(&node, &report, args.json);
            return Err(Failure::because(format!("the node gave up: {}", report.reason)));
        }
    }
    if !args.json {
        say("stopping; a second signal ends the node at once");
    }
    match signals::stopped(node.stop(), signals.stop(), STOP_WITHIN + settings.stop_grace).await {
        Ok(report) => {
            let report = report.context("the node waits for itself")?;
            stopped(&node, &report, args.json);
            if report.is_clean() { Ok(()) } else { Err(Failure::Failed(None)) }
        }
        Err(cut_short) => {
            node.close().await;
            Err(Failure::because(cut_short))
        }
    }
}

/// Reloads the settings when asked to, until a signal stops the node.
async fn serve(signals: &mut Signals, args: &ServeArgs, mut layers: Layers, log: &Log) {
    let dropped = log::report_dropped();
    tokio::pin!(dropped);
    loop {
        let asked = tokio::select! {
            asked = signals.next() => asked,
            () = &mut dropped => continue,
        };
        match asked {
            Asked::Stop => return,
            Asked::Reload => layers = reload(args, layers, log),
        }
    }
}

/// Reads all settings again and takes those that can change while a node runs. A mistake in them changes nothing.
fn reload(args: &ServeArgs, old: Layers, log: &Log) -> Layers {
    let read = || {
        let layers = args.layers()?;
        let settings = Settings::from_layers(&layers)?;
        log.reload(&settings)?;
        Ok::<_, Failure>(layers)
    };
    let new = match read() {
        Ok(new) => new,
        Err(failure) => {
            warn!(target: "mesh_node", error = failure.reason(), "settings not taken; those before stay in force");
            return old;
        }
    };
    let changed: Vec<_> = new.changed(&old).into_iter().filter(|name| *name != "log.filter").collect();
    match changed.as_slice() {
        [] => info!(target: "mesh_node", "settings read again"),
        changed => {
            warn!(target: "mesh_node", settings = changed.join(" "), "settings read again; these need a restart")
        }
    }
    new
}

async fn start(settings: &Settings, socket: &Path) -> Result<Node, Failure> {
    let config = settings.node_config()?;
    let builder = settings.services.iter().fold(Node::builder(config), |builder, service| {
        builder.service(service.offer(settings.max_in_flight, settings.call_deadline))
    });
    let socket = socket.to_owned();
    let builder = builder.console(move |parent, view| Console::new(&socket, move || view.snapshot()).start(parent));
    builder.start().await.map_err(|error| match error {
        NodeError::BudgetTooSmall(_)
        | NodeError::AllowList(_)
        | NodeError::NoAddress(_)
        | NodeError::BadAdvertise(_) => Failure::Usage(error.into()),
        error => Failure::Failed(Some(error.into())),
    })
}

fn ready(node: &Node, settings: &Settings, json: bool) {
    if json {
        let (address, advertised, data) = (node.address(), node.advertised(), settings.data.clone());
        print(&Event::Ready(Ready { schema: SCHEMA, node: node.id(), address, advertised, data }));
        return;
    }
    let (address, advertised) = (node.address(), node.advertised());
    say(format_args!("node {} listens on {address} (UDP), realm {}", node.id(), settings.realm));
    if advertised != address {
        say(format_args!("other nodes and clients reach it at {advertised}"));
    }
    let services: Vec<_> = settings.services.iter().map(|service| service.name()).collect();
    match settings.services.first() {
        Some(service) => {
            say(format_args!("services: {}", services.join(" ")));
            let (id, example) = (node.id(), service.example());
            say(format_args!("try: mesh-node call --to {advertised} --pin {id} {example}"));
        }
        None => {
            say("services: none; the node forwards calls to other nodes");
            say(format_args!("try: mesh-node services --data {}", settings.data.display()));
        }
    }
}

fn stopped(node: &Node, report: &ShutdownReport, json: bool) {
    let path = |failure: &StopFailure| failure.path.join("/");
    let stopped = Stopped {
        schema: SCHEMA,
        reason: report.reason.to_string(),
        took_ms: u64::try_from(report.took.as_millis()).unwrap_or(u64::MAX),
        calls_cut_off: node.calls_cut_off(),
        killed: report.stragglers().filter(|failure| failure.kind == StopFailureKind::Killed).map(path).collect(),
        kill_timed_out: report.kill_timed_out().map(path).collect(),
    };
    if json {
        print(&Event::Stopped(stopped));
        return;
    }
    match stopped.calls_cut_off {
        0 => {}
        1 => say("1 call was still running after the grace; its caller does not know whether it ran"),
        calls => say(format_args!(
            "{calls} calls were still running after the grace; their callers do not know whether they ran"
        )),
    }
    match (report.is_clean(), stopped.calls_cut_off) {
        (true, 0) => say(format_args!("stopped in {} ms; nothing had to be killed", stopped.took_ms)),
        (true, _) => say(format_args!("stopped in {} ms", stopped.took_ms)),
        (false, _) => say(report),
    }
}

/// A node goes on when its stdout cannot be written.
fn print(event: &Event) {
    let line = serde_json::to_string(event).map_err(std::io::Error::from);
    if let Err(error) = line.and_then(|line| streams::write(format!("{line}\n").as_bytes())) {
        say(format_args!("error: cannot write to stdout: {error}"));
    }
}

fn lossy<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

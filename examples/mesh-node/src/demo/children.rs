//! Three nodes as child processes. Each has a pipe from this process as its stdin: when this process ends, however it ends, they
//! end too and remove their folders.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use plimsoll_mesh::node::NodeSnapshot;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::command::read;
use crate::command::serve::{Event, Ready};
use crate::services::Builtin;
use crate::tied;

/// The cap of clients of each node of the demonstration.
pub(super) const CLIENT_CAP: usize = 3;

/// How long a child may take to be ready, or to stop.
const PATIENCE: Duration = Duration::from_secs(10);

/// The name and services of a node of the demonstration.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) name: &'static str,
    pub(super) offers: &'static [Builtin],
}

/// No node offers every service, and services of a node that is killed have a second provider.
const PLANS: [Plan; 3] = [
    Plan { name: "A", offers: &[Builtin::Echo, Builtin::Time] },
    Plan { name: "B", offers: &[Builtin::Hash, Builtin::Sleep, Builtin::Crash] },
    Plan { name: "C", offers: &[Builtin::Hash, Builtin::Sleep, Builtin::Time] },
];

/// A node in its own process.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) plan: &'static Plan,
    pub(super) ready: Ready,
    data: PathBuf,
    process: Child,
    events: Lines<BufReader<ChildStdout>>,
}

/// The three nodes.
#[derive(Debug)]
pub(super) struct Trio {
    nodes: Vec<Node>,
    folder: TempDir,
}

impl Trio {
    /// Starts three nodes and waits until each knows all others and all services.
    pub(super) async fn start() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("plimsoll-demo-").tempdir().context("no temporary folder")?;
        tied::mark(folder.path()).map_err(|failure| anyhow::anyhow!(failure.reason()))?;
        let first = Node::start(&PLANS[0], folder.path(), "127.0.0.1:0", "").await?;
        let seed = format!("{}@{}", first.ready.node, first.ready.address);
        let (second, third) = tokio::try_join!(
            Node::start(&PLANS[1], folder.path(), "127.0.0.1:0", &seed),
            Node::start(&PLANS[2], folder.path(), "127.0.0.1:0", &seed),
        )?;
        let mut trio = Self { nodes: vec![first, second, third], folder };
        trio.until_connected().await?;
        Ok(trio)
    }

    /// The first node, through which the tour calls.
    pub(super) fn first(&self) -> &Node {
        &self.nodes[0]
    }

    /// All three nodes.
    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Where their data is.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The node of this name.
    pub(super) fn by_name(&mut self, name: &str) -> Option<&mut Node> {
        self.nodes.iter_mut().find(|node| node.plan.name == name)
    }

    /// Starts a killed node again with the same folder, and so the same identity, and the same port.
    pub(super) async fn restart(&mut self, name: &str) -> anyhow::Result<()> {
        let seed = format!("{}@{}", self.nodes[0].ready.node, self.nodes[0].ready.address);
        let folder = self.folder.path().to_owned();
        let node = self.by_name(name).context("no such node")?;
        let address = node.ready.address.to_string();
        *node = Node::start(node.plan, &folder, &address, &seed).await?;
        self.until_connected().await
    }

    /// Waits until every node can call every service at every provider.
    async fn until_connected(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut missing = None;
            for node in &self.nodes {
                let snapshot = node.snapshot().await;
                if !snapshot.is_ok_and(|snapshot| is_connected(&snapshot)) {
                    missing = Some(node.plan.name);
                }
            }
            let Some(name) = missing else { return Ok(()) };
            if Instant::now() > end {
                bail!("node {name} is not connected to the others after {PATIENCE:?}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Stops all nodes by SIGTERM. Returns a sentence about the outcome.
    pub(super) async fn stop(mut self) -> String {
        let began = Instant::now();
        let mut killed = Vec::new();
        for node in &self.nodes {
            node.signal(Signal::SIGTERM);
        }
        for node in &mut self.nodes {
            killed.extend(node.stopped().await);
        }
        let took = began.elapsed().as_millis();
        if killed.is_empty() {
            format!("all nodes stopped in {took} ms; nothing had to be killed")
        } else {
            format!("all nodes stopped in {took} ms; had to be killed: {}", killed.join(", "))
        }
    }
}

fn is_connected(snapshot: &NodeSnapshot) -> bool {
    PLANS.iter().flat_map(|plan| plan.offers).all(|service| {
        let wanted = PLANS.iter().filter(|plan| plan.offers.contains(service)).count();
        let known = snapshot.services.iter().find(|entry| entry.name.as_str() == service.name());
        known.is_some_and(|entry| entry.callable && entry.providers.len() == wanted)
    }) && snapshot.nodes.iter().filter(|node| node.this || node.state == "up").count() == PLANS.len()
}

impl Node {
    async fn start(plan: &'static Plan, folder: &Path, listen: &str, seed: &str) -> anyhow::Result<Self> {
        let data = folder.join(plan.name.to_lowercase());
        let log = folder.join(format!("{}.log", plan.name.to_lowercase()));
        let offers: Vec<_> = plan.offers.iter().map(|service| service.name()).collect();
        let program = std::env::current_exe().context("the path of this program is unknown")?;
        let mut command = Command::new(program);
        command
            .args(["serve", "--json", "--tied", "--trust-open", "true", "--peers-gossip-interval", "100ms"])
            .args(["--listen", listen, "--peers-seeds", seed, "--services", &offers.join(",")])
            .args(["--gateway-max-clients", &CLIENT_CAP.to_string(), "--peers-max", "16"])
            .args(["--gateway-max-per-prefix", &CLIENT_CAP.to_string()])
            .arg("--data")
            .arg(&data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::options().create(true).append(true).open(&log).context("no log file")?)
            .env_remove("RUST_BACKTRACE")
            // Ctrl-C is for this process, which then stops its children in order.
            .process_group(0)
            .kill_on_drop(true);
        let prefix = crate::settings::ENVIRONMENT_PREFIX.as_bytes();
        for (variable, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(prefix)) {
            command.env_remove(variable);
        }
        let mut process = command.spawn().context("cannot start a node")?;
        let stdout = process.stdout.take().context("no stdout")?;
        let mut events = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(PATIENCE, events.next_line()).await;
        let Ok(Ok(Some(line))) = line else {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            bail!("node {} did not start:\n{log}", plan.name);
        };
        match serde_json::from_str(&line).with_context(|| format!("node {} printed {line:?}", plan.name))? {
            Event::Ready(ready) => Ok(Self { plan, ready, data, process, events }),
            Event::Stopped(_) => bail!("node {} stopped at once", plan.name),
        }
    }

    /// The snapshot of the node.
    pub(super) async fn snapshot(&self) -> anyhow::Result<NodeSnapshot> {
        read::snapshot(&self.data).await.map_err(|failure| anyhow::anyhow!(failure.reason()))
    }

    /// Its data folder.
    pub(super) fn data(&self) -> &PathBuf {
        &self.data
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.process.id().unwrap_or_default()
    }

    /// Kills it by SIGKILL and waits until it has exited.
    pub(super) async fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        let _ = self.process.wait().await;
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.process.id().and_then(|pid| i32::try_from(pid).ok()) {
            // It may have exited already.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Waits until it has stopped. Returns the paths of the children that were killed.
    async fn stopped(&mut self) -> Vec<String> {
        let last = async {
            while let Ok(Some(line)) = self.events.next_line().await {
                if let Ok(Event::Stopped(stopped)) = serde_json::from_str(&line) {
                    return stopped.killed;
                }
            }
            Vec::new()
        };
        let name = self.plan.name;
        let Ok(killed) = tokio::time::timeout(PATIENCE, last).await else {
            let _ = self.process.kill().await;
            return vec![format!("node {name}")];
        };
        let _ = tokio::time::timeout(PATIENCE, self.process.wait()).await;
        killed.into_iter().map(|path| format!("{name}: {path}")).collect()
    }
}

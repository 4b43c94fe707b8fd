//! Starts nodes, calls and inspects them, and records measured figures.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use plimsoll::inspect::TreeNode;
use plimsoll_mesh::client::{self, Call, Client, RequestError, Response};
use plimsoll_mesh::names::NodeId;
use plimsoll_mesh::node::{ADMIN_SOCKET, NodeSnapshot};
use plimsoll_testkit::process::{Process, TimeLimit, run_within, until};
use plimsoll_testkit::report::{Report, Row};
use serde_json::Value;
use tempfile::TempDir;

/// The time limit of everything that has none of its own.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_mesh-node");

/// The same program with `--cfg plimsoll_controls`, made by `scripts/controls`.
pub(crate) fn controls_program() -> PathBuf {
    let path = target().join("controls/debug/mesh-node");
    assert!(path.exists(), "{} is missing; run scripts/controls", path.display());
    path
}

/// The target folder of this build.
fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap()
}

/// Whether the scenarios run in full size.
pub(crate) fn full() -> bool {
    std::env::var("PLIMSOLL_E2E").is_ok_and(|size| size == "full")
}

/// Records the figures of a scenario and fails if one is out of bounds.
pub(crate) fn record(scenario: &str, rows: &[(String, &str, bool, Option<String>)]) {
    let row = |(figure, bound, met, control): &(String, &str, bool, Option<String>)| Row {
        scenario: scenario.replace('-', " "),
        figure: figure.clone(),
        bound: (*bound).into(),
        met: *met,
        control: control.clone(),
    };
    let rows: Vec<_> = rows.iter().map(row).collect();
    Report::new(target(), "mesh").write(scenario, &rows).unwrap();
    assert!(rows.iter().all(|row| row.met), "{rows:#?}");
}

/// The time limit of a scenario of the independent client.
const CLIENT_LIMIT: Duration = Duration::from_secs(120);

/// Runs a command, which must end within [`PATIENCE`]: its exit code and what it printed on stderr.
pub(crate) fn run(command: &mut Command) -> (Option<i32>, String) {
    let output = output_of(command.stdin(Stdio::null()));
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// Runs a command, which must end within [`PATIENCE`], and reads both of its streams.
pub(crate) fn output_of(command: &mut Command) -> Output {
    run_within(command.stdout(Stdio::piped()).stderr(Stdio::piped()), PATIENCE)
}

/// A process with a time limit of [`PATIENCE`]; killed when dropped.
#[derive(Debug)]
pub(crate) struct Limited {
    pub(crate) child: Child,
    limit: TimeLimit,
}

impl Limited {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let child = command.spawn().unwrap();
        let limit = TimeLimit::new(child.id(), PATIENCE);
        Self { child, limit }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.id().cast_signed()), signal).unwrap();
    }

    /// Waits until it exits. Returns its exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let status = self.child.wait().unwrap();
        assert!(!self.limit.exceeded(), "the process did not exit within {PATIENCE:?}");
        status.code()
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder for the nodes of one test.
pub(crate) fn folder() -> TempDir {
    // Short, since the path of a Unix socket has about 100 bytes.
    tempfile::Builder::new().prefix("mesh").tempdir().unwrap()
}

/// A node in a process of its own; killed when dropped.
#[derive(Debug)]
pub(crate) struct Node {
    child: Child,
    events: BufReader<ChildStdout>,
    data: PathBuf,
    pub(crate) id: NodeId,
    pub(crate) address: SocketAddr,
}

/// How to start a node.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    program: PathBuf,
    data: PathBuf,
    flags: Vec<String>,
    variables: Vec<(String, OsString)>,
}

impl Plan {
    /// A node with its data in `folder/name`, on a free port, open to all peers, gossiping ten times a second.
    pub(crate) fn new(folder: &TempDir, name: &str) -> Self {
        let plan =
            Self { program: PROGRAM.into(), data: folder.path().join(name), flags: Vec::new(), variables: Vec::new() };
        let plan = plan.flag("services", "echo,time,sleep,crash,hash");
        plan.flag("listen", "127.0.0.1:0").flag("peers-gossip-interval", "100ms").flag("trust-open", "true")
    }

    /// Sets a flag, in place of an earlier one of its name.
    pub(crate) fn flag(mut self, name: &str, value: impl ToString) -> Self {
        let name = format!("--{name}");
        if let Some(at) = self.flags.iter().position(|flag| *flag == name) {
            self.flags.drain(at..at + 2);
        }
        self.flags.extend([name, value.to_string()]);
        self
    }

    /// Knows `node` as its first peer.
    pub(crate) fn meets(self, node: &Node) -> Self {
        let seed = format!("{}@{}", node.id, node.address);
        self.flag("peers-seeds", seed)
    }

    /// Uses the build with controls, with these mechanisms switched off.
    pub(crate) fn without(mut self, mechanisms: &str) -> Self {
        self.program = controls_program();
        self.variables.push(("PLIMSOLL_CONTROLS_OFF".into(), mechanisms.into()));
        self
    }

    /// Uses this data folder, whatever its bytes.
    pub(crate) fn in_folder(mut self, data: PathBuf) -> Self {
        self.data = data;
        self
    }

    /// Reads this settings file, in place of the flag for services.
    pub(crate) fn config(mut self, file: &Path) -> Self {
        let at = self.flags.iter().position(|flag| *flag == "--services").unwrap();
        self.flags.drain(at..at + 2);
        self.variables.push(("MESH_NODE_CONFIG".into(), file.into()));
        self
    }

    /// The data folder.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// As [`command`](Self::command), without `--json`.
    pub(crate) fn command_for_people(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["serve", "--data"]).arg(&self.data).args(&self.flags);
        command
    }

    /// The command that runs the node.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["serve", "--json", "--data"]).arg(&self.data).args(&self.flags);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts the node and waits until it serves. Its log is beside its data folder.
    pub(crate) fn start(&self) -> Node {
        self.start_logging_to(File::options().create(true).append(true).open(self.log()).unwrap())
    }

    fn log(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    /// Starts the node with its log at `stderr`, and waits until it serves.
    pub(crate) fn start_logging_to(&self, stderr: impl Into<Stdio>) -> Node {
        let mut child = self.command().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let mut events = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        let limit = TimeLimit::new(child.id(), PATIENCE);
        events.read_line(&mut line).unwrap();
        drop(limit);
        let ready: Value = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("the node did not start: {:?}", std::fs::read_to_string(self.log())));
        assert_eq!(ready["event"], "ready");
        Node {
            child,
            events,
            data: self.data.clone(),
            id: ready["node"].as_str().unwrap().parse().unwrap(),
            address: ready["address"].as_str().unwrap().parse().unwrap(),
        }
    }
}

impl Node {
    /// Its process.
    pub(crate) fn process(&self) -> Process {
        Process(self.child.id())
    }

    /// Its log so far, earlier runs included.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.data.with_extension("log")).unwrap()
    }

    /// Its snapshot.
    pub(crate) async fn snapshot(&self) -> NodeSnapshot {
        let socket = self.data.join(ADMIN_SOCKET);
        let json = plimsoll_console::client::get(&socket, "/v1/admin/snapshot", PATIENCE).await.unwrap();
        serde_json::from_slice(&json).unwrap()
    }

    /// Waits until its snapshot satisfies `holds`.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&NodeSnapshot) -> bool) -> NodeSnapshot {
        until(what, PATIENCE, async || Some(self.snapshot().await).filter(&holds)).await
    }

    /// Waits until it can call `service` at exactly so many providers.
    pub(crate) async fn until_provided(&self, service: &str, providers: usize) {
        self.until(&format!("{providers} providers of {service}"), |snapshot| {
            let entry = snapshot.services.iter().find(|entry| entry.name.as_str() == service);
            entry.is_some_and(|entry| entry.callable && entry.providers.len() == providers)
        })
        .await;
    }

    /// An HTTP/3 client of it.
    pub(crate) async fn client(&self) -> Client {
        let endpoint = client::endpoint(self.address).unwrap();
        Client::connect(&endpoint, self.address, self.id).await.unwrap()
    }

    /// SIGKILL, and wait until it is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops it by SIGTERM. Returns what it prints at its end and its exit code.
    pub(crate) fn stop(self) -> (Value, Option<i32>) {
        self.stop_by(Signal::SIGTERM)
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// As [`stop`](Self::stop), by another signal.
    pub(crate) fn stop_by(mut self, signal: Signal) -> (Value, Option<i32>) {
        self.signal(signal);
        let mut line = String::new();
        let limit = TimeLimit::new(self.child.id(), PATIENCE);
        self.events.read_line(&mut line).unwrap();
        let status = self.child.wait().unwrap();
        assert!(!limit.exceeded(), "the node did not stop within {PATIENCE:?}: {}", self.log());
        (serde_json::from_str(&line).unwrap(), status.code())
    }

    /// Runs `mesh-node COMMAND --data ...` on it.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Output {
        let (command, rest) = arguments.split_first().unwrap();
        output_of(Command::new(PROGRAM).stdin(Stdio::null()).arg(command).arg("--data").arg(&self.data).args(rest))
    }

    /// Runs a scenario of the independent client against it: whether it exited 0, and its report.
    pub(crate) fn aioquic(&self, arguments: &[&str]) -> (bool, Value) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/aioquic_client.py");
        let mut command = Command::new(python());
        command.arg(script).arg(self.address.to_string()).args(["--pin", &self.id.to_string()]).args(arguments);
        let output = run_within(command.stdout(Stdio::piped()).stderr(Stdio::piped()), CLIENT_LIMIT);
        let report = String::from_utf8(output.stdout).unwrap();
        let parsed = serde_json::from_str(&report)
            .unwrap_or_else(|_| panic!("{report}{}", String::from_utf8_lossy(&output.stderr)));
        (output.status.success(), parsed)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The Python that `scripts/test` makes.
fn python() -> PathBuf {
    let cache = || Some(std::env::home_dir()?.join(".cache/plimsoll/venv/bin/python"));
    let python = std::env::var_os("PLIMSOLL_PYTHON").map(PathBuf::from).or_else(cache);
    python.filter(|path| path.exists()).expect("scripts/test makes the Python environment of the tests; run it once")
}

/// The client vanishes without a packet: nothing that it sends leaves, and nothing reaches it.
pub(crate) fn vanish(endpoint: &quinn::Endpoint) {
    // From another IPv4 address the connection would migrate. What this socket sends to one is dropped.
    endpoint.rebind(std::net::UdpSocket::bind("[::1]:0").unwrap()).unwrap();
}

/// Calls `service` with a deadline of 30 s.
pub(crate) async fn call(client: &Client, service: &str, body: &str) -> Result<Response, RequestError> {
    let call = Call::new(service.parse().unwrap(), body.to_owned()).deadline(Duration::from_secs(30));
    client.call(call).await
}

/// Where the gateway's counters are.
pub(crate) const GATEWAY: [&str; 2] = ["gateway", "listener"];

/// The place `path` in the tree, from below the root.
pub(crate) fn place<'a>(snapshot: &'a NodeSnapshot, path: &[&str]) -> Option<&'a TreeNode> {
    path.iter().try_fold(&snapshot.runtime.tree, |node, id| node.details.children.iter().find(|child| child.id == *id))
}

/// A counter of the place `path`; 0 if there is none.
pub(crate) fn counter(snapshot: &NodeSnapshot, path: &[&str], name: &str) -> u64 {
    place(snapshot, path).and_then(|place| place.details.counters.get(name).copied()).unwrap_or(0)
}

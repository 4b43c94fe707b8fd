//! The steps of the tour: what each does, what is expected of it, and whether that happened.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::ValueEnum;
use plimsoll::inspect::{Status, TreeNode};
use plimsoll_mesh::client::{self, Call, Client, Response};
use plimsoll_mesh::node::NodeSnapshot;
use plimsoll_mesh::problem::Code;
use serde::Serialize;

use super::children::{CLIENT_CAP, Node, Trio};

/// A step of the tour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    /// A call of a service of the node that receives it.
    Own,
    /// A call of a service of another node.
    Other,
    /// A worker that panics.
    Panic,
    /// A provider killed in mid-call.
    Kill,
    /// One client more than the cap of the gateway.
    Cap,
    /// The supervision tree.
    Tree,
}

/// The result of a step.
#[derive(Debug, Default)]
pub(super) struct StepReport {
    /// Commands and their results, a line each.
    pub(super) lines: Vec<Line>,
    /// What was expected, and whether it happened.
    pub(super) checks: Vec<(String, bool)>,
    /// Ids of the nodes and the names that the output has in their place.
    names: Vec<(String, &'static str)>,
}

/// A line of a step's output.
#[derive(Debug)]
pub(super) enum Line {
    /// A command, as a user would type it.
    Command(String),
    /// Its result, and how long it took.
    Result(String, Duration),
}

/// How soon a caller must receive a response after its provider was killed.
const FAILED_WITHIN: Duration = Duration::from_secs(2);

impl StepReport {
    /// Whether everything expected happened.
    pub(super) fn met(&self) -> bool {
        self.checks.iter().all(|(_, met)| *met)
    }

    fn command(&mut self, command: impl Into<String>) {
        self.lines.push(Line::Command(command.into()));
    }

    fn check(&mut self, expected: impl Into<String>, met: bool) {
        self.checks.push((expected.into(), met));
    }

    /// Adds a response as one line, with the nodes by their names.
    fn result(&mut self, response: &Response, took: Duration) {
        let status = response.status.as_u16();
        let mut line = match response.problem() {
            Some(problem) => {
                // Every call goes to the first node, so that only another one is named.
                let elsewhere = problem.node.map(|node| node.to_string());
                let elsewhere = elsewhere.filter(|node| self.names.first().is_some_and(|(first, _)| first != node));
                let node = elsewhere.map(|node| format!(" [node {node}]")).unwrap_or_default();
                format!("{status} {}{node}: {}", problem.code.as_str(), problem.detail)
            }
            None => format!("{status} {}", String::from_utf8_lossy(&response.body)),
        };
        for (id, name) in &self.names {
            line = line.replace(id, name);
        }
        self.lines.push(Line::Result(line, took));
    }

    /// Makes a call and adds the command and the response to the report.
    async fn call(&mut self, client: &Client, service: &str, body: &str) -> anyhow::Result<Response> {
        self.command(if body.is_empty() { format!("call {service}") } else { format!("call {service} '{body}'") });
        let (response, took) = call(client, service, body).await?;
        self.result(&response, took);
        Ok(response)
    }
}

impl Step {
    /// All steps, in order.
    pub(super) const ALL: [Self; 6] = [Self::Own, Self::Other, Self::Panic, Self::Kill, Self::Cap, Self::Tree];

    /// The heading of the step.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Own => "A call of a service on the node that receives it",
            Self::Other => "A call of a service on another node",
            Self::Panic => "A worker that panics, and the response to its caller",
            Self::Kill => "A provider killed by SIGKILL during a call",
            Self::Cap => "A gateway at its cap of clients",
            Self::Tree => "The supervision tree of node A",
        }
    }

    /// Runs the step; with `fail` it does something else, so that what is expected does not happen.
    pub(super) async fn run(self, trio: &mut Trio, fail: bool) -> anyhow::Result<StepReport> {
        let names = trio.nodes().iter().map(|node| (node.ready.node.to_string(), node.plan.name)).collect();
        let mut report = StepReport { names, ..StepReport::default() };
        match self {
            Self::Own => own(trio, &mut report, fail).await?,
            Self::Other => other(trio, &mut report, fail).await?,
            Self::Panic => panic(trio, &mut report, fail).await?,
            Self::Kill => kill(trio, &mut report, fail).await?,
            Self::Cap => cap(trio, &mut report, fail).await?,
            Self::Tree => tree(trio, &mut report, fail).await?,
        }
        Ok(report)
    }
}

async fn own(trio: &Trio, report: &mut StepReport, fail: bool) -> anyhow::Result<()> {
    let client = connect(trio.first()).await?;
    let before = started(&trio.first().snapshot().await?, "echo");
    let response = report.call(&client, if fail { "nobody" } else { "echo" }, "hello, mesh").await?;
    let after = started(&trio.first().snapshot().await?, "echo");
    report.check("the body came back", response.status == 200 && response.body == "hello, mesh");
    report.check("a worker of node A served it", after.zip(before).is_some_and(|(after, before)| after == before + 1));
    client.close();
    Ok(())
}

async fn other(trio: &Trio, report: &mut StepReport, fail: bool) -> anyhow::Result<()> {
    let client = connect(trio.first()).await?;
    let response = report.call(&client, if fail { "echo" } else { "hash" }, "hello, mesh").await?;
    let digest = hex::encode(ring::digest::digest(&ring::digest::SHA256, b"hello, mesh"));
    report.check("it is the SHA-256 of the body", response.status == 200 && response.body == digest);
    let snapshot = trio.first().snapshot().await?;
    report.check("node A has no such service: B or C served it", started(&snapshot, "hash").is_none());
    client.close();
    Ok(())
}

async fn panic(trio: &mut Trio, report: &mut StepReport, fail: bool) -> anyhow::Result<()> {
    let client = connect(trio.first()).await?;
    let message = "out of range";
    let response = report.call(&client, if fail { "echo" } else { "crash" }, message).await?;
    let provider = trio.by_name("B").context("no node B")?.ready.node;
    let problem = response.problem();
    let as_expected = problem.as_ref().is_some_and(|problem| {
        problem.code == Code::WorkerPanicked && problem.detail.contains(message) && problem.node == Some(provider)
    });
    report.check("the caller receives worker_panicked, the message and the node", as_expected);
    let next = report.call(&client, "hash", "the next call").await?;
    report.check("nothing else is affected: the same connection serves the next call", next.status == 200);
    client.close();
    Ok(())
}

async fn kill(trio: &mut Trio, report: &mut StepReport, fail: bool) -> anyhow::Result<()> {
    let client = connect(trio.first()).await?;
    report.command("call sleep '20000'   (in the background)");
    let sleeping = tokio::spawn({
        let client = client.clone();
        async move { call(&client, "sleep", if fail { "300" } else { "20000" }).await }
    });
    let victim = serving(trio, "sleep").await?;
    let node = trio.by_name(victim).context("no such node")?;
    report.command(format!("kill -KILL {}   (node {victim}, which serves it)", node.pid()));
    let killed = Instant::now();
    if !fail {
        node.kill().await;
    }
    let (response, _) = sleeping.await.context("the call's task ended")??;
    let took = killed.elapsed();
    report.result(&response, took);
    let code = response.problem().map(|problem| problem.code);
    report.check(
        "its caller receives provider_died within 2 s",
        code == Some(Code::ProviderDied) && took <= FAILED_WITHIN,
    );
    let next = report.call(&client, "sleep", "10").await?;
    report.check("the next call is served by another provider", next.status == 200);
    client.close();
    if !fail {
        let began = Instant::now();
        trio.restart(victim).await?;
        report.command(format!("start node {victim} again   (same port, same identity)"));
        report.lines.push(Line::Result("all three nodes are connected again".into(), began.elapsed()));
    }
    Ok(())
}

async fn cap(trio: &Trio, report: &mut StepReport, fail: bool) -> anyhow::Result<()> {
    let node = trio.first();
    until_no_clients(node).await?;
    let count = if fail { CLIENT_CAP - 1 } else { CLIENT_CAP };
    let mut clients = Vec::new();
    for _ in 0..count {
        let client = connect(node).await?;
        // A client counts once its handshake is completed, which its first response shows.
        call(&client, "time", "").await?;
        clients.push(client);
    }
    report.command(format!("connect {count} clients to node A, whose cap is {CLIENT_CAP}, and one more"));
    let refused = connect(node).await?;
    let response = report.call(&refused, "time", "").await?;
    let code = response.problem().map(|problem| problem.code);
    let again = response.headers.contains_key("retry-after");
    report.check(
        "it receives max_clients_reached, and when to try again",
        code == Some(Code::MaxClientsReached) && again,
    );
    let connected = call(&clients[0], "time", "").await?.0;
    report.check("connected clients are served as before", connected.status == 200);
    for client in clients {
        client.close();
    }
    Ok(())
}

async fn tree(trio: &Trio, report: &mut StepReport, fail: bool) -> anyhow::Result<()> {
    let snapshot = trio.first().snapshot().await?;
    let mut root = snapshot.runtime.tree;
    if fail {
        root.details.children.clear();
    }
    let whole = ["directory", "peers", "services", "gateway", "console"];
    let there = whole.iter().all(|id| root.details.children.iter().any(|child| child.id == *id));
    report.check("every part of a node is in the tree", there);
    report.check("all of them are running", all_running(&root));
    Ok(())
}

fn all_running(node: &TreeNode) -> bool {
    node.status == Status::Running && node.details.children.iter().all(all_running)
}

/// Connects to `node` over HTTP/3.
pub(super) async fn connect(node: &Node) -> anyhow::Result<Client> {
    let endpoint = client::endpoint(node.ready.address).context("no UDP socket")?;
    Ok(Client::connect(&endpoint, node.ready.address, node.ready.node).await?)
}

async fn call(client: &Client, service: &str, body: &str) -> anyhow::Result<(Response, Duration)> {
    let began = Instant::now();
    let call = Call::new(service.parse()?, body.to_owned()).deadline(Duration::from_secs(25));
    let response = client.call(call).await?;
    Ok((response, began.elapsed()))
}

/// The call server of `service`, if the node runs one.
fn server<'a>(snapshot: &'a NodeSnapshot, service: &str) -> Option<&'a TreeNode> {
    place(snapshot, &["services", service])
}

/// The place `path` in the tree, from below the root.
fn place<'a>(snapshot: &'a NodeSnapshot, path: &[&str]) -> Option<&'a TreeNode> {
    path.iter().try_fold(&snapshot.runtime.tree, |node, id| node.details.children.iter().find(|child| child.id == *id))
}

fn started(snapshot: &NodeSnapshot, service: &str) -> Option<u64> {
    server(snapshot, service)?.details.counters.get("started").copied()
}

/// Which node has a call of `service` in flight.
async fn serving(trio: &Trio, service: &str) -> anyhow::Result<&'static str> {
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        for node in trio.nodes() {
            let snapshot = node.snapshot().await?;
            let in_flight = server(&snapshot, service).and_then(|server| server.details.counters.get("in_flight"));
            if in_flight.is_some_and(|&count| count > 0) {
                return Ok(node.plan.name);
            }
        }
    }
    anyhow::bail!("no node serves {service}")
}

/// Waits until the clients of earlier steps are disconnected.
async fn until_no_clients(node: &Node) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let snapshot = node.snapshot().await?;
        let listener = place(&snapshot, &["gateway", "listener"]);
        let clients = listener.and_then(|listener| listener.details.counters.get("clients")).copied();
        if clients.unwrap_or(0) == 0 {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < end, "clients of earlier steps are still connected: {clients:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.title())
    }
}

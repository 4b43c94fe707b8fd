//! The steps of the tour: what each does, what it announces, and whether that was so.

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
    /// A call answered by the node that it reaches.
    Own,
    /// A call answered by another node.
    Other,
    /// A worker that panics.
    Panic,
    /// A provider killed in mid-call.
    Kill,
    /// One client more than the gateway takes.
    Cap,
    /// The supervision tree.
    Tree,
}

/// How a step went.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// What was done and what came back, a line each.
    pub(super) lines: Vec<Line>,
    /// What was announced, and whether it was so.
    pub(super) checks: Vec<(String, bool)>,
    /// What the nodes are called in the story.
    names: Vec<(String, &'static str)>,
}

/// A line of a step's story.
#[derive(Debug)]
pub(super) enum Line {
    /// What was done, as one would type it.
    Did(String),
    /// What came back.
    Read(String, Duration),
}

/// How soon a caller must learn that its provider was killed.
const NOTICED_WITHIN: Duration = Duration::from_secs(2);

impl Told {
    /// Whether everything announced was so.
    pub(super) fn met(&self) -> bool {
        self.checks.iter().all(|(_, so)| *so)
    }

    fn did(&mut self, what: impl Into<String>) {
        self.lines.push(Line::Did(what.into()));
    }

    fn check(&mut self, announced: impl Into<String>, so: bool) {
        self.checks.push((announced.into(), so));
    }

    /// Tells an answer in one line, with the nodes by their names.
    fn read(&mut self, answer: &Response, took: Duration) {
        let status = answer.status.as_u16();
        let mut line = match answer.problem() {
            Some(problem) => {
                // Every call goes to the first node: only another one is worth saying.
                let elsewhere = problem.node.map(|node| node.to_string());
                let elsewhere = elsewhere.filter(|node| self.names.first().is_some_and(|(first, _)| first != node));
                let node = elsewhere.map(|node| format!(" [node {node}]")).unwrap_or_default();
                format!("{status} {}{node}: {}", problem.code.as_str(), problem.detail)
            }
            None => format!("{status} {}", String::from_utf8_lossy(&answer.body)),
        };
        for (id, name) in &self.names {
            line = line.replace(id, name);
        }
        self.lines.push(Line::Read(line, took));
    }

    /// Calls, tells it, and gives the answer.
    async fn call(&mut self, client: &Client, service: &str, body: &str) -> anyhow::Result<Response> {
        self.did(if body.is_empty() { format!("call {service}") } else { format!("call {service} '{body}'") });
        let (answer, took) = call(client, service, body).await?;
        self.read(&answer, took);
        Ok(answer)
    }
}

impl Step {
    /// All steps, in order.
    pub(super) const ALL: [Self; 6] = [Self::Own, Self::Other, Self::Panic, Self::Kill, Self::Cap, Self::Tree];

    /// What the step announces.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Own => "A call answered by the node it reaches",
            Self::Other => "A call answered one node further",
            Self::Panic => "A worker that panics, and what its caller reads",
            Self::Kill => "A provider killed by SIGKILL in mid-call",
            Self::Cap => "A gateway that has as many clients as it may",
            Self::Tree => "The supervision tree of node A",
        }
    }

    /// Does the step; with `untrue` it does something else than it announces.
    pub(super) async fn run(self, trio: &mut Trio, untrue: bool) -> anyhow::Result<Told> {
        let names = trio.nodes().iter().map(|node| (node.ready.node.to_string(), node.plan.name)).collect();
        let mut told = Told { names, ..Told::default() };
        match self {
            Self::Own => own(trio, &mut told, untrue).await?,
            Self::Other => other(trio, &mut told, untrue).await?,
            Self::Panic => panic(trio, &mut told, untrue).await?,
            Self::Kill => kill(trio, &mut told, untrue).await?,
            Self::Cap => cap(trio, &mut told, untrue).await?,
            Self::Tree => tree(trio, &mut told, untrue).await?,
        }
        Ok(told)
    }
}

async fn own(trio: &Trio, told: &mut Told, untrue: bool) -> anyhow::Result<()> {
    let client = connect(trio.first()).await?;
    let before = started(&trio.first().snapshot().await?, "echo");
    let answer = told.call(&client, if untrue { "nobody" } else { "echo" }, "hello, mesh").await?;
    let after = started(&trio.first().snapshot().await?, "echo");
    told.check("the body came back", answer.status == 200 && answer.body == "hello, mesh");
    told.check("a worker of node A served it", after.zip(before).is_some_and(|(after, before)| after == before + 1));
    client.close();
    Ok(())
}

async fn other(trio: &Trio, told: &mut Told, untrue: bool) -> anyhow::Result<()> {
    let client = connect(trio.first()).await?;
    let answer = told.call(&client, if untrue { "echo" } else { "hash" }, "hello, mesh").await?;
    let digest = hex::encode(ring::digest::digest(&ring::digest::SHA256, b"hello, mesh"));
    told.check("it is the SHA-256 of the body", answer.status == 200 && answer.body == digest);
    let snapshot = trio.first().snapshot().await?;
    told.check("node A has no such service: B or C served it", started(&snapshot, "hash").is_none());
    client.close();
    Ok(())
}

async fn panic(trio: &mut Trio, told: &mut Told, untrue: bool) -> anyhow::Result<()> {
    let client = connect(trio.first()).await?;
    let words = "the cargo has shifted";
    let answer = told.call(&client, if untrue { "echo" } else { "crash" }, words).await?;
    let provider = trio.by_name("B").context("no node B")?.ready.node;
    let problem = answer.problem();
    let said = problem.as_ref().is_some_and(|problem| {
        problem.code == Code::WorkerPanicked && problem.detail.contains(words) && problem.node == Some(provider)
    });
    told.check("the caller reads worker_panicked, the message and the node", said);
    let next = told.call(&client, "hash", "and on we go").await?;
    told.check("nobody else noticed: the same connection serves the next call", next.status == 200);
    client.close();
    Ok(())
}

async fn kill(trio: &mut Trio, told: &mut Told, untrue: bool) -> anyhow::Result<()> {
    let client = connect(trio.first()).await?;
    told.did("call sleep '20000'   (in the background)");
    let sleeping = tokio::spawn({
        let client = client.clone();
        async move { call(&client, "sleep", if untrue { "300" } else { "20000" }).await }
    });
    let victim = serving(trio, "sleep").await?;
    let node = trio.by_name(victim).context("no such node")?;
    told.did(format!("kill -KILL {}   (node {victim}, which serves it)", node.pid()));
    let killed = Instant::now();
    if !untrue {
        node.kill().await;
    }
    let (answer, _) = sleeping.await.context("the call's task ended")??;
    let noticed = killed.elapsed();
    told.read(&answer, noticed);
    let code = answer.problem().map(|problem| problem.code);
    told.check(
        "its caller reads provider_died within 2 s",
        code == Some(Code::ProviderDied) && noticed <= NOTICED_WITHIN,
    );
    let next = told.call(&client, "sleep", "10").await?;
    told.check("the next call is answered elsewhere", next.status == 200);
    client.close();
    if !untrue {
        let began = Instant::now();
        trio.restart(victim).await?;
        told.did(format!("start node {victim} again   (same port, same identity)"));
        told.lines.push(Line::Read("all three know each other again".into(), began.elapsed()));
    }
    Ok(())
}

async fn cap(trio: &Trio, told: &mut Told, untrue: bool) -> anyhow::Result<()> {
    let node = trio.first();
    until_no_clients(node).await?;
    let count = if untrue { CLIENT_CAP - 1 } else { CLIENT_CAP };
    let mut clients = Vec::new();
    for _ in 0..count {
        let client = connect(node).await?;
        // A client counts from its handshake on; a first answer shows that it is in.
        call(&client, "time", "").await?;
        clients.push(client);
    }
    told.did(format!("connect {count} clients to node A, whose cap is {CLIENT_CAP}, and one more"));
    let late = connect(node).await?;
    let answer = told.call(&late, "time", "").await?;
    let code = answer.problem().map(|problem| problem.code);
    let again = answer.headers.contains_key("retry-after");
    told.check("it is told max_clients_reached, and when to try again", code == Some(Code::MaxClientsReached) && again);
    let inside = call(&clients[0], "time", "").await?.0;
    told.check("those inside are served as before", inside.status == 200);
    for client in clients {
        client.close();
    }
    Ok(())
}

async fn tree(trio: &Trio, told: &mut Told, untrue: bool) -> anyhow::Result<()> {
    let snapshot = trio.first().snapshot().await?;
    let mut root = snapshot.runtime.tree;
    if untrue {
        root.details.children.clear();
    }
    let whole = ["directory", "peers", "services", "gateway", "console"];
    let there = whole.iter().all(|id| root.details.children.iter().any(|child| child.id == *id));
    told.check("every part of a node has its place", there);
    told.check("and everything in it runs", all_running(&root));
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
    let answer = client.call(call).await?;
    Ok((answer, began.elapsed()))
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

/// Waits until the gateway has seen the clients of earlier steps leave.
async fn until_no_clients(node: &Node) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let snapshot = node.snapshot().await?;
        let listener = place(&snapshot, &["gateway", "listener"]);
        let clients = listener.and_then(|listener| listener.details.counters.get("clients")).copied();
        if clients.unwrap_or(0) == 0 {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < end, "clients of earlier steps are still counted: {clients:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.title())
    }
}

//! More peers than the pool holds.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use plimsoll::inspect::Inspect;
use plimsoll::supervisor::SupervisorRef;
use plimsoll_mesh::identity::{self, Identity, Protocol, TrustStore};
use plimsoll_mesh::names::NodeId;
use plimsoll_mesh::node::NodeSnapshot;
use plimsoll_mesh::peers::{Gossip, Peers, PeersConfig, Poison, Seed};
use plimsoll_mesh::problem::{Code, Problem};
use plimsoll_mesh::service::{Caller, Refusal, Request, Response, ServePeer};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use crate::harness::{Node, Plan, counter, folder, full};
use crate::left::record;

const POOL: [&str; 2] = ["peers", "dialler"];

/// Serves nothing and hears nothing.
struct Nobody;

impl ServePeer for Nobody {
    fn serve(&self, _: Request) -> BoxFuture<'static, Result<Response, Refusal>> {
        async { Err(Refusal::never_ran(Problem::new(Code::NoProvider, "nobody is here"))) }.boxed()
    }
}

impl Gossip for Nobody {
    fn deliver(&self, _: NodeId, _: Bytes) -> Result<(), Poison> {
        Ok(())
    }

    fn up(&self, _: NodeId) {}

    fn down(&self, _: NodeId) {}
}

/// One identity, which takes connections of nodes, and dials the node if it is told where that is.
struct Identified {
    id: NodeId,
    address: SocketAddr,
    peers: Peers,
    tree: SupervisorRef,
    _accepting: AbortOnDropHandle<()>,
}

impl Identified {
    async fn start(dials: Option<&Node>) -> Self {
        let identity = Identity::generate().unwrap();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (id, address) = (identity.node_id(), socket.local_addr().unwrap());
        let mut config = PeersConfig::new("default");
        config.listens = Some(address);
        config.seeds.extend(dials.map(|node| Seed::new(node.address).expecting(node.id)));
        let mut transport = quinn::TransportConfig::default();
        transport.max_idle_timeout(Some(Duration::from_secs(30).try_into().unwrap()));
        let server = identity::server_config(&identity, Arc::new(transport)).unwrap();
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint =
            quinn::Endpoint::new(identity::endpoint_config(&identity), Some(server), socket, runtime).unwrap();
        let (serve, gossip) = (Arc::new(Nobody), Arc::new(Nobody));
        let peers = Peers::new(identity, TrustStore::open(), endpoint.clone(), config, serve, gossip).unwrap();
        let tree = peers.supervisor().start().await.unwrap();
        let accepting = tokio::spawn(accept(endpoint, peers.clone()));
        Self { id, address, peers, tree, _accepting: AbortOnDropHandle::new(accepting) }
    }

    fn connections(&self) -> u64 {
        self.peers.inspect().counters["open"]
    }
}

async fn accept(endpoint: quinn::Endpoint, peers: Peers) {
    while let Some(incoming) = endpoint.accept().await {
        let peers = peers.clone();
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else { return };
            if identity::handshake(&connection).is_some_and(|done| done.protocol == Protocol::Peer) {
                peers.accept(connection);
            }
        });
    }
}

/// What a run came to.
struct Run {
    /// The most connections at a sample, by the node and by the test program.
    open: u64,
    open_here: u64,
    /// The most entries at a sample.
    entries: u64,
    evicted: u64,
    /// Connections at the end, by the node, by the test program, and entries.
    end: [u64; 3],
    /// Calls of leased connections, how many of them were answered, and how many ended because room was made.
    leased: usize,
    answered: usize,
    evicted_in_use: usize,
}

/// A node with a pool of `cap` dials as many identities, of which `leased` have a call under way, and then half as many
/// more come.
async fn run(plan: Plan, folder: &tempfile::TempDir, cap: usize, leased: usize, patience: Duration) -> Run {
    let mut known = Vec::new();
    for _ in 0..cap {
        known.push(Identified::start(None).await);
    }
    let seeds: Vec<_> = known.iter().map(|peer| format!("\"{}@{}\"", peer.id, peer.address)).collect();
    let file = folder.path().join("seeds.toml");
    std::fs::write(&file, format!("[peers]\nseeds = [{}]\n", seeds.join(", "))).unwrap();
    let plan = plan.flag("services", "sleep").flag("peers-max", cap).flag("config", file.display());
    let node = plan.start();
    let up = |snapshot: &NodeSnapshot| counter(snapshot, &POOL, "up");
    node.until("all of the pool is up", |now| up(now) == cap as u64).await;

    let mut calls = JoinSet::new();
    for peer in &known[..leased] {
        let (peers, to) = (peer.peers.clone(), node.id);
        calls.spawn(async move {
            let request = Request {
                service: "sleep".parse().unwrap(),
                body: if full() { "30000" } else { "5000" }.into(),
                content_type: None,
                deadline: Instant::now() + Duration::from_secs(60),
                call_id: "held".into(),
                traceparent: None,
                caller: Caller::Client(0),
            };
            peers.call(to, &request).await.map_err(|refusal| refusal.problem.detail.to_string())
        });
    }
    node.until("their calls run", |now| counter(now, &POOL, "calls_in") == leased as u64).await;

    let mut come = Vec::new();
    let (mut open, mut open_here, mut entries) = (0, 0, 0);
    for nth in 0..cap / 2 {
        come.push(Identified::start(Some(&node)).await);
        if nth.is_multiple_of(16) {
            let snapshot = node.snapshot().await;
            open = open.max(counter(&snapshot, &POOL, "open"));
            entries = entries.max(counter(&snapshot, &POOL, "pool_used"));
            open_here = open_here.max(known.iter().chain(&come).map(Identified::connections).sum());
        }
    }
    let here = || known.iter().chain(&come).map(Identified::connections).sum::<u64>();
    let end = Instant::now() + patience;
    let rested = loop {
        let snapshot = node.snapshot().await;
        let now = [counter(&snapshot, &POOL, "open"), here(), counter(&snapshot, &POOL, "pool_used")];
        let all_came = counter(&snapshot, &POOL, "accepted") >= (cap / 2) as u64;
        if all_came && now == [cap as u64; 3] || Instant::now() > end {
            break (now, counter(&snapshot, &POOL, "evicted"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let ended = calls.join_all().await;
    let answered = ended.iter().filter(|ended| ended.is_ok()).count();
    let evicted_in_use =
        ended.iter().filter(|ended| ended.as_ref().is_err_and(|why| why.contains("make room"))).count();
    drop(node);
    for peer in known.into_iter().chain(come) {
        peer.tree.stop().await.unwrap();
    }
    Run { open, open_here, entries, evicted: rested.1, end: rested.0, leased, answered, evicted_in_use }
}

/// M-2, M-3, M-4, M-23, R-1: more peers than the pool holds: as many connections are open as there are entries, on both sides,
/// those used longest ago are closed, and none with a call under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_of_peers_closes_what_it_lets_go_and_nothing_that_is_leased() {
    let (cap, leased) = if full() { (1_000, 100) } else { (40, 10) };
    let folder = folder();
    let ours = run(Plan::new(&folder, "a"), &folder, cap, leased, Duration::from_secs(60)).await;
    let control = run(Plan::new(&folder, "b").without("close-on-evict"), &folder, 20, 4, Duration::from_secs(3)).await;
    let (most, come) = (cap as u64, (cap / 2) as u64);
    // One that is let go is counted until it is closed.
    let closing = most + 32;
    record(
        "1 more peers than the pool holds",
        &[
            (
                format!(
                    "{} identities: at most {} entries, {} connections, {} by the others' count",
                    cap + cap / 2,
                    ours.entries,
                    ours.open,
                    ours.open_here
                ),
                format!("{most} entries, and no more than 32 on their way in or out"),
                ours.entries <= most && ours.open <= closing && ours.open_here <= closing + 32,
                None,
            ),
            (
                format!(
                    "at the end {} connections, {} by the others' count, {} entries",
                    ours.end[0], ours.end[1], ours.end[2]
                ),
                format!("{most} each"),
                ours.end == [most; 3] && control.end[0] > 20,
                Some(format!(
                    "without the close, of a pool of 20: {} connections, {} by the others' count, {} entries",
                    control.end[0], control.end[1], control.end[2]
                )),
            ),
            (
                format!(
                    "{} let go, {} of {} calls under way answered, {} of them let go",
                    ours.evicted, ours.answered, ours.leased, ours.evicted_in_use
                ),
                // A busy machine falls silent for longer than peers bear.
                if full() { format!("{come}, all, none") } else { "some, no claim in short form, none".into() },
                ours.evicted > 0
                    && ours.evicted_in_use == 0
                    && (!full() || ours.evicted == come && ours.answered == ours.leased),
                None,
            ),
        ],
    );
}

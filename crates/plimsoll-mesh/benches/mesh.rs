//! A node's calls against bare quinn + h3-quinn, in the same process and the same rounds.
//!
//! `cargo bench -p plimsoll-mesh --bench mesh` prints a table and writes `target/bench/mesh.json`. Every ratio is the
//! median of the ratios of paired rounds, because absolute times depend on what else the machine does. An argument
//! chooses rows by a part of their names; `--seconds N` sets how long each row runs.

#![allow(missing_docs, unreachable_pub, missing_debug_implementations, reason = "a program, not a library")]

mod mesh {
    pub mod bare;
    pub mod client;
    pub mod further;
    pub mod memory;
    pub mod ours;
    pub mod profile;
    pub mod report;
}

use std::time::{Duration, Instant};

use mesh::client::{Line, Target, batch, connect, connect_and_call, endpoint};
use mesh::report::{Pairs, Row, publish};
use mesh::{bare, further, memory, ours, profile};
use tokio::runtime::{Builder, Runtime};

/// The node's allocator, for both sides.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

type Flavour = (&'static str, fn() -> Runtime);

/// The flavours of tokio's runtime. The node ships with the first.
const FLAVOURS: [Flavour; 2] = [
    ("multi-thread", || Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")),
    ("current-thread", || Builder::new_current_thread().enable_all().build().expect("a runtime")),
];

/// Calls at once and connections of each row.
const SHAPES: [(usize, usize); 4] = [(1, 1), (1, 8), (64, 1), (64, 8)];

struct Wanted {
    filter: Option<String>,
    time: Duration,
}

impl Wanted {
    fn wants(&self, bench: &str) -> bool {
        self.filter.as_ref().is_none_or(|part| bench.contains(part.as_str()))
    }
}

async fn lines(target: Target, connections: usize) -> Vec<Line> {
    let endpoint = endpoint();
    let mut lines = Vec::new();
    for _ in 0..connections {
        lines.push(connect(&endpoint, target).await);
    }
    lines
}

/// Rounds of `ours` and `theirs` by turns for `wanted.time`; seconds a call of each.
async fn rounds(wanted: &Wanted, ours: Target, theirs: Target, in_flight: usize, connections: usize) -> Pairs {
    let (ours, theirs) = (lines(ours, connections).await, lines(theirs, connections).await);
    let calls = if in_flight == 1 { 400 } else { 4_096 };
    for line in [&ours, &theirs] {
        batch(line, in_flight, calls).await;
    }
    let mut pairs = Pairs::default();
    let began = Instant::now();
    while began.elapsed() < wanted.time || pairs.0.len() < 5 {
        let turn = pairs.0.len() % 2 == 0;
        let first = batch(if turn { &ours } else { &theirs }, in_flight, calls).await.as_secs_f64();
        let second = batch(if turn { &theirs } else { &ours }, in_flight, calls).await.as_secs_f64();
        let (ours, theirs) = if turn { (first, second) } else { (second, first) };
        pairs.0.push((ours / calls as f64, theirs / calls as f64));
    }
    pairs
}

/// The row of a shape: time when one call is in flight, throughput otherwise.
fn row(pairs: Pairs, bench: String, in_flight: usize, peer: &str, time_goal: f64, share_goal: f64) -> Row {
    if in_flight == 1 {
        let micros = Pairs(pairs.0.iter().map(|(ours, theirs)| (ours * 1e6, theirs * 1e6)).collect());
        micros.less(bench, "us", peer, Some(time_goal))
    } else {
        let rates = Pairs(pairs.0.iter().map(|(ours, theirs)| (1e-3 / ours, 1e-3 / theirs)).collect());
        // "At least 0.85 of" is a ratio of at most 1.18.
        rates.more(bench, "1000/s", peer, Some((100.0 / share_goal).round() / 100.0))
    }
}

async fn one_hop(wanted: &Wanted, flavour: &str, rows: &mut Vec<Row>) {
    let (ours, theirs) = (ours::echo().await, bare::echo());
    for (in_flight, connections) in SHAPES {
        let bench = format!("call, own node, {flavour}, {in_flight} in flight, {connections} connections");
        if wanted.wants(&bench) {
            let pairs = rounds(wanted, ours, theirs, in_flight, connections).await;
            rows.push(row(pairs, bench, in_flight, "quinn + h3-quinn", 1.25, 0.85));
        }
    }
    let bench = format!("connect to first answer, {flavour}");
    if wanted.wants(&bench) {
        let endpoint = endpoint();
        let mut pairs = Pairs::default();
        let began = Instant::now();
        while began.elapsed() < wanted.time || pairs.0.len() < 5 {
            let turn = pairs.0.len() % 2 == 0;
            let first = connect_and_call(&endpoint, if turn { ours } else { theirs }).await.as_secs_f64() * 1e6;
            let second = connect_and_call(&endpoint, if turn { theirs } else { ours }).await.as_secs_f64() * 1e6;
            pairs.0.push(if turn { (first, second) } else { (second, first) });
        }
        rows.push(pairs.less(bench, "us", "quinn + h3-quinn", Some(1.25)));
    }
}

async fn two_hops(wanted: &Wanted, flavour: &str, rows: &mut Vec<Row>) {
    let (ours, relay, bare) = (further::node().await, further::relay().await, bare::echo());
    for (in_flight, connections) in SHAPES {
        let bench = format!("call, one node further, {flavour}, {in_flight} in flight, {connections} connections");
        if wanted.wants(&bench) {
            let pairs = rounds(wanted, ours, bare, in_flight, connections).await;
            rows.push(row(pairs, bench.clone(), in_flight, "quinn + h3-quinn, one hop", 2.25, 0.45));
            let pairs = rounds(wanted, ours, relay, in_flight, connections).await;
            rows.push(row(pairs, bench, in_flight, "bare two-hop h3 relay", 1.11, 0.9));
        }
    }
}

fn idle_memory(wanted: &Wanted, rows: &mut Vec<Row>) {
    let bench = "idle client connection after one call, own process".to_owned();
    if wanted.wants(&bench) {
        let runtime = FLAVOURS[0].1();
        let pairs = (0..3)
            .map(|_| {
                let ours = runtime.block_on(memory::idle_connection("ours"));
                (ours, runtime.block_on(memory::idle_connection("bare")))
            })
            .collect();
        rows.push(Pairs(pairs).less(bench, "KiB", "quinn + h3-quinn, same transport", Some(1.35)));
    }
}

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench").peekable();
    if arguments.next_if(|argument| argument == memory::SERVE).is_some() {
        let which = arguments.next().unwrap_or_default();
        let flavour = arguments.next().unwrap_or_else(|| FLAVOURS[0].0.to_owned());
        let (_, runtime) = FLAVOURS.iter().find(|(name, _)| *name == flavour).expect("a flavour");
        runtime().block_on(memory::serve(&which));
        return Ok(());
    }
    if arguments.next_if(|argument| argument == profile::LOAD).is_some() {
        let arguments: Vec<String> = arguments.collect();
        FLAVOURS[1].1().block_on(profile::load(&arguments));
        return Ok(());
    }
    let mut wanted = Wanted { filter: None, time: Duration::from_secs(4) };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seconds" => {
                let seconds = arguments.next().and_then(|seconds| seconds.parse().ok());
                wanted.time = Duration::from_secs_f64(seconds.expect("--seconds takes a number"));
            }
            part => wanted.filter = Some(part.to_owned()),
        }
    }
    let mut rows = Vec::new();
    for (flavour, runtime) in FLAVOURS {
        let runtime = runtime();
        runtime.block_on(one_hop(&wanted, flavour, &mut rows));
        runtime.block_on(two_hops(&wanted, flavour, &mut rows));
        runtime.shutdown_timeout(Duration::from_secs(1));
    }
    idle_memory(&wanted, &mut rows);
    publish(&rows)
}

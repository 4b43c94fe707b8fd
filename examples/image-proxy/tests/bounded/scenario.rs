//! The scenario: a load with all that can go wrong in it, and then what each fix is for, one after the other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use plimsoll_testkit::process::{Process, until};
use plimsoll_testkit::report::{Report, Row};

use crate::clients::{self, Load, given_up, read_some};
use crate::origin::{self, HOT, LARGE, Seen};
use crate::process::{FIXES, Proxy, target};

const MIB: f64 = 1_048_576.0;
const PATIENCE: Duration = Duration::from_secs(20);

fn requests() -> usize {
    if std::env::var("PLIMSOLL_E2E").is_ok_and(|size| size == "full") { 10_000 } else { 1_000 }
}

/// A proxy and the origin behind it.
struct Bench {
    proxy: Proxy,
    seen: Arc<Seen>,
}

/// What the load left behind.
struct Left {
    load: Load,
    halfway: u64,
    end: u64,
    most_tasks: u64,
    tasks: u64,
    clients: u64,
    failing: u64,
}

impl Bench {
    async fn start(off: &[&str]) -> Self {
        let (origin, seen) = origin::start().await;
        Self { proxy: Proxy::start(origin, off).await, seen }
    }

    fn address(&self) -> SocketAddr {
        self.proxy.address
    }

    /// Sends the load, waits until all is quiet, and looks at what is left.
    async fn load(&self) -> Left {
        let watch = tokio::spawn({
            let (address, most) = (self.address(), Arc::new(AtomicU64::new(0)));
            let watched = most.clone();
            let sampling = async move {
                loop {
                    let stats = clients::get(address, "/stats").await.unwrap().1;
                    let stats: serde_json::Value = serde_json::from_slice(&stats).unwrap();
                    watched.fetch_max(stats["tasks"].as_u64().unwrap(), SeqCst);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            let task = tokio::spawn(sampling);
            async move { (task, most) }
        });
        let (sampling, most) = watch.await.unwrap();
        let halfway = Arc::new(AtomicU64::new(0));
        let (process, noted) = (Process(self.proxy.id()), halfway.clone());
        let load = clients::load(self.address(), requests(), move || {
            noted.store(process.resident().unwrap(), SeqCst);
        })
        .await;
        sampling.abort();
        let _ = sampling.await;
        let stats = self.proxy.quiet().await;
        // Idle connections to the origin have a task each; what remains beyond them belongs to nobody.
        let stray = |tasks: u64| tasks.saturating_sub(self.proxy.tasks_at_start + self.seen.connections.load(SeqCst));
        let mut tasks = stray(stats.tasks);
        for _ in 0..100 {
            if tasks == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            tasks = stray(self.proxy.stats().await.tasks);
        }
        Left {
            load,
            halfway: halfway.load(SeqCst),
            end: self.proxy.resident(),
            most_tasks: most.load(SeqCst),
            tasks,
            clients: self.proxy.stats().await.counter("clients_used"),
            failing: self.seen.failing.load(SeqCst),
        }
    }

    /// Fetches that the origin sees when a hundred clients ask for one new image at the same time.
    async fn fetches_of_one_image(&self) -> u64 {
        let before = self.seen.requests.load(SeqCst);
        let asking = (0..100).map(|_| clients::get(self.address(), "/one/slow-1"));
        for answer in futures::future::join_all(asking).await {
            assert_eq!(answer.unwrap().1.len(), 8 << 10);
        }
        self.seen.requests.load(SeqCst) - before
    }

    /// MiB that the origin sends for each large image whose client hangs up at its beginning.
    async fn sent_to_nobody(&self) -> f64 {
        const CLIENTS: usize = 10;
        let before = self.seen.large_bytes.load(SeqCst);
        let paths: Vec<_> = (0..CLIENTS).map(|n| format!("/one/large-{n}")).collect();
        let reading = paths.iter().map(|path| read_some(self.address(), path, 1));
        drop(futures::future::join_all(reading).await);
        let mut sent = before;
        until("the origin sends no more", PATIENCE, async || {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = self.seen.large_bytes.load(SeqCst);
            (std::mem::replace(&mut sent, now) == now).then_some(())
        })
        .await;
        (sent - before) as f64 / MIB / CLIENTS as f64
    }

    /// MiB that the proxy holds for each client that asks for `path` and stops reading after `bytes`.
    async fn held_for_a_slow_reader(&self, path: &str, bytes: usize, distinct: bool) -> f64 {
        const CLIENTS: usize = 20;
        let before = self.proxy.resident();
        let paths: Vec<_> = (0..CLIENTS).map(|n| format!("{path}-{}", if distinct { 100 + n } else { 1 })).collect();
        let reading = paths.iter().map(|path| read_some(self.address(), path, bytes));
        let readers = futures::future::join_all(reading).await;
        let held = self.proxy.resident().saturating_sub(before);
        drop(readers);
        held as f64 / MIB / CLIENTS as f64
    }

    async fn held_of_a_hot_image(&self) -> f64 {
        assert_eq!(clients::get(self.address(), "/one/hot-1").await.unwrap().1.len(), HOT);
        self.held_for_a_slow_reader("/one/hot", 1, false).await
    }

    async fn held_of_a_large_image(&self) -> f64 {
        self.held_for_a_slow_reader("/one/large", LARGE * 3 / 4, true).await
    }
}

/// The figure that a fix is for.
async fn figure(fix: &str, bench: &Bench) -> f64 {
    match fix {
        "pool-cap" => bench.load().await.clients as f64,
        "one-shot-reply" => bench.load().await.tasks as f64,
        "permit-before-spawn" => bench.load().await.most_tasks as f64,
        "cut-on-error" => bench.load().await.failing as f64,
        "bytes" => bench.held_of_a_hot_image().await,
        "tee-cap" => bench.held_of_a_large_image().await,
        "abort-on-close" => bench.sent_to_nobody().await,
        "single-flight" => bench.fetches_of_one_image().await as f64,
        _ => unreachable!("{fix}"),
    }
}

/// What a figure is, and what it may be at most.
fn bound(fix: &str) -> (&'static str, f64) {
    match fix {
        "pool-cap" => ("clients of the origin kept for 400 tenants", 100.0),
        "one-shot-reply" => ("tasks left by clients that gave up", 0.0),
        "permit-before-spawn" => ("tasks at the worst moment", 600.0),
        "cut-on-error" => ("failed answers left open", 0.0),
        "bytes" => ("MiB held for a slow reader of a 1 MB image", 0.25),
        "tee-cap" => ("MiB held for a slow reader of a 16 MiB image", 2.0),
        "abort-on-close" => ("MiB sent for a 16 MiB image that nobody wants any more", 4.0),
        "single-flight" => ("fetches for a hundred who ask for one image", 1.0),
        _ => unreachable!("{fix}"),
    }
}

/// every fix keeps its figure within its bound, and without the fix
/// the figure is out of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fix_is_what_keeps_its_figure() {
    let with = Bench::start(&[]).await;
    let left = with.load().await;
    let mut rows = Vec::new();
    for fix in FIXES {
        let (what, most) = bound(fix);
        let ours = match fix {
            "pool-cap" => left.clients as f64,
            "one-shot-reply" => left.tasks as f64,
            "permit-before-spawn" => left.most_tasks as f64,
            "cut-on-error" => left.failing as f64,
            _ => figure(fix, &with).await,
        };
        let without = Bench::start(&[fix]).await;
        let theirs = figure(fix, &without).await;
        rows.push(Row {
            scenario: format!("image proxy: {}", fix.replace('-', " ")),
            figure: format!("{what}: {ours:.2}"),
            bound: format!("at most {most}"),
            met: ours <= most && theirs > most,
            control: Some(format!("without it {theirs:.2}")),
        });
    }
    assert_eq!(with.proxy.stop(), 0, "a task outlived the tree");
    publish("image-proxy-fixes", &rows);
}

/// a hundred clients at once, one in a hundred giving up, an origin that stalls,
/// fails and breaks off, handlers that panic: every request ends in the one way that it should, memory settles, nothing
/// is left; and the same with all eight fixes off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_load_settles_and_before_it_did_not() {
    let bench = Bench::start(&[]).await;
    let after = bench.load().await;
    let balance = after.load.ledger.balance().unwrap();
    assert_eq!(balance.issued, requests());
    assert_eq!(balance.outcomes["given up"] as u64, given_up(requests() as u64));
    let stats = bench.proxy.stats().await;
    let drops = ["in_flight", "writes_used", "memory_filling", "clients_waiting"];
    let used: Vec<_> = drops[..3].iter().map(|name| stats.counter(name)).collect();
    assert_eq!(used, [0, 0, 0]);
    assert_eq!(bench.proxy.stop(), 0, "a task outlived the tree");

    let bench = Bench::start(&FIXES).await;
    let before = bench.load().await;
    let mib = |bytes: u64| bytes as f64 / MIB;
    let rate = |left: &Left| requests() as f64 / left.load.took.as_secs_f64();
    let settled = mib(after.end) <= 1.25 * mib(after.halfway) + 8.0;
    let row = |what: &str, ours: f64, bound: &str, met: bool, theirs: f64| Row {
        scenario: "image proxy: before and after".into(),
        figure: format!("{what}: {ours:.1}"),
        bound: bound.into(),
        met,
        control: Some(format!("before {theirs:.1}")),
    };
    let p99 = |left: &Left| left.load.p99.as_secs_f64() * 1_000.0;
    let rows = [
        row("MiB at the end", mib(after.end), "at most 1.25 x that at halfway + 8", settled, mib(before.end)),
        row("MiB at halfway", mib(after.halfway), "-", true, mib(before.halfway)),
        row("tasks left", after.tasks as f64, "0", after.tasks == 0, before.tasks as f64),
        row(
            "most tasks",
            after.most_tasks as f64,
            "less than before",
            after.most_tasks < before.most_tasks,
            before.most_tasks as f64,
        ),
        row("p99 in ms", p99(&after), "no claim", true, p99(&before)),
        row("requests a second", rate(&after), "no claim", true, rate(&before)),
    ];
    publish("image-proxy-load", &rows);
}

/// the size of an image costs one request, or none once it is in memory; an image of which it is known costs one
/// request, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_size_comes_with_the_answer_to_one_request() {
    let bench = Bench::start(&[]).await;
    let requests = || bench.seen.requests.load(SeqCst);
    assert_eq!(clients::length(bench.address(), "/one/hot-7").await, Some(HOT as u64));
    assert_eq!(requests(), 1);
    assert_eq!(clients::get(bench.address(), "/one/hot-7").await.unwrap().1.len(), HOT);
    assert_eq!(requests(), 2);
    bench.proxy.quiet().await;
    assert_eq!(clients::length(bench.address(), "/one/hot-7").await, Some(HOT as u64));
    assert_eq!(clients::get(bench.address(), "/one/hot-7").await.unwrap().1.len(), HOT);
    assert_eq!(requests(), 2, "from memory");
}

fn publish(scenario: &str, rows: &[Row]) {
    Report::new(target(), "bounded").write(scenario, rows).unwrap();
    assert!(rows.iter().all(|row| row.met), "{rows:#?}");
}

//! The scenario: a load with all that can go wrong in it, and then what each fix is for, one after the other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt};
use plimsoll_testkit::process::until;
use plimsoll_testkit::report::{Report, Row};

use crate::clients::{self, Load, given_up, read_some};
use crate::origin::{self, HOT, LARGE, Seen};
use crate::process::{FIXES, Proxy, Stats, target};

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
    stats: Stats,
    resident: u64,
    most_tasks: u64,
    stray: u64,
}

impl Bench {
    async fn start(off: &[&str]) -> Self {
        Self::storing_slowly(off, Duration::from_millis(100)).await
    }

    async fn storing_slowly(off: &[&str], store_delay: Duration) -> Self {
        let (origin, seen) = origin::start().await;
        Self { proxy: Proxy::start(origin, off, store_delay).await, seen }
    }

    fn address(&self) -> SocketAddr {
        self.proxy.address
    }

    /// Asks until the figure is within `most`, and gives up after a time; without all fixes it may never be.
    async fn settles(&self, most: u64, mut figure: impl AsyncFnMut() -> u64) -> u64 {
        let end = Instant::now() + if self.proxy.complete { PATIENCE } else { Duration::from_secs(1) };
        loop {
            let now = figure().await;
            if now <= most || Instant::now() > end {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Tasks that belong to nobody: idle connections to the origin have one each.
    async fn stray(&self) -> u64 {
        let tasks = self.proxy.stats().await.tasks;
        tasks.saturating_sub(self.proxy.tasks_at_start + self.seen.connections.load(SeqCst))
    }

    /// Sends the load, waits until all is quiet, and looks at what is left.
    async fn load(&self) -> Left {
        let most = Arc::new(AtomicU64::new(0));
        let (address, watched) = (self.address(), most.clone());
        let sampling = tokio::spawn(async move {
            loop {
                watched.fetch_max(Stats::of(address).await.tasks, SeqCst);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let load = clients::load(address, requests()).await;
        sampling.abort();
        let _ = sampling.await;
        self.proxy.quiet().await;
        let stray = self.settles(0, async || self.stray().await).await;
        let (stats, resident) = (self.proxy.stats().await, self.proxy.resident());
        Left { load, stats, resident, most_tasks: most.load(SeqCst), stray }
    }

    /// Asks for all of `paths`, fifty at a time, and leaves none unread.
    async fn get_all(&self, paths: impl IntoIterator<Item = String>) {
        let address = self.address();
        let getting = stream::iter(paths).map(|path| async move { clients::get(address, &path).await.unwrap() });
        getting.buffer_unordered(50).for_each(|_| async {}).await;
    }

    /// Clients of the origin that are kept for 400 tenants.
    async fn kept_for_many_tenants(&self) -> u64 {
        self.get_all((0..400).map(|tenant| format!("/t{tenant}/img-{tenant}"))).await;
        self.proxy.stats().await.counter("clients_used")
    }

    /// Tasks that are left of clients who hung up while their image was being fetched.
    async fn left_by_the_impatient(&self) -> u64 {
        const CLIENTS: u64 = 20;
        let before = self.seen.requests.load(SeqCst);
        let paths: Vec<_> = (0..CLIENTS).map(|n| format!("/impatient/slow-{n}")).collect();
        let waiting = futures::future::join_all(paths.iter().map(|path| clients::ask(self.address(), path))).await;
        until("the origin is asked", PATIENCE, async || {
            (self.seen.requests.load(SeqCst) == before + CLIENTS).then_some(())
        })
        .await;
        drop(waiting);
        self.settles(0, async || self.stray().await).await
    }

    /// Tasks that write images into a folder that takes a minute for each.
    async fn writing(&self) -> u64 {
        self.get_all((0..300).map(|image| format!("/one/img-{image}"))).await;
        self.settles(10, async || self.stray().await).await
    }

    /// Failed answers whose connection is left open.
    async fn left_open(&self) -> u64 {
        self.get_all((0..50).map(|image| format!("/failing/fail-{image}"))).await;
        self.settles(0, async || self.seen.failing.load(SeqCst)).await
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
        let reading = paths.iter().map(|path| read_some(self.address(), path, LARGE / 64));
        drop(futures::future::join_all(reading).await);
        until("the origin sends no more", 3 * PATIENCE, async || (self.seen.large.load(SeqCst) == 0).then_some(()))
            .await;
        (self.seen.large_bytes.load(SeqCst) - before) as f64 / MIB / CLIENTS as f64
    }

    /// MiB that the proxy holds for each of `paths`' clients, who read `bytes` and then stop reading.
    async fn held_for_slow_readers(&self, paths: &[String], bytes: usize) -> f64 {
        self.settles(0, async || self.stray().await).await;
        let before = self.proxy.stats().await.heap;
        let reading = paths.iter().map(|path| read_some(self.address(), path, bytes));
        let readers = futures::future::join_all(reading).await;
        let held = self.proxy.stats().await.heap.saturating_sub(before);
        drop(readers);
        held as f64 / MIB / paths.len() as f64
    }

    async fn held_of_a_hot_image(&self) -> f64 {
        assert_eq!(clients::get(self.address(), "/one/hot-1").await.unwrap().1.len(), HOT);
        self.held_for_slow_readers(&vec!["/one/hot-1".to_owned(); 20], 1).await
    }

    async fn held_of_a_large_image(&self) -> f64 {
        let paths: Vec<_> = (100..108).map(|n| format!("/one/large-{n}")).collect();
        self.held_for_slow_readers(&paths, LARGE * 3 / 4).await
    }
}

/// The figure that a fix is for.
async fn figure(fix: &str, bench: &Bench) -> f64 {
    match fix {
        "pool-cap" => bench.kept_for_many_tenants().await as f64,
        "one-shot-reply" => bench.left_by_the_impatient().await as f64,
        "permit-before-spawn" => bench.writing().await as f64,
        "cut-on-error" => bench.left_open().await as f64,
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
        "permit-before-spawn" => ("tasks that write 300 images into a slow folder", 10.0),
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
    let mut rows = Vec::new();
    for fix in FIXES {
        let (what, most) = bound(fix);
        // So slow that no write ends while it is looked at.
        let delay = Duration::from_secs(if fix == "permit-before-spawn" { 60 } else { 0 });
        let ours = figure(fix, &Bench::storing_slowly(&[], delay).await).await;
        let theirs = figure(fix, &Bench::storing_slowly(&[fix], delay).await).await;
        rows.push(Row {
            scenario: format!("image proxy: {}", fix.replace('-', " ")),
            figure: format!("{what}: {ours:.2}"),
            bound: format!("at most {most}"),
            met: ours <= most && theirs > most,
            control: Some(format!("without it {theirs:.2}")),
        });
    }
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
    let used = ["in_flight", "writes_used", "memory_filling"].map(|name| after.stats.counter(name));
    assert_eq!(used, [0, 0, 0]);
    assert_eq!(bench.proxy.stop(), 0, "a task outlived the tree");

    let bench = Bench::start(&FIXES).await;
    let before = bench.load().await;
    let row = |what: &str, ours: f64, bound: &str, met: bool, theirs: f64| Row {
        scenario: "image proxy: before and after".into(),
        figure: format!("{what}: {ours:.1}"),
        bound: bound.into(),
        met,
        control: Some(format!("before {theirs:.1}")),
    };
    let mib = |bytes: u64| bytes as f64 / MIB;
    let settled = mib(after.stats.heap) <= 1.25 * mib(after.load.halfway.heap) + 8.0;
    let told = |what: &str, figure: &dyn Fn(&Left) -> f64| row(what, figure(&after), "no claim", true, figure(&before));
    let rows = [
        row(
            "MiB allocated at the end",
            mib(after.stats.heap),
            "at most 1.25 x that at halfway + 8",
            settled,
            mib(before.stats.heap),
        ),
        told("MiB allocated at halfway", &|left| mib(left.load.halfway.heap)),
        told("MiB resident at the end", &|left| mib(left.resident)),
        row("tasks left", after.stray as f64, "0", after.stray == 0 && before.stray > 0, before.stray as f64),
        told("most tasks", &|left| left.most_tasks as f64),
        told("p99 in ms", &|left| left.load.p99.as_secs_f64() * 1_000.0),
        told("requests a second", &|left| requests() as f64 / left.load.took.as_secs_f64()),
    ];
    publish("image-proxy-load", &rows);
}

/// clients that stop reading hold up nobody who asks for the same image, or for another when all clients of
/// the origin are leased for them; they are given up on after a time, and a stop does not wait for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_stop_reading_hold_up_nobody() {
    let bench = Bench::start(&[]).await;
    let before = bench.seen.requests.load(SeqCst);
    let mut stalled = vec![clients::ask(bench.address(), "/t0/hot-1").await];
    let asked = |more: u64| {
        let seen = &bench.seen;
        async move || (seen.requests.load(SeqCst) >= before + more).then_some(())
    };
    until("its image is fetched", PATIENCE, asked(1)).await;
    let (status, image) = clients::get(bench.address(), "/t0/hot-1").await.unwrap();
    assert_eq!((status.as_u16(), image.len()), (200, HOT), "the same image, while the first does not read");
    // As many tenants as clients of the origin are kept.
    for tenant in 1..100 {
        stalled.push(clients::ask(bench.address(), &format!("/t{tenant}/hot-{tenant}")).await);
    }
    until("their images are fetched", PATIENCE, asked(101)).await;
    until("another tenant is served", PATIENCE, async || {
        let (status, _) = clients::get(bench.address(), "/other/img-1").await.unwrap();
        assert!(matches!(status.as_u16(), 200 | 503), "{status}");
        (status.as_u16() == 200).then_some(())
    })
    .await;
    assert_eq!(bench.settles(0, async || bench.stray().await).await, 0, "they have been given up on");
    stalled.push(clients::ask(bench.address(), "/t0/large-1").await);
    until("the last image is fetched", PATIENCE, async || (bench.seen.large.load(SeqCst) > 0).then_some(())).await;
    assert_eq!(bench.proxy.stop(), 0, "a stop does not wait for who does not read");
    drop(stalled);
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

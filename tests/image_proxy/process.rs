//! The proxy as a process.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use plimsoll_testkit::process::{Process, TimeLimit, until};
use serde_json::Value;
use tempfile::TempDir;

use crate::clients;

/// How long the proxy may take to start or to stop.
const LIMIT: Duration = Duration::from_secs(20);

/// How long the proxy waits for its origin.
pub(crate) const ORIGIN_PATIENCE: Duration = Duration::from_secs(3);

/// The fixes that a build with controls can switch off.
pub(crate) const FIXES: [&str; 8] = [
    "pool-cap",
    "one-shot-reply",
    "permit-before-spawn",
    "bytes",
    "tee-cap",
    "abort-on-close",
    "single-flight",
    "cut-on-error",
];

/// A running proxy; killed when dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    child: Child,
    events: BufReader<ChildStdout>,
    pub(crate) address: SocketAddr,
    /// Tasks before the first request.
    pub(crate) tasks_at_start: u64,
    /// Whether all fixes are on.
    pub(crate) complete: bool,
    _folder: TempDir,
}

/// The statistics that the proxy shows.
#[derive(Debug)]
pub(crate) struct Stats {
    pub(crate) tasks: u64,
    /// Bytes allocated and not freed.
    pub(crate) heap: u64,
    tree: Value,
}

impl Proxy {
    /// Starts a proxy in front of `origin` with these fixes off: the build with controls if there is one.
    ///
    /// A write to its folder takes `store_delay` longer.
    pub(crate) async fn start(origin: SocketAddr, off: &[&str], store_delay: Duration) -> Self {
        let program = if off.is_empty() { PathBuf::from(PROGRAM) } else { controls_program() };
        Self::launch(Command::new(program), origin, off, store_delay).await
    }

    /// Starts a proxy that may have so many descriptors.
    pub(crate) async fn start_limited(origin: SocketAddr, descriptors: u32) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {descriptors}; exec \"$0\" \"$@\""), PROGRAM]);
        Self::launch(command, origin, &[], Duration::ZERO).await
    }

    async fn launch(mut command: Command, origin: SocketAddr, off: &[&str], store_delay: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        command.env("PLIMSOLL_CONTROLS_OFF", off.join(",")).arg("--store").arg(folder.path());
        command.args(["--origin", &origin.to_string(), "--patience-ms", &ORIGIN_PATIENCE.as_millis().to_string()]);
        command.args(["--store-delay-ms", &store_delay.as_millis().to_string()]);
        // Arenas of the C library would show as memory that differs from run to run.
        command.env("MALLOC_ARENA_MAX", "2").stdout(Stdio::piped());
        // Its handlers panic on purpose.
        command.env("RUST_BACKTRACE", "0").stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut events = BufReader::new(child.stdout.take().unwrap());
        let limit = TimeLimit::new(child.id(), LIMIT);
        let address = event(&mut events)["address"].as_str().unwrap().parse().unwrap();
        drop(limit);
        let mut proxy = Self { child, events, address, tasks_at_start: 0, complete: off.is_empty(), _folder: folder };
        proxy.tasks_at_start = proxy.stats().await.tasks;
        proxy
    }

    /// Resident memory.
    pub(crate) fn resident(&self) -> u64 {
        Process(self.child.id()).resident().unwrap()
    }

    pub(crate) async fn stats(&self) -> Stats {
        Stats::of(self.address).await
    }

    /// Waits until nothing is being worked on or written any more; without all fixes that may never be, and is given up.
    pub(crate) async fn quiet(&self) -> Stats {
        let end = Instant::now() + Duration::from_secs(3);
        until("the proxy has nothing to do", Duration::from_secs(60), async || {
            let stats = self.stats().await;
            let idle = ["in_flight", "writes_used", "memory_filling"].iter().all(|name| stats.counter(name) == 0);
            (idle || !self.complete && Instant::now() > end).then_some(stats)
        })
        .await
    }

    /// Asks it to stop, as an operator does.
    pub(crate) fn terminate(&self) {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM).unwrap();
    }

    /// Stops it. Returns how many tasks were left at its end.
    pub(crate) fn stop(mut self) -> u64 {
        self.terminate();
        let limit = TimeLimit::new(self.child.id(), LIMIT);
        let stopped = event(&mut self.events);
        assert_eq!(stopped["clean"], true, "{stopped}");
        assert!(self.child.wait().unwrap().success());
        assert!(!limit.exceeded(), "the proxy did not stop within {LIMIT:?}");
        stopped["tasks"].as_u64().unwrap()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Stats {
    pub(crate) async fn of(proxy: SocketAddr) -> Self {
        let stats = clients::get(proxy, "/stats").await.unwrap().1;
        let stats: Value = serde_json::from_slice(&stats).unwrap();
        let number = |name: &str| stats[name].as_u64().unwrap();
        Self { tasks: number("tasks"), heap: number("heap"), tree: stats["tree"].clone() }
    }

    /// A counter of any child of the tree.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        let children = self.tree["children"].as_array().unwrap();
        let mut found = children.iter().filter_map(|child| child["counters"][name].as_u64());
        found.next().unwrap_or_else(|| panic!("no counter {name} in {:#}", self.tree))
    }
}

fn event(events: &mut BufReader<ChildStdout>) -> Value {
    let mut line = String::new();
    events.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
}

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_image-proxy");

/// The same program with `--cfg plimsoll_controls`, made by `scripts/controls`.
fn controls_program() -> PathBuf {
    let path = target().join("controls/debug/image-proxy");
    assert!(path.exists(), "{} is missing; run scripts/controls", path.display());
    path
}

/// The target folder of this build.
pub(crate) fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap()
}

/// The switches are in the build made for them and in no other.
#[test]
fn no_build_but_the_one_with_controls_contains_the_switches() {
    let contains = |program: &Path| {
        let bytes = std::fs::read(program).unwrap();
        let name = b"PLIMSOLL_CONTROLS_OFF";
        bytes.windows(name.len()).any(|window| window == name)
    };
    assert!(!contains(Path::new(PROGRAM)));
    assert!(contains(&controls_program()), "the control of this test");
}

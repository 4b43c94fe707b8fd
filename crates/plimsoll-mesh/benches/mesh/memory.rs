//! What an idle connection costs: a server in a process of its own, read from outside.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use bytes::Bytes;

use super::client::{BODY, Line, Target, call, connect, endpoint};
use super::{bare, further, ours};

/// Connections for the figure: so many that the allocator's granularity does not show.
const CONNECTIONS: usize = 1_000;

/// The argument that makes this program a server: `serve bare`, `serve ours`, `serve relay` or `serve further`.
pub const SERVE: &str = "serve";

/// Runs as the server until it is killed.
pub async fn serve(which: &str) {
    let target = match which {
        "bare" => bare::echo(),
        "relay" => further::relay().await,
        "further" => further::node().await,
        _ => ours::echo().await,
    };
    println!("{} {}", target.address, target.pin);
    std::future::pending::<()>().await;
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn resident_kib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the server runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line on memory");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

/// KiB that one idle client connection holds in the server, after one call.
pub async fn idle_connection(which: &str) -> f64 {
    let program = std::env::current_exe().expect("this program");
    let mut child = Command::new(program).args([SERVE, which]).stdout(Stdio::piped()).spawn().expect("a server");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("its address");
    let server = Server(child);
    let (address, pin) = line.trim().split_once(' ').expect("address and pin");
    let target = Target { address: address.parse().expect("an address"), pin: pin.parse().expect("a pin") };
    let endpoint = endpoint();
    let mut lines: Vec<Line> = Vec::new();
    // The first ones pay for what is allocated once.
    let mut before = 0.0;
    for nth in 0..CONNECTIONS + 50 {
        if nth == 50 {
            before = resident_kib(server.0.id());
        }
        let mut line = connect(&endpoint, target).await;
        call(&mut line.sender, Bytes::from_static(BODY)).await;
        lines.push(line);
    }
    let after = resident_kib(server.0.id());
    (after - before) / CONNECTIONS as f64
}

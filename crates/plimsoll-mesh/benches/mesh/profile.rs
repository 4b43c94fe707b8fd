//! Load for a server in another process, and what it costs that process: for `perf`, and for machines so busy that only
//! CPU time says something.
//!
//! `mesh serve ours current-thread` in one terminal, `mesh load ADDRESS PIN PID IN_FLIGHT SECONDS` in another.

use std::time::{Duration, Instant};

use super::client::{Line, Target, batch, connect, endpoint};

/// The argument that makes this program a load.
pub const LOAD: &str = "load";

/// CPU time that a process has used, in clock ticks of ten milliseconds.
fn ticks(pid: &str) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the server runs");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    [11, 12].iter().map(|&at| fields[at].parse::<u64>().unwrap_or_default()).sum()
}

/// Calls for so many seconds; prints the server's CPU time a call.
pub async fn load(arguments: &[String]) {
    let [address, pin, pid, in_flight, seconds] = arguments else { panic!("ADDRESS PIN PID IN_FLIGHT SECONDS") };
    let target = Target { address: address.parse().expect("an address"), pin: pin.parse().expect("a pin") };
    let in_flight: usize = in_flight.parse().expect("a number");
    let time = Duration::from_secs_f64(seconds.parse().expect("a number"));
    let line: [Line; 1] = [connect(&endpoint(), target).await];
    batch(&line, in_flight, 2_048).await;
    let (began, before, mut calls) = (Instant::now(), ticks(pid), 0);
    while began.elapsed() < time {
        batch(&line, in_flight, 2_048).await;
        calls += 2_048;
    }
    let (wall, cpu) = (began.elapsed().as_secs_f64(), (ticks(pid) - before) as f64 / 100.0);
    println!(
        "{:.2} us of CPU a call, {:.1} thousand calls a second",
        cpu * 1e6 / f64::from(calls),
        f64::from(calls) / wall / 1e3
    );
}

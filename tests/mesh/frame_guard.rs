//! Frames that announce a gibibyte, and what they do to the server's memory.

use serde_json::Value;

use crate::harness::{Node, Plan, folder, full, record};

const MIB: u64 = 1 << 20;

/// How far the process's memory rises at its peak while a client sends `send` MiB of such a frame on each place.
fn rise(node: &Node, on: &str, send: u64) -> (i64, Value) {
    let send = (send * MIB).to_string();
    // The first client pays for what is allocated once.
    node.aioquic(&["call", "echo", "warm"]);
    let process = node.process();
    process.reset_peak().unwrap();
    let before = process.peak().unwrap();
    let (_, report) = node.aioquic(&["--report-only", "oversized-frame", "--on", on, "--send", &send]);
    ((process.peak().unwrap() - before).cast_signed(), report)
}

/// F-14: nothing is kept of a frame that is too long, wherever it comes; without the guard everything is.
#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_announces_a_gibibyte_leaves_memory_flat_within_two_mebibytes() {
    let folder = folder();
    let send = if full() { 64 } else { 8 };
    let mut rows = Vec::new();
    for on in ["headers", "grease", "control"] {
        // New processes each time: memory that an earlier frame took and gave back would hide what this one takes.
        let guarded = Plan::new(&folder, &format!("with-{on}")).start();
        let open = Plan::new(&folder, &format!("without-{on}")).without("frame-guard").start();
        let (with, report) = rise(&guarded, on, send);
        let (without, unguarded) = rise(&open, on, send);
        let taken = |report: &Value| report["taken"].as_u64().unwrap();
        let figure = format!("{on}: {:+.1} MiB, {} KiB taken", mebibytes(with), taken(&report) / 1024);
        let got = taken(&unguarded);
        let control = format!("without the guard {:+.1} MiB of {} MiB taken", mebibytes(without), got / MIB);
        let flat = with <= 2 * MIB.cast_signed() && report["met"] == true;
        // The foreign client is slow: the control is judged by what it got rid of in its time.
        let grows = got >= 2 * MIB && without >= (got / 2).cast_signed();
        rows.push((figure, "at most +2.0 MiB, refused with 0x107", flat && grows, Some(control)));
    }
    record("frame-guard", &rows);
}

fn mebibytes(bytes: i64) -> f64 {
    bytes as f64 / MIB as f64
}

//! The bounded parts against what one would use without them, in the same run, interleaved.
//!
//! `cargo bench -p plimsoll --bench bounded` prints a table and writes `target/bench/bounded.json`. Every figure is the
//! median of rounds that alternate between ours and theirs.

#![allow(missing_docs, unreachable_pub, reason = "a program, not a library")]

mod bounded {
    pub mod payloads;
    pub mod tables;
}
#[path = "common/report.rs"]
mod report;

fn main() -> std::io::Result<()> {
    let mut rows = Vec::new();
    bounded::tables::measure(&mut rows);
    bounded::payloads::measure(&mut rows);
    report::publish("bounded", &rows)
}

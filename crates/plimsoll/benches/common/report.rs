//! Medians of interleaved rounds, as a table and as JSON.

#![allow(dead_code, reason = "each program uses its own part of it")]

use std::time::Duration;

use serde::Serialize;

/// One line of the table. `ratio` is ours to theirs in time and memory, theirs to ours in throughput: smaller is better.
#[derive(Debug, Serialize)]
pub struct Row {
    pub bench: String,
    pub ours: f64,
    pub unit: &'static str,
    pub peer: Option<String>,
    pub theirs: Option<f64>,
    pub ratio: Option<f64>,
    pub goal: Option<f64>,
    pub met: Option<bool>,
}

impl Row {
    /// Ours against a peer's, with a goal for the ratio.
    pub fn against(
        bench: impl Into<String>,
        ours: f64,
        unit: &'static str,
        peer: &str,
        theirs: f64,
        goal: Option<f64>,
    ) -> Self {
        let ratio = ours / theirs;
        let met = goal.map(|goal| ratio <= goal);
        let (bench, peer) = (bench.into(), Some(peer.to_owned()));
        Self { bench, ours, unit, peer, theirs: Some(theirs), ratio: Some(ratio), goal, met }
    }

    /// Ours against a fixed figure in `unit`.
    pub fn absolute(bench: impl Into<String>, ours: f64, unit: &'static str, goal: Option<f64>) -> Self {
        let met = goal.map(|goal| ours <= goal);
        Self { bench: bench.into(), ours, unit, peer: None, theirs: None, ratio: None, goal, met }
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Nanoseconds a call of `calls` that took `time`.
pub fn ns_each(time: Duration, calls: usize) -> f64 {
    time.as_nanos() as f64 / calls as f64
}

/// Prints the table and writes `target/bench/<part>.json`.
pub fn publish(part: &str, rows: &[Row]) -> std::io::Result<()> {
    print(rows);
    write(part, &serde_json::to_value(rows)?)
}

/// Prints the table and adds it to `target/bench/<part>.json`, where it takes the place of rows of the same names.
pub fn publish_added(part: &str, rows: &[Row]) -> std::io::Result<()> {
    print(rows);
    let known = std::fs::read(folder().join(format!("{part}.json"))).ok();
    let known: Option<Vec<serde_json::Value>> = known.and_then(|text| serde_json::from_slice(&text).ok());
    let mut all = known.unwrap_or_default();
    all.retain(|row| !rows.iter().any(|ours| row["bench"] == ours.bench.as_str()));
    for row in rows {
        all.push(serde_json::to_value(row)?);
    }
    write(part, &serde_json::Value::Array(all))
}

fn folder() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench")
}

fn write(part: &str, rows: &serde_json::Value) -> std::io::Result<()> {
    std::fs::create_dir_all(folder())?;
    std::fs::write(folder().join(format!("{part}.json")), serde_json::to_vec_pretty(rows)?)
}

fn print(rows: &[Row]) {
    let text = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
    println!(
        "{:<58} {:>10} {:<8} {:>10} {:>6} {:>7} {:>4}  peer",
        "what", "ours", "unit", "theirs", "ratio", "goal", "met"
    );
    for row in rows {
        let met = row.met.map_or("-", |met| if met { "yes" } else { "NO" });
        println!(
            "{:<58} {:>10.1} {:<8} {:>10} {:>6} {:>7} {:>4}  {}",
            row.bench,
            row.ours,
            row.unit,
            row.theirs.map_or("-".to_owned(), |value| format!("{value:.1}")),
            text(row.ratio),
            text(row.goal),
            met,
            row.peer.as_deref().unwrap_or("-"),
        );
    }
}

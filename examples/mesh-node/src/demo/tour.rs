//! The output of the tour: text, or JSON lines.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::children::Trio;
use super::steps::{Line, Step, StepReport};
use super::{DemoArgs, READY_WITHIN};
use crate::output::{self, Paint, print};

/// Width of the text.
const WIDTH: usize = 106;

/// Runs and prints every step. Returns whether everything expected happened.
pub(super) async fn run(trio: &mut Trio, args: &DemoArgs, paint: Paint, ready: Duration) -> anyhow::Result<bool> {
    if !args.json {
        print_nodes(trio, paint, ready);
    } else {
        let nodes: Vec<_> = trio.nodes().iter().map(|node| json!({ "name": node.plan.name, "node": node.ready.node, "address": node.ready.address, "pid": node.pid(), "data": node.data() })).collect();
        let met = ready <= READY_WITHIN;
        print(&format!(
            "{}\n",
            json!({ "schema": 1, "event": "ready", "ms": milliseconds(ready), "met": met, "folder": trio.folder(), "nodes": nodes })
        ));
    }
    let mut failed = Vec::new();
    for (index, step) in Step::ALL.into_iter().enumerate() {
        let report = step.run(trio, args.fail == Some(step)).await?;
        if !report.met() {
            failed.push(index + 1);
        }
        if args.json {
            let checks: Vec<_> =
                report.checks.iter().map(|(what, met)| json!({ "expected": what, "met": met })).collect();
            print(&format!(
                "{}\n",
                json!({ "schema": 1, "event": "step", "step": step, "met": report.met(), "checks": checks })
            ));
        } else {
            print_step(index + 1, step, &report, paint);
            if step == Step::Tree {
                let tree = output::tree(paint, &trio.first().snapshot().await?.runtime.tree, Some(WIDTH));
                print(&format!("\n{}", indented(&tree)));
            }
        }
    }
    if !args.json {
        print_summary(&failed, paint);
    }
    Ok(failed.is_empty())
}

fn print_nodes(trio: &Trio, paint: Paint, ready: Duration) {
    let took = format!("{:.2} s", ready.as_secs_f64());
    let mark = mark(ready <= READY_WITHIN, paint);
    print(&format!("\n{}\n{mark} ready after {took}\n\n", paint.bold("Three mesh nodes on this machine")));
    let rows: Vec<_> = trio
        .nodes()
        .iter()
        .map(|node| {
            let offers: Vec<_> = node.plan.offers.iter().map(|service| service.name()).collect();
            let (id, address) = (node.ready.node.short(), node.ready.address.to_string());
            vec![node.plan.name.to_owned(), id, address, node.pid().to_string(), offers.join(" ")]
        })
        .collect();
    let table = output::table(paint, &["NODE", "ID", "HTTP/3 AND PEERS", "PID", "SERVICES"], &rows);
    print(&format!("{}\nEvery call below is made over HTTP/3 to node A.\n", indented(&table)));
}

fn print_step(number: usize, step: Step, report: &StepReport, paint: Paint) {
    let mut text = format!("\n{} {}\n", paint.bold(&format!("{number}.")), paint.bold(step.title()));
    for line in &report.lines {
        match line {
            Line::Command(what) => text += &format!("   {} {what}\n", paint.dim("$")),
            Line::Result(what, took) => {
                let took = format!("{:.1} ms", milliseconds(*took));
                let room = WIDTH - 5 - took.len();
                let what = shortened(what, room - 2);
                text += &format!("     {what:<room$}{}\n", paint.dim(&took));
            }
        }
    }
    for (expected, met) in &report.checks {
        text += &format!("   {} {expected}\n", mark(*met, paint));
    }
    print(&text);
}

fn print_summary(failed: &[usize], paint: Paint) {
    if failed.is_empty() {
        print(&format!("\n{} every step had the expected result\n", mark(true, paint)));
    } else {
        let numbers: Vec<_> = failed.iter().map(usize::to_string).collect();
        print(&format!("\n{} not the expected result: step {}\n", mark(false, paint), numbers.join(", ")));
    }
}

/// Prints commands to copy.
pub(super) fn print_examples(trio: &Trio, paint: Paint) {
    let program = program();
    let node = trio.first();
    let to = format!("--to {} \\\n      --pin {}", node.ready.address, node.ready.node);
    let data = format!("--data {}", node.data().display());
    let commands = [
        format!("{program} call echo hello {to}"),
        format!("{program} call {data} hash @Cargo.toml"),
        format!("{program} call {data} crash 'out of range'"),
        format!("{program} services {data}"),
        format!("{program} nodes {data}"),
        format!("{program} tree {data}"),
    ];
    let mut text = format!("\n{}\n", paint.bold("The nodes keep running. Try in another terminal:"));
    for command in commands {
        text += &format!("   {command}\n");
    }
    text += &format!("\n{}\n", paint.dim("Ctrl-C stops them."));
    print(&text);
}

/// The path of this program, as a user would type it here.
fn program() -> String {
    let Ok(path) = std::env::current_exe() else { return "mesh-node".into() };
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).map(Path::to_owned).unwrap_or(path).display().to_string()
}

fn mark(met: bool, paint: Paint) -> String {
    if met { paint.good("✓") } else { paint.bad("✗") }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("   {line}\n")).collect()
}

fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e4).round() / 10.0
}

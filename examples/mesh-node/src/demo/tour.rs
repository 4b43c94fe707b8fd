//! The tour as a person reads it, or as JSON lines.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::children::Trio;
use super::steps::{Line, Step, Told};
use super::{DemoArgs, READY_WITHIN};
use crate::output::{self, Paint, print};

/// How wide the story is.
const WIDTH: usize = 100;

/// Takes every step and tells it; says whether all was as announced.
pub(super) async fn run(trio: &mut Trio, args: &DemoArgs, paint: Paint, ready: Duration) -> anyhow::Result<bool> {
    if !args.json {
        introduce(trio, paint, ready);
    } else {
        let nodes: Vec<_> = trio.nodes().iter().map(|node| json!({ "name": node.plan.name, "node": node.ready.node, "address": node.ready.address, "pid": node.pid(), "data": node.data() })).collect();
        let met = ready <= READY_WITHIN;
        print(&format!(
            "{}\n",
            json!({ "schema": 1, "event": "ready", "ms": milliseconds(ready), "met": met, "folder": trio.folder(), "nodes": nodes })
        ));
    }
    let mut wrong = Vec::new();
    for (index, step) in Step::ALL.into_iter().enumerate() {
        let told = step.run(trio, args.untrue == Some(step)).await?;
        if !told.met() {
            wrong.push(index + 1);
        }
        if args.json {
            let checks: Vec<_> = told.checks.iter().map(|(what, so)| json!({ "announced": what, "met": so })).collect();
            print(&format!(
                "{}\n",
                json!({ "schema": 1, "event": "step", "step": step, "met": told.met(), "checks": checks })
            ));
        } else {
            tell(index + 1, step, &told, paint);
            if step == Step::Tree {
                let tree = output::tree(paint, &trio.first().snapshot().await?.runtime.tree, Some(WIDTH));
                print(&format!("\n{}", indented(&tree)));
            }
        }
    }
    if !args.json {
        conclude(&wrong, paint);
    }
    Ok(wrong.is_empty())
}

fn introduce(trio: &Trio, paint: Paint, ready: Duration) {
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
    let table = output::table(paint, &["NODE", "ID", "HTTP/3 AND PEERS", "PROCESS", "OFFERS"], &rows);
    print(&format!("{}\nEvery call below is made over HTTP/3 to node A.\n", indented(&table)));
}

fn tell(number: usize, step: Step, told: &Told, paint: Paint) {
    let mut text = format!("\n{} {}\n", paint.bold(&format!("{number}.")), paint.bold(step.title()));
    for line in &told.lines {
        match line {
            Line::Did(what) => text += &format!("   {} {what}\n", paint.dim("$")),
            Line::Read(what, took) => {
                let took = format!("{:.1} ms", milliseconds(*took));
                let room = WIDTH - 5 - took.len();
                let what = shortened(what, room - 2);
                text += &format!("     {what:<room$}{}\n", paint.dim(&took));
            }
        }
    }
    for (announced, so) in &told.checks {
        text += &format!("   {} {announced}\n", mark(*so, paint));
    }
    print(&text);
}

fn conclude(wrong: &[usize], paint: Paint) {
    if wrong.is_empty() {
        print(&format!("\n{} every step was as announced\n", mark(true, paint)));
    } else {
        let numbers: Vec<_> = wrong.iter().map(usize::to_string).collect();
        print(&format!("\n{} not as announced: step {}\n", mark(false, paint), numbers.join(", ")));
    }
}

/// Commands ready to copy.
pub(super) fn invite(trio: &Trio, paint: Paint) {
    let program = program();
    let node = trio.first();
    let to = format!("--to {} \\\n      --pin {}", node.ready.address, node.ready.node);
    let data = format!("--data {}", node.data().display());
    let commands = [
        format!("{program} call echo hello {to}"),
        format!("{program} call {data} hash @Cargo.toml"),
        format!("{program} call {data} crash 'man overboard'"),
        format!("{program} services {data}"),
        format!("{program} nodes {data}"),
        format!("{program} tree {data}"),
    ];
    let mut text = format!("\n{}\n", paint.bold("The nodes go on. In another terminal:"));
    for command in commands {
        text += &format!("   {command}\n");
    }
    text += &format!("\n{}\n", paint.dim("Ctrl-C stops them."));
    print(&text);
}

/// This program, as one would type it here.
fn program() -> String {
    let Ok(path) = std::env::current_exe() else { return "mesh-node".into() };
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).map(Path::to_owned).unwrap_or(path).display().to_string()
}

fn mark(so: bool, paint: Paint) -> String {
    if so { paint.good("✓") } else { paint.bad("✗") }
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

//! Runs models one by one and counts their executions.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

pub(crate) type Model = (&'static str, fn());

const EXPECTED: &str = include_str!("expected.txt");

pub(crate) fn all(models: &'static [Model]) -> ExitCode {
    let bound: usize = std::env::var("LOOM_MAX_PREEMPTIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let only = std::env::args().nth(1).filter(|argument| !argument.starts_with('-'));
    let mut counts = BTreeMap::new();
    let mut summary = String::from("[\n");
    for (name, model) in models.iter().filter(|(name, _)| only.as_ref().is_none_or(|only| name.contains(only.as_str())))
    {
        let (executions, started) = (Arc::new(AtomicU64::new(0)), Instant::now());
        let mut builder = ::loom::model::Builder::new();
        builder.preemption_bound = Some(bound);
        builder.check({
            let executions = Arc::clone(&executions);
            move || {
                executions.fetch_add(1, Ordering::Relaxed);
                model();
            }
        });
        let executions = executions.load(Ordering::Relaxed);
        println!("{name:<45} {executions:>9} executions, bound {bound}, {:.1?}", started.elapsed());
        let comma = if counts.is_empty() { "" } else { ",\n" };
        let _ = write!(summary, r#"{comma}  {{"model": "{name}", "executions": {executions}, "bound": {bound}}}"#);
        counts.insert(*name, executions);
    }
    summary.push_str("\n]\n");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/loom");
    let written = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(folder.join("summary.json"), summary));
    if let Err(error) = written {
        eprintln!("the summary was not written: {error}");
        return ExitCode::FAILURE;
    }
    if only.is_some() { ExitCode::SUCCESS } else { compare(&counts) }
}

/// Every expected model has run, with at least its executions, and no other.
fn compare(counts: &BTreeMap<&str, u64>) -> ExitCode {
    let lines = EXPECTED.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let expected: BTreeMap<&str, u64> =
        lines.filter_map(|line| line.split_once(' ')).filter_map(|(name, n)| Some((name, n.parse().ok()?))).collect();
    let mut wrong = Vec::new();
    for (name, least) in &expected {
        match counts.get(name) {
            None => wrong.push(format!("{name} did not run")),
            Some(ran) if ran < least => wrong.push(format!("{name} ran {ran} executions, expected at least {least}")),
            Some(_) => {}
        }
    }
    wrong
        .extend(counts.keys().filter(|name| !expected.contains_key(*name)).map(|name| format!("{name} is not listed")));
    for line in &wrong {
        eprintln!("{line}");
    }
    println!("{} models, {} executions", counts.len(), counts.values().sum::<u64>());
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

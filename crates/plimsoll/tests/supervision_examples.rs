//! The examples of supervision do what they say.

use std::process::Command;

/// What an example prints. Examples are built with the tests, next to them.
fn run(example: &str) -> Vec<String> {
    let tests = std::env::current_exe().expect("a path");
    let program =
        tests.parent().and_then(|deps| deps.parent()).expect("a target folder").join("examples").join(example);
    let output = Command::new(&program).output().unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    assert!(output.status.success(), "{example}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
}

#[test]
fn supervised_service() {
    let printed = run("supervised_service");
    let runs: Vec<_> = printed.iter().filter(|line| line.starts_with("worker: run")).collect();
    assert_eq!(runs, ["worker: run 1", "worker: run 2", "worker: run 3"]);
    assert_eq!(printed[printed.len() - 3..], ["worker: stopped", "listener: closed", "stopped cleanly: true"]);
}

#[test]
fn existing_ractor_actors() {
    assert_eq!(
        run("existing_ractor_actors"),
        [
            "counter: started",
            "reader: started",
            "total: 3",
            "counter: started",
            "reader: started",
            "total after the crash: 0",
            "counter: stopped",
            "stopped cleanly: true",
        ]
    );
}

#[test]
fn dynamic_workers() {
    assert_eq!(
        run("dynamic_workers"),
        [
            "short: started with 1 steps",
            "unlucky: started with 13 steps",
            "third: refused, there are 2 already",
            "running: 1",
            "panic: thirteen steps are too many",
            "unlucky: started with 13 steps",
            "running: 1",
            "restarts: 1",
            "stopped cleanly: true",
        ]
    );
}

//! The examples of the README's table print what they show, and its first program is one of them.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// An example as it was built with this test, next to it.
fn program(example: &str) -> PathBuf {
    let tests = std::env::current_exe().expect("a path");
    tests.parent().and_then(Path::parent).expect("a target folder").join("examples").join(example)
}

#[track_caller]
fn prints(example: &str, expected: &[&str]) {
    let output = Command::new(program(example)).output().unwrap_or_else(|error| panic!("{example}: {error}"));
    assert!(output.status.success(), "{example}: {}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).expect("text");
    assert_eq!(printed.lines().collect::<Vec<_>>(), expected);
}

/// The lines of an example that are neither blank nor comments.
fn code(example: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(format!("{example}.rs"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with("//")).map(str::to_owned).collect()
}

#[test]
fn first_actor() {
    prints("first_actor", &["hello, world", "stopped cleanly: true"]);
}

#[test]
fn first_call_server() {
    prints("first_call_server", &["Err(\"died: failed: no text\")", "4", "stopped cleanly: true"]);
}

#[test]
fn first_gen_server() {
    prints("first_gen_server", &["42", "stopped cleanly: true"]);
}

#[test]
fn the_first_programs_have_at_most_25_lines() {
    for example in ["first_actor", "first_call_server", "first_gen_server"] {
        let lines = code(example).len();
        assert!(lines <= 25, "{example} has {lines} lines");
    }
}

#[test]
fn the_readme_starts_with_the_first_gen_server() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = fs::read_to_string(readme).expect("README.md");
    let block = readme.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block of Rust");
    let lines: Vec<_> = block.lines().filter(|line| !line.trim().is_empty()).collect();
    assert_eq!(lines, code("first_gen_server"));
}

#[test]
fn gen_server() {
    prints("gen_server", &["a job that was queued", "a job from the timer", "stopped", "no process"]);
}

#[test]
fn pool() {
    prints("pool", &["connect", "reply: one", "reply: two", "close"]);
}

#[test]
fn registry() {
    let refused = "4003: the name has 2 providers already";
    prints("registry", &["4001: added", "4002: added", refused, "providers: 2", "providers: 0"]);
}

#[test]
fn fan_out() {
    let slow = "slow: disconnected, backlog of 568 bytes is over the limit of 512";
    prints("fan_out", &["reader: 10 messages", "latest: price 10", slow, "subscribers: 2"]);
}

#[test]
fn snapshot() {
    let counter = "    counter (Running), 1 calls settled";
    prints("snapshot", &["app (Running)", "  servers (Running)", counter, "  sweeper (Running)"]);
}

/// Ends the program with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn ctrl_c() {
    let mut running = Running(Command::new(program("ctrl_c")).stdout(Stdio::piped()).spawn().expect("ctrl_c"));
    let mut output = BufReader::new(running.0.stdout.take().expect("a pipe"));
    let mut first = String::new();
    output.read_line(&mut first).expect("a line");
    assert_eq!(first, "running, stop with Ctrl-C\n");
    let sent = Command::new("kill").args(["-INT", &running.0.id().to_string()]).status().expect("kill");
    assert!(sent.success());
    let mut rest = String::new();
    output.read_to_string(&mut rest).expect("text");
    assert_eq!(rest, "worker: stopped\nstopped cleanly: true\n");
    assert!(running.0.wait().expect("its status").success());
}

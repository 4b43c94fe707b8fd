//! `demo`: its tour is true, says so when it is not, and leaves nobody behind.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use plimsoll_testkit::process::{Process, until};
use serde_json::Value;

use crate::harness::{PROGRAM, full, note};

fn once(arguments: &[&str]) -> (Option<i32>, Vec<Value>) {
    let output = Command::new(PROGRAM).args(["demo", "--once", "--json"]).args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (output.status.code(), lines)
}

#[test]
fn the_tour_is_as_announced_and_ready_within_two_seconds() {
    let (code, lines) = once(&[]);
    let ready = lines[0]["ms"].as_f64().unwrap();
    let steps: Vec<_> = lines.iter().filter(|line| line["event"] == "step").collect();
    let met = steps.iter().filter(|step| step["met"] == true).count();
    note(
        "demo",
        &[
            (format!("ready after {ready} ms"), "2000 ms", ready <= 2_000.0, None),
            (
                format!("{met} of {} steps as announced, exit code {code:?}", steps.len()),
                "6 of 6, 0",
                met == 6 && code == Some(0),
                None,
            ),
        ],
    );
    let end = lines.last().unwrap()["stopped"].as_str().unwrap();
    assert!(end.ends_with("nobody had to be killed"), "{end}");
}

#[test]
fn a_step_that_is_not_as_announced_is_named_and_the_exit_code_is_1() {
    let steps = ["own", "other", "panic", "kill", "cap", "tree"];
    let some = if full() { &steps[..] } else { &steps[3..5] };
    for step in some {
        let (code, lines) = once(&["--untrue", step]);
        assert_eq!(code, Some(1), "{step}");
        let wrong: Vec<_> = lines.iter().filter(|line| line["event"] == "step" && line["met"] == false).collect();
        assert_eq!(wrong.len(), 1, "{lines:#?}");
        assert_eq!(wrong[0]["step"], *step);
    }
}

#[test]
fn the_tour_reads_as_a_story() {
    let output = Command::new(PROGRAM).args(["demo", "--once", "--color", "never"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    for wanted in [
        "1. A call answered by the node it reaches",
        "200 hello, mesh",
        "500 worker_panicked",
        "502 provider_died",
        "503 max_clients_reached",
        "├─ gateway",
        "every step was as announced",
        "nobody had to be killed",
    ] {
        assert!(text.contains(wanted), "no {wanted:?} in\n{text}");
    }
    assert!(!text.contains('\x1b'), "colours in spite of --color never");
    let longest = text.lines().map(|line| line.chars().count()).max().unwrap();
    assert!(longest <= 110, "a line of {longest} characters in\n{text}");
}

#[tokio::test]
async fn the_nodes_die_with_their_parent_even_if_it_is_killed() {
    let mut demo = Command::new(PROGRAM).args(["demo", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    let ready: Value = serde_json::from_str(&line).unwrap();
    let nodes = ready["nodes"].as_array().unwrap();
    let processes: Vec<_> =
        nodes.iter().map(|node| Process(u32::try_from(node["pid"].as_u64().unwrap()).unwrap())).collect();
    let folder = std::path::PathBuf::from(ready["folder"].as_str().unwrap());
    assert!(processes.len() == 3 && processes.iter().all(|process| process.is_alive()) && folder.exists());
    demo.kill().unwrap();
    demo.wait().unwrap();
    until("all nodes are gone", Duration::from_secs(5), async || {
        processes.iter().all(|process| !process.is_alive()).then_some(())
    })
    .await;
    until("their folder is gone", Duration::from_secs(5), async || (!folder.exists()).then_some(())).await;
}

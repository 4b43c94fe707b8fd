//! `demo`: its steps have the expected results, one that has not is reported, and no process or file remains.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use plimsoll_testkit::process::{Process, run_within, until};
use serde_json::Value;

use crate::harness::{Limited, PROGRAM, full, record};

/// How long the tour may take on a busy machine.
const TOUR_LIMIT: Duration = Duration::from_secs(60);

fn once(arguments: &[&str]) -> (Option<i32>, Vec<Value>) {
    let output = run_within(
        Command::new(PROGRAM).args(["demo", "--once", "--json"]).args(arguments).stdout(Stdio::piped()),
        TOUR_LIMIT,
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (output.status.code(), lines)
}

#[test]
fn every_step_of_the_tour_has_the_expected_result_and_the_nodes_are_ready_within_two_seconds() {
    let (code, lines) = once(&[]);
    let ready = lines[0]["ms"].as_f64().unwrap();
    let steps: Vec<_> = lines.iter().filter(|line| line["event"] == "step").collect();
    let met = steps.iter().filter(|step| step["met"] == true).count();
    record(
        "demo",
        &[
            (format!("ready after {ready} ms"), "2000 ms", ready <= 2_000.0, None),
            (
                format!("{met} of {} steps with the expected result, exit code {code:?}", steps.len()),
                "6 of 6, 0",
                met == 6 && code == Some(0),
                None,
            ),
        ],
    );
    let end = lines.last().unwrap()["stopped"].as_str().unwrap();
    assert!(end.ends_with("nothing had to be killed"), "{end}");
}

#[test]
fn a_step_without_the_expected_result_is_named_and_the_exit_code_is_1() {
    let steps = ["own", "other", "panic", "kill", "cap", "tree"];
    let some = if full() { &steps[..] } else { &steps[3..5] };
    for step in some {
        let (code, lines) = once(&["--fail", step]);
        assert_eq!(code, Some(1), "{step}");
        let failed: Vec<_> = lines.iter().filter(|line| line["event"] == "step" && line["met"] == false).collect();
        assert_eq!(failed.len(), 1, "{lines:#?}");
        assert_eq!(failed[0]["step"], *step);
    }
}

#[test]
fn the_tour_as_text_shows_each_step_and_its_result() {
    let output = run_within(
        Command::new(PROGRAM).args(["demo", "--once", "--color", "never"]).stdout(Stdio::piped()),
        TOUR_LIMIT,
    );
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    for wanted in [
        "1. A call of a service on the node that receives it",
        "200 hello, mesh",
        "500 worker_panicked",
        "502 provider_died",
        "503 max_clients_reached",
        "├─ gateway",
        "every step had the expected result",
        "nothing had to be killed",
    ] {
        assert!(text.contains(wanted), "no {wanted:?} in\n{text}");
    }
    assert!(!text.contains('\x1b'), "colours in spite of --color never");
    let longest = text.lines().map(|line| line.chars().count()).max().unwrap();
    assert!(longest <= 110, "a line of {longest} characters in\n{text}");
}

#[tokio::test]
async fn the_nodes_die_with_their_parent_even_if_it_is_killed() {
    let mut demo = Limited::spawn(Command::new(PROGRAM).args(["demo", "--json"]).stdout(Stdio::piped()));
    let mut lines = BufReader::new(demo.child.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    let ready: Value = serde_json::from_str(&line).unwrap();
    let nodes = ready["nodes"].as_array().unwrap();
    let processes: Vec<_> =
        nodes.iter().map(|node| Process(u32::try_from(node["pid"].as_u64().unwrap()).unwrap())).collect();
    let folder = std::path::PathBuf::from(ready["folder"].as_str().unwrap());
    assert!(processes.len() == 3 && processes.iter().all(|process| process.is_alive()) && folder.exists());
    drop(demo);
    until("all nodes are gone", Duration::from_secs(5), async || {
        processes.iter().all(|process| !process.is_alive()).then_some(())
    })
    .await;
    until("their folder is gone", Duration::from_secs(5), async || (!folder.exists()).then_some(())).await;
}

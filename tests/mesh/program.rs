//! The program as its users run it: settings, exit codes, messages, one node a folder.

use std::fs::File;
use std::io::{BufRead, BufReader, Lines};
use std::process::{ChildStderr, Command, Stdio};
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::harness::{Limited, PATIENCE, PROGRAM, Plan, controls_program, folder, full, output_of, run};

#[test]
fn a_wrong_setting_is_refused_with_its_place_and_exit_code_2() {
    let folder = folder();
    let file = folder.path().join("node.toml");
    std::fs::write(&file, "listen = \"127.0.0.1:0\"\n[gateway]\nmax_client = 5\n").unwrap();
    let (code, words) = run(Command::new(PROGRAM).args(["serve", "--config"]).arg(&file));
    assert_eq!(code, Some(2), "{words}");
    assert!(words.contains("gateway.max_client") && words.contains("node.toml, line 3"), "{words}");
    let (code, words) = run(Command::new(PROGRAM).arg("tree").env("MESH_NODE_MAX", "1"));
    assert_eq!(code, Some(2), "{words}");
    assert!(words.contains("MESH_NODE_MAX"), "{words}");
    let (code, words) = run(&mut Plan::new(&folder, "a").flag("gateway-max-clients", "unlimited").command());
    assert_eq!(code, Some(2), "{words}");
    assert!(words.contains("flag --gateway-max-clients"), "{words}");
}

/// F-1: caps that do not fit the budget are refused at boot, with the sum.
#[test]
fn caps_that_do_not_fit_the_memory_are_refused_with_the_sum() {
    let folder = folder();
    let plan = Plan::new(&folder, "a").flag("gateway-max-clients", 10_000).flag("memory-budget", "64MiB");
    let (code, words) = run(&mut plan.command());
    assert_eq!(code, Some(2), "{words}");
    assert!(words.contains("10000 clients + 64 refusal responders + 1000 pooled peers at 52 KiB each, "), "{words}");
    assert!(words.contains("10000 advertisements at 1 KiB each, 10000 subscriptions at 8 KiB each"), "{words}");
    assert!(words.contains("of buffers are 842.8 MiB"), "{words}");
    assert!(words.contains("the memory budget is 64.0 MiB"), "{words}");
    let small = |advertisements| {
        let plan = Plan::new(&folder, "a").flag("gateway-max-clients", 100).flag("peers-max", 10);
        let plan = plan.flag("pubsub-max-subscribers", 100).flag("pubsub-max-filters", 100);
        plan.flag("advertisements-max", advertisements).flag("memory-budget", "224MiB")
    };
    let (code, words) = run(&mut small(100_000).command());
    assert_eq!(code, Some(2), "{words}");
    assert!(words.contains("100000 advertisements"), "{words}");
    small(1_000).start();
}

#[test]
fn one_folder_is_for_one_node_and_one_port_too() {
    let folder = folder();
    let plan = Plan::new(&folder, "a");
    let first = plan.start();
    let (code, words) = run(&mut plan.command());
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("another node"), "{words}");
    let (code, words) = run(&mut Plan::new(&folder, "b").flag("listen", first.address).command());
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains(&first.address.to_string()), "{words}");
}

#[test]
fn a_killed_nodes_folder_can_be_used_again_and_its_identity_stays() {
    let folder = folder();
    let plan = Plan::new(&folder, "a");
    let first = plan.start();
    let id = first.id;
    first.kill();
    assert_eq!(plan.start().id, id);
}

/// A log that nobody reads, or whose disk is full, costs its lines and nothing else.
#[test]
fn a_node_whose_log_cannot_be_written_serves_and_stops_in_order() {
    let folder = folder();
    let (reader, log) = std::io::pipe().unwrap();
    drop(reader);
    let node = Plan::new(&folder, "a").start_logging_to(log);
    assert_eq!(node.ask(&["call", "echo", "hello"]).stdout, b"hello\n");
    assert!(!node.ask(&["call", "crash", "a panic is logged too"]).status.success());
    let (stopped, code) = node.stop();
    assert_eq!((&stopped["reason"], code), (&"shutdown".into(), Some(0)), "{stopped}");
}

#[test]
fn a_reading_command_without_a_node_fails_and_names_the_reason() {
    let folder = folder();
    let (code, words) = run(Command::new(PROGRAM).args(["tree", "--data"]).arg(folder.path()));
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("is the node running"), "{words}");
}

/// The switches of the controls are in the build made for them and in no other.
#[test]
fn no_build_but_the_one_with_controls_contains_their_switches() {
    let contains = |path: &std::path::Path| {
        let binary = std::fs::read(path).unwrap();
        binary.windows(21).any(|window| window == b"PLIMSOLL_CONTROLS_OFF")
    };
    assert!(contains(&controls_program()), "the control of this test");
    assert!(!contains(PROGRAM.as_ref()));
    if full() {
        // Made by scripts/e2e, which builds the full size with optimisation.
        assert!(PROGRAM.contains("/release/"), "{PROGRAM}");
    }
}

#[test]
fn a_wrong_pin_names_both_nodes() {
    let folder = folder();
    let node = Plan::new(&folder, "a").start();
    let (to, pin) = (node.address.to_string(), "ab".repeat(32));
    let (code, words) = run(Command::new(PROGRAM).args(["call", "--to", &to, "--pin", &pin, "time"]));
    assert_eq!(code, Some(1), "{words}");
    assert_eq!(words, format!("error: expected node {pin} at {to}, found node {}\n", node.id));
}

#[test]
fn an_address_without_a_port_is_a_usage_error_and_a_name_that_does_not_resolve_is_a_failure() {
    let folder = folder();
    let pin = "ab".repeat(32);
    let call = |to: &str| run(Command::new(PROGRAM).args(["call", "--pin", &pin, "--to", to, "echo"]));
    assert_eq!(call("localhost"), (Some(2), "error: --to \"localhost\": an address is HOST:PORT\n".to_owned()));
    // The name is reserved for this (RFC 6761).
    let (code, words) = call("nowhere.invalid:1");
    assert!(code == Some(1) && words.starts_with("error: --to \"nowhere.invalid:1\" does not resolve: "), "{words}");
    for (listen, why) in
        [("localhost", "an address is HOST:PORT"), ("nowhere.invalid:1", "the host does not resolve: ")]
    {
        let (code, words) = run(&mut Plan::new(&folder, "a").flag("listen", listen).command());
        assert!(code == Some(2) && words.contains(&format!("(flag --listen): {why}")), "{words}");
    }
}

#[test]
fn a_body_that_cannot_be_read_is_a_usage_error_that_names_it() {
    let place = ["call", "--to", "127.0.0.1:9", "--pin", &"ab".repeat(32), "echo"];
    for (body, why) in [("@/nofile", "No such file"), ("@/dev/zero", "a body is at most 16MiB")] {
        let (code, words) = run(Command::new(PROGRAM).args(place).arg(body));
        assert_eq!(code, Some(2), "{words}");
        assert!(words.contains(&format!("the body {body}: {why}")), "{words}");
    }
}

/// A pipe whose reader has left.
fn left() -> std::io::PipeWriter {
    std::io::pipe().unwrap().1
}

#[test]
fn only_a_closed_pipe_excuses_output_that_was_not_written() {
    let folder = folder();
    let node = Plan::new(&folder, "a").start();
    let no_space = || File::options().write(true).open("/dev/full").unwrap();
    let (to, pin) = (node.address.to_string(), node.id.to_string());
    let data = folder.path().join("a");
    let read = || {
        let mut command = Command::new(PROGRAM);
        command.args(["tree", "--data"]).arg(&data).stderr(Stdio::null());
        command
    };
    let call = || {
        let mut command = Command::new(PROGRAM);
        command.args(["call", "--to", &to, "--pin", &pin, "echo", "hello"]).stderr(Stdio::null());
        command
    };
    let code = |command: &mut Command| Limited::spawn(command).wait();
    assert_eq!(code(read().stdout(left())), Some(0));
    assert_eq!(code(read().stdout(no_space())), Some(1));
    assert_eq!(code(call().stdout(left())), Some(1));
    assert_eq!(code(call().stdout(no_space())), Some(1));
    assert_eq!(code(call().arg("--json").stdout(no_space())), Some(1));
}

#[test]
fn a_node_keeps_serving_when_nobody_reads_its_output() {
    let folder = folder();
    let mut command = Plan::new(&folder, "a").command();
    let mut node = Limited::spawn(command.stdin(Stdio::null()).stdout(left()).stderr(Stdio::null()));
    let end = Instant::now() + PATIENCE;
    let serves = || run(Command::new(PROGRAM).args(["tree", "--data"]).arg(folder.path().join("a"))).0 == Some(0);
    while !serves() {
        assert!(node.child.try_wait().unwrap().is_none(), "it has exited");
        assert!(Instant::now() < end);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    node.signal(Signal::SIGTERM);
    assert_eq!(node.wait(), Some(0));
}

#[test]
fn ctrl_c_stops_a_node_in_order() {
    let folder = folder();
    let (mut node, lines, _) = started(&mut serve(&folder, "127.0.0.1:0", "echo"), "try: ");
    node.signal(Signal::SIGINT);
    let words: Vec<_> = lines.map(Result::unwrap).collect();
    assert_eq!(node.wait(), Some(0), "{words:#?}");
    assert!(words.last().unwrap().ends_with("nothing had to be killed"), "{words:#?}");
}

/// Starts `command` and waits for a line of its stderr that contains `words`. Returns the lines up to it.
fn started(command: &mut Command, words: &str) -> (Limited, Lines<BufReader<ChildStderr>>, Vec<String>) {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut process = Limited::spawn(command);
    let mut lines = BufReader::new(process.child.stderr.take().unwrap()).lines();
    let mut printed = Vec::new();
    while !printed.last().is_some_and(|line: &String| line.contains(words)) {
        printed.push(lines.next().unwrap_or_else(|| panic!("no {words:?} in {printed:#?}")).unwrap());
    }
    (process, lines, printed)
}

/// `serve` with its messages for people.
fn serve(folder: &tempfile::TempDir, listen: &str, services: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args([
        "serve",
        "--listen",
        listen,
        "--services",
        services,
        "--trust-open",
        "true",
        "--log-filter",
        "error",
    ]);
    command.arg("--data").arg(folder.path().join("a"));
    command
}

#[test]
fn the_suggested_command_works_also_when_it_listens_on_every_address() {
    let folder = folder();
    // Advertised by hand, since a test's machine may have no address but loopback.
    let mut command = serve(&folder, "0.0.0.0:0", "hash");
    let (mut node, lines, printed) = started(command.args(["--advertise", "127.0.0.1:0"]), "try: ");
    let example = printed.last().unwrap().strip_prefix("try: mesh-node ").unwrap();
    assert!(example.starts_with("call --to 127.0.0.1:") && example.ends_with(" hash hello"), "{example}");
    assert!(run(Command::new(PROGRAM).args(example.split(' '))).0 == Some(0), "{example}");
    let here = output_of(Command::new(PROGRAM).args(["call", "hash", "hello", "--data"]).arg(folder.path().join("a")))
        .status
        .code();
    assert_eq!(here, Some(0), "by its data folder");
    node.signal(Signal::SIGTERM);
    drop(lines);
    assert_eq!(node.wait(), Some(0));
}

#[test]
fn a_node_without_services_suggests_none() {
    let folder = folder();
    let (mut node, lines, printed) = started(&mut serve(&folder, "127.0.0.1:0", ""), "try: ");
    let example = printed.last().unwrap().strip_prefix("try: mesh-node ").unwrap();
    assert_eq!(example, format!("services --data {}", folder.path().join("a").display()));
    assert!(printed.iter().any(|line| line.starts_with("services: none")), "{printed:#?}");
    node.signal(Signal::SIGTERM);
    drop(lines);
    assert_eq!(node.wait(), Some(0));
}

#[test]
fn an_address_that_nobody_can_dial_is_not_advertised() {
    let folder = folder();
    let (code, words) = run(serve(&folder, "0.0.0.0:0", "hash").args(["--advertise", "0.0.0.0:4433"]));
    assert_eq!(code, Some(2), "{words}");
    assert!(words.contains("advertise = \"0.0.0.0:4433\" (flag --advertise): others cannot dial"), "{words}");
}

/// The first signal waits for what is in flight, here five seconds at most; the second does not.
#[test]
fn a_second_signal_ends_a_node_that_is_stopping_at_once() {
    let folder = folder();
    let (mut node, mut lines, printed) = started(&mut serve(&folder, "127.0.0.1:0", "sleep"), "try: ");
    let example = printed.last().unwrap().strip_prefix("try: mesh-node ").unwrap().replace("sleep 100", "sleep 30000");
    let mut call = Command::new(PROGRAM);
    let call = call.args(example.split(' ')).args(["--deadline", "30000"]);
    let mut caller = Limited::spawn(call.stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::null()));
    let end = Instant::now() + PATIENCE;
    let mut tree = Command::new(PROGRAM);
    tree.args(["tree", "--data"]).arg(folder.path().join("a"));
    while !String::from_utf8_lossy(&output_of(&mut tree).stdout).contains("-  in flight 1") {
        assert!(Instant::now() < end);
    }
    node.signal(Signal::SIGTERM);
    assert!(lines.next().unwrap().unwrap().contains("a second signal ends the node at once"));
    node.signal(Signal::SIGTERM);
    let words: Vec<_> = lines.map(Result::unwrap).collect();
    assert_eq!(node.wait(), Some(1), "{words:#?}");
    assert!(words.iter().any(|line| line.contains("ended at once by a second signal")), "{words:#?}");
    // The node is gone without a response: the call may have run.
    assert_eq!(caller.wait(), Some(3));
}

/// A worker's panic is a response to its caller, and one line in the log whatever `RUST_BACKTRACE` says.
#[test]
fn a_panic_is_one_line_in_the_log() {
    let folder = folder();
    let mut command = serve(&folder, "127.0.0.1:0", "crash");
    let (mut node, lines, printed) = started(command.env("RUST_BACKTRACE", "full"), "try: ");
    let example =
        printed.last().unwrap().strip_prefix("try: mesh-node ").unwrap().replace("'out of range'", "overboard");
    assert_eq!(run(Command::new(PROGRAM).args(example.split(' '))).0, Some(1));
    node.signal(Signal::SIGTERM);
    let words: Vec<_> = lines.map(Result::unwrap).collect();
    assert_eq!(node.wait(), Some(0));
    let of_the_panic = words.iter().filter(|line| line.contains("overboard")).count();
    assert_eq!(of_the_panic, 1, "{words:#?}");
    assert!(
        words.iter().any(|line| line.contains("services.rs:") && line.contains("panicked: overboard")),
        "{words:#?}"
    );
    assert!(words.iter().all(|line| !line.contains("stack backtrace")), "{words:#?}");
}

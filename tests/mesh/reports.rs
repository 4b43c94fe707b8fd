//! Faults that users reported of other servers and their commands, tried here.
//!
//! Each test names the report whose kind of fault it reproduces.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use plimsoll_testkit::process::{run_within, stalled_pipe, until};

use crate::harness::{Limited, PATIENCE, PROGRAM, Plan, folder, output_of, run};

/// clice-io/clice#514: the reader of stderr stalls, the pipe fills up, and the next line of the log stops the server for good.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_stops_nothing() {
    let folder = folder();
    let (reader, log) = stalled_pipe().unwrap();
    let node = Plan::new(&folder, "a").flag("log-filter", "info,plimsoll=trace").start_logging_to(log);
    for nth in 0..20 {
        let body = format!("panic {nth}");
        assert_eq!(node.ask(&["call", "crash", &body]).status.code(), Some(1));
    }
    assert_eq!(node.ask(&["call", "echo", "hello"]).stdout, b"hello\n");
    let (stopped, code) = node.stop();
    assert_eq!((&stopped["reason"], code), (&"shutdown".into(), Some(0)), "{stopped}");
    drop(reader);
}

/// The same of stdout, of which a supervisor may read only the first line, and of both at once.
#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_nobody_reads_stops_nothing() {
    let folder = folder();
    for (index, json) in [true, false].into_iter().enumerate() {
        let ((out, stdout), (err, stderr)) = (stalled_pipe().unwrap(), stalled_pipe().unwrap());
        let plan = Plan::new(&folder, &format!("a{index}")).flag("services", "echo");
        let mut command = if json { plan.command() } else { plan.command_for_people() };
        let mut node = Limited::spawn(command.stdin(Stdio::null()).stdout(stdout).stderr(stderr));
        let served = || {
            let mut call = Command::new(PROGRAM);
            call.args(["call", "echo", "hello", "--data"]).arg(plan.data());
            (output_of(&mut call).stdout == b"hello\n").then_some(())
        };
        until("the node serves", PATIENCE, async || served()).await;
        node.signal(Signal::SIGTERM);
        assert_eq!(node.wait(), Some(0));
        drop((out, err));
    }
}

/// What was dropped is counted where the reader finds it.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_comes_back_reads_how_many_lines_it_missed() {
    let folder = folder();
    let (mut reader, log) = std::io::pipe().unwrap();
    let node = Plan::new(&folder, "a").flag("log-filter", "trace").start_logging_to(log);
    // A trace of everything fills the pipe and the megabyte of the queue.
    let client = node.client().await;
    let end = Instant::now() + PATIENCE;
    let mut text = String::new();
    while !text.contains("lines dropped, because nobody read the log") {
        assert!(Instant::now() < end, "nothing was dropped in {} bytes", text.len());
        for _ in 0..200 {
            assert_eq!(crate::harness::call(&client, "echo", "hello").await.unwrap().status, 200);
        }
        let mut some = vec![0; 256 << 10];
        let read = tokio::task::block_in_place(|| reader.read(&mut some)).unwrap();
        text = text.split_off(text.len().saturating_sub(100)) + &String::from_utf8_lossy(&some[..read]);
    }
    drop(reader);
}

/// cloudamqp/lavinmq#2080: a reload with a mistake in the file ends a server that ran well.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_with_a_mistake_changes_nothing_and_one_without_is_taken() {
    let folder = folder();
    let file = folder.path().join("node.toml");
    std::fs::write(&file, "[log]\nfilter = \"info\"\n").unwrap();
    let node = Plan::new(&folder, "a").flag("config", file.display()).start();
    let logged = async |words: &str| {
        until(words, PATIENCE, async || node.log().contains(words).then_some(())).await;
    };
    let faults = [
        ("[log]\nfilter = \"plimsoll=loud\"\n", "plimsoll=loud"),
        ("[log\n", "node.toml"),
        ("[gateway]\nmax_clients = 0\n", "gateway.max_clients = \\\"0\\\""),
        ("[gateway]\nmax_client = 1\n", "line 2"),
    ];
    for (text, named) in faults {
        std::fs::write(&file, text).unwrap();
        let before = node.log().matches("settings not taken").count();
        node.signal(Signal::SIGHUP);
        let text = until(named, PATIENCE, async || {
            let log = node.log();
            (log.matches("settings not taken").count() == before + 1).then_some(log)
        });
        let text = text.await;
        assert!(text.lines().last().unwrap().contains(named), "{text}");
        assert_eq!(node.ask(&["call", "echo", "hello"]).stdout, b"hello\n");
    }
    std::fs::remove_file(&file).unwrap();
    node.signal(Signal::SIGHUP);
    logged("cannot read").await;
    std::fs::write(&file, "realm = \"other\"\n[log]\nfilter = \"mesh_node=info\"\n").unwrap();
    node.signal(Signal::SIGHUP);
    logged("these need a restart settings=\"realm\"").await;
    std::fs::write(&file, "realm = \"other\"\n[log]\nfilter = \"off\"\n").unwrap();
    node.signal(Signal::SIGHUP);
    // With the filter taken, not even the panic of a worker is logged.
    until("a panic without a line", PATIENCE, async || {
        let before = node.log().len();
        node.ask(&["call", "crash", "quiet"]);
        (node.log().len() == before).then_some(())
    })
    .await;
    assert_eq!(node.stop().1, Some(0));
}

/// hashicorp/consul-template#177 and Icinga/icinga2#3273: a reload stops the server, or a second one during the first does.
#[tokio::test(flavor = "multi_thread")]
async fn many_reloads_and_signals_that_mean_nothing_stop_nothing() {
    let folder = folder();
    let node = Plan::new(&folder, "a").start();
    for _ in 0..50 {
        node.signal(Signal::SIGHUP);
    }
    let harmless = [
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGALRM,
        Signal::SIGVTALRM,
        Signal::SIGPROF,
        Signal::SIGIO,
        Signal::SIGPWR,
        Signal::SIGSTKFLT,
        Signal::SIGXFSZ,
        Signal::SIGPIPE,
        Signal::SIGWINCH,
        Signal::SIGCHLD,
        Signal::SIGURG,
    ];
    for number in harmless {
        node.signal(number);
    }
    for _ in 0..10 {
        assert_eq!(node.ask(&["call", "echo", "hello"]).stdout, b"hello\n");
    }
    assert_eq!(node.stop().1, Some(0));
}

/// Each signal that stops, stops in order: the others learn of it.
#[tokio::test(flavor = "multi_thread")]
async fn every_signal_that_stops_withdraws_the_node_first() {
    let folder = folder();
    let a = Plan::new(&folder, "a").start();
    for number in [Signal::SIGQUIT, Signal::SIGINT, Signal::SIGXCPU] {
        let b = Plan::new(&folder, "b").meets(&a).start();
        a.until_provided("echo", 2).await;
        let gone = b.id;
        let (stopped, code) = b.stop_by(number);
        assert_eq!((&stopped["event"], code), (&"stopped".into(), Some(0)), "{number}");
        a.until("the node has withdrawn", |now| {
            let node = now.nodes.iter().find(|node| node.id == gone);
            node.is_some_and(|node| {
                node.state == "down" && node.reason.as_ref().is_some_and(|why| why.contains("is stopping"))
            })
        })
        .await;
    }
}

/// cachix/secretspec#140, rust-cli/config-rs#579: a variable that is not UTF-8 ends every command with a panic.
#[test]
fn an_environment_that_is_not_utf_8_is_ignored() {
    let folder = folder();
    let mut foreign = Command::new(PROGRAM);
    foreign.args(["identity", "--data"]).arg(folder.path().join("a"));
    foreign.env("LS_COLORS", OsStr::from_bytes(b"\xa3")).env(OsStr::from_bytes(b"NAME\xff"), "1");
    let output = output_of(&mut foreign);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let mut ours = Command::new(PROGRAM);
    ours.args(["tree", "--data"]).arg(folder.path()).env("MESH_NODE_REALM", OsStr::from_bytes(b"\xa3"));
    // The value is not used by this command, and so is not read.
    assert_eq!(output_of(&mut ours).status.code(), Some(1));
    let mut serve = Plan::new(&folder, "b").command();
    let output = output_of(serve.env("MESH_NODE_REALM", OsStr::from_bytes(b"\xa3")));
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{words}");
    assert!(words.contains("environment variable MESH_NODE_REALM): it is not UTF-8"), "{words}");
}

/// atuinsh/atuin#2428: a path that is not UTF-8 ends the program.
#[tokio::test(flavor = "multi_thread")]
async fn paths_need_not_be_utf_8_and_may_contain_commas_and_spaces() {
    for name in [&b"not\xffutf8"[..], b" a,,b ,", b"--data"] {
        let folder = folder();
        let home = folder.path().join(OsStr::from_bytes(name));
        std::fs::create_dir(&home).unwrap();
        let (config, body) = (home.join("node.toml"), home.join("body"));
        std::fs::write(&config, "services = [\"echo\"]\n").unwrap();
        std::fs::write(&body, "from a file").unwrap();
        let node = Plan::new(&folder, "x").in_folder(home.join("d")).config(&config).start();
        assert!(home.join("d/admin.sock").exists(), "the folder is the one that was named");
        let mut named = OsString::from("@");
        named.push(&body);
        let mut call = Command::new(PROGRAM);
        call.args(["call", "echo"]).arg(named).arg("--data").arg(home.join("d"));
        let output = output_of(&mut call);
        assert_eq!(output.stdout, b"from a file\n", "{output:?}");
        let mut identity = Command::new(PROGRAM);
        identity.args(["identity", "--json", "--data"]).arg(home.join("d"));
        assert_eq!(output_of(&mut identity).status.code(), Some(0));
        let (stopped, code) = node.stop();
        assert_eq!(code, Some(0), "{stopped}");
    }
}

/// octos-org/octos#2248, haproxy/haproxy#493: a folder too deep for a Unix socket fails late, and the error does not say which
/// path it is.
#[test]
fn a_folder_too_deep_for_the_admin_socket_is_a_configuration_error_and_nothing_is_made() {
    let folder = folder();
    let name = "deep".repeat(25);
    let (code, words) = run(&mut Plan::new(&folder, &name).command());
    assert_eq!(code, Some(2), "{words}");
    let error = words.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
    assert!(error.contains("use a shorter folder") && error.matches("admin.sock").count() == 1, "{words}");
    assert!(!folder.path().join(&name).exists(), "no key and no lock were made for it");
}

/// vectordotdev/vector#13731: a stop that did not go well exits with 0.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_reports_calls_that_were_cut_off_and_waits_for_the_grace_that_is_set() {
    let folder = folder();
    let node = Plan::new(&folder, "a").flag("stop-grace", "300ms").start();
    let mut call = Command::new(PROGRAM);
    call.args(["call", "--to", &node.address.to_string(), "--pin", &node.id.to_string()]);
    let call = call.args(["--deadline", "30000", "sleep", "30000"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut call = Limited::spawn(call);
    node.until("the call runs", |now| crate::harness::counter(now, &["services", "sleep"], "in_flight") == 1).await;
    let began = Instant::now();
    let (stopped, code) = node.stop();
    assert!((Duration::from_millis(300)..Duration::from_secs(2)).contains(&began.elapsed()), "{:?}", began.elapsed());
    assert_eq!((&stopped["calls_cut_off"], code), (&1.into(), Some(0)), "{stopped}");
    // The call had begun: whether it did its work is not known.
    assert_eq!(call.wait(), Some(3));
}

/// nginx/nginx#851: the socket of a killed server keeps the next one from starting.
#[tokio::test(flavor = "multi_thread")]
async fn the_socket_of_a_killed_node_is_no_obstacle_and_what_else_has_its_name_is_left_alone() {
    let folder = folder();
    let plan = Plan::new(&folder, "a");
    plan.start().kill();
    assert!(plan.data().join("admin.sock").exists());
    let node = plan.start();
    assert_eq!(node.ask(&["tree"]).status.code(), Some(0));
    assert_eq!(node.stop().1, Some(0));
    assert!(!plan.data().join("admin.sock").exists());
    std::fs::write(plan.data().join("admin.sock"), "precious").unwrap();
    let (code, words) = run(&mut plan.command());
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("admin.sock exists and is not a socket"), "{words}");
    assert_eq!(std::fs::read_to_string(plan.data().join("admin.sock")).unwrap(), "precious");
}

/// sharkdp/fd#24, maidsafe/sn_api#540: a reader that went away (`| head`) makes the command panic.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_went_away_makes_no_command_panic() {
    let folder = folder();
    let _node = Plan::new(&folder, "a").start();
    let data = folder.path().join("a");
    for words in [&["tree"][..], &["events"], &["services"], &["nodes", "--json"], &["identity"]] {
        let mut command = Command::new(PROGRAM);
        command.args(words).arg("--data").arg(&data).stdout(std::io::pipe().unwrap().1).stderr(Stdio::piped());
        let output = run_within(&mut command, PATIENCE);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(0) && !said.contains("panic"), "{words:?}: {output:?}");
    }
    for words in [&["--help"][..], &["serve", "--help"], &["--version"]] {
        let mut command = Command::new(PROGRAM);
        let command = command.args(words).stdout(std::io::pipe().unwrap().1).stderr(Stdio::piped());
        let output = run_within(command, PATIENCE);
        assert!(!String::from_utf8_lossy(&output.stderr).contains("panic"), "{words:?}: {output:?}");
        assert!(output.status.code().is_some(), "{words:?}: ended by a signal");
    }
}

/// hashicorp/nomad#11708: what was asked for failed, and the command exits with 0.
#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_of_a_call_shows_whether_it_may_have_run() {
    let folder = folder();
    let node = Plan::new(&folder, "a").start();
    let code = |words: &[&str]| node.ask(words).status.code();
    assert_eq!(code(&["call", "echo", "hello"]), Some(0));
    assert_eq!(code(&["call", "nobody"]), Some(1), "no provider");
    assert_eq!(code(&["call", "sleep", "soon"]), Some(1), "the service refused");
    assert_eq!(code(&["call", "crash", "boom"]), Some(1), "it ran and failed");
    assert_eq!(code(&["call", "--deadline", "50", "sleep", "5000"]), Some(3), "it may have run");
    assert_eq!(code(&["call", "--json", "--deadline", "50", "sleep", "5000"]), Some(3), "it may have run");
    assert_eq!(code(&["call", "--deadline", "0", "sleep", "5000"]), Some(2), "wrong use");
    let mut gone = Command::new(PROGRAM);
    gone.args(["call", "--to", "127.0.0.1:9", "--pin", &node.id.to_string(), "echo"]);
    assert_eq!(output_of(&mut gone).status.code(), Some(1), "nobody was reached");
}

/// A settings file that is no file hangs the program or fills its memory.
#[test]
fn settings_are_read_from_regular_files_of_bounded_size() {
    let folder = folder();
    let fifo = folder.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let large = folder.path().join("large.toml");
    File::create(&large).unwrap().set_len(64 << 30).unwrap();
    for (path, why) in [
        (fifo.as_path(), "not a regular file"),
        ("/dev/zero".as_ref(), "not a regular file"),
        (folder.path(), "not a regular file"),
        (&large, "more than 1024 KiB"),
        ("/nowhere/node.toml".as_ref(), "No such file"),
    ] {
        for command in ["serve", "tree"] {
            let output = output_of(Command::new(PROGRAM).args([command, "--config"]).arg(path));
            let words = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{words}");
            assert!(words.contains(why) && words.contains(&path.display().to_string()), "{words}");
        }
    }
}

/// `serve --tied` belongs to the demonstration: what it removes at its end is what it made.
#[test]
fn a_tied_node_removes_only_what_was_made_for_it() {
    let folder = folder();
    let theirs = folder.path().join("theirs");
    std::fs::create_dir(&theirs).unwrap();
    std::fs::write(theirs.join("precious"), "").unwrap();
    let tied = |name: &str| {
        let mut command = Plan::new(&folder, name).command();
        command.arg("--tied");
        command
    };
    let output = output_of(&mut tied("theirs"));
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{words}");
    assert!(words.contains("holds files that were not made by the demonstration"), "{words}");
    std::fs::write(folder.path().join("ours.log"), "a log of somebody else").unwrap();
    let mut command = tied("ours");
    let mut node = Limited::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()));
    let mut ready = String::new();
    BufReader::new(node.child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    assert!(ready.contains("ready"), "{ready}");
    drop(node.child.stdin.take());
    assert_eq!(node.wait(), Some(1));
    assert!(!folder.path().join("ours").exists() && theirs.join("precious").exists());
    assert!(folder.path().join("ours.log").exists(), "nobody made this for the node");
}

/// What an operator should know is in `events`, also when the log is off: a panic here, and refusals at a limit.
#[tokio::test(flavor = "multi_thread")]
async fn events_show_panics_and_refusals_whatever_is_logged() {
    let folder = folder();
    let node = Plan::new(&folder, "a").flag("log-filter", "off").flag("calls-max-in-flight", 1).start();
    assert_eq!(node.ask(&["call", "crash", "man overboard"]).status.code(), Some(1));
    let client = node.client().await;
    let sleeping = tokio::spawn({
        let client = client.clone();
        async move { crate::harness::call(&client, "sleep", "2000").await }
    });
    node.until("a call runs", |now| crate::harness::counter(now, &["services", "sleep"], "in_flight") == 1).await;
    assert_eq!(crate::harness::call(&client, "sleep", "1").await.unwrap().status, 503);
    let shown = String::from_utf8(node.ask(&["events"]).stdout).unwrap();
    let line = |kind: &str, words: &str| shown.lines().any(|line| line.contains(kind) && line.contains(words));
    assert!(line("panic", "service crash: man overboard"), "{shown}");
    assert!(line("refusal", "request refused with overloaded"), "{shown}");
    assert!(line("cap reached", "service sleep: "), "{shown}");
    assert!(node.log().is_empty(), "{}", node.log());
    assert_eq!(sleeping.await.unwrap().unwrap().status, 200);
}

/// Panics are caused by clients: they cannot fill the log.
#[tokio::test(flavor = "multi_thread")]
async fn panics_that_a_client_causes_do_not_fill_the_log() {
    let folder = folder();
    let node = Plan::new(&folder, "a").start();
    let client = node.client().await;
    for _ in 0..200 {
        assert_eq!(crate::harness::call(&client, "crash", "again").await.unwrap().status, 500);
    }
    let lines = node.log().matches("panicked: again").count();
    assert!((1..10).contains(&lines), "{lines} lines");
}

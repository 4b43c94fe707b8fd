//! The examples of calls print what they promise.

use std::path::PathBuf;
use std::process::Command;

/// Runs an example as it was built beside this test, or builds it.
fn output(name: &str) -> String {
    output_with(name, &[])
}

fn output_with(name: &str, arguments: &[&str]) -> String {
    let mut folder = std::env::current_exe().unwrap();
    folder.pop();
    folder.pop();
    let built: PathBuf = folder.join("examples").join(name);
    let mut command = if built.exists() {
        Command::new(built)
    } else {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["run", "--quiet", "--locked", "-p", "plimsoll", "--example", name, "--"]);
        cargo
    };
    let output = command.args(arguments).output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn spawn_per_call_shows_that_each_call_ends_alone() {
    assert_eq!(
        output("spawn_per_call"),
        "squares up to 3: 14\n\
         squares up to 100000: 333338333350000\n\
         squares up to 13: died: failed: 13 is bad luck\n\
         squares up to 2000000: the service returned an error: 2000000 is too much\n\
         squares up to 4: 30\n\
         started 5, settled 5, in flight 0\n"
    );
}

#[test]
fn linked_callers_shows_that_a_call_ends_with_its_caller() {
    assert_eq!(
        output("linked_callers"),
        "a worker is at it\n\
         the session is killed\n\
         the call was cancelled by its caller\n\
         the worker has ended\n\
         in flight 0, timers 0, callers watched 0\n"
    );
}

#[test]
fn streaming_reply_shows_items_demand_and_end() {
    assert_eq!(
        output("streaming_reply"),
        "item 1\nitem 2\nitem 3\nitem 4\nitem 5\nend: that was all\nitem 1, and no more\nthe worker stopped within 4 items\n"
    );
}

#[test]
fn overload_shows_who_is_served_who_waits_and_who_is_refused() {
    assert_eq!(
        output("overload"),
        "in flight 6 (of them waiting 2), refused 34\nserved 6; the others were told: 2 calls wait already\n"
    );
}

/// E-1, E-2, E-3, E-6, E-13: the Erlang server's own load, in its short form: with a worker a call memory stays where it was;
/// done inside the servers it rises by hundreds of MiB.
#[test]
fn the_erlang_load_stays_within_a_few_mib() {
    let text = output_with("erlang_load", &["2"]);
    println!("{text}");
    assert!(text.contains("(control)"), "{text}");
}

//! Mutual TLS with an allow-list in a file: who is refused, who says so, and that a change needs no restart.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use plimsoll_mesh::names::NodeId;
use serde_json::Value;

use crate::harness::{Node, PATIENCE, PROGRAM, Plan, call, counter, folder, full, output_of, record};
use plimsoll_testkit::process::until;

/// The identity that a node with this data folder has or will have.
fn identity(data: &Path) -> NodeId {
    let output = output_of(Command::new(PROGRAM).args(["identity", "--data"]).arg(data));
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

fn allow(data: &Path, nodes: &[NodeId]) {
    let lines: Vec<_> = nodes.iter().map(|node| format!("{node}\n")).collect();
    // In one step, as an editor or a configuration tool does it.
    let fresh = data.join("allowed-nodes.new");
    std::fs::write(&fresh, lines.concat()).unwrap();
    std::fs::rename(fresh, data.join("allowed-nodes")).unwrap();
}

/// Waits until `nodes` of `here` lists `other` in `state`; the reason it gives.
async fn sees(here: &Node, other: NodeId, state: &str) -> String {
    let snapshot = here
        .until(&format!("node {} sees {} {state}", here.id.short(), other.short()), |now| {
            now.nodes.iter().any(|node| node.id == other && node.state == state)
        })
        .await;
    let output = here.ask(&["nodes", "--json"]);
    let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(listed["nodes"].as_array().unwrap().iter().any(|node| node["id"] == other.to_string()), "{listed}");
    let entry = snapshot.nodes.into_iter().find(|node| node.id == other).unwrap();
    entry.reason.unwrap_or_default()
}

/// Both sides list the other as refused, with these words and in the log.
async fn both_refuse(left: &Node, right: &Node, words: &str) {
    for (here, there) in [(left, right), (right, left)] {
        let reason = sees(here, there.id, "refused").await;
        assert!(reason.contains(words), "node {} says {reason:?} of {}", here.id, there.id);
        let told = format!("the log of {} names {} and {words:?}", here.id, there.id);
        let named = |line: &str| line.contains(words) && line.contains(&there.id.to_string());
        until(&told, PATIENCE, async || here.log().lines().any(named).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_wrong_keys_are_refused_by_name_on_both_sides() {
    let folder = folder();
    let data = |name: &str| folder.path().join(name);
    let host = identity(&data("host"));
    let stranger = identity(&data("stranger"));
    allow(&data("host"), &[]);
    allow(&data("stranger"), &[host]);
    let listed = |name: &str| Plan::new(&folder, name).flag("trust-open", "false").flag("services", "echo");
    let host = listed("host").start();
    let stranger_node = listed("stranger").meets(&host).start();
    assert_eq!(stranger_node.id, stranger);
    both_refuse(&stranger_node, &host, "is not on the allow-list").await;

    // It comes again and again; the logs tell of the first time.
    host.until("three attempts", |now| counter(now, &["peers", "dialler"], "refused") >= 3).await;
    for node in [&host, &stranger_node] {
        let log = node.log();
        assert_eq!(log.lines().filter(|line| line.contains("peer refused")).count(), 1, "{log}");
    }

    // Who expects another key at that address takes nobody else for it.
    let expected = NodeId::from_digest([7; 32]);
    allow(&data("stranger"), &[host.id, expected]);
    drop(stranger_node);
    let seed = format!("{expected}@{}", host.address);
    let mistaken = listed("stranger").flag("peers-seeds", seed).start();
    let reason = sees(&mistaken, expected, "refused").await;
    assert!(reason.contains(&host.id.to_string()), "{reason}");
    let named = |line: &str| line.contains(&host.id.to_string()) && line.contains(&expected.to_string());
    until("the log names both", PATIENCE, async || mistaken.log().lines().any(named).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_removed_from_the_list_is_out_at_once_and_stays_out_until_it_is_put_back() {
    let folder = folder();
    let data = |name: &str| folder.path().join(name);
    let (host_id, guest_id) = (identity(&data("host")), identity(&data("guest")));
    allow(&data("host"), &[guest_id]);
    allow(&data("guest"), &[host_id]);
    let host = Plan::new(&folder, "host").flag("trust-open", "false").flag("services", "echo").start();
    let plan = Plan::new(&folder, "guest").flag("trust-open", "false").flag("services", "hash").meets(&host);
    let guest = plan.start();
    host.until_provided("hash", 1).await;
    let client = host.client().await;
    assert_eq!(call(&client, "hash", "abc").await.unwrap().status, 200);

    allow(&data("host"), &[]);
    let removed = Instant::now();
    both_refuse(&host, &guest, "was removed from the allow-list").await;
    let out = removed.elapsed();
    assert_ne!(call(&client, "hash", "abc").await.unwrap().status, 200, "a removed node is not called");

    // A new process with the same key brings nothing along that would let it resume.
    guest.kill();
    let guest = plan.start();
    both_refuse(&guest, &host, "is not on the allow-list").await;

    allow(&data("host"), &[guest_id]);
    let back = Instant::now();
    sees(&host, guest_id, "up").await;
    host.until_provided("hash", 1).await;
    assert_eq!(call(&client, "hash", "abc").await.unwrap().status, 200);
    let limit = Duration::from_secs(if full() { 3 } else { 10 });
    let rows = [
        (
            format!("removed from the list: out after {} ms", out.as_millis()),
            if full() { "3000 ms" } else { "10 s" },
            out <= limit,
            None,
        ),
        (format!("put back on it: up after {} ms, without a restart", back.elapsed().as_millis()), "20 s", true, None),
    ];
    record("allow-list-changes", &rows);
}

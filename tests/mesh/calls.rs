//! Calls through three nodes, from a client that nobody here wrote and from `mesh-node call`.

use plimsoll_testkit::law;
use serde_json::Value;

use crate::harness::{GATEWAY, Node, Plan, call, counter, folder, output_of, place, record};

/// Three nodes: the first offers `echo` and `sleep`, the second `hash` and `time`, the third `hash` and `crash`.
pub(crate) async fn three(folder: &tempfile::TempDir) -> [Node; 3] {
    let a = Plan::new(folder, "a").flag("services", "echo,sleep").flag("gateway-idle", "2s").start();
    let b = Plan::new(folder, "b").flag("services", "hash,time").meets(&a).start();
    let c = Plan::new(folder, "c").flag("services", "hash,crash").meets(&a).start();
    for node in [&a, &b, &c] {
        node.until_provided("echo", 1).await;
        node.until_provided("hash", 2).await;
        node.until_provided("crash", 1).await;
    }
    [a, b, c]
}

fn json(output: &std::process::Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_independent_client_is_served_by_its_node_and_by_others() {
    let folder = folder();
    let [a, b, c] = three(&folder).await;
    let mut rows = Vec::new();
    for scenario in [
        &["plain"][..],
        &["call", "hash", "abc"],
        &["concurrent", "--connections", "4", "--calls", "100"],
        &["reset"],
        &["left"],
        &["vanished"],
        &["wrong-certificate"],
        &["malformed"],
        &["goodbye"],
    ] {
        let (good, report) = a.aioquic(scenario);
        rows.push((format!("{}: {}", scenario.join(" "), told(&report)), "as announced", good, None));
    }
    let settled = a.until("nothing is in flight", |now| {
        counter(now, &["services", "sleep"], "in_flight") == 0 && counter(now, &GATEWAY, "requests_in_flight") == 0
    });
    let snapshot = settled.await;
    law::CALLS.assert(&place(&snapshot, &["services", "sleep"]).unwrap().details.counters);
    record("calls-from-aioquic", &rows);
    drop((b, c));
}

/// What the client reports, in short: how many of its checks held, and its numbers.
fn told(report: &Value) -> String {
    let part = |(name, value): (&String, &Value)| match value {
        Value::Object(checks) if name == "checks" => {
            let good = checks.values().filter(|check| **check == Value::Bool(true)).count();
            Some(format!("{good} of {} checks", checks.len()))
        }
        Value::Number(number) => Some(format!("{} {number}", name.replace('_', " "))),
        _ => None,
    };
    report.as_object().into_iter().flatten().filter_map(part).collect::<Vec<_>>().join(", ")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_calls_lists_and_shows_what_the_nodes_know() {
    let folder = folder();
    let [a, b, c] = three(&folder).await;

    let own = a.ask(&["call", "echo", "hello"]);
    assert_eq!((own.status.code(), &own.stdout[..]), (Some(0), &b"hello\n"[..]));
    let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let other = json(&a.ask(&["call", "--json", "hash", "abc"]));
    assert_eq!((other["status"].as_u64(), other["body"].as_str()), (Some(200), Some(digest)));

    let crashed = a.ask(&["call", "--json", "crash", "man overboard"]);
    assert_eq!(crashed.status.code(), Some(1));
    let problem = &json(&crashed)["problem"];
    assert_eq!((problem["code"].as_str(), problem["status"].as_u64()), (Some("worker_panicked"), Some(500)));
    assert_eq!(problem["node"], c.id.to_string());
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("man overboard") && !detail.contains(".rs"), "where it panicked is for the log: {problem}");

    let refused = a.ask(&["call", "--json", "sleep", "soon"]);
    assert_eq!((refused.status.code(), json(&refused)["status"].as_u64()), (Some(1), Some(422)));
    let late = a.ask(&["call", "--json", "--deadline", "50", "sleep", "5000"]);
    assert_eq!(json(&late)["problem"]["code"], "deadline");
    let nobody = a.ask(&["call", "nobody"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("404 no_provider"));

    let services = json(&b.ask(&["services", "--json"]));
    let hash = services["services"].as_array().unwrap().iter().find(|entry| entry["name"] == "hash").unwrap();
    assert_eq!(hash["providers"].as_array().unwrap().len(), 2);
    assert_eq!((&hash["callable"], &hash["idempotent"]), (&Value::Bool(true), &Value::Bool(true)));
    let crash = services["services"].as_array().unwrap().iter().find(|entry| entry["name"] == "crash").unwrap();
    assert_eq!(crash["idempotent"], Value::Bool(false));
    let nodes = json(&c.ask(&["nodes", "--json"]));
    let up = nodes["nodes"].as_array().unwrap().iter().filter(|node| node["state"] == "up").count();
    assert!(nodes["nodes"].as_array().unwrap().len() == 3 && up >= 2, "{nodes}");
    let tree = a.ask(&["tree"]);
    let tree = String::from_utf8(tree.stdout).unwrap();
    assert!(
        tree.starts_with("CHILD ") && tree.contains("\nnode ") && tree.contains("─ gateway") && tree.contains("─ echo"),
        "{tree}"
    );
    assert_eq!(json(&a.ask(&["identity", "--json"]))["node"], a.id.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_comes_from_stdin_or_a_file_and_goes_one_node_further_whole() {
    let folder = folder();
    let [a, _b, _c] = three(&folder).await;
    let body = "0123456789abcdef".repeat(40_000);
    let path = folder.path().join("body");
    std::fs::write(&path, &body).unwrap();
    let wanted = hex::encode(ring::digest::digest(&ring::digest::SHA256, body.as_bytes()));
    let from_file = a.ask(&["call", "hash", &format!("@{}", path.display())]);
    assert_eq!(String::from_utf8(from_file.stdout).unwrap().trim(), wanted);
    let client = a.client().await;
    let answer = call(&client, "echo", &body).await.unwrap();
    assert!(answer.body == body);
    let mut piped = std::process::Command::new(crate::harness::PROGRAM);
    piped.args(["call", "--to", &a.address.to_string(), "--pin", &a.id.to_string(), "hash", "-"]);
    let output = output_of(piped.stdin(std::fs::File::open(&path).unwrap()));
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_says_so_and_the_others_call_it_no_more() {
    let folder = folder();
    let [a, b, c] = three(&folder).await;
    let gone = c.id;
    let (stopped, code) = c.stop();
    assert_eq!(code, Some(0));
    assert_eq!(stopped["event"], "stopped");
    assert_eq!((&stopped["killed"], &stopped["kill_timed_out"]), (&serde_json::json!([]), &serde_json::json!([])));
    a.until("the node that stopped is not up, and why", |now| {
        let node = now.nodes.iter().find(|node| node.id == gone);
        node.is_some_and(|node| {
            node.state == "down" && node.reason.as_ref().is_some_and(|why| why.contains("is stopping"))
        })
    })
    .await;
    for other in [&a, &b] {
        other
            .until("what it offered is listed no more, though its lease has minutes left", |now| {
                now.services.iter().all(|entry| entry.callable && !entry.providers.contains(&gone))
                    && now.services.iter().all(|entry| entry.name.as_str() != "crash")
            })
            .await;
    }
    let client = a.client().await;
    for _ in 0..20 {
        assert_eq!(call(&client, "hash", "abc").await.unwrap().status, 200);
    }
    drop(b);
}

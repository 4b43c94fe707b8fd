//! Every setting changes the behaviour that it documents, in a running node.
//!
//! Each row has a probe, which runs twice: with the setting's default, and with another value. That the value reaches the
//! configuration of the node is a unit test of the program.

use std::fs;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use futures::future::{LocalBoxFuture, join_all};
use futures::stream::{self, StreamExt};
use plimsoll_mesh::client::{self, Call, Client, ConnectError, RequestError, Response};
use plimsoll_testkit::process::until;
use tempfile::TempDir;

use crate::harness::{GATEWAY, Node, PATIENCE, Plan, counter, folder, output_of, vanish};

/// A plan with or without the setting of a row, and the folder of its node.
struct Setup {
    folder: TempDir,
    plan: Plan,
}

type Probe = for<'a> fn(&'a Setup) -> LocalBoxFuture<'a, String>;

/// The name of a setting, flags that both runs have, the value, and what the probe finds without and with it.
struct Row {
    name: &'static str,
    flags: &'static [(&'static str, &'static str)],
    value: &'static str,
    without: &'static str,
    with: &'static str,
    probe: Probe,
}

const fn row(
    name: &'static str,
    flags: &'static [(&'static str, &'static str)],
    value: &'static str,
    [without, with]: [&'static str; 2],
    probe: Probe,
) -> Row {
    Row { name, flags, value, without, with, probe }
}

/// Settings whose effect another test of this binary shows, and which.
const ELSEWHERE: &[(&str, &str)] =
    &[("data", "paths_need_not_be_utf_8_and_may_contain_commas_and_spaces"), ("log.filter", "a_reload_with_a_mistake")];

const ROWS: &[Row] = &[
    row("listen", &[], "127.0.0.2:0", ["127.0.0.1", "127.0.0.2"], |at| {
        Box::pin(async { at.plan.start().address.ip().to_string() })
    }),
    row("advertise", &[], "127.0.0.3:0", ["127.0.0.1", "127.0.0.3"], |at| {
        Box::pin(async { at.plan.start().snapshot().await.advertised.ip().to_string() })
    }),
    row("realm", &[], "other", ["up", "refused"], |at| Box::pin(state_of_a_peer(at))),
    row("services", &[], "time,sleep", ["crash echo hash sleep time", "sleep time"], |at| {
        Box::pin(async {
            let services = at.plan.start().snapshot().await.services;
            services.iter().map(|service| service.name.as_str()).collect::<Vec<_>>().join(" ")
        })
    }),
    // Nothing listens there: the dials fail.
    row("peers.seeds", &[], "127.0.0.1:1", ["no dial", "dials"], |at| {
        Box::pin(async {
            let node = at.plan.start();
            let dials = async || {
                let snapshot = node.snapshot().await;
                let known = ["dialled", "dial_failures", "failed", "dialling", "dials"];
                known.iter().any(|name| counter(&snapshot, &["peers", "dialler"], name) > 0).then_some(())
            };
            word(within(Duration::from_millis(500), dials).await, "dials", "no dial")
        })
    }),
    row("peers.max", &[], "1", ["1000", "1"], |at| Box::pin(gauge(at, &["peers", "dialler"], "pool_cap"))),
    row("peers.gossip_interval", &[], "10min", ["gossips", "is silent"], |at| {
        Box::pin(async {
            // Nodes also exchange what they know when they connect, and then only by gossip.
            let node = at.plan.start();
            let _peer = at.plan.clone().in_folder(at.folder.path().join("b")).meets(&node).start();
            node.until_provided("hash", 2).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            let received = async || counter(&node.snapshot().await, &["directory", "gossip"], "received");
            let before = received().await;
            let more = async || (received().await >= before + 5).then_some(());
            word(within(Duration::from_secs(2), more).await, "gossips", "is silent")
        })
    }),
    row("trust.open", &[("trust-open", "false")], "true", ["refused", "up"], |at| Box::pin(state_of_a_peer(at))),
    row("trust.allow_list", &[("trust-open", "false")], "other-list", ["refused", "up"], |at| {
        Box::pin(async {
            // Only the list of the value names the peer.
            let identity = output_of(
                std::process::Command::new(crate::harness::PROGRAM)
                    .args(["identity", "--data"])
                    .arg(at.folder.path().join("b")),
            );
            fs::create_dir_all(at.plan.data()).unwrap();
            fs::set_permissions(at.plan.data(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
            fs::write(at.plan.data().join("other-list"), identity.stdout).unwrap();
            fs::write(at.plan.data().join("allowed-nodes"), "").unwrap();
            state_of_a_peer(at).await
        })
    }),
    row("gateway.max_clients", &[], "1", ["served", "max_clients_reached"], |at| Box::pin(second_client(at))),
    row("gateway.max_per_prefix", &[], "1", ["served", "origin_full"], |at| Box::pin(second_client(at))),
    row("gateway.rate", &[], "1", ["served", "refused"], |at| Box::pin(second_client(at))),
    row("gateway.prefix_rate", &[], "1", ["served", "refused"], |at| Box::pin(second_client(at))),
    row("gateway.half_open", &[], "1", ["no retry", "retries"], |at| {
        Box::pin(async {
            let node = at.plan.start();
            join_all((0..20).map(|_| connect(&node))).await;
            word(counter(&node.snapshot().await, &GATEWAY, "retries") > 0, "retries", "no retry")
        })
    }),
    row("gateway.idle", &[], "1s", ["kept", "dropped"], |at| {
        Box::pin(async {
            let node = at.plan.start();
            let endpoint = client::endpoint(node.address).unwrap();
            let client = Client::connect(&endpoint, node.address, node.id).await.unwrap();
            assert_eq!(code(call(&client, "echo", "", None).await), "served");
            vanish(&endpoint);
            let gone = async || (counter(&node.snapshot().await, &GATEWAY, "clients") == 0).then_some(());
            word(within(Duration::from_secs(4), gone).await, "dropped", "kept")
        })
    }),
    row("gateway.max_body", &[], "1KiB", ["served", "body_too_large"], |at| {
        Box::pin(async {
            let node = at.plan.start();
            code(call(&node.client().await, "echo", &"x".repeat(1025), None).await)
        })
    }),
    row("gateway.response_bytes", &[], "9MiB", ["67108864", "9437184"], |at| {
        Box::pin(gauge(at, &GATEWAY, "response_bytes_cap"))
    }),
    row("gateway.response_timeout", &[], "500ms", ["waits", "gives up"], |at| {
        Box::pin(async {
            let node = at.plan.start();
            let mut transport = quinn::TransportConfig::default();
            transport.stream_receive_window(1024_u32.into());
            let endpoint = client::endpoint(node.address).unwrap();
            let client = Client::connect_over(&endpoint, node.address, node.id, transport).await.unwrap();
            // Polled until the service has run, and then no more: the response is not read.
            let body = "x".repeat(256 << 10);
            let unread = call(&client, "echo", &body, Some(30_000));
            tokio::pin!(unread);
            let settled = node.until("the call has run", |now| counter(now, &["services", "echo"], "settled") == 1);
            tokio::select! {
                _ = &mut unread => panic!("the response was read"),
                _ = settled => {}
            }
            let gone = async || (counter(&node.snapshot().await, &GATEWAY, "requests_in_flight") == 0).then_some(());
            word(within(Duration::from_secs(3), gone).await, "gives up", "waits")
        })
    }),
    row("gateway.requests_per_client", &[], "1", ["served", "rate_limited"], |at| Box::pin(second_call(at, false))),
    row("gateway.requests_per_prefix", &[], "1", ["served", "rate_limited"], |at| Box::pin(second_call(at, true))),
    row("gateway.workers", &[], "5", ["1024", "5"], |at| Box::pin(gauge(at, &["gateway", "workers"], "permits_limit"))),
    row("gateway.path_changes", &[], "1", ["served", "disconnected"], |at| {
        Box::pin(async {
            let node = at.plan.start();
            let endpoint = client::endpoint(node.address).unwrap();
            let client = Client::connect(&endpoint, node.address, node.id).await.unwrap();
            for _ in 0..4 {
                endpoint.rebind(UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
                // Under way when the node disconnects the client.
                let _ = call(&client, "echo", "", Some(2_000)).await;
            }
            // The node checks every second.
            let closed = async || client.connection().close_reason().map(drop);
            word(within(Duration::from_secs(3), closed).await, "disconnected", "served")
        })
    }),
    row("advertisements.max", &[], "1", ["served", "overloaded"], |at| Box::pin(second_advertisement(at, true))),
    row("advertisements.max_per_client", &[], "1", ["served", "rate_limited"], |at| {
        Box::pin(second_advertisement(at, false))
    }),
    // After a burst of two there is a new token in a tenth of a second, or in a second.
    row("advertisements.rate", &[("advertisements-max-per-client", "2")], "1", ["served", "rate_limited"], |at| {
        Box::pin(async {
            let node = at.plan.start();
            let client = node.client().await;
            for _ in 0..2 {
                assert_eq!(advertise(&client, "one").await, "served");
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
            advertise(&client, "one").await
        })
    }),
    row("advertisements.ttl", &[("advertisements-sweep", "100ms")], "1s", ["kept", "dropped"], |at| {
        Box::pin(async {
            let node = at.plan.start();
            let client = node.client().await;
            assert_eq!(advertise(&client, "one").await, "served");
            let used = "sessions_advertisements_used";
            let gone = async || (counter(&node.snapshot().await, &["gateway", "sessions"], used) == 0).then_some(());
            word(within(Duration::from_secs(2), gone).await, "dropped", "kept")
        })
    }),
    // By default a sweep comes after a fifth of the shortest lease at most, and drops several at once.
    row("advertisements.sweep", &[("advertisements-ttl", "3s")], "20ms", ["several at once", "one by one"], |at| {
        Box::pin(async {
            let node = at.plan.start();
            let client = node.client().await;
            for nth in 0..20 {
                assert_eq!(advertise(&client, &format!("service-{nth}")).await, "served");
                tokio::time::sleep(Duration::from_millis(60)).await;
            }
            let (mut left, mut largest) = (20, 0);
            let gone = async || {
                let snapshot = node.snapshot().await;
                let now = counter(&snapshot, &["gateway", "sessions"], "sessions_advertisements_used");
                largest = largest.max(left - now);
                left = now;
                (now == 0).then_some(())
            };
            assert!(within(Duration::from_secs(6), gone).await);
            word(largest >= 5, "several at once", "one by one")
        })
    }),
    row("pubsub.max_subscribers", &[], "1", ["subscribed", "overloaded"], |at| {
        Box::pin(second_subscription(at, ["news.a", "news.a"]))
    }),
    row("pubsub.max_filters", &[], "1", ["subscribed", "overloaded"], |at| {
        Box::pin(second_subscription(at, ["news.a", "news.b"]))
    }),
    row("pubsub.backlog", &[], "1KiB", ["served", "body_too_large"], |at| Box::pin(publication(at, 4 << 10))),
    row("pubsub.all_backlogs", &[("pubsub-backlog", "1KiB")], "2MiB", ["67108864", "2097152"], |at| {
        Box::pin(gauge(at, &["gateway", "topics"], "backlogs_bytes_cap"))
    }),
    row("pubsub.patience", &[], "300ms", ["kept", "disconnected"], |at| {
        Box::pin(async {
            let node = at.plan.start();
            let mut transport = quinn::TransportConfig::default();
            transport.stream_receive_window(1024_u32.into());
            let endpoint = client::endpoint(node.address).unwrap();
            let reader = Client::connect_over(&endpoint, node.address, node.id, transport).await.unwrap();
            let _unread = reader.subscribe(&"news.a".parse().unwrap()).await.unwrap();
            let publisher = node.client().await;
            let end = Instant::now() + Duration::from_secs(2);
            let publish = async || {
                assert_eq!(code(publisher.publish(&"news.a".parse().unwrap(), "x".repeat(8 << 10)).await), "served");
                tokio::time::sleep(Duration::from_millis(50)).await;
                (counter(&node.snapshot().await, &["gateway", "topics"], "subscribers_cut_off") > 0).then_some(())
            };
            word(within(end - Instant::now(), publish).await, "disconnected", "kept")
        })
    }),
    row("calls.max_in_flight", &[], "1", ["served", "overloaded"], |at| Box::pin(second_call(at, true))),
    row("calls.deadline", &[], "100ms", ["served", "deadline"], |at| {
        Box::pin(async {
            let node = at.plan.start();
            code(call(&node.client().await, "sleep", "400", None).await)
        })
    }),
    // The default takes the better of two; compared is a choice whose outcome is certain.
    row("calls.choice", &[("calls-choice", "round-robin")], "sticky", ["10 10", "0 20"], |at| {
        Box::pin(async {
            let node = at.plan.clone().flag("services", "echo").start();
            let providers =
                ["b", "c"].map(|name| Plan::new(&at.folder, name).flag("services", "hash").meets(&node).start());
            node.until_provided("hash", 2).await;
            let client = node.client().await;
            for _ in 0..20 {
                assert_eq!(code(call(&client, "hash", "", None).await), "served");
            }
            let mut started = Vec::new();
            for provider in &providers {
                started.push(counter(&provider.snapshot().await, &["services", "hash"], "started"));
            }
            started.sort_unstable();
            format!("{} {}", started[0], started[1])
        })
    }),
    row("directory.ttl", &[], "1s", ["kept", "dropped"], |at| {
        Box::pin(async {
            let silent = at.plan.clone().flag("services", "hash").start();
            let node = Plan::new(&at.folder, "b").flag("services", "echo").meets(&silent).start();
            node.until_provided("hash", 1).await;
            silent.kill();
            let gone = async || {
                let services = node.snapshot().await.services;
                services.iter().all(|service| service.name.as_str() != "hash").then_some(())
            };
            word(within(Duration::from_secs(4), gone).await, "dropped", "kept")
        })
    }),
    row("memory.budget", &[], "64MiB", ["starts", "exit code 2"], |at| {
        Box::pin(async {
            let mut command = at.plan.command();
            let mut node = crate::harness::Limited::spawn(
                command
                    .stdin(std::process::Stdio::null())
                    .stdout(std::process::Stdio::null())
                    .stderr(std::process::Stdio::null()),
            );
            let socket = at.plan.data().join(plimsoll_mesh::node::ADMIN_SOCKET);
            until("it starts or exits", PATIENCE, async || match node.child.try_wait().unwrap() {
                Some(status) => Some(format!("exit code {}", status.code().unwrap())),
                None => socket.exists().then(|| "starts".to_owned()),
            })
            .await
        })
    }),
    row("stop.grace", &[("stop-grace", "2s")], "100ms", ["2 s", "0 s"], |at| {
        Box::pin(async {
            let node = at.plan.start();
            let client = node.client().await;
            let sleeping = tokio::spawn(async move { call(&client, "sleep", "30000", Some(30_000)).await });
            node.until("the call runs", |now| counter(now, &["services", "sleep"], "in_flight") == 1).await;
            let began = Instant::now();
            let stopped = tokio::task::spawn_blocking(move || node.stop()).await.unwrap();
            assert_eq!(stopped.0["calls_cut_off"], 1, "{stopped:?}");
            sleeping.abort();
            format!("{} s", began.elapsed().as_secs())
        })
    }),
    row("events.max", &[], "1", ["10000", "1"], |at| {
        Box::pin(async { at.plan.start().snapshot().await.history["events_cap"].to_string() })
    }),
    row("log.json", &[], "true", ["text", "JSON"], |at| {
        Box::pin(async {
            let log = at.plan.start().log();
            word(log.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "JSON", "text")
        })
    }),
];

/// Every setting of `serve --help` has a row, and its probe finds another behaviour with it than without.
#[tokio::test(flavor = "multi_thread")]
async fn every_setting_changes_the_behaviour_that_it_documents() {
    let runs = stream::iter(ROWS).map(|row| async move {
        let [without, with] = [run(row, None).await, run(row, Some(row.value)).await];
        let expected = (row.without, row.with) == (&*without, &*with);
        (!expected).then(|| {
            format!("{} = {}: expected {:?}, found {:?}", row.name, row.value, [row.without, row.with], [without, with])
        })
    });
    // Probes wait more than they work.
    let found: Vec<_> = runs.buffer_unordered(4).filter_map(async |found| found).collect().await;
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// What the probe of a row finds, with this value or without the setting.
async fn run(row: &Row, value: Option<&str>) -> String {
    let folder = folder();
    let plan = row.flags.iter().fold(Plan::new(&folder, "a"), |plan, (name, value)| plan.flag(name, value));
    let plan = value.iter().fold(plan, |plan, value| plan.flag(&row.name.replace(['.', '_'], "-"), value));
    (row.probe)(&Setup { folder, plan }).await
}

#[test]
fn every_setting_of_the_help_has_a_row() {
    let help = output_of(std::process::Command::new(crate::harness::PROGRAM).args(["serve", "--help"])).stdout;
    let help = String::from_utf8(help).unwrap();
    let others = ["config", "json", "color", "help"];
    let flags = help.lines().filter_map(|line| line.trim_start().strip_prefix("--")?.split(' ').next());
    let flags: Vec<_> = flags.filter(|flag| !others.contains(flag)).collect();
    let rows = ROWS.iter().map(|row| row.name).chain(ELSEWHERE.iter().map(|(name, _)| *name));
    let rows: Vec<_> = rows.map(|name| name.replace(['.', '_'], "-")).collect();
    let missing: Vec<_> = flags.iter().filter(|flag| !rows.iter().any(|row| row == *flag)).collect();
    assert!(missing.is_empty() && rows.len() == flags.len(), "without a row: {missing:?}, of {flags:?}");
}

/// Calls `ask` until it returns a value, for `time` at most. Returns whether it did.
async fn within(time: Duration, mut ask: impl AsyncFnMut() -> Option<()>) -> bool {
    let end = Instant::now() + time;
    while Instant::now() < end {
        if ask().await.is_some() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

fn word(is: bool, yes: &str, no: &str) -> String {
    if is { yes } else { no }.to_owned()
}

/// "served", or the problem code of a response.
fn code(result: Result<Response, RequestError>) -> String {
    let response = match result {
        Ok(response) => response,
        Err(RequestError::Refused(response)) => *response,
        Err(_) => return "no response".to_owned(),
    };
    let problem = response.problem().map(|problem| problem.code.as_str().to_owned());
    problem
        .unwrap_or_else(|| if response.status.is_success() { "served".to_owned() } else { response.status.to_string() })
}

async fn connect(node: &Node) -> Result<Client, ConnectError> {
    Client::connect(&client::endpoint(node.address).unwrap(), node.address, node.id).await
}

async fn call(client: &Client, service: &str, body: &str, deadline: Option<u64>) -> Result<Response, RequestError> {
    let call = Call::new(service.parse().unwrap(), body.to_owned());
    let call = deadline.iter().fold(call, |call, ms| call.deadline(Duration::from_millis(*ms)));
    client.call(call).await
}

async fn gauge(at: &Setup, path: &[&str], name: &str) -> String {
    counter(&at.plan.start().snapshot().await, path, name).to_string()
}

/// The state of a peer that connects.
async fn state_of_a_peer(at: &Setup) -> String {
    let node = at.plan.start();
    let peer = Plan::new(&at.folder, "b").meets(&node).start();
    until("the state of the peer is known", PATIENCE, async || {
        let nodes = node.snapshot().await.nodes;
        let state = nodes.into_iter().find(|other| other.id == peer.id)?.state;
        matches!(state.as_str(), "up" | "refused").then_some(state)
    })
    .await
}

/// The response to a second client while the first is connected.
async fn second_client(at: &Setup) -> String {
    let node = at.plan.start();
    let first = node.client().await;
    assert_eq!(code(call(&first, "echo", "", None).await), "served");
    match connect(&node).await {
        Ok(second) => code(call(&second, "echo", "", None).await),
        Err(ConnectError::Refused) => "refused".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// The response to a second call while another runs, of the same client or of another.
async fn second_call(at: &Setup, other: bool) -> String {
    let node = at.plan.start();
    let first = node.client().await;
    let sleeping = tokio::spawn({
        let first = first.clone();
        async move { call(&first, "sleep", "20000", Some(30_000)).await }
    });
    node.until("a call runs", |now| counter(now, &["services", "sleep"], "in_flight") == 1).await;
    let second = if other { node.client().await } else { first };
    let second = code(call(&second, "sleep", "1", None).await);
    sleeping.abort();
    second
}

async fn advertise(client: &Client, name: &str) -> String {
    code(client.advertise(&name.parse().unwrap(), None).await)
}

/// The response to a second advertisement, of the same client or of another.
async fn second_advertisement(at: &Setup, other: bool) -> String {
    let node = at.plan.start();
    let first = node.client().await;
    assert_eq!(advertise(&first, "one").await, "served");
    let second = if other { node.client().await } else { first.clone() };
    // Longer than the rate of ten a second asks for.
    tokio::time::sleep(Duration::from_millis(200)).await;
    advertise(&second, "two").await
}

/// The outcome of a second subscription.
async fn second_subscription(at: &Setup, [first, second]: [&str; 2]) -> String {
    let node = at.plan.start();
    let client = node.client().await;
    let _first = client.subscribe(&first.parse().unwrap()).await.unwrap();
    match client.subscribe(&second.parse().unwrap()).await {
        Ok(_) => "subscribed".to_owned(),
        Err(error) => code(Err(error)),
    }
}

/// The response to a publication of so many bytes while somebody subscribes.
async fn publication(at: &Setup, bytes: usize) -> String {
    let node = at.plan.start();
    let client = node.client().await;
    let _subscription = client.subscribe(&"news.a".parse().unwrap()).await.unwrap();
    code(client.publish(&"news.a".parse().unwrap(), "x".repeat(bytes)).await)
}

//! The gateway under a client that nobody here wrote: `tests/aioquic_client.py`.

use std::path::{Path, PathBuf};

use plimsoll_mesh::gateway::Limits;
use serde_json::Value;
use tokio::process::Command;

use crate::admission::one_origin;
use crate::support::{Server, eventually};

/// The Python that `scripts/test` makes.
fn python() -> PathBuf {
    let cache = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/plimsoll/venv/bin/python"));
    let python = std::env::var_os("PLIMSOLL_PYTHON").map(PathBuf::from).or_else(cache);
    python.filter(|path| path.exists()).expect("scripts/test makes the Python environment of the tests; run it once")
}

/// Runs a scenario against `server`; its report.
async fn scenario(server: &Server, arguments: &[&str]) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/aioquic_client.py");
    let mut command = Command::new(python());
    command.arg(script).arg(server.address.to_string()).args(["--pin", &server.node.to_string()]).args(arguments);
    let output = command.kill_on_drop(true).output().await.unwrap();
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{report}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&report).unwrap()
}

#[tokio::test]
async fn aioquic_is_served_and_refused_by_name() {
    let server = Server::start(Limits::default()).await;
    scenario(&server, &["plain"]).await;
    scenario(&server, &["concurrent", "--connections", "4", "--calls", "100"]).await;
    scenario(&server, &["wrong-certificate"]).await;
    server.stop().await;
}

#[tokio::test]
async fn calls_of_an_aioquic_client_that_leaves_are_given_up() {
    let limits = Limits { idle_timeout: std::time::Duration::from_secs(1), ..Limits::default() };
    let server = Server::start(limits).await;
    scenario(&server, &["reset"]).await;
    scenario(&server, &["left"]).await;
    scenario(&server, &["vanished"]).await;
    let hanging = &server.stand.hanging;
    eventually("the calls are given up", || hanging.load(std::sync::atomic::Ordering::SeqCst) == 0).await;
    eventually("nothing is in flight", || server.gateway.requests().in_flight == 0).await;
    assert_eq!(server.gateway.requests().cancelled, 40);
    server.stop().await;
}

#[tokio::test]
async fn aioquic_frames_that_announce_a_gibibyte_are_refused() {
    let server = Server::start(Limits::default()).await;
    for on in ["headers", "grease", "control"] {
        let report = scenario(&server, &["oversized-frame", "--on", on]).await;
        assert!(report["taken"].as_u64().unwrap() < 1 << 20, "{report}");
    }
    server.stop().await;
}

/// RFC 9114, 4.2 and 4.3: `connection`, `transfer-encoding` and their like do not exist in HTTP/3; pseudo-header fields come
/// once and first.
#[tokio::test]
async fn aioquic_requests_with_fields_that_do_not_belong_there_are_rejected_as_malformed() {
    let server = Server::start(Limits::default()).await;
    scenario(&server, &["malformed"]).await;
    server.stop().await;
}

/// RFC 9114, 5.2: a client's GOAWAY is about pushes; what it asked for is answered, and arrives before the close.
#[tokio::test]
async fn what_an_aioquic_client_asked_for_is_answered_after_its_goaway() {
    let server = Server::start(Limits::default()).await;
    scenario(&server, &["goodbye"]).await;
    eventually("nothing is in flight", || server.gateway.requests().in_flight == 0).await;
    assert_eq!(server.gateway.requests().cancelled, 0);
    server.stop().await;
}

#[tokio::test]
async fn of_an_aioquic_crowd_as_many_are_served_as_may_be() {
    let server =
        Server::start(Limits { clients: 20, refusal_responders: 8, admission: one_origin(), ..Limits::default() })
            .await;
    let report = scenario(&server, &["crowd", "--clients", "60", "--expect-served", "20"]).await;
    let attempts = server.gateway.attempts();
    assert!(attempts.balanced());
    assert_eq!((attempts.offered, attempts.served, attempts.clients_high_water), (60, 20, 20));
    assert_eq!(report["refused_with_reason"].as_u64(), Some(attempts.refused_with_reason));
    assert_eq!(report["refused_without_reason"].as_u64(), Some(attempts.refused_without_reason));
    server.stop().await;
}

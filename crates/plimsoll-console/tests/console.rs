//! The admin listener over a real socket.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plimsoll::ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use plimsoll::supervisor::{Child, ChildSpec, Supervisor};
use plimsoll_console::client::{self, ClientError};
use plimsoll_console::{BindError, Console, StartError};
use plimsoll_testkit::probe::{Mark, Probe, probe};
use plimsoll_testkit::process::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const PATIENCE: Duration = Duration::from_secs(10);

/// A parent that notes how its child ended.
struct Parent(Mark<String>);

impl Actor for Parent {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<()>,
        event: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(_, _, reason) => self.0.note(reason.unwrap_or("normal".into())),
            SupervisionEvent::ActorFailed(_, error) => self.0.note(error.to_string()),
            _ => {}
        }
        Ok(())
    }
}

async fn parent() -> (ActorRef<()>, Probe<String>) {
    let (mark, ends) = probe(4);
    let (parent, _) = Actor::spawn(None, Parent(mark), ()).await.unwrap();
    (parent, ends)
}

async fn snapshot(path: &Path) -> Result<String, ClientError> {
    let json = client::get(path, "/v1/admin/snapshot", PATIENCE).await?;
    Ok(String::from_utf8(json.to_vec()).unwrap())
}

#[tokio::test]
async fn every_reading_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let readings = Arc::new(AtomicU64::new(0));
    let (parent, _ends) = parent().await;
    let source = { move || readings.fetch_add(1, Ordering::Relaxed) };
    Console::new(&path, source).start(parent.get_cell()).await.unwrap();
    assert_eq!(snapshot(&path).await.unwrap(), "0");
    assert_eq!(snapshot(&path).await.unwrap(), "1");
}

#[tokio::test]
async fn an_unknown_route_is_a_problem_document() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let (parent, _ends) = parent().await;
    Console::new(&path, || ()).start(parent.get_cell()).await.unwrap();
    let error = client::get(&path, "/v1/admin/secrets", PATIENCE).await.unwrap_err();
    let ClientError::Refused { status, body } = error else { panic!("{error}") };
    assert_eq!(status, 404);
    assert!(body.contains("urn:plimsoll:problem:no_such_route"), "{body}");
}

#[tokio::test]
async fn a_stop_removes_the_socket_and_a_second_console_is_refused_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let (parent, mut ends) = parent().await;
    Console::new(&path, || ()).start(parent.get_cell()).await.unwrap();
    let second = Console::new(&path, || ()).start(parent.get_cell()).await;
    assert!(matches!(second, Err(StartError::Bind(BindError::InUse(_)))));
    parent.get_cell().get_children()[0].stop(None);
    assert_eq!(ends.next().await, "normal");
    assert!(!path.exists());
    assert!(matches!(snapshot(&path).await, Err(ClientError::NotRunning { .. })));
}

#[tokio::test]
async fn a_killed_console_no_longer_accepts_and_its_successor_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let (parent, mut ends) = parent().await;
    Console::new(&path, || 1).start(parent.get_cell()).await.unwrap();
    parent.get_cell().get_children()[0].kill();
    assert_eq!(ends.next().await, "killed");
    // The accepting task notices the drop of the actor's state; only a connection shows when it has.
    until("the old listener is gone", PATIENCE, async || UnixStream::connect(&path).await.is_err().then_some(())).await;
    Console::new(&path, || 2).start(parent.get_cell()).await.unwrap();
    assert_eq!(snapshot(&path).await.unwrap(), "2");
}

#[tokio::test]
async fn connections_beyond_the_cap_wait_for_a_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let (parent, _ends) = parent().await;
    let child = Console::new(&path, || ()).start(parent.get_cell()).await.unwrap();
    let mut holders = Vec::new();
    for _ in 0..plimsoll_console::MAX_CONNECTIONS {
        holders.push(UnixStream::connect(&path).await.unwrap());
    }
    let mut waiting = UnixStream::connect(&path).await.unwrap();
    waiting.write_all(b"GET /v1/admin/snapshot HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut first = [0];
    let early = tokio::time::timeout(Duration::from_millis(200), waiting.read(&mut first)).await;
    assert!(early.is_err(), "answered beyond the cap");
    drop(holders.pop());
    let read = tokio::time::timeout(PATIENCE, waiting.read(&mut first)).await.unwrap().unwrap();
    assert_eq!(read, 1);
    drop(child);
}

/// A console that shows what `source` returns, and its counters.
async fn console<T: serde::Serialize>(
    path: &Path,
    source: impl Fn() -> T + Send + Sync + 'static,
) -> (ActorRef<()>, Child, Probe<String>) {
    let (parent, ends) = parent().await;
    let child = Console::new(path, source).start(parent.get_cell()).await.unwrap();
    (parent, child, ends)
}

/// Sends these bytes and reads until the connection ends.
async fn exchange(path: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut text)).await;
    read.expect("the connection does not end").unwrap();
    text
}

/// Cannot be made into JSON.
struct Unserializable;

impl serde::Serialize for Unserializable {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("no such thing"))
    }
}

#[tokio::test]
async fn every_error_reply_is_a_problem_document() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let (_parent, _child, _ends) = console(&path, || Unserializable).await;
    for (request, status, code) in [
        ("GET /v1/admin/snapshot", "500 Internal Server Error", "worker_died"),
        ("POST /v1/admin/snapshot", "405 Method Not Allowed", "method_not_allowed"),
        ("GET /", "404 Not Found", "no_such_route"),
    ] {
        let text =
            exchange(&path, &format!("{request} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n")).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{text}");
        assert!(text.contains("content-type: application/problem+json\r\n"), "{text}");
        assert!(text.contains(&format!("\"code\":\"{code}\"")), "{text}");
    }
    assert!(exchange(&path, "nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400 "), "what is no HTTP is refused");
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_and_one_that_stops_in_mid_request_lose_their_place_at_the_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let (_parent, _child, _ends) = console(&path, || ()).await;
    for sent in ["", "GET /v1/admin/snap"] {
        let began = tokio::time::Instant::now();
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "");
        let waited = began.elapsed();
        assert!(waited >= Duration::from_secs(10) && waited < Duration::from_secs(11), "{waited:?}");
    }
}

#[tokio::test]
async fn a_stop_in_mid_body_ends_the_connection() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let (parent, _child, mut ends) = console(&path, || "x".repeat(8 << 20)).await;
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET /v1/admin/snapshot HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut some = [0; 1024];
    assert!(stream.read(&mut some).await.unwrap() > 0);
    parent.get_cell().get_children()[0].stop(None);
    assert_eq!(ends.next().await, "normal");
    let mut rest = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the connection goes on");
    assert!(read.is_err() || rest.len() < 8 << 20, "all of it came");
}

#[tokio::test]
async fn a_snapshot_that_panics_costs_its_connection_and_no_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let readings = Arc::new(AtomicU64::new(0));
    let source = move || match readings.fetch_add(1, Ordering::Relaxed) {
        0..40 => panic!("no snapshot"),
        reading => reading,
    };
    let (_parent, _child, _ends) = console(&path, source).await;
    for _ in 0..40 {
        assert!(matches!(snapshot(&path).await, Err(ClientError::Response(_))));
    }
    assert_eq!(snapshot(&path).await.unwrap(), "40");
}

/// The counters show connections, and which of them failed.
#[tokio::test]
async fn connections_and_failures_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let console = Console::new(&path, || ());
    let spec = ChildSpec::new("console", move |parent| console.clone().start(parent));
    let tree = Supervisor::builder("top").child(spec).start().await.unwrap();
    let counted = async |wanted: [u64; 3]| {
        until("the connections have ended", PATIENCE, async || {
            let counters = tree.inspect().details.children[0].details.counters.clone();
            let found = ["accepted", "failed", "connections"].map(|name| counters[name]);
            (found == wanted).then_some(())
        })
        .await;
    };
    counted([0, 0, 0]).await;
    snapshot(&path).await.unwrap();
    counted([1, 0, 0]).await;
    let mut leaving = UnixStream::connect(&path).await.unwrap();
    counted([2, 0, 1]).await;
    leaving.write_all(b"GET /v1/admin/snap").await.unwrap();
    drop(leaving);
    counted([2, 1, 0]).await;
    tree.stop().await.unwrap();
}

/// A listener that answers every connection with these bytes, and keeps it or ends it.
fn fake(path: &Path, bytes: &'static [u8], keep: bool) {
    let listener = tokio::net::UnixListener::bind(path).unwrap();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(bytes).await;
            if keep {
                kept.push(stream);
            }
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a_service_that_does_not_respond_is_given_up_at_the_deadline() {
    for (index, bytes) in [&b""[..], b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"].into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format!("{index}.sock"));
        fake(&path, bytes, true);
        let began = tokio::time::Instant::now();
        let error = client::get(&path, "/", Duration::from_secs(3)).await.unwrap_err();
        assert!(matches!(error, ClientError::Timeout(_)), "{error}");
        assert!(began.elapsed() >= Duration::from_secs(3) && began.elapsed() < Duration::from_secs(4));
    }
}

#[tokio::test]
async fn a_response_that_ends_early_is_an_error() {
    for (index, bytes) in
        [&b""[..], b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", b"nonsense"].into_iter().enumerate()
    {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format!("{index}.sock"));
        fake(&path, bytes, false);
        let error = client::get(&path, "/", PATIENCE).await.unwrap_err();
        assert!(matches!(error, ClientError::Response(_)), "{error}");
    }
}

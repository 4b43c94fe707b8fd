//! The admin listener over a real socket.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plimsoll::ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
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

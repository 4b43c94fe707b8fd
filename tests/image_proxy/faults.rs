//! Responses, deadlines and stops when the origin, a client or a reader of the output fails.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use futures::future::join_all;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use plimsoll_testkit::process::{TimeLimit, stalled_pipe, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::clients;
use crate::origin::{self, LARGE};
use crate::process::{ORIGIN_PATIENCE, PROGRAM, Proxy};

const PATIENCE: Duration = Duration::from_secs(20);

/// How much later than its deadline something may happen on a busy machine.
const MARGIN: Duration = Duration::from_secs(2);

/// Sends these bytes and reads until the connection ends.
async fn exchange(proxy: std::net::SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut response)).await;
    read.expect("the connection ends").unwrap();
    response
}

/// each error has the status that names it, a reason in its body, and leaves no task.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_error_reply_has_its_status_and_reason() {
    let (address, seen) = origin::start().await;
    let proxy = Proxy::start(address, &[], Duration::ZERO).await;
    for (request, status, reason) in [
        ("POST /one/img-1", "405 Method Not Allowed", "only GET and HEAD are supported"),
        ("GET /one", "404 Not Found", "the path of an image is /TENANT/IMAGE"),
        ("GET /one/.hidden", "404 Not Found", "the path of an image is /TENANT/IMAGE"),
        ("GET /one/unknown-1", "404 Not Found", "the origin responded with status 404"),
        ("GET /one/fail-1", "502 Bad Gateway", "the origin responded with status 500"),
        ("GET /panic/img-1", "500 Internal Server Error", ""),
    ] {
        let head = "HTTP/1.1\r\nhost: images\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let response = exchange(proxy.address, &format!("{request} {head}")).await;
        assert!(response.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request}: {response}");
        assert_eq!(status.starts_with("405"), response.contains("allow: GET, HEAD\r\n"), "{request}: {response}");
        assert!(response.contains(reason), "{request}: {response}");
    }
    assert_eq!(seen.requests.load(SeqCst), 2, "the origin is asked for images only");
    let stray = async || {
        let tasks = proxy.stats().await.tasks;
        (tasks <= proxy.tasks_at_start + seen.connections.load(SeqCst)).then_some(())
    };
    until("no task is left", PATIENCE, stray).await;
    assert_eq!(proxy.stop(), 0);
}

/// An origin that does not respond is given up at the deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_origin_is_a_504_at_the_deadline() {
    let (address, _) = origin::start().await;
    let proxy = Proxy::start(address, &[], Duration::ZERO).await;
    let began = Instant::now();
    let (status, reason) = clients::get(proxy.address, "/one/silent-1").await.unwrap();
    let waited = began.elapsed();
    assert_eq!((status.as_u16(), &reason[..]), (504, &b"the origin sent nothing for 3s\n"[..]));
    assert!(waited >= ORIGIN_PATIENCE && waited < ORIGIN_PATIENCE + MARGIN, "{waited:?}");
    assert_eq!(proxy.stop(), 0);
}

/// Requests that wait for a fetch fail with it, at once and without a fetch of their own; the next request fetches again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_wait_for_a_fetch_that_fails_receive_its_error() {
    let (address, seen) = origin::start().await;
    let proxy = Proxy::start(address, &[], Duration::ZERO).await;
    let first = clients::ask(proxy.address, "/one/tears-1").await;
    until("the fetch has begun", PATIENCE, async || (seen.requests.load(SeqCst) == 1).then_some(())).await;
    let began = Instant::now();
    for response in join_all((0..10).map(|_| clients::get(proxy.address, "/one/tears-1"))).await {
        let (status, reason) = response.unwrap();
        let reason = String::from_utf8(reason.to_vec()).unwrap();
        assert_eq!((status.as_u16(), reason.contains("ended within the image")), (502, true), "{reason}");
    }
    assert!(began.elapsed() < ORIGIN_PATIENCE, "they waited for longer than the fetch: {:?}", began.elapsed());
    assert_eq!(seen.requests.load(SeqCst), 1, "one fetch for all");
    drop(first);
    assert!(clients::get(proxy.address, "/one/tears-1").await.is_err(), "its body breaks off");
    assert_eq!(seen.requests.load(SeqCst), 2, "a failure is not stored");
    assert_eq!(proxy.stop(), 0);
}

/// Requests that wait for a fetch whose client leaves share another fetch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_wait_for_a_client_that_leaves_share_one_fetch() {
    let (address, seen) = origin::start().await;
    let proxy = Proxy::start(address, &[], Duration::ZERO).await;
    let leaving = clients::read_some(proxy.address, "/one/halves-1", 100).await;
    let waiting = join_all((0..10).map(|_| clients::get(proxy.address, "/one/halves-1")));
    let waiting = async {
        let (responses, ()) = tokio::join!(waiting, async {
            until("they wait", PATIENCE, async || (proxy.stats().await.counter("in_flight") == 10).then_some(())).await;
            drop(leaving);
        });
        responses
    };
    for response in tokio::time::timeout(PATIENCE, waiting).await.expect("none waits for a client that left") {
        let (status, body) = response.unwrap();
        assert_eq!((status.as_u16(), body.len()), (200, 2_000));
    }
    assert_eq!(seen.requests.load(SeqCst), 2);
    assert_eq!(proxy.stop(), 0);
}

/// A client that sends nothing, or stops within its request, is disconnected after ten seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_client_is_disconnected_at_the_deadline() {
    const DEADLINE: Duration = Duration::from_secs(10);
    let (address, _) = origin::start().await;
    let proxy = Proxy::start(address, &[], Duration::ZERO).await;
    let silent = ["", "GET /one/img-1 HT"].map(|sent| async move {
        let began = Instant::now();
        let response = exchange(proxy.address, sent).await;
        (sent, response, began.elapsed())
    });
    for (sent, response, waited) in join_all(silent).await {
        assert!(!response.contains(" 200 "), "{sent:?}: {response}");
        assert!(waited >= DEADLINE && waited < DEADLINE + MARGIN, "{sent:?}: {waited:?}");
    }
}

/// A stop in the middle of a body: a client that reads receives all of it, one that does not read is disconnected within the
/// grace, and no new connection is accepted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_within_a_body_completes_it_for_who_reads_and_ends_the_others() {
    let (address, seen) = origin::start().await;
    let proxy = Proxy::start(address, &[], Duration::ZERO).await;
    let mut reading = TcpStream::connect(proxy.address).await.unwrap();
    reading.write_all(b"GET /one/large-1 HTTP/1.1\r\nhost: images\r\n\r\n").await.unwrap();
    let mut stalled = clients::read_some(proxy.address, "/two/large-2", 1).await;
    until("both are fetched", PATIENCE, async || (seen.large.load(SeqCst) == 2).then_some(())).await;
    let began = Instant::now();
    let read = tokio::spawn(async move {
        let mut body = Vec::new();
        reading.read_to_end(&mut body).await.map(|_| body.len())
    });
    let address = proxy.address;
    let stopped = tokio::task::spawn_blocking(move || proxy.stop());
    assert!(read.await.unwrap().unwrap() > LARGE, "the whole body, with its head");
    assert_eq!(stopped.await.unwrap(), 0, "no task is left");
    // Three seconds for connections, and the time that the process takes to exit.
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(3) + MARGIN, "{took:?}");
    let mut rest = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stalled.read_to_end(&mut rest)).await.expect("it is disconnected");
    assert!(read.is_err() || rest.len() < LARGE, "a client that did not read received everything");
    assert!(TcpStream::connect(address).await.is_err());
}

/// Readers of stdout and stderr that stall hold up nothing: neither requests whose workers panic, nor the stop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_output_that_nobody_reads_stops_nothing() {
    let (origin, _) = origin::start().await;
    let folder = tempfile::tempdir().unwrap();
    let ((out, stdout), (err, stderr)) = (stalled_pipe().unwrap(), stalled_pipe().unwrap());
    // Free a moment ago; nothing is printed that could name another.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["--listen", &address.to_string(), "--origin", &origin.to_string(), "--store"]).arg(folder.path());
    let mut child = command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn().unwrap();
    drop(command);
    let limit = TimeLimit::new(child.id(), PATIENCE);
    until("the proxy listens", PATIENCE, async || TcpStream::connect(address).await.ok()).await;
    for nth in 0..20 {
        let panics = tokio::time::timeout(PATIENCE, clients::get(address, &format!("/panic/img-{nth}"))).await;
        assert_eq!(panics.expect("a worker waits for the reader of stderr").unwrap().0.as_u16(), 500);
    }
    let served = tokio::time::timeout(PATIENCE, clients::get(address, "/one/img-1")).await;
    assert_eq!(served.expect("the proxy serves").unwrap().0.as_u16(), 200);
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    let code = tokio::task::spawn_blocking(move || child.wait().unwrap().code()).await.unwrap();
    assert_eq!((code, limit.exceeded()), (Some(0), false));
    drop((out, err));
}

//! What a server does between calls: continuations, timers, being idle.

use std::time::Duration;

use plimsoll::server;
use plimsoll_testkit::gate::Gate;
use plimsoll_testkit::probe::probe;
use tokio::time::Instant;

use crate::common::{counters, until};
use crate::obeys::{Ask, Note, Obeys, obeys, spawn, started};

/// Row: continuation asked for by init or a handler.
#[tokio::test(start_paused = true)]
async fn otp_continuations_run_before_anything_queued() {
    let (mark, mut probe) = probe(8);
    let gate = Gate::closed();
    let server = server::builder(Obeys::new(mark, Some("first"))).start().await.unwrap();
    server.client().cast(Note::Wait(gate.clone())).unwrap();
    gate.until_waiting(1).await;
    let call = spawn(&server, Ask::Continue);
    until(|| counters(&server)["in_flight"] == 1).await;
    server.client().cast(Note::Say("queued")).unwrap();
    gate.open();
    assert_eq!(call.await.unwrap(), Ok(0));
    assert_eq!(probe.take(3).await, ["first", "continued", "queued"]);
}

/// Row: a failure of init's continuation comes after a successful start; a failure of init is a failed start.
#[tokio::test(start_paused = true)]
async fn otp_a_failing_continuation_of_init_comes_after_the_start() {
    let (mark, mut probe) = probe(8);
    assert!(server::builder(Obeys::new(mark.clone(), Some("fail"))).start().await.is_err());
    let mut server = server::builder(Obeys::new(mark, Some("boom"))).start().await.unwrap();
    assert_eq!(probe.next().await, "boom");
    server.actor().kill();
    server.ended().await;
}

#[tokio::test(start_paused = true)]
async fn timers_fire_once_or_again_and_can_be_cancelled() {
    let (server, mut probe) = started().await;
    let client = server.client();
    let start = Instant::now();
    client.call(Ask::After(Duration::from_millis(30))).await.unwrap();
    assert_eq!(probe.next().await, "after");
    assert_eq!(start.elapsed(), Duration::from_millis(30));
    assert_eq!(client.call(Ask::CancelTimer).await, Ok(0), "it has fired");
    client.call(Ask::Every(Duration::from_secs(1))).await.unwrap();
    let start = Instant::now();
    assert_eq!(probe.take(3).await, ["tick", "tick", "tick"]);
    assert_eq!(start.elapsed(), Duration::from_secs(3));
    assert_eq!(client.call(Ask::CancelTimer).await, Ok(1));
    tokio::time::advance(Duration::from_secs(10)).await;
    client.call(Ask::Echo(1)).await.unwrap();
    assert!(probe.waiting().is_empty());
    assert_eq!(counters(&server)["own_timers"], 0);
}

/// OTP's hibernate: idle once, and again only after something came.
#[tokio::test(start_paused = true)]
async fn an_idle_server_is_told_once() {
    let (builder, mut probe) = obeys();
    let server = builder.idle(Duration::from_secs(2)).start().await.unwrap();
    let start = Instant::now();
    assert_eq!(probe.next().await, "idle");
    assert_eq!(start.elapsed(), Duration::from_secs(2));
    tokio::time::advance(Duration::from_secs(60)).await;
    tokio::task::yield_now().await;
    assert!(probe.waiting().is_empty());
    server.client().call(Ask::Echo(1)).await.unwrap();
    let start = Instant::now();
    assert_eq!(probe.next().await, "idle");
    assert_eq!(start.elapsed(), Duration::from_secs(2));
}

//! How a gateway stops.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use h3::error::StreamError;
use plimsoll_mesh::gateway::Limits;
use plimsoll_mesh::problem::Code;

use crate::support::{Server, answer, dial, eventually, post};

#[tokio::test]
async fn what_is_in_flight_is_served_and_nothing_new_is_taken() {
    let server = Server::start(Limits::default()).await;
    let client = server.client().await;
    let mut call = client.open(post("gate").body(()).unwrap()).await.unwrap();
    call.finish().await.unwrap();
    eventually("the call runs", || server.stand.hanging.load(SeqCst) == 1).await;
    server.ask_to_stop();
    // The client hears GOAWAY, and refuses by itself to ask for more.
    let patience = Instant::now() + Duration::from_secs(20);
    loop {
        match client.call("echo", "new").await {
            Err(StreamError::RemoteClosing) => break,
            // Sent before GOAWAY arrived: refused with the reason.
            Ok(answer) => assert!(answer.status == 200 || answer.problem().code == Code::ShuttingDown),
            Err(other) => panic!("{other}"),
        }
        assert!(Instant::now() < patience, "GOAWAY never came");
    }
    assert!(dial(&server, server.client_config()).await.is_err(), "new connections are refused");
    server.stand.gate.notify_one();
    assert_eq!(answer(&mut call).await.unwrap().status, 200);
    server.stop().await;
}

#[tokio::test]
async fn a_call_that_outlasts_the_grace_gets_the_reason() {
    let server = Server::start_with(Limits::default(), Duration::from_millis(400)).await;
    let client = server.client().await;
    let mut call = client.open(post("hang").body(()).unwrap()).await.unwrap();
    call.finish().await.unwrap();
    eventually("the call runs", || server.stand.hanging.load(SeqCst) == 1).await;
    let began = Instant::now();
    server.ask_to_stop();
    let problem = answer(&mut call).await.unwrap().problem();
    assert_eq!((problem.code, problem.node), (Code::ShuttingDown, Some(server.node)));
    assert!(began.elapsed() >= Duration::from_millis(390));
    server.stop().await;
    assert!(began.elapsed() < Duration::from_secs(8));
}

#[tokio::test]
async fn an_idle_gateway_stops_at_once() {
    let server = Server::start_with(Limits::default(), Duration::from_secs(60)).await;
    let client = server.client().await;
    client.call("echo", "").await.unwrap();
    let began = Instant::now();
    server.stop().await;
    assert!(began.elapsed() < Duration::from_secs(20));
    assert!(client.quic.close_reason().is_some() || client.quic.closed().await.to_string().contains("stopping"));
}

//! Publish and subscribe over HTTP/3.

use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use http::{Method, Request};
use plimsoll_mesh::gateway::Limits;
use plimsoll_mesh::problem::Code;
use serde_json::{Value, json};

use crate::support::{Client, Server, Stream, eventually};

async fn subscribe(client: &Client, filter: &str) -> Stream {
    let request = Request::get(format!("https://node/v1/subscribe/{filter}")).body(()).unwrap();
    let mut stream = client.open(request).await.unwrap();
    stream.finish().await.unwrap();
    let head = stream.recv_response().await.unwrap();
    assert_eq!((head.status().as_u16(), &head.headers()["content-type"]), (200, &"text/event-stream".parse().unwrap()));
    stream
}

async fn publish(client: &Client, topic: &str, body: impl Into<Bytes>) -> Value {
    let request = Request::post(format!("https://node/v1/publish/{topic}")).header("content-type", "text/plain");
    let answer = client.request(request.body(body.into()).unwrap()).await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_slice(&answer.body).unwrap()
}

/// Reads to the end of an event and takes it apart; `None` at the end of the stream.
async fn event(stream: &mut Stream, read: &mut Vec<u8>) -> Option<(String, Value)> {
    loop {
        if let Some(end) = read.windows(2).position(|window| window == b"\n\n") {
            let event: Vec<u8> = read.drain(..end + 2).collect();
            let event = String::from_utf8(event).unwrap();
            match event.trim_end().split_once('\n') {
                Some((name, data)) => {
                    let data = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
                    return Some((name.strip_prefix("event: ").unwrap().to_owned(), data));
                }
                None => return Some((event.trim_end().to_owned(), Value::Null)),
            }
        }
        let mut piece = stream.recv_data().await.unwrap()?;
        read.extend_from_slice(&piece.copy_to_bytes(piece.remaining()));
    }
}

/// F-11, F-13: a message reaches those whose filter matches; a subscriber that leaves is gone.
#[tokio::test]
async fn a_message_reaches_those_who_want_it() {
    let server = Server::start(Limits::default()).await;
    let (reader, writer) = (server.client().await, server.client().await);
    let (mut wanted, mut other) = (subscribe(&reader, "weather.*").await, subscribe(&reader, "news.**").await);
    let reached = publish(&writer, "weather.oslo", "rain\n\nevent: none").await;
    assert_eq!(reached, json!({ "schema": 1, "reached": 1, "cut_off": 0 }));
    assert_eq!(publish(&writer, "news.local.sport", "goal").await["reached"], 1);
    assert_eq!(publish(&writer, "weather.oslo.harbour", "to nobody").await["reached"], 0);
    let message = |topic: &str, text: &str| {
        Some(("message".to_owned(), json!({ "topic": topic, "content_type": "text/plain", "text": text })))
    };
    assert_eq!(event(&mut wanted, &mut Vec::new()).await, message("weather.oslo", "rain\n\nevent: none"));
    assert_eq!(event(&mut other, &mut Vec::new()).await, message("news.local.sport", "goal"));
    wanted.stop_sending(h3::error::Code::H3_REQUEST_CANCELLED);
    drop(wanted);
    eventually("the subscriber that left is gone", || server.gateway.pubsub().subscribers() == 1).await;
    reader.quic.close(0_u8.into(), b"vanished");
    eventually("so is the one that vanished", || server.gateway.pubsub().filters() == 0).await;
    server.stop().await;
}

/// F-12: a subscriber that stops reading is cut off at its bound with a reset; the other one has every message.
#[tokio::test]
async fn a_subscriber_that_stops_reading_is_cut_off_and_delays_no_other() {
    let server = Server::start(Limits::default()).await;
    let (slow, quick, writer) = (server.client().await, server.client().await, server.client().await);
    let mut stalled = subscribe(&slow, "a").await;
    let mut reading = subscribe(&quick, "a").await;
    let mut read = Vec::new();
    let mut cut_off = 0;
    for n in 0..60 {
        let reached = publish(&writer, "a", format!("{n:060000}")).await;
        cut_off += reached["cut_off"].as_u64().unwrap();
        let (_, data) = event(&mut reading, &mut read).await.unwrap();
        assert_eq!(data["text"].as_str().unwrap().parse::<u32>().unwrap(), n);
    }
    assert_eq!(cut_off, 1);
    eventually("the stalled one is gone", || server.gateway.pubsub().subscribers() == 1).await;
    let end = loop {
        match stalled.recv_data().await {
            Ok(Some(_)) => {}
            end => break end.map(|_| ()),
        }
    };
    let error = end.expect_err("half an event is no end").to_string();
    assert!(error.contains("H3_EXCESSIVE_LOAD"), "{error}");
    server.stop().await;
}

/// A quiet subscription is kept by its heartbeat.
#[tokio::test]
async fn a_quiet_subscriber_hears_a_heartbeat() {
    let server = Server::start(Limits { heartbeat: Duration::from_millis(20), ..Limits::default() }).await;
    let client = server.client().await;
    let (mut stream, mut read) = (subscribe(&client, "**").await, Vec::new());
    for _ in 0..3 {
        assert_eq!(event(&mut stream, &mut read).await, Some((": heartbeat".to_owned(), Value::Null)));
    }
    server.stop().await;
}

/// a stopping node tells its subscribers, and does not wait for its grace for them.
#[tokio::test]
async fn a_stopping_node_tells_its_subscribers() {
    let server = Server::start_with(Limits::default(), Duration::from_secs(60)).await;
    let client = server.client().await;
    let (mut stream, mut read) = (subscribe(&client, "a").await, Vec::new());
    let began = Instant::now();
    server.ask_to_stop();
    let (name, data) = event(&mut stream, &mut read).await.unwrap();
    assert_eq!((name.as_str(), &data["reason"]), ("cut_off", &json!("shutting_down")));
    assert_eq!(event(&mut stream, &mut read).await, None);
    server.stop().await;
    assert!(began.elapsed() < Duration::from_secs(20));
}

/// M-7: what breaks the rules of topics, filters and methods is refused by name.
#[tokio::test]
async fn topics_filters_and_methods_have_rules() {
    let server = Server::start(Limits::default()).await;
    let client = server.client().await;
    let cases = [
        (Method::POST, "/v1/publish/a.*", Code::BadName),
        (Method::POST, "/v1/publish/", Code::BadName),
        (Method::GET, "/v1/subscribe/a.**.b", Code::BadName),
        (Method::GET, "/v1/publish/a", Code::MethodNotAllowed),
        (Method::POST, "/v1/subscribe/a", Code::MethodNotAllowed),
        (Method::GET, "/v1/subscribe/a/b", Code::NoSuchRoute),
    ];
    for (method, path, code) in cases {
        let request = Request::builder().method(method).uri(format!("https://node{path}")).body(Bytes::new()).unwrap();
        assert_eq!(client.request(request).await.unwrap().problem().code, code, "{path}");
    }
    server.stop().await;
}

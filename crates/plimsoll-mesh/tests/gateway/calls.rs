//! Calls and their refusals.

use bytes::Bytes;
use http::{Request, StatusCode};
use plimsoll_mesh::gateway::Limits;
use plimsoll_mesh::problem::Code;

use crate::support::{PROVIDER, Server, post};

#[tokio::test]
async fn a_call_is_answered_with_the_services_body_and_media_type() {
    let server = Server::start(Limits::default()).await;
    let client = server.client().await;
    let request = post("echo").header("content-type", "text/x-test").header("plimsoll-call-id", "order-7");
    let answer = client.request(request.body(Bytes::from_static(b"hello")).unwrap()).await.unwrap();
    assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &b"hello"[..]));
    assert_eq!(answer.header("content-type"), Some("text/x-test"));
    assert_eq!(answer.header("plimsoll-call-id"), Some("order-7"));
    let empty = client.call("echo", "").await.unwrap();
    assert_eq!((empty.status, empty.body.len()), (StatusCode::OK, 0));
    server.stop().await;
}

#[tokio::test]
async fn services_and_nodes_are_listed() {
    let server = Server::start(Limits::default()).await;
    let client = server.client().await;
    for (path, list) in [("services", "services"), ("nodes", "nodes")] {
        let request = Request::get(format!("https://node/v1/{path}")).body(Bytes::new()).unwrap();
        let answer = client.request(request).await.unwrap();
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let listing: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(listing["schema"], 1);
        assert_eq!(listing[list].as_array().unwrap().len(), 1);
    }
    server.stop().await;
}

#[tokio::test]
async fn every_refusal_is_a_problem_that_says_where() {
    let server = Server::start(Limits::default()).await;
    let client = server.client().await;
    for &code in Code::ALL {
        if code == Code::ApplicationError {
            continue;
        }
        let answer = client.call(code.as_str(), "").await.unwrap();
        let problem = answer.problem();
        assert_eq!(problem.code, code);
        assert_eq!(problem.node, Some(PROVIDER), "a refusal from another node keeps its place");
        assert_eq!(answer.header("retry-after").is_some(), matches!(answer.status.as_u16(), 429 | 503), "{code:?}");
    }
    let problem = client.call("nobody-offers-this", "").await.unwrap().problem();
    assert_eq!((problem.code, problem.node), (Code::NoProvider, Some(server.node)));
    server.stop().await;
}

#[tokio::test]
async fn a_services_own_refusal_is_its_own_body() {
    let server = Server::start(Limits::default()).await;
    let answer = server.client().await.call("refuse", "too small").await.unwrap();
    assert_eq!((answer.status, &answer.body[..]), (StatusCode::UNPROCESSABLE_ENTITY, &b"too small"[..]));
    assert_eq!(answer.header("content-type"), Some("text/plain"));
    assert_eq!(answer.header("plimsoll-problem"), Some("application_error"));
    server.stop().await;
}

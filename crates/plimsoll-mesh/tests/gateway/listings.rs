//! `GET /v1/services` and `GET /v1/nodes`: built once for each version, whoever asks how often.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use plimsoll_mesh::gateway::Limits;

use crate::support::{Answer, Client, Server, eventually, head};

async fn list(client: &Client, path: &str, if_none_match: Option<&str>) -> Answer {
    let request = Request::get(format!("https://node{path}"));
    let request = match if_none_match {
        Some(tag) => request.header("if-none-match", tag),
        None => request,
    };
    client.request(request.body(Bytes::new()).unwrap()).await.unwrap()
}

/// RFC 9110, 8.8.3 and 13.1.2: a listing has an entity tag, and a client that has it gets 304.
#[tokio::test]
async fn a_listing_has_an_entity_tag() {
    let server = Server::start(Limits::default()).await;
    let client = server.client().await;
    for path in ["/v1/services", "/v1/nodes"] {
        let whole = list(&client, path, None).await;
        let tag = whole.header("etag").expect("an entity tag").to_owned();
        for sent in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()] {
            let none = list(&client, path, Some(&sent)).await;
            assert_eq!(
                (none.status.as_u16(), none.body.len(), none.header("etag")),
                (304, 0, Some(&tag[..])),
                "{sent}"
            );
        }
        assert_eq!(list(&client, path, Some("\"other\"")).await.body, whole.body);
    }
    let before = list(&client, "/v1/services", None).await;
    server.stand.listed.store(1, SeqCst);
    server.stand.version.store(1, SeqCst);
    let after = list(&client, "/v1/services", before.header("etag")).await;
    assert_eq!(after.status, 200, "a new version is shown at once");
    assert!(String::from_utf8_lossy(&after.body).contains("service-00000"));
    server.stop().await;
}

/// One connection that asks and cancels costs no more than a client that asks once in a while.
#[tokio::test]
async fn a_large_listing_is_built_once_for_many_requests() {
    let server = Server::start(Limits::default()).await;
    server.stand.listed.store(10_000, SeqCst);
    let client = server.client().await;
    let began = Instant::now();
    assert!(list(&client, "/v1/services", None).await.body.len() > 1 << 20);
    let attacker = server.client().await;
    let mut asked = 0;
    while attacker.quic.close_reason().is_none() && asked < 500 {
        let Ok((mut send, mut recv)) = attacker.quic.open_bi().await else { break };
        if send.write_all(&head(17, "/v1/services")).await.is_err() {
            break;
        }
        let _ = send.finish();
        let _ = recv.stop(0x10c_u32.into());
        asked += 1;
    }
    assert!(asked > 100, "{asked}");
    eventually("nothing is in flight", || server.gateway.requests().in_flight == 0).await;
    let most = 2 + began.elapsed().as_millis() / 250;
    let built = server.stand.listings.load(SeqCst);
    assert!(built as u128 <= most, "built {built} times, at most {most} were due");
    // A change that must be seen at once is, and rebuilding takes a tenth of the time at most.
    let began = Instant::now();
    for version in 1..=5 {
        server.stand.version.store(version, SeqCst);
        assert_eq!(list(&client, "/v1/services", None).await.status, 200);
    }
    assert!(server.stand.listings.load(SeqCst) >= built + 5);
    assert!(began.elapsed() < Duration::from_secs(60));
    server.stop().await;
}

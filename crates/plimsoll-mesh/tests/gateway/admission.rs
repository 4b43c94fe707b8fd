//! The client cap, the refusal responders and the counters of attempts.

use std::time::{Duration, Instant};

use plimsoll::bounded::Cap;
use plimsoll_mesh::gateway::{AdmissionLimits, Limits};
use plimsoll_mesh::problem::Code;
use quinn::ConnectionError;

use crate::support::{Client, Server, dial, eventually};

fn full() -> Limits {
    Limits { clients: 1, refusal_responders: 1, refusal_timeout: Duration::from_millis(300), ..Limits::default() }
}

/// All clients of these tests come from one origin.
pub(crate) fn one_origin() -> AdmissionLimits {
    AdmissionLimits { per_origin: Some(Cap::of::<10_000>()), ..AdmissionLimits::default() }
}

fn closed_with(error: &ConnectionError) -> (u64, String) {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            (close.error_code.into_inner(), String::from_utf8_lossy(&close.reason).into_owned())
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn over_the_cap_the_first_request_gets_the_reason_and_the_connection_closes() {
    let server = Server::start(full()).await;
    let inside = server.client().await;
    assert_eq!(inside.call("echo", "in").await.unwrap().status, 200);
    let refused = server.client().await;
    let answer = refused.call("echo", "out").await.unwrap();
    assert_eq!(answer.problem().code, Code::MaxClientsReached);
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(closed_with(&refused.quic.closed().await), (0x100, "max_clients_reached".into()));
    eventually("the responder is free", || server.gateway.attempts().responding == 0).await;
    assert_eq!(inside.call("echo", "still in").await.unwrap().status, 200);
    let attempts = server.gateway.attempts();
    assert_eq!((attempts.offered, attempts.served, attempts.refused_with_reason), (2, 1, 1));
    server.stop().await;
}

#[tokio::test]
async fn over_the_cap_a_client_without_a_request_is_closed_with_the_reason() {
    let server = Server::start(full()).await;
    let _inside = server.client().await;
    let began = Instant::now();
    let silent = dial(&server, server.client_config()).await.unwrap();
    assert_eq!(closed_with(&silent.closed().await), (0x100, "max_clients_reached".into()));
    assert!(began.elapsed() >= Duration::from_millis(290));
    eventually("it is counted", || server.gateway.attempts().refused_with_reason == 1).await;
    server.stop().await;
}

#[tokio::test]
async fn when_every_responder_is_busy_the_next_is_refused_without_reason() {
    let server = Server::start(Limits { refusal_timeout: Duration::from_secs(3), ..full() }).await;
    let _inside = server.client().await;
    let _responding = dial(&server, server.client_config()).await.unwrap();
    let refused = dial(&server, server.client_config()).await.unwrap_err();
    let ConnectionError::ConnectionClosed(close) = refused else { panic!("{refused:?}") };
    assert_eq!(close.error_code, quinn::TransportErrorCode::CONNECTION_REFUSED);
    let attempts = server.gateway.attempts();
    assert_eq!((attempts.offered, attempts.refused_without_reason, attempts.responding), (3, 1, 1));
    assert!(attempts.balanced());
    server.stop().await;
}

#[tokio::test]
async fn a_place_is_free_again_when_its_client_leaves() {
    let server = Server::start(full()).await;
    for _ in 0..3 {
        let client = server.client().await;
        assert_eq!(client.call("echo", "in").await.unwrap().status, 200);
        client.quic.close(0u32.into(), b"");
        eventually("the place is free", || server.gateway.attempts().clients == 0).await;
    }
    assert_eq!(server.gateway.attempts().served, 3);
    server.stop().await;
}

#[tokio::test]
async fn a_peer_uses_no_client_slot_whether_the_gateway_is_full_or_not() {
    let server = Server::start(full()).await;
    let first = dial(&server, server.peer_config()).await.unwrap();
    eventually("it is handed over", || server.stand.peers.lock().len() == 1).await;
    assert_eq!(server.gateway.attempts().clients, 0);
    let inside = server.client().await;
    assert_eq!(inside.call("echo", "in").await.unwrap().status, 200);
    let second = dial(&server, server.peer_config()).await.unwrap();
    eventually("the responder hands it over", || server.stand.peers.lock().len() == 2).await;
    eventually("the responder is free", || server.gateway.attempts().responding == 0).await;
    let attempts = server.gateway.attempts();
    assert_eq!((attempts.offered, attempts.served, attempts.peers), (3, 1, 2));
    assert!(first.close_reason().is_none() && second.close_reason().is_none(), "the peers own them now");
    server.stop().await;
}

#[tokio::test]
async fn a_handshake_that_fails_gives_its_place_back() {
    let server = Server::start(full()).await;
    let mut tls = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let distrustful = quinn::ClientConfig::new(std::sync::Arc::new(crypto));
    assert!(dial(&server, distrustful).await.is_err());
    eventually("it is counted", || server.gateway.attempts().failed_handshakes == 1).await;
    assert_eq!(server.gateway.attempts().clients, 0);
    assert_eq!(server.client().await.call("echo", "in").await.unwrap().status, 200);
    server.stop().await;
}

#[tokio::test]
async fn a_handshake_that_never_ends_gives_its_place_back_in_time() {
    let server = Server::start(Limits { handshake_timeout: Duration::from_millis(200), ..full() }).await;
    // A client whose socket changes after its first packet: the answers go nowhere.
    let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    let connecting = endpoint.connect_with(server.client_config(), server.address, "node").unwrap();
    let half = tokio::spawn(connecting);
    eventually("it has begun", || server.gateway.attempts().offered == 1).await;
    if server.gateway.attempts().served == 0 {
        drop(half);
        endpoint.rebind(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
    }
    eventually("it is over", || server.gateway.attempts().clients == 0 || server.gateway.attempts().served == 1).await;
    assert!(server.gateway.attempts().balanced());
    server.stop().await;
}

/// M-6, M-7: checked before accept, and said by name.
#[tokio::test]
async fn of_a_crowd_exactly_the_cap_is_served_and_the_counters_of_both_sides_agree() {
    const CROWD: usize = 120;
    let server =
        Server::start(Limits { clients: 40, refusal_responders: 16, admission: one_origin(), ..Limits::default() })
            .await;
    let mut crowd = tokio::task::JoinSet::new();
    let config = server.client_config();
    let address = server.address;
    for _ in 0..CROWD {
        let config = config.clone();
        crowd.spawn(async move {
            let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
            let Ok(quic) = endpoint.connect_with(config, address, "node").unwrap().await else { return None };
            let client = Client::on(quic).await;
            let refused = match client.call("echo", "me").await {
                Ok(answer) if answer.status == 200 => return Some((client, true)),
                Ok(answer) => answer.problem().code == Code::MaxClientsReached,
                Err(_) => closed_with(&client.quic.closed().await).1 == "max_clients_reached",
            };
            assert!(refused, "a refusal has its reason");
            Some((client, false))
        });
    }
    let outcomes: Vec<_> = crowd.join_all().await;
    let served = outcomes.iter().flatten().filter(|(_, served)| *served).count() as u64;
    let refused = outcomes.iter().flatten().filter(|(_, served)| !served).count() as u64;
    let refused_without_reason = outcomes.iter().filter(|outcome| outcome.is_none()).count() as u64;
    eventually("no attempt is pending", || server.gateway.attempts().pending == 0).await;
    let attempts = server.gateway.attempts();
    assert_eq!((served, served + refused + refused_without_reason), (40, CROWD as u64));
    assert_eq!(attempts.offered, CROWD as u64, "{attempts:?}");
    assert_eq!(
        (attempts.served, attempts.refused_with_reason, attempts.refused_without_reason),
        (served, refused, refused_without_reason),
        "{attempts:?}"
    );
    assert_eq!(attempts.clients_high_water, 40);
    server.stop().await;
}

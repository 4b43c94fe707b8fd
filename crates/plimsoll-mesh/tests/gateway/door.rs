//! The cap, the refusal desk and their ledger.

use std::time::{Duration, Instant};

use plimsoll_mesh::gateway::Limits;
use plimsoll_mesh::problem::Code;
use quinn::ConnectionError;

use crate::support::{Client, Server, dial, eventually};

fn full() -> Limits {
    Limits { clients: 1, desk_places: 1, desk_time: Duration::from_millis(300), ..Limits::default() }
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
async fn over_the_cap_the_first_request_is_told_by_name_and_the_connection_closes() {
    let server = Server::start(full()).await;
    let inside = server.client().await;
    assert_eq!(inside.call("echo", "in").await.unwrap().status, 200);
    let told = server.client().await;
    let answer = told.call("echo", "out").await.unwrap();
    assert_eq!(answer.problem().code, Code::MaxClientsReached);
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(closed_with(&told.quic.closed().await), (0x100, "max_clients_reached".into()));
    eventually("the desk is free", || server.gateway.attempts().at_desk == 0).await;
    assert_eq!(inside.call("echo", "still in").await.unwrap().status, 200);
    let attempts = server.gateway.attempts();
    assert_eq!((attempts.offered, attempts.served, attempts.told), (2, 1, 1));
    server.stop().await;
}

#[tokio::test]
async fn whoever_asks_nothing_at_the_desk_is_closed_with_the_reason_and_counts_as_told() {
    let server = Server::start(full()).await;
    let _inside = server.client().await;
    let began = Instant::now();
    let silent = dial(&server, server.client_config()).await.unwrap();
    assert_eq!(closed_with(&silent.closed().await), (0x100, "max_clients_reached".into()));
    assert!(began.elapsed() >= Duration::from_millis(290));
    eventually("it is counted", || server.gateway.attempts().told == 1).await;
    server.stop().await;
}

#[tokio::test]
async fn when_the_desk_is_full_too_the_next_is_turned_away() {
    let server = Server::start(Limits { desk_time: Duration::from_secs(3), ..full() }).await;
    let _inside = server.client().await;
    let _at_desk = dial(&server, server.client_config()).await.unwrap();
    let refused = dial(&server, server.client_config()).await.unwrap_err();
    let ConnectionError::ConnectionClosed(close) = refused else { panic!("{refused:?}") };
    assert_eq!(close.error_code, quinn::TransportErrorCode::CONNECTION_REFUSED);
    let attempts = server.gateway.attempts();
    assert_eq!((attempts.offered, attempts.turned_away, attempts.at_desk), (3, 1, 1));
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
async fn a_peer_takes_no_clients_place_whether_the_gateway_is_full_or_not() {
    let server = Server::start(full()).await;
    let first = dial(&server, server.peer_config()).await.unwrap();
    eventually("it is handed over", || server.stand.peers.lock().len() == 1).await;
    assert_eq!(server.gateway.attempts().clients, 0);
    let inside = server.client().await;
    assert_eq!(inside.call("echo", "in").await.unwrap().status, 200);
    let second = dial(&server, server.peer_config()).await.unwrap();
    eventually("it is moved on from the desk", || server.stand.peers.lock().len() == 2).await;
    eventually("the desk is free", || server.gateway.attempts().at_desk == 0).await;
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
    let server = Server::start(Limits { handshake_time: Duration::from_millis(200), ..full() }).await;
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
async fn of_a_crowd_exactly_the_cap_is_served_and_both_ledgers_agree() {
    const CROWD: usize = 120;
    let server = Server::start(Limits { clients: 40, desk_places: 16, ..Limits::default() }).await;
    let mut crowd = tokio::task::JoinSet::new();
    let config = server.client_config();
    let address = server.address;
    for _ in 0..CROWD {
        let config = config.clone();
        crowd.spawn(async move {
            let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
            let Ok(quic) = endpoint.connect_with(config, address, "node").unwrap().await else { return None };
            let client = Client::on(quic).await;
            let told = match client.call("echo", "me").await {
                Ok(answer) if answer.status == 200 => return Some((client, true)),
                Ok(answer) => answer.problem().code == Code::MaxClientsReached,
                Err(_) => closed_with(&client.quic.closed().await).1 == "max_clients_reached",
            };
            assert!(told, "a refusal is by name");
            Some((client, false))
        });
    }
    let outcomes: Vec<_> = crowd.join_all().await;
    let served = outcomes.iter().flatten().filter(|(_, served)| *served).count() as u64;
    let told = outcomes.iter().flatten().filter(|(_, served)| !served).count() as u64;
    let turned_away = outcomes.iter().filter(|outcome| outcome.is_none()).count() as u64;
    eventually("the desk is done", || server.gateway.attempts().deciding == 0).await;
    let attempts = server.gateway.attempts();
    assert_eq!((served, served + told + turned_away), (40, CROWD as u64));
    assert_eq!(attempts.offered, CROWD as u64, "{attempts:?}");
    assert_eq!((attempts.served, attempts.told, attempts.turned_away), (served, told, turned_away), "{attempts:?}");
    assert_eq!(attempts.clients_high_water, 40);
    server.stop().await;
}

//! Mutual TLS: who is refused, and that both sides know whom and why.

use std::sync::Arc;

use plimsoll_mesh::events::EventKind;
use plimsoll_mesh::identity::{self, Identity, SERVER_NAME, TrustStore};
use plimsoll_mesh::peers::PeerState;
use plimsoll_mesh::problem::Code;
use quinn::ConnectionError;

use super::calls::{HELLO, raw, raw_with};
use super::support::{Node, Plan, TestResult};

async fn both_say(left: &Node, right: &Node, words: &[&str]) -> TestResult {
    for (here, there) in [(left, right), (right, left)] {
        let seen = here.sees(there.id, PeerState::Refused).await?;
        let reason = seen.reason.unwrap_or_default();
        for word in words {
            assert!(reason.contains(word), "{} says {reason:?}, without {word:?}", here.id);
        }
    }
    Ok(())
}

/// Mutual TLS: a stranger is refused by name.
#[tokio::test]
async fn a_stranger_is_refused_and_both_sides_name_it() -> TestResult {
    let mut host = Plan::new()?;
    host.trust = TrustStore::listed([])?;
    let host_at = host.address()?;
    let host = host.start().await?;
    let stranger = Plan::new()?.dials(host_at, None).start().await?;

    let name = stranger.id.to_string();
    both_say(&stranger, &host, &["is not on the allow-list", &name]).await?;
    assert_eq!((host.counter("up"), host.counter("open")), (0, 0));
    let refused = stranger.call(host.id, "echo", b"").await.err().ok_or("refused")?;
    assert_eq!((refused.problem.code, refused.never_ran), (Code::NoProvider, true));

    // Welcome from now on, and without a restart of either.
    host.trust.add(stranger.id)?;
    host.sees(stranger.id, PeerState::Up).await?;
    assert!(stranger.call(host.id, "echo", b"").await.is_ok());
    tokio::join!(host.stop(), stranger.stop());
    Ok(())
}

/// Mutual TLS: the node that dials has a list too.
#[tokio::test]
async fn a_dialled_stranger_is_refused_as_well() -> TestResult {
    let host = Plan::new()?.start().await?;
    let mut dialling = Plan::new()?.dials(host.address, None);
    dialling.trust = TrustStore::listed([])?;
    let dialling = dialling.start().await?;
    let name = host.id.to_string();
    both_say(&dialling, &host, &["is not on the allow-list", &name]).await?;
    tokio::join!(host.stop(), dialling.stop());
    Ok(())
}

/// Mutual TLS: a wrong key, at an address where another node is expected.
#[tokio::test]
async fn a_wrong_key_is_refused_and_both_sides_name_both() -> TestResult {
    let expected = Identity::generate()?.node_id();
    let host = Plan::new()?.start().await?;
    let dialling = Plan::new()?.dials(host.address, Some(expected)).start().await?;

    let (found, wanted) = (host.id.to_string(), expected.to_string());
    both_say(&dialling, &host, &["expected node", &wanted, &found]).await?;
    let seen = dialling.sees(expected, PeerState::Refused).await?;
    assert!(seen.reason.unwrap_or_default().contains(&found), "the one expected is not there, and who is instead");
    tokio::join!(host.stop(), dialling.stop());
    Ok(())
}

/// Mutual TLS: removed from the list while connected, in mid-call, and refused when it comes back.
#[tokio::test]
async fn a_node_removed_from_the_list_loses_its_connection_and_does_not_come_back() -> TestResult {
    let (host, guest) = (Plan::new()?, Plan::new()?);
    let (host_at, guest_id) = (host.address()?, guest.id());
    let host = Plan { trust: TrustStore::listed([guest_id])?, ..host }.start().await?;
    let guest = guest.dials(host_at, Some(host.id)).start().await?;
    guest.sees(host.id, PeerState::Up).await?;
    let calling = async {
        let call = guest.call(host.id, "hold", b"");
        let removal = async {
            host.service.running(1).await?;
            host.trust.remove(&guest_id);
            TestResult::Ok(())
        };
        tokio::join!(call, removal)
    };
    let (ended, removed) = calling.await;
    removed?;
    let ended = ended.err().ok_or("cut off")?;
    assert_eq!((ended.problem.code, ended.never_ran), (Code::ProviderDied, false));
    assert!(ended.problem.detail.contains("removed from the allow-list"), "{}", ended.problem.detail);
    host.service.running(0).await?;

    // It dials again on its own, with whatever it kept of the former connection: refused each time, by name.
    host.counts("open", 0).await?;
    let refused = host.counter("refused");
    while host.counter("refused") < refused + 2 {
        tokio::time::timeout(std::time::Duration::from_secs(5), host.peers.changes().changed()).await??;
    }
    let name = guest_id.to_string();
    both_say(&guest, &host, &["allow-list", &name]).await?;
    assert_eq!(host.counter("up"), 0);
    tokio::join!(host.stop(), guest.stop());
    Ok(())
}

#[tokio::test]
async fn without_a_certificate_there_is_no_peer() -> TestResult {
    let host = Plan::new()?.start().await?;
    let endpoint = quinn::Endpoint::client((std::net::Ipv4Addr::LOCALHOST, 0).into())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(anyone::Anyone))
        .with_no_client_auth();
    tls.alpn_protocols = vec![identity::ALPN_PEER.to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(quinn::crypto::rustls::QuicClientConfig::try_from(tls)?));
    let connection = endpoint.connect_with(config, host.address, SERVER_NAME)?.await?;
    let ConnectionError::ApplicationClosed(close) = connection.closed().await else {
        return Err("closed otherwise".into());
    };
    let words = String::from_utf8_lossy(&close.reason).into_owned();
    assert!(words.contains("certificate") && words.contains(&host.id.to_string()), "{words}");
    assert!(host.peers.list().is_empty());
    host.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_peer_of_another_realm_is_refused_and_both_sides_say_so() -> TestResult {
    let host = Plan::new()?.start().await?;
    let mut other = Plan::new()?.dials(host.address, None);
    other.config.realm = "test".to_owned();
    let other = other.start().await?;
    both_say(&other, &host, &["realm \"test\"", "realm \"default\""]).await?;
    tokio::join!(host.stop(), other.stop());
    Ok(())
}

/// Issue 10, 7.2: trust that is revoked at any step of the handshake is revoked for good. At the first step the hello is still
/// to come; at the second one the reply to it cannot leave, because the other side gives it no room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trust_revoked_during_the_handshake_is_final() -> TestResult {
    for slow_reply in [false, true] {
        let (mut host, guest) = (Plan::new()?, Plan::new()?);
        host.trust = TrustStore::listed([guest.id()])?;
        let host = host.start().await?;
        let mut transport = quinn::TransportConfig::default();
        if slow_reply {
            transport.stream_receive_window(1_u32.into());
        }
        let (_endpoint, connection) = raw_with(&host, &guest, transport).await?;
        let (mut send, mut recv) = connection.open_bi().await?;
        host.counts("handshakes", 1).await?;
        if slow_reply {
            send.write_all(HELLO).await?;
            send.finish()?;
            // One byte of the reply is here, and the host waits for room for the others.
            let mut byte = [0];
            recv.read_exact(&mut byte).await?;
        }
        host.trust.remove(&guest.id());
        if !slow_reply {
            send.write_all(HELLO).await?;
            send.finish()?;
        }
        // What it gets of the reply does not matter: it is closed in the end.
        let _ = recv.read_to_end(1 << 16).await;
        let closed = connection.closed().await.to_string();
        assert!(closed.contains("allow-list"), "{closed}");
        host.sees(guest.id(), PeerState::Refused).await?;
        host.counts("handshakes", 0).await?;
        host.counts("open", 0).await?;
        assert_eq!(host.counter("up"), 0);
        host.stop().await;
    }
    Ok(())
}

/// As many connections in the handshake as there may be: a further one is turned away for the moment, and not for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_turned_away_because_many_shake_hands_dials_again_by_itself() -> TestResult {
    let mut host = Plan::new()?;
    host.config.max_handshakes = 1;
    host.config.patience = std::time::Duration::from_secs(2);
    let host = host.start().await?;
    let slow = Plan::new()?;
    let (_endpoint, _connection) = raw(&host, &slow).await?;
    host.counts("handshakes", 1).await?;
    let guest = Plan::new()?.dials(host.address, None).start().await?;
    host.sees(guest.id, PeerState::Down).await?;
    guest.sees(host.id, PeerState::Up).await?;
    host.counts("handshakes", 0).await?;
    assert!(host.events.latest(100).iter().any(|event| event.kind == EventKind::CapReached));
    tokio::join!(host.stop(), guest.stop());
    Ok(())
}

mod anyone {
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};
    use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

    #[derive(Debug)]
    pub(super) struct Anyone;

    impl ServerCertVerifier for Anyone {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ECDSA_NISTP256_SHA256]
        }
    }
}
